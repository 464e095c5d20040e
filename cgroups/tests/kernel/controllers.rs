//! Every controller that a machine has, and what the kernel says of devices and resources that it has not.

use std::fs;

use cofferdam_cgroups::{Controllers, Enforcement, ErrorKind, Hierarchy, Layout, Limits, Max, Partition, RdmaLimits};
use cofferdam_testkit::Need;

use crate::support::{BOTH, LONG, Waiting, detect, kind};

/// The kernel's names.
const NAMES: [(Controllers, &str); 13] = [
    (Controllers::CPU, "cpu"),
    (Controllers::PIDS, "pids"),
    (Controllers::MEMORY, "memory"),
    (Controllers::CPUSET, "cpuset"),
    (Controllers::IO, "io"),
    (Controllers::HUGETLB, "hugetlb"),
    (Controllers::RDMA, "rdma"),
    (Controllers::MISC, "misc"),
    (Controllers::NET_CLS, "net_cls"),
    (Controllers::NET_PRIO, "net_prio"),
    (Controllers::PERF_EVENT, "perf_event"),
    (Controllers::DEVICES, "devices"),
    (Controllers::FREEZER, "freezer"),
];

/// What v2 has without a file that says so.
const IMPLICIT: Controllers = Controllers::PERF_EVENT.union(Controllers::DEVICES).union(Controllers::FREEZER);

fn name(controller: Controllers, is_v1: bool) -> &'static str {
    let (_, name) = NAMES.into_iter().find(|(known, _)| *known == controller).unwrap();
    if is_v1 && name == "io" { "blkio" } else { name }
}

/// A cgroup of the test's own in every tree.
pub(crate) fn needs_every() -> Vec<Need> {
    let found = Hierarchy::detect().and_then(|hierarchy| hierarchy.capabilities());
    let need = |one: &cofferdam_cgroups::Support| match one.is_v1 {
        true => Some(Need::CgroupV1(name(one.controller, true))),
        false if IMPLICIT.contains(one.controller) => None,
        false => Some(Need::CgroupV2(name(one.controller, false))),
    };
    found.iter().flat_map(|found| &found.controllers).filter_map(need).collect()
}

pub(crate) fn every_controller_is_joined(hierarchy: &Hierarchy) {
    let found = hierarchy.capabilities().unwrap();
    let usable = found.usable();
    let job = hierarchy.create("job", usable).unwrap().into_guard();
    assert_eq!(job.controllers(), usable);
    let process = Waiting::in_cgroup(&job, "exec sleep 60");
    let lines = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    let on = job.paths().last().and_then(|path| fs::read_to_string(path.join("cgroup.controllers")).ok());
    let mut seen = 0;
    for controller in usable.iter() {
        let is_v1 = found.controller(controller).unwrap().is_v1;
        let name = name(controller, is_v1);
        let is_its = |line: &&str| match line.split(':').nth(1).unwrap() {
            "" => !is_v1,
            names => is_v1 && names.split(',').any(|one| one == name),
        };
        assert!(lines.lines().find(is_its).unwrap().ends_with("/job"), "{name}: {lines}");
        let is_implicit = is_v1 || IMPLICIT.contains(controller);
        assert!(is_implicit || on.as_ref().unwrap().split_whitespace().any(|one| one == name), "{name}: {on:?}");
        seen += 1;
    }
    assert!(seen >= 8, "{usable:?}");
    job.kill(LONG).unwrap();
    job.close().unwrap();
}

/// Not the cgroup is missing, nor the controller.
pub(crate) fn what_a_machine_lacks_is_named(hierarchy: &Hierarchy) {
    let mut rdma = Limits::new();
    let mut one = RdmaLimits::default();
    one.handles = Some(Max::Limit(1));
    rdma.rdma.insert("nothing0".to_owned(), one);
    let mut misc = Limits::new();
    misc.misc.insert("nothing".to_owned(), Max::Limit(1));
    let mut network = Limits::new();
    network.network.priorities.insert("nothing0".to_owned(), 1);
    let cases = [
        (Controllers::RDMA, rdma, ErrorKind::InvalidInput, "no such RDMA device"),
        (Controllers::MISC, misc, ErrorKind::Os, "no such resource"),
        (Controllers::NET_PRIO, network, ErrorKind::InvalidInput, "no such network interface"),
    ];
    let known = hierarchy.controllers();
    let controllers = cases.iter().map(|(controller, ..)| *controller).collect::<Controllers>() & known;
    let job = hierarchy.create("job", controllers).unwrap().into_guard();
    let cases: Vec<_> = cases.into_iter().filter(|(controller, ..)| known.contains(*controller)).collect();
    assert!(cases.len() >= 2);
    for (_, limits, kind, note) in cases {
        for enforcement in [Enforcement::Strict, Enforcement::BestEffort] {
            let error = job.apply(&limits, enforcement).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(note), "{error:?}");
        }
    }
    job.close().unwrap();
}

