//! The feature `systemd` against a stand-in that speaks systemd's part of D-Bus, on a bus of its own: `dbus-daemon` is
//! needed. What a real systemd makes of the properties is shown by `real`, in a virtual machine.

mod real;
mod stand_in;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cofferdam_cgroups::systemd::{Systemd, Unit};
use cofferdam_cgroups::{CpuPeriod, CpuQuota, DeviceRule, Devices, Enforcement, ErrorKind, Limits, PageSize};
use cofferdam_testkit::{Need, Test};

use Enforcement::{BestEffort, Strict};
use real::{a_real_scope, a_real_service};
use stand_in::{DAEMON, Machine};

const LONG: Duration = Duration::from_secs(20);
/// Followed by the name of a test.
const HERE: &str = "--here";

fn limits() -> Limits {
    let mut limits = Limits::new().memory(64 << 20).pids(9).cpu_quota(CpuQuota::cores(0.5).unwrap());
    limits.cpuset.cpus = Some("0-1".parse().unwrap());
    limits.devices = Some(Devices::none().except([DeviceRule::char(1, 3)]));
    limits.hugetlb(PageSize::new(2 << 20).unwrap(), 0)
}

fn a_scope_is_started_limited_and_stopped() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    let unit = Unit::scope("job-1.scope", [std::process::id()]).limits(limits()).in_slice("builds.slice");
    let started = systemd.start(&unit, BestEffort, LONG).unwrap();
    assert_eq!(started.cgroup.as_deref(), Some("/system.slice/job-1.scope"));
    // Nothing is dropped silently.
    assert_eq!(started.skipped.iter().map(|error| error.path().to_str().unwrap()).collect::<Vec<_>>(), ["hugetlb"]);
    assert_eq!(machine.calls(), ["Subscribe", "StartTransientUnit job-1.scope fail"]);
    let expected = [
        "Slice",
        "PIDs",
        "Delegate",
        "CPUQuotaPerSecUSec",
        "AllowedCPUs",
        "MemoryMax",
        "TasksMax",
        "DeviceAllow",
        "DeviceAllow",
        "DevicePolicy",
    ];
    assert_eq!(machine.properties("job-1.scope"), expected);

    assert!(systemd.set_limits("job-1.scope", &Limits::new().pids(5), Strict).unwrap().is_empty());
    assert_eq!(machine.calls(), ["SetUnitProperties job-1.scope true"]);
    systemd.stop("job-1.scope", LONG).unwrap();
    assert_eq!(machine.calls(), ["Subscribe", "StopUnit job-1.scope replace"]);
    // Again is fine, and there is nothing to limit any more.
    systemd.stop("job-1.scope", LONG).unwrap();
    let error = systemd.set_limits("job-1.scope", &Limits::new().pids(5), Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert!(error.to_string().contains("Unit job-1.scope not loaded."), "{error}");
}

/// What systemd is told is a share, and a time is one only with the period that the unit has.
fn a_quota_is_one_of_the_period_that_the_unit_has() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    let ms = Duration::from_millis;
    let time = |time| Limits::new().cpu_quota(CpuQuota::time(ms(time)).unwrap());
    let share = |unit: &str| machine.state.lock().unwrap().numbers[&(unit.to_owned(), "CPUQuotaPerSecUSec".to_owned())];
    for unit in
        [Unit::scope("job.scope", [7]), Unit::service("job.service", "/bin/true", [""; 0]), Unit::slice("job.slice")]
    {
        systemd.start(&unit, Strict, LONG).unwrap();
        // The default, until there is another one.
        systemd.set_limits(&unit.name, &time(5), Strict).unwrap();
        assert_eq!(share(&unit.name), 50_000);
        systemd.set_limits(&unit.name, &Limits::new().cpu_period(CpuPeriod::new(ms(10)).unwrap()), Strict).unwrap();
        assert_eq!(share(&unit.name), 50_000);
        systemd.set_limits(&unit.name, &time(5), Strict).unwrap();
        assert_eq!(share(&unit.name), 500_000);
        // Nothing is asked where the period does not matter.
        machine.calls();
        systemd.set_limits(&unit.name, &time(5).cpu_period(CpuPeriod::new(ms(20)).unwrap()), Strict).unwrap();
        assert_eq!(share(&unit.name), 250_000);
        systemd.set_limits(&unit.name, &Limits::new().cpu_quota(CpuQuota::cores(0.3).unwrap()), Strict).unwrap();
        assert_eq!(share(&unit.name), 300_000);
        assert_eq!(machine.calls(), vec![format!("SetUnitProperties {} true", unit.name); 2]);
    }
    let error = systemd.set_limits("none.scope", &time(5), Strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
}

/// A service that ended at once has no cgroup: none, rather than a path that leads to the root of the tree.
fn without_a_cgroup_there_is_none() {
    let machine = Machine::new();
    let started = machine.systemd().start(&Unit::service("short.service", "/bin/true", [""; 0]), Strict, LONG).unwrap();
    assert_eq!(started.cgroup, None);
}

