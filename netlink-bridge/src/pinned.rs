//! A network namespace that is kept by a file, as `ip netns` does.

use crate::{Error, ErrorKind, NetNs, Operation};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, fstatfs, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

/// `linux/magic.h`: what the file of a namespace is on.
const NSFS: i64 = 0x6e73_6673;

impl NetNs {
    /// Keeps the namespace by a file, which must not be there yet: it lives without a process or a descriptor until [`unpin`](NetNs::unpin), and
    /// [`from_path`](NetNs::from_path) opens it. In `/run/netns` (which `ip-netns(8)` makes, and shares with other mount namespaces) `ip netns` knows it too.
    ///
    /// It is a mount, and seen where the caller's mounts are: in its mount namespace, and those that mounts there propagate to.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists), [`NotFound`](ErrorKind::NotFound) if there is no such folder,
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`. No file is left.
    #[doc(alias("ip netns", "persistent", "bind mount"))]
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let failed = |call| failed(call, path);
        let (folder, name) = split(path)?;
        let tree = open_tree(self.as_fd(), "", OpenTreeFlags::OPEN_TREE_CLONE | CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH);
        let tree = tree.map_err(failed("open_tree"))?;
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, name, flags, Mode::RUSR).map_err(failed("openat"))?;
        let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &file, "", both).map_err(failed("move_mount")).map_err(|error| {
            match unlinkat(&folder, name, AtFlags::empty()) {
                Ok(()) => error,
                Err(_) => error.leaving(path.to_string_lossy()),
            }
        })
    }

    /// Takes away what [`pin`](NetNs::pin) or `ip netns` made. It is no error if there is nothing. The namespace ends with its last process and descriptor.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign) if there is something else than a pinned namespace; [`PermissionDenied`](ErrorKind::PermissionDenied).
    pub fn unpin(path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let failed = |call| failed(call, path);
        let (folder, name) = match split(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            split => split?,
        };
        // Looked up once: what is unmounted is what was looked at.
        let look = || match openat(&folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            file => file.map(Some).map_err(failed("openat")),
        };
        let Some(file) = look()? else { return Ok(()) };
        if fstatfs(&file).map_err(failed("fstatfs"))?.f_type == NSFS {
            // It is in use, by this descriptor.
            let by_descriptor = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
            unmount(by_descriptor, UnmountFlags::DETACH).map_err(failed("umount2"))?;
        }
        drop(file);
        // One who was killed between making the file and mounting leaves it empty.
        let Some(file) = look()? else { return Ok(()) };
        let found = fstat(&file).map_err(failed("fstat"))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_size != 0 {
            let words = "this is no pinned namespace";
            return Err(Error::words(ErrorKind::Foreign, Operation::PinNamespace, words).about(path.to_string_lossy()));
        }
        match unlinkat(&folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.map_err(failed("unlinkat")),
        }
    }
}

const CLOEXEC: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLOEXEC;

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
    let path = path.to_string_lossy().into_owned();
    move |errno| Error::os(Operation::PinNamespace, call, errno.raw_os_error()).about(path.clone())
}

/// The folder, opened, and the name in it.
fn split(path: &Path) -> Result<(OwnedFd, &OsStr), Error> {
    let name = path.file_name().ok_or_else(|| Error::config(path.to_string_lossy(), "is no name of a file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat(CWD, folder, flags, Mode::empty()).map_err(failed("openat", path))?, name))
}
