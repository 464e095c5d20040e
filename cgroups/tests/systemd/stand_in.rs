//! systemd's part of D-Bus, as far as it is used, on a bus of its own.

#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::unused_async,
    clippy::used_underscore_binding,
    reason = "names of units are no files; the interface's macro wants methods to be async, and uses all parameters"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam_cgroups::systemd::Systemd;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, ObjectServer};

const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(crate) const DAEMON: &str = "/usr/bin/dbus-daemon";

/// What the stand-in was asked, and what it has.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) calls: Vec<String>,
    /// By unit: names and types of its properties, in their order.
    pub(crate) units: BTreeMap<String, Vec<(String, String)>>,
    /// By unit and property: the last number that was set.
    pub(crate) numbers: BTreeMap<(String, String), u64>,
    forgotten: Vec<String>,
    /// Connections that want to be told.
    subscribed: Vec<String>,
    jobs: u32,
    /// Another user of the bus, who has nothing to say about jobs.
    stranger: Option<Connection>,
}

impl State {
    fn note_numbers(&mut self, unit: &str, properties: &[(String, OwnedValue)]) {
        for (name, value) in properties {
            if let Ok(number) = u64::try_from(value) {
                self.numbers.insert((unit.to_owned(), name.clone()), number);
            }
        }
    }
}

pub(crate) type Shared = Arc<Mutex<State>>;

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
        struct $type(String, Shared, String);

        #[zbus::interface(name = $name)]
        impl $type {
            #[zbus(property)]
            async fn control_group(&self) -> String {
                self.0.clone()
            }

            #[zbus(property, name = "CPUQuotaPeriodUSec")]
            async fn cpu_quota_period(&self) -> u64 {
                let asked = (self.2.clone(), "CPUQuotaPeriodUSec".to_owned());
                let state = &mut *self.1.lock().unwrap();
                state.calls.push(format!("Get {} CPUQuotaPeriodUSec", self.2));
                state.numbers.get(&asked).copied().unwrap_or(u64::MAX)
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
            state.note_numbers(&name, &properties);
        }
        let (path, cgroup) = (unit_path(&name), format!("/system.slice/{name}"));
        let (state, unit) = (Arc::clone(&self.0), name.clone());
        match name.rsplit('.').next() {
            Some("scope") => server.at(&path, Scope(cgroup, state, unit)).await?,
            Some("service") if name.starts_with("short") => {
                server.at(&path, Service(String::new(), state, unit)).await?
            }
            Some("service") => server.at(&path, Service(cgroup, state, unit)).await?,
            _ => server.at(&path, Slice(cgroup, state, unit)).await?,
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
        let mut state = self.0.lock().unwrap();
        match state.units.get_mut(&name) {
            Some(known) => known.extend(seen),
            None => return Err(Refusal::NoSuchUnit(format!("Unit {name} not loaded."))),
        }
        state.note_numbers(&name, &properties);
        Ok(())
    }
}

/// A bus with the stand-in on it.
pub(crate) struct Machine {
    daemon: Child,
    address: String,
    pub(crate) state: Shared,
    _folder: tempfile::TempDir,
    _manager: Connection,
}

impl Machine {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn systemd(&self) -> Systemd {
        Systemd::at(&self.address).unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub(crate) fn properties(&self, unit: &str) -> Vec<String> {
        self.state.lock().unwrap().units[unit].iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
