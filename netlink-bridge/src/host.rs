//! A network namespace that plays the host.

use crate::Error;
use crate::netlink::{self, Session};
use std::os::fd::AsFd;
use std::sync::Arc;

/// A network namespace in which bridges are made: the current one, or any other, so that a namespace can play a machine.
///
/// Owns a netlink socket there, which stays in its namespace wherever the caller's threads go. Cheap to clone; clones share the socket.
#[derive(Debug, Clone)]
pub struct Host {
    session: Arc<Session>,
}

impl Host {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// What opening a netlink socket meets.
    pub fn current() -> Result<Self, Error> {
        Ok(Host { session: Arc::new(netlink::current()?) })
    }

    /// The network namespace that a descriptor is of: `/proc/<pid>/ns/net`, `/run/netns/<name>`, a [`NetNs`](crate::NetNs).
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if it is none; [`PermissionDenied`](crate::ErrorKind::PermissionDenied).
    pub fn from_fd(namespace: impl AsFd) -> Result<Self, Error> {
        Ok(Host { session: Arc::new(netlink::enter_fd(namespace.as_fd())?) })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }
}
