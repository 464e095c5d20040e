//! What a limit means, as text in a file, and back. Written once and pure; v1 and v2 differ in names and encoding only.
//! Memory is in [`memory`](crate::memory).

use crate::controllers::Subsystems;
use crate::error::{Error, Result};
use crate::layout::Version;
use crate::limits::{CpuLimits, CpuPeriod, CpuQuota, CpuWeight, Limits, Max, MemoryLimits};
use crate::text;

/// The kernel's `PID_MAX_LIMIT`, the largest value of `pids.max`.
const PIDS_LIMIT: u64 = 4 * 1024 * 1024;

pub(crate) const PIDS_MAX: &str = "pids.max";
pub(crate) const V2_MAX: &str = "cpu.max";
pub(crate) const V2_WEIGHT: &str = "cpu.weight";
pub(crate) const V1_QUOTA: &str = "cpu.cfs_quota_us";
pub(crate) const V1_PERIOD: &str = "cpu.cfs_period_us";
pub(crate) const V1_SHARES: &str = "cpu.shares";

/// One text to be written into one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) subsystem: Subsystems,
    pub(crate) file: &'static str,
    pub(crate) text: String,
    /// On EINVAL do the next one first, then this one again. v1 checks quota/period against the parent's at each
    /// write, and only one of the two orders keeps it valid in between.
    pub(crate) or_after_next: bool,
    /// What it asks for holds without that file too.
    pub(crate) missing_is_fine: bool,
}

impl Write {
    pub(crate) fn new(subsystem: Subsystems, file: &'static str, text: String) -> Self {
        Write { subsystem, file, text, or_after_next: false, missing_is_fine: false }
    }
}

/// The quota and period in force, where the new ones depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bandwidth {
    pub(crate) quota: Max<u64>,
    pub(crate) period: CpuPeriod,
}

/// The subsystems that must be there for these limits.
pub(crate) fn subsystems(limits: &Limits) -> Subsystems {
    let mut needed = Subsystems::empty();
    needed.set(Subsystems::CPU, limits.cpu != CpuLimits::default());
    needed.set(Subsystems::PIDS, limits.pids.is_some());
    needed.set(Subsystems::MEMORY, limits.memory != MemoryLimits::default());
    needed
}

/// Whether [`writes`] must be told the bandwidth in force: v2 has one file for both, and writing only a period would
/// take the quota away; and a number of cores is a time only with a period.
pub(crate) fn needs_bandwidth(limits: &Limits, version: Version) -> bool {
    match (limits.cpu.quota, limits.cpu.period) {
        (None, Some(_)) => version == Version::V2,
        (Some(Max::Limit(quota)), None) => quota.needs_period(),
        _ => false,
    }
}

/// What to write where, for all but memory. Every value has been checked when this returns.
pub(crate) fn writes(limits: &Limits, version: Version, in_force: Option<Bandwidth>) -> Result<Vec<Write>> {
    let mut list = Vec::new();
    let mut push = |subsystem, file, text| {
        list.push(Write::new(subsystem, file, text));
    };
    if let Some(weight) = limits.cpu.weight {
        match version {
            Version::V1 => push(Subsystems::CPU, V1_SHARES, weight.shares().to_string()),
            Version::V2 => push(Subsystems::CPU, V2_WEIGHT, weight.get().to_string()),
        }
    }
    let period = limits.cpu.period;
    let quota = match limits.cpu.quota {
        Some(quota) => Some(micros(quota, period, in_force)?),
        None => None,
    };
    match version {
        Version::V1 => {
            if let Some(period) = period {
                push(Subsystems::CPU, V1_PERIOD, period.micros().to_string());
            }
            if let Some(quota) = quota {
                push(Subsystems::CPU, V1_QUOTA, encode(quota, "-1"));
            }
        }
        Version::V2 => {
            let kept = in_force.map_or(Max::Max, |bandwidth| bandwidth.quota);
            match (quota, period) {
                (None, None) => {}
                (Some(quota), None) => push(Subsystems::CPU, V2_MAX, encode(quota, "max")),
                (quota, Some(period)) => {
                    let quota = encode(quota.unwrap_or(kept), "max");
                    let text = format!("{quota} {}", period.micros());
                    push(Subsystems::CPU, V2_MAX, text);
                }
            }
        }
    }
    if let Some(pids) = limits.pids {
        if matches!(pids, Max::Limit(n) if n > PIDS_LIMIT) {
            let note = "the kernel takes 0 to 4194304, or no limit";
            return Err(Error::invalid(encode(pids, "max"), PIDS_MAX, note));
        }
        push(Subsystems::PIDS, PIDS_MAX, encode(pids, "max"));
    }
    if let Some(at) = list.iter().position(|write| write.file == V1_PERIOD)
        && list.get(at + 1).is_some_and(|next| next.file == V1_QUOTA)
        && let Some(write) = list.get_mut(at)
    {
        write.or_after_next = true;
    }
    Ok(list)
}

