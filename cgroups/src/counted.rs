//! Reading what the kernel has counted.

use crate::cgroup::{Cgroup, file_missing};
#[cfg(doc)]
use crate::controllers::Controllers;
use crate::controllers::Subsystems;
use crate::dir::buffer;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::layout::Version;
use crate::limits::Max;
use crate::policy::{self, memory};
use crate::stats::{self, CpuStats, MemoryStats, PidsStats};
use crate::text;

impl Cgroup {
    /// CPU time used by this cgroup and everything below it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] on v1 if `cpuacct` is not mounted, or the cgroup was
    /// made without [`Controllers::CPU`]. On v2 the time is counted without the controller too.
    pub fn cpu_stats(&self) -> Result<CpuStats> {
        let (mut a, mut b, mut c) = (buffer(), buffer(), buffer());
        let cpu = self.governing(Subsystems::CPU);
        let counted = cpu.as_ref().ok().copied().or(self.members().last());
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
    /// The memory of this cgroup and everything below it, and what has happened for lack of it.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; [`ErrorKind::ControllerUnavailable`] without [`Controllers::MEMORY`], or at v2's root, which
    /// does not tell.
    pub fn memory_stats(&self) -> Result<MemoryStats> {
        let member = self.governing(Subsystems::MEMORY)?;
        let (dir, files) = (&member.dir, memory::files(member.version()));
        let (mut first, mut second, mut third) = (buffer(), buffer(), buffer());
        let current = dir.read(files.current, &mut first).map_err(|error| file_missing(dir, error))?;
        let current = text::number(current).ok_or_else(|| dir.malformed(files.current))?;
        let max = dir.read(files.max, &mut first).map_err(|error| file_missing(dir, error))?;
        let max = memory::parse_limit(max, member.tree.page).ok_or_else(|| dir.malformed(files.max))?;
        let peak = dir.read_if_there(files.peak, &mut first)?.and_then(text::number);
        let events = match member.version() {
            Version::V2 => stats::memory_events_v2(dir.read("memory.events", &mut first)?),
            Version::V1 => stats::memory_events_v1(
                dir.read("memory.oom_control", &mut first)?,
                [
                    dir.read_if_there("memory.failcnt", &mut second)?,
                    dir.read_if_there("memory.memsw.failcnt", &mut third)?,
                ],
            ),
        };
        Ok(MemoryStats { current, max, peak, events })
    }
}
