//! What limits are as properties of a unit: `systemd.resource-control(5)`, `org.freedesktop.systemd1(5)`. Pure.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::{CpuLimits, CpuPeriod, CpuWeight, DeviceKind, DeviceRule, Devices, IdList, IoLimits, Limits, Max};
use crate::systemd::unit::{Content, Unit};
use crate::text;

/// The value of a property, by its type in D-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `b`
    Bool(bool),
    /// `t`
    Number(u64),
    /// `s`
    Text(String),
    /// `ay`
    Bits(Vec<u8>),
    /// `au`
    Processes(Vec<u32>),
    /// `a(st)`
    Numbers(Vec<(String, u64)>),
    /// `a(ss)`
    Rules(Vec<(String, String)>),
    /// `a(sasb)`: program, arguments with its name, whether it may fail.
    Program(String, Vec<String>),
}

/// The properties, in the order in which systemd must get them, and what systemd cannot do.
#[derive(Debug, Default)]
pub(super) struct Properties {
    pub(super) list: Vec<(&'static str, Value)>,
    pub(super) skipped: Vec<Error>,
}

const NO_PROPERTY: &str = "systemd has no property for it";
const NO_LIMIT: u64 = u64::MAX;

fn number(limit: Max<u64>) -> Value {
    Value::Number(match limit {
        Max::Max => NO_LIMIT,
        Max::Limit(limit) => limit,
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NO_LIMIT)
}

impl Properties {
    fn set(&mut self, name: &'static str, value: Value) {
        self.list.push((name, value));
    }

    fn skip(&mut self, setting: &str, note: &'static str) {
        self.skipped.push(Error::new(ErrorKind::Unsupported, Op::Check, setting).with_note(note));
    }
}

/// Of a new unit.
pub(super) fn of_unit(unit: &Unit, drivers: &[u8]) -> Result<Properties> {
    unit.check()?;
    let mut properties = Properties::default();
    if !unit.description.is_empty() {
        properties.set("Description", Value::Text(unit.description.clone()));
    }
    properties.list.extend(unit.slice.iter().map(|slice| ("Slice", Value::Text(slice.clone()))));
    match &unit.content {
        Content::Processes(processes) => properties.set("PIDs", Value::Processes(processes.clone())),
        Content::Program(program, arguments) => {
            // In each word systemd puts variables of its own environment, unless they are written so (`systemd.service(5)`).
            let literal = |word: &String| word.replace('$', "$$");
            let all = std::iter::once(program).chain(arguments).map(literal).collect();
            properties.set("ExecStart", Value::Program(program.clone(), all));
        }
        Content::Units => {}
    }
    // Never of a slice: systemd refuses it.
    if unit.content != Content::Units {
        properties.set("Delegate", Value::Bool(unit.delegate));
    }
    if let Some(time) = unit.runtime_max {
        properties.set("RuntimeMaxUSec", Value::Number(micros(time)));
    }
    of_limits(&unit.limits, CpuPeriod::DEFAULT, drivers, &mut properties)?;
    Ok(properties)
}

/// Whether the period that a unit has must be known: to systemd a quota is a share, and a time is one only with a period.
pub(super) fn needs_period(cpu: &CpuLimits) -> bool {
    cpu.period.is_none() && matches!(cpu.quota, Some(Max::Limit(quota)) if !quota.needs_period())
}

/// The period of a unit, as systemd tells it in microseconds: without end where none was set. What the kernel would not
/// take systemd brings into its range.
pub(super) fn period(micros: Option<u64>) -> CpuPeriod {
    let micros = micros.filter(|micros| *micros != NO_LIMIT);
    let time = micros.map(|micros| Duration::from_micros(micros).clamp(CpuPeriod::MIN, CpuPeriod::MAX));
    time.and_then(|time| CpuPeriod::new(time).ok()).unwrap_or(CpuPeriod::DEFAULT)
}

/// Of a unit that is there, and has this period.
pub(super) fn of_limits(limits: &Limits, period: CpuPeriod, drivers: &[u8], properties: &mut Properties) -> Result<()> {
    of_cpu(&limits.cpu, period, properties)?;
    for (name, list) in [("AllowedCPUs", &limits.cpuset.cpus), ("AllowedMemoryNodes", &limits.cpuset.mems)] {
        properties.list.extend(list.as_ref().map(|list| (name, Value::Bits(bits(list)))));
    }
    let memory = &limits.memory;
    for (name, limit) in [
        ("MemoryMin", memory.min),
        ("MemoryLow", memory.low),
        ("MemoryHigh", memory.high),
        ("MemoryMax", memory.max),
        ("MemorySwapMax", memory.swap),
        ("TasksMax", limits.pids),
    ] {
        properties.list.extend(limit.map(|limit| (name, number(limit))));
    }
    crate::policy::io::check(&limits.io)?;
    of_io(&limits.io, properties);
    if let Some(devices) = &limits.devices {
        of_devices(devices, drivers, properties)?;
    }
    let unknown = [
        ("memory.swappiness", memory.swappiness.is_some()),
        ("memory.oom.group", memory.oom_group.is_some()),
        ("memory.oom_control", memory.oom_killer == Some(false)),
        ("cpuset.cpus.partition", limits.cpuset.partition.is_some()),
        ("hugetlb", !limits.hugetlb.is_empty()),
        ("rdma.max", !limits.rdma.is_empty()),
        ("misc.max", !limits.misc.is_empty()),
        ("net_cls, net_prio", limits.network.class.is_some() || !limits.network.priorities.is_empty()),
    ];
    unknown.iter().filter(|(_, is_set)| *is_set).for_each(|(setting, _)| properties.skip(setting, NO_PROPERTY));
    limits.files.keys().for_each(|file| properties.skip(file, NO_PROPERTY));
    Ok(())
}

fn of_cpu(cpu: &CpuLimits, in_force: CpuPeriod, properties: &mut Properties) -> Result<()> {
    let weight = cpu.weight.map(|weight| u64::from(weight.get()));
    // 0 is the special value "idle", since version 252; any weight ends it.
    let weight = match cpu.idle {
        Some(true) => {
            if weight.is_some() {
                properties.skip("cpu.weight", "a unit that is idle has no weight");
            }
            Some(0)
        }
        Some(false) => Some(weight.unwrap_or(u64::from(CpuWeight::DEFAULT.get()))),
        None => weight,
    };
    properties.list.extend(weight.map(|weight| ("CPUWeight", Value::Number(weight))));
    // First, so that the quota is never one of another period.
    if let Some(period) = cpu.period {
        properties.set("CPUQuotaPeriodUSec", Value::Number(micros(period.get())));
    }
    match cpu.quota {
        None => {}
        Some(Max::Max) => properties.set("CPUQuotaPerSecUSec", Value::Number(NO_LIMIT)),
        Some(Max::Limit(quota)) => {
            let period = cpu.period.unwrap_or(in_force);
            let quota = micros(quota.in_period(period)?);
            properties.set("CPUQuotaPerSecUSec", Value::Number(per_second(quota, micros(period.get()))));
        }
    }
    for (setting, is_set) in [
        ("cpu.max.burst", cpu.burst.is_some()),
        ("cpu.rt_runtime_us", cpu.realtime_runtime.is_some()),
        ("cpu.rt_period_us", cpu.realtime_period.is_some()),
    ] {
        if is_set {
            properties.skip(setting, NO_PROPERTY);
        }
    }
    Ok(())
}

/// CPU time in a second, in steps of 10 ms: systemd rounds up to these, and would tell another quota than it was told.
fn per_second(quota: u64, period: u64) -> u64 {
    const STEP: u128 = 10_000;
    let exact = (u128::from(quota) * 1_000_000).div_ceil(u128::from(period.max(1)));
    u64::try_from(exact.div_ceil(STEP) * STEP).unwrap_or(NO_LIMIT - 1)
}

/// A bit for each number, the lowest first.
fn bits(list: &IdList) -> Vec<u8> {
    let mut bits = Vec::new();
    for id in list.iter() {
        let at = usize::try_from(id / 8).unwrap_or(0);
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        if let Some(byte) = bits.get_mut(at) {
            *byte |= 1u8 << (id % 8);
        }
    }
    bits
}

fn of_io(io: &IoLimits, properties: &mut Properties) {
    if let Some(weight) = io.weight {
        properties.set("IOWeight", Value::Number(u64::from(weight.get())));
    }
    for (device, limits) in &io.devices {
        let node = format!("/dev/block/{device}");
        for (name, value) in [
            ("IODeviceWeight", limits.weight.map(|weight| u64::from(weight.get()))),
            ("IOReadBandwidthMax", limits.read_bytes.map(rate)),
            ("IOWriteBandwidthMax", limits.write_bytes.map(rate)),
            ("IOReadIOPSMax", limits.read_operations.map(rate)),
            ("IOWriteIOPSMax", limits.write_operations.map(rate)),
            ("IODeviceLatencyTargetUSec", limits.latency.map(micros)),
        ] {
            properties.list.extend(value.map(|value| (name, Value::Numbers(vec![(node.clone(), value)]))));
        }
    }
}

fn rate(limit: Max<u64>) -> u64 {
    if let Max::Limit(rate) = limit { rate } else { NO_LIMIT }
}

/// The list before the policy: with a strict policy and an old list, or none, a running unit would lose its devices for a
/// moment.
fn of_devices(devices: &Devices, drivers: &[u8], properties: &mut Properties) -> Result<()> {
    devices.check()?;
    let mut allowed = Vec::new();
    for rule in devices.merged() {
        let setting = format!("devices: {rule}");
        match (devices.allow, node(&rule, drivers)) {
            (false, Some(node)) => {
                let letters = rule.to_string();
                let access = letters.rsplit(' ').next().unwrap_or_default();
                allowed.push((node, access.to_owned()));
            }
            (false, None) => properties.skip(&setting, "systemd has no name for exactly these devices"),
            (true, _) => properties.skip(&setting, "systemd cannot forbid single devices"),
        }
    }
    // An empty list takes the old one away.
    properties.set("DeviceAllow", Value::Rules(Vec::new()));
    if !allowed.is_empty() {
        properties.set("DeviceAllow", Value::Rules(allowed));
    }
    properties.set("DevicePolicy", Value::Text(if devices.allow { "auto" } else { "strict" }.to_owned()));
    Ok(())
}

/// How systemd names the devices of a rule. A driver is known by its name in `/proc/devices` only.
fn node(rule: &DeviceRule, drivers: &[u8]) -> Option<String> {
    let kind = if rule.kind == DeviceKind::Block { "block" } else { "char" };
    match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), None) => driver(drivers, rule.kind, major).map(|name| format!("{kind}-{name}")),
        (None, Some(_)) => None,
    }
}

