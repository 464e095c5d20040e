//! Limits of CPU time.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::Max;

/// The limits of CPU time: `cpu.max`, `cpu.weight` and others (v2), `cpu.cfs_quota_us`, `cpu.cfs_period_us`,
/// `cpu.shares` and others (v1). Kernel documentation: `scheduler/sched-bwc.rst`, `scheduler/sched-rt-group.rst`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CpuLimits {
    /// How much CPU time may be used in each period.
    pub quota: Option<Max<CpuQuota>>,
    /// How often the quota is refilled. The kernel's default is 100 ms.
    pub period: Option<CpuPeriod>,
    /// How much of a quota that was not used up may be used later, in whole microseconds: `cpu.max.burst` (v2),
    /// `cpu.cfs_burst_us` (v1). At most the quota. The kernel's default is none. Since Linux 5.14.
    pub burst: Option<Duration>,
    /// The share of a busy machine, relative to the cgroup's siblings. The kernel's default is 100. Without effect in
    /// an idle cgroup.
    pub weight: Option<CpuWeight>,
    /// Runs only when nobody else wants to: `cpu.idle`. Since Linux 5.15.
    pub idle: Option<bool>,
    /// How much CPU time real-time processes may use in each of their periods, in whole microseconds: v1's
    /// `cpu.rt_runtime_us`, on kernels with `CONFIG_RT_GROUP_SCHED`. v2 has no such limit.
    pub realtime_runtime: Option<Max<Duration>>,
    /// The period of it: v1's `cpu.rt_period_us`.
    pub realtime_period: Option<Duration>,
}

impl CpuLimits {
    /// The cores that quota and period amount to, if there is a quota and it is a limit.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        match (self.quota?, self.period) {
            (Max::Limit(CpuQuota(Quota::Cores(cores))), _) => Some(f64::from(cores) / MILLIONTHS),
            (Max::Limit(CpuQuota(Quota::Time(quota))), Some(period)) => {
                // In whole microseconds, so that three times the period is 3, and not a little more.
                #[allow(clippy::cast_precision_loss, reason = "the kernel's largest quota has 44 bits")]
                let micros = quota.as_micros() as f64;
                Some(micros / f64::from(period.micros()))
            }
            _ => None,
        }
    }
}

/// How much CPU time may be used in each period, by all threads together: a time, or a number of cores, which is a
/// time once the period is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "stored::Quota", try_from = "stored::Quota"))]
pub struct CpuQuota(Quota);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Quota {
    Time(Duration),
    /// In millionths of a core.
    Cores(u32),
}

const MILLIONTHS: f64 = 1e6;

impl CpuQuota {
    /// The kernel's smallest quota.
    pub const MIN: Duration = Duration::from_millis(1);
    /// The kernel's largest quota, some 200 days.
    pub const MAX: Duration = Duration::from_micros((1 << 44) - 1);
    /// The largest number of cores, more than the kernel can have.
    pub const MAX_CORES: f64 = 4096.0;

    /// That much CPU time in each period, in whole microseconds: what is below one is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) outside of [`MIN`](Self::MIN)`..=`[`MAX`](Self::MAX).
    pub fn time(time: Duration) -> Result<Self> {
        if (Self::MIN..=Self::MAX).contains(&time) {
            Ok(CpuQuota(Quota::Time(whole_micros(time))))
        } else {
            Err(quota_range(format!("{time:?}")))
        }
    }

    /// That many cores: 0.2 is 20 % of one, 1.5 is one and a half. Kept in millionths.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) unless it is 0.001 to
    /// [`MAX_CORES`](Self::MAX_CORES). The quota's own range is checked when the period is known, before anything is
    /// written.
    pub fn cores(cores: f64) -> Result<Self> {
        if !(0.001..=Self::MAX_CORES).contains(&cores) {
            return Err(Error::invalid(cores.to_string(), "cpu quota", "a number of cores is 0.001 to 4096"));
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked: at most 4,096,000,000, which fits"
        )]
        let millionths = (cores * MILLIONTHS).round() as u32;
        Ok(CpuQuota(Quota::Cores(millionths)))
    }

    /// The CPU time in each period of that length.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is a number of cores for which the period
    /// is too short: the quota would be below [`MIN`](Self::MIN).
    pub fn in_period(self, period: CpuPeriod) -> Result<Duration> {
        match self.0 {
            Quota::Time(time) => Ok(time),
            Quota::Cores(millionths) => {
                let product = u64::from(millionths) * u64::from(period.micros());
                let time = Duration::from_micros((product + 500_000) / 1_000_000);
                if time < Self::MIN {
                    return Err(quota_range(format!("{time:?}")));
                }
                Ok(time)
            }
        }
    }

    /// Whether the period must be known to tell the time.
    pub(crate) fn needs_period(self) -> bool {
        matches!(self.0, Quota::Cores(_))
    }

    /// What the kernel has. It may be out of our range, and is then still the truth.
    pub(crate) fn from_kernel(micros: u64) -> Self {
        CpuQuota(Quota::Time(Duration::from_micros(micros)))
    }
}

fn quota_range(value: String) -> Error {
    Error::invalid(
        value,
        "cpu quota",
        "the kernel takes 1 ms to 2^44 us in each period; for a small number of cores take a longer period",
    )
}

/// How often the quota is refilled, in whole microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "Duration", try_from = "Duration"))]
pub struct CpuPeriod(u32);

