//! Attributes of mounts, and a mount namespace.

use super::checked;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets attributes of the mount that `mount` is the root of, `mount_setattr(2)`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: MountAttrFlags) -> Result<(), Errno> {
    set_attributes(
        mount,
        libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 },
    )
}

/// Shows the owners of files as the user namespace `userns` maps them.
pub(crate) fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> Result<(), Errno> {
    let userns_fd = u64::try_from(userns.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let attr_set = libc::MOUNT_ATTR_IDMAP;
    set_attributes(mount, libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd })
}

/// Gives the calling thread a mount namespace, and so a root and a working directory, of its own.
pub(crate) fn unshare_mounts() -> Result<(), Errno> {
    // SAFETY: neither of the two flags is CLONE_FILES: all descriptors stay what they are.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS) }
}

fn set_attributes(mount: BorrowedFd<'_>, attr: libc::mount_attr) -> Result<(), Errno> {
    // SAFETY: the path is a C string, `attr` a mount_attr of the size that is given; both live until the call returns, and
    // the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result).map(drop)
}
