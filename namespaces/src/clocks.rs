//! The clocks of a time namespace.

use crate::program::{Program, Sys};
use crate::{Error, ErrorKind, Namespaces, Sandbox, Step, idmap};

/// A clock that a time namespace can shift, `time_namespaces(7)`. The wall clock is not among them: there is one for the whole machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Clock {
    /// `CLOCK_MONOTONIC` and its raw and coarse forms: time since boot without sleep.
    Monotonic,
    /// `CLOCK_BOOTTIME`: time since boot, what `/proc/uptime` shows.
    Boottime,
}

/// How far a clock inside is ahead of the caller's: seconds, which may be negative, and nanoseconds on top of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
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

/// The first Linux whose `execve(2)` enters the namespace also in a child that has the caller's memory until then: before, it would start the
/// program with the caller's clocks, without an error.
const SINCE: (u32, u32) = (6, 3);

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    if sandbox.namespaces.contains(Namespaces::TIME) {
        let path = "/proc/sys/kernel/osrelease";
        let failed = |e: std::io::Error| Error::os(Step::Prepare, "openat", e.raw_os_error().unwrap_or(0)).about(path);
        let release = std::fs::read_to_string(path).map_err(failed)?;
        if version(&release) < Some(SINCE) {
            let words = "needs Linux 6.3: before, a program would not enter it";
            return Err(Error::words(ErrorKind::Unsupported, Step::Configure, "time namespace", words));
        }
    }
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

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??))
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

#[cfg(test)]
mod tests {
    use super::{SINCE, version};

    #[test]
    fn releases_are_compared_by_number() {
        for (release, new) in
            [("6.3.0", true), ("6.12.9-amd64", true), ("10.0", true), ("6.1.0-28", false), ("5.99", false)]
        {
            assert_eq!(version(release) >= Some(SINCE), new, "{release}");
        }
        assert!(version("odd") < Some(SINCE));
    }
}
