//! Answering for the kernel, `seccomp_unotify(2)`; and secrets.

use super::last_errno;
use crate::{Answer, Notification};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

/// Blocks until somebody asks, or nobody is left. With the call that failed.
///
/// Only poll(2) tells that nobody is left: the call that takes a notification sleeps on without one, on kernels up to 6.8 at least. So it is made where it
/// does not sleep, by one thread at a time, which has looked while no other could take what there is.
pub(crate) fn receive_notification(
    listener: BorrowedFd<'_>,
    taking: &Mutex<()>,
) -> Result<Option<Notification>, (&'static str, i32)> {
    loop {
        if ready(listener, PollTimeout::NONE)? == Ready::Gone {
            return Ok(None);
        }
        let _taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
        if ready(listener, PollTimeout::ZERO)? != Ready::Asks {
            continue;
        }
        // The kernel wants zeros.
        let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
        let mut asked = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
        // SAFETY: `asked` is of the type that this request, whose number says its size, writes.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
        match (result, last_errno()) {
            (0, _) => return Ok(Some(notification(&asked))),
            // Whoever asked has gone meanwhile.
            (_, libc::EINTR | libc::ENOENT) => {}
            (_, errno) => return Err(("ioctl", errno)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// A call waits.
    Asks,
    /// Nothing waits, and nothing will.
    Gone,
    NotYet,
}

fn ready(listener: BorrowedFd<'_>, timeout: PollTimeout) -> Result<Ready, (&'static str, i32)> {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(("poll", errno as i32)),
        }
        let [ready] = ready.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        return match ready {
            _ if ready.contains(PollFlags::POLLIN) => Ok(Ready::Asks),
            _ if ready.contains(PollFlags::POLLHUP) => Ok(Ready::Gone),
            _ if ready.is_empty() => Ok(Ready::NotYet),
            // A signal came while another thread had the kernel's lock; or it is no listener.
            _ => match is_notification(listener, 0) {
                Ok(()) | Err(libc::ENOENT | libc::EINTR) => continue,
                Err(_) => Err(("poll", libc::EINVAL)),
            },
        };
    }
}

fn notification(asked: &libc::seccomp_notif) -> Notification {
    let libc::seccomp_data { nr, arch, instruction_pointer, args } = asked.data;
    Notification { id: asked.id, pid: asked.pid, architecture: arch, number: nr, instruction_pointer, args }
}

/// `ENOENT` if it does not wait any more.
pub(crate) fn is_notification(listener: BorrowedFd<'_>, id: u64) -> Result<(), i32> {
    // SAFETY: this request reads one number.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `ENOENT` or `EINPROGRESS` if it does not wait any more.
pub(crate) fn answer_notification(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), i32> {
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Errno(errno) => (0, -errno, 0),
        Answer::GoOn => (0, 0, CONTINUE),
    };
    let response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: `response` is of the type that this request, whose number says its size, reads.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, as wide as the struct has it.
const CONTINUE: u32 = 1;

/// Answers with a new descriptor's number, and tells it.
pub(crate) fn add_fd(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> Result<u32, i32> {
    const SEND: u32 = 2; // SECCOMP_ADDFD_FLAG_SEND
    let request = libc::seccomp_notif_addfd {
        id,
        flags: SEND,
        srcfd: fd.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if cloexec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: `request` is of the type that this request, whose number says its size, reads.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) };
    u32::try_from(result).map_err(|_| last_errno())
}

/// What nobody can guess, `getrandom(2)`.
pub(crate) fn random() -> Result<[u64; 2], i32> {
    let mut secret = [0_u64; 2];
    loop {
        // SAFETY: the kernel writes no more than these 16 bytes, of which any value is a number.
        let got = unsafe { libc::getrandom(secret.as_mut_ptr().cast(), size_of_val(&secret), 0) };
        match (got, last_errno()) {
            (16, _) => return Ok(secret),
            (0.., _) | (_, libc::EINTR) => {}
            (_, errno) => return Err(errno),
        }
    }
}
