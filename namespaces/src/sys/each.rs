//! Each descriptor that a folder of them lists, where the kernel cannot close a range.

use super::raw::{errno_of, syscall6};
use super::script::byte;
use crate::program::SCRATCH;
use std::sync::atomic::AtomicU64;

/// Bytes of a `struct linux_dirent64` before the name, and where in it its length stands.
const HEAD: usize = 19;
const LENGTH: usize = 16;

/// Goes on with the entries that the first getdents64(2) has `read`, until there are no more; what `each` says of a descriptor is an errno, or 0.
pub(super) fn for_each(scratch: &[AtomicU64; SCRATCH], args: [u64; 6], read: i64, each: impl Fn(u64) -> i32) -> i32 {
    let mut read = read;
    while read > 0 {
        let end = usize::try_from(read).unwrap_or(0);
        let mut at = 0;
        while at + HEAD < end {
            let length = usize::from(byte(scratch, at + LENGTH)) | usize::from(byte(scratch, at + LENGTH + 1)) << 8;
            let errno = number(scratch, at + HEAD, end).map_or(0, &each);
            if errno != 0 || length == 0 {
                return errno;
            }
            at += length;
        }
        // SAFETY: the words are this child's own, and as many as `args` says; the folder is a descriptor of its own.
        read = unsafe { syscall6(libc::SYS_getdents64, args) };
    }
    if read < 0 { errno_of(read) } else { 0 }
}

/// A name that is a number. `.` and `..` are none.
fn number(scratch: &[AtomicU64; SCRATCH], from: usize, end: usize) -> Option<u64> {
    let mut value = None;
    for at in from..end {
        match byte(scratch, at) {
            0 => return value,
            digit @ b'0'..=b'9' => {
                value = Some(value.unwrap_or(0_u64).wrapping_mul(10).wrapping_add((digit - b'0').into()));
            }
            _ => return None,
        }
    }
    None
}

/// Closes it at the start of a program.
pub(super) fn mark(fd: u64) -> i32 {
    if fd <= 2 {
        return 0;
    }
    // SAFETY: numbers only; the descriptors are this child's own.
    let result = unsafe { syscall6(libc::SYS_fcntl, [fd, libc::F_SETFD as u64, libc::FD_CLOEXEC as u64, 0, 0, 0]) };
    if result < 0 { errno_of(result) } else { 0 }
}

/// Closes it now. An error is not one that matters: the descriptor is gone all the same.
pub(super) fn close(fd: u64) -> i32 {
    if fd > 2 {
        // SAFETY: as above.
        unsafe { syscall6(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
    }
    0
}
