//! Whose namespaces are joined.

use crate::bind::{above_streams, path_of};
use crate::namespace::KINDS;
use crate::targets_ids::Ids;
use crate::{Error, ErrorKind, NamespaceId, Namespaces, Step, sys};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, stat};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

/// More than the kernel gives an environment by default; a larger one is cut off, and refused by `execve(2)` at the latest.
const LONGEST: u64 = 8 << 20;

/// Whose namespaces a sandbox joins, see [`Sandbox::join`](crate::Sandbox::join): a process, or namespaces by descriptor.
///
/// A process is held by its pidfd: when it has ended, the join is an error of kind [`NoSuchProcess`](crate::ErrorKind::NoSuchProcess), and never one of a later
/// process of the same number. A clone is the same target.
///
/// ```no_run
/// # use cofferdam_namespaces::{Error, Fds, Join, Sandbox, Target};
/// let target = Target::process(4711)?;
/// let child = Sandbox::new("/bin/sh").join(Join::all().environment()).spawn_with(Fds::new().target(target))?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone)]
#[doc(alias("nsenter", "setns", "container"))]
pub struct Target(pub(crate) Arc<Kind>);

#[derive(Debug)]
pub(crate) enum Kind {
    Process(Process),
    Namespaces(Gathered),
}

/// Namespaces, and what is known of who is in them.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) fds: Vec<(Namespaces, OwnedFd)>,
    /// Who there is in the user namespace.
    pub(crate) ids: Option<Ids>,
    /// Another root than that of the mount namespace.
    pub(crate) root: Option<OwnedFd>,
}

/// A process, and its number in the caller's pid namespace.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Target {
    /// The process that has this number now, in the caller's pid namespace.
    ///
    /// # Errors
    /// [`NoSuchProcess`](crate::ErrorKind::NoSuchProcess); [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if `/proc` is not that of the caller's pid namespace.
    pub fn process(pid: u32) -> Result<Self, Error> {
        let failed = |errno| Error::os(Step::Target, "pidfd_open", errno).about(format!("process {pid}"));
        let pidfd = sys::pidfd_of(pid).map_err(|e| failed(e.raw_os_error().unwrap_or(0)))?;
        // What is looked at in /proc must be the same process.
        match sys::pid_of(&pidfd) {
            Some(0) => Err(failed(libc::ESRCH)),
            Some(found) if found == pid => Self::new(pid, pidfd),
            _ => Err(Error::config("/proc", "is not there, or not that of the caller's pid namespace")),
        }
    }

    /// The process of a pidfd, `pidfd_open(2)`: a [`Child`](crate::Child) gives one (`as_fd().try_clone_to_owned()`).
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if it is none, [`NoSuchProcess`](crate::ErrorKind::NoSuchProcess) if the process has ended and been
    /// waited for, or has no number in the caller's pid namespace.
    pub fn from_pidfd(pidfd: impl Into<OwnedFd>) -> Result<Self, Error> {
        let pidfd = pidfd.into();
        match sys::pid_of(&pidfd) {
            Some(0) => Err(Error::os(Step::Target, "pidfd", libc::ESRCH).about("pidfd")),
            Some(pid) => Self::new(pid, pidfd),
            None => Err(Error::config("target", "is no pidfd")),
        }
    }

    fn new(pid: u32, pidfd: OwnedFd) -> Result<Self, Error> {
        let pidfd = above_streams(pidfd).map_err(|errno| Error::os(Step::Target, "fcntl", errno).about("pidfd"))?;
        Ok(Target(Arc::new(Kind::Process(Process { pid, pidfd }))))
    }

    /// How the process has ended, once its parent has waited for it; `None` before. For those who did not spawn it. Does not block: the parent's
    /// wait is nothing that can be waited for.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) before Linux 6.15, which tells it (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`);
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) of namespaces without a process.
    #[doc(alias("PIDFD_GET_INFO", "waitid"))]
    pub fn exit_status(&self) -> Result<Option<ExitStatus>, Error> {
        let Kind::Process(process) = &*self.0 else {
            return Err(Error::config("target", "is no process"));
        };
        let failed = |errno| Error::os(Step::Wait, "ioctl", errno).about(process.name());
        match sys::exit_info(process.pidfd.as_fd()) {
            Ok(status) => Ok(status.map(ExitStatus::from_raw)),
            // Linux 6.13 has the request, but knows nothing of a process that is gone.
            Err(errno @ (libc::ENOTTY | libc::ESRCH)) => Err(failed(errno).of_kind(ErrorKind::Unsupported)),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// These namespaces, at most one of each kind, whoever is in them: as files of `/proc/PID/ns`, binds of those, or
    /// [`Child::namespace`](crate::Child::namespace) give them.
    ///
    /// Such a target has no root, no working directory, no environment and no credentials of its own.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for what is no namespace, or a second one of its kind.
    pub fn from_namespaces(namespaces: impl IntoIterator<Item = OwnedFd>) -> Result<Self, Error> {
        let mut kinds: Vec<(Namespaces, OwnedFd)> = Vec::new();
        for fd in namespaces {
            let object = path_of(fd.as_fd());
            let fd = above_streams(fd).map_err(|errno| Error::os(Step::Target, "fcntl", errno).about(&object))?;
            let kind = sys::kind_of_namespace(fd.as_fd()).ok().and_then(Namespaces::from_bits);
            let kind = kind.ok_or_else(|| Error::config(&object, "is no namespace"))?;
            if kinds.iter().any(|(known, _)| *known == kind) {
                return Err(Error::config(object, "is a second namespace of its kind"));
            }
            kinds.push((kind, fd));
        }
        Ok(Target(Arc::new(Kind::Namespaces(Gathered { fds: kinds, ids: None, root: None }))))
    }
}

impl Process {
    /// What errors are about.
    pub(crate) fn name(&self) -> String {
        format!("process {}", self.pid)
    }

    /// Whether it ends within this time; a process that waits for nobody any more is a pidfd that is readable.
    pub(crate) fn ends_within(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Whether it has ended, or has begun to: process 1 of a pid namespace goes only after all others in there.
    fn is_ending(&self) -> bool {
        self.read("stat").map_or(true, |stat| is_exiting(&stat))
    }

    /// Looks at a file of its folder in `/proc`. That it has not ended afterwards says that the number was its own.
    fn look<T>(&self, call: &'static str, name: &str, look: impl FnOnce(&str) -> Result<T, Errno>) -> Result<T, Error> {
        let path = format!("/proc/{}/{name}", self.pid);
        let found = look(&path);
        if self.ends_within(PollTimeout::ZERO) {
            return Err(Error::os(Step::Target, call, libc::ESRCH).about(path));
        }
        found.map_err(|errno| Error::os(Step::Target, call, errno as i32).about(path))
    }

    /// The namespace of this kind that it is in; none if this kernel has no such kind.
    pub(crate) fn namespace(&self, name: &str) -> Result<Option<NamespaceId>, Error> {
        self.look("newfstatat", &format!("ns/{name}"), id_of)
    }

    /// A directory of its, `root` or `cwd`.
    pub(crate) fn directory(&self, name: &str) -> Result<OwnedFd, Error> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = self.look("openat", name, |path| open(path, flags, Mode::empty()))?;
        above_streams(fd).map_err(|errno| Error::os(Step::Target, "fcntl", errno).about(name))
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.look("read", name, |path| {
            let errno = |e: io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(0));
            let mut bytes = Vec::new();
            std::fs::File::open(path).map_err(errno)?.take(LONGEST).read_to_end(&mut bytes).map_err(errno)?;
            Ok(bytes)
        })
    }
}

