//! Whiteouts and opaque directories: where their names lead, and how they are made.

use super::Unpacker;
use super::finish::at;
use super::name::{TreePath, join, split};
use super::resolve::Node;
use super::tree::cost;
use crate::Error;
use cofferdam_unionfs::{make_opaque, make_whiteout};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// A directory as it is named, and where that leads.
type Followed = (TreePath, Option<TreePath>);

impl Unpacker {
    /// Finds where the names of whiteouts and opaque directories lead. Those below a file of this layer hide nothing.
    pub(super) fn settle_marks(&mut self) -> Result<(), Error> {
        let mut whiteouts = BTreeSet::new();
        let mut last = None;
        let mut next = self.whiteouts.first().cloned();
        while let Some(path) = next {
            let (parent, leaf) = split(&path);
            if let Some(parent) = self.parent_of_mark(parent, &mut last).map_err(at(&path))? {
                self.settle(&path, join(&parent, leaf), &mut whiteouts).map_err(at(&path))?;
            }
            next = after(&self.whiteouts, &path);
        }
        let mut opaques = BTreeSet::new();
        let mut next = self.opaques.first().cloned();
        while let Some(path) = next {
            if let Some(settled) = self.opaque_directory(&path, &mut last).map_err(at(&path))? {
                self.settle(&path, settled, &mut opaques).map_err(at(&path))?;
            }
            next = after(&self.opaques, &path);
        }
        self.whiteouts = whiteouts;
        self.opaques = opaques;
        Ok(())
    }

    /// Where the directory of a mark leads: most often where that of the `last` one did.
    fn parent_of_mark(&mut self, parent: &[u8], last: &mut Option<Followed>) -> Result<Option<TreePath>, Error> {
        self.watch.go_on()?;
        if let Some((given, found)) = last
            && given == parent
        {
            return Ok(found.clone());
        }
        let found = self.follow(parent)?;
        *last = Some((parent.to_vec(), found.clone()));
        Ok(found)
    }

    fn opaque_directory(&mut self, path: &[u8], last: &mut Option<Followed>) -> Result<Option<TreePath>, Error> {
        let (parent, leaf) = split(path);
        let Some(parent) = self.parent_of_mark(parent, last)? else { return Ok(None) };
        let found = join(&parent, leaf);
        match self.look(&found)? {
            Node::Absent | Node::Directory => Ok(Some(found)),
            Node::Symlink(_) => self.follow(path),
            Node::Other => Ok(None),
        }
    }

    /// Both names are there until all are settled, and by way of a symlink a short one leads to a long one. (Of the given one twice the length has been counted.)
    fn settle(&mut self, given: &[u8], settled: TreePath, all: &mut BTreeSet<TreePath>) -> Result<(), Error> {
        self.kept = self.kept.saturating_add(cost(settled.len()).saturating_sub(cost(given.len())));
        self.check_kept()?;
        all.insert(settled);
        Ok(())
    }

    pub(super) fn mark_opaque(&mut self) -> Result<(), Error> {
        let mut next = self.opaques.first().cloned();
        while let Some(path) = next {
            self.watch.go_on()?;
            if self.is_to_be_opaque(&path)? {
                self.ensure(&path).and_then(|_| self.set_opaque(&path)).map_err(at(&path))?;
            }
            next = after(&self.opaques, &path);
        }
        Ok(())
    }

    /// Opens a directory of this layer for a mark. It and those above may have to be made: so one name asks for many.
    pub(super) fn ensure(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        let dir = self.tree.ensure(path)?;
        self.check_kept()?;
        Ok(dir)
    }

    fn is_to_be_opaque(&mut self, path: &[u8]) -> Result<bool, Error> {
        // Within another one, or within a whiteout, nothing of a lower layer is left to hide.
        if self.is_within_cut(path) || (self.whiteouts.contains(path) && !self.tree.has(path)) {
            return Ok(false);
        }
        Ok(match self.tree.look(path)? {
            Node::Directory => true,
            Node::Absent => {
                let below = self.below()?;
                !below.complete() || below.look(path)?.is_some_and(|f| f.is_directory())
            }
            // It hides more than that by itself.
            Node::Symlink(_) | Node::Other => false,
        })
    }

    pub(super) fn make_whiteouts(&mut self) -> Result<(), Error> {
        let mut next = self.whiteouts.first().cloned();
        while let Some(path) = next {
            self.watch.go_on()?;
            self.make_whiteout(&path).map_err(at(&path))?;
            next = after(&self.whiteouts, &path);
        }
        Ok(())
    }

    fn make_whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        match self.tree.look(path)? {
            // The whiteout is about the lower layers' entry; this layer's own one stays, and does not merge with it.
            Node::Directory => return self.set_opaque(path),
            Node::Symlink(_) | Node::Other => return Ok(()),
            Node::Absent => {}
        }
        // Where nothing is merged, overlayfs would list the whiteout as a name that cannot be opened: leave out what hides nothing.
        let below = self.below()?;
        let hides = !below.complete() || below.look(path)?.is_some();
        if self.is_within_cut(path) || !hides {
            return Ok(());
        }
        let (parent, leaf) = split(path);
        let dir = self.ensure(parent)?;
        make_whiteout(&*dir, OsStr::from_bytes(leaf)).map_err(|e| Error::from_unionfs(&e))
    }

    pub(super) fn set_opaque(&mut self, path: &[u8]) -> Result<(), Error> {
        let dir = self.tree.open(path)?;
        make_opaque(&*dir, self.options.form).map_err(|e| Error::from_unionfs(&e))
    }
}

/// The path after this one. (No copy of all of them is made: they are as many as may be kept in memory.)
fn after(paths: &BTreeSet<TreePath>, path: &[u8]) -> Option<TreePath> {
    paths.range::<[u8], _>((Bound::Excluded(path), Bound::Unbounded)).next().cloned()
}
