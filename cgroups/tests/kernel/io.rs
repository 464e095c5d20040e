//! Block devices: a program that reads from a loop device is held to its limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cofferdam_cgroups::{
    Cgroup, Controllers, Device, Enforcement, ErrorKind, Hierarchy, IoDeviceLimits, IoWeight, Layout, Limits, Max,
    Select,
};

use cofferdam_testkit::patience;

use crate::support::{BOTH, Waiting};

const MIB: u64 = 1 << 20;

/// A loop device over a file, detached when this is dropped.
struct Loop {
    node: PathBuf,
    file: PathBuf,
}

impl Loop {
    fn new(size: u64) -> Self {
        let file = std::env::temp_dir().join("disk");
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Loop { node: String::from_utf8(output.stdout).unwrap().trim().into(), file }
    }

    fn device(&self) -> Device {
        let name = self.node.file_name().unwrap();
        fs::read_to_string(Path::new("/sys/block").join(name).join("dev")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.node).status();
        let _ = fs::remove_file(&self.file);
    }
}

/// How long `dd` takes to read a mebibyte past the page cache, in pieces of 64 KiB.
fn read(job: &Cgroup, disk: &Loop) -> Duration {
    let script = format!("exec dd if={} of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null", disk.node.display());
    let start = Instant::now();
    assert!(Waiting::in_cgroup(job, &script).ended().success());
    start.elapsed()
}

/// A weight is of use only where the device's scheduler knows weights.
pub(crate) fn weights_are_those_of_bfq(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::IO).unwrap().into_guard();
    let disk = Loop::new(MIB);
    let device = disk.device();
    let weight = |number| Some(IoWeight::new(number).unwrap());
    let mut of_device = IoDeviceLimits::new();
    of_device.weight = weight(1090);
    let limits = Limits::new().io_device(device, of_device);
    let error = job.apply(&limits, Enforcement::Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("BFQ"), "{error}");
    assert_eq!(job.apply(&limits, Enforcement::BestEffort).unwrap().skipped.len(), 1);

    let queue = Path::new("/sys/block").join(disk.node.file_name().unwrap()).join("queue/scheduler");
    fs::write(&queue, "bfq").unwrap();
    let mut both = limits.clone();
    both.io.weight = weight(550);
    job.apply(&both, Enforcement::Strict).unwrap();
    let found = job.limits().unwrap().io;
    // As near as BFQ's thousand weights are.
    let nearest = |number| weight(number).map(|weight| IoWeight::from_bfq(weight.bfq()));
    assert_eq!((found.weight, found.devices[&device].weight), (nearest(550), nearest(1090)));
    let missing = Limits::new().io_device(Device::new(4000, 1), of_device);
    let error = job.apply(&missing, Enforcement::Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("no such block device"), "{error}");
    fs::write(&queue, "none").unwrap();
    drop(disk);
    job.close().unwrap();
}

pub(crate) fn reading_is_held_to_the_limit(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::IO).unwrap().into_guard();
    let disk = Loop::new(4 * MIB);
    let device = disk.device();
    let limited = |limits| job.apply(&Limits::new().io_device(device, limits), Enforcement::Strict).unwrap();
    // Two seconds, less what the kernel lets through before it begins to count. More where all takes longer.
    let slow = patience();
    let least = Duration::from_secs(1) * slow;
    let cases = [
        IoDeviceLimits::new().read_bytes(MIB / 2 / u64::from(slow)),
        // Of which there are sixteen.
        IoDeviceLimits::new().read_bytes(Max::Max).read_operations(if slow == 1 { 8 } else { 2 }),
    ];
    for limits in cases {
        limited(limits);
        let taken = read(&job, &disk);
        assert!(taken > least, "{taken:?} with {limits:?}");
    }
    limited(IoDeviceLimits::new().read_operations(Max::Max));
    let taken = read(&job, &disk);
    assert!(taken < least, "{taken:?} without a limit");
    // And all of it was counted; on v1, what there was a limit for.
    let stats = job.stats(Select::IO).unwrap().io.unwrap();
    let found = &stats.devices[&device];
    let least = if hierarchy.layout() == Layout::V2 { 3 } else { 2 };
    assert!((least * MIB..=3 * MIB).contains(&found.read_bytes), "{found:?}");
    assert!(found.reads >= least * 16, "{found:?}");
    drop(disk);
    job.close().unwrap();
}
