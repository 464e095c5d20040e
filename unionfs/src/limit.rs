//! How much a container may write: what is wanted, by which method it is had, and how it stands.

mod ext4;
mod filesystem;
mod image;
mod project;
mod room;

pub(crate) use room::{Bounds, By, Room};

use crate::Usage;

/// How much a container may write: space, files and directories, or both. Plain data.
///
/// ```
/// use cofferdam_unionfs::{ContainerSpec, LimitMethod, SpaceLimit};
///
/// let spec = ContainerSpec::new().limit(SpaceLimit::new().bytes(512 << 20).inodes(100_000));
/// // Or by one method, or not at all.
/// let spec = spec.limit(SpaceLimit::new().bytes(512 << 20).methods([LimitMethod::Image]));
/// # let _ = spec;
/// ```
///
/// It is about what the container *adds*: the layers that it stands on and its [`InitLayer`](crate::InitLayer) do not count. So much can be
/// written at least; the limit that the kernel keeps is slightly higher, because overlayfs' own directories are in it, and is told by [`Container::space`](crate::Container::space).
/// Who writes more gets `ENOSPC` or `EDQUOT`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
#[must_use]
#[doc(alias("quota", "storage-opt size"))]
pub struct SpaceLimit {
    /// Space, in bytes.
    pub bytes: Option<u64>,
    /// Files, directories and whatever else takes an inode.
    pub inodes: Option<u64>,
    /// How it may be done: the first that is possible here is used, and [told](crate::Container::space).
    pub methods: Vec<LimitMethod>,
}

/// By what a [`SpaceLimit`] holds.
///
/// | | needs | keeps what was written | holds against |
/// |---|---|---|---|
/// | [`Project`](Self::Project) | `CAP_SYS_ADMIN` of the machine; ext4 or xfs, mounted with `prjquota`; Linux 5.14 | as the store | programs in a user namespace of their own |
/// | [`Image`](Self::Image) | the same right; loop devices; ext4; overlays on detached mounts, Linux 6.15 | as the store, with a journal of its own | everybody |
/// | [`Tmpfs`](Self::Tmpfs) | Linux 6.15 | in memory, as long as the [`Container`](crate::Container) or a mount of it is there | everybody |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitMethod {
    /// A quota of the file system that the store is on: what is written belongs to a project of its own (`quotactl_fd(2)`), whose number is kept with the container and
    /// which is free again after it. The costs are none. Whoever has `CAP_FOWNER` in the *initial* user namespace can take files out of a project, and
    /// `CAP_SYS_RESOURCE` there lets a [copy](crate::Backend::Copy) on ext4 grow beyond: a container that runs as the machine's root is held by the others only.
    #[doc(alias("prjquota", "pquota"))]
    Project,
    /// A file with an ext4 in it, as a loop device that nobody sees and that goes with its last user (`LO_FLAGS_AUTOCLEAR`). It takes what is written in it; what is deleted in it
    /// is given back. Needs a limit of bytes; has at most one inode for each 4 KiB.
    #[doc(alias("loop", "losetup"))]
    Image,
    /// Memory. If its process ends, what was written is gone: see [`LayerStore::container`](crate::LayerStore::container). Without a limit of bytes, half of the memory.
    #[doc(alias("ramfs", "memory"))]
    Tmpfs,
}

/// How much a container has written, and may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// By what the limit holds.
    pub method: LimitMethod,
    /// What counts so far, as the kernel keeps it: asked without going through the files.
    pub used: Usage,
    /// The limit of bytes that the kernel keeps, if there is one.
    pub bytes: Option<u64>,
    /// The limit of inodes that the kernel keeps, if there is one.
    pub inodes: Option<u64>,
}

impl SpaceLimit {
    /// No limit yet, by any method: a quota if the file system has it, else an image, else memory.
    pub fn new() -> Self {
        let methods = vec![LimitMethod::Project, LimitMethod::Image, LimitMethod::Tmpfs];
        SpaceLimit { bytes: None, inodes: None, methods }
    }

    /// Sets the space, in bytes.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Sets how many inodes.
    pub fn inodes(mut self, inodes: u64) -> Self {
        self.inodes = Some(inodes);
        self
    }

    /// Sets by what it may hold: the first that is possible here is used.
    pub fn methods(mut self, methods: impl IntoIterator<Item = LimitMethod>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }
}

impl Default for SpaceLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl LimitMethod {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LimitMethod::Project => "project",
            LimitMethod::Image => "image",
            LimitMethod::Tmpfs => "tmpfs",
        }
    }
}
