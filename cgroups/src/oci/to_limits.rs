//! From the specification's settings to limits.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::{
    CpuLimits, CpuPeriod, CpuQuota, CpuWeight, CpusetLimits, Device, IoDeviceLimits, IoLimits, IoWeight, Max,
    MemoryLimits, NetworkLimits, RdmaLimits,
};
use crate::oci::{BlockIo, Converted, Cpu, Memory, Network, Resources, ThrottleDevice, devices};

impl Resources {
    /// The limits that are asked for. What is not set is left alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: a value cannot be; [`ErrorKind::Unsupported`]: rules of devices that take a part out of
    /// a wider one, see [`Devices::from_rules`](crate::Devices::from_rules).
    pub fn to_limits(&self) -> Result<Converted> {
        let mut converted = Converted::default();
        let limits = &mut converted.limits;
        limits.devices = devices::to_limits(&self.devices)?;
        if let Some(memory) = &self.memory {
            limits.memory = memory_limits(memory, &mut converted.ignored)?;
        }
        if let Some(cpu) = &self.cpu {
            limits.cpu = cpu_limits(cpu)?;
            limits.cpuset = cpuset_limits(cpu)?;
        }
        limits.pids = self.pids.as_ref().and_then(|pids| pids.limit).map(limit);
        if let Some(block_io) = &self.block_io {
            limits.io = io_limits(block_io, &mut converted.ignored)?;
        }
        for pages in &self.hugepage_limits {
            limits.hugetlb.insert(pages.page_size.parse()?, Max::Limit(pages.limit));
        }
        if let Some(network) = &self.network {
            limits.network = network_limits(network);
        }
        for (device, rdma) in &self.rdma {
            let some = |limit: Option<u32>| limit.map(|limit| Max::Limit(u64::from(limit)));
            let found = RdmaLimits { handles: some(rdma.hca_handles), objects: some(rdma.hca_objects) };
            limits.rdma.insert(device.clone(), found);
        }
        limits.files = self.unified.clone();
        Ok(converted)
    }
}

/// Less than nothing is no limit.
fn limit(number: i64) -> Max<u64> {
    u64::try_from(number).map_or(Max::Max, Max::Limit)
}

/// The same, where 0 stands for a setting that was left out.
fn unless_zero(number: Option<i64>) -> Option<Max<u64>> {
    number.filter(|number| *number != 0).map(limit)
}

fn ignore(setting: &str, note: &'static str, ignored: &mut Vec<Error>) {
    ignored.push(Error::new(ErrorKind::Unsupported, Op::Check, setting).with_note(note));
}

const GONE: &str = "kernels have it no more";

fn memory_limits(memory: &Memory, ignored: &mut Vec<Error>) -> Result<MemoryLimits> {
    for (setting, value) in [("memory.kernel", memory.kernel), ("memory.kernelTCP", memory.kernel_tcp)] {
        if unless_zero(value).is_some_and(|value| value != Max::Max) {
            ignore(setting, GONE, ignored);
        }
    }
    if memory.use_hierarchy == Some(false) {
        ignore("memory.useHierarchy", "what is below always counts", ignored);
    }
    if memory.check_before_update == Some(true) {
        ignore("memory.checkBeforeUpdate", "v1 always does it, v2 never", ignored);
    }
    let max = unless_zero(memory.limit);
    Ok(MemoryLimits {
        max,
        swap: swap(max, unless_zero(memory.swap))?,
        low: unless_zero(memory.reservation),
        swappiness: memory.swappiness,
        oom_killer: memory.disable_oom_killer.map(|disable| !disable),
        ..MemoryLimits::default()
    })
}

