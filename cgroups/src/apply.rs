//! Setting limits, and reading back those in force.

use rustix::io::Errno;

use crate::cgroup::{Cgroup, file_missing};
use crate::controllers::Subsystems;
use crate::dir::{Dir, buffer};
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::layout::Version;
use crate::limits::{Limits, MemoryLimits};
use crate::memory;
use crate::policy::{self, Bandwidth, Write};
use crate::text;

impl Cgroup {
    /// Sets limits. All values are checked before anything is written. Settings that are `None` are not touched: in
    /// particular, a period alone keeps the quota that is set, as a time.
    ///
    /// A limit of memory below what is in use makes the kernel reclaim, which takes its time; what then happens is told
    /// in [limits of memory](crate#limits-of-memory).
    ///
    /// Kernel documentation: `admin-guide/cgroup-v2.rst`, `scheduler/sched-bwc.rst`, `admin-guide/cgroup-v1/pids.rst`,
    /// `admin-guide/cgroup-v1/memory.rst`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::Unsupported`] or [`ErrorKind::ControllerUnavailable`], with nothing
    /// written;
    /// otherwise the kernel's refusal, with the settings before it in force. On v1 a quota beyond that of a cgroup
    /// above is refused with `EINVAL`; on v2 it is accepted and has no effect. On v1 a limit of memory below what is in
    /// use is [`ErrorKind::Busy`].
    pub fn apply(&self, limits: &Limits) -> Result<()> {
        for one in policy::subsystems(limits) {
            self.governing(one)?;
        }
        let version = match self.governing(Subsystems::CPU) {
            Ok(member) => member.version(),
            Err(_) => Version::V2,
        };
        let in_force = if policy::needs_bandwidth(limits, version) { self.bandwidth()? } else { None };
        let mut list = self.memory_writes(&limits.memory)?;
        list.extend(policy::writes(limits, version, in_force)?);
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

    fn memory_writes(&self, limits: &MemoryLimits) -> Result<Vec<Write>> {
        let Ok(member) = self.governing(Subsystems::MEMORY) else {
            // Nothing of memory is wanted, or it would have been refused.
            return Ok(Vec::new());
        };
        let in_force = if memory::needs_in_force(limits, member.version()) {
            self.memory_limits()?
        } else {
            MemoryLimits::default()
        };
        memory::writes(limits, member.version(), &in_force, member.tree.page)
    }

    fn write(&self, write: &Write) -> Result<()> {
        let dir = &self.governing(write.subsystem)?.dir;
        match dir.write(write.file, &write.text) {
            Err(error) if write.missing_is_fine && error.is_gone() && dir.is_alive() => Ok(()),
            Err(error) => Err(explain(dir, write.file, error)),
            Ok(()) => Ok(()),
        }
    }

    /// The limits that this cgroup has, as the kernel tells them. What it cannot have (a quota at the root of v2, a limit
    /// of swap where that is not counted), and what belongs to a controller that was not asked for, is `None`. Limits of the cgroups above hold as well, and
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
        if self.governing(Subsystems::MEMORY).is_ok() {
            limits.memory = self.memory_limits()?;
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
    /// Memory and swap in force; `None` for what this cgroup cannot have.
    fn memory_limits(&self) -> Result<MemoryLimits> {
        let member = self.governing(Subsystems::MEMORY)?;
        let files = memory::files(member.version());
        let (mut first, mut second) = (buffer(), buffer());
        let Some(max) = member.dir.read_if_there(files.max, &mut first)? else {
            return Ok(MemoryLimits::default());
        };
        let swap = member.dir.read_if_there(files.swap, &mut second)?;
        memory::parse(member.version(), max, swap, member.tree.page).ok_or_else(|| member.dir.malformed(files.max))
    }
}

/// What the kernel's refusal means for the one who wanted a limit.
fn explain(dir: &Dir, file: &'static str, error: Error) -> Error {
    let error = file_missing(dir, error);
    match error.errno() {
        Some(Errno::BUSY) => {
            let mut buffer = buffer();
            let usage = memory::usage_file(file).and_then(|usage| dir.read(usage, &mut buffer).ok());
            match usage.and_then(memory::usage_note) {
                Some(note) => error.with_note(note),
                None => error,
            }
        }
        Some(Errno::NOENT) if matches!(file, memory::V1_SUM | memory::V2_SWAP) && !error.is_gone() => {
            error.with_note("the kernel does not count swap here")
        }
        _ => error,
    }
}