fn micros(quota: Max<CpuQuota>, period: Option<CpuPeriod>, in_force: Option<Bandwidth>) -> Result<Max<u64>> {
    let Max::Limit(quota) = quota else {
        return Ok(Max::Max);
    };
    let period = period.or(in_force.map(|bandwidth| bandwidth.period)).unwrap_or(CpuPeriod::DEFAULT);
    let time = quota.in_period(period)?;
    // At most 2^44 by its type.
    Ok(Max::Limit(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

pub(crate) fn encode(limit: Max<u64>, none: &str) -> String {
    match limit {
        Max::Max => none.to_owned(),
        Max::Limit(n) => n.to_string(),
    }
}

/// `max` or a number.
pub(crate) fn parse_max(text: &[u8]) -> Option<Max<u64>> {
    match text.trim_ascii() {
        b"max" => Some(Max::Max),
        text => text::number(text).map(Max::Limit),
    }
}

/// v2's `cpu.max`: `max 100000` or `20000 100000`.
pub(crate) fn parse_v2_bandwidth(text: &[u8]) -> Option<Bandwidth> {
    let mut words = text::words(text);
    Some(Bandwidth { quota: parse_max(words.next()?)?, period: CpuPeriod::from_kernel(text::number(words.next()?)?)? })
}

/// v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
pub(crate) fn parse_v1_bandwidth(quota: &[u8], period: &[u8]) -> Option<Bandwidth> {
    let quota = match quota.trim_ascii() {
        b"-1" => Max::Max,
        text => Max::Limit(text::number(text)?),
    };
    let period = CpuPeriod::from_kernel(text::number(period)?)?;
    Some(Bandwidth { quota, period })
}

/// The number in v1's `cpu.shares` or v2's `cpu.weight`. The latter is 0 in a cgroup that is idle (`cpu.idle`): that is
/// no weight.
pub(crate) fn weight(number: u64, version: Version) -> Option<CpuWeight> {
    match version {
        Version::V1 => Some(CpuWeight::from_shares(number)),
        Version::V2 => CpuWeight::new(u32::try_from(number).ok()?).ok(),
    }
}

/// The spec of a bandwidth that the kernel has.
pub(crate) fn limits_of(bandwidth: Bandwidth) -> (Max<CpuQuota>, CpuPeriod) {
    let quota = match bandwidth.quota {
        Max::Max => Max::Max,
        Max::Limit(micros) => Max::Limit(CpuQuota::from_kernel(micros)),
    };
    (quota, bandwidth.period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn plan(limits: &Limits, version: Version, in_force: Option<Bandwidth>) -> Vec<(&'static str, String)> {
        writes(limits, version, in_force).unwrap().into_iter().map(|write| (write.file, write.text)).collect()
    }

    fn period(ms: u64) -> CpuPeriod {
        CpuPeriod::new(Duration::from_millis(ms)).unwrap()
    }

    fn time(ms: u64) -> CpuQuota {
        CpuQuota::time(Duration::from_millis(ms)).unwrap()
    }

    type Texts<'a> = &'a [(&'static str, &'a str)];

    /// The same limits for both versions, where 30 ms of every 50 ms are in force.
    fn both(limits: &Limits, v1: Texts<'_>, v2: Texts<'_>) {
        let in_force = Bandwidth { quota: Max::Limit(30_000), period: period(50) };
        for (version, expected) in [(Version::V1, v1), (Version::V2, v2)] {
            let expected: Vec<_> = expected.iter().map(|(file, text)| (*file, (*text).to_owned())).collect();
            let found = plan(limits, version, Some(in_force));
            assert_eq!(found, expected, "{limits:?} {version:?}");
        }
    }

    #[test]
    fn what_a_quota_means() {
        let new = Limits::new;
        both(&new(), &[], &[]);
        both(&new().cpu_quota(time(20)), &[(V1_QUOTA, "20000")], &[(V2_MAX, "20000")]);
        both(&new().cpu_quota(Max::Max), &[(V1_QUOTA, "-1")], &[(V2_MAX, "max")]);
        both(
            &new().cpu_quota(time(20)).cpu_period(period(100)),
            &[(V1_PERIOD, "100000"), (V1_QUOTA, "20000")],
            &[(V2_MAX, "20000 100000")],
        );
    }

    #[test]
    fn a_period_alone_keeps_the_quota() {
        both(&Limits::new().cpu_period(period(200)), &[(V1_PERIOD, "200000")], &[(V2_MAX, "30000 200000")]);
    }

    #[test]
    fn cores_are_of_the_period_given_or_in_force() {
        let cores = |n| Limits::new().cpu_quota(CpuQuota::cores(n).unwrap());
        both(&cores(0.2), &[(V1_QUOTA, "10000")], &[(V2_MAX, "10000")]);
        both(
            &cores(1.5).cpu_period(period(10)),
            &[(V1_PERIOD, "10000"), (V1_QUOTA, "15000")],
            &[(V2_MAX, "15000 10000")],
        );
    }

    #[test]
    fn what_weight_and_pids_mean() {
        both(&Limits::new().cpu_weight(CpuWeight::DEFAULT), &[(V1_SHARES, "1024")], &[(V2_WEIGHT, "100")]);
        for (limit, text) in [(Max::Limit(0), "0"), (Max::Limit(7), "7"), (Max::Max, "max")] {
            let written: Texts<'_> = &[(PIDS_MAX, text)];
            both(&Limits::new().pids(limit), written, written);
        }
    }

    #[test]
    fn only_a_v1_period_with_a_quota_may_be_turned_round() {
        let limits = Limits::new().cpu_period(period(10)).pids(1);
        assert!(writes(&limits, Version::V1, None).unwrap().iter().all(|w| !w.or_after_next));
        let limits = limits.cpu_quota(time(5)).cpu_weight(CpuWeight::DEFAULT);
        let list = writes(&limits, Version::V1, None).unwrap();
        let turned: Vec<_> = list.iter().filter(|w| w.or_after_next).map(|w| w.file).collect();
        assert_eq!(turned, [V1_PERIOD]);
        assert!(writes(&limits, Version::V2, None).unwrap().iter().all(|w| !w.or_after_next));
    }

    #[test]
    fn when_the_bandwidth_in_force_matters() {
        let cores = CpuQuota::cores(0.5).unwrap();
        let table = [
            (Limits::new(), false, false),
            (Limits::new().cpu_quota(time(20)), false, false),
            (Limits::new().cpu_period(period(20)), false, true),
            (Limits::new().cpu_quota(cores), true, true),
            (Limits::new().cpu_quota(cores).cpu_period(period(20)), false, false),
            (Limits::new().cpu_quota(Max::Max), false, false),
        ];
        for (limits, v1, v2) in table {
            assert_eq!(needs_bandwidth(&limits, Version::V1), v1, "{limits:?}");
            assert_eq!(needs_bandwidth(&limits, Version::V2), v2, "{limits:?}");
        }
    }

    #[test]
    fn too_many_pids_are_refused() {
        assert!(writes(&Limits::new().pids(PIDS_LIMIT), Version::V2, None).is_ok());
        assert!(writes(&Limits::new().pids(PIDS_LIMIT + 1), Version::V2, None).is_err());
    }

    #[test]
    fn reads_the_kernels_text() {
        let limited = Bandwidth { quota: Max::Limit(20_000), period: period(100) };
        let open = Bandwidth { quota: Max::Max, period: period(100) };
        assert_eq!(parse_v2_bandwidth(b"20000 100000\n"), Some(limited));
        assert_eq!(parse_v2_bandwidth(b"max 100000\n"), Some(open));
        assert_eq!(parse_v1_bandwidth(b"20000\n", b"100000\n"), Some(limited));
        assert_eq!(parse_v1_bandwidth(b"-1\n", b"100000\n"), Some(open));
        assert_eq!(parse_v2_bandwidth(b"max\n"), None);
        assert_eq!(parse_max(b"max\n"), Some(Max::Max));
        assert_eq!(parse_max(b"12\n"), Some(Max::Limit(12)));
        assert_eq!(weight(0, Version::V2), None);
        assert_eq!(weight(100, Version::V2), Some(CpuWeight::DEFAULT));
        assert_eq!(weight(1024, Version::V1), Some(CpuWeight::DEFAULT));
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>, b: Vec<u8>) {
            let _ = parse_v2_bandwidth(&a);
            let _ = parse_v1_bandwidth(&a, &b);
            let _ = parse_max(&a);
        }

        /// What v2 is told is what v2 says.
        #[test]
        fn a_bandwidth_comes_back(quota in 1_000u64..(1 << 44), us in 1_000u64..=1_000_000) {
            let quota_time = CpuQuota::time(Duration::from_micros(quota)).unwrap();
            let period = CpuPeriod::new(Duration::from_micros(us)).unwrap();
            let limits = Limits::new().cpu_quota(quota_time).cpu_period(period);
            let list = writes(&limits, Version::V2, None).unwrap();
            let read = parse_v2_bandwidth(list[0].text.as_bytes()).unwrap();
            prop_assert_eq!(limits_of(read), (Max::Limit(quota_time), period));
        }
    }
}
