//! Scopes and services made by systemd, over D-Bus, for machines on which it is the only writer of the tree. Feature
//! `systemd`.
//!
//! Where systemd rules, whatever makes a cgroup beside its units and without its knowledge will lose it, or its limits,
//! sooner or later. The way is to ask for a *scope*, which is delegated: below it the rest of this crate works as
//! anywhere.
//!
//! ```no_run
//! use cofferdam_cgroups::systemd::{Systemd, Unit};
//! use cofferdam_cgroups::{Controllers, Enforcement, Hierarchy, Limits};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let systemd = Systemd::system()?; // one connection: keep it
//! let process = std::process::Command::new("make").spawn()?;
//! let unit = Unit::scope("build-42.scope", [process.id()]).limits(Limits::new().memory(512 << 20));
//! let started = systemd.start(&unit, Enforcement::Strict, Duration::from_secs(10))?;
//! let path = started.cgroup.ok_or("it has ended already")?;
//! let scope = Hierarchy::detect()?.root(Controllers::MEMORY)?.find_below(path.trim_start_matches('/'))?;
//! println!("{:?}", scope.memory_stats()?);
//! systemd.stop("build-42.scope", Duration::from_secs(10))?;
//! # Ok(())
//! # }
//! ```
//!
//! A call blocks until systemd's job is done, at most for the time that is given. The connection has two threads, of
//! zbus and async-io, which this crate has nowhere else.
//!
//! Tested against a stand-in that speaks systemd's part of D-Bus on a private bus, with all that can go wrong, and in a
//! virtual machine against systemd 252: what it makes of the properties is what the kernel then says.

mod bus;
mod properties;
mod unit;

use std::time::Duration;

pub use unit::{Content, Unit};

use crate::apply::Enforcement;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::{CpuPeriod, Limits};
use bus::Bus;
use properties::Properties;

/// The system's manager, whose address is the same everywhere: `org.freedesktop.systemd1(5)`.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// A connection to systemd. One is enough for a program, from all of its threads.
#[derive(Debug)]
pub struct Systemd {
    bus: Bus,
}

/// A unit that was started.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Started {
    /// Its cgroup, from the root of the tree: `/system.slice/build-42.scope`. `None` if it has none, for instance because
    /// the service has ended already.
    pub cgroup: Option<String>,
    /// Limits for which systemd has no property. Under [`Enforcement::Strict`] there are none.
    pub skipped: Vec<Error>,
}

impl Systemd {
    /// The system's manager.
    ///
    /// # Errors
    /// [`ErrorKind::Os`]: there is none, or it cannot be spoken to; [`ErrorKind::TimedOut`]: whoever listens there has said
    /// nothing for 25 seconds.
    pub fn system() -> Result<Self> {
        Self::at(SYSTEM_BUS)
    }

    /// The manager at the bus of this address: a user's is most often
    /// `unix:path=/run/user/UID/bus`, which its environment has as `DBUS_SESSION_BUS_ADDRESS`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: it is no address; otherwise as for [`system`](Self::system).
    pub fn at(address: &str) -> Result<Self> {
        Ok(Systemd { bus: Bus::connect(address)? })
    }

    /// Makes and starts a transient unit, and waits until systemd has done so. If a unit of that name has failed before
    /// and is still remembered, it is forgotten, and this one started.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: the unit cannot be; if [strict](Enforcement::Strict) [`ErrorKind::Unsupported`]: systemd
    /// has no property for a limit; in both cases it was not asked. [`ErrorKind::AlreadyExists`]: there is one;
    /// [`ErrorKind::PermissionDenied`]; [`ErrorKind::NoProcess`]: a process of the scope has ended;
    /// [`ErrorKind::TimedOut`]: it may be started later; [`ErrorKind::Os`]: systemd's job has failed, or something else
    /// has, and the text says what in systemd's words.
    pub fn start(&self, unit: &Unit, enforcement: Enforcement, timeout: Duration) -> Result<Started> {
        let properties = properties::of_unit(unit, &drivers())?;
        let skipped = refuse_if_strict(properties.skipped, enforcement)?;
        self.bus.start(&unit.name, &properties.list, timeout)?;
        Ok(Started { cgroup: self.bus.cgroup(&unit.name)?, skipped })
    }

    /// Changes the limits of a unit that runs, until it ends. Returns those for which systemd has no property: none under
    /// [`Enforcement::Strict`].
    ///
    /// To systemd a quota of CPU time is a share. Given as a time without a period, it is one of the period that the unit
    /// has. A period alone leaves the share as it is, where [`Cgroup::apply`](crate::Cgroup::apply) leaves the time.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]: there is no such unit; otherwise as for [`start`](Self::start).
    pub fn set_limits(&self, unit: &str, limits: &Limits, enforcement: Enforcement) -> Result<Vec<Error>> {
        let of_period = |period| {
            let mut properties = Properties::default();
            properties::of_limits(limits, period, &drivers(), &mut properties).map(|()| properties)
        };
        let mut properties = of_period(CpuPeriod::DEFAULT)?;
        let skipped = refuse_if_strict(properties.skipped, enforcement)?;
        if properties::needs_period(&limits.cpu) {
            properties.list = of_period(properties::period(self.bus.cpu_period(unit)?))?.list;
        }
        if !properties.list.is_empty() {
            self.bus.set(unit, &properties.list)?;
        }
        Ok(skipped)
    }

    /// Stops a unit with everything in it, and waits until it has. Nothing happens if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`]; [`ErrorKind::TimedOut`]; [`ErrorKind::Os`].
    pub fn stop(&self, unit: &str, timeout: Duration) -> Result<()> {
        match self.bus.stop(unit, timeout) {
            Err(error) if error.kind() == ErrorKind::Gone => Ok(()),
            result => result,
        }
    }
}

/// What drivers are called; without it some rules of devices are skipped.
fn drivers() -> Vec<u8> {
    std::fs::read("/proc/devices").unwrap_or_default()
}

/// Before anything is asked for: with a limit left out the unit may be less confined than wanted.
fn refuse_if_strict(mut skipped: Vec<Error>, enforcement: Enforcement) -> Result<Vec<Error>> {
    if enforcement == Enforcement::Strict && !skipped.is_empty() { Err(skipped.swap_remove(0)) } else { Ok(skipped) }
}

fn failed(op: Op, unit: &str) -> Error {
    Error::new(ErrorKind::Os, op, unit)
}
