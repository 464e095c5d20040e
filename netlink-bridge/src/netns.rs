//! A container's network namespace.

use crate::netlink::{self, Batch, Opened, Session};
use crate::{Error, Operation};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A container's network namespace, `network_namespaces(7)`: a descriptor that keeps it alive, and a netlink socket in it.
///
/// The four modes that container engines know: *bridge* is [`Network::attach`](crate::Network::attach), *none* is
/// [`loopback_up`](NetNs::loopback_up), a namespace *shared with another container* is the other's `NetNs`, and *host* is no `NetNs` at all.
#[derive(Debug)]
#[doc(alias("Sandbox", "netns"))]
pub struct NetNs {
    namespace: OwnedFd,
    session: Session,
}

impl NetNs {
    /// A new network namespace, which has nothing but a loopback that is down. It lives as long as a descriptor or a process in it.
    ///
    /// # Errors
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`, [`LimitReached`](crate::ErrorKind::LimitReached).
    #[doc(alias("unshare", "CLONE_NEWNET"))]
    pub fn new() -> Result<Self, Error> {
        netlink::unshared().map(Self::opened)
    }

    /// The namespace that a descriptor is of.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if it is of none; [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    #[doc(alias = "setns")]
    pub fn from_fd(namespace: impl Into<OwnedFd>) -> Result<Self, Error> {
        let namespace = namespace.into();
        let session = netlink::enter_fd(namespace.as_fd())?;
        Ok(NetNs { namespace, session })
    }

    /// The namespace of a process. The number must be of a child that has not been waited for, or it may be another process' by now.
    ///
    /// # Errors
    /// As [`from_pidfd`](NetNs::from_pidfd).
    pub fn from_pid(pid: u32) -> Result<Self, Error> {
        let about = |error: Error| error.about(format!("process {pid}"));
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| Error::config(format!("process {pid}"), "is no process id"))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty());
        let pidfd = pidfd.map_err(|e| about(Error::os(Operation::OpenNamespace, "pidfd_open", e.raw_os_error())))?;
        Self::from_pidfd(pidfd).map_err(about)
    }

    /// The namespace of the process that a pidfd is of, `pidfd_open(2)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if it has ended; [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn from_pidfd(process: impl AsFd) -> Result<Self, Error> {
        netlink::enter_pidfd(process.as_fd()).map(Self::opened)
    }

    /// The namespace that a file is of: `/run/netns/<name>`, `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if there is no such file or it is of no namespace (any more); [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let about = |error: Error| error.about(path.to_string_lossy());
        // NONBLOCK: whatever stands there, opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::open(path, flags, Mode::empty());
        let file = file.map_err(|e| about(Error::os(Operation::OpenNamespace, "open", e.raw_os_error())))?;
        Self::from_fd(file).map_err(about)
    }

    /// Brings up loopback: all the network that a container without one has. [`attach`](crate::Network::attach) does it too.
    ///
    /// # Errors
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_NET_ADMIN` over the namespace.
    pub fn loopback_up(&self) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.loopback_up();
        self.session.run(batch)?.all()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    fn opened(opened: Opened) -> Self {
        NetNs { namespace: opened.namespace, session: opened.session }
    }
}

/// For `setns(2)`, for keeping, for handing over.
impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}
