//! The system calls for which neither std nor nix has a safe function. The crate's only `unsafe`.
#![allow(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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

/// Installs a seccomp filter for this thread, and all that it starts, whose notifications arrive at
/// the fd returned. Makes no further system call once the filter is there.
///
/// # Errors
/// seccomp(2)'s.
pub(crate) fn seccomp_listen(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // A call that has been received is not interrupted and begun again by a signal that does not
    // kill: each call is counted once.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `program` and the filter that it points to live until the call returns; the kernel
    // only reads them, and keeps a checked copy.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this fd for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that has just come in a message.
pub(crate) fn received(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this fd for us, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Tells the scheduler that sender and receiver take turns, which makes a notification several times
/// faster. Kernels before 6.6 do not know the request and refuse it.
pub(crate) fn seccomp_take_turns(listener: &OwnedFd) {
    let sync_wake_up: u64 = 1; // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
    // SAFETY: the request takes its argument as a number and touches no memory.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, sync_wake_up) };
}

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    pub(crate) pid: i32,
    pub(crate) number: i64,
    pub(crate) args: [u64; 6],
}

/// What the caller gets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// The kernel makes the call as usual.
    GoOn,
    /// The call returns this errno.
    Errno(i32),
}

/// Takes the next notification; blocks if there is none.
///
/// # Errors
/// `ENOENT` if its sender has gone meanwhile, `EINTR`.
pub(crate) fn seccomp_receive(listener: &OwnedFd) -> io::Result<Notification> {
    // SAFETY: a struct of integers, for which zero is a value; the kernel asks for zeroes.
    let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: `call` is of the type that this request, whose number says its size, writes.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = call.pid.cast_signed();
    Ok(Notification { id: call.id, pid, number: i64::from(call.data.nr), args: call.data.args })
}

/// Answers a notification.
///
/// # Errors
/// `ENOENT` if its sender has gone meanwhile.
pub(crate) fn seccomp_answer(listener: &OwnedFd, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::GoOn => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
        Answer::Errno(errno) => (-errno, 0),
    };
    let flags = u32::try_from(flags).map_err(io::Error::other)?;
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: `response` is of the type that this request, whose number says its size, reads.
    let rc = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
