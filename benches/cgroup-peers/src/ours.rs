//! cofferdam.

use std::time::Duration;

use cofferdam_cgroups::{Cgroup, Controllers, CpuQuota, Enforcement, Hierarchy, Limits, Sampler, Select};

use crate::{Contender, Result};

const CONTROLLERS: Controllers = Controllers::CPU.union(Controllers::MEMORY).union(Controllers::PIDS);
const SELECT: Select =
    Select::CPU.union(Select::PIDS).union(Select::MEMORY).union(Select::MEMORY_DETAILS).union(Select::IO);

pub(crate) struct Ours {
    hierarchy: Hierarchy,
    limits: Limits,
    job: Option<Cgroup>,
    many: Vec<(Cgroup, Sampler)>,
}

impl Ours {
    pub(crate) fn new() -> Result<Self> {
        let limits = Limits::new().cpu_quota(CpuQuota::time(Duration::from_millis(20))?).memory(64 << 20).pids(64);
        Ok(Ours { hierarchy: Hierarchy::detect()?, limits, job: None, many: Vec::new() })
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
        let job = self.hierarchy.create(format!("cofferdam-peers-ours-{}", std::process::id()), CONTROLLERS)?;
        job.apply(&self.limits, Enforcement::Strict)?;
        self.job = Some(job);
        Ok(())
    }

    fn enter(&mut self, pid: u32) -> Result<()> {
        Ok(self.job()?.attach(pid)?)
    }

    fn read(&mut self) -> Result<u64> {
        Ok(self.job()?.stats(SELECT)?.pids.ok_or("no pids")?.current)
    }

    fn delete(&mut self) -> Result<()> {
        Ok(self.job.take().ok_or("not made")?.delete()?)
    }

    fn make_many(&mut self, count: usize) -> Result<()> {
        for n in 0..count {
            let name = format!("cofferdam-peers-ours-{}-{n}", std::process::id());
            let job = self.hierarchy.create(name, CONTROLLERS)?;
            match job.sampler(SELECT) {
                Ok(sampler) => self.many.push((job, sampler)),
                Err(error) => {
                    let _ = job.delete();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<u64> {
        let mut processes = 0;
        for (_, sampler) in &mut self.many {
            processes += sampler.sample()?.pids.as_ref().ok_or("no pids")?.current;
        }
        Ok(processes)
    }

    fn delete_many(&mut self) -> Result<()> {
        Ok(self.many.drain(..).try_for_each(|(job, _)| job.delete())?)
    }
}
