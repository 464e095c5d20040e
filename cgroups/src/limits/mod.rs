//! What a cgroup may use: plain data, checked where it is made or before anything is written.

mod cpu;
mod cpuset;
mod devices;
mod io;
mod memory;
mod shared;

use std::collections::BTreeMap;

pub use cpu::{CpuLimits, CpuPeriod, CpuQuota, CpuWeight};
pub use cpuset::{CpusetLimits, IdList, Partition};
pub use devices::{Access, DeviceKind, DeviceRule, Devices};
pub use io::{Device, IoDeviceLimits, IoLimits, IoWeight};
pub use memory::MemoryLimits;
pub use shared::{NetworkLimits, PageSize, RdmaLimits};

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
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
/// takes the limit away, [`Max::Limit`] sets it. In the maps, what is not named is left alone. The default leaves
/// everything alone.
///
/// ```
/// use cofferdam_cgroups::{CpuQuota, CpuWeight, Limits, Max};
///
/// # fn main() -> Result<(), cofferdam_cgroups::Error> {
/// let mut limits = Limits::new()
///     .cpu_quota(CpuQuota::cores(1.5)?)
///     .cpu_weight(CpuWeight::new(50)?)
///     .memory(64 << 20) // 64 MiB
///     .swap(0)
///     .pids(Max::Max);
/// limits.cpuset.cpus = Some("0-1".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Limits {
    /// CPU time.
    pub cpu: CpuLimits,
    /// On which CPUs, and with the memory of which nodes.
    pub cpuset: CpusetLimits,
    /// How many processes and threads may exist at once, below the cgroup too: `pids.max`. 0 forbids every fork.
    pub pids: Option<Max<u64>>,
    /// Memory and swap.
    pub memory: MemoryLimits,
    /// Reading from and writing to block devices.
    pub io: IoLimits,
    /// Device nodes.
    pub devices: Option<Devices>,
    /// Huge pages, in bytes for each of their sizes: `hugetlb.SIZE.max` (v2), `hugetlb.SIZE.limit_in_bytes` (v1).
    /// Reservations (`rsvd`, since Linux 5.7) are limited to the same, or a mapping beyond the limit would be granted
    /// and answered with SIGBUS when it is touched.
    pub hugetlb: BTreeMap<PageSize, Max<u64>>,
    /// RDMA resources, by device: `rdma.max`.
    pub rdma: BTreeMap<String, RdmaLimits>,
    /// Other countable resources, by the names in `misc.capacity`: `misc.max`. v2, since Linux 5.13.
    pub misc: BTreeMap<String, Max<u64>>,
    /// Class and priority of network packets. v1 only.
    pub network: NetworkLimits,
    /// Any other file of a controller that this cgroup has, by its name, and what to write there: for example
    /// `memory.zswap.max`. Written last, in the order of their names, and a text of several lines line by line. A name with a
    /// path in it is refused.
    pub files: BTreeMap<String, String>,
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

    /// Sets [`CpusetLimits::cpus`].
    #[must_use]
    pub fn cpus(mut self, cpus: IdList) -> Self {
        self.cpuset.cpus = Some(cpus);
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

    /// Sets [`MemoryLimits::high`], in bytes.
    #[must_use]
    pub fn memory_high(mut self, bytes: impl Into<Max<u64>>) -> Self {
        self.memory.high = Some(bytes.into());
        self
    }

    /// Sets [`IoLimits::weight`].
    #[must_use]
    pub fn io_weight(mut self, weight: IoWeight) -> Self {
        self.io.weight = Some(weight);
        self
    }

    /// Adds limits of one block device to [`IoLimits::devices`], in place of those that it had.
    #[must_use]
    pub fn io_device(mut self, device: Device, limits: IoDeviceLimits) -> Self {
        self.io.devices.insert(device, limits);
        self
    }

    /// Adds a limit of huge pages of one size to [`Limits::hugetlb`], in bytes.
    #[must_use]
    pub fn hugetlb(mut self, size: PageSize, bytes: impl Into<Max<u64>>) -> Self {
        self.hugetlb.insert(size, bytes.into());
        self
    }
}
