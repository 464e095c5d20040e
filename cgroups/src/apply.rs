//! Setting limits.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::cgroup::{Cgroup, file_missing};
use crate::controllers::Subsystems;
use crate::dir::{Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::kept::Kept;
use crate::limits::{CpuLimits, CpusetLimits, Devices, IoLimits, Limits, MemoryLimits};
use crate::member::Member;
use crate::policy::{self, Plan, Write};
use crate::read_back::memory_and_swap;

/// What to do about limits that this machine, or this cgroup, does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// All of the limits are set, or it is an error.
    Strict,
    /// What is not there is skipped, and told in [`Applied::skipped`]: a controller that is missing, a limit that only
    /// the other version has, a file that this kernel does not have. What the kernel refuses is an error.
    BestEffort,
}

/// What [`Cgroup::apply`] did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Applied {
    /// What was written where, in this order.
    pub written: Vec<Written>,
    /// What was not, and why: [`Error::path`] names the file or the setting. Under [`Enforcement::Strict`] only what
    /// is met without being written, such as no swap where swap is not counted.
    pub skipped: Vec<Error>,
}

/// A text in a file of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The file, for people to read.
    pub path: PathBuf,
    /// What was written.
    pub text: String,
}

impl Cgroup {
    /// Sets limits. All values are checked before anything is written. Settings that are `None` are not touched: in
    /// particular, a period alone keeps the quota that is set, as a time.
    ///
    /// A limit of memory below what is in use makes the kernel reclaim, which takes its time; what then happens is told
    /// in [limits of memory](crate#limits-of-memory).
    ///
    /// Kernel documentation: `admin-guide/cgroup-v2.rst`, `scheduler/sched-bwc.rst`, and for v1 the files in
    /// `admin-guide/cgroup-v1`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], and if [strict](Enforcement::Strict) [`ErrorKind::Unsupported`] or
    /// [`ErrorKind::ControllerUnavailable`], with nothing written, except that a file which this kernel does not have
    /// is found out when it is written to;
    /// otherwise the kernel's refusal, with the settings before it in force. What the kernel checks against each other
    /// (quota, period and burst; memory and v1's sum) is set as a whole or not at all. On v1 a quota beyond that of a
    /// cgroup above is refused with `EINVAL`; on v2 it is accepted and has no effect. On v1 a limit of memory below
    /// what is in use is [`ErrorKind::Busy`]. Rules of devices are set first: who may not have them
    /// ([`ErrorKind::PermissionDenied`]) finds nothing changed.
    pub fn apply(&self, limits: &Limits, enforcement: Enforcement) -> Result<Applied> {
        let mut kept = Kept::to_write();
        let plan = self.plan(limits, &mut kept)?;
        let mut applied = Applied::default();
        for error in plan.cannot {
            skip(error, enforcement, &mut applied)?;
        }
        // First: they take rights that the others do not, and who lacks them is to find nothing changed.
        if let Some(devices) = limits.devices.as_ref().filter(|_| self.governing(Subsystems::DEVICES).is_ok())
            && let Err(error) = self.apply_devices(devices, &mut applied)
        {
            skip(error, enforcement, &mut applied)?;
        }
        for step in &plan.steps {
            self.step(step, &kept, enforcement, &mut applied)?;
        }
        Ok(applied)
    }

    fn plan(&self, limits: &Limits, kept: &mut Kept) -> Result<Plan> {
        limits.devices.iter().try_for_each(Devices::check)?;
        policy::io::check(&limits.io)?;
        let mut plan = Plan::default();
        self.plan_cpuset(limits, &mut plan);
        self.plan_memory(limits, &mut plan, kept)?;
        self.plan_cpu(limits, &mut plan)?;
        if let (Some(pids), Some(_)) = (limits.pids, self.has(limits.pids.is_some(), Subsystems::PIDS, &mut plan)) {
            policy::pids(pids, &mut plan)?;
        }
        if let Some(member) = self.has(limits.io != IoLimits::default(), Subsystems::IO, &mut plan) {
            policy::io::plan(&limits.io, member.version(), &mut plan)?;
        }
        if let Some(member) = self.has(!limits.hugetlb.is_empty(), Subsystems::HUGETLB, &mut plan) {
            policy::shared::hugetlb(&limits.hugetlb, member.version(), &mut plan);
        }
        self.plan_rest(limits, &mut plan)?;
        self.has(limits.devices.is_some(), Subsystems::DEVICES, &mut plan);
        Ok(plan)
    }

