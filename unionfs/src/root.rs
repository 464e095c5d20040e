//! Files inside of a tree that somebody else has filled.

use crate::{Error, ErrorKind, Operation};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How often a lookup is tried again because somebody renamed something meanwhile: the kernel cannot tell then whether `..` is still inside.
const ATTEMPTS: usize = 128;

/// A directory as a root: names are looked up *inside*, whatever symbolic links are in it.
///
/// ```no_run
/// use cofferdam_unionfs::{Overlay, RootDir};
///
/// let root = RootDir::new(Overlay::new().lower("/var/lib/layers/debian").mount()?);
/// // If /etc/passwd in there is a link to /etc/shadow, that is the tree's own /etc/shadow, or nothing.
/// let passwd = root.read("/etc/passwd", 1 << 20)?;
/// # Ok::<(), cofferdam_unionfs::Error>(())
/// ```
///
/// Absolute and relative paths both start at the directory, absolute links lead back to it, and `..` does not lead above it, as after `chroot(2)`, only
/// that nothing has to be entered: `openat2(2)` with `RESOLVE_IN_ROOT` does it, also while others rename directories in the tree. Links
/// of `/proc` that lead anywhere (`/proc/self/root`) are refused. What is mounted inside is gone into.
///
/// Opening never waits and has no effect on devices: only ordinary files are opened, after a look at what they are. Needs `/proc`.
#[derive(Debug)]
#[doc(alias("chroot", "openat2", "securejoin", "pathrs"))]
pub struct RootDir(OwnedFd);

impl RootDir {
    /// Takes a directory, which may be `O_PATH`, or the root of a detached mount.
    pub fn new(dir: impl Into<OwnedFd>) -> Self {
        RootDir(dir.into())
    }

    /// Opens an ordinary file for reading. Links are followed, inside.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`InvalidInput`](ErrorKind::InvalidInput) for what is not an ordinary file; `ELOOP`; what the system calls say.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<File, Error> {
        let path = path.as_ref();
        let found = self.find(path, OFlags::PATH)?;
        let stat = fstat(&found).map_err(|e| failed("fstat", e, path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::invalid(Operation::InRoot, path, "is not an ordinary file"));
        }
        // The very file that was looked at, not whatever has its name now.
        let link = format!("/proc/thread-self/fd/{}", found.as_raw_fd());
        let file = openat(CWD, link, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        Ok(file.map_err(|e| failed("openat", e, path))?.into())
    }

    /// Reads an ordinary file of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`LimitReached`](ErrorKind::LimitReached) if it is longer.
    pub fn read(&self, path: impl AsRef<Path>, limit: usize) -> Result<Vec<u8>, Error> {
        let path = path.as_ref();
        let mut content = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let result = self.open(path)?.take(most).read_to_end(&mut content);
        result.map_err(|e| failed("read", Errno::from_io_error(&e).unwrap_or(Errno::IO), path))?;
        if content.len() > limit {
            let words = "is longer than what the caller takes";
            return Err(Error::explained(ErrorKind::LimitReached, Operation::InRoot, words).about(path));
        }
        Ok(content)
    }

    /// Makes an ordinary file and opens it for writing. Links are followed, except the last name: nothing may be there yet, not even a link.
    /// The mode is subject to the umask.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); [`NotFound`](ErrorKind::NotFound) without the directory;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path that does not end with a name; what the system calls say.
    pub fn create(&self, path: impl AsRef<Path>, mode: u32) -> Result<File, Error> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::from_raw_mode(mode & 0o7777));
        Ok(file.map_err(|e| failed("openat", e, path))?.into())
    }

    /// Makes a directory. The mode is subject to the umask.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    #[doc(alias = "mkdir")]
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        let (parent, name) = self.parent(path)?;
        mkdirat(&parent, name, Mode::from_raw_mode(mode & 0o7777)).map_err(|e| failed("mkdirat", e, path))
    }

    /// Opens a directory for reading, as a root of its own: from there, nothing above it can be reached.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), also for what is no directory; what the system calls say.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<RootDir, Error> {
        self.find(path.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY).map(RootDir)
    }

    /// What a file of any kind is. Links are followed, inside.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); what the system calls say.
    #[doc(alias = "stat")]
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.look(path.as_ref(), OFlags::PATH)
    }

    /// As [`metadata`](Self::metadata), but a link in the last place is not followed.
    ///
    /// # Errors
    /// As `metadata`.
    #[doc(alias = "lstat")]
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata, Error> {
        self.look(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Where a symbolic link says that it leads.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), also for what is no link; what the system calls say.
    #[doc(alias = "readlink")]
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, Error> {
        let path = path.as_ref();
        let link = self.find(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = readlinkat(link, "", Vec::new()).map_err(|e| failed("readlinkat", e, path))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn look(&self, path: &Path, flags: OFlags) -> Result<Metadata, Error> {
        let found = File::from(self.find(path, flags)?);
        found.metadata().map_err(|e| failed("statx", Errno::from_io_error(&e).unwrap_or(Errno::IO), path))
    }

    fn find(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The root by no name, as others say it.
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..ATTEMPTS {
            match openat2(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                result => return result.map_err(|e| failed("openat2", e, path)),
            }
        }
        Err(failed("openat2", Errno::AGAIN, path))
    }

    /// The directory of a name that is to be made.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Error> {
        let refuse = || Error::invalid(Operation::InRoot, path, "does not end with the name of a file");
        let name = path.file_name().ok_or_else(refuse)?;
        // file_name() overlooks a slash or a dot at the end.
        if !path.as_os_str().as_bytes().ends_with(name.as_bytes()) {
            return Err(refuse());
        }
        let parent = path.parent().ok_or_else(refuse)?;
        Ok((self.find(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }
}

fn failed(call: &'static str, errno: Errno, path: &Path) -> Error {
    Error::os(Operation::InRoot, call, errno).about(path)
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<RootDir> for OwnedFd {
    fn from(root: RootDir) -> Self {
        root.0
    }
}
