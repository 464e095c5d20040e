//! What the kernel tells of a namespace, `ioctl_nsfs(2)`.

use super::last_errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Another namespace that one has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Related {
    /// The user namespace that owns it.
    Owner = 0xb701, // NS_GET_USERNS
    /// The one that it was made in, of a pid or user namespace.
    Parent = 0xb702, // NS_GET_PARENT
}

const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// A descriptor of the other namespace; `EPERM` if that is outside the caller's own.
pub(crate) fn related_namespace(namespace: BorrowedFd<'_>, which: Related) -> Result<OwnedFd, i32> {
    // SAFETY: this request takes no argument, and nothing but a namespace answers it.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), which as libc::Ioctl) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just opened it for us, CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user who made a user namespace, as the caller's user namespace numbers users.
pub(crate) fn owner_of_namespace(namespace: BorrowedFd<'_>) -> Result<u32, i32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: this request writes one uid_t, which is there for it.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    if result == 0 { Ok(uid) } else { Err(last_errno()) }
}

/// Which of the eight kinds it is, as the flag of `clone(2)` that makes one.
pub(crate) fn kind_of_namespace(namespace: BorrowedFd<'_>) -> Result<u64, i32> {
    // SAFETY: this request takes no argument, and nothing but a namespace answers it.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    u64::try_from(kind).map_err(|_| last_errno())
}
