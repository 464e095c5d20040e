//! What a caller can ask for. Plain data: nothing here knows of v1 and v2, and nothing is written.

use std::time::Duration;

use crate::error::{Error, Result};

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Max<T> {
    /// No limit: the kernel's `max` (v2) or `-1` (v1).
    Max,
    /// This much.
    Limit(T),
}

impl<T> From<T> for Max<T> {
    fn from(limit: T) -> Self {
        Max::Limit(limit)
    }
}

/// The limits of a cgroup. Every setting has three states: `None` leaves alone what the kernel has, [`Max::Max`]
/// takes the limit away, [`Max::Limit`] sets it. The default leaves everything alone.
///
/// ```
/// use cofferdam_cgroups::{CpuQuota, CpuWeight, Limits, Max};
///
/// # fn main() -> Result<(), cofferdam_cgroups::Error> {
/// let limits = Limits::new()
///     .cpu_quota(CpuQuota::cores(1.5)?)
///     .cpu_weight(CpuWeight::new(50)?)
///     .memory(64 << 20) // 64 MiB
///     .swap(0)
///     .pids(Max::Max);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// CPU time.
    pub cpu: CpuLimits,
    /// How many processes and threads may exist at once, below the cgroup too: `pids.max`. 0 forbids every fork.
    pub pids: Option<Max<u64>>,
    /// Memory and swap.
    pub memory: MemoryLimits,
}

/// The limits of CPU time: `cpu.max` and `cpu.weight` (v2), `cpu.cfs_quota_us`, `cpu.cfs_period_us` and
/// `cpu.shares` (v1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CpuLimits {
    /// How much CPU time may be used in each period.
    pub quota: Option<Max<CpuQuota>>,
    /// How often the quota is refilled. The kernel's default is 100 ms.
    pub period: Option<CpuPeriod>,
    /// The share of a busy machine, relative to the cgroup's siblings. The kernel's default is 100.
    pub weight: Option<CpuWeight>,
}

/// The limits of memory and swap, in bytes, below the cgroup too. The kernel counts in pages: a limit is rounded down
/// to a multiple of the page size, and reads back so.
///
/// The two are limits of different things, as on v2. v1 knows memory and the *sum* of both; the difference is taken
/// care of, except that a limit of swap needs a limit of memory there: see
/// [limits of memory](crate#limits-of-memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// How much memory may be used, page cache included: `memory.max` (v2), `memory.limit_in_bytes` (v1). What is
    /// beyond is reclaimed; if it cannot be, a process in the cgroup is killed. 0 leaves nothing to run with: a process
    /// that enters is killed when it first needs memory.
    pub max: Option<Max<u64>>,
    /// How much swap may be used besides: `memory.swap.max` (v2), the difference between
    /// `memory.memsw.limit_in_bytes` and `memory.limit_in_bytes` (v1). 0 is no swap: otherwise what a limit of memory
    /// stops goes to swap, as long as there is some.
    pub swap: Option<Max<u64>>,
}

impl Limits {
    /// Leaves everything alone.
    #[must_use]
    pub fn new() -> Self {
        Limits::default()
    }

    /// Sets [`CpuLimits::quota`].
    #[must_use]
    pub fn cpu_quota(mut self, quota: impl Into<Max<CpuQuota>>) -> Self {
        self.cpu.quota = Some(quota.into());
        self
    }

    /// Sets [`CpuLimits::period`].
    #[must_use]
    pub fn cpu_period(mut self, period: CpuPeriod) -> Self {
        self.cpu.period = Some(period);
        self
    }

    /// Sets [`CpuLimits::weight`].
    #[must_use]
    pub fn cpu_weight(mut self, weight: CpuWeight) -> Self {
        self.cpu.weight = Some(weight);
        self
    }

    /// Sets [`Limits::pids`].
    #[must_use]
    pub fn pids(mut self, pids: impl Into<Max<u64>>) -> Self {
        self.pids = Some(pids.into());
        self
    }

    /// Sets [`MemoryLimits::max`], in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: impl Into<Max<u64>>) -> Self {
        self.memory.max = Some(bytes.into());
        self
    }

    /// Sets [`MemoryLimits::swap`], in bytes: swap alone, not the sum.
    #[must_use]
    pub fn swap(mut self, bytes: impl Into<Max<u64>>) -> Self {
        self.memory.swap = Some(bytes.into());
        self
    }
}

impl CpuLimits {
    /// The cores that quota and period amount to, if there is a quota and it is a limit.
    #[must_use]
    pub fn cores(&self) -> Option<f64> {
        match (self.quota?, self.period) {
            (Max::Limit(CpuQuota(Quota::Cores(cores))), _) => Some(f64::from(cores) / MILLIONTHS),
            (Max::Limit(CpuQuota(Quota::Time(quota))), Some(period)) => {
                Some(quota.as_secs_f64() / period.get().as_secs_f64())
            }
            _ => None,
        }
    }
}

/// How much CPU time may be used in each period, by all threads together: a time, or a number of cores, which is a
/// time once the period is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuWeight(u16);