/// A name that stands for this major alone. systemd takes it as a pattern, and allows every major that has it: `sd` has 16.
fn driver(drivers: &[u8], kind: DeviceKind, major: u32) -> Option<String> {
    let names = names(drivers, kind);
    let alone = |name: &[u8]| names.iter().all(|(other, same)| *same != name || *other == u64::from(major));
    let plain = |name: &[u8]| !name.iter().any(|byte| b"*?[]\\".contains(byte));
    let mut mine = names.iter().filter(|(of, _)| *of == u64::from(major)).map(|(_, name)| *name);
    let name = mine.find(|name| plain(name) && alone(name))?;
    String::from_utf8(name.to_vec()).ok()
}

/// `/proc/devices`: majors of a kind, and names, which are the rest of a line.
fn names(drivers: &[u8], kind: DeviceKind) -> Vec<(u64, &[u8])> {
    let mut section = None;
    let mut names = Vec::new();
    for line in drivers.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        match line {
            b"Character devices:" => section = Some(DeviceKind::Char),
            b"Block devices:" => section = Some(DeviceKind::Block),
            line if section == Some(kind) => {
                let (major, name) = line.split_at(line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len()));
                let name = name.trim_ascii();
                names.extend(text::number(major).filter(|_| !name.is_empty()).map(|major| (major, name)));
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
