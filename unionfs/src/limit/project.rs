//! Projects of a file system, each with its quota.

use super::room::{explained, failed};
use crate::sys::quota::{self, Project};
use crate::{Error, ErrorKind};
use rustix::io::{Errno, retry_on_intr};
use rustix::rand::{GetRandomFlags, getrandom};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// Where ours are: people count from one, and what counts down comes from above.
const OURS: Range<u32> = 1 << 30..1 << 31;
/// How often a number is drawn that somebody has.
const TRIES: usize = 64;

/// The number of a project that nobody has: it has no files, no limits, and was drawn out of a milliard.
pub(super) fn free(place: impl AsFd) -> Result<u32, Error> {
    let place = place.as_fd();
    if !quota::limits_hold(place).map_err(|e| failed("quotactl_fd", e))? {
        return Err(explained(ErrorKind::Unsupported, "the file system keeps no quotas of projects (prjquota)"));
    }
    for _ in 0..TRIES {
        let [a, b, c, d, ..] = random()?;
        let id = OURS.start | u32::from_ne_bytes([a, b, c, d]) & (OURS.start - 1);
        if project(place, id)? == Project::default() {
            // It has none already: what this asks is whether we may.
            set(place, id, 0, 0)?;
            return Ok(id);
        }
    }
    Err(explained(ErrorKind::Busy, "all projects that were looked at are somebody's"))
}

pub(super) fn project(place: BorrowedFd<'_>, id: u32) -> Result<Project, Error> {
    quota::project(place, id).map_err(|e| failed("quotactl_fd", e).about(id.to_string()))
}

/// Sets limits, the space in units of 1024 bytes. Zero is none.
pub(super) fn set(place: impl AsFd, id: u32, space: u64, inodes: u64) -> Result<(), Error> {
    quota::set_limits(place.as_fd(), id, space, inodes).map_err(|e| failed("quotactl_fd", e).about(id.to_string()))
}

/// Puts a directory that is empty into a project.
pub(super) fn join(directory: impl AsFd, id: u32) -> Result<(), Error> {
    quota::join(directory.as_fd(), id).map_err(|e| match e {
        Errno::NOTTY => failed("ioctl", Errno::OPNOTSUPP),
        e => failed("ioctl", e),
    })
}

pub(super) fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    // So few come at once or not at all.
    retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty())).map_err(|e| failed("getrandom", e))?;
    Ok(bytes)
}
