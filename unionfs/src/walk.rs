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

    /// The directory `dir` is about to be looked at. The top's path is empty.
    fn enter(&mut self, _dir: BorrowedFd<'_>, _path: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// All that is in the directory `dir` itself has been seen, nothing of what is in its directories.
    fn listed(&mut self, _dir: BorrowedFd<'_>, _path: &Path) -> Result<(), Error> {
        Ok(())
    }

    /// All that is in the directory `dir` and below has been seen.
    fn leave(&mut self, _dir: BorrowedFd<'_>, _path: &Path) -> Result<(), Error> {
        Ok(())
    }
}

/// Shows a whole tree to a visitor, the names of a directory in their order as bytes. `top` must be open for reading. What is mounted
/// inside is an error.
pub(crate) fn walk(top: BorrowedFd<'_>, operation: Operation, visitor: &mut impl Visitor) -> Result<(), Error> {
    let mut path = PathBuf::new();
    let mut cursor = Cursor::new(top).map_err(|(call, e)| Error::os(operation, call, e))?;
    let mut rests = vec![look(&cursor, &path, operation, visitor)?];
    while let Some(rest) = rests.last_mut() {
        if let Some(name) = rest.pop() {
            path.push(&name);
            cursor.down(&name).map_err(|(call, e)| Error::os(operation, call, e).about(&path))?;
            rests.push(look(&cursor, &path, operation, visitor)?);
            continue;
        }
        visitor.leave(cursor.as_fd(), &path)?;
        rests.pop();
        if !rests.is_empty() {
            cursor.up().map_err(|(call, e)| Error::os(operation, call, e).about(&path))?;
            path.pop();
        }
    }
    Ok(())
}

/// Shows what is in a directory that has just been entered. The answer is its directories that are to be gone into, the first one last.
fn look(here: &Cursor, path: &Path, operation: Operation, visitor: &mut impl Visitor) -> Result<Vec<OsString>, Error> {
    let fail = |(call, e)| Error::os(operation, call, e).about(path);
    visitor.enter(here.as_fd(), path)?;
    let mut found = Vec::new();
    entries(here, |name, kind| found.push((name.to_owned(), kind))).map_err(fail)?;
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut rest = Vec::new();
    for (name, kind) in found {
        let kind = if kind == FileType::Unknown { type_of(here, &name).map_err(fail)? } else { kind };
        if visitor.entry(here.as_fd(), path, &name, kind)? && kind == FileType::Directory {
            rest.push(name);
        }
    }
    visitor.listed(here.as_fd(), path)?;
    rest.reverse();
    Ok(rest)
}

fn type_of(dir: impl AsFd, name: &OsStr) -> Result<FileType, (&'static str, Errno)> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| ("newfstatat", e))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// A directory in a tree, from which one can go down and come back.
pub(crate) struct Cursor {
    here: OwnedFd,
    /// The directories above, from the top down.
    above: Vec<Identity>,
}

impl Cursor {
    /// At the top, which must be a directory; an `O_PATH` descriptor will do.
    pub(crate) fn new(top: impl AsFd) -> Result<Self, (&'static str, Errno)> {
        let here = open_directory(top, ".").map_err(|e| ("openat2", e))?;
        Ok(Cursor { here, above: Vec::new() })
    }

    pub(crate) fn is_at_the_top(&self) -> bool {
        self.above.is_empty()
    }

    pub(crate) fn down(&mut self, name: &OsStr) -> Result<(), (&'static str, Errno)> {
        let next = open_directory(&self.here, name).map_err(|e| ("openat2", e))?;
        self.above.push(identity(&self.here)?);
        self.here = next;
        Ok(())
    }

    /// Goes back up, and makes sure that this is where it came from: who moves a directory meanwhile would lead it elsewhere.
    pub(crate) fn up(&mut self) -> Result<(), (&'static str, Errno)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let up = openat2(&self.here, "..", flags, Mode::empty(), resolve).map_err(|e| ("openat2", e))?;
        if self.above.pop() != Some(identity(&up)?) {
            return Err(("openat2", Errno::STALE));
        }
        self.here = up;
        Ok(())
    }
}

fn identity(dir: impl AsFd) -> Result<Identity, (&'static str, Errno)> {
    let stat = fstat(dir).map_err(|e| ("fstat", e))?;
    Ok((stat.st_dev, stat.st_ino))
}

impl AsFd for Cursor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }
}