impl CpuPeriod {
    /// The kernel's shortest period.
    pub const MIN: Duration = Duration::from_millis(1);
    /// The kernel's longest period.
    pub const MAX: Duration = Duration::from_secs(1);
    /// The kernel's default: 100 ms.
    pub const DEFAULT: CpuPeriod = CpuPeriod(100_000);

    /// A period of that length. What is below a microsecond is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) outside of 1 ms to 1 s.
    pub fn new(period: Duration) -> Result<Self> {
        match u32::try_from(period.as_micros()) {
            Ok(micros) if (Self::MIN..=Self::MAX).contains(&period) => Ok(CpuPeriod(micros)),
            _ => Err(Error::invalid(format!("{period:?}"), "cpu period", "the kernel takes 1 ms to 1 s")),
        }
    }

    /// The length.
    #[must_use]
    pub fn get(self) -> Duration {
        Duration::from_micros(u64::from(self.0))
    }

    pub(crate) fn micros(self) -> u32 {
        self.0
    }

    pub(crate) fn from_kernel(micros: u64) -> Option<Self> {
        CpuPeriod::new(Duration::from_micros(micros)).ok()
    }
}

/// The share of a busy machine relative to the cgroup's siblings: v2's `cpu.weight`. For v1 it is converted to
/// `cpu.shares`, such that the default of one (100) is the default of the other (1024), and both ends meet too.
///
/// One that was made from shares is written to v1 as exactly those. Two are equal if their weights are.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "u32", try_from = "u32"))]
pub struct CpuWeight {
    weight: u16,
    /// v1's shares, where they were given.
    shares: Option<u32>,
}

impl PartialEq for CpuWeight {
    fn eq(&self, other: &Self) -> bool {
        self.weight == other.weight
    }
}

impl Eq for CpuWeight {}

impl PartialOrd for CpuWeight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CpuWeight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.weight.cmp(&other.weight)
    }
}

impl Hash for CpuWeight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.weight.hash(state);
    }
}

impl From<CpuWeight> for u32 {
    fn from(weight: CpuWeight) -> u32 {
        weight.get()
    }
}

impl TryFrom<u32> for CpuWeight {
    type Error = Error;

    fn try_from(weight: u32) -> Result<Self> {
        CpuWeight::new(weight)
    }
}

impl CpuWeight {
    /// The kernel's default: 100.
    pub const DEFAULT: CpuWeight = CpuWeight { weight: 100, shares: None };

    /// A weight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) outside of 1 to 10000.
    pub fn new(weight: u32) -> Result<Self> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=10_000) => Ok(CpuWeight { weight, shares: None }),
            _ => Err(Error::invalid(weight.to_string(), "cpu weight", "the kernel takes 1 to 10000")),
        }
    }

    /// The weight.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.weight)
    }

    /// From v1's `cpu.shares`, which is 2 to 262144; what is outside counts as the nearest end. The formula is the
    /// one that runc and crun use: a curve through the minima, the defaults and the maxima of both.
    #[must_use]
    pub fn from_shares(shares: u64) -> Self {
        let shares = u32::try_from(shares.clamp(2, 262_144)).unwrap_or(262_144);
        let log = f64::from(shares).log2();
        let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=10000")]
        // The small difference keeps an exact result, such as 100, from being rounded up for its last bit.
        let weight = (weight - 1e-6).ceil().clamp(1.0, 10_000.0) as u16;
        CpuWeight { weight, shares: Some(shares) }
    }

    /// As v1's `cpu.shares`. [`from_shares`](Self::from_shares) leads back to the same weight.
    #[must_use]
    pub fn shares(self) -> u64 {
        if let Some(shares) = self.shares {
            return u64::from(shares);
        }
        let target = f64::from(self.weight).log10() + 7.0 / 34.0;
        let log = ((125.0f64 * 125.0 + 4.0 * 612.0 * target).sqrt() - 125.0) / 2.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 2..=262144")]
        // Rounded down, as from_shares rounds up.
        {
            (log.exp2() + 1e-6).floor().clamp(2.0, 262_144.0) as u64
        }
    }
}

impl From<CpuPeriod> for Duration {
    fn from(period: CpuPeriod) -> Duration {
        period.get()
    }
}

impl TryFrom<Duration> for CpuPeriod {
    type Error = Error;

    fn try_from(period: Duration) -> Result<Self> {
        CpuPeriod::new(period)
    }
}

/// How a quota is written down.
#[cfg(feature = "serde")]
mod stored {
    use super::{CpuQuota, Duration, Error, MILLIONTHS};

    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub(super) enum Quota {
        Time(Duration),
        Cores(f64),
    }

    impl From<CpuQuota> for Quota {
        fn from(quota: CpuQuota) -> Self {
            match quota.0 {
                super::Quota::Time(time) => Quota::Time(time),
                super::Quota::Cores(millionths) => Quota::Cores(f64::from(millionths) / MILLIONTHS),
            }
        }
    }

    impl TryFrom<Quota> for CpuQuota {
        type Error = Error;

        fn try_from(quota: Quota) -> Result<Self, Error> {
            match quota {
                Quota::Time(time) => CpuQuota::time(time),
                Quota::Cores(cores) => CpuQuota::cores(cores),
            }
        }
    }
}

fn whole_micros(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_micros() * 1000)
}

#[cfg(test)]
#[path = "cpu_tests.rs"]
mod tests;
