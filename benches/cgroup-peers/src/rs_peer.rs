//! kata's cgroups-rs.

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::cgroup_builder::CgroupBuilder;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use cgroups_rs::fs::{Cgroup, MaxValue, hierarchies};

use crate::{Contender, Result};

#[derive(Default)]
pub(crate) struct Peer {
    job: Option<Cgroup>,
    many: Vec<Cgroup>,
}

impl Peer {
    fn cgroup(&self) -> Result<&Cgroup> {
        self.job.as_ref().ok_or_else(|| "not made".into())
    }
}

/// It has no call for all of it. What is asked of each controller is what the others read too.
fn read(cgroup: &Cgroup) -> Result<u64> {
    let _ = cgroup.controller_of::<CpuController>().ok_or("no cpu")?.cpu();
    if let Some(cpuacct) = cgroup.controller_of::<CpuAcctController>() {
        let _ = cpuacct.cpuacct();
    }
    let memory: &MemController = cgroup.controller_of().ok_or("no memory")?;
    let (_, _) = (memory.memory_stat(), memory.memswap());
    let _ = cgroup.controller_of::<BlkIoController>().map(BlkIoController::blkio);
    Ok(cgroup.controller_of::<PidController>().ok_or("no pids")?.get_pid_current()?)
}

impl Contender for Peer {
    fn name(&self) -> &'static str {
        "cgroups-rs 0.5"
    }

    fn create_and_limit(&mut self) -> Result<()> {
        let cgroup = CgroupBuilder::new(&format!("cofferdam-peers-rs-{}", std::process::id()))
            .cpu()
            .quota(20_000)
            .period(100_000)
            .done()
            .memory()
            .memory_hard_limit(64 << 20)
            .done()
            .pid()
            .maximum_number_of_processes(MaxValue::Value(64))
            .done()
            .build(hierarchies::auto())?;
        self.job = Some(cgroup);
        Ok(())
    }

    fn enter(&mut self, pid: u32) -> Result<()> {
        Ok(self.cgroup()?.add_task_by_tgid(CgroupPid::from(u64::from(pid)))?)
    }

    fn read(&mut self) -> Result<u64> {
        read(self.cgroup()?)
    }

    fn delete(&mut self) -> Result<()> {
        Ok(self.job.take().ok_or("not made")?.delete()?)
    }

    fn make_many(&mut self, count: usize) -> Result<()> {
        for n in 0..count {
            let name = format!("cofferdam-peers-rs-{}-{n}", std::process::id());
            self.many.push(CgroupBuilder::new(&name).build(hierarchies::auto())?);
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<u64> {
        self.many.iter().map(read).sum()
    }

    fn delete_many(&mut self) -> Result<()> {
        Ok(self.many.drain(..).try_for_each(|cgroup| cgroup.delete())?)
    }
}
