//! Processes by pidfd.

use super::last_errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;

/// Whether [`reap`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Yes,
    No,
    /// Waits, and leaves the status for another call.
    Look,
}

/// waitid(2) on a pidfd: what became of the process, as `wait(2)` encodes it; `None` while it runs.
///
/// With `__WALL`, because a child that never started a program has no exit signal.
pub(crate) fn reap(pidfd: BorrowedFd<'_>, block: Block) -> Result<Option<i32>, i32> {
    let options = libc::WEXITED
        | libc::__WALL
        | match block {
            Block::Yes => 0,
            Block::No => libc::WNOHANG,
            Block::Look => libc::WNOWAIT,
        };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is writable and of the right type.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd().cast_unsigned(), info.as_mut_ptr(), options) };
        match (result, last_errno()) {
            (0, _) => break,
            (_, libc::EINTR) => {}
            (_, errno) => return Err(errno),
        }
    }
    // SAFETY: all bytes are initialised, by `zeroed` or by the kernel; every bit pattern is a siginfo_t.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills in the fields of SIGCHLD, or leaves them zero.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok((pid != 0).then_some(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }))
}

/// Whether this number is a pidfd of a child that has not been waited for.
pub(super) fn is_child(number: RawFd) -> bool {
    number >= 0 && is_there(number, libc::__WALL) == Ok(true)
}

/// Whether a child that has left this memory did so by its end, and has started no program: it has no exit signal. One that has started a program has `SIGCHLD`, and is
/// none of these. It may be about to end yet: the kernel wakes its caller first.
pub(crate) fn never_started(pidfd: BorrowedFd<'_>) -> Result<bool, i32> {
    is_there(pidfd.as_raw_fd(), libc::__WCLONE)
}

/// Whether there is such a child, running or not, that has not been waited for.
fn is_there(number: RawFd, which: i32) -> Result<bool, i32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | which;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: `info` is writable and of the right type; a number that is no pidfd is refused.
    let result = unsafe { libc::waitid(libc::P_PIDFD, number.cast_unsigned(), info.as_mut_ptr(), options) };
    match (result, last_errno()) {
        (0, _) => Ok(true),
        (_, libc::ECHILD) => Ok(false),
        (_, errno) => Err(errno),
    }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: numbers and a null pointer only.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null_mut::<libc::siginfo_t>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that has just come by a socket, and that nobody else knows.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // SAFETY: recvmsg(2) or accept4(2) has opened it for the caller, who has it from there.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The same file, CLOEXEC, under a number above this one.
pub(crate) fn copy_above(fd: BorrowedFd<'_>, highest: i32) -> Result<OwnedFd, i32> {
    // SAFETY: numbers only.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, highest + 1) };
    if copy < 0 {
        // The errno for a number beyond the limit of descriptors.
        let errno = last_errno();
        return Err(if errno == libc::EINVAL { libc::EMFILE } else { errno });
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A pidfd of this process.
pub(crate) fn own_pidfd() -> io::Result<OwnedFd> {
    pidfd_of(std::process::id())
}

/// `pidfd_open(2)`.
pub(crate) fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just opened it for us, CLOEXEC.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