/// Swap alone, from both together.
fn swap(memory: Option<Max<u64>>, sum: Option<Max<u64>>) -> Result<Option<Max<u64>>> {
    let refused = |sum: u64, note| Err(Error::invalid(sum.to_string(), "memory.swap", note));
    match (memory, sum) {
        (_, None) => Ok(None),
        (_, Some(Max::Max)) => Ok(Some(Max::Max)),
        (Some(Max::Limit(memory)), Some(Max::Limit(sum))) => match sum.checked_sub(memory) {
            Some(swap) => Ok(Some(Max::Limit(swap))),
            None => refused(sum, "it is memory and swap together, and less than memory.limit"),
        },
        (_, Some(Max::Limit(sum))) => refused(sum, "it is memory and swap together, and needs memory.limit"),
    }
}

fn cpu_limits(cpu: &Cpu) -> Result<CpuLimits> {
    let mut limits = CpuLimits {
        weight: cpu.shares.filter(|shares| *shares != 0).map(CpuWeight::from_shares),
        burst: cpu.burst.map(Duration::from_micros),
        idle: cpu.idle.map(|idle| idle != 0),
        realtime_runtime: match unless_zero(cpu.realtime_runtime) {
            Some(Max::Limit(micros)) => Some(Max::Limit(Duration::from_micros(micros))),
            Some(Max::Max) => Some(Max::Max),
            None => None,
        },
        realtime_period: cpu.realtime_period.filter(|micros| *micros != 0).map(Duration::from_micros),
        ..CpuLimits::default()
    };
    limits.quota = match unless_zero(cpu.quota) {
        Some(Max::Limit(micros)) => Some(Max::Limit(CpuQuota::time(Duration::from_micros(micros))?)),
        Some(Max::Max) => Some(Max::Max),
        None => None,
    };
    if let Some(micros) = cpu.period.filter(|micros| *micros != 0) {
        limits.period = Some(CpuPeriod::new(Duration::from_micros(micros))?);
    }
    Ok(limits)
}

fn cpuset_limits(cpu: &Cpu) -> Result<CpusetLimits> {
    let list = |list: &Option<String>| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => list.parse().map(Some),
    };
    Ok(CpusetLimits { cpus: list(&cpu.cpus)?, mems: list(&cpu.mems)?, ..CpusetLimits::default() })
}

fn device(major: i64, minor: i64) -> Result<Device> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(Device::new(major, minor)),
        _ => Err(Error::invalid(format!("{major}:{minor}"), "blockIO", "the numbers of a device have 32 bits")),
    }
}

/// Which of the rates.
type Rate = fn(&mut IoDeviceLimits) -> &mut Option<Max<u64>>;

fn io_limits(block_io: &BlockIo, ignored: &mut Vec<Error>) -> Result<IoLimits> {
    let weight = |weight: Option<u16>| weight.filter(|weight| *weight != 0).map(|w| IoWeight::from_blkio(u64::from(w)));
    let mut limits = IoLimits { weight: weight(block_io.weight), ..IoLimits::default() };
    let leaves = block_io.weight_device.iter().map(|one| one.leaf_weight);
    if leaves.chain([block_io.leaf_weight]).flatten().any(|weight| weight != 0) {
        ignore("blockIO.leafWeight", GONE, ignored);
    }
    for one in &block_io.weight_device {
        limits.devices.entry(device(one.major, one.minor)?).or_default().weight = weight(one.weight);
    }
    let rates: [(&[ThrottleDevice], Rate); 4] = [
        (&block_io.throttle_read_bps_device, |limits| &mut limits.read_bytes),
        (&block_io.throttle_write_bps_device, |limits| &mut limits.write_bytes),
        (&block_io.throttle_read_iops_device, |limits| &mut limits.read_operations),
        (&block_io.throttle_write_iops_device, |limits| &mut limits.write_operations),
    ];
    for (list, set) in rates {
        for one in list {
            let rate = if one.rate == 0 { Max::Max } else { Max::Limit(one.rate) };
            *set(limits.devices.entry(device(one.major, one.minor)?).or_default()) = Some(rate);
        }
    }
    Ok(limits)
}

fn network_limits(network: &Network) -> NetworkLimits {
    let priorities = network.priorities.iter().map(|one| (one.name.clone(), one.priority));
    NetworkLimits { class: network.class_id, priorities: priorities.collect() }
}
