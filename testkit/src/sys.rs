//! The system calls for which neither std nor nix has a safe function. The crate's only `unsafe`.
#![allow(
    unsafe_code,
    reason = "raw system calls; each block says why it is sound"
)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::unistd::{ForkResult, Pid};

/// Splits a program that has one thread into two.
///
/// # Errors
/// fork(2)'s; and `EBUSY` if the program has more than one thread, because a lock that another one
/// holds would stay locked for ever in the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: there is one thread (checked above, and only that thread could start another), so
    // the child's copy of memory is in a state that ordinary code can go on with.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// `pidfd_open(2)`: an fd that is readable as soon as the process has ended.
///
/// # Errors
/// `ESRCH` if there is no such process.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this fd for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
