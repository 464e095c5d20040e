//! CPU time.

use std::time::Duration;

use crate::controllers::Subsystems;
use crate::error::{Error, Result};
use crate::layout::Version;
use crate::limits::{CpuLimits, CpuPeriod, CpuQuota, CpuWeight, Max};
use crate::policy::{ONLY_V1, Plan, Write, encode, parse_max, switch};
use crate::text;

pub(crate) const V2_MAX: &str = "cpu.max";
pub(crate) const V2_WEIGHT: &str = "cpu.weight";
pub(crate) const V2_BURST: &str = "cpu.max.burst";
pub(crate) const V1_QUOTA: &str = "cpu.cfs_quota_us";
pub(crate) const V1_PERIOD: &str = "cpu.cfs_period_us";
pub(crate) const V1_BURST: &str = "cpu.cfs_burst_us";
pub(crate) const V1_SHARES: &str = "cpu.shares";
pub(crate) const V1_RT_RUNTIME: &str = "cpu.rt_runtime_us";
pub(crate) const V1_RT_PERIOD: &str = "cpu.rt_period_us";
pub(crate) const IDLE: &str = "cpu.idle";

/// The kernel's largest burst and real-time runtime are of this order: what is beyond is a mistake.
const LONGEST: Duration = CpuQuota::MAX;

/// The quota and period in force, where the new ones depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bandwidth {
    pub(crate) quota: Max<u64>,
    pub(crate) period: CpuPeriod,
}

/// Whether [`plan`] must be told the bandwidth in force: v2 has one file for both, and writing only a period would
/// take the quota away; and a number of cores is a time only with a period.
pub(crate) fn needs_bandwidth(limits: &CpuLimits, version: Version) -> bool {
    match (limits.quota, limits.period) {
        (None, Some(_)) => version == Version::V2,
        (Some(Max::Limit(quota)), None) => quota.needs_period(),
        _ => false,
    }
}

pub(crate) fn burst_file(version: Version) -> &'static str {
    match version {
        Version::V1 => V1_BURST,
        Version::V2 => V2_BURST,
    }
}

/// What to write where. Every value has been checked when this returns.
pub(crate) fn plan(limits: &CpuLimits, version: Version, in_force: Option<Bandwidth>, plan: &mut Plan) -> Result<()> {
    weight_and_idle(limits, version, plan);
    let quota = match limits.quota {
        Some(quota) => Some(in_micros(quota, limits.period, in_force)?),
        None => None,
    };
    let write = |file, text| Write::new(Subsystems::CPU, file, text);
    let mut bandwidth = match version {
        Version::V1 => v1_bandwidth(quota, limits.period),
        Version::V2 => v2_bandwidth(quota, limits.period, in_force).into_iter().collect(),
    };
    if let Some(burst) = limits.burst {
        bandwidth.push(write(burst_file(version), micros(burst, "cpu burst")?));
    }
    plan.together(bandwidth);
    realtime(limits, version, plan)
}

/// An idle cgroup has no weight: the kernel refuses one.
fn weight_and_idle(limits: &CpuLimits, version: Version, plan: &mut Plan) {
    let idle = limits.idle.map(|idle| Write::new(Subsystems::CPU, IDLE, switch(idle)));
    let weight = limits.weight.map(|weight| match version {
        Version::V1 => Write::new(Subsystems::CPU, V1_SHARES, weight.shares().to_string()),
        Version::V2 => Write::new(Subsystems::CPU, V2_WEIGHT, weight.get().to_string()),
    });
    let (first, second) = if limits.idle == Some(false) { (idle, weight) } else { (weight, idle) };
    first.into_iter().chain(second).for_each(|write| plan.write(write));
}

fn v1_bandwidth(quota: Option<Max<u64>>, period: Option<CpuPeriod>) -> Vec<Write> {
    let period = period.map(|period| Write::new(Subsystems::CPU, V1_PERIOD, period.micros().to_string()));
    let quota = quota.map(|quota| Write::new(Subsystems::CPU, V1_QUOTA, encode(quota, "-1")));
    period.into_iter().chain(quota).collect()
}

