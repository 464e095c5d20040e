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
pub(crate) struct Peer(Option<Cgroup>);

impl Peer {
    fn cgroup(&self) -> Result<&Cgroup> {
        self.0.as_ref().ok_or_else(|| "not made".into())
    }
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
        self.0 = Some(cgroup);
        Ok(())
    }

    fn enter(&mut self, pid: u32) -> Result<()> {
        Ok(self.cgroup()?.add_task_by_tgid(CgroupPid::from(u64::from(pid)))?)
    }

    /// It has no call for all of it. What is asked of each controller is what the others read too.
    fn read(&mut self) -> Result<u64> {
        let cgroup = self.cgroup()?;
        let _ = cgroup.controller_of::<CpuController>().ok_or("no cpu")?.cpu();
        if let Some(cpuacct) = cgroup.controller_of::<CpuAcctController>() {
            let _ = cpuacct.cpuacct();
        }
        let memory: &MemController = cgroup.controller_of().ok_or("no memory")?;
        let (_, _) = (memory.memory_stat(), memory.memswap());
        let _ = cgroup.controller_of::<BlkIoController>().map(BlkIoController::blkio);
        Ok(cgroup.controller_of::<PidController>().ok_or("no pids")?.get_pid_current()?)
    }

    fn delete(&mut self) -> Result<()> {
        Ok(self.0.take().ok_or("not made")?.delete()?)
    }
}
