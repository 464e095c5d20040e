//! Device nodes: the rules of v1, and the program of v2.

use std::process::Command;

use cofferdam_cgroups::{
    Access, Controllers, Device, DeviceKind, DeviceRule, Devices, Enforcement, ErrorKind, Hierarchy, Layout, Limits,
    Max,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::support::{LONG, Waiting, detect, kind, without};

/// How a script ends that is run in the cgroup.
fn run(job: &cofferdam_cgroups::Cgroup, script: &str) -> bool {
    let mut process = Waiting::in_cgroup(job, script);
    process.ended().success()
}

fn apply(job: &cofferdam_cgroups::Cgroup, devices: Devices) {
    let mut limits = Limits::new();
    limits.devices = Some(devices);
    let applied = job.apply(&limits, Enforcement::Strict).unwrap();
    assert!(applied.skipped.is_empty());
}

const ZERO: &str = "head -c 1 /dev/zero > /dev/null 2>&1";
const NULL: &str = "echo x > /dev/null";

pub(crate) fn devices_are_refused_and_allowed(hierarchy: &Hierarchy) {
    assert!(Command::new("/bin/sh").args(["-c", ZERO]).status().unwrap().success());
    let job = hierarchy.create("job", Controllers::DEVICES).unwrap().into_guard();
    assert!(run(&job, ZERO) && run(&job, NULL));
    let null = DeviceRule::char(1, 3);
    apply(&job, Devices::none().except([null]));
    assert!(run(&job, NULL) && !run(&job, ZERO));
    // In the place of it, and more than once.
    for _ in 0..3 {
        apply(&job, Devices::none().except([null, DeviceRule::char(1, 5)]));
        assert!(run(&job, NULL) && run(&job, ZERO));
        apply(&job, Devices::none().except([null]));
        assert!(run(&job, NULL) && !run(&job, ZERO));
    }
    // Reading is not writing, and a part is not all.
    let read_only = DeviceRule::new(DeviceKind::Char, Device::new(1, 3), Access::READ);
    apply(&job, Devices::none().except([read_only]));
    assert!(run(&job, "cat < /dev/null") && !run(&job, NULL));
    assert!(!run(&job, "cat <> /dev/null"));
    // Two rules for one device are one, in either version.
    let write_only = DeviceRule::new(DeviceKind::Char, Device::new(1, 3), Access::WRITE);
    apply(&job, Devices::none().except([read_only, write_only]));
    assert!(run(&job, "cat <> /dev/null"));
    apply(&job, Devices::none().except([write_only]));
    assert!(run(&job, NULL) && !run(&job, "cat < /dev/null"));
    // v1's kernel has this number for all of them.
    for (major, minor) in [(u32::MAX, 3), (1, u32::MAX), (1 << 12, 3), (1, 1 << 20)] {
        let mut wide = Limits::new();
        wide.devices = Some(Devices::none().except([DeviceRule::char(major, minor)]));
        assert_eq!(kind(job.apply(&wide, Enforcement::Strict)), ErrorKind::InvalidInput, "{major}:{minor}");
        assert!(run(&job, NULL) && !run(&job, ZERO));
    }
    // All but one.
    apply(&job, Devices::all().except([DeviceRule::char(1, 5)]));
    assert!(run(&job, NULL) && !run(&job, ZERO));
    // Below it holds too.
    let child = job.child("child").unwrap();
    assert!(run(&child, NULL) && !run(&child, ZERO));
    child.delete().unwrap();
    apply(&job, Devices::all());
    assert!(run(&job, NULL) && run(&job, ZERO));
    job.kill(LONG).unwrap();
    job.close().unwrap();
}

pub(crate) fn the_unified_tree_can_refuse_devices() {
    let hierarchy = without(",devices");
    assert!(hierarchy.controllers().contains(Controllers::DEVICES));
    devices_are_refused_and_allowed(&hierarchy);
}

/// What it takes is taken away while `f` runs.
pub(crate) fn without_right<T>(right: CapabilitySet, f: impl FnOnce() -> T) -> T {
    let before = capabilities(None).unwrap();
    let mut less = before;
    less.effective -= right;
    set_capabilities(None, less).unwrap();
    let result = f();
    set_capabilities(None, before).unwrap();
    result
}

pub(crate) fn without_the_right_rules_and_limits_stay(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", Controllers::DEVICES | Controllers::PIDS).unwrap().into_guard();
    let with_null = |devices: Devices| {
        let mut limits = Limits::new().pids(7);
        limits.devices = Some(devices.except([DeviceRule::char(1, 3)]));
        limits
    };
    let is_v1 = job.paths().any(|path| path.join("devices.list").exists());
    for at in 0..2 {
        let limits = with_null(Devices::none());
        let set = without_right(CapabilitySet::SYS_ADMIN, || job.apply(&limits, Enforcement::BestEffort));
        if is_v1 || at == 1 {
            let error = set.unwrap_err();
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::PermissionDenied, Some(1)), "{error}");
            assert!(is_v1 || error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
            assert_eq!(job.limits().unwrap().pids, Some(Max::Max));
        } else {
            // Where there are no rules yet.
            set.unwrap();
            job.apply(&Limits::new().pids(Max::Max), Enforcement::Strict).unwrap();
        }
        assert!(run(&job, NULL) && run(&job, ZERO) == is_v1);
    }
    job.apply(&with_null(Devices::none()), Enforcement::Strict).unwrap();
    assert!(run(&job, NULL) && !run(&job, ZERO));
    job.close().unwrap();
}

/// Who was given a cgroup was not given the right to load programs into the kernel.
pub(crate) fn a_user_has_no_rules_of_devices() {
    let hierarchy = detect();
    assert_eq!(hierarchy.layout(), Layout::V2);
    let job = hierarchy.create("job", Controllers::PIDS | Controllers::DEVICES).unwrap().into_guard();
    let mut limits = Limits::new().pids(7);
    limits.devices = Some(Devices::none());
    for how in [Enforcement::Strict, Enforcement::BestEffort] {
        let error = job.apply(&limits, how).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(error.operation(), "attach a program to");
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
        assert_eq!(job.limits().unwrap().pids, Some(Max::Max));
    }
    assert!(run(&job, ZERO));
    job.close().unwrap();
    assert_eq!(kind(job.limits()), ErrorKind::Gone);
}