impl CpuWeight {
    /// The kernel's default: 100.
    pub const DEFAULT: CpuWeight = CpuWeight(100);

    /// A weight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) outside of 1 to 10000.
    pub fn new(weight: u32) -> Result<Self> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=10_000) => Ok(CpuWeight(weight)),
            _ => Err(Error::invalid(weight.to_string(), "cpu weight", "the kernel takes 1 to 10000")),
        }
    }

    /// The weight.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// From v1's `cpu.shares`, which is 2 to 262144; what is outside counts as the nearest end. The formula is the
    /// one that runc and crun use: a curve through the minima, the defaults and the maxima of both.
    #[must_use]
    pub fn from_shares(shares: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "at most 2^18 after clamp")]
        let log = (shares.clamp(2, 262_144) as f64).log2();
        let weight = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=10000")]
        // The small difference keeps an exact result, such as 100, from being rounded up for its last bit.
        CpuWeight((weight - 1e-6).ceil().clamp(1.0, 10_000.0) as u16)
    }

    /// As v1's `cpu.shares`. [`from_shares`](Self::from_shares) leads back to the same weight.
    #[must_use]
    pub fn shares(self) -> u64 {
        let target = f64::from(self.0).log10() + 7.0 / 34.0;
        let log = ((125.0f64 * 125.0 + 4.0 * 612.0 * target).sqrt() - 125.0) / 2.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 2..=262144")]
        // Rounded down, as from_shares rounds up.
        {
            (log.exp2() + 1e-6).floor().clamp(2.0, 262_144.0) as u64
        }
    }
}

fn whole_micros(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_micros() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn ends_and_defaults_of_weight_and_shares_meet() {
        for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(CpuWeight::from_shares(shares).get(), weight, "{shares}");
        }
        for (weight, shares) in [(1, 2), (100, 1024), (10_000, 262_144)] {
            assert_eq!(CpuWeight::new(weight).unwrap().shares(), shares, "{weight}");
        }
    }

    #[test]
    fn every_weight_survives_v1() {
        for weight in 1..=10_000 {
            let weight = CpuWeight::new(weight).unwrap();
            assert_eq!(CpuWeight::from_shares(weight.shares()), weight);
        }
    }

    #[test]
    fn every_share_has_a_weight_and_the_order_stays() {
        let mut last = CpuWeight(1);
        for shares in 2..=262_144 {
            let weight = CpuWeight::from_shares(shares);
            assert!(weight >= last);
            last = weight;
        }
    }

    #[test]
    fn ranges() {
        let kind = |error: Error| error.kind();
        assert!(CpuPeriod::new(Duration::from_millis(1)).is_ok());
        assert!(CpuPeriod::new(Duration::from_secs(1)).is_ok());
        for bad in [0, 999, 1_000_001] {
            let error = CpuPeriod::new(Duration::from_micros(bad)).unwrap_err();
            assert_eq!(kind(error), ErrorKind::InvalidInput);
        }
        assert!(CpuPeriod::new(Duration::from_nanos(1_000_000_001)).is_err());
        assert!(CpuPeriod::new(Duration::MAX).is_err());
        assert!(CpuQuota::time(Duration::from_micros(999)).is_err());
        assert!(CpuQuota::time(Duration::MAX).is_err());
        assert!(CpuQuota::time(CpuQuota::MAX).is_ok());
        for bad in [0.0, -5.0, 0.0009, 1e9, f64::NAN, f64::INFINITY] {
            assert_eq!(CpuQuota::cores(bad).map_err(kind), Err(ErrorKind::InvalidInput), "{bad}");
        }
        assert!(CpuWeight::new(0).is_err() && CpuWeight::new(10_001).is_err());
        assert!(CpuWeight::new(65_537).is_err());
    }

    #[test]
    fn cores_become_a_time() {
        let ms = |n| CpuPeriod::new(Duration::from_millis(n)).unwrap();
        let quota = CpuQuota::cores(0.2).unwrap();
        let time = |period| quota.in_period(period).unwrap();
        assert_eq!(time(CpuPeriod::DEFAULT), Duration::from_millis(20));
        assert_eq!(time(ms(10)), Duration::from_millis(2));
        // 0.2 of 1 ms is less than the kernel takes.
        assert!(quota.in_period(ms(1)).is_err());
        assert_eq!(CpuQuota::cores(1.0 / 3.0).unwrap().in_period(ms(100)).unwrap(), Duration::from_micros(33_333));
    }

    proptest! {
        #[test]
        fn cores_in_any_period_stay_in_range(cores in 0.001f64..=4096.0, micros in 1_000u64..=1_000_000) {
            let period = CpuPeriod::new(Duration::from_micros(micros)).unwrap();
            if let Ok(time) = CpuQuota::cores(cores).unwrap().in_period(period) {
                prop_assert!((CpuQuota::MIN..=CpuQuota::MAX).contains(&time));
                let exact = cores * period.get().as_secs_f64();
                prop_assert!((time.as_secs_f64() - exact).abs() < 2e-6);
            }
        }
    }
}
