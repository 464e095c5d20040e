//! The feature `systemd` against a stand-in that speaks systemd's part of D-Bus, on a bus of its own: `dbus-daemon` is
//! needed. What a real systemd makes of the properties is not shown here.

#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::unused_async,
    clippy::used_underscore_binding,
    reason = "names of units are no files; the interface's macro wants methods to be async, and uses all parameters"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cofferdam_cgroups::systemd::{Systemd, Unit};
use cofferdam_cgroups::{CpuQuota, DeviceRule, Devices, Enforcement, ErrorKind, Limits, PageSize};
use cofferdam_testkit::{Need, Test};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, ObjectServer};

use Enforcement::{BestEffort, Strict};

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const LONG: Duration = Duration::from_secs(20);
const DAEMON: &str = "/usr/bin/dbus-daemon";
/// Followed by the name of a test.
const HERE: &str = "--here";

/// What the stand-in was asked, and what it has.
#[derive(Debug, Default)]
struct State {
    calls: Vec<String>,
    /// By unit: names and types of its properties, in their order.
    units: BTreeMap<String, Vec<(String, String)>>,
    forgotten: Vec<String>,
    /// Connections that want to be told.
    subscribed: Vec<String>,
    jobs: u32,
    /// Another user of the bus, who has nothing to say about jobs.
    stranger: Option<Connection>,
}

type Shared = Arc<Mutex<State>>;

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    AlreadySubscribed(String),
    UnitExists(String),
    NoSuchUnit(String),
    BadUnitSetting(String),
    NoSuchProcess(String),
}

struct Manager(Shared);

/// The types that systemd takes; any other is an error there too.
fn expected_type(property: &str) -> &'static str {
    match property {
        "Description" | "Slice" | "DevicePolicy" => "s",
        "Delegate" => "b",
        "PIDs" => "au",
        "ExecStart" => "a(sasb)",
        "AllowedCPUs" | "AllowedMemoryNodes" => "ay",
        "DeviceAllow" => "a(ss)",
        property if property.starts_with("IORead") || property.starts_with("IOWrite") => "a(st)",
        _ => "t",
    }
}

fn check(unit: &str, properties: &[(String, OwnedValue)]) -> Result<Vec<(String, String)>, Refusal> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in properties {
        let found = value.value_signature().to_string();
        if found != expected_type(name) {
            return Err(Refusal::BadUnitSetting(format!("{name} is {found}")));
        }
        if name == "Delegate" && unit.ends_with(".slice") {
            return Err(Refusal::BadUnitSetting("a slice cannot be delegated".to_owned()));
        }
        if name == "DeviceAllow" && seen.iter().any(|(name, _)| name == "DevicePolicy") {
            return Err(Refusal::BadUnitSetting("the policy came before the list".to_owned()));
        }
        seen.push((name.clone(), found));
    }
    Ok(seen)
}

/// A unit's own interface, which has the same property whatever its type.
macro_rules! unit_interface {
    ($type:ident, $name:literal) => {
        struct $type(String);

        #[zbus::interface(name = $name)]
        impl $type {
            #[zbus(property)]
            async fn control_group(&self) -> String {
                self.0.clone()
            }
        }
    };
}

unit_interface!(Scope, "org.freedesktop.systemd1.Scope");
unit_interface!(Service, "org.freedesktop.systemd1.Service");
unit_interface!(Slice, "org.freedesktop.systemd1.Slice");

fn unit_path(unit: &str) -> OwnedObjectPath {
    let plain: String = unit.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    OwnedObjectPath::try_from(format!("{PATH}/unit/{plain}")).unwrap()
}

