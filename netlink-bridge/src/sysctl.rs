//! Settings of the host below `/proc/sys/net`: which are wanted, and how they are set.

use crate::{Change, Error, ErrorKind, Host, NetworkSpec, Operation};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read, write};

/// A setting as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Below `/proc/sys/net`.
    pub(crate) path: String,
    pub(crate) value: &'static str,
    /// Whether somebody has asked that it be set; otherwise it is only looked at.
    pub(crate) asked_for: bool,
}

/// What a network needs. The bridge's own settings are the network's; the host's are set if that was asked for.
pub(crate) fn of_network(spec: &NetworkSpec) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |path: String, value, asked_for| settings.push(Setting { path, value, asked_for });
    // A container must not tell the host where its routes lead.
    // Also where there is no IPv6 but the bridge's own link-local address.
    add(format!("ipv6/conf/{}/accept_ra", spec.name), "0", true);
    if spec.has_family(false) {
        // The bridge's own link-local address could not be used for a second or two, and without it no container is looked for.
        add(format!("ipv6/conf/{}/accept_dad", spec.name), "0", true);
    }
    if spec.has_family(true) {
        // A network that had it once may be without rules now, and nothing would keep containers from the host's loopback.
        let value = if spec.host_loopback { "1" } else { "0" };
        add(format!("ipv4/conf/{}/route_localnet", spec.name), value, true);
    }
    if !spec.internal && spec.has_family(true) {
        add("ipv4/ip_forward".into(), "1", spec.forwarding);
    }
    if !spec.internal && spec.has_family(false) {
        add("ipv6/conf/all/forwarding".into(), "1", spec.forwarding);
    }
    settings
}

/// The settings that are not as wanted, as changes.
pub(crate) fn different(host: &Host, settings: &[Setting]) -> Result<Vec<(Setting, Change)>, Error> {
    if settings.is_empty() {
        return Ok(Vec::new());
    }
    // What is seen below this path is the namespace of the thread that looks.
    host.within(|| {
        let mut different = Vec::new();
        for setting in settings {
            let from = get(&setting.path)?;
            // Without IPv6 nobody listens to routers.
            let needless = from == MISSING && setting.path.ends_with("/accept_ra");
            if from != setting.value && !needless {
                let change = Change::SetSysctl { path: setting.path.clone(), from, to: setting.value.to_owned() };
                different.push((setting.clone(), change));
            }
        }
        Ok(different)
    })
}

/// Sets those that somebody asked for and that are different, and tells which.
pub(crate) fn set(host: &Host, settings: &[Setting]) -> Result<Vec<Change>, Error> {
    let asked_for: Vec<_> = settings.iter().filter(|setting| setting.asked_for).cloned().collect();
    let different = different(host, &asked_for)?;
    if different.is_empty() {
        return Ok(Vec::new());
    }
    host.within(|| different.iter().try_for_each(|(setting, _)| put(setting)))?;
    Ok(different.into_iter().map(|(_, change)| change).collect())
}

fn failed(call: &'static str, path: &str) -> impl Fn(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::os(Operation::SetSysctl, call, errno.raw_os_error()).about(path.clone())
}

fn open(path: &str, flags: OFlags) -> Result<rustix::fd::OwnedFd, Error> {
    // The names of links have no slash and are no dots, see `name`.
    let opened = openat(CWD, format!("/proc/sys/net/{path}"), flags | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(failed("open", path))
}

const MISSING: &str = "missing";

fn get(path: &str) -> Result<String, Error> {
    let file = match open(path, OFlags::RDONLY) {
        // A kernel without IPv6, or the bridge is gone: nothing there can be wrong.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(MISSING.into()),
        file => file?,
    };
    let mut buffer = [0; 64];
    let length = rustix::io::retry_on_intr(|| read(&file, &mut buffer)).map_err(failed("read", path))?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned())
}

fn put(setting: &Setting) -> Result<(), Error> {
    let file = open(&setting.path, OFlags::WRONLY)?;
    rustix::io::retry_on_intr(|| write(&file, setting.value.as_bytes())).map_err(failed("write", &setting.path))?;
    Ok(())
}