fn strictly_nothing_is_asked_for_without_all_of_the_limits() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    let mut exception = Limits::new().pids(5);
    exception.devices = Some(Devices::all().except([DeviceRule::char(1, 3)]));
    for (limits, setting) in [(limits(), "hugetlb"), (exception, "devices: c 1:3 rw")] {
        let unit = Unit::scope("job.scope", [7]).limits(limits.clone());
        let started = systemd.start(&unit, Strict, LONG).map(|started| started.skipped);
        for refused in [started, systemd.set_limits("job.scope", &limits, Strict)] {
            let error = refused.unwrap_err();
            assert_eq!((error.kind(), error.path().to_str()), (ErrorKind::Unsupported, Some(setting)), "{error}");
        }
    }
    assert!(machine.calls().is_empty());
}

fn a_service_and_a_slice_are_started() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    let service = systemd.start(&Unit::service("job.service", "/bin/true", [""; 0]), Strict, LONG).unwrap();
    assert_eq!(service.cgroup.as_deref(), Some("/system.slice/job.service"));
    assert_eq!(machine.properties("job.service"), ["ExecStart", "Delegate"]);
    systemd.start(&Unit::slice("job.slice").limits(limits()), BestEffort, LONG).unwrap();
    assert!(!machine.properties("job.slice").contains(&"Delegate".to_owned()));
}

fn a_job_that_ends_later_is_waited_for() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    let start = Instant::now();
    systemd.start(&Unit::scope("late.scope", [7]), Strict, LONG).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
    let error = systemd.start(&Unit::scope("never.scope", [7]), Strict, Duration::from_millis(50)).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::TimedOut, "start unit"), "{error}");
    let error = systemd.start(&Unit::service("broken.service", "/bin/false", [""; 0]), Strict, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Os);
    assert!(error.to_string().contains("job has ended: failed"), "{error}");
}

/// Any user of the bus may send a signal, and whom to is his choice.
fn only_systemd_tells_of_the_end_of_a_job() {
    let machine = Machine::new();
    let error = machine.systemd().start(&Unit::scope("forged.scope", [7]), Strict, LONG).unwrap_err();
    assert!(error.to_string().contains("job has ended: failed"), "{error}");
}

/// What is not taken off the queue keeps the answer behind it.
fn many_jobs_that_end_meanwhile_do_not_keep_the_answer() {
    let machine = Machine::new();
    machine.systemd().start(&Unit::scope("crowd.scope", [7]), Strict, LONG).unwrap();
}

fn a_unit_that_failed_before_is_forgotten_and_one_that_runs_is_not() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    systemd.start(&Unit::scope("remembered.scope", [7]), Strict, LONG).unwrap();
    let start = "StartTransientUnit remembered.scope fail";
    let expected = ["Subscribe", start, "ResetFailedUnit remembered.scope", "Subscribe", start];
    assert_eq!(machine.calls(), expected);
    let error = systemd.start(&Unit::scope("remembered.scope", [7]), Strict, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let error = systemd.start(&Unit::scope("ended.scope", [7]), Strict, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoProcess, "{error}");
}

fn many_threads_share_a_connection() {
    let machine = Machine::new();
    let systemd = machine.systemd();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let systemd = &systemd;
            scope.spawn(move || {
                for n in 0..10 {
                    let name = format!("job-{thread}-{n}.scope");
                    let started = systemd.start(&Unit::scope(&name, [7]), Strict, LONG).unwrap();
                    assert_eq!(started.cgroup, Some(format!("/system.slice/{name}")));
                    systemd.stop(&name, LONG).unwrap();
                }
            });
        }
    });
    assert!(machine.state.lock().unwrap().units.is_empty());
}

fn without_a_bus_it_says_so() {
    let error = Systemd::at("unix:path=/nowhere/at/all").unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Os, "connect to"), "{error}");
    assert_eq!(Systemd::at("nonsense").unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// The tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), $name, || elsewhere(stringify!($name)))),*]
    };
}

/// A name, what it does, and the same in a process of its own.
type Named = (&'static str, fn(), fn());

const TESTS: &[Named] = tests![
    a_scope_is_started_limited_and_stopped,
    a_quota_is_one_of_the_period_that_the_unit_has,
    without_a_cgroup_there_is_none,
    strictly_nothing_is_asked_for_without_all_of_the_limits,
    a_service_and_a_slice_are_started,
    a_job_that_ends_later_is_waited_for,
    only_systemd_tells_of_the_end_of_a_job,
    many_jobs_that_end_meanwhile_do_not_keep_the_answer,
    a_unit_that_failed_before_is_forgotten_and_one_that_runs_is_not,
    many_threads_share_a_connection,
    without_a_bus_it_says_so,
];

/// In a machine of our own whose process 1 is systemd.
const REAL: &[Named] = tests![a_real_scope, a_real_service];

/// The threads and descriptors of zbus and async-io stay until their process ends, and so would be found to be left.
fn elsewhere(name: &str) {
    let status = Command::new("/proc/self/exe").args([HERE, name]).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{status}");
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [HERE, name] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let (_, run, _) = TESTS.iter().chain(REAL).find(|(known, ..)| *known == name).unwrap();
        run();
        return ExitCode::SUCCESS;
    }
    let test = |(name, _, elsewhere): &Named| Test::new(name, *elsewhere).needs(&[Need::Program(DAEMON)]);
    let real = |(name, _, elsewhere): &Named| {
        let needs = [Need::Root, Need::File("/run/vm/init"), Need::File("/run/systemd/system")];
        Test::new(name, *elsewhere).needs(&needs).time(Duration::from_secs(120))
    };
    cofferdam_testkit::run(&TESTS.iter().map(test).chain(REAL.iter().map(real)).collect::<Vec<_>>())
}
