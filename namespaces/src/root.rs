//! The root directory of a sandbox, as plain data.

/// The sandbox's root directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Root {
    /// The host's.
    #[default]
    Host,
    /// A *detached* mount (`fsmount(2)`, or `open_tree(2)` with `OPEN_TREE_CLONE`), bound by [`Fds::bind`](crate::Fds::bind) under this name.
    ///
    /// A mount can be attached once: such a [`Plan`](crate::Plan) spawns once.
    Mount(String),
}

impl Root {
    /// The detached mount that [`Fds::bind`](crate::Fds::bind) gives this name.
    #[must_use]
    pub fn mount(name: impl Into<String>) -> Self {
        Root::Mount(name.into())
    }
}
