//! The clocks of a time namespace.

use crate::program::{Program, Sys};
use crate::{Error, Namespaces, Sandbox, Step, idmap};

/// A clock that a time namespace can shift, `time_namespaces(7)`. The wall clock is not among them: there is one for the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Clock {
    /// `CLOCK_MONOTONIC` and its raw and coarse forms: time since boot without sleep.
    Monotonic,
    /// `CLOCK_BOOTTIME`: time since boot, what `/proc/uptime` shows.
    Boottime,
}

/// How far a clock inside is ahead of the caller's: seconds, which may be negative, and nanoseconds on top of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClockOffset {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl ClockOffset {
    /// Half a second behind is `new(-1, 500_000_000)`. At most 999,999,999 nanoseconds.
    #[must_use]
    pub fn new(seconds: i64, nanoseconds: u32) -> Self {
        ClockOffset { seconds, nanoseconds }
    }
}

const NANOSECONDS: u32 = 1_000_000_000;

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    for offset in sandbox.clocks.values() {
        if !sandbox.namespaces.contains(Namespaces::TIME) {
            return Err(Error::config("clock offset", "needs Namespaces::TIME"));
        }
        if offset.nanoseconds >= NANOSECONDS {
            return Err(Error::config("clock offset", "has more than 999999999 nanoseconds"));
        }
    }
    Ok(())
}

/// The namespace is for what the process becomes by `execve(2)`, and its clocks can be set as long as nobody is in it. A clone would be in
/// it at once.
pub(crate) fn compile(program: &mut Program, sandbox: &Sandbox) {
    if !sandbox.namespaces.contains(Namespaces::TIME) {
        return;
    }
    program.call(Step::Time, "", Sys::unshare, [libc::CLONE_NEWTIME.into()]);
    if !sandbox.clocks.is_empty() {
        idmap::write_file(program, Step::Time, c"/proc/self/timens_offsets".to_owned(), text(sandbox));
    }
}

fn text(sandbox: &Sandbox) -> String {
    let line = |(clock, offset): (&Clock, &ClockOffset)| {
        let name = match clock {
            Clock::Monotonic => "monotonic",
            Clock::Boottime => "boottime",
        };
        format!("{name} {} {}\n", offset.seconds, offset.nanoseconds)
    };
    sandbox.clocks.iter().map(line).collect()
}
