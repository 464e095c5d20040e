//! Loop devices, `loop(4)`.

use super::checked;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_CONFIGURE: u64 = 0x4c0a;
/// It goes with the last who has it open or mounted.
const AUTOCLEAR: u32 = 4;

/// `struct loop_config`, with the `struct loop_info64` in it.
#[repr(C)]
struct Config {
    file: u32,
    block_size: u32,
    unused: [u64; 5],
    numbers: [u32; 3],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// The number of a device that nobody has: at this moment.
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: without an argument.
    let number = checked(unsafe { libc::syscall(libc::SYS_ioctl, control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_| Errno::RANGE)
}

/// Makes a file the content of a loop device until nobody has it open or mounted any more: Linux 5.8. The device keeps the file, and so its `flock(2)`.
pub(crate) fn attach(device: BorrowedFd<'_>, file: BorrowedFd<'_>, block_size: u32) -> Result<(), Errno> {
    let config = Config {
        file: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size,
        unused: [0; 5],
        numbers: [0; 3],
        flags: AUTOCLEAR,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: the struct of that command, which the kernel reads.
    checked(unsafe { libc::syscall(libc::SYS_ioctl, device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}
