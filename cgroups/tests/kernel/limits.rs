//! The conformance list, as far as it is about the limits of all controllers.

use std::fs;
use std::time::Duration;

use cofferdam_cgroups::{
    Cgroup, Controllers, CpuPeriod, CpuQuota, CpuWeight, Device, Enforcement, Guard, Hierarchy, IdList, IoDeviceLimits,
    Limits, Max,
};
use cofferdam_testkit::Layout;

use crate::support::{BOTH, Waiting};

const MIB: u64 = 1 << 20;

/// The kernel's name of what limits block devices.
pub(crate) fn io_controller() -> &'static str {
    if Layout::of_this_machine() == Ok(Layout::V2) { "io" } else { "blkio" }
}

fn make(hierarchy: &Hierarchy) -> Guard {
    let controllers = BOTH | Controllers::MEMORY | Controllers::CPUSET | Controllers::IO;
    hierarchy.create("job", controllers).unwrap().into_guard()
}

fn has(job: &Cgroup, file: &str) -> bool {
    job.paths().any(|path| path.join(file).exists())
}

/// What is set comes back, and what is not set stays.
pub(crate) fn every_limit_is_read_back(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let mut limits = Limits::new()
        .cpu_quota(CpuQuota::time(Duration::from_millis(30)).unwrap())
        .cpu_period(CpuPeriod::DEFAULT)
        .cpu_weight(CpuWeight::new(77).unwrap())
        .cpus("0".parse().unwrap())
        .memory(64 * MIB)
        .swap(8 * MIB)
        .pids(17);
    limits.cpu.burst = Some(Duration::from_millis(7));
    limits.cpuset.mems = Some("0".parse().unwrap());
    limits.memory.low = Some(Max::Limit(4 * MIB));
    if has(&job, "memory.high") {
        limits = limits.memory_high(48 * MIB);
        limits.memory.min = Some(Max::Limit(MIB));
        limits.memory.oom_group = Some(true);
    } else {
        limits.memory.swappiness = Some(10);
        limits.memory.oom_killer = Some(false);
    }
    let applied = job.apply(&limits, Enforcement::Strict).unwrap();
    assert!(applied.skipped.is_empty(), "{applied:?}");
    let found = job.limits().unwrap();
    assert_eq!((&found.memory, &found.cpuset.cpus), (&limits.memory, &limits.cpuset.cpus));
    assert_eq!((found.cpu.burst, found.cpu.quota), (limits.cpu.burst, limits.cpu.quota));
    // And again, one by one, each back to where it was.
    let mut idle = Limits::new();
    idle.cpu.idle = Some(true);
    job.apply(&idle, Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().cpu.idle, Some(true));
    idle.cpu.idle = Some(false);
    job.apply(&idle.cpu_weight(CpuWeight::DEFAULT), Enforcement::Strict).unwrap();
    let found = job.limits().unwrap();
    assert_eq!((found.cpu.idle, found.cpu.weight), (Some(false), Some(CpuWeight::DEFAULT)));
    assert_eq!(found.pids, Some(Max::Limit(17)));
    job.close().unwrap();
}

/// What the kernel lets a process run on.
fn allowed(pid: u32) -> IdList {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().parse().unwrap()
}

pub(crate) fn cpuset_is_seen_in_the_affinity(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let process = Waiting::in_cgroup(&job, "exec sleep 60");
    let all = allowed(process.pid());
    let first = IdList::new(all.iter().take(1)).unwrap();
    job.apply(&Limits::new().cpus(first.clone()), Enforcement::Strict).unwrap();
    assert_eq!(allowed(process.pid()), first);
    job.apply(&Limits::new().cpus(all.clone()), Enforcement::Strict).unwrap();
    assert_eq!(allowed(process.pid()), all);
    drop(process);
    job.close().unwrap();
}

/// A device that every machine of ours has: the first disk.
fn disk() -> Device {
    let mut disks: Vec<_> = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path()).collect();
    disks.sort();
    let disk = disks.iter().find(|path| !fs::read_to_string(path.join("size")).unwrap().starts_with("0\n"));
    let disk = disk.unwrap_or(&disks[0]);
    fs::read_to_string(disk.join("dev")).unwrap().trim().parse().unwrap()
}

pub(crate) fn limits_of_a_device_are_read_back(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let device = disk();
    let wanted =
        IoDeviceLimits::new().read_bytes(2 * MIB).write_bytes(3 * MIB).read_operations(40).write_operations(50);
    job.apply(&Limits::new().io_device(device, wanted), Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().io.devices[&device], wanted);
    // One of them alone.
    let none = IoDeviceLimits::new().read_bytes(Max::Max);
    job.apply(&Limits::new().io_device(device, none), Enforcement::Strict).unwrap();
    let found = job.limits().unwrap().io.devices[&device];
    assert!(matches!(found.read_bytes, None | Some(Max::Max)), "{found:?}");
    assert_eq!(found.write_operations, Some(Max::Limit(50)));
    // Of a number with more bits the kernel takes what it has room for, which is another device: here, the same one.
    let wide = Device::new(device.major + (1 << 12), device.minor);
    let before = job.limits().unwrap();
    let error = job.apply(&Limits::new().pids(5).io_device(wide, none), Enforcement::Strict).unwrap_err();
    assert_eq!(error.kind(), cofferdam_cgroups::ErrorKind::InvalidInput, "{error}");
    assert_eq!(job.limits().unwrap(), before);
    let mut unchecked = Limits::new();
    let is_v2 = has(&job, "io.max");
    let (file, rate) = if is_v2 { ("io.max", "wiops=7") } else { ("blkio.throttle.write_iops_device", "7") };
    unchecked.files.insert(file.to_owned(), format!("{wide} {rate}"));
    job.apply(&unchecked, Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().io.devices[&device].write_operations, Some(Max::Limit(7)));
    let missing = job.apply(&Limits::new().io_device(Device::new(4000, 1), wanted), Enforcement::Strict).unwrap_err();
    assert_eq!(missing.kind(), cofferdam_cgroups::ErrorKind::InvalidInput, "{missing}");
    assert!(missing.to_string().contains("no such block device"), "{missing}");
    job.close().unwrap();
}
