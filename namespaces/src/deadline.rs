//! Until when a join is waited for, and what becomes of one that takes longer.

use crate::plan::{Shared, end};
use crate::sys::{self, Birth, Block, Born};
use crate::target::Kind;
use crate::{Error, ErrorKind, Step};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A moment, or never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    pub(crate) const NEVER: Self = Deadline(None);

    /// So far from now. What no clock can tell any more is never.
    pub(crate) fn after(timeout: Option<Duration>) -> Self {
        Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }

    /// As `poll(2)` counts it: rounded up, and what it cannot count is waited for in parts.
    pub(crate) fn left(self) -> PollTimeout {
        let left = self.0.map(|end| end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000));
        left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))
    }

    /// What became of a child that is about to end. Who closes a file of a file system that does not answer takes longer than that: it is left behind, and nothing is known of it.
    pub(crate) fn reap(self, born: &Born) -> Result<Option<i32>, i32> {
        let mut end = [PollFd::new(born.pidfd.as_fd(), PollFlags::POLLIN)];
        while self.0.is_some() {
            match poll(&mut end, self.left()) {
                Ok(0) if self.is_over() => {
                    let _ = sys::send_signal(born.pidfd.as_fd(), libc::SIGKILL);
                    let born = born.clone();
                    leave(None, move || Some(born));
                    return Ok(None);
                }
                Ok(0) | Err(Errno::EINTR) => {}
                _ => break,
            }
        }
        sys::reap(born.pidfd.as_fd(), Block::Yes)
    }

    /// Whether the program runs, or has run, of a child that came to `execve(2)`: who is killed there tells as little as who starts.
    pub(crate) fn has_started(self, born: &Born) -> Result<bool, Error> {
        let failed = |errno| Error::os(Step::Wait, "waitid", errno);
        let never = sys::never_started(born.pidfd.as_fd()).map_err(failed).inspect_err(|_| self.end(born))?;
        Ok(!never)
    }

    /// Kills and reaps a child that the caller will not get.
    pub(crate) fn end(self, born: &Born) {
        let _ = sys::send_signal(born.pidfd.as_fd(), libc::SIGKILL);
        let _ = self.reap(born);
    }
}

impl Shared {
    /// Until when the caller waits from now on.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.parts.timeout)
    }

    pub(crate) fn took_too_long(&self, step: Step) -> Error {
        let target = match self.parts.target.as_ref().map(|target| &*target.0) {
            Some(Kind::Process(process)) => process.name(),
            _ => "target".to_owned(),
        };
        Error::words(ErrorKind::TimedOut, step, target, "the join took longer than it may, and is killed")
    }
}

/// The process between of a join, for the thread that clones it and for who gives up: a descriptor's number means it only as long as nobody closes that.
#[derive(Debug)]
pub(crate) struct Between {
    pub(crate) birth: Birth,
    born: Mutex<Option<Born>>,
}

impl Between {
    pub(crate) fn new() -> Self {
        Between { birth: Birth::new(), born: Mutex::new(None) }
    }

    /// When the clone has returned.
    pub(crate) fn born(&self) -> Option<Born> {
        let mut born = self.born.lock().unwrap_or_else(PoisonError::into_inner);
        if born.is_none() {
            *born = self.birth.take();
        }
        born.clone()
    }

    /// At any time: kills it, if it is there, and returns whether it is. Who cloned it goes on then, and puts away what there is of the `child`.
    pub(crate) fn kill(&self, child: &Birth) -> bool {
        let mut born = self.born.lock().unwrap_or_else(PoisonError::into_inner);
        if born.is_none() && self.birth.is_there(child) {
            *born = self.birth.take();
        }
        if let Some(born) = &*born {
            // It may have ended, and been waited for.
            let _ = sys::send_signal(born.pidfd.as_fd(), libc::SIGKILL);
        }
        born.is_some()
    }
}

/// What is left of a join that the caller has given up: it is waited for when this is dropped.
struct Left<F: FnOnce() -> Option<Born>> {
    thread: Option<JoinHandle<()>>,
    child: Option<F>,
}

impl<F: FnOnce() -> Option<Born>> Drop for Left<F> {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It does not panic, and there is nothing to do if it did.
            let _ = thread.join();
        }
        if let Some(born) = self.child.take().and_then(|child| child()) {
            end(&born);
        }
    }
}

/// Has a thread wait for what has been killed: who cloned, and then its `child`. They go when the kernel lets them: who waits for the answer of a file system is not
/// even killed before that comes.
pub(crate) fn leave(thread: Option<JoinHandle<()>>, child: impl FnOnce() -> Option<Born> + Send + 'static) {
    let left = Left { thread, child: Some(child) };
    // Where there is no thread to be had, it is dropped here: late, but nobody is left behind.
    let _ = thread::Builder::new().name("cofferdam-left".into()).stack_size(STACK).spawn(move || drop(left));
}

/// For a thread that only waits.
const STACK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_rounded_up() {
        assert_eq!(Deadline::NEVER.left(), PollTimeout::NONE);
        assert!(!Deadline::NEVER.is_over());
        assert_eq!(Deadline::after(Some(Duration::MAX)).left(), PollTimeout::NONE);
        assert_eq!(Deadline::after(Some(Duration::from_secs(1 << 40))).left(), PollTimeout::MAX);
        let now = Deadline::after(Some(Duration::ZERO));
        assert!(now.is_over() && now.left() == PollTimeout::ZERO);
        let minute = Deadline::after(Some(Duration::from_secs(60)));
        assert!(!minute.is_over() && minute.left() > PollTimeout::from(1_u8));
    }
}
