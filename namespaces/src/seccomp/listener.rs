//! Answering for the kernel.

use crate::{Error, Step, sys};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// The caller's side of a filter that asks, `seccomp_unotify(2)`: [`Child::seccomp_listener`](crate::Child).
///
/// It polls readable when a call waits to be received, and hung up when nobody is left who is under the filter (Linux 5.8). Several threads may use it,
/// by reference: where each has a copy of the descriptor, one that is too late for a call may wait for ever (before Linux 6.11). When the last copy of it is dropped, what
/// waits fails with `ENOSYS`, and so does whatever the filter asks afterwards.
///
/// ```no_run
/// # use cofferdam_namespaces::{Answer, Error, IdMap, Sandbox, Seccomp};
/// let sandbox = Sandbox::new("/usr/bin/uname").user(IdMap::root()).no_new_privs();
/// let mut child = sandbox.seccomp(Seccomp::notify([libc::SYS_uname])).spawn()?;
/// let listener = child.seccomp_listener.take().expect("asked for");
/// while let Some(call) = listener.receive()? {
///     listener.answer(call.id, Answer::Errno(libc::EPERM))?;
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// What an argument points to is in the memory of the caller of that call, which other threads of its may change at any moment: to let a call go on because of what was
/// read there is no defence ([`Answer::GoOn`]). Answer for it instead, with what was read once.
#[derive(Debug)]
#[doc(alias("seccomp_notif", "SECCOMP_IOCTL_NOTIF_RECV"))]
pub struct SeccompListener {
    fd: OwnedFd,
    /// Held by who takes a call: see `sys::receive_notification`.
    taking: Mutex<()>,
}

/// A system call that waits for its answer, `struct seccomp_notif`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// By which it is answered.
    pub id: u64,
    /// Whose it is: a thread, as the receiver's pid namespace numbers it; 0 if it is not in there.
    pub pid: u32,
    /// The ABI of its number, `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// Its number, in that ABI.
    pub number: i32,
    /// Where it was made.
    pub instruction_pointer: u64,
    /// Its arguments, used or not.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It is not made, and returns this.
    Value(i64),
    /// It is not made, and fails with this, 1 to 4095.
    Errno(i32),
    /// It is made after all. Not for decisions about security: see [`SeccompListener`].
    GoOn,
}

impl SeccompListener {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        SeccompListener { fd, taking: Mutex::new(()) }
    }

    /// The next call that waits, or `None` when nobody is left. Blocks, also if the descriptor polls readable and another thread takes the call.
    /// Before Linux 6.11 who has ended is left until it is reaped: whoever waits here for the end should not be who reaps it afterwards.
    ///
    /// # Errors
    /// What `poll(2)` and `ioctl(2)` say.
    pub fn receive(&self) -> Result<Option<Notification>, Error> {
        sys::receive_notification(self.fd.as_fd(), &self.taking)
            .map_err(|(call, errno)| Error::os(Step::Supervise, call, errno))
    }

    /// Whether it still waits: whoever made it may have been killed, or interrupted by a signal. What is opened by its pid (`/proc/PID/mem`) is its own
    /// if this is true afterwards.
    ///
    /// # Errors
    /// What `ioctl(2)` says.
    #[doc(alias = "SECCOMP_IOCTL_NOTIF_ID_VALID")]
    pub fn is_waiting(&self, id: u64) -> Result<bool, Error> {
        there(sys::is_notification(self.fd.as_fd(), id)).map(|there| there.is_some())
    }

    /// Answers a call. False if it does not wait any more.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for what is no errno; otherwise what `ioctl(2)` says.
    #[doc(alias = "SECCOMP_IOCTL_NOTIF_SEND")]
    pub fn answer(&self, id: u64, answer: Answer) -> Result<bool, Error> {
        if matches!(answer, Answer::Errno(errno) if !(1..=4095).contains(&errno)) {
            return Err(Error::config("answer", "is no errno"));
        }
        there(sys::answer_notification(self.fd.as_fd(), id, answer)).map(|there| there.is_some())
    }

    /// Opens a copy of a descriptor in the process that waits, as the lowest number that is free there, and answers its call with that number. `None` if it does not wait
    /// any more. Linux 5.14.
    ///
    /// # Errors
    /// What `ioctl(2)` says: `EMFILE` if it has too many.
    #[doc(alias("SECCOMP_IOCTL_NOTIF_ADDFD", "SECCOMP_ADDFD_FLAG_SEND"))]
    pub fn answer_with_fd(&self, id: u64, fd: impl AsFd, cloexec: bool) -> Result<Option<u32>, Error> {
        there(sys::add_fd(self.fd.as_fd(), id, fd.as_fd(), cloexec))
    }
}

/// `ENOENT`, or `EINPROGRESS` of a call that has been answered, is nothing that went wrong here.
fn there<T>(result: Result<T, i32>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(libc::ENOENT | libc::EINPROGRESS) => Ok(None),
        Err(errno) => Err(Error::os(Step::Supervise, "ioctl", errno)),
    }
}

impl AsFd for SeccompListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<SeccompListener> for OwnedFd {
    fn from(listener: SeccompListener) -> OwnedFd {
        listener.fd
    }
}

/// Of a listener that came by another way: from a program that passes its own on, say.
impl From<OwnedFd> for SeccompListener {
    fn from(fd: OwnedFd) -> Self {
        SeccompListener::new(fd)
    }
}