fn v2_bandwidth(quota: Option<Max<u64>>, period: Option<CpuPeriod>, in_force: Option<Bandwidth>) -> Option<Write> {
    let kept = in_force.map_or(Max::Max, |bandwidth| bandwidth.quota);
    let text = match (quota, period) {
        (None, None) => return None,
        (Some(quota), None) => encode(quota, "max"),
        (quota, Some(period)) => format!("{} {}", encode(quota.unwrap_or(kept), "max"), period.micros()),
    };
    Some(Write::new(Subsystems::CPU, V2_MAX, text))
}

fn realtime(limits: &CpuLimits, version: Version, plan: &mut Plan) -> Result<()> {
    let mut writes = Vec::new();
    if let Some(period) = limits.realtime_period {
        writes.push(Write::new(Subsystems::CPU, V1_RT_PERIOD, micros(period, "real-time period")?));
    }
    match limits.realtime_runtime {
        None => {}
        Some(Max::Max) => writes.push(Write::new(Subsystems::CPU, V1_RT_RUNTIME, "-1")),
        Some(Max::Limit(runtime)) => {
            writes.push(Write::new(Subsystems::CPU, V1_RT_RUNTIME, micros(runtime, "real-time runtime")?));
        }
    }
    match version {
        Version::V1 => plan.together(writes),
        Version::V2 => writes.into_iter().for_each(|write| plan.cannot(&write.file, write.text, ONLY_V1)),
    }
    Ok(())
}

fn micros(time: Duration, setting: &str) -> Result<String> {
    if time > LONGEST {
        return Err(Error::invalid(format!("{time:?}"), setting, "the kernel takes up to 2^44 us"));
    }
    Ok(time.as_micros().to_string())
}