    fn plan_cpuset(&self, limits: &Limits, plan: &mut Plan) {
        let wanted = limits.cpuset != CpusetLimits::default();
        if let Some(member) = self.has(wanted, Subsystems::CPUSET, plan) {
            policy::cpuset::plan(&limits.cpuset, member.version(), plan);
        }
    }

    fn plan_memory(&self, limits: &Limits, plan: &mut Plan, kept: &mut Kept) -> Result<()> {
        let wanted = limits.memory != MemoryLimits::default();
        let Some(member) = self.has(wanted, Subsystems::MEMORY, plan) else { return Ok(()) };
        let in_force = if policy::memory::needs_in_force(&limits.memory, member.version()) {
            memory_and_swap(member, kept)?
        } else {
            MemoryLimits::default()
        };
        policy::memory::plan(&limits.memory, member.version(), &in_force, member.tree.page, plan)
    }

    fn plan_cpu(&self, limits: &Limits, plan: &mut Plan) -> Result<()> {
        let wanted = limits.cpu != CpuLimits::default();
        let Some(member) = self.has(wanted, Subsystems::CPU, plan) else { return Ok(()) };
        let needs = policy::cpu::needs_bandwidth(&limits.cpu, member.version());
        let in_force = if needs { self.bandwidth()? } else { None };
        policy::cpu::plan(&limits.cpu, member.version(), in_force, plan)
    }

    fn plan_rest(&self, limits: &Limits, plan: &mut Plan) -> Result<()> {
        // Each write finds its own controller.
        let mut wanted = Plan::default();
        policy::shared::rdma(&limits.rdma, &mut wanted)?;
        policy::shared::misc(&limits.misc, &mut wanted)?;
        policy::shared::network(&limits.network, &mut wanted)?;
        policy::shared::files(&limits.files, &mut wanted)?;
        for step in wanted.steps {
            let subsystem = step.iter().map(|write| write.subsystem).collect();
            if self.has(true, subsystem, plan).is_some() {
                plan.steps.push(step);
            }
        }
        Ok(())
    }

    /// Where a controller is governed, if it is needed. That it is missing is noted.
    fn has(&self, wanted: bool, subsystem: Subsystems, plan: &mut Plan) -> Option<&Member> {
        if !wanted {
            return None;
        }
        match self.governing(subsystem) {
            Ok(member) => Some(member),
            Err(error) => {
                plan.cannot.push(error);
                None
            }
        }
    }

    /// Writes what stands together: in the order given or, where the kernel refuses, in any in which it accepts. If
    /// there is none, what was written before is undone.
    fn step(&self, step: &[Write], kept: &Kept, enforcement: Enforcement, applied: &mut Applied) -> Result<()> {
        let mut undo: Vec<(&Write, String)> = Vec::new();
        let mut waiting: Vec<&Write> = step.iter().collect();
        while !waiting.is_empty() {
            let (before, mut refused) = (waiting.len(), None);
            let mut again = Vec::new();
            for write in waiting {
                let old = if step.len() > 1 { self.old(write)? } else { None };
                let is_partition = write.file == policy::cpuset::PARTITION;
                match if is_partition { self.write_partition(write, kept) } else { self.write(write, kept) } {
                    Ok(written) => {
                        undo.extend(old.map(|old| (write, old)));
                        applied.written.push(written);
                    }
                    Err(error) if write.missing_is_fine && is_without_file(&error) => {
                        applied.skipped.push(error);
                    }
                    Err(error) if error.errno() == Some(Errno::INVAL) && step.len() > 1 => {
                        refused.get_or_insert(error);
                        again.push(write);
                    }
                    Err(error) => {
                        skip(error, enforcement, applied).inspect_err(|_| self.undo(&undo))?;
                    }
                }
            }
            match refused {
                Some(error) if again.len() == before => {
                    self.undo(&undo);
                    return Err(error);
                }
                _ => waiting = again,
            }
        }
        Ok(())
    }

