//! A root: a directory as a detached mount. Not a floor, but what its caller and ours begin with.
#![allow(unsafe_code, reason = "one system call that nix has not got")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `open_tree(2)` of a directory, without what is mounted inside of it.
///
/// # Errors
/// Its errno: EPERM without `CAP_SYS_ADMIN`.
pub fn detached(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: a C string and numbers.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