fn id_of(path: &str) -> Result<Option<NamespaceId>, Errno> {
    match stat(path) {
        Ok(stat) => Ok(Some(NamespaceId::of_stat(&stat))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The namespaces of what the caller spawns, by kind.
pub(crate) fn own_namespaces() -> Result<Vec<(Namespaces, NamespaceId)>, Error> {
    let mut found = Vec::new();
    for (kind, name) in KINDS {
        let children = if kind == Namespaces::PID || kind == Namespaces::TIME { "_for_children" } else { "" };
        let path = format!("/proc/thread-self/ns/{name}{children}");
        let id = id_of(&path).map_err(|e| Error::os(Step::Target, "newfstatat", e as i32).about(&path))?;
        found.extend(id.map(|id| (kind, id)));
    }
    Ok(found)
}

/// Those of namespaces by descriptor that are joined before the user namespace: the caller has to have rights in both, and afterwards it has
/// none in what that does not own.
pub(crate) fn before_user(user: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Result<bool, Error> {
    let failed = |errno| Error::os(Step::Target, "ioctl", errno).about(path_of(namespace));
    let user = NamespaceId::of(user)?;
    let mut owner = match sys::related_namespace(namespace, sys::Related::Owner) {
        Ok(owner) => owner,
        // Outside of the caller's own user namespace: then it has no rights in it now either.
        Err(libc::EPERM) => return Ok(false),
        Err(errno) => return Err(failed(errno)),
    };
    loop {
        if NamespaceId::of(&owner)? == user {
            return Ok(false);
        }
        owner = match sys::related_namespace(owner.as_fd(), sys::Related::Parent) {
            Ok(parent) => parent,
            Err(libc::EPERM) => return Ok(true),
            Err(errno) => return Err(failed(errno)),
        };
    }
}

impl Error {
    /// The same, if the process that was to be joined has ended: that is why.
    pub(crate) fn of_target(self, target: &Process) -> Error {
        let killed = self.kind() == ErrorKind::Killed;
        let by_its_death = killed || self.step() == Step::Join;
        // When process 1 of a pid namespace ends, all others in it are killed; if the target is one of those, it may come after the child.
        let dying = killed || self.raw_os_error().is_some_and(is_of_the_dying);
        let patience = if dying { PollTimeout::from(200_u8) } else { PollTimeout::ZERO };
        let ended = by_its_death && (dying && target.is_ending() || target.ends_within(patience));
        if ended { self.of_kind(ErrorKind::NoSuchProcess) } else { self }
    }
}

/// `PF_EXITING` among the flags of `/proc/PID/stat`, the seventh field behind the name, which may have any byte in it.
fn is_exiting(stat: &[u8]) -> bool {
    const PF_EXITING: u64 = 4;
    let text = String::from_utf8_lossy(stat);
    let flags = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_EXITING != 0)
}

/// What the kernel says of a process that ends: to `setns(2)`, and to a clone in its pid namespace.
fn is_of_the_dying(errno: i32) -> bool {
    matches!(errno, libc::ESRCH | libc::ENOMEM)
}

#[cfg(test)]
mod tests {
    use super::is_exiting;

    #[test]
    fn a_process_that_ends_says_so() {
        assert!(is_exiting(b"4711 (a) 1 (b) Z 1 4711 4711 0 -1 4228364 100 0\n"));
        assert!(!is_exiting(b"4711 (sleep) S 1 4711 4711 0 -1 4194304 100 0\n"));
        assert!(!is_exiting(b"4711 (4 4 4 4 4 4 4 4 4) S 1 4711 4711 0 -1 4194304 100 0\n"));
        assert!(!is_exiting(b""));
    }
}