impl Manager {
    /// A job, whose end is told at once, later, or never.
    async fn job(&self, connection: &Connection, unit: &str) -> OwnedObjectPath {
        let number = {
            let mut state = self.0.lock().unwrap();
            state.jobs += 1;
            state.jobs
        };
        let job = |number| OwnedObjectPath::try_from(format!("{PATH}/job/{number}")).unwrap();
        let bad = unit.starts_with("broken") || unit.starts_with("forged");
        let result = if bad { "failed" } else { "done" };
        let tell = |path: OwnedObjectPath, unit: String, result: &'static str| {
            let connection = connection.clone();
            async move {
                let body = (number, path, unit, result);
                connection.emit_signal(None::<&str>, PATH, MANAGER, "JobRemoved", &body).await.unwrap();
            }
        };
        // Somebody else's job ends too, and badly.
        tell(job(9000 + number), unit.to_owned(), "failed").await;
        if unit.starts_with("forged") {
            self.forge(job(number), unit).await;
            // Nor is this the end of a job.
            connection.emit_signal(None::<&str>, PATH, MANAGER, "JobRemoved", &(number, "nonsense")).await.unwrap();
        }
        let told = tell(job(number), unit.to_owned(), result);
        match unit.split(['-', '.']).next() {
            Some("never") => {}
            // So many others end before the answer that no queue holds them.
            Some("crowd") => {
                told.await;
                for other in 0..3000 {
                    tell(job(10_000 + other), "other.scope".to_owned(), "failed").await;
                }
            }
            Some("late") => {
                std::thread::spawn(|| {
                    std::thread::sleep(Duration::from_millis(200));
                    async_io::block_on(told);
                });
            }
            // Before the answer.
            _ => told.await,
        }
        job(number)
    }

    /// Somebody else says, to all and to each who listens, that the job is done. Returns when the bus has passed it on.
    async fn forge(&self, job: OwnedObjectPath, unit: &str) {
        let (stranger, listeners) = {
            let state = self.0.lock().unwrap();
            (state.stranger.clone().unwrap(), state.subscribed.clone())
        };
        let body = (1u32, job, unit, "done");
        stranger.emit_signal(None::<&str>, PATH, MANAGER, "JobRemoved", &body).await.unwrap();
        for listener in listeners {
            stranger.emit_signal(Some(listener.as_str()), PATH, MANAGER, "JobRemoved", &body).await.unwrap();
        }
        let bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        stranger.call_method(Some(bus.0), bus.1, Some(bus.0), "GetId", &()).await.unwrap();
    }

    fn note(&self, call: &str) {
        self.0.lock().unwrap().calls.push(call.to_owned());
    }
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    async fn subscribe(&self, #[zbus(header)] header: zbus::message::Header<'_>) -> Result<(), Refusal> {
        self.note("Subscribe");
        let sender = header.sender().unwrap().to_string();
        let subscribed = &mut self.0.lock().unwrap().subscribed;
        if subscribed.contains(&sender) {
            return Err(Refusal::AlreadySubscribed("Client is already subscribed.".to_owned()));
        }
        subscribed.push(sender);
        Ok(())
    }

    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedValue)>,
        _others: Vec<(String, Vec<(String, OwnedValue)>)>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(object_server)] server: &ObjectServer,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(&format!("StartTransientUnit {name} {mode}"));
        let seen = check(&name, &properties)?;
        {
            let mut state = self.0.lock().unwrap();
            let remembered = name.starts_with("remembered") && !state.forgotten.contains(&name);
            if remembered || state.units.contains_key(&name) {
                return Err(Refusal::UnitExists(format!("Unit {name} was already loaded")));
            }
            if name.starts_with("ended") {
                return Err(Refusal::NoSuchProcess("Process does not exist".to_owned()));
            }
            state.units.insert(name.clone(), seen);
        }
        let (path, cgroup) = (unit_path(&name), format!("/system.slice/{name}"));
        match name.rsplit('.').next() {
            Some("scope") => server.at(&path, Scope(cgroup)).await?,
            Some("service") if name.starts_with("short") => server.at(&path, Service(String::new())).await?,
            Some("service") => server.at(&path, Service(cgroup)).await?,
            _ => server.at(&path, Slice(cgroup)).await?,
        };
        Ok(self.job(connection, &name).await)
    }

    async fn reset_failed_unit(&self, name: String) {
        self.note(&format!("ResetFailedUnit {name}"));
        self.0.lock().unwrap().forgotten.push(name);
    }

    async fn get_unit(&self, name: String) -> Result<OwnedObjectPath, Refusal> {
        let there = self.0.lock().unwrap().units.contains_key(&name);
        if there { Ok(unit_path(&name)) } else { Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))) }
    }

    async fn stop_unit(
        &self,
        name: String,
        mode: String,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedObjectPath, Refusal> {
        self.note(&format!("StopUnit {name} {mode}"));
        if self.0.lock().unwrap().units.remove(&name).is_none() {
            return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded.")));
        }
        Ok(self.job(connection, &name).await)
    }

    async fn set_unit_properties(
        &self,
        name: String,
        runtime: bool,
        properties: Vec<(String, OwnedValue)>,
    ) -> Result<(), Refusal> {
        self.note(&format!("SetUnitProperties {name} {runtime}"));
        let seen = check(&name, &properties)?;
        match self.0.lock().unwrap().units.get_mut(&name) {
            Some(known) => known.extend(seen),
            None => return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))),
        }
        Ok(())
    }
}

/// A bus with the stand-in on it.
struct Machine {
    daemon: Child,
    address: String,
    state: Shared,
    _folder: tempfile::TempDir,
    _manager: Connection,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("unix:path={}/bus", folder.path().display());
        let mut command = Command::new(DAEMON);
        command.args(["--session", "--nofork", "--nopidfile", "--print-address=1"]).arg(format!("--address={address}"));
        let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("unix:"), "{line}");
        let state = Shared::default();
        let manager = async {
            let builder = zbus::connection::Builder::address(address.as_str())?;
            builder.name("org.freedesktop.systemd1")?.serve_at(PATH, Manager(Arc::clone(&state)))?.build().await
        };
        let manager = async_io::block_on(manager).unwrap();
        let stranger = zbus::connection::Builder::address(address.as_str()).unwrap().build();
        state.lock().unwrap().stranger = Some(async_io::block_on(stranger).unwrap());
        Machine { daemon, address, state, _folder: folder, _manager: manager }
    }

    fn systemd(&self) -> Systemd {
        Systemd::at(&self.address).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    fn properties(&self, unit: &str) -> Vec<String> {
        self.state.lock().unwrap().units[unit].iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

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

/// The threads and descriptors of zbus and async-io stay until their process ends, and so would be found to be left.
fn elsewhere(name: &str) {
    let status = Command::new("/proc/self/exe").args([HERE, name]).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{status}");
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [HERE, name] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let (_, run, _) = TESTS.iter().find(|(known, ..)| *known == name).unwrap();
        run();
        return ExitCode::SUCCESS;
    }
    let test = |(name, _, elsewhere): &Named| Test::new(name, *elsewhere).needs(&[Need::Program(DAEMON)]);
    cofferdam_testkit::run(&TESTS.iter().map(test).collect::<Vec<_>>())
}
