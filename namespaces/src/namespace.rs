//! A process's namespaces, as descriptors.

use crate::{Error, Namespaces, Step, sys};
use nix::fcntl::{OFlag, open as open_file};
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The kinds by the kernel's names for them.
pub(crate) const KINDS: [(Namespaces, &str); 8] = [
    (Namespaces::USER, "user"),
    (Namespaces::PID, "pid"),
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::UTS, "uts"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::NET, "net"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

/// Opens one through `/proc`; the pidfd tells afterwards that the number was that process's all the time.
pub(crate) fn open(pid: u32, pidfd: BorrowedFd<'_>, which: Namespaces) -> Result<OwnedFd, Error> {
    open_as(pid, pidfd, name(which)?)
}

/// As [`open`], of a process that has not started its program: it enters its time namespace only then.
pub(crate) fn open_of_held(pid: u32, pidfd: BorrowedFd<'_>, which: Namespaces) -> Result<OwnedFd, Error> {
    open_as(pid, pidfd, if which == Namespaces::TIME { "time_for_children" } else { name(which)? })
}

fn name(which: Namespaces) -> Result<&'static str, Error> {
    let found = KINDS.iter().find(|(kind, _)| *kind == which);
    found.map(|(_, name)| *name).ok_or_else(|| Error::config("namespace", "is not exactly one"))
}

fn open_as(pid: u32, pidfd: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Error> {
    let path = format!("/proc/{pid}/ns/{name}");
    let fd = open_file(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(Step::Namespace, "openat", errno as i32).about(&path))?;
    sys::send_signal(pidfd, 0)
        .map_err(|e| Error::os(Step::Namespace, "pidfd_send_signal", e.raw_os_error().unwrap_or(0)).about(&path))?;
    Ok(fd)
}
