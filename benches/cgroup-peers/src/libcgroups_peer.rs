//! youki's libcgroups.

use std::fs;
use std::path::PathBuf;

use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

use crate::{Contender, Result, process};

#[derive(Default)]
pub(crate) struct Peer {
    job: Option<AnyCgroupManager>,
    many: Vec<AnyCgroupManager>,
    /// What was made by hand.
    dirs: Vec<PathBuf>,
}

impl Peer {
    fn manager(&self) -> Result<&AnyCgroupManager> {
        self.job.as_ref().ok_or_else(|| "not made".into())
    }
}

fn name(n: usize) -> String {
    format!("cofferdam-peers-libcgroups-{}-{n}", std::process::id())
}

fn manager(name: &str) -> Result<AnyCgroupManager> {
    let cgroup_path = format!("/{name}").into();
    let config = CgroupConfig { cgroup_path, systemd_cgroup: false, container_name: String::new() };
    Ok(create_cgroup_manager(config)?)
}

/// The directories of a process's cgroups that have this name.
fn dirs_of(pid: u32, name: &str) -> Result<Vec<PathBuf>> {
    let (own, mounts) = (fs::read_to_string(format!("/proc/{pid}/cgroup"))?, fs::read_to_string("/proc/self/mountinfo")?);
    let mut dirs = Vec::new();
    for line in own.lines().filter(|line| line.ends_with(&format!("/{name}"))) {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().ok_or("no controllers")?, parts.next().ok_or("no path")?);
        let first = controllers.split(',').next().unwrap_or_default();
        let is_it = |mount: &&str| match mount.split_once(" - ") {
            Some((_, system)) if first.is_empty() => system.starts_with("cgroup2 "),
            Some((_, system)) => {
                let options = system.rsplit(' ').next().unwrap_or_default();
                system.starts_with("cgroup ") && options.split(',').any(|option| option == first)
            }
            None => false,
        };
        let mount = mounts.lines().find(is_it).and_then(|mount| mount.split(' ').nth(4)).ok_or("no mount")?;
        dirs.push(PathBuf::from(format!("{mount}{path}")));
    }
    Ok(dirs)
}

impl Contender for Peer {
    fn name(&self) -> &'static str {
        "libcgroups 0.7"
    }

    fn create_and_limit(&mut self) -> Result<()> {
        self.job = Some(manager(&name(0))?);
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
        Ok(self.job.take().ok_or("not made")?.remove()?)
    }

    /// It needs a process to make one. One is moved into the first, which tells where the others belong; they are made
    /// by hand, because moving takes long.
    fn make_many(&mut self, count: usize) -> Result<()> {
        let mut process = process()?;
        let first = manager(&name(0))?;
        first.add_task(Pid::from_raw(process.id().cast_signed()))?;
        let dirs = dirs_of(process.id(), &name(0))?;
        process.kill()?;
        process.wait()?;
        self.many.push(first);
        for n in 1..count {
            for dir in &dirs {
                let dir = dir.with_file_name(name(n));
                fs::create_dir(&dir)?;
                self.dirs.push(dir);
            }
            self.many.push(manager(&name(n))?);
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<u64> {
        let mut processes = 0;
        for manager in &self.many {
            processes += manager.stats()?.pids.current;
        }
        Ok(processes)
    }

    fn delete_many(&mut self) -> Result<()> {
        self.dirs.drain(..).try_for_each(fs::remove_dir)?;
        // Of the others nothing is left.
        self.many.drain(..).take(1).try_for_each(|manager| manager.remove())?;
        Ok(())
    }
}