    /// The first error tells more than one of these would.
    fn undo(&self, undo: &[(&Write, String)]) {
        for (write, old) in undo.iter().rev() {
            if let Ok(member) = self.governing(write.subsystem) {
                let _ = member.dir.write(&write.file, old);
            }
        }
    }

    fn old(&self, write: &Write) -> Result<Option<String>> {
        if write.old.is_some() {
            return Ok(write.old.clone());
        }
        let mut buffer = buffer();
        let text = self.governing(write.subsystem)?.dir.read_if_there(&write.file, &mut buffer)?;
        Ok(text.map(|text| String::from_utf8_lossy(text.trim_ascii()).into_owned()))
    }

    fn write(&self, write: &Write, kept: &Kept) -> Result<Written> {
        let dir = &self.governing(write.subsystem)?.dir;
        match kept.write(dir, &write.file, &write.text).map_err(|error| file_missing(dir, error)) {
            Ok(()) => Ok(Written { path: dir.path().join(&*write.file), text: write.text.clone() }),
            Err(error) => match &write.instead {
                Some(instead) if is_without_file(&error) => self.write(instead, kept),
                _ => Err(explain(dir, &write.file, error)),
            },
        }
    }

    /// A partition that cannot be is not refused: the kernel takes the word, and says in the file why it has no effect.
    fn write_partition(&self, write: &Write, kept: &Kept) -> Result<Written> {
        let old = self.old(write)?;
        let written = self.write(write, kept)?;
        let dir = &self.governing(write.subsystem)?.dir;
        let mut buffer = buffer();
        match policy::cpuset::why_not(dir.read(&write.file, &mut buffer)?) {
            None => Ok(written),
            Some(reason) => {
                // The reason tells more than an error of this would.
                let old = old.as_deref().and_then(|old| old.split_whitespace().next());
                let _ = dir.write(&write.file, old.unwrap_or("member"));
                let error = Error::new(ErrorKind::Unsupported, Op::Write, written.path);
                Err(error.with_value(&write.text).with_note(reason))
            }
        }
    }
}

/// What is not there, and the caller does not insist upon.
fn skip(error: Error, enforcement: Enforcement, applied: &mut Applied) -> Result<()> {
    let missing = matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::ControllerUnavailable);
    if missing && enforcement == Enforcement::BestEffort {
        applied.skipped.push(error);
        Ok(())
    } else {
        Err(error)
    }
}

const NO_DEVICE: &str = "there is no such block device, or it is a partition: limits are those of a whole disk";

/// The cgroup is there, and the file is not. (With ENODEV it is, and something else is missing.)
fn is_without_file(error: &Error) -> bool {
    error.kind() == ErrorKind::ControllerUnavailable && error.errno() == Some(Errno::NOENT)
}

/// What the kernel's refusal means for the one who wanted a limit.
fn explain(dir: &Dir, file: &str, error: Error) -> Error {
    match error.errno() {
        Some(Errno::BUSY) => {
            let mut buffer = buffer();
            let usage = policy::memory::usage_file(file).and_then(|usage| dir.read(usage, &mut buffer).ok());
            match usage.and_then(policy::memory::usage_note) {
                Some(note) => error.with_note(note),
                None => error,
            }
        }
        Some(Errno::NOENT) if matches!(file, policy::memory::V1_SUM | policy::memory::V2_SWAP) && !error.is_gone() => {
            error.with_note("the kernel does not count swap here")
        }
        Some(Errno::NOENT) if !error.is_gone() => error.with_note("this kernel, or this cgroup, has no such file"),
        Some(Errno::NODEV) if policy::io::is_by_device(file) => {
            error.with_kind(ErrorKind::InvalidInput).with_note(NO_DEVICE)
        }
        Some(Errno::NODEV) => match policy::shared::named_by_line(file) {
            Some(note) => error.with_kind(ErrorKind::InvalidInput).with_note(note),
            None => error,
        },
        Some(Errno::INVAL) if file == policy::shared::MISC_MAX => error.with_note("the kernel counts no such resource"),
        Some(Errno::OPNOTSUPP) if policy::io::is_weight(file) => {
            error.with_note("neither is BFQ the device's scheduler, nor is io.cost on for it")
        }
        _ => error,
    }
}
