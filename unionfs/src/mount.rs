//! From a spec to a mount.

mod by_mount;

use crate::context::{Context, check_proc, is_too_old};
use crate::layer::{Layer, OpenLayer};
use crate::overlay::{Attributes, MAX_LOWERS, Overlay};
use crate::stack::{Stack, Verdict};
use crate::{Error, ErrorKind, Fallbacks, Operation, scratch, sys, writable};
use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, OwnedFd};

/// Upper and work.
pub(crate) type Writable<'a> = (OpenLayer<'a>, OpenLayer<'a>);

pub(crate) fn mount(spec: &Overlay) -> Result<(OwnedFd, Fallbacks), Error> {
    spec.options.check(spec.writable.is_some())?;
    if spec.lowers.is_empty() {
        return Err(Error::invalid(Operation::Check, "lowers", "there is none"));
    }
    if spec.writable.as_ref().is_some_and(|w| w.upper.is_idmapped() || w.work.is_idmapped()) {
        return Err(Error::invalid(Operation::Check, "upper", "cannot be idmapped: lowers can"));
    }
    let lowers = open_lowers(spec)?;
    let writable = open_writable(spec)?;
    let mounted = match union(spec, &lowers, writable.as_ref()) {
        // The kernel takes no directory twice. That one is given twice in two ways is rare, and looked for only now.
        Err(error) if error.kind() == ErrorKind::Overlapping => {
            let all = lowers.len();
            let lowers = distinct(lowers)?;
            if lowers.len() == all { Err(error) } else { union(spec, &lowers, writable.as_ref()) }
        }
        result => result,
    }?;
    if let Some((_, work)) = &writable
        && !spec.attributes.flags().contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    {
        can_be_written_to(&mounted.0, work)?;
    }
    Ok(mounted)
}

/// Where the kernel cannot make its own files in the work directory, it mounts read-only and tells only its log.
fn can_be_written_to(mount: &OwnedFd, work: &OpenLayer<'_>) -> Result<(), Error> {
    let found = fstatvfs(mount).map_err(|e| Error::os(Operation::Mount, "fstatfs", e).about(&work.name))?;
    if !found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let words = "the kernel has no place for its own files there, and mounts read-only: most likely the disk is full";
    Err(Error::explained(ErrorKind::LimitReached, Operation::Mount, words).about(&work.name))
}

fn union(
    spec: &Overlay,
    lowers: &[OpenLayer<'_>],
    writable: Option<&Writable<'_>>,
) -> Result<(OwnedFd, Fallbacks), Error> {
    if let (None, [only]) = (writable, lowers) {
        return Ok((bind(only, spec.attributes)?, Fallbacks::empty()));
    }
    let attach =
        if lowers.iter().any(|lower| lower.idmapped.is_some()) { Fallbacks::ATTACH } else { Fallbacks::empty() };
    let (error, needed, make): (_, _, Make) = match overlay(spec, lowers, writable) {
        Err(error) if is_too_old(&error) => (error, Fallbacks::MOUNT | attach, by_mount::overlay),
        // Before Linux 6.15, or anything else: with what is attached the kernel says it again.
        Err(error) if !attach.is_empty() && error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            (detached(&error), attach, overlay)
        }
        result => return Ok((result?, Fallbacks::empty())),
    };
    if !spec.fallbacks.contains(needed) {
        return Err(error);
    }
    Ok((elsewhere(spec, lowers, writable, make)?, needed))
}

/// An overlay by its spec and its open layers.
type Make = fn(&Overlay, &[OpenLayer<'_>], Option<&Writable<'_>>) -> Result<OwnedFd, Error>;

/// Makes it in a mount namespace for a moment.
fn elsewhere(
    spec: &Overlay,
    lowers: &[OpenLayer<'_>],
    writable: Option<&Writable<'_>>,
    make: Make,
) -> Result<OwnedFd, Error> {
    check_proc()?;
    scratch::run(|| {
        let lowers = lowers.iter().map(scratch::here).collect::<Result<Vec<_>, _>>()?;
        let writable = match writable {
            Some((upper, work)) => Some((scratch::here(upper)?, scratch::here(work)?)),
            None => None,
        };
        make(spec, &lowers, writable.as_ref())
    })
}

fn detached(error: &Error) -> Error {
    let words = "this kernel does not take idmapped layers, or only if they are attached: Linux 6.15 does";
    let message = error.kernel_message().map(str::to_owned);
    Error::explained(ErrorKind::Unsupported, Operation::Mount, words)
        .about(error.object().unwrap_or_default())
        .with_kernel_message(message)
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
    let mut context = Context::open(spec.support)?;
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
    directory.open()?.as_mount(Operation::Bind)
}

/// One lower alone is no union.
fn bind(only: &OpenLayer<'_>, attributes: Attributes) -> Result<OwnedFd, Error> {
    let mount = match &only.idmapped {
        Some(mount) => mount
            .try_clone()
            .map_err(|e| Error::os(Operation::Bind, "fcntl", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?,
        None => only.as_mount(Operation::Bind)?,
    };
    let attributes = attributes.flags() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    sys::mount_setattr(mount.as_fd(), attributes)
        .map_err(|e| Error::os(Operation::Bind, "mount_setattr", e).about(&only.name))?;
    Ok(mount)
}
