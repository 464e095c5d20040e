//! youki's libcgroups.

use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

use crate::{Contender, Result};

#[derive(Default)]
pub(crate) struct Peer(Option<AnyCgroupManager>);

impl Peer {
    fn manager(&self) -> Result<&AnyCgroupManager> {
        self.0.as_ref().ok_or_else(|| "not made".into())
    }
}

impl Contender for Peer {
    fn name(&self) -> &'static str {
        "libcgroups 0.7"
    }

    fn create_and_limit(&mut self) -> Result<()> {
        let cgroup_path = format!("/cofferdam-peers-libcgroups-{}", std::process::id()).into();
        let config = CgroupConfig { cgroup_path, systemd_cgroup: false, container_name: String::new() };
        self.0 = Some(create_cgroup_manager(config)?);
        Ok(())
    }

    /// It makes its cgroups with the first process; the limits come after.
    fn enter(&mut self, pid: u32) -> Result<()> {
        let manager = self.manager()?;
        manager.add_task(Pid::from_raw(pid.cast_signed()))?;
        let resources = LinuxResourcesBuilder::default()
            .cpu(LinuxCpuBuilder::default().quota(20_000i64).period(100_000u64).build()?)
            .memory(LinuxMemoryBuilder::default().limit(64i64 << 20).build()?)
            .pids(LinuxPidsBuilder::default().limit(64i64).build()?)
            .build()?;
        let options =
            ControllerOpt { resources: &resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
        Ok(manager.apply(&options)?)
    }

    fn read(&mut self) -> Result<u64> {
        Ok(self.manager()?.stats()?.pids.current)
    }

    fn delete(&mut self) -> Result<()> {
        Ok(self.0.take().ok_or("not made")?.remove()?)
    }
}
