//! A network namespace that plays the host.

use crate::Error;
use crate::netlink::{self, Session};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

/// A network namespace in which bridges are made: the current one, or any other, so that a namespace can play a machine.
///
/// Owns netlink sockets there, which stay in their namespace wherever the caller's threads go. Cheap to clone; clones share the sockets.
#[derive(Debug, Clone)]
pub struct Host {
    sockets: Arc<Sockets>,
}

#[derive(Debug)]
struct Sockets {
    route: Session,
    /// Opened when it is needed: a network without filter rules does not need it, nor a kernel that has none.
    netfilter: OnceLock<Session>,
}

impl Host {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// What opening a netlink socket meets.
    pub fn current() -> Result<Self, Error> {
        netlink::current().map(Self::new)
    }

    /// The network namespace that a descriptor is of: `/proc/<pid>/ns/net`, `/run/netns/<name>`, a [`NetNs`](crate::NetNs).
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if it is none; [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn from_fd(namespace: impl AsFd) -> Result<Self, Error> {
        netlink::enter_fd(namespace.as_fd()).map(Self::new)
    }

    fn new(route: Session) -> Self {
        Host { sockets: Arc::new(Sockets { route, netfilter: OnceLock::new() }) }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.sockets.route
    }

    pub(crate) fn netfilter(&self) -> Result<&Session, Error> {
        if let Some(session) = self.sockets.netfilter.get() {
            return Ok(session);
        }
        let session = netlink::netfilter_beside(self.session())?;
        // Another thread may have been faster.
        Ok(self.sockets.netfilter.get_or_init(|| session))
    }

    /// Runs `work` on a thread of its own in this namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        netlink::within_same(self.session(), work)
    }
}
