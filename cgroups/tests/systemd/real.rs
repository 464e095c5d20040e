//! The same against a real systemd, in the virtual machine (`testkit/vm/run -s`): what it makes of what it is asked for.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_cgroups::systemd::{Systemd, Unit};
use cofferdam_cgroups::{
    Cgroup, Controllers, CpuPeriod, CpuQuota, CpuWeight, Device, DeviceRule, Devices, Enforcement, ErrorKind,
    Hierarchy, IoDeviceLimits, Limits, Max,
};
use cofferdam_testkit::patience;

use Enforcement::{BestEffort, Strict};

const LONG: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const ALL: Controllers = Controllers::CPU
    .union(Controllers::PIDS)
    .union(Controllers::MEMORY)
    .union(Controllers::CPUSET)
    .union(Controllers::IO);

/// Looks again and again until it is so.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG * patience();
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It comes to the bus a moment after the bus has.
fn systemd() -> Systemd {
    let systemd = Systemd::system().unwrap();
    until("systemd is on the bus", || systemd.stop("no-such-unit.scope", LONG).is_ok());
    systemd
}

/// A process, and its number as systemd sees it: the test is in a pid namespace of its own. A service, which is not, looks for its name.
fn process(systemd: &Systemd, name: &str) -> (Child, u32) {
    let child = Command::new("/bin/sleep").arg0(name).arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let file = format!("/run/cofferdam-{name}");
    let script = format!("until pgrep -fx '{name} 1000' >{file}; do sleep 0.1; done; exec sleep 1000");
    let unit = Unit::service(format!("cofferdam-{name}.service"), "/bin/sh", ["-c", &script]);
    systemd.start(&unit, Strict, LONG).unwrap();
    let mut number = None;
    until("the process is found", || {
        number = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        number.is_some()
    });
    systemd.stop(&unit.name, LONG).unwrap();
    fs::remove_file(file).unwrap();
    (child, number.unwrap())
}

/// The cgroup that systemd has told of.
fn cgroup(path: &str, controllers: Controllers) -> Cgroup {
    let root = Hierarchy::detect().unwrap().root(controllers).unwrap();
    root.find_below(path.trim_start_matches('/')).unwrap()
}

fn limits() -> Limits {
    let mut limits = Limits::new().memory(64 * MIB).memory_high(48 * MIB).swap(0).pids(9);
    limits = limits.cpu_quota(CpuQuota::cores(0.5).unwrap()).cpu_weight(CpuWeight::new(77).unwrap());
    limits.cpus("1".parse().unwrap())
}

/// A scope: its limits are the kernel's, change with it, and end with it.
pub(crate) fn a_real_scope() {
    let systemd = systemd();
    let (mut process, number) = process(&systemd, "first");
    let unit = Unit::scope("cofferdam-a.scope", [number]).limits(limits()).in_slice("cofferdam.slice");
    let started = systemd.start(&unit, Strict, LONG).unwrap();
    let path = started.cgroup.unwrap();
    assert_eq!(path, "/cofferdam.slice/cofferdam-a.scope");
    let scope = cgroup(&path, ALL);
    assert_eq!(scope.processes().unwrap(), [process.id()]);
    let (wanted, found) = (limits(), scope.limits().unwrap());
    assert_eq!((found.pids, found.cpu.cores(), found.cpu.weight), (wanted.pids, Some(0.5), wanted.cpu.weight));
    assert_eq!(
        (found.memory.max, found.memory.high, found.memory.swap),
        (wanted.memory.max, wanted.memory.high, wanted.memory.swap)
    );
    assert_eq!(found.cpuset.cpus, wanted.cpuset.cpus);

    systemd.set_limits("cofferdam-a.scope", &Limits::new().pids(5).memory(Max::Max), Strict).unwrap();
    let found = scope.limits().unwrap();
    assert_eq!((found.pids, found.memory.max), (Some(Max::Limit(5)), Some(Max::Max)));
    // A time is one of the period that the scope has by now.
    let ms = Duration::from_millis;
    let period = Limits::new().cpu_period(CpuPeriod::new(ms(10)).unwrap());
    systemd.set_limits("cofferdam-a.scope", &period, Strict).unwrap();
    assert_eq!(scope.limits().unwrap().cpu.cores(), Some(0.5));
    let quota = Limits::new().cpu_quota(CpuQuota::time(ms(2)).unwrap());
    systemd.set_limits("cofferdam-a.scope", &quota, Strict).unwrap();
    let found = scope.limits().unwrap().cpu;
    assert_eq!((found.cores(), found.period), (Some(0.2), period.cpu.period));
    // There is one of that name.
    let error = systemd.start(&unit, Strict, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");

    systemd.stop("cofferdam-a.scope", LONG).unwrap();
    assert!(!process.wait().unwrap().success());
    until("the cgroup is gone", || scope.processes().is_err());
    let error = systemd.set_limits("cofferdam-a.scope", &Limits::new().pids(5), Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    // Its process has ended.
    let error = systemd.start(&unit, Strict, LONG).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoProcess | ErrorKind::Os), "{error}");
    systemd.stop("cofferdam.slice", LONG).unwrap();
}

