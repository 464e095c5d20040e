//! The names that a file of a lower layer has: what is linked below stays linked when it is copied.

use super::Unpacker;
use super::dirs::{self, is_directory, stat_in};
use super::lowers::Found;
use super::name::{TreePath, join};
use super::tree::fail;
use crate::layout::open_beneath;
use crate::{Error, Operation};
use rustix::fs::OFlags;
use std::os::fd::{AsFd, OwnedFd};

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// What a name takes in memory, beside its bytes.
const NAME: u64 = 200;

/// The files of a layer that have several names: each with each of them, sorted.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: Vec<(FileId, TreePath)>,
    kept: u64,
}

impl Groups {
    /// Walks a layer, which may have far more in it than the one that is unpacked: it is done once, `go_on` is asked before each directory, and the names may
    /// take no more than `room` bytes of memory; `None`: they would.
    pub(super) fn of(layer: &OwnedFd, room: u64, go_on: impl Fn() -> Result<(), Error>) -> Result<Option<Self>, Error> {
        let mut groups = Groups::default();
        let mut waiting = vec![TreePath::new()];
        while let Some(path) = waiting.pop() {
            go_on()?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let dir = match path.as_slice() {
                b"" => layer.try_clone().map_err(|e| Error::from_io(Operation::Unpack, e))?,
                path => open_beneath(layer, path, flags).map_err(fail("openat2", path))?,
            };
            for name in dirs::names(dir.as_fd(), &path)? {
                let child = join(&path, &name);
                match stat_in(dir.as_fd(), &name)? {
                    Some(stat) if is_directory(&stat) => waiting.push(child),
                    Some(stat) if stat.st_nlink > 1 => {
                        groups.kept = groups.kept.saturating_add(NAME + child.len() as u64);
                        if groups.kept > room {
                            return Ok(None);
                        }
                        groups.names.push(((stat.st_dev, stat.st_ino), child));
                    }
                    _ => {}
                }
            }
        }
        groups.names.sort_unstable();
        Ok(Some(groups))
    }

    fn names(&self, file: FileId) -> impl Iterator<Item = &TreePath> {
        let start = self.names.partition_point(|(other, _)| *other < file);
        let rest = self.names.get(start..).unwrap_or_default();
        rest.iter().take_while(move |(other, _)| *other == file).map(|(_, name)| name)
    }
}

impl Unpacker {
    /// The names of a lower layer's file that are seen in the union of them.
    pub(super) fn names_below(&mut self, found: &Found) -> Result<Vec<TreePath>, Error> {
        if found.stat.st_nlink < 2 {
            return Ok(Vec::new());
        }
        let watch = self.watch.clone();
        if !self.groups.contains_key(&found.layer) {
            self.check_kept()?;
            let room = self.share.room();
            let groups =
                self.below()?.groups(found.layer, room, || watch.go_on())?.ok_or_else(|| self.share.too_much())?;
            self.kept = self.kept.saturating_add(groups.kept);
            self.groups.insert(found.layer, groups);
        }
        let names: Vec<TreePath> =
            self.groups.get(&found.layer).into_iter().flat_map(|groups| groups.names(found.file())).cloned().collect();
        let mut seen = Vec::new();
        for name in names {
            watch.go_on()?;
            if self.below()?.look(&name)?.is_some_and(|other| other.file() == found.file()) {
                seen.push(name);
            }
        }
        Ok(seen)
    }

    /// Nothing of what a lower layer's file brings with it is an entry, but it is to be no more than entries may be.
    pub(super) fn count_copied_name(&mut self) -> Result<(), Error> {
        self.copied_names += 1;
        let limit = self.options.limits.entries;
        if self.entries.saturating_add(self.copied_names) > limit {
            return Err(Error::limit(Operation::Unpack, "entries and names of copied files", limit));
        }
        self.check_kept()
    }
}
