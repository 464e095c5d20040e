//! From a spec to a mount.

use crate::context::Context;
use crate::layer::{Layer, OpenLayer};
use crate::overlay::{Attributes, MAX_LOWERS, Overlay};
use crate::stack::{Stack, Verdict};
use crate::{Error, ErrorKind, Operation, sys, writable};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use std::os::fd::{AsFd, OwnedFd};

/// Upper and work.
type Writable<'a> = (OpenLayer<'a>, OpenLayer<'a>);

pub(crate) fn mount(spec: &Overlay) -> Result<OwnedFd, Error> {
    spec.options.check(spec.writable.is_some())?;
    if spec.lowers.is_empty() {
        return Err(Error::invalid(Operation::Check, "lowers", "there is none"));
    }
    let lowers = open_lowers(spec)?;
    let writable = open_writable(spec)?;
    match union(spec, &lowers, writable.as_ref()) {
        // The kernel takes no directory twice. That one is given twice in two ways is rare, and looked for only now.
        Err(error) if error.kind() == ErrorKind::Overlapping => {
            let all = lowers.len();
            let lowers = distinct(lowers)?;
            if lowers.len() == all { Err(error) } else { union(spec, &lowers, writable.as_ref()) }
        }
        result => result,
    }
}

fn union(spec: &Overlay, lowers: &[OpenLayer<'_>], writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
    match (writable, lowers) {
        (None, [only]) => bind(only, spec.attributes),
        _ => overlay(spec, lowers, writable),
    }
}

/// The lowers that are to be mounted, topmost first.
fn open_lowers(spec: &Overlay) -> Result<Vec<OpenLayer<'_>>, Error> {
    // With more than are allowed it matters at once which of them are the same, also because each takes a descriptor.
    let most = spec.lowers.len();
    let look = most > MAX_LOWERS;
    let (mut given, mut found) = (Stack::with_capacity(most), Stack::with_capacity(if look { most } else { 0 }));
    let mut taken = Vec::with_capacity(most.min(MAX_LOWERS));
    let mut rest = spec.lowers.iter().peekable();
    while let Some(lower) = rest.next() {
        if !look && given.next(lower.given()) == Verdict::Duplicate {
            continue;
        }
        let lower = lower.open()?;
        if look {
            match found.next(lower.identity()?) {
                Verdict::Duplicate => continue,
                Verdict::Take => {}
                Verdict::TooMany => {
                    let words = "there are more than 500, which is what overlayfs takes";
                    return Err(Error::invalid(Operation::Check, "lowers", words));
                }
            }
        }
        // Below the last one there is nothing to hide.
        let hides_the_rest = rest.peek().is_some() && lower.is_opaque(spec.options.form)?;
        taken.push(lower);
        if hides_the_rest {
            break;
        }
    }
    Ok(taken)
}

/// Of lowers that are one directory the topmost.
fn distinct(lowers: Vec<OpenLayer<'_>>) -> Result<Vec<OpenLayer<'_>>, Error> {
    let mut stack = Stack::with_capacity(lowers.len());
    let mut taken = Vec::with_capacity(lowers.len());
    for lower in lowers {
        if stack.next(lower.identity()?) == Verdict::Take {
            taken.push(lower);
        }
    }
    Ok(taken)
}

fn open_writable(spec: &Overlay) -> Result<Option<Writable<'_>>, Error> {
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

fn overlay(spec: &Overlay, lowers: &[OpenLayer<'_>], writable: Option<&Writable<'_>>) -> Result<OwnedFd, Error> {
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
fn explain(error: Error, writable: Option<&Writable<'_>>) -> Error {
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

/// A directory as a mount of its own, to be written to.
pub(crate) fn bind_writable(directory: &Layer) -> Result<OwnedFd, Error> {
    clone(&directory.open()?)
}

fn clone(only: &OpenLayer<'_>) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(only.as_fd(), "", flags).map_err(|e| Error::os(Operation::Bind, "open_tree", e).about(&only.name))
}

/// One lower alone is no union.
fn bind(only: &OpenLayer<'_>, attributes: Attributes) -> Result<OwnedFd, Error> {
    let fail = |call| move |e| Error::os(Operation::Bind, call, e).about(&only.name);
    let mount = clone(only)?;
    let attributes = attributes.flags() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(mount.as_fd(), attributes).map_err(fail("mount_setattr"))?;
    Ok(mount)
}