/// A service, whose devices and disks are limited.
pub(crate) fn a_real_service() {
    let systemd = systemd();
    let mut limits = Limits::new().pids(7);
    limits.devices = Some(Devices::none().except([DeviceRule::char(1, 3), DeviceRule::char(1, 9)]));
    let disk: Device = fs::read_to_string("/sys/block/loop0/dev").unwrap().trim().parse().unwrap();
    limits = limits.io_device(disk, IoDeviceLimits::new().read_bytes(2 * MIB).write_operations(50));
    // Prints whether each of them can be opened: null, zero, urandom.
    let script = "{ echo \"$1\"; for d in null zero urandom; do head -c 0 /dev/${d} 2>&- && echo $d; done; } \
        >/run/cofferdam-c; exec sleep 1000";
    // systemd puts no variable of its own in the place of what looks like one.
    let arguments = ["-c", script, "sh", "$PATH ${PATH} $$"];
    let unit = Unit::service("cofferdam-c.service", "/bin/sh", arguments).limits(limits.clone());
    let path = systemd.start(&unit, Strict, LONG).unwrap().cgroup.unwrap();
    assert_eq!(path, "/system.slice/cofferdam-c.service");
    let service = cgroup(&path, Controllers::PIDS | Controllers::IO);
    let seen = || fs::read_to_string("/run/cofferdam-c").unwrap_or_default();
    until("it has looked", || seen().ends_with("urandom\n"));
    assert_eq!(seen(), "$PATH ${PATH} $$\nnull\nurandom\n");
    let found = service.limits().unwrap();
    assert_eq!(
        (found.pids, found.io.devices[&disk]),
        (
            Some(Max::Limit(7)),
            IoDeviceLimits::new()
                .read_bytes(2 * MIB)
                .write_operations(50)
                .read_operations(Max::Max)
                .write_bytes(Max::Max)
        )
    );
    assert_eq!(service.pids_stats().unwrap().current, 1);
    // What it has no property for is told.
    let mut more = Limits::new().pids(6);
    more.memory.oom_group = Some(true);
    let skipped = systemd.set_limits("cofferdam-c.service", &more, BestEffort).unwrap();
    assert_eq!(skipped.len(), 1);
    assert_eq!(service.limits().unwrap().pids, Some(Max::Limit(6)));
    systemd.stop("cofferdam-c.service", LONG).unwrap();
    until("it is gone", || service.processes().is_err());
    let _ = fs::remove_file("/run/cofferdam-c");

    // One that has ended at once has no cgroup, or had one for a moment; a slice has one.
    systemd.start(&Unit::slice("cofferdam-d.slice").limits(Limits::new().pids(11)), Strict, LONG).unwrap();
    let slice = cgroup("/cofferdam.slice/cofferdam-d.slice", Controllers::PIDS);
    assert_eq!(slice.limits().unwrap().pids, Some(Max::Limit(11)));
    systemd.stop("cofferdam-d.slice", LONG).unwrap();
}
