//! A mount's place in the tree.

use crate::{Error, Operation};
use rustix::mount::{MoveMountFlags, move_mount};
use std::os::fd::AsFd;

/// Attaches a detached mount at a directory of the caller's mount namespace, `move_mount(2)`.
///
/// From then on it stays until somebody unmounts it, and others see it: prefer handing the descriptor on. `mount` still
/// refers to its root. `dir` may be `O_PATH`.
///
/// # Errors
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) without `CAP_SYS_ADMIN`; `EINVAL` if `mount` is no mount's root, or is attached in
/// another namespace.
#[doc(alias = "move_mount")]
pub fn attach(mount: impl AsFd, dir: impl AsFd) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", dir, "", flags).map_err(|e| Error::os(Operation::Attach, "move_mount", e))
}
