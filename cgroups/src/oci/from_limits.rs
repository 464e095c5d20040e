//! From limits to the specification's settings.

use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::{CpuLimits, CpuPeriod, CpusetLimits, IoLimits, IoWeight, Limits, Max, MemoryLimits};
use crate::oci::{
    BlockIo, Cpu, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources, ThrottleDevice,
    WeightDevice, devices,
};
use crate::policy::{encode, switch};

impl Limits {
    /// The same in the specification's settings. What only v2 has goes to `unified`. A quota in cores is one of the
    /// period, or of 100 ms. Weights of block devices are coarser there, to one of a thousand.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for what cannot be said: a limit of swap without one of memory; no limit of huge pages
    /// or RDMA; a limit of 0 where that is "not set" there (memory, rates, real-time), and one beyond 63 bits.
    /// [`ErrorKind::InvalidInput`]: a quota that is too short; rules of devices that no device can have.
    pub fn to_oci(&self) -> Result<Resources> {
        let mut resources = Resources {
            devices: self.devices.as_ref().map(devices::from_limits).transpose()?.unwrap_or_default(),
            memory: memory(&self.memory)?,
            cpu: cpu(&self.cpu, &self.cpuset)?,
            pids: pids(self.pids)?,
            block_io: block_io(&self.io)?,
            network: network(self),
            unified: unified(self).into_iter().collect(),
            ..Resources::default()
        };
        for (size, limit) in &self.hugetlb {
            let Max::Limit(limit) = *limit else { return Err(cannot("hugepageLimits")) };
            let pages = HugepageLimit { page_size: size.to_string(), limit, ..HugepageLimit::default() };
            resources.hugepage_limits.push(pages);
        }
        for (device, limits) in &self.rdma {
            let number = |limit: Option<Max<u64>>| match limit {
                None => Ok(None),
                Some(Max::Limit(limit)) => u32::try_from(limit).map(Some).map_err(|_| cannot("rdma")),
                Some(Max::Max) => Err(cannot("rdma")),
            };
            let (hca_handles, hca_objects) = (number(limits.handles)?, number(limits.objects)?);
            resources.rdma.insert(device.clone(), Rdma { hca_handles, hca_objects, ..Rdma::default() });
        }
        // Last, as they are written.
        resources.unified.extend(self.files.clone());
        Ok(resources)
    }
}

fn cannot(setting: &str) -> Error {
    Error::new(ErrorKind::Unsupported, Op::Check, setting).with_note("the specification has no way to say it")
}

/// -1 is no limit.
fn signed(limit: Max<u64>, setting: &str) -> Result<i64> {
    match limit {
        Max::Max => Ok(-1),
        Max::Limit(limit) => i64::try_from(limit).map_err(|_| cannot(setting)),
    }
}

/// The same where 0 would be a setting that was left out.
fn not_zero(limit: Max<u64>, setting: &str) -> Result<i64> {
    if limit == Max::Limit(0) { Err(cannot(setting)) } else { signed(limit, setting) }
}

fn pids(limit: Option<Max<u64>>) -> Result<Option<Pids>> {
    let limit = limit.map(|limit| signed(limit, "pids.limit")).transpose()?;
    Ok(limit.map(|limit| Pids { limit: Some(limit), ..Pids::default() }))
}

fn memory(limits: &MemoryLimits) -> Result<Option<Memory>> {
    let setting = |limit: Option<Max<u64>>, setting| limit.map(|limit| not_zero(limit, setting)).transpose();
    let limit = setting(limits.max, "memory.limit")?;
    let sum = match (limits.max, limits.swap) {
        (_, None | Some(Max::Max)) => limits.swap,
        (Some(Max::Limit(memory)), Some(Max::Limit(swap))) => {
            Some(Max::Limit(memory.checked_add(swap).ok_or_else(|| cannot("memory.swap"))?))
        }
        (_, Some(Max::Limit(_))) => return Err(cannot("memory.swap")),
    };
    let memory = Memory {
        limit,
        swap: setting(sum, "memory.swap")?,
        reservation: setting(limits.low, "memory.reservation")?,
        swappiness: limits.swappiness,
        disable_oom_killer: limits.oom_killer.map(|killer| !killer),
        ..Memory::default()
    };
    Ok((memory != Memory::default()).then_some(memory))
}

