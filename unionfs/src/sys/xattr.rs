//! Extended attributes by a directory and a name, `getxattrat(2)` and `listxattrat(2)`: Linux 6.13.

use super::checked;
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// On every architecture the same, and not in libc yet.
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;

#[repr(C)]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

/// The value of an attribute, into `value`; the answer is how long it is. Of a link it is the link's. An empty path is `dir` itself.
pub(crate) fn get(dir: BorrowedFd<'_>, path: &CStr, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
    let args = Args { value: value.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: two C strings; `args` says where `value` is and how long, into which the kernel writes at most that many bytes. All
    // live until the call returns.
    checked(unsafe {
        libc::syscall(
            GETXATTRAT,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags(path),
            name.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    })
}

/// The names of all attributes, each with a zero byte at its end, into `list`.
pub(crate) fn list(dir: BorrowedFd<'_>, path: &CStr, list: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: a C string, and a buffer of the length that is given. Both live until the call returns.
    checked(unsafe {
        libc::syscall(LISTXATTRAT, dir.as_raw_fd(), path.as_ptr(), flags(path), list.as_mut_ptr(), list.len())
    })
}

fn flags(path: &CStr) -> libc::c_int {
    if path.is_empty() { libc::AT_EMPTY_PATH } else { libc::AT_SYMLINK_NOFOLLOW }
}
