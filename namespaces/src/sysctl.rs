//! Settings of the new namespaces below `/proc/sys`, `sysctl(8)`.

use crate::compile::{FILE, OPEN_HOW_SIZE, c_string, open_how};
use crate::program::{Arg, Program, Sys, Then};
use crate::{Error, Namespaces, Sandbox, Step};
use std::ffi::{CString, OsStr};

impl Sandbox {
    /// A setting of one of the sandbox's own namespaces, `sysctl(8)`: `net.ipv4.ip_forward`, `kernel.shmmax`. By default as the kernel sets up a new namespace.
    ///
    /// The namespace that it belongs to must be new: `net.*` is of [`Namespaces::NET`]; `kernel.shm*`, `kernel.msg*`, `kernel.sem` and `fs.mqueue.*` of
    /// [`Namespaces::IPC`]; `kernel.hostname` and `kernel.domainname` of [`Namespaces::UTS`]; `user.*` of [`Namespaces::USER`]. Anything else is the host's, and an error.
    /// A name with a slash before any dot is a path, for names with a dot in a part: `net/ipv4/conf/eth0.5/rp_filter`.
    ///
    /// It is written through a `proc(5)` of the child's own that is mounted nowhere, before anything of the sandbox's root is in sight. In a
    /// user namespace this takes [`Namespaces::PID`] and [`Namespaces::MOUNT`] too; which settings root of a user namespace may change, the kernel says.
    #[must_use]
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }
}

/// The path below `/proc/sys`. As sysctl(8): if the first separator is a slash, it is a path; otherwise dots separate and slashes stand for dots.
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.get(at..).is_some_and(|rest| rest.starts_with('/')) => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

/// The settings of the ipc namespace that stand among others.
const IPC: [&str; 12] = [
    "kernel/auto_msgmni",
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The namespace that a setting belongs to; none for the machine's own.
fn owner(path: &str) -> Option<Namespaces> {
    let mut parts = path.split('/');
    if path.contains('\0') || parts.clone().any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    match (parts.next(), parts.next(), parts.next()) {
        (Some("net"), Some(_), _) => Some(Namespaces::NET),
        (Some("user"), Some(_), None) => Some(Namespaces::USER),
        (Some("fs"), Some("mqueue"), Some(_)) => Some(Namespaces::IPC),
        (Some("kernel"), Some("hostname" | "domainname"), None) => Some(Namespaces::UTS),
        _ => IPC.contains(&path).then_some(Namespaces::IPC),
    }
}

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    for (name, value) in &sandbox.sysctls {
        let refuse = |words| Err(Error::config(format!("sysctl {name}"), words));
        match owner(&path_of(name)) {
            None => return refuse("is the whole machine's: no namespace has one of its own"),
            Some(owner) if !sandbox.namespaces.contains(owner) => {
                return refuse("would be the host's: its namespace is not among the sandbox's");
            }
            Some(_) if value.is_empty() || value.contains('\0') => return refuse("has no value, or a zero byte in it"),
            Some(_) => {}
        }
    }
    let owned = Namespaces::PID | Namespaces::MOUNT;
    let user = sandbox.namespaces.contains(Namespaces::USER);
    if !sandbox.sysctls.is_empty() && user && !sandbox.namespaces.contains(owned) {
        return Err(Error::config("sysctl", "needs Namespaces::PID and Namespaces::MOUNT in a user namespace"));
    }
    Ok(())
}

/// Nothing that the sandbox's root or somebody else has put over `/proc` is written to (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn compile(program: &mut Program, sandbox: &Sandbox) -> Result<(), Error> {
    if sandbox.sysctls.is_empty() {
        return Ok(());
    }
    let (step, zero) = (Step::Sysctl, Arg::from(0_u64));
    let proc = program.string(c"proc".to_owned());
    let (context, mount) = (program.slot(), program.slot());
    program.call_then(step, "proc", Sys::fsopen, [proc.into(), FSOPEN_CLOEXEC.into()], Then::Keep(context));
    let create = [context.into(), FSCONFIG_CMD_CREATE.into(), zero, zero, zero];
    program.call(step, "proc", Sys::fsconfig, create);
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let make = [context.into(), FSMOUNT_CLOEXEC.into(), attributes.into()];
    program.call_then(step, "proc", Sys::fsmount, make, Then::Keep(mount));
    let resolve =
        libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS;
    let how = program.words(open_how(libc::O_WRONLY, resolve));
    for (name, value) in &sandbox.sysctls {
        let path = program.string(c_string("sysctl", OsStr::new(&format!("sys/{}", path_of(name))))?);
        let open = [mount.into(), path.into(), how.into(), OPEN_HOW_SIZE.into()];
        program.call_then(step, name, Sys::openat2, open, Then::Keep(FILE));
        let len = value.len() as u64;
        let text = program.string(CString::new(value.as_str()).unwrap_or_default());
        program.call(step, name, Sys::write, [FILE.into(), text.into(), len.into()]);
        program.call(step, name, Sys::close, [FILE.into()]);
    }
    program.call(step, "proc", Sys::close, [mount.into()]);
    program.call(step, "proc", Sys::close, [context.into()]);
    Ok(())
}

const FSOPEN_CLOEXEC: u64 = 1;
const FSMOUNT_CLOEXEC: u64 = 1;
const FSCONFIG_CMD_CREATE: u64 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_its_namespace() {
        let cases = [
            ("net.ipv4.ip_forward", Some(Namespaces::NET)),
            ("net/ipv4/conf/eth0.5/rp_filter", Some(Namespaces::NET)),
            ("kernel.shmmax", Some(Namespaces::IPC)),
            ("kernel.sem", Some(Namespaces::IPC)),
            ("kernel.msgmnb", Some(Namespaces::IPC)),
            ("fs.mqueue.msg_max", Some(Namespaces::IPC)),
            ("kernel.domainname", Some(Namespaces::UTS)),
            ("user.max_user_namespaces", Some(Namespaces::USER)),
            ("kernel.core_pattern", None),
            ("kernel.shmmax.x", None),
            ("kernel.semantics", None),
            ("kernel.seccomp.actions_logged", None),
            ("fs.mqueue", None),
            ("fs.file-max", None),
            ("vm.overcommit_memory", None),
            ("net", None),
            ("", None),
            ("net/../kernel/core_pattern", None),
            ("net//x", None),
            ("/net/ipv4/ip_forward", None),
            ("net.ipv4/ip_forward", Some(Namespaces::NET)),
            ("net..ipv4", None),
            ("net.ipv4\0", None),
        ];
        for (name, namespace) in cases {
            assert_eq!(owner(&path_of(name)), namespace, "{name}");
        }
    }

    #[test]
    fn names_are_as_sysctl_takes_them() {
        assert_eq!(path_of("net.ipv4.conf.eth0/5.rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
        assert_eq!(path_of("net/ipv4/conf/eth0.5/rp_filter"), "net/ipv4/conf/eth0.5/rp_filter");
        assert_eq!(path_of("kernel.shmmax"), "kernel/shmmax");
    }
}
