//! cofferdam.

use std::time::Duration;

use cofferdam_cgroups::{Cgroup, Controllers, CpuQuota, Enforcement, Hierarchy, Limits, Select};

use crate::{Contender, Result};

pub(crate) struct Ours {
    hierarchy: Hierarchy,
    limits: Limits,
    job: Option<Cgroup>,
}

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        let limits = Limits::new().cpu_quota(CpuQuota::time(Duration::from_millis(20))?).memory(64 << 20).pids(64);
        Ok(Ours { hierarchy: Hierarchy::detect()?, limits, job: None })
    }

    fn job(&self) -> Result<&Cgroup> {
        self.job.as_ref().ok_or_else(|| "not made".into())
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "cofferdam"
    }

    fn create_and_limit(&mut self) -> Result<()> {
        let controllers = Controllers::CPU | Controllers::MEMORY | Controllers::PIDS;
        let job = self.hierarchy.create(format!("cofferdam-peers-ours-{}", std::process::id()), controllers)?;
        job.apply(&self.limits, Enforcement::Strict)?;
        self.job = Some(job);
        Ok(())
    }

    fn enter(&mut self, pid: u32) -> Result<()> {
        Ok(self.job()?.attach(pid)?)
    }

    fn read(&mut self) -> Result<u64> {
        let select = Select::CPU | Select::PIDS | Select::MEMORY | Select::MEMORY_DETAILS | Select::IO;
        Ok(self.job()?.stats(select)?.pids.ok_or("no pids")?.current)
    }

    fn delete(&mut self) -> Result<()> {
        Ok(self.job.take().ok_or("not made")?.delete()?)
    }
}
