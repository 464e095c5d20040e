//! Merges the layer, when all of it is there, onto a tree that it is not an overlay of, but part of.
//!
//! The layer has been unpacked beside the tree, by the same rules as for an overlay. What it hides is removed from the tree; what it has is
//! moved there, a directory that is new with all that is in it at once. So both modes mean the same, and nothing is copied.

use super::Unpacker;
use super::dirs::{self, Dirs};
use super::finish::at;
use super::lowers::Found;
use super::name::{TreePath, ancestors, join, split};
use super::tree::{Directory, fail, interfered};
use super::unlocked::Unlocked;
use crate::layout::RETRIES;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{AtFlags, fstat, linkat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The tree that a layer is merged onto.
#[derive(Debug)]
pub(super) struct Target {
    dirs: Dirs,
    unlocked: Unlocked,
}

impl Target {
    /// `stage` must be on the same file system: files are moved.
    pub(super) fn new(target: BorrowedFd<'_>, stage: BorrowedFd<'_>, unlocked: Unlocked) -> Result<Self, Error> {
        let mut dirs = Dirs::new(target)?;
        let device = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(fail("fstat", b"."));
        let (of_target, of_stage) = (device(dirs.open(b"")?.as_fd())?, device(stage)?);
        if of_target.0 != of_stage.0 || of_target == of_stage {
            let words = "and the directory to unpack into must be two directories of one file system";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Unpack, words).about("target"));
        }
        Ok(Target { dirs, unlocked })
    }

    /// Opens a directory of the tree; and those on the way up, if one of them keeps its owner out.
    fn open(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        match self.dirs.open(path) {
            Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                for path in ancestors(path).chain([path]).filter(|path| !path.is_empty()) {
                    let (parent, name) = split(path);
                    let dir = self.dirs.open(parent)?;
                    let open = || self.unlocked.open(dir.as_fd(), name, path);
                    self.unlocked.within(dir.as_fd(), parent, open).map_err(fail("openat2", path))?;
                }
                self.dirs.open(path)
            }
            opened => opened,
        }
    }

    /// Opens a directory in which something is to be changed.
    fn open_to_change(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        let dir = self.open(path)?;
        dirs::unlock(dir.as_fd(), path)?;
        Ok(dir)
    }

    /// Removes what is at a path, or only what is in it. The directories above are part of the layer, which describes them in the end.
    fn hide(&mut self, path: &[u8], whole: bool) -> Result<(), Error> {
        let itself = (!whole).then_some(path);
        for above in ancestors(path).chain(itself) {
            self.open_to_change(above)?;
        }
        if whole { self.dirs.remove_all(path) } else { self.dirs.clear(path) }
    }

    fn lock_again(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        let root = self.dirs.open(b"")?;
        self.unlocked.lock_again(root.as_fd(), wanted)
    }
}

/// Whatever has failed, and before anything was changed, the directories are as they were.
impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.lock_again(|_| true);
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
        self.move_into(&mut target)?;
        target.lock_again(|path| !self.tree.has(path))?;
        // Children before their parents.
        while let Some((path, directory)) = self.tree.take_last() {
            self.finish_merged(&mut target, &path, directory).map_err(at(&path))?;
            target.unlocked.forget(&path);
        }
        // Empty directories, and names that were links to what they should have replaced: such a rename does nothing.
        self.tree.clear()
    }

    /// What must go from the tree: as a whole, or only what is in it. The directories around it become part of the layer, so that
    /// in the end they are again as they were.
    fn hidden(&mut self) -> Result<Vec<(TreePath, bool)>, Error> {
        let mut hidden = Vec::new();
        let mut renewed = BTreeSet::new();
        while let Some(path) = self.tree.next(renewed.last().map(Vec::as_slice), |directory| directory.opaque) {
            renewed.insert(path);
        }
        renewed.extend(self.whiteouts.iter().cloned());
        for path in renewed {
            self.watch.go_on()?;
            if !self.is_within_cut(&path) && self.below()?.look(&path)?.is_some() {
                self.ensure(split(&path).0).map_err(at(&path))?;
                hidden.push((path, true));
            }
        }
        for path in self.opaques.clone() {
            self.watch.go_on()?;
            let is_directory = |found: Found| found.is_directory();
            if !self.is_within_cut(&path)
                && !self.whiteouts.contains(&path)
                && self.below()?.look(&path)?.is_some_and(is_directory)
            {
                // In place of a directory there may be something else now.
                if self.tree.has(&path) || self.tree.look(&path)? == super::resolve::Node::Absent {
                    self.ensure(&path).map_err(at(&path))?;
                    hidden.push((path, false));
                }
            }
        }
        Ok(hidden)
    }

    /// Moves what is in the stage, and notes which directories were in the tree already.
    fn move_into(&mut self, target: &mut Target) -> Result<(), Error> {
        self.tree.set_merged(b"");
        let mut next = self.tree.next(None, |directory| directory.merged);
        while let Some(path) = next {
            let (from, to) = (self.tree.open(&path)?, target.open_to_change(&path)?);
            for name in dirs::names(from.as_fd(), &path)? {
                let child = join(&path, &name);
                let is_directory = self.tree.has(&child);
                let make_room = || target.dirs.remove_all(&child);
                if !move_one(from.as_fd(), to.as_fd(), &name, is_directory, make_room).map_err(at(&child))? {
                    self.tree.set_merged(&child);
                } else if is_directory {
                    // An empty directory of that name is another one now.
                    target.dirs.forget(&child);
                }
            }
            next = self.tree.next(Some(&path), |directory| directory.merged);
        }
        Ok(())
    }

    fn finish_merged(&mut self, target: &mut Target, path: &[u8], directory: Directory) -> Result<(), Error> {
        let Some(meta) = directory.meta else { return Ok(()) };
        let dir = target.open(path)?;
        let left_out = if directory.merged {
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
