//! Pseudoterminals, `pty(7)`, `ioctl_tty(2)`.

use super::last_errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Lets the other side be opened.
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> Result<(), i32> {
    let unlocked: libc::c_int = 0;
    // SAFETY: this request reads one int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The other side, whatever lies at its path (CVE-2025-52565).
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd, i32> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this request takes a number.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just opened it for us, CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rows and columns.
pub(crate) fn terminal_size(terminal: BorrowedFd<'_>) -> Result<(u16, u16), i32> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request writes one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 { Ok((size.ws_row, size.ws_col)) } else { Err(last_errno()) }
}

pub(crate) fn set_terminal_size(terminal: BorrowedFd<'_>, (rows, columns): (u16, u16)) -> Result<(), i32> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
