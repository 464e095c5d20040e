//! Going through a tree of any depth with one descriptor, without being led out of it.

use crate::dir::{entries, open_directory};
use crate::layer::Identity;
use crate::{Error, Operation};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, openat2, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a walk tells of a tree.
pub(crate) trait Visitor {
    /// An entry of the directory `dir`, whose path in the tree is `path`. Whether a directory is to be gone into is the answer.
    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, kind: FileType) -> Result<bool, Error>;

    /// All that is in the directory `dir` has been seen.
    fn leave(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Error>;
}

struct Level {
    identity: Identity,
    /// Directories that are still to be gone into.
    rest: Vec<OsString>,
}

/// Shows a whole tree to a visitor, directories after their entries, the names of a directory in their order as bytes. `top` must be open for reading. What is mounted inside is an error.
pub(crate) fn walk(top: BorrowedFd<'_>, operation: Operation, visitor: &mut impl Visitor) -> Result<(), Error> {
    let mut walk = Walk { operation, path: PathBuf::new(), levels: Vec::new() };
    let mut here = open_directory(top, ".").map_err(|e| walk.failed("openat2", e))?;
    walk.look(&here, visitor)?;
    while let Some(level) = walk.levels.last_mut() {
        if let Some(name) = level.rest.pop() {
            walk.path.push(&name);
            here = open_directory(&here, &name).map_err(|e| walk.failed("openat2", e))?;
            walk.look(&here, visitor)?;
            continue;
        }
        visitor.leave(here.as_fd(), &walk.path)?;
        walk.levels.pop();
        if let Some(parent) = walk.levels.last() {
            let identity = parent.identity;
            here = walk.up(&here, identity)?;
            walk.path.pop();
        }
    }
    Ok(())
}

struct Walk {
    operation: Operation,
    path: PathBuf,
    levels: Vec<Level>,
}

impl Walk {
    /// Shows what is in a directory that has just been entered.
    fn look(&mut self, here: &OwnedFd, visitor: &mut impl Visitor) -> Result<(), Error> {
        let stat = fstat(here).map_err(|e| self.failed("fstat", e))?;
        let mut found = Vec::new();
        entries(here, |name, kind| found.push((name.to_owned(), kind))).map_err(|(call, e)| self.failed(call, e))?;
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut rest = Vec::new();
        for (name, kind) in found {
            let kind = if kind == FileType::Unknown { self.kind(here, &name)? } else { kind };
            if visitor.entry(here.as_fd(), &self.path, &name, kind)? && kind == FileType::Directory {
                rest.push(name);
            }
        }
        rest.reverse();
        self.levels.push(Level { identity: (stat.st_dev, stat.st_ino), rest });
        Ok(())
    }

    fn kind(&self, here: &OwnedFd, name: &OsStr) -> Result<FileType, Error> {
        let stat = statat(here, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| self.failed("newfstatat", e))?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Goes back up, and makes sure that this is where it came from: who moves a directory meanwhile would lead it elsewhere.
    fn up(&self, here: &OwnedFd, parent: Identity) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let fd = openat2(here, "..", flags, Mode::empty(), resolve).map_err(|e| self.failed("openat2", e))?;
        let stat = fstat(&fd).map_err(|e| self.failed("fstat", e))?;
        if (stat.st_dev, stat.st_ino) == parent { Ok(fd) } else { Err(self.failed("openat2", Errno::STALE)) }
    }

    fn failed(&self, call: &'static str, errno: Errno) -> Error {
        Error::os(self.operation, call, errno).about(&self.path)
    }
}
