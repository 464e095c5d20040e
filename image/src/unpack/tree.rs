//! The layer's directories: which there are. Every path here has been resolved and has no symlinks.

use super::dirs::{self, Dirs};
use super::meta::Meta;
use super::name::{TreePath, ancestors, join, split};
use super::resolve::Node;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{AtFlags, FileType, Mode, Stat, mkdirat, readlinkat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// One directory of the layer. All of them are 0700 and the caller's until the end.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// What its own entry said; `None` if other entries only pass through it.
    pub(super) meta: Option<Meta>,
    /// It hides the lower directory of its name, because something else stood here in between.
    pub(super) opaque: bool,
    /// It is merged with one that is there already, instead of being moved there.
    pub(super) merged: bool,
}

impl Directory {
    /// What it takes in memory, with its path.
    fn cost(&self, path: &[u8]) -> u64 {
        cost(path.len()) + self.meta.as_ref().map_or(0, Meta::cost)
    }
}

/// What something of this length takes in memory, with the node of a tree around it; and once more when, in the end, it is looked for.
pub(super) fn cost(length: usize) -> u64 {
    2 * length as u64 + 200
}

#[derive(Debug)]
pub(super) struct Tree {
    dirs: Dirs,
    directories: BTreeMap<TreePath, Directory>,
    kept: u64,
}

pub(super) fn fail(call: &'static str, path: &[u8]) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Unpack, call, errno).about(OsStr::from_bytes(path))
}

impl Tree {
    /// Takes an empty directory.
    pub(super) fn new(stage: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut dirs = Dirs::new(stage)?;
        if let Some(name) = dirs::names(dirs.open(b"")?.as_fd(), b".")?.first() {
            let words = "is not empty, as the directory to unpack a layer into must be";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Unpack, words).about(OsStr::from_bytes(name)));
        }
        let directories = BTreeMap::from([(TreePath::new(), Directory::default())]);
        Ok(Tree { dirs, directories, kept: 0 })
    }

    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.directories.contains_key(path)
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<&Directory> {
        self.directories.get(path)
    }

    /// Bytes that the directories take in memory.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Says what a directory is like, if there is such a one.
    pub(super) fn describe(&mut self, path: &[u8], meta: Meta) {
        if let Some(directory) = self.directories.get_mut(path) {
            self.kept = self.kept.saturating_add(meta.cost());
            let before = directory.meta.replace(meta);
            self.kept = self.kept.saturating_sub(before.map_or(0, |meta| meta.cost()));
        }
    }

    /// Takes off the last directory, to put into effect what it is like: children come before their parents.
    pub(super) fn take_last(&mut self) -> Option<(TreePath, Directory)> {
        self.directories.pop_last()
    }

    pub(super) fn set_opaque(&mut self, path: &[u8]) {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.opaque = true;
        }
    }

    /// It is merged with one that is there.
    pub(super) fn set_merged(&mut self, path: &[u8]) {
        if let Some(directory) = self.directories.get_mut(path) {
            directory.merged = true;
        }
    }

    /// The directory after this one, if one is wanted; the root is the first. Parents come before their children.
    pub(super) fn next(&self, after: Option<&[u8]>, wanted: impl Fn(&Directory) -> bool) -> Option<TreePath> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.directories.range::<[u8], _>((start, Bound::Unbounded));
        rest.find(|(_, directory)| wanted(directory)).map(|(path, _)| path.clone())
    }

    /// What this layer has at `path`.
    pub(super) fn look(&mut self, path: &[u8]) -> Result<Node, Error> {
        if self.has(path) {
            return Ok(Node::Directory);
        }
        let (parent, leaf) = split(path);
        let Some(stat) = self.stat(path)? else { return Ok(Node::Absent) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let dir = self.open(parent)?;
                let target = readlinkat(&*dir, leaf, Vec::new()).map_err(fail("readlinkat", path))?;
                Ok(Node::Symlink(target.into_bytes()))
            }
            FileType::Directory => Err(interfered(path)),
            _ => Ok(Node::Other),
        }
    }

    /// The status of what this layer has at `path`, without following it.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Option<Stat>, Error> {
        let (parent, leaf) = split(path);
        if !self.has(parent) {
            return Ok(None);
        }
        let dir = self.open(parent)?;
        dirs::stat_in(dir.as_fd(), leaf)
    }

    /// Opens a directory of this layer.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        self.dirs.open(path)
    }

    /// Opens a directory of this layer, and makes it and those above it if need be.
    pub(super) fn ensure(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        if !self.has(path) {
            let missing: Vec<TreePath> =
                ancestors(path).chain([path]).filter(|p| !self.has(p)).map(<[u8]>::to_vec).collect();
            for path in missing {
                let made = self.make(&path, Directory::default())?;
                #[cfg(feature = "test-hooks")]
                let made =
                    if crate::test_hooks::is_off(crate::test_hooks::Defence::Resolution) { Ok(()) } else { made };
                made.map_err(|()| interfered(&path))?;
            }
        }
        self.open(path)
    }

    /// Makes a directory in one that is there. The inner error: something of that name is there already.
    pub(super) fn make(&mut self, path: &[u8], directory: Directory) -> Result<Result<(), ()>, Error> {
        let (parent, leaf) = split(path);
        let dir = self.open(parent)?;
        match mkdirat(&*dir, leaf, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(Err(())),
            Err(errno) => return Err(fail("mkdirat", path)(errno)),
        }
        self.kept = self.kept.saturating_add(directory.cost(path));
        self.directories.insert(path.to_vec(), directory);
        Ok(Ok(()))
    }

    /// Removes what is at `path`, a directory with all that is in it.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        for directory in self.below(path).into_iter().rev() {
            self.empty(&directory)?;
            self.dirs.forget(&directory);
            if let Some(gone) = self.directories.remove(&directory) {
                self.kept = self.kept.saturating_sub(gone.cost(&directory));
            }
            self.unlink(&directory, AtFlags::REMOVEDIR)?;
        }
        match self.stat(path)? {
            Some(_) => self.unlink(path, AtFlags::empty()),
            None => Ok(()),
        }
    }

    /// Removes everything that is left in the stage.
    pub(super) fn clear(&mut self) -> Result<(), Error> {
        self.dirs.clear(b"")
    }

    /// The directories at and below `path`, parents before their children.
    fn below(&self, path: &[u8]) -> Vec<TreePath> {
        let start = join(path, b"");
        let inner = self.directories.range(start.clone()..).map(|(path, _)| path);
        let own = self.directories.get_key_value(path).map(|(path, _)| path);
        own.into_iter().chain(inner.take_while(|path| path.starts_with(&start))).cloned().collect()
    }

    /// Removes all from a directory that has no directories in it any more.
    fn empty(&mut self, path: &[u8]) -> Result<(), Error> {
        let dir = self.open(path)?;
        for name in dirs::names(dir.as_fd(), path)? {
            self.unlink(&join(path, &name), AtFlags::empty())?;
        }
        Ok(())
    }

    fn unlink(&mut self, path: &[u8], flags: AtFlags) -> Result<(), Error> {
        let (parent, leaf) = split(path);
        let dir = self.open(parent)?;
        unlinkat(dir.as_fd(), leaf, flags).map_err(fail("unlinkat", path))
    }
}

pub(super) fn interfered(path: &[u8]) -> Error {
    let words = "somebody else changed what is in the directory meanwhile";
    Error::new(ErrorKind::Interfered, Operation::Unpack, words).about(OsStr::from_bytes(path))
}
