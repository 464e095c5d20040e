//! A cgroup: what can be done with it while it lives.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::controllers::{Controllers, Subsystems};
use crate::dir::{self, Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::limits::{Limits, Max};
use crate::member::{Member, Tree};
use crate::policy::{self, Bandwidth, Write};
use crate::stats::{self, CpuStats, PidsStats};
use crate::text;

const PROCS: &str = "cgroup.procs";
/// EINVAL may mean that the process is still being made.
const ATTACH_TRIES: u32 = 5;

/// A cgroup: one directory on v2, one in each tree on v1 and hybrid. It owns a descriptor for each; dropping it frees
/// those and nothing else. See [`into_guard`](Self::into_guard) for one that kills and deletes.
#[derive(Debug)]
pub struct Cgroup {
    /// v1 first, the unified tree last.
    members: Vec<Member>,
    /// It is the caller's own: must not be killed or deleted.
    own: bool,
}

impl Cgroup {
    pub(crate) fn new(members: Vec<Member>, own: bool) -> Self {
        Cgroup { members, own }
    }

    /// Makes it in all of the trees, or in none.
    pub(crate) fn make(places: impl Iterator<Item = (Arc<Tree>, PathBuf, Subsystems)>, name: &OsStr) -> Result<Self> {
        let mut made = Cgroup::new(Vec::new(), false);
        for (tree, parent, subsystems) in places {
            match Member::make(&tree, &parent, name, subsystems) {
                Ok(member) => made.members.push(member),
                Err(error) => {
                    // Only what was made here, and it is empty. The first error tells more than a second one.
                    let _ = made.delete();
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Makes a new cgroup below this one, with the same controllers. On v2 they are enabled for the children of this
    /// one, which must have no processes then.
    ///
    /// # Errors
    /// As for [`Hierarchy::create`](crate::Hierarchy::create).
    pub fn child(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        dir::check_name(name)?;
        let places = self.members.iter().map(|member| {
            let tree = Arc::clone(&member.tree);
            (tree, member.relative.clone(), member.subsystems)
        });
        Self::make(places, name)
    }

    /// Opens a cgroup below this one.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is none of that name, in one of the trees at least;
    /// [`ErrorKind::InvalidInput`] if the name is not a plain file name.
    pub fn open_child(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        dir::check_name(name)?;
        let members =
            self.members.iter().map(|member| Member::open(&member.tree, member.relative.join(name), member.subsystems));
        Ok(Cgroup::new(members.collect::<Result<_>>()?, false))
    }

    /// Where it is in each of its trees. For people and logs: use it for nothing else.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().map(|member| member.dir.path())
    }

    /// The controllers that it was made or opened with.
    #[must_use]
    pub fn controllers(&self) -> Controllers {
        let all: Subsystems = self.members.iter().map(|m| m.subsystems).collect();
        all.into()
    }

    /// How to be born in it. On v2 one *directory* (`O_PATH`), for `clone3(2)` with `CLONE_INTO_CGROUP`. On v1 one
    /// `cgroup.procs` for each tree, open for writing, into which the child writes `0`. On hybrid both: the files, and
    /// the unified tree's directory as the last. `fstat(2)` tells which is which.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`], [`ErrorKind::PermissionDenied`].
    pub fn entry(&self) -> Result<Vec<OwnedFd>> {
        let entry = |member: &Member| match member.version() {
            Version::V1 => member.dir.writable(PROCS),
            Version::V2 => member.dir.duplicate(),
        };
        self.members.iter().map(entry).collect()
    }

    /// Moves a process, with all of its threads, into this cgroup; its children so far stay where they are. The number
    /// is one of the caller's pid namespace. To be sure that it stands for the process that is meant, that one must be
    /// the caller's own child and not waited for yet.
    ///
    /// Costs milliseconds per tree, see [kernels](crate#kernels).
    ///
    /// # Errors
    /// [`ErrorKind::NoProcess`]; [`ErrorKind::Gone`]; [`ErrorKind::PermissionDenied`]: the caller must be allowed to
    /// write `cgroup.procs` here, and on v2 also in the nearest common ancestor of both cgroups. After an error the
    /// process may be in some of the trees.
    pub fn attach(&self, pid: u32) -> Result<()> {
        // 0 would be the caller itself.
        if pid == 0 || i32::try_from(pid).is_err() {
            let note = "a process number is positive";
            return Err(Error::invalid(pid.to_string(), "process", note));
        }
        let pid = pid.to_string();
        for member in &self.members {
            let mut tries = 1;
            loop {
                match member.dir.write(PROCS, &pid) {
                    Err(error) if error.errno() == Some(Errno::INVAL) && tries < ATTACH_TRIES => {
                        tries += 1;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    result => break result?,
                }
            }
        }
        Ok(())
    }

    /// The processes in this cgroup itself, not below it, as numbers of the caller's pid namespace; those that it
    /// cannot see are left out. They may be gone when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn processes(&self) -> Result<Vec<u32>> {
        match self.members.last() {
            Some(member) => Ok(text::pids(&member.dir.read_list(PROCS)?).collect()),
            None => Ok(Vec::new()),
        }
    }

    /// Sets limits. All values are checked before anything is written. Settings that are `None` are not touched: in
    /// particular, a period alone keeps the quota that is set, as a time.
    ///
    /// Kernel documentation: `admin-guide/cgroup-v2.rst`, `scheduler/sched-bwc.rst`, `admin-guide/cgroup-v1/pids.rst`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] or [`ErrorKind::ControllerUnavailable`], with nothing written;
    /// otherwise the kernel's refusal, with the settings before it in force. On v1 a quota beyond that of a cgroup
    /// above is refused with `EINVAL`; on v2 it is accepted and has no effect.
    pub fn apply(&self, limits: &Limits) -> Result<()> {
        for one in policy::subsystems(limits) {
            self.governing(one)?;
        }
        let version = match self.governing(Subsystems::CPU) {
            Ok(member) => member.version(),
            Err(_) => Version::V2,
        };
        let in_force = if policy::needs_bandwidth(limits, version) { self.bandwidth()? } else { None };
        let list = policy::writes(limits, version, in_force)?;
        let mut rest = list.as_slice();
        while let [first, after @ ..] = rest {
            rest = after;
            match self.write(first) {
                Err(error) if first.or_after_next && error.errno() == Some(Errno::INVAL) => {
                    if let [second, after @ ..] = rest {
                        self.write(second)?;
                        rest = after;
                    }
                    self.write(first)?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    fn write(&self, write: &Write) -> Result<()> {
        let dir = &self.governing(write.subsystem)?.dir;
        dir.write(write.file, &write.text).map_err(|error| file_missing(dir, error))
    }

    /// The limits that this cgroup has, as the kernel tells them. What it cannot have (a quota at the root of v2), and
    /// what belongs to a controller that was not asked for, is `None`. Limits of the cgroups above hold as well, and
    /// are not considered here. A quota comes back as a time.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::new();
        let mut buffer = buffer();
        if let Ok(cpu) = self.governing(Subsystems::CPU) {
            if let Some(bandwidth) = self.bandwidth()? {
                let (quota, period) = policy::limits_of(bandwidth);
                (limits.cpu.quota, limits.cpu.period) = (Some(quota), Some(period));
            }
            let file = match cpu.version() {
                Version::V1 => policy::V1_SHARES,
                Version::V2 => policy::V2_WEIGHT,
            };
            if let Some(text) = cpu.dir.read_if_there(file, &mut buffer)? {
                let number = text::number(text).ok_or_else(|| cpu.dir.malformed(file))?;
                limits.cpu.weight = policy::weight(number, cpu.version());
            }
        }
        if let Ok(pids) = self.governing(Subsystems::PIDS)
            && let Some(text) = pids.dir.read_if_there(policy::PIDS_MAX, &mut buffer)?
        {
            let max = policy::parse_max(text);
            limits.pids = Some(max.ok_or_else(|| pids.dir.malformed(policy::PIDS_MAX))?);
        }
        Ok(limits)
    }

    /// Quota and period in force; `None` where this cgroup cannot have them.
    fn bandwidth(&self) -> Result<Option<Bandwidth>> {
        let cpu = self.governing(Subsystems::CPU)?;
        let (mut first, mut second) = (buffer(), buffer());
        let (file, parsed) = match cpu.version() {
            Version::V2 => match cpu.dir.read_if_there(policy::V2_MAX, &mut first)? {
                Some(text) => (policy::V2_MAX, policy::parse_v2_bandwidth(text)),
                None => return Ok(None),
            },
            Version::V1 => match cpu.dir.read_if_there(policy::V1_QUOTA, &mut first)? {
                Some(quota) => {
                    let period = cpu.dir.read(policy::V1_PERIOD, &mut second)?;
                    (policy::V1_QUOTA, policy::parse_v1_bandwidth(quota, period))
                }
                None => return Ok(None),
            },
        };
        parsed.map(Some).ok_or_else(|| cpu.dir.malformed(file))
    }

    /// CPU time used by this cgroup and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] on v1 if `cpuacct` is not mounted, or the cgroup was
    /// made without [`Controllers::CPU`]. On v2 the time is counted without the controller too.
    pub fn cpu_stats(&self) -> Result<CpuStats> {
        let (mut a, mut b, mut c) = (buffer(), buffer(), buffer());
        let cpu = self.governing(Subsystems::CPU);
        let counted = cpu.as_ref().ok().copied().or(self.members.last());
        if let Some(unified) = counted.filter(|member| member.version() == Version::V2) {
            let text = unified.dir.read("cpu.stat", &mut a)?;
            return stats::cpu_v2(text).ok_or_else(|| unified.dir.malformed("cpu.stat"));
        }
        let account = &self.governing(Subsystems::CPUACCT)?.dir;
        let mut stats = stats::cpu_v1(
            account.read("cpuacct.usage", &mut a)?,
            account.read("cpuacct.usage_user", &mut b)?,
            account.read("cpuacct.usage_sys", &mut c)?,
        )
        .ok_or_else(|| account.malformed("cpuacct.usage"))?;
        if let Some(text) = cpu?.dir.read_if_there("cpu.stat", &mut a)? {
            stats::throttling_v1(&mut stats, text);
        }
        Ok(stats)
    }

    /// The number of processes and threads of this cgroup and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] without [`Controllers::PIDS`], or at a root, which
    /// does not count them.
    pub fn pids_stats(&self) -> Result<PidsStats> {
        let dir = &self.governing(Subsystems::PIDS)?.dir;
        let mut buffer = buffer();
        let current = dir.read("pids.current", &mut buffer).map_err(|error| file_missing(dir, error))?;
        let current = text::number(current).ok_or_else(|| dir.malformed("pids.current"))?;
        let max = dir.read(policy::PIDS_MAX, &mut buffer).map_err(|error| file_missing(dir, error))?;
        let max: Max<u64> = policy::parse_max(max).ok_or_else(|| dir.malformed(policy::PIDS_MAX))?;
        let peak = dir.read_if_there("pids.peak", &mut buffer)?;
        let peak = peak.and_then(text::number);
        let events = dir.read_if_there("pids.events", &mut buffer)?;
        Ok(PidsStats { current, max, peak, events_max: events.and_then(stats::pids_events_max) })
    }

    /// The directory in which a subsystem is governed.
    pub(crate) fn governing(&self, subsystem: Subsystems) -> Result<&Member> {
        let found = self.members.iter().find(|m| m.subsystems.contains(subsystem));
        found.ok_or_else(|| {
            let path = self.paths().last().unwrap_or(Path::new("")).to_owned();
            let name: String = subsystem.names().collect();
            Error::new(ErrorKind::ControllerUnavailable, Op::Find, path)
                .with_value(name)
                .with_note("the cgroup was made or opened without it")
        })
    }
}

/// A file that is missing in a cgroup that exists means that the controller is not on.
fn file_missing(dir: &Dir, error: Error) -> Error {
    if error.is_gone() && dir.is_alive() { error.with_kind(ErrorKind::ControllerUnavailable) } else { error }
}
