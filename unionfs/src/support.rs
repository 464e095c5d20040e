//! What this kernel takes.

use crate::context::{knows_lowerdir_plus, new_context};
use crate::{Error, Operation};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, fsconfig_set_fd, fsconfig_set_flag, open_tree};
use std::os::fd::AsFd;

/// What this kernel can do about overlays, found out by trying, without mounting anything.
///
/// [`Overlay`](crate::Overlay) finds it out by itself when something fails; whoever mounts often gives it what is [known](crate::Overlay::support).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "so many features are there or not, independently")]
#[non_exhaustive]
#[doc(alias = "capabilities")]
pub struct Support {
    /// Lowers one by one, `lowerdir+`: Linux 6.8. Without it [`Fallbacks::MOUNT`](crate::Fallbacks::MOUNT) is needed.
    pub lowers_one_by_one: bool,
    /// Layers as descriptors: Linux 6.13. Else they are handed over as links in `/proc`.
    pub descriptors: bool,
    /// Detached mounts as layers, such as [idmapped](crate::Layer::idmapped) ones: Linux 6.15. Without it [`Fallbacks::ATTACH`](crate::Fallbacks::ATTACH) is needed.
    pub detached: bool,
    /// `userxattr`, and so [`Form::User`](crate::Form::User): Linux 5.11.
    pub user_attributes: bool,
}

impl Support {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) by a kernel without overlayfs or the mount API (Linux 5.2);
    /// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for who may not mount; what the system calls say.
    pub fn probe() -> Result<Self, Error> {
        let failed = |call, e| Error::os(Operation::Mount, call, e).about("/");
        let lowers_one_by_one = knows_lowerdir_plus();
        let root = openat(CWD, "/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|e| failed("openat", e))?;
        let descriptors = lowers_one_by_one && as_layer(&root)?.is_ok();
        let detached = descriptors && {
            // With all below it: in a user namespace what is mounted there may not be uncovered.
            let recursive = OpenTreeFlags::AT_RECURSIVE;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
            let mount = open_tree(CWD, "/", flags).map_err(|e| failed("open_tree", e))?;
            as_layer(&mount)?.is_ok()
        };
        let user_attributes = fsconfig_set_flag(new_context()?, "userxattr").is_ok();
        Ok(Support { lowers_one_by_one, descriptors, detached, user_attributes })
    }
}

/// What an overlay says to a directory as a layer by its descriptor.
pub(crate) fn as_layer(layer: impl AsFd) -> Result<Result<(), Errno>, Error> {
    let context = new_context()?;
    Ok(fsconfig_set_fd(&context, "lowerdir+", layer.as_fd()))
}
