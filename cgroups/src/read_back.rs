//! The limits that are in force.

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::buffer;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::kept::Kept;
use crate::layout::Version;
use crate::limits::{CpuLimits, CpusetLimits, IoLimits, Limits, MemoryLimits, NetworkLimits, Partition};
use crate::member::Member;
use crate::policy::cpu::{self, Bandwidth};
use crate::policy::{self, cpuset, io, memory, shared};
use crate::text;

/// How to make a value of the kernel's text.
type Parse<T> = fn(&[u8]) -> Option<T>;

impl Member {
    /// A setting, where this kernel and this cgroup have the file.
    fn setting<T>(&self, file: &str, parse: Parse<T>) -> Result<Option<T>> {
        let mut buffer = buffer();
        match self.dir.read_if_there(file, &mut buffer)? {
            Some(text) => parse(text).map(Some).ok_or_else(|| self.dir.malformed(file)),
            None => Ok(None),
        }
    }

    /// A list of any length, nothing where there is no such file.
    fn table(&self, file: &str) -> Result<Vec<u8>> {
        match self.dir.read_list(file) {
            Err(error) if error.is_gone() && self.dir.is_alive() => Ok(Vec::new()),
            text => text,
        }
    }
}

impl Cgroup {
    /// The limits that this cgroup has, as the kernel tells them. What it cannot have (a quota at the root of v2, a limit
    /// of swap where that is not counted), and what belongs to a controller that was not asked for, is `None`, or not in
    /// the map. Limits of the cgroups above hold as well, and are not considered here. A quota comes back as a time;
    /// [`Limits::files`] stays empty, and so does [`Limits::devices`] on v2, whose programs cannot be read.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::new();
        let member = |subsystem| self.governing(subsystem).ok();
        if let Some(cpu) = member(Subsystems::CPU) {
            limits.cpu = self.cpu_limits(cpu)?;
        }
        if let Some(cpuset) = member(Subsystems::CPUSET) {
            limits.cpuset = cpuset_limits(cpuset)?;
        }
        if let Some(pids) = member(Subsystems::PIDS) {
            limits.pids = pids.setting(policy::PIDS_MAX, policy::parse_max)?;
        }
        if let Some(memory) = member(Subsystems::MEMORY) {
            limits.memory = memory_limits(memory)?;
        }
        if let Some(io) = member(Subsystems::IO) {
            limits.io = io_limits(io)?;
        }
        if let Some(devices) = member(Subsystems::DEVICES).filter(|member| member.version() == Version::V1) {
            let list = devices.dir.read_list(policy::devices::LIST)?;
            limits.devices = policy::devices::parse_list(&list);
        }
        if let Some(hugetlb) = member(Subsystems::HUGETLB) {
            let names = hugetlb.dir.files()?;
            let sizes = names.iter().filter_map(|name| shared::hugetlb_size(name.to_str()?, hugetlb.version()));
            for size in sizes {
                let [file, _] = shared::hugetlb_files(size, hugetlb.version());
                let parse = |text: &[u8]| memory::parse_limit(text, size.bytes());
                let mut buffer = buffer();
                let limit = hugetlb.dir.read_if_there(&file, &mut buffer)?.and_then(parse);
                limits.hugetlb.extend(limit.map(|limit| (size, limit)));
            }
        }
        if let Some(rdma) = member(Subsystems::RDMA) {
            limits.rdma = shared::parse_rdma(&rdma.table(shared::RDMA_MAX)?);
        }
        if let Some(misc) = member(Subsystems::MISC) {
            limits.misc = shared::parse_misc(&misc.table(shared::MISC_MAX)?);
        }
        limits.network = self.network_limits()?;
        Ok(limits)
    }

    fn cpu_limits(&self, cpu: &Member) -> Result<CpuLimits> {
        let mut limits = CpuLimits::default();
        if let Some(bandwidth) = self.bandwidth()? {
            let (quota, period) = cpu::limits_of(bandwidth);
            (limits.quota, limits.period) = (Some(quota), Some(period));
        }
        let weight = match cpu.version() {
            Version::V1 => cpu::V1_SHARES,
            Version::V2 => cpu::V2_WEIGHT,
        };
        let weight = cpu.setting(weight, text::number)?;
        limits.weight = weight.and_then(|number| cpu::weight(number, cpu.version()));
        limits.burst = cpu.setting(cpu::burst_file(cpu.version()), text::micros)?;
        limits.idle = cpu.setting(cpu::IDLE, policy::parse_switch)?;
        if cpu.version() == Version::V1 {
            limits.realtime_runtime = cpu.setting(cpu::V1_RT_RUNTIME, cpu::parse_runtime)?;
            limits.realtime_period = cpu.setting(cpu::V1_RT_PERIOD, text::micros)?;
        }
        Ok(limits)
    }

    /// Quota and period in force; `None` where this cgroup cannot have them.
    pub(crate) fn bandwidth(&self) -> Result<Option<Bandwidth>> {
        let cpu = self.governing(Subsystems::CPU)?;
        let (mut first, mut second) = (buffer(), buffer());
        let (file, parsed) = match cpu.version() {
            Version::V2 => return cpu.setting(cpu::V2_MAX, cpu::parse_v2_bandwidth),
            Version::V1 => match cpu.dir.read_if_there(cpu::V1_QUOTA, &mut first)? {
                Some(quota) => {
                    let period = cpu.dir.read(cpu::V1_PERIOD, &mut second)?;
                    (cpu::V1_QUOTA, cpu::parse_v1_bandwidth(quota, period))
                }
                None => return Ok(None),
            },
        };
        parsed.map(Some).ok_or_else(|| cpu.dir.malformed(file))
    }

    fn network_limits(&self) -> Result<NetworkLimits> {
        let mut limits = NetworkLimits::default();
        if let Ok(class) = self.governing(Subsystems::NET_CLS) {
            let class = class.setting(shared::CLASS, text::number)?;
            limits.class = class.and_then(|class| u32::try_from(class).ok());
        }
        if let Ok(priorities) = self.governing(Subsystems::NET_PRIO) {
            limits.priorities = shared::parse_priorities(&priorities.table(shared::PRIORITIES)?);
        }
        Ok(limits)
    }
}

