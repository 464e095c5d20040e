//! What the kernel has counted, and how its text is read. No allocation; fields that we do not know are passed over.

use std::time::Duration;

use crate::limits::Max;
use crate::text::{field, fields, number};

/// CPU time used by a cgroup and everything below it, since it was made: `cpu.stat` (v2), `cpuacct.usage*` and
/// `cpu.stat` (v1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CpuStats {
    /// All CPU time.
    pub usage: Duration,
    /// The part spent in user mode.
    pub user: Duration,
    /// The part spent in the kernel.
    pub system: Duration,
    /// How many periods have passed in which the cgroup wanted to run. `None` where the cpu controller is not on.
    pub nr_periods: Option<u64>,
    /// In how many of those it was stopped by its quota.
    pub nr_throttled: Option<u64>,
    /// For how long, summed over the CPUs.
    pub throttled: Option<Duration>,
}

/// The processes and threads of a cgroup and everything below it: `pids.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// v2's `cpu.stat`, in microseconds. `None` if what every kernel has is missing.
pub(crate) fn cpu_v2(text: &[u8]) -> Option<CpuStats> {
    let mut stats = CpuStats::default();
    let (mut usage, mut user, mut system) = (None, None, None);
    for (key, value) in fields(text) {
        match key {
            b"usage_usec" => usage = Some(value),
            b"user_usec" => user = Some(value),
            b"system_usec" => system = Some(value),
            b"nr_periods" => stats.nr_periods = Some(value),
            b"nr_throttled" => stats.nr_throttled = Some(value),
            b"throttled_usec" => stats.throttled = Some(Duration::from_micros(value)),
            _ => {}
        }
    }
    stats.usage = Duration::from_micros(usage?);
    stats.user = Duration::from_micros(user?);
    stats.system = Duration::from_micros(system?);
    Some(stats)
}

/// v1's `cpuacct.usage`, `cpuacct.usage_user` and `cpuacct.usage_sys`, in nanoseconds.
pub(crate) fn cpu_v1(usage: &[u8], user: &[u8], system: &[u8]) -> Option<CpuStats> {
    Some(CpuStats {
        usage: Duration::from_nanos(number(usage)?),
        user: Duration::from_nanos(number(user)?),
        system: Duration::from_nanos(number(system)?),
        ..CpuStats::default()
    })
}

/// Adds v1's `cpu.stat`, in nanoseconds.
pub(crate) fn throttling_v1(stats: &mut CpuStats, text: &[u8]) {
    for (key, value) in fields(text) {
        match key {
            b"nr_periods" => stats.nr_periods = Some(value),
            b"nr_throttled" => stats.nr_throttled = Some(value),
            b"throttled_time" => stats.throttled = Some(Duration::from_nanos(value)),
            _ => {}
        }
    }
}

/// `max` of `pids.events`.
pub(crate) fn pids_events_max(text: &[u8]) -> Option<u64> {
    field(text, "max")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpu_stat_of_linux_6_12() {
        let text = b"usage_usec 5263921\nuser_usec 5000001\nsystem_usec 263920\nnice_usec 0\n\
            core_sched.force_idle_usec 0\nnr_periods 260\nnr_throttled 251\nthrottled_usec 20804021\n\
            nr_bursts 0\nburst_usec 0\n";
        let stats = cpu_v2(text).unwrap();
        assert_eq!(stats.usage, Duration::from_micros(5_263_921));
        assert_eq!(stats.user, Duration::from_micros(5_000_001));
        assert_eq!(stats.system, Duration::from_micros(263_920));
        assert_eq!((stats.nr_periods, stats.nr_throttled), (Some(260), Some(251)));
        assert_eq!(stats.throttled, Some(Duration::from_micros(20_804_021)));
    }

    #[test]
    fn cpu_stat_without_the_controller() {
        let stats = cpu_v2(b"usage_usec 3\nuser_usec 2\nsystem_usec 1\n").unwrap();
        assert_eq!((stats.nr_periods, stats.throttled), (None, None));
        assert_eq!(cpu_v2(b"user_usec 2\nsystem_usec 1\n"), None);
    }

    #[test]
    fn cpu_stat_of_v1() {
        let mut stats = cpu_v1(b"3000000001\n", b"2000000000\n", b"1000000001\n").unwrap();
        throttling_v1(&mut stats, b"nr_periods 10\nnr_throttled 3\nthrottled_time 1500\nnr_bursts 0\nburst_time 0\n");
        assert_eq!(stats.usage, Duration::from_nanos(3_000_000_001));
        assert_eq!((stats.nr_periods, stats.nr_throttled), (Some(10), Some(3)));
        assert_eq!(stats.throttled, Some(Duration::from_nanos(1500)));
    }

    #[test]
    fn refused_forks() {
        assert_eq!(pids_events_max(b"max 7\n"), Some(7));
        assert_eq!(pids_events_max(b""), None);
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let _ = cpu_v2(&a);
            let _ = cpu_v1(&a, &a, &a);
            throttling_v1(&mut CpuStats::default(), &a);
            let _ = pids_events_max(&a);
        }

        #[test]
        fn any_order_and_unknown_fields(seed in 0usize..24, extra in "[a-z_.]{1,12} [0-9]{1,25}") {
            let mut lines = ["usage_usec 3", "user_usec 2", "system_usec 1", extra.as_str()];
            let last = lines.len();
            lines.rotate_left(seed % last);
            lines.swap(0, seed / last % last);
            prop_assume!(!extra.contains("_usec") && !extra.starts_with("nr_"));
            let stats = cpu_v2(lines.join("\n").as_bytes()).unwrap();
            prop_assert_eq!(stats.usage, Duration::from_micros(3));
        }
    }
}
