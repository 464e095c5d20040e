//! What a test may leave behind or change in its own process, before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Lines of `/proc/self/status` that a library must not change in the program that uses it.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Cpus_allowed_list",
];

/// The state of this process at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// fd number -> what it is
    fds: BTreeMap<i32, String>,
    /// Lines of mountinfo; empty if the mount namespace is not our own.
    mounts: BTreeSet<String>,
    /// Names of network links; empty if the network namespace is not our own.
    links: BTreeSet<String>,
    /// name -> value of what must not change
    state: BTreeMap<String, String>,
}

impl Snapshot {
    pub(crate) fn take(isolated: bool) -> Self {
        let lines = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect()
        };
        Self {
            fds: fds(),
            mounts: if isolated {
                lines("/proc/self/mountinfo")
            } else {
                BTreeSet::new()
            },
            links: if isolated { links() } else { BTreeSet::new() },
            state: state(),
        }
    }

    /// What appeared, disappeared or changed since `before`, one line each.
    pub(crate) fn differences_from(&self, before: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (fd, now) in &self.fds {
            match before.fds.get(fd) {
                None => found.push(format!("fd {fd} is still open: {now}")),
                Some(was) if was != now => {
                    found.push(format!("fd {fd} was {was} and now is {now}"));
                }
                Some(_) => {}
            }
        }
        for (fd, was) in before
            .fds
            .iter()
            .filter(|(fd, _)| !self.fds.contains_key(fd))
        {
            found.push(format!("fd {fd} was closed: {was}"));
        }
        for (what, now, was) in [
            ("mount", &self.mounts, &before.mounts),
            ("network link", &self.links, &before.links),
        ] {
            found.extend(now.difference(was).map(|x| format!("{what} appeared: {x}")));
            found.extend(
                was.difference(now)
                    .map(|x| format!("{what} disappeared: {x}")),
            );
        }
        for (name, was) in &before.state {
            let now = self.state.get(name);
            if now != Some(was) {
                let now = now.map_or("nothing", String::as_str);
                found.push(format!(
                    "{name} of the test's process was {was:?} and now is {now:?}"
                ));
            }
        }
        found
    }
}

fn fds() -> BTreeMap<i32, String> {
    // Collect first: the folder's own fd is closed by the time the links are read.
    let numbers: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let what = |fd: i32| {
        Some((
            fd,
            fs::read_link(format!("/proc/self/fd/{fd}"))
                .ok()?
                .display()
                .to_string(),
        ))
    };
    numbers.into_iter().filter_map(what).collect()
}

fn links() -> BTreeSet<String> {
    let dev = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    dev.lines()
        .filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned()))
        .collect()
}

/// A set of signals without 32 and 33, which glibc keeps for itself and sets up with the first thread.
fn without_libc(set: &str) -> String {
    let ours = |bits: u64| format!("{:016x}", bits & !(0b11 << 31));
    u64::from_str_radix(set, 16).map_or_else(|_| set.to_owned(), ours)
}

fn state() -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (name, value) in status.lines().filter_map(|l| l.split_once(':')) {
        if STATUS.contains(&name) {
            let value = if name.starts_with("Sig") {
                without_libc(value.trim())
            } else {
                value.trim().to_owned()
            };
            state.insert(name.to_owned(), value);
        }
    }
    for file in ["oom_score_adj", "cgroup", "limits", "timens_offsets"] {
        let value = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        state.insert(file.to_owned(), value.trim().to_owned());
    }
    let namespaces = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten();
    let links = namespaces
        .map(|e| e.path())
        .chain(["/proc/self/cwd".into(), "/proc/self/root".into()]);
    for link in links {
        let value =
            fs::read_link(&link).map_or_else(|e| e.to_string(), |v| v.display().to_string());
        state.insert(link.display().to_string(), value);
    }
    state.insert(
        "dumpable".into(),
        format!("{:?}", nix::sys::prctl::get_dumpable()),
    );
    state.insert(
        "child subreaper".into(),
        format!("{:?}", nix::sys::prctl::get_child_subreaper()),
    );
    state.insert(
        "parent-death signal".into(),
        format!("{:?}", nix::sys::prctl::get_pdeathsig()),
    );
    state
}
