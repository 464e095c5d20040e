//! From a spec to a mount.

use crate::context::Context;
use crate::layer::OpenLayer;
use crate::overlay::{Attributes, Overlay};
use crate::stack::{Stack, Verdict};
use crate::{Error, Operation, sys, writable};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use std::os::fd::{AsFd, OwnedFd};

pub(crate) fn mount(spec: &Overlay) -> Result<OwnedFd, Error> {
    spec.options.check(spec.writable.is_some())?;
    if spec.lowers.is_empty() {
        return Err(Error::invalid(Operation::Check, "lowers", "there is none"));
    }
    let lowers = open_lowers(spec)?;
    let writable = open_writable(spec)?;
    match (&writable, lowers.as_slice()) {
        (None, [only]) => bind(only, spec.attributes),
        _ => overlay(spec, &lowers, writable.as_ref()),
    }
}

/// The lowers that are to be mounted, topmost first.
fn open_lowers(spec: &Overlay) -> Result<Vec<OpenLayer>, Error> {
    let mut stack = Stack::default();
    let mut taken = Vec::new();
    for lower in &spec.lowers {
        if stack.is_closed() {
            break;
        }
        let lower = lower.open()?;
        match stack.next(lower.identity()?) {
            Verdict::Duplicate => continue,
            Verdict::Take => {}
            Verdict::TooMany => {
                return Err(Error::invalid(
                    Operation::Check,
                    "lowers",
                    "there are more than 500, which is what overlayfs takes",
                ));
            }
        }
        if lower.is_opaque(spec.options.form)? {
            stack.close();
        }
        taken.push(lower);
    }
    Ok(taken)
}

/// Upper and work.
fn open_writable(spec: &Overlay) -> Result<Option<(OpenLayer, OpenLayer)>, Error> {
    let Some(writable) = &spec.writable else {
        return Ok(None);
    };
    let (upper, work) = (writable.upper.open()?, writable.work.open()?);
    if upper.is_opaque(spec.options.form)? {
        let words = "has an opaque root, which overlayfs ignores on an upper";
        return Err(Error::invalid(Operation::Check, &upper.name, words));
    }
    Ok(Some((upper, work)))
}

fn overlay(spec: &Overlay, lowers: &[OpenLayer], writable: Option<&(OpenLayer, OpenLayer)>) -> Result<OwnedFd, Error> {
    let mut context = Context::open()?;
    for setting in spec.options.settings() {
        context.set(setting)?;
    }
    for lower in lowers {
        context.add("lowerdir+", lower)?;
    }
    if let Some((upper, work)) = writable {
        context.add("upperdir", upper)?;
        context.add("workdir", work)?;
    }
    context.create().map_err(|error| explain(error, writable))?;
    context.mount(spec.attributes.flags())
}

/// The kernel says why a mount could not be created only in its log, which is not ours to read.
fn explain(error: Error, writable: Option<&(OpenLayer, OpenLayer)>) -> Error {
    match writable {
        Some((_, work))
            if error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
                && writable::was_volatile(work).unwrap_or(false) =>
        {
            writable::volatile_error(Operation::Mount, &work.name)
        }
        _ => error,
    }
}

/// One lower alone is no union.
fn bind(only: &OpenLayer, attributes: Attributes) -> Result<OwnedFd, Error> {
    let fail = |call| move |e| Error::os(Operation::Bind, call, e).about(&only.name);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(only.as_fd(), "", flags).map_err(fail("open_tree"))?;
    let attributes = attributes.flags() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(mount.as_fd(), attributes).map_err(fail("mount_setattr"))?;
    Ok(mount)
}
