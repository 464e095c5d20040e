//! Waiting for what the kernel does in its own time, up to a deadline.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::dir::{Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result, gone_is_fine};
use crate::kill::processes_below;
use crate::layout::Version;
use crate::member::Member;
use crate::text;

/// Between two looks where the kernel gives no event (v1).
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Waits until no process is in or below: by the kernel's event on v2, by looking again on v1.
pub(crate) fn wait_until_empty(member: &Member, deadline: Deadline) -> Result<()> {
    let waited = match member.version() {
        Version::V2 => wait_for_event(&member.dir, "populated", 0, deadline),
        Version::V1 => look_until_empty(&member.dir, deadline),
    };
    gone_is_fine(waited)
}

/// Waits until a field of `cgroup.events` has a value, or is not there.
pub(crate) fn wait_for_event(dir: &Dir, field: &str, value: u64, deadline: Deadline) -> Result<()> {
    const EVENTS: &str = "cgroup.events";
    let events = dir.readable(EVENTS)?;
    let failed = |errno| Error::os(errno, Op::Wait, dir.path());
    loop {
        let mut buffer = buffer();
        // Reading also arms the event, so that no change is lost between this and the poll.
        let n = rustix::io::pread(&events, &mut buffer[..], 0).map_err(failed)?;
        if text::field(buffer.get(..n).unwrap_or_default(), field).is_none_or(|found| found == value) {
            return Ok(());
        }
        let mut watched = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut watched, Some(&deadline.remaining())) {
            Ok(0) if deadline.has_passed() => {
                return Err(Error::new(ErrorKind::TimedOut, Op::Wait, dir.path()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn look_until_empty(dir: &Dir, deadline: Deadline) -> Result<()> {
    loop {
        let mut pids = BTreeSet::new();
        processes_below(dir, &mut pids)?;
        if pids.is_empty() {
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(Error::new(ErrorKind::TimedOut, Op::Wait, dir.path()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A point in time at which waiting ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A time-out too long to be expressed never passes.
    pub(crate) fn after(timeout: Duration) -> Self {
        Deadline(Instant::now().checked_add(timeout))
    }

    pub(crate) fn at_most(self, timeout: Duration) -> Self {
        let other = Self::after(timeout).0;
        Deadline(match (self.0, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    pub(crate) fn remaining(self) -> Timespec {
        const LONG: Duration = Duration::from_secs(3600);
        let left = self.0.map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
        Timespec {
            tv_sec: i64::try_from(left.min(LONG).as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.min(LONG).subsec_nanos()),
        }
    }
}
