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
    let Some((_, name)) = KINDS.iter().find(|(kind, _)| *kind == which) else {
        return Err(Error::config("namespace", "is not exactly one"));
    };
    let path = format!("/proc/{pid}/ns/{name}");
    let fd = open_file(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(Step::Namespace, "openat", errno as i32).about(&path))?;
    sys::send_signal(pidfd, 0)
        .map_err(|e| Error::os(Step::Namespace, "pidfd_send_signal", e.raw_os_error().unwrap_or(0)).about(&path))?;
    Ok(fd)
}