fn in_micros(quota: Max<CpuQuota>, period: Option<CpuPeriod>, in_force: Option<Bandwidth>) -> Result<Max<u64>> {
    let Max::Limit(quota) = quota else {
        return Ok(Max::Max);
    };
    let period = period.or(in_force.map(|bandwidth| bandwidth.period)).unwrap_or(CpuPeriod::DEFAULT);
    let time = quota.in_period(period)?;
    // At most 2^44 by its type.
    Ok(Max::Limit(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

/// v1's real-time runtime: microseconds, or -1.
pub(crate) fn parse_runtime(text: &[u8]) -> Option<Max<Duration>> {
    match text.trim_ascii() {
        b"-1" => Some(Max::Max),
        text => text::number(text).map(|micros| Max::Limit(Duration::from_micros(micros))),
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
    use crate::limits::Limits;
    use crate::policy::testing::{Texts, owned, texts};
    use proptest::prelude::*;

    fn period(ms: u64) -> CpuPeriod {
        CpuPeriod::new(Duration::from_millis(ms)).unwrap()
    }

    fn time(ms: u64) -> CpuQuota {
        CpuQuota::time(Duration::from_millis(ms)).unwrap()
    }

    /// The same limits for both versions, where 30 ms of every 50 ms are in force.
    #[track_caller]
    fn both(limits: &Limits, v1: Texts<'_>, v2: Texts<'_>) {
        let in_force = Bandwidth { quota: Max::Limit(30_000), period: period(50) };
        for (version, expected) in [(Version::V1, v1), (Version::V2, v2)] {
            let found = texts(|into| plan(&limits.cpu, version, Some(in_force), into));
            assert_eq!(found, (owned(expected), 0), "{limits:?} {version:?}");
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
    fn what_weight_idle_and_burst_mean() {
        both(&Limits::new().cpu_weight(CpuWeight::DEFAULT), &[(V1_SHARES, "1024")], &[(V2_WEIGHT, "100")]);
        both(&Limits::new().cpu_weight(CpuWeight::from_shares(1000)), &[(V1_SHARES, "1000")], &[(V2_WEIGHT, "99")]);
        let mut limits = Limits::new().cpu_weight(CpuWeight::DEFAULT);
        limits.cpu.idle = Some(true);
        both(&limits, &[(V1_SHARES, "1024"), (IDLE, "1")], &[(V2_WEIGHT, "100"), (IDLE, "1")]);
        limits.cpu.idle = Some(false);
        both(&limits, &[(IDLE, "0"), (V1_SHARES, "1024")], &[(IDLE, "0"), (V2_WEIGHT, "100")]);
        let mut limits = Limits::new().cpu_quota(time(20));
        limits.cpu.burst = Some(Duration::from_millis(5));
        both(&limits, &[(V1_QUOTA, "20000"), (V1_BURST, "5000")], &[(V2_MAX, "20000"), (V2_BURST, "5000")]);
        limits.cpu.burst = Some(Duration::MAX);
        assert!(plan(&limits.cpu, Version::V2, None, &mut Plan::default()).is_err());
    }

    #[test]
    fn real_time_is_of_v1() {
        let ms = Duration::from_millis;
        let runtime = Some(Max::Limit(ms(10)));
        let mut limits =
            CpuLimits { realtime_runtime: runtime, realtime_period: Some(ms(100)), ..CpuLimits::default() };
        let v1 = texts(|into| plan(&limits, Version::V1, None, into));
        assert_eq!(v1, (owned(&[(V1_RT_PERIOD, "100000"), (V1_RT_RUNTIME, "10000")]), 0));
        assert_eq!(texts(|into| plan(&limits, Version::V2, None, into)), (vec![], 2));
        limits.realtime_runtime = Some(Max::Max);
        assert_eq!(texts(|into| plan(&limits, Version::V1, None, into)).0[1].1, "-1");
    }

    #[test]
    fn what_the_kernel_checks_against_each_other_stands_together() {
        let sizes = |limits: &Limits, version| {
            let mut into = Plan::default();
            plan(&limits.cpu, version, None, &mut into).unwrap();
            into.steps.iter().map(Vec::len).collect::<Vec<_>>()
        };
        let mut limits = Limits::new().cpu_period(period(10)).cpu_quota(time(5)).cpu_weight(CpuWeight::DEFAULT);
        assert_eq!((sizes(&limits, Version::V1), sizes(&limits, Version::V2)), (vec![1, 2], vec![1, 1]));
        limits.cpu.burst = Some(Duration::ZERO);
        assert_eq!((sizes(&limits, Version::V1), sizes(&limits, Version::V2)), (vec![1, 3], vec![1, 2]));
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
            assert_eq!(needs_bandwidth(&limits.cpu, Version::V1), v1, "{limits:?}");
            assert_eq!(needs_bandwidth(&limits.cpu, Version::V2), v2, "{limits:?}");
        }
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
        assert_eq!(parse_runtime(b"-1\n"), Some(Max::Max));
        assert_eq!(parse_runtime(b"950000\n"), Some(Max::Limit(Duration::from_millis(950))));
        assert_eq!(weight(0, Version::V2), None);
        assert_eq!(weight(100, Version::V2), Some(CpuWeight::DEFAULT));
        assert_eq!(weight(1024, Version::V1), Some(CpuWeight::DEFAULT));
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>, b: Vec<u8>) {
            let _ = parse_v2_bandwidth(&a);
            let _ = parse_v1_bandwidth(&a, &b);
            let _ = parse_runtime(&a);
        }

        /// What v2 is told is what v2 says.
        #[test]
        fn a_bandwidth_comes_back(quota in 1_000u64..(1 << 44), us in 1_000u64..=1_000_000) {
            let quota_time = CpuQuota::time(Duration::from_micros(quota)).unwrap();
            let period = CpuPeriod::new(Duration::from_micros(us)).unwrap();
            let limits = Limits::new().cpu_quota(quota_time).cpu_period(period);
            let (list, _) = texts(|into| plan(&limits.cpu, Version::V2, None, into));
            let read = parse_v2_bandwidth(list[0].1.as_bytes()).unwrap();
            prop_assert_eq!(limits_of(read), (Max::Limit(quota_time), period));
        }
    }
}
