//! CPU time.

use std::time::Duration;

use crate::stats::{Other, Stats};
use crate::text::{fields, number, words};

/// CPU time used by a cgroup and everything below it, since it was made: `cpu.stat` (v2), `cpuacct.usage*` and
/// `cpu.stat` (v1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct CpuStats {
    /// All CPU time.
    pub usage: Duration,
    /// The part spent in user mode.
    pub user: Duration,
    /// The part spent in the kernel.
    pub system: Duration,
    /// The part spent by processes that are nice. v2, since Linux 6.11.
    pub nice: Option<Duration>,
    /// For how long siblings of a core were kept idle for this cgroup's sake. v2, with core scheduling.
    pub forced_idle: Option<Duration>,
    /// How many periods have passed in which the cgroup wanted to run. `None` where the cpu controller is not on.
    pub nr_periods: Option<u64>,
    /// In how many of those it was stopped by its quota.
    pub nr_throttled: Option<u64>,
    /// For how long, summed over the CPUs.
    pub throttled: Option<Duration>,
    /// How many periods used more than the quota, by a burst. Since Linux 5.14.
    pub nr_bursts: Option<u64>,
    /// How much more, summed over the CPUs.
    pub burst: Option<Duration>,
    /// What this crate does not know.
    pub other: Other,
}

/// CPU time on one CPU: a line of v1's `cpuacct.usage_all`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CpuTime {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
}

fn nanos(text: &[u8]) -> Option<Duration> {
    number(text).map(Duration::from_nanos)
}

/// v2's `cpu.stat`, in microseconds.
pub(super) fn v2_stat(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let cpu = stats.cpu.get_or_insert_default();
    let mut known = 0;
    for (key, value) in fields(text) {
        let time = Duration::from_micros(value);
        match key {
            b"usage_usec" => (cpu.usage, known) = (time, known + 1),
            b"user_usec" => (cpu.user, known) = (time, known + 1),
            b"system_usec" => (cpu.system, known) = (time, known + 1),
            b"nice_usec" => cpu.nice = Some(time),
            b"core_sched.force_idle_usec" => cpu.forced_idle = Some(time),
            b"nr_periods" => cpu.nr_periods = Some(value),
            b"nr_throttled" => cpu.nr_throttled = Some(value),
            b"throttled_usec" => cpu.throttled = Some(time),
            b"nr_bursts" => cpu.nr_bursts = Some(value),
            b"burst_usec" => cpu.burst = Some(time),
            key => cpu.other.set(key, value),
        }
    }
    // What every kernel has.
    (known == 3).then_some(())
}

pub(super) fn v1_usage(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.cpu.get_or_insert_default().usage = nanos(text)?;
    Some(())
}

pub(super) fn v1_user(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.cpu.get_or_insert_default().user = nanos(text)?;
    Some(())
}

pub(super) fn v1_system(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.cpu.get_or_insert_default().system = nanos(text)?;
    Some(())
}

/// v1's `cpu.stat`, in nanoseconds.
pub(super) fn v1_stat(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let cpu = stats.cpu.get_or_insert_default();
    for (key, value) in fields(text) {
        let time = Duration::from_nanos(value);
        match key {
            b"nr_periods" => cpu.nr_periods = Some(value),
            b"nr_throttled" => cpu.nr_throttled = Some(value),
            b"throttled_time" => cpu.throttled = Some(time),
            b"nr_bursts" => cpu.nr_bursts = Some(value),
            b"burst_time" => cpu.burst = Some(time),
            key => cpu.other.set(key, value),
        }
    }
    Some(())
}

