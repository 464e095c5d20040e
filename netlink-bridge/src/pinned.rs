//! A network namespace that is kept by a file, as `ip netns` does.

use crate::{Error, ErrorKind, NetNs, Operation, sys};
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
        let file = openat(&folder, name, flags, MARK).map_err(failed("openat"))?;
        let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&tree, "", &file, "", both).map_err(failed("move_mount")).map_err(|error| {
            match unlinkat(&folder, name, AtFlags::empty()) {
                Ok(()) => error,
                Err(_) => error.leaving(path.to_string_lossy()),
            }
        })
    }

    /// Takes away what [`pin`](NetNs::pin) or `ip netns` made: the mount (all of them, if there is one on the other) and the empty file below. It is no
    /// error if there is nothing. The namespace ends with its last process and descriptor.
    ///
    /// An empty file on which nothing is mounted is removed only if `pin` made it, and was killed before it mounted.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign) if there is something else than a pinned network namespace; [`PermissionDenied`](ErrorKind::PermissionDenied).
    pub fn unpin(path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let (folder, name) = match split(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            split => split?,
        };
        let look = || match openat(&folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            file => file.map(Some).map_err(failed("openat", path)),
        };
        for mounts in 0..=MOUNTS {
            let Some(file) = look()? else { return Ok(()) };
            if fstatfs(&file).map_err(failed("fstatfs", path))?.f_type != NSFS {
                refuse_anothers(&file, mounts > 0, path)?;
                return match unlinkat(&folder, name, AtFlags::empty()) {
                    Err(Errno::NOENT) => Ok(()),
                    removed => removed.map_err(failed("unlinkat", path)),
                };
            }
            unmount_namespace(&file, path)?;
        }
        let words = "one namespace after the other is mounted there";
        Err(Error::words(ErrorKind::Os, Operation::PinNamespace, words).about(path.to_string_lossy()))
    }
}

/// Unmounts what this descriptor is of, if it is a network namespace. It is looked up once: what is unmounted is what was looked at.
fn unmount_namespace(file: &OwnedFd, path: &Path) -> Result<(), Error> {
    let by_descriptor = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let readable = openat(CWD, &by_descriptor, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let readable = readable.map_err(failed("openat", path))?;
    let kind = sys::kind_of_namespace(readable.as_fd()).map_err(failed("ioctl", path))?;
    if kind != libc::CLONE_NEWNET {
        return Err(foreign(path));
    }
    // It is in use, by these descriptors.
    unmount(by_descriptor, UnmountFlags::DETACH).map_err(failed("umount2", path))
}

/// Refuses a file that was not made to be mounted on: it is empty, and had a namespace on it or is marked by `pin`.
fn refuse_anothers(file: &OwnedFd, was_mounted_on: bool, path: &Path) -> Result<(), Error> {
    let found = fstat(file).map_err(failed("fstat", path))?;
    let is_empty = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size == 0;
    let mode = Mode::from_raw_mode(found.st_mode);
    // The umask may have taken the permission.
    let is_marked = mode.contains(Mode::SVTX) && MARK.contains(mode);
    if is_empty && (was_mounted_on || is_marked) { Ok(()) } else { Err(foreign(path)) }
}

/// The mode of the file that `pin` makes. On a file the sticky bit means nothing: who was killed before mounting is known by it.
const MARK: Mode = Mode::SVTX.union(Mode::RUSR);
/// So many mounts, one on the other, are taken away.
const MOUNTS: usize = 64;
const CLOEXEC: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLOEXEC;

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
    let path = path.to_string_lossy().into_owned();
    move |errno| Error::os(Operation::PinNamespace, call, errno.raw_os_error()).about(path.clone())
}

fn foreign(path: &Path) -> Error {
    let words = "this is no pinned network namespace";
    Error::words(ErrorKind::Foreign, Operation::PinNamespace, words).about(path.to_string_lossy())
}

/// The folder, opened, and the name in it.
fn split(path: &Path) -> Result<(OwnedFd, &OsStr), Error> {
    let name = path.file_name().ok_or_else(|| Error::config(path.to_string_lossy(), "is no name of a file"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((openat(CWD, folder, flags, Mode::empty()).map_err(failed("openat", path))?, name))
}
