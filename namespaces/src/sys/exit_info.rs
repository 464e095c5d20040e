//! What the kernel tells of a process to whoever has its pidfd, `ioctl_pidfd(2)`.

use super::last_errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A `struct pidfd_info`, as of its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// Process ids, user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b;
const EXIT: u64 = 8;

/// How a process has ended that has been waited for, as `wait(2)` encodes it; `None` before.
pub(crate) fn exit_info(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, i32> {
    let mut info = PidfdInfo { mask: EXIT, ..PidfdInfo::default() };
    // SAFETY: this request reads and writes one such struct, whose size is part of its number.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if result != 0 {
        return Err(last_errno());
    }
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}
