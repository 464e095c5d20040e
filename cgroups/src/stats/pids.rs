//! Processes and threads.

use crate::limits::Max;
use crate::policy::parse_max;
use crate::stats::Stats;
use crate::text::{field, number};

/// The processes and threads of a cgroup and everything below it: `pids.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be: `pids.max`.
    pub max: Max<u64>,
    /// The most that there have been. `None` before Linux 6.1.
    pub peak: Option<u64>,
    /// How often the limit was hit: `max` in `pids.events`. On v1, and on v2 before Linux 6.11, how often a fork in this
    /// cgroup was refused, whichever limit it was. `None` where the kernel does not tell.
    pub events_max: Option<u64>,
}

fn of(stats: &mut Stats) -> &mut PidsStats {
    stats.pids.get_or_insert(PidsStats { current: 0, max: Max::Max, peak: None, events_max: None })
}

pub(super) fn current(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).current = number(text)?;
    Some(())
}

pub(super) fn max(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).max = parse_max(text)?;
    Some(())
}

pub(super) fn peak(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).peak = number(text);
    Some(())
}

pub(crate) fn events(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).events_max = field(text, "max");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it() {
        let mut stats = Stats::default();
        let files: [(crate::stats::table::Plain, &[u8]); 4] =
            [(current, b"3\n"), (max, b"max\n"), (peak, b"9\n"), (events, b"max 7\n")];
        for (read, text) in files {
            read(&mut stats, text).unwrap();
        }
        assert!(current(&mut Stats::default(), b"x").is_none() && max(&mut Stats::default(), b"").is_none());
        let expected = PidsStats { current: 3, max: Max::Max, peak: Some(9), events_max: Some(7) };
        assert_eq!(stats.pids.unwrap(), expected);
    }
}
