//! What the kernel has counted, and how its text is read. No allocation; fields that we do not know are passed over.

use std::time::Duration;

use crate::limits::Max;
use crate::text::{field, fields, number};

/// CPU time used by a cgroup and everything below it, since it was made: `cpu.stat` (v2), `cpuacct.usage*` and
/// `cpu.stat` (v1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The memory of a cgroup and everything below it, in bytes: `memory.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// How much is in use, page cache included, swap not.
    pub current: u64,
    /// How much may be: `memory.max` (v2), `memory.limit_in_bytes` (v1).
    pub max: Max<u64>,
    /// The most that was in use: `memory.peak` (v2), `memory.max_usage_in_bytes` (v1). `None` on v2 before Linux 5.19.
    pub peak: Option<u64>,
    /// What has happened for lack of memory.
    pub events: MemoryEvents,
}

/// How often something has happened for lack of memory: `memory.events` (v2), `memory.oom_control` and
/// `memory.failcnt` (v1). `None` where the kernel does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MemoryEvents {
    /// `memory.high` was exceeded. `None` on v1.
    pub high: Option<u64>,
    /// The limit was about to be exceeded. On v1 that of memory or that of memory and swap together, but Linux 6.18
    /// does not count the latter there, which is the one that is met if there is to be no swap.
    pub max: Option<u64>,
    /// Nothing could be reclaimed at the limit, so that an allocation was going to fail. `None` on v1.
    pub oom: Option<u64>,
    /// Processes that were killed for it, by the limit of whichever cgroup, or of the machine. On v1 those in the cgroup
    /// itself only.
    pub oom_kill: Option<u64>,
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

/// v2's `memory.events`.
pub(crate) fn memory_events_v2(text: &[u8]) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    for (key, value) in fields(text) {
        match key {
            b"high" => events.high = Some(value),
            b"max" => events.max = Some(value),
            b"oom" => events.oom = Some(value),
            b"oom_kill" => events.oom_kill = Some(value),
            _ => {}
        }
    }
    events
}

/// v1's `memory.oom_control`, `memory.failcnt` and `memory.memsw.failcnt`, as far as they are there. An allocation is
/// counted in one of the latter two, by the limit that it met first.
pub(crate) fn memory_events_v1(oom_control: &[u8], failures: [Option<&[u8]>; 2]) -> MemoryEvents {
    let known = failures.into_iter().flatten().filter_map(number);
    MemoryEvents {
        max: known.reduce(u64::saturating_add),
        oom_kill: field(oom_control, "oom_kill"),
        ..MemoryEvents::default()
    }
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

    /// Of Linux 6.12, and as it was before 4.13.
    #[test]
    fn memory_events() {
        let text = b"low 1\nhigh 2\nmax 341\noom 4\noom_kill 5\noom_group_kill 0\n";
        let all = MemoryEvents { high: Some(2), max: Some(341), oom: Some(4), oom_kill: Some(5) };
        assert_eq!(memory_events_v2(text), all);
        let older = memory_events_v2(b"low 0\nhigh 0\nmax 3\noom 1\n");
        assert_eq!((older.max, older.oom, older.oom_kill), (Some(3), Some(1), None));
        assert_eq!(memory_events_v2(b""), MemoryEvents::default());
    }

    #[test]
    fn memory_events_of_v1() {
        let text = b"oom_kill_disable 0\nunder_oom 1\noom_kill 3\n".as_slice();
        let (memory, sum) = (Some(b"17\n".as_slice()), Some(b"4\n".as_slice()));
        let table = [
            (text, [memory, sum], Some(21), Some(3)),
            (text, [memory, None], Some(17), Some(3)),
            (text, [None, None], None, Some(3)),
            (b"oom_kill_disable 1\nunder_oom 0\n", [sum, sum], Some(8), None),
        ];
        for (text, failures, max, oom_kill) in table {
            let expected = MemoryEvents { max, oom_kill, ..MemoryEvents::default() };
            assert_eq!(memory_events_v1(text, failures), expected);
        }
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let _ = memory_events_v2(&a);
            let _ = memory_events_v1(&a, [Some(&a), None]);
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
