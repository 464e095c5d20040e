//! A mount namespace for a moment: on older kernels a layer, or a mount, must be attached somewhere, and nobody is to see it.

use crate::layer::{OpenFd, OpenLayer};
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

/// Runs something on a thread with a mount namespace of its own, in which nothing reaches the caller's. What is mounted there goes with the thread, but for what a descriptor holds.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |call, e| Error::os(Operation::Mount, call, e).about("a mount namespace for a moment");
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cofferdam-mount".into()).spawn_scoped(scope, || {
            crate::sys::unshare_mounts().map_err(|e| failed("unshare", e))?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).map_err(|e| failed("mount", e))?;
            work()
        });
        let thread = thread.map_err(|e| failed("clone3", Errno::from_io_error(&e).unwrap_or(Errno::AGAIN)))?;
        let ended = |_| Error::explained(ErrorKind::Os, Operation::Mount, "the thread for a mount namespace has ended");
        thread.join().unwrap_or_else(|panic| Err(ended(panic)))
    })
}

/// The same layer in the namespace of this thread: opened again by its path; with other owners, attached there.
pub(crate) fn here<'a>(layer: &'a OpenLayer<'_>) -> Result<OpenLayer<'a>, Error> {
    let name: Cow<'a, std::ffi::OsStr> = Cow::Borrowed(layer.name.as_ref());
    let failed = |operation, call, e| Error::os(operation, call, e).about(&name);
    let link = format!("/proc/thread-self/fd/{}", layer.as_fd().as_raw_fd());
    let path = readlinkat(CWD, link, Vec::new()).map_err(|e| failed(Operation::OpenLayer, "readlinkat", e))?;
    let path = OsString::from_vec(path.into_bytes());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, &path, flags, Mode::empty()).map_err(|e| failed(Operation::OpenLayer, "openat", e))?;
    let (opaque_root, userns) = (layer.opaque_root, layer.userns);
    let found = OpenLayer { fd: OpenFd::Own(fd), opaque_root, userns, idmapped: None, name: Cow::clone(&name) };
    if found.identity()? != layer.identity()? {
        let words = "is not at its path any more, where this kernel needs it";
        return Err(Error::explained(ErrorKind::Unsupported, Operation::OpenLayer, words).about(path));
    }
    let found = found.with_owners()?;
    if let Some(mount) = &found.idmapped {
        // On top of the root of this namespace, where no path leads.
        move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|e| failed(Operation::Idmap, "move_mount", e))?;
    }
    Ok(found)
}