/// The kernel takes the word in either case. Directly below the root, which is a partition itself.
pub(crate) fn a_partition_has_its_cpus_alone() {
    let hierarchy = detect();
    let root = hierarchy.root(Controllers::CPUSET).unwrap();
    let top = root.paths().last().unwrap().to_owned();
    let effective = || fs::read_to_string(top.join("cpuset.cpus.effective")).unwrap().trim().to_owned();
    assert_eq!(effective(), "0-1");
    let mut limits = Limits::new().cpus("1".parse().unwrap());
    limits.cpuset.partition = Some(Partition::Root);
    let part = root.child("cofferdam-partition").unwrap().into_guard();
    part.apply(&limits, Enforcement::Strict).unwrap();
    assert_eq!((effective(), part.limits().unwrap().cpuset.partition), ("0".to_owned(), Some(Partition::Root)));
    // In the midst of cgroups that are none there can be no other.
    let job = hierarchy.create("job", Controllers::CPUSET).unwrap().into_guard();
    limits.cpuset.cpus = None;
    let error = job.apply(&limits, Enforcement::Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().starts_with("write \"root\" to "), "{error}");
    assert_eq!(job.limits().unwrap().cpuset.partition, Some(Partition::Member));
    let skipped = job.apply(&limits, Enforcement::BestEffort).unwrap().skipped;
    assert_eq!(skipped.len(), 1);
    job.close().unwrap();
    part.close().unwrap();
    assert_eq!(effective(), "0-1");
}

/// Where no controller can be threaded, the kernel refuses by itself, and nothing is looked at before.
pub(crate) fn a_cgroup_with_controllers_for_its_children_takes_no_processes() {
    let job = detect().create("job", Controllers::HUGETLB).unwrap().into_guard();
    let child = job.child("child").unwrap();
    let process = Waiting::new("exit");
    let error = job.attach(process.pid()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Occupied, "{error}");
    assert!(error.to_string().contains("no processes itself"), "{error}");
    let path = job.paths().last().unwrap();
    assert_eq!(fs::read_to_string(path.join("cgroup.type")).unwrap(), "domain\n");
    child.attach(process.pid()).unwrap();
    drop(process);
    job.close().unwrap();
}

/// The tree is mounted anew with the option, and then without.
pub(crate) fn a_tree_for_fast_moves_is_seen() {
    let remount = |option: &str| {
        let options = ["remount,nsdelegate,memory_recursiveprot", option].concat();
        let status = std::process::Command::new("mount").args(["-o", &options, "cgroup2", "/sys/fs/cgroup"]).status();
        assert!(status.unwrap().success(), "{options}");
        let hierarchy = detect();
        assert_eq!(hierarchy.layout(), Layout::V2);
        let found = hierarchy.capabilities().unwrap().controllers;
        assert!(!found.is_empty());
        found.iter().map(|one| one.favordynmods).collect::<std::collections::BTreeSet<_>>()
    };
    let with = remount(",favordynmods");
    let without = remount("");
    assert_eq!((with, without), ([true].into(), [false].into()));
}

/// Threads of one process, each in a cgroup of its own: on v1 in any, on v2 in threaded ones below their domain.
pub(crate) fn threads_have_cgroups_of_their_own(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let parts = ["a", "b"].map(|name| job.child(name).unwrap());
    for part in &parts {
        match part.make_threaded() {
            Err(error) if hierarchy.layout() == Layout::V1 => assert_eq!(error.kind(), ErrorKind::Unsupported),
            made => made.unwrap(),
        }
    }
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let mut program = program.arg(crate::WAITING_THREADS).stdin(std::process::Stdio::null()).spawn().unwrap();
    job.attach(program.id()).unwrap();
    let threads = || job.threads().unwrap();
    crate::support::until("there are two threads", || threads().len() == 2);
    for (part, thread) in parts.iter().zip(threads()) {
        part.attach_thread(thread).unwrap();
        assert_eq!(part.threads().unwrap(), [thread]);
        let lines = fs::read_to_string(format!("/proc/{}/task/{thread}/cgroup", program.id())).unwrap();
        for path in part.paths() {
            let end = ["/job/", path.file_name().unwrap().to_str().unwrap()].concat();
            assert!(lines.lines().filter(|line| line.ends_with(&end)).count() >= part.paths().count(), "{lines}");
        }
    }
    assert!(threads().is_empty());
    assert_eq!(kind(parts[0].attach_thread(u32::MAX)), ErrorKind::InvalidInput);
    job.kill(LONG).unwrap();
    program.wait().unwrap();
    job.close().unwrap();
}
