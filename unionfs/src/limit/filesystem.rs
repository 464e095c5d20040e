//! A file system of one's own, mounted nowhere.

use super::room::failed;
use crate::{Error, context};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};
use std::os::fd::{AsFd, OwnedFd};

/// Mounts a file system with these options; one without a value is a flag.
pub(super) fn mount(kind: &'static str, options: &[(&'static str, Option<String>)]) -> Result<OwnedFd, Error> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| failed("fsopen", e).about(kind))?;
    let told = |call, e: Errno| failed(call, e).with_kernel_message(context::messages(fs.as_fd()));
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&fs, *key, value.as_str()),
            None => fsconfig_set_flag(&fs, *key),
        }
        .map_err(|e| told("fsconfig", e).about(*key))?;
    }
    fsconfig_create(&fs).map_err(|e| told("fsconfig", e).about(kind))?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(|e| told("fsmount", e).about(kind))
}
