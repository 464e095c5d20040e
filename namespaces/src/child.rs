//! A running process.

#[cfg(feature = "seccomp")]
use crate::handover;
use crate::plan::{Ours, end};
use crate::sys::{self, Block, Born};
use crate::{Error, Namespaces, Report, Step, Terminal, namespace, terminal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at a process that has ended and that somebody traces.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A process that a [`Plan`](crate::Plan) has spawned, held by its pidfd.
///
/// It is never confused with a later process of the same number. All methods take `&self`, from any thread; the exit status can be
/// asked for again and again. [`AsFd`] gives the pidfd, which polls readable once the process has ended: for an event loop, followed by
/// [`try_wait`](Child::try_wait).
///
/// Dropping it neither kills nor reaps the process.
#[derive(Debug)]
#[non_exhaustive]
pub struct Child {
    /// The writing end of the pipe to its standard input, if one was asked for. Drop it to let the program read the end of its input.
    pub stdin: Option<PipeWriter>,
    /// The reading end of the pipe from its standard output, if one was asked for.
    pub stdout: Option<PipeReader>,
    /// The reading end of the pipe from its standard error, if one was asked for.
    pub stderr: Option<PipeReader>,
    /// The caller's side of its terminal, if one was asked for.
    pub terminal: Option<Terminal>,
    /// By which the caller answers what a filter of its asks, if one was [asked for](crate::Seccomp::listener).
    #[cfg(feature = "seccomp")]
    pub seccomp_listener: Option<crate::SeccompListener>,
    pid: u32,
    pidfd: Arc<OwnedFd>,
    report: Report,
    status: Mutex<Option<ExitStatus>>,
    /// A thread that stays as long as the process does, see [`Plan::hold`](crate::Plan::hold).
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Child {
    pub(crate) fn new(born: Born, ours: Ours, report: Report) -> Result<Self, Error> {
        let terminal = ours.terminal.map(terminal::Ours::finish).transpose().inspect_err(|_| end(&born))?;
        #[cfg(feature = "seccomp")]
        let receive = |socket| handover::receive(Step::Seccomp, &socket).map(crate::SeccompListener::new);
        #[cfg(feature = "seccomp")]
        let seccomp_listener = ours.listener.map(receive).transpose().inspect_err(|_| end(&born))?;
        let (Born { pid, pidfd }, [stdin, stdout, stderr]) = (born, ours.streams);
        Ok(Child {
            stdin: stdin.map(Into::into),
            stdout: stdout.map(Into::into),
            stderr: stderr.map(Into::into),
            terminal,
            #[cfg(feature = "seccomp")]
            seccomp_listener,
            pid,
            pidfd,
            report,
            status: Mutex::new(None),
            keeper: Mutex::new(None),
        })
    }

    pub(crate) fn kept_by(mut self, keeper: Option<JoinHandle<()>>) -> Self {
        self.keeper = Mutex::new(keeper);
        self
    }

    /// Its process id in the caller's pid namespace: for a human, or for files below `/proc`. For anything else use the pidfd.
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// How it came to be: what the caller may leave to this crate, and may want to know.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report
    }

    /// A descriptor of one of its namespaces, `namespaces(7)`: to make something in it, join it or keep it.
    ///
    /// # Errors
    /// [`NoSuchProcess`](crate::ErrorKind::NoSuchProcess) or [`NotFound`](crate::ErrorKind::NotFound) if the process has ended;
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) unless exactly one is asked for; `EACCES` without the right to trace the process.
    pub fn namespace(&self, which: Namespaces) -> Result<OwnedFd, Error> {
        namespace::open(self.pid, self.pidfd.as_fd(), which)
    }

    /// Waits until the process has ended. Blocks; a pipe to its standard input stays open meanwhile.
    ///
    /// # Errors
    /// [`StatusLost`](crate::ErrorKind::StatusLost) if somebody else has taken the status: a `waitpid(2)` of another part of the program, or
    /// `SIGCHLD` is ignored.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        loop {
            self.poll(PollTimeout::NONE)?;
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            // It has ended, but another process traces it and has the status first: a hostile program can arrange that.
            match sys::reap(self.pidfd.as_fd(), Block::Look) {
                Ok(_) | Err(libc::ECHILD) => {}
                Err(errno) => return Err(Error::os(Step::Wait, "waitid", errno)),
            }
        }
    }

    /// The exit status, or `None` while the process runs. Does not block.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        // The lock is held over the system call: of two callers, the second must find the status that the first one took.
        let mut known = lock(&self.status);
        if known.is_none() {
            *known = match sys::reap(self.pidfd.as_fd(), Block::No) {
                Ok(status) => status.map(ExitStatus::from_raw),
                Err(libc::ECHILD) => return Err(Error::status_lost()),
                Err(errno) => return Err(Error::os(Step::Wait, "waitid", errno)),
            };
            // The process has ended, and so does the thread that stayed for it: nothing of it is left when the caller has the status.
            if let (Some(_), Some(keeper)) = (*known, lock(&self.keeper).take()) {
                let _ = keeper.join();
            }
        }
        Ok(*known)
    }

    /// Waits until the process has ended, but not longer than `timeout`: then it is `None`.
    ///
    /// # Errors
    /// As [`wait`](Child::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        let start = Instant::now();
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            // Rounded up: a timeout of less than a millisecond is still a wait. What poll(2) cannot count is waited for in parts.
            let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            self.poll(PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX))?;
            let status = self.try_wait()?;
            if status.is_some() || start.elapsed() >= timeout {
                return Ok(status);
            }
            // It may have ended and still be traced by another process, see `wait`: there is nothing to wait for but time.
            std::thread::sleep(LOOK_AGAIN.min(timeout.saturating_sub(start.elapsed())));
        }
    }

    /// Sends the process a signal, by number, `pidfd_send_signal(2)`. Number 0 only asks whether it could be sent.
    ///
    /// With [`Namespaces::PID`] the program is pid 1: `SIGKILL` and `SIGSTOP` reach it, of all others only those that it handles.
    ///
    /// # Errors
    /// [`NoSuchProcess`](crate::ErrorKind::NoSuchProcess) after the process has ended and been waited for; `EINVAL` for a number that is no
    /// signal; `EPERM` if it runs with other credentials now.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        sys::send_signal(self.pidfd.as_fd(), signal)
            .map_err(|e| Error::os(Step::Signal, "pidfd_send_signal", e.raw_os_error().unwrap_or(0)))
    }

    /// Kills the process with `SIGKILL`. That it has ended already is no error. Does not wait.
    ///
    /// # Errors
    /// `EPERM` if it runs with other credentials now.
    pub fn kill(&self) -> Result<(), Error> {
        match self.signal(libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }

    /// Until the process has ended, the time is up or a signal came.
    fn poll(&self, timeout: PollTimeout) -> Result<(), Error> {
        match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::os(Step::Wait, "poll", errno as i32)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pidfd.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
