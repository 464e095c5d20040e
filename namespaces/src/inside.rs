//! What is known of a sandbox that is being created: how programs of the caller's, and of its own, get in.

use crate::namespace::{KINDS, open_of_held};
use crate::sys::Born;
use crate::target::{Gathered, Kind, Process};
use crate::{Error, ErrorKind, Fds, Join, Namespaces, Root, Sandbox, Step, Target, targets_ids};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The namespaces of a child that waits, and as what a program of its root may run beside it.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Opened while the child may be looked at.
    gathered: Gathered,
    confined: Confined,
}

/// The sandbox's program, as far as it is not about namespaces.
#[derive(Debug)]
pub(crate) struct Confined {
    sandbox: Sandbox,
    rulesets: Vec<(String, OwnedFd)>,
    cgroup: Vec<OwnedFd>,
}

impl Confined {
    /// Before the descriptors are the plan's.
    pub(crate) fn of(sandbox: &Sandbox, fds: &Fds) -> Result<Self, Error> {
        let rulesets = fds.named.iter().filter(|(name, _)| sandbox.privilege.has_ruleset(name));
        let rulesets = rulesets.map(|(name, fd)| Ok((name.clone(), copy(fd)?))).collect::<Result<_, Error>>()?;
        let cgroup = fds.cgroup.iter().map(copy).collect::<Result<_, _>>()?;
        Ok(Confined { sandbox: confinement(sandbox), rulesets, cgroup })
    }

    fn fds(&self) -> Result<Fds, Error> {
        let mut fds = Fds::new();
        for (name, fd) in &self.rulesets {
            fds = fds.bind(name.as_str(), copy(fd)?);
        }
        Ok(fds.cgroup(self.cgroup.iter().map(copy).collect::<Result<Vec<_>, _>>()?))
    }
}

/// All that keeps the program from doing something, and nothing that makes its surroundings: those are joined.
fn confinement(of: &Sandbox) -> Sandbox {
    #[cfg_attr(not(feature = "seccomp"), allow(unused_mut, reason = "what listens is left out"))]
    let mut privilege = of.privilege.clone();
    #[cfg(feature = "seccomp")]
    privilege.seccomp.iter_mut().for_each(crate::Seccomp::nobody_listens);
    Sandbox {
        credentials: of.credentials.clone(),
        umask: of.umask,
        rlimits: of.rlimits.clone(),
        nice: of.nice,
        scheduler: of.scheduler,
        cpu_affinity: of.cpu_affinity.clone(),
        io_priority: of.io_priority,
        personality: of.personality,
        privilege,
        fallbacks: of.fallbacks,
        root: Root::Host,
        join: Some(Join::all()),
        ..Sandbox::new("")
    }
}

impl Inside {
    /// Of a child that waits with its mounts made, and that may still be looked at.
    pub(crate) fn of(born: &Born, confined: Confined) -> Result<Self, Error> {
        let pidfd = copy(&born.pidfd)?;
        let process = Process { pid: born.pid, pidfd };
        let mut fds = Vec::new();
        for (kind, _) in KINDS {
            match open_of_held(born.pid, born.pidfd.as_fd(), kind) {
                Ok(fd) => fds.push((kind, fd)),
                // This kernel has no such kind.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let (ids, root) = (Some(targets_ids::of(&process)?), Some(process.directory("root")?));
        Ok(Inside { gathered: Gathered { fds, ids, root }, confined })
    }

    pub(crate) fn namespace(&self, which: Namespaces) -> Result<OwnedFd, Error> {
        match self.gathered.fds.iter().find(|(kind, _)| *kind == which) {
            Some((_, fd)) => copy(fd),
            None if which.iter().count() == 1 => {
                Err(Error::words(ErrorKind::NotFound, Step::Namespace, "namespace", "is no kind that this kernel has"))
            }
            None => Err(Error::config("namespace", "is not exactly one")),
        }
    }

    /// With the host's root, while the child has it too: for a program of the host's.
    pub(crate) fn with_the_hosts_root(&self) -> Result<(Sandbox, Fds), Error> {
        let root = self.gathered.root.as_ref().map(copy).transpose()?;
        Ok((Sandbox::new("").join(Join::all()), Fds::new().target(self.target(root)?)))
    }

    /// With the sandbox's own root, once the child has that: for a program of its, which may do no more than the sandbox's.
    pub(crate) fn with_its_own_root(&self) -> Result<(Sandbox, Fds), Error> {
        Ok((self.confined.sandbox.clone(), self.confined.fds()?.target(self.target(None)?)))
    }

    fn target(&self, root: Option<OwnedFd>) -> Result<Target, Error> {
        let fds = self.gathered.fds.iter().map(|(kind, fd)| Ok((*kind, copy(fd)?))).collect::<Result<_, Error>>()?;
        Ok(Target(Arc::new(Kind::Namespaces(Gathered { fds, ids: self.gathered.ids.clone(), root }))))
    }
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, Error> {
    let failed = |e: io::Error| Error::os(Step::Hook, "fcntl", e.raw_os_error().unwrap_or(0));
    fd.as_fd().try_clone_to_owned().map_err(failed)
}
