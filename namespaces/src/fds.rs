//! The descriptors that a sandbox names.

use crate::Target;
use std::os::fd::OwnedFd;

/// Descriptors for a [`Sandbox`](crate::Sandbox), bound when its [`Plan`](crate::Plan) is made and owned by it.
///
/// ```no_run
/// # use cofferdam_namespaces::{Fds, Sandbox, Stdio};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let log = std::fs::File::create("build.log")?;
/// Sandbox::new("/usr/bin/make")
///     .stdout(Stdio::fd("log"))
///     .stderr(Stdio::fd("log"))
///     .spawn_with(Fds::new().bind("log", log))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Fds {
    pub(crate) named: Vec<(String, OwnedFd)>,
    pub(crate) cgroup: Vec<OwnedFd>,
    pub(crate) target: Option<Target>,
}

impl Fds {
    /// No descriptors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a name of the sandbox a descriptor. A name that is bound twice, or that the sandbox does not use, is an error of the plan.
    pub fn bind(mut self, name: impl Into<String>, fd: impl Into<OwnedFd>) -> Self {
        self.named.push((name.into(), fd.into()));
        self
    }

    /// Whose namespaces [`Sandbox::join`](crate::Sandbox::join) means.
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The cgroup to be born in, as descriptors.
    ///
    /// A *directory* of a version 2 hierarchy (at most one) is entered by the clone itself, `CLONE_INTO_CGROUP`. A file is the
    /// `cgroup.procs` of a version 1 hierarchy, open for writing: the child writes itself into each before it does anything else.
    /// There the kernel waits for an RCU grace period, which costs milliseconds.
    pub fn cgroup(mut self, entry: impl IntoIterator<Item = OwnedFd>) -> Self {
        self.cgroup.extend(entry);
        self
    }
}
