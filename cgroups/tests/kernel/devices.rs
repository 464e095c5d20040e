//! Device nodes: the rules of v1, and the program of v2.

use std::process::Command;

use cofferdam_cgroups::{Access, Controllers, Device, DeviceKind, DeviceRule, Devices, Enforcement, Hierarchy, Limits};

use crate::support::{LONG, Waiting, without};

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
