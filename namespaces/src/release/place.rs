//! The socket in the file system: made so that nothing is replaced or followed, taken away if it is still ours.

use crate::{Error, ErrorKind, Step};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many may ask at the same time.
const BACKLOG: i32 = 16;

/// Gone when this is.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
    /// Device and inode.
    id: (u64, u64),
}

impl Place {
    pub(super) fn listen(path: &Path, mode: u32) -> Result<(OwnedFd, Self), Error> {
        let failed = |call| move |errno: Errno| Error::os(Step::Release, call, errno as i32).about(path);
        if mode > 0o777 {
            return Err(Error::config("mode", "is more than 0o777"));
        }
        let Some(name) = path.file_name() else { return Err(Error::config(path, "has no name at its end")) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(parent, flags, Mode::empty()).map_err(failed("openat"))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed("socket"))?;
        // The file gets the socket's mode, from its first moment.
        fchmod(&listener, Mode::from_bits_truncate(mode)).map_err(failed("fchmod"))?;
        // An address has room for 107 bytes, and a folder's path may be longer.
        let there = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let address = UnixAddr::new(&there).map_err(failed("bind"))?;
        match bind(listener.as_raw_fd(), &address) {
            Ok(()) => {}
            Err(errno @ Errno::EADDRINUSE) => return Err(failed("bind")(errno).of_kind(ErrorKind::Busy)),
            Err(errno) => return Err(failed("bind")(errno)),
        }
        let id = identity(&directory, name).map_err(|errno| {
            // It was made a moment ago, and nobody else would take it away.
            let _ = unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir);
            failed("newfstatat")(errno)
        })?;
        let place = Place { directory, name: name.to_owned(), id };
        let backlog = Backlog::new(BACKLOG).map_err(failed("listen"))?;
        listen(&listener, backlog).map_err(failed("listen"))?;
        Ok((listener, place))
    }
}

fn identity(directory: &OwnedFd, name: &std::ffi::OsStr) -> Result<(u64, u64), Errno> {
    let stat = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Drop for Place {
    fn drop(&mut self) {
        // If somebody has put something else there, it is theirs.
        if identity(&self.directory, &self.name) == Ok(self.id) {
            let _ = unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