/// v1's `cpuacct.usage_all`: a line of titles, then `CPU USER SYSTEM` in nanoseconds.
pub(super) fn v1_each(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.cpu_each.clear();
    for line in text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty()) {
        let mut columns = words(line).skip(1);
        stats.cpu_each.push(CpuTime { user: nanos(columns.next()?)?, system: nanos(columns.next()?)? });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(read: fn(&mut Stats, &[u8]) -> Option<()>, text: &[u8]) -> Option<CpuStats> {
        let mut stats = Stats::default();
        read(&mut stats, text).and(stats.cpu)
    }

    #[test]
    fn cpu_stat_of_linux_6_12() {
        let text = b"usage_usec 5263921\nuser_usec 5000001\nsystem_usec 263920\nnice_usec 7\n\
            core_sched.force_idle_usec 0\nnr_periods 260\nnr_throttled 251\nthrottled_usec 20804021\n\
            nr_bursts 3\nburst_usec 9\nlater_than_us 4\n";
        let stats = parsed(v2_stat, text).unwrap();
        assert_eq!(stats.usage, Duration::from_micros(5_263_921));
        assert_eq!(stats.user, Duration::from_micros(5_000_001));
        assert_eq!(stats.system, Duration::from_micros(263_920));
        assert_eq!((stats.nr_periods, stats.nr_throttled), (Some(260), Some(251)));
        assert_eq!(stats.throttled, Some(Duration::from_micros(20_804_021)));
        assert_eq!((stats.nr_bursts, stats.burst), (Some(3), Some(Duration::from_micros(9))));
        assert_eq!(stats.nice, Some(Duration::from_micros(7)));
        assert_eq!(stats.other.iter().collect::<Vec<_>>(), [("later_than_us", 4)]);
    }

    #[test]
    fn cpu_stat_without_the_controller() {
        let stats = parsed(v2_stat, b"usage_usec 3\nuser_usec 2\nsystem_usec 1\n").unwrap();
        assert_eq!((stats.nr_periods, stats.throttled), (None, None));
        assert_eq!(parsed(v2_stat, b"user_usec 2\nsystem_usec 1\n"), None);
    }

    #[test]
    fn cpu_stat_of_v1() {
        let mut stats = Stats::default();
        let text = b"nr_periods 10\nnr_throttled 3\nthrottled_time 1500\nnr_bursts 0\nburst_time 0\n";
        assert!(v1_usage(&mut stats, b"3000000001\n").and(v1_stat(&mut stats, text)).is_some());
        let cpu = stats.cpu.as_ref().unwrap();
        assert_eq!(cpu.usage, Duration::from_nanos(3_000_000_001));
        assert_eq!((cpu.nr_periods, cpu.nr_throttled), (Some(10), Some(3)));
        assert_eq!(cpu.throttled, Some(Duration::from_nanos(1500)));
        assert!(v1_user(&mut stats, b"x").is_none() && v1_system(&mut stats, b"").is_none());
        v1_each(&mut stats, b"cpu user system\n0 100 20\n1 5 0\n").unwrap();
        assert_eq!(stats.cpu_each.len(), 2);
        assert_eq!(stats.cpu_each[0], CpuTime { user: Duration::from_nanos(100), system: Duration::from_nanos(20) });
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let mut stats = Stats::default();
            for read in [v2_stat, v1_usage, v1_user, v1_system, v1_stat, v1_each] {
                let _ = read(&mut stats, &a);
            }
        }

        #[test]
        fn any_order_and_unknown_fields(seed in 0usize..24, extra in "[a-z_.]{1,12} [0-9]{1,18}") {
            let mut lines = ["usage_usec 3", "user_usec 2", "system_usec 1", extra.as_str()];
            let last = lines.len();
            lines.rotate_left(seed % last);
            lines.swap(0, seed / last % last);
            prop_assume!(!extra.contains("_usec") && !extra.starts_with("nr_"));
            let stats = parsed(v2_stat, lines.join("\n").as_bytes()).unwrap();
            prop_assert_eq!(stats.usage, Duration::from_micros(3));
            let (name, value) = extra.split_once(' ').unwrap();
            prop_assert_eq!(stats.other.get(name), value.parse().ok());
        }
    }
}
