//! Deleting a cgroup and everything below it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, ErrorKind, Op, Result, gone_is_fine};
use crate::layout::Version;
use crate::member::Member;
use crate::wait::{Deadline, wait_until_empty};

/// For how long we wait for processes that are just leaving.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel says EBUSY for a moment after the last process has left, and gives no event when that is over.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Deletes this cgroup and everything below it, in all of its trees. It is fine if it is gone already. Processes
    /// are neither killed nor moved: if any are left after a second, nothing is deleted in that tree. Blocks for as
    /// long at most.
    ///
    /// A cgroup of the same name that someone else has made since is left alone.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], there are processes in it or below it; [`ErrorKind::PermissionDenied`];
    /// [`ErrorKind::Gone`], somebody has renamed it (v1); [`ErrorKind::InvalidInput`] for [`Hierarchy::own`](crate::Hierarchy::own). All trees are tried; the first error
    /// is returned.
    pub fn delete(&self) -> Result<()> {
        if self.is_own() {
            return Err(self.refused(Op::Remove));
        }
        let deadline = Deadline::after(PATIENCE);
        let mut result = Ok(());
        for member in self.members() {
            result = result.and(delete(member, deadline));
        }
        result
    }
}

fn delete(member: &Member, deadline: Deadline) -> Result<()> {
    let parent = member.relative.parent().unwrap_or(Path::new(""));
    let Some(name) = member.relative.file_name() else {
        // Only one's own cgroup can be a root, and it was refused.
        return Err(Error::new(ErrorKind::InvalidInput, Op::Remove, member.dir.path()));
    };
    let parent = match member.tree.parent(parent) {
        Err(error) if error.is_gone() => return Ok(()),
        parent => parent?,
    };
    if !is_still_named(member, &parent, name)? {
        return Ok(());
    }
    // Most often there is nothing in it.
    match parent.remove(name) {
        Err(error) if error.errno() == Some(Errno::BUSY) => {}
        result => return gone_is_fine(result),
    }
    wait_until_empty(member, deadline).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => {
            Error::os(Errno::BUSY, Op::Remove, member.dir.path()).with_note("there are processes in it, or below it")
        }
        _ => error,
    })?;
    gone_is_fine(delete_below(&member.dir, deadline))?;
    remove(&parent, Path::new(name), deadline)
}

/// Whether the name still stands for this very cgroup, and not for one that somebody has made since. On v2, where nothing
/// can be renamed, it does for as long as the cgroup lives.
fn is_still_named(member: &Member, parent: &Dir, name: &OsStr) -> Result<bool> {
    if member.version() == Version::V2 {
        return Ok(member.dir.is_alive());
    }
    let is_named = member.dir.is_named(parent, name)?;
    if !is_named && member.dir.is_alive() {
        return Err(Error::new(ErrorKind::Gone, Op::Remove, member.dir.path())
            .with_note("it exists, but no longer under this name"));
    }
    Ok(is_named)
}

/// Deletes everything below, the deepest first.
fn delete_below(top: &Dir, deadline: Deadline) -> Result<()> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut to_visit = vec![PathBuf::new()];
    while let Some(relative) = to_visit.pop() {
        let children = match top.dir(&relative).and_then(|dir| dir.children()) {
            Err(error) if error.is_gone() => continue,
            children => children?,
        };
        to_visit.extend(children.iter().map(|name| relative.join(name)));
        found.push(relative);
    }
    // A parent was found before its children. The first is the top itself.
    for relative in found.iter().skip(1).rev() {
        remove(top, relative, deadline)?;
    }
    Ok(())
}

/// Removes one directory, again and again while it is busy.
fn remove(top: &Dir, relative: &Path, deadline: Deadline) -> Result<()> {
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else {
        return Ok(());
    };
    let parent = match top.dir(parent) {
        Err(error) if error.is_gone() => return Ok(()),
        parent => parent?,
    };
    loop {
        match parent.remove(name) {
            Err(error) if error.errno() == Some(Errno::BUSY) && !deadline.has_passed() => {
                std::thread::sleep(LOOK_AGAIN);
            }
            result => return gone_is_fine(result),
        }
    }
}
