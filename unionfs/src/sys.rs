//! The one system call that neither rustix nor nix wraps.

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets attributes of the mount that `mount` is the root of, `mount_setattr(2)`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: MountAttrFlags) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
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
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
