//! The root directory of a sandbox, as plain data.

use std::path::PathBuf;

/// The sandbox's root directory, see [`Sandbox::root`](crate::Sandbox::root).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Root {
    /// The host's.
    #[default]
    Host,
    /// An empty tmpfs of its own: everything in it is mounted there.
    Empty,
    /// A directory of the host, with what is mounted below it, as the caller sees it.
    ///
    /// It is looked up when the [`Plan`](crate::Plan) is made. A spawn looks it up again, in the sandbox's mount namespace, and fails with
    /// `ESTALE` if another directory is there by then. Such a plan spawns any number of times.
    Directory(#[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))] PathBuf),
    /// A *detached* mount (`fsmount(2)`, or `open_tree(2)` with `OPEN_TREE_CLONE`), bound by [`Fds::bind`](crate::Fds::bind) under this name.
    ///
    /// A mount can be attached once: such a [`Plan`](crate::Plan) spawns once.
    Mount(String),
}

impl Root {
    /// A directory of the host, with what is mounted below it.
    #[must_use]
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Root::Directory(path.into())
    }

    /// The detached mount that [`Fds::bind`](crate::Fds::bind) gives this name.
    #[must_use]
    pub fn mount(name: impl Into<String>) -> Self {
        Root::Mount(name.into())
    }
}

/// What of the mounts that others make reaches the sandbox, and the other way round, `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Propagation {
    /// Nothing, in neither direction.
    #[default]
    Private,
    /// What the host mounts or unmounts later below a shared mount appears in the sandbox too, in its binds as well; nothing goes back.
    Slave,
    /// What is mounted inside appears on the host, where the mount it is made upon is shared: for a helper that mounts something for the host.
    /// This isolates nothing, and is only possible with [`Root::Host`], without mounts of the sandbox's own, which would appear too. In a user
    /// namespace the kernel makes it [`Slave`](Propagation::Slave).
    Shared,
}
