//! Merges the layer, when all of it is there, onto a tree that it is not an overlay of, but part of.
//!
//! The layer has been unpacked beside the tree, by the same rules as for an overlay. What it hides is removed from the tree; what it has is
//! moved there, a directory that is new with all that is in it at once. So both modes mean the same, and nothing is copied.

use super::Unpacker;
use super::dirs::{self, Dirs};
use super::finish::at;
use super::lowers::Found;
use super::name::{TreePath, ancestors, join, split};
use super::tree::{fail, interfered};
use crate::layout::RETRIES;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{AtFlags, fstat, linkat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

/// The tree that a layer is merged onto.
#[derive(Debug)]
pub(super) struct Target(Dirs);

impl Target {
    /// `stage` must be on the same file system: files are moved.
    pub(super) fn new(target: BorrowedFd<'_>, stage: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut dirs = Dirs::new(target)?;
        let device = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(fail("fstat", b"."));
        let (of_target, of_stage) = (device(dirs.open(b"")?.as_fd())?, device(stage)?);
        if of_target.0 != of_stage.0 || of_target == of_stage {
            let words = "and the directory to unpack into must be two directories of one file system";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Unpack, words).about("target"));
        }
        Ok(Target(dirs))
    }

    /// Removes what is at a path, or only what is in it. The directories above are part of the layer, which describes them in the end.
    fn hide(&mut self, path: &[u8], whole: bool) -> Result<(), Error> {
        let itself = (!whole).then_some(path);
        for above in ancestors(path).chain(itself) {
            dirs::unlock(self.0.open(above)?.as_fd(), above)?;
        }
        if whole { self.0.remove_all(path) } else { self.0.clear(path) }
    }
}

impl Unpacker {
    /// A second name for a file of the tree.
    pub(super) fn link_below(&mut self, path: &[u8], found: &Found) -> Result<(), Error> {
        self.replacing(path, "linkat", |dir, leaf| {
            linkat(&found.dir, found.leaf.as_slice(), dir, leaf, AtFlags::empty())
        })
    }

    pub(super) fn merge(&mut self, mut target: Target) -> Result<(), Error> {
        // One after the other, whatever is in them.
        self.below()?;
        let hidden = self.hidden()?;
        self.describe_directories()?;
        for (path, whole) in &hidden {
            target.hide(path, *whole).map_err(at(path))?;
        }
        let merged = self.move_into(&mut target.0)?;
        // Children before their parents.
        for path in self.tree.paths().iter().rev() {
            self.finish_merged(&mut target.0, path, merged.contains(path)).map_err(at(path))?;
        }
        // Empty directories, and names that were links to what they should have replaced: such a rename does nothing.
        self.tree.clear()
    }

    /// What must go from the tree: as a whole, or only what is in it. The directories around it become part of the layer, so that
    /// in the end they are again as they were.
    fn hidden(&mut self) -> Result<Vec<(TreePath, bool)>, Error> {
        let mut hidden = Vec::new();
        let renewed = self.tree.paths().into_iter().filter(|path| self.tree.get(path).is_some_and(|d| d.opaque));
        let wholes: BTreeSet<TreePath> = renewed.chain(self.whiteouts.iter().cloned()).collect();
        for path in wholes {
            if !self.is_within_cut(&path) && self.below()?.look(&path)?.is_some() {
                self.tree.ensure(split(&path).0).map_err(at(&path))?;
                hidden.push((path, true));
            }
        }
        for path in self.opaques.clone() {
            let is_directory = |found: Found| found.is_directory();
            if !self.is_within_cut(&path)
                && !self.whiteouts.contains(&path)
                && self.below()?.look(&path)?.is_some_and(is_directory)
            {
                // In place of a directory there may be something else now.
                if self.tree.has(&path) || self.tree.look(&path)? == super::resolve::Node::Absent {
                    self.tree.ensure(&path).map_err(at(&path))?;
                    hidden.push((path, false));
                }
            }
        }
        Ok(hidden)
    }

    /// Moves what is in the stage. Returns the directories that were in the tree already.
    fn move_into(&mut self, target: &mut Dirs) -> Result<BTreeSet<TreePath>, Error> {
        let mut merged = BTreeSet::from([TreePath::new()]);
        for path in self.tree.paths() {
            if !merged.contains(&path) {
                continue;
            }
            let (from, to) = (self.tree.open(&path)?, target.open(&path)?);
            dirs::unlock(to.as_fd(), &path)?;
            for name in dirs::names(from.as_fd(), &path)? {
                let child = join(&path, &name);
                let is_directory = self.tree.has(&child);
                let make_room = || target.remove_all(&child);
                if !move_one(from.as_fd(), to.as_fd(), &name, is_directory, make_room).map_err(at(&child))? {
                    merged.insert(child);
                } else if is_directory {
                    // An empty directory of that name is another one now.
                    target.forget(&child);
                }
            }
        }
        Ok(merged)
    }

    fn finish_merged(&mut self, target: &mut Dirs, path: &[u8], merged: bool) -> Result<(), Error> {
        let Some(meta) = self.tree.take_meta(path) else { return Ok(()) };
        let dir = target.open(path)?;
        let left_out = if merged {
            meta.replace(dir.as_fd(), path, &self.options)?
        } else {
            meta.apply(dir.as_fd(), path, &self.options)?
        };
        self.skip_xattrs(path, left_out);
        Ok(())
    }
}

/// Moves a name from one directory to another, in place of what is there. `false`: both are directories, to be merged.
fn move_one(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &[u8],
    is_directory: bool,
    mut make_room: impl FnMut() -> Result<(), Error>,
) -> Result<bool, Error> {
    for _ in 0..RETRIES {
        match renameat(from, name, to, name) {
            Ok(()) => return Ok(true),
            // A directory that is not empty; an empty one has been replaced.
            Err(Errno::NOTEMPTY | Errno::EXIST) if is_directory => return Ok(false),
            Err(Errno::NOTDIR) if is_directory => {
                unlinkat(to, name, AtFlags::empty()).map_err(fail("unlinkat", name))?;
            }
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => make_room()?,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(fail("renameat", name)(errno)),
        }
    }
    Err(interfered(name))
}