fn cpu(limits: &CpuLimits, cpuset: &CpusetLimits) -> Result<Option<Cpu>> {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let quota = match limits.quota {
        None => None,
        Some(Max::Max) => Some(-1),
        Some(Max::Limit(quota)) => {
            let time = quota.in_period(limits.period.unwrap_or(CpuPeriod::DEFAULT))?;
            Some(signed(Max::Limit(micros(time)), "cpu.quota")?)
        }
    };
    let realtime_runtime = match limits.realtime_runtime {
        None => None,
        Some(Max::Max) => Some(-1),
        Some(Max::Limit(time)) => Some(not_zero(Max::Limit(micros(time)), "cpu.realtimeRuntime")?),
    };
    let realtime_period = limits.realtime_period.map(micros);
    if realtime_period == Some(0) {
        return Err(cannot("cpu.realtimePeriod"));
    }
    // A number of cores is a time with this period only.
    let is_cores = matches!(limits.quota, Some(Max::Limit(quota)) if quota.needs_period());
    let period = limits.period.or(is_cores.then_some(CpuPeriod::DEFAULT));
    let cpu = Cpu {
        shares: limits.weight.map(crate::limits::CpuWeight::shares),
        quota,
        period: period.map(|period| micros(period.get())),
        burst: limits.burst.map(micros),
        idle: limits.idle.map(i64::from),
        realtime_runtime,
        realtime_period,
        cpus: cpuset.cpus.as_ref().map(ToString::to_string),
        mems: cpuset.mems.as_ref().map(ToString::to_string),
        ..Cpu::default()
    };
    Ok((cpu != Cpu::default()).then_some(cpu))
}

fn block_io(limits: &IoLimits) -> Result<Option<BlockIo>> {
    let weight = |weight: IoWeight| u16::try_from(weight.blkio()).unwrap_or(1000);
    let mut found = BlockIo { weight: limits.weight.map(weight), ..BlockIo::default() };
    for (device, limits) in &limits.devices {
        let (major, minor) = (i64::from(device.major), i64::from(device.minor));
        let rate = |limit: Option<Max<u64>>, setting| {
            let rate = match limit {
                None => return Ok(None),
                // 0 is no limit there, and none may not become that.
                Some(Max::Limit(0)) => return Err(cannot(setting)),
                Some(Max::Limit(rate)) => rate,
                Some(Max::Max) => 0,
            };
            Ok(Some(ThrottleDevice { major, minor, rate, ..ThrottleDevice::default() }))
        };
        found.throttle_read_bps_device.extend(rate(limits.read_bytes, "blockIO.throttleReadBpsDevice")?);
        found.throttle_write_bps_device.extend(rate(limits.write_bytes, "blockIO.throttleWriteBpsDevice")?);
        found.throttle_read_iops_device.extend(rate(limits.read_operations, "blockIO.throttleReadIOPSDevice")?);
        found.throttle_write_iops_device.extend(rate(limits.write_operations, "blockIO.throttleWriteIOPSDevice")?);
        let weighted = |w| WeightDevice { major, minor, weight: Some(weight(w)), ..WeightDevice::default() };
        found.weight_device.extend(limits.weight.map(weighted));
    }
    Ok((found != BlockIo::default()).then_some(found))
}

fn network(limits: &Limits) -> Option<Network> {
    let one = |(name, priority): (&String, &u32)| InterfacePriority {
        name: name.clone(),
        priority: *priority,
        ..InterfacePriority::default()
    };
    let priorities = limits.network.priorities.iter().map(one).collect();
    let network = Network { class_id: limits.network.class, priorities, ..Network::default() };
    (network != Network::default()).then_some(network)
}

/// What has a file of v2 and no setting.
fn unified(limits: &Limits) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut add = |file: &str, text: Option<String>| files.extend(text.map(|text| (file.to_owned(), text)));
    let bytes = |limit: Option<Max<u64>>| limit.map(|limit| encode(limit, "max"));
    add("memory.high", bytes(limits.memory.high));
    add("memory.min", bytes(limits.memory.min));
    add("memory.oom.group", limits.memory.oom_group.map(|on| switch(on).to_owned()));
    add("cpuset.cpus.partition", limits.cpuset.partition.map(|partition| partition.text().to_owned()));
    let latency = |(device, limits): (&crate::Device, &crate::IoDeviceLimits)| {
        limits.latency.map(|time| format!("{device} target={}", time.as_micros()))
    };
    let lines = |lines: Vec<String>| (!lines.is_empty()).then(|| lines.join("\n"));
    add("io.latency", lines(limits.io.devices.iter().filter_map(latency).collect()));
    let misc = limits.misc.iter().map(|(name, limit)| format!("{name} {}", encode(*limit, "max")));
    add("misc.max", lines(misc.collect()));
    files
}