fn memory_limits(member: &Member) -> Result<MemoryLimits> {
    let mut limits = memory_and_swap(member, &mut Kept::default())?;
    let mut buffer = buffer();
    let mut bytes = |file: &str| -> Result<_> {
        let text = member.dir.read_if_there(file, &mut buffer)?;
        Ok(text.and_then(|text| memory::parse_limit(text, member.tree.page)))
    };
    match member.version() {
        Version::V1 => {
            limits.low = bytes(memory::V1_SOFT)?;
            limits.swappiness = member.setting(memory::V1_SWAPPINESS, text::number)?;
            let disabled = member.setting(memory::V1_OOM, |text| text::field(text, "oom_kill_disable"))?;
            limits.oom_killer = disabled.map(|disabled| disabled == 0);
        }
        Version::V2 => {
            limits.high = bytes(memory::V2_HIGH)?;
            limits.low = bytes(memory::V2_LOW)?;
            limits.min = bytes(memory::V2_MIN)?;
            limits.oom_group = member.setting(memory::V2_OOM_GROUP, policy::parse_switch)?;
        }
    }
    Ok(limits)
}

/// Memory and swap in force; `None` for what this cgroup cannot have.
pub(crate) fn memory_and_swap(member: &Member, kept: &mut Kept) -> Result<MemoryLimits> {
    let files = memory::files(member.version());
    let (mut first, mut second) = (buffer(), buffer());
    let Some(max) = kept.read(&member.dir, files.max, &mut first)? else {
        return Ok(MemoryLimits::default());
    };
    let swap = kept.read(&member.dir, files.swap, &mut second)?;
    memory::parse(member.version(), max, swap, member.tree.page).ok_or_else(|| member.dir.malformed(files.max))
}

fn cpuset_limits(member: &Member) -> Result<CpusetLimits> {
    let list = |file: &str| match member.setting(file, cpuset::parse)? {
        None if member.version() == Version::V1 => member.setting(file.trim_start_matches("cpuset."), cpuset::parse),
        list => Ok(list),
    };
    Ok(CpusetLimits {
        cpus: list(cpuset::CPUS)?,
        mems: list(cpuset::MEMS)?,
        partition: member.setting(cpuset::PARTITION, Partition::parse)?,
    })
}

fn io_limits(member: &Member) -> Result<IoLimits> {
    let mut limits = IoLimits::default();
    let version = member.version();
    for (at, file) in io::weight_files(version).into_iter().enumerate() {
        let text = member.table(file)?;
        if text.is_empty() {
            continue;
        }
        io::parse_weights(&text, version, at == 0, &mut limits);
        if version == Version::V1 {
            io::parse_weights(&member.table(&[file, "_device"].concat())?, version, at == 0, &mut limits);
        }
        break;
    }
    match version {
        Version::V1 => {
            for (at, (_, file)) in io::RATES.iter().enumerate() {
                io::parse_rate_file(&member.table(file)?, at, &mut limits);
            }
        }
        Version::V2 => {
            io::parse_max_file(&member.table(io::V2_MAX)?, &mut limits);
            io::parse_latencies(&member.table(io::V2_LATENCY)?, &mut limits);
        }
    }
    Ok(limits)
}
