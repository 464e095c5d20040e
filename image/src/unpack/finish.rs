//! What can be done only when all entries are known.

use super::Unpacker;
use super::leaf::write_error;
use super::lowers::Found;
use super::meta::{LeftOut, Meta};
use super::name::ancestors;
use super::resolve::Node;
use super::tree::{Directory, cost, fail, interfered};
use crate::layout::open_beneath;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::{FileType, OFlags, SeekFrom, ftruncate, seek};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

impl Unpacker {
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        self.settle_marks()?;
        self.make_links()?;
        self.check_followed()?;
        if let Some(target) = self.target.take() {
            return self.merge(target);
        }
        self.mark_opaque()?;
        self.make_whiteouts()?;
        self.describe_directories()?;
        self.finish_directories()
    }

    /// Links whose targets came after them, and those whose targets are in lower layers.
    fn make_links(&mut self) -> Result<(), Error> {
        while let Some(mut next) = self.links.pop_first() {
            // A target can itself be a link that waits: that one goes first. Taking them off as we go ends every circle.
            let mut chain = Vec::new();
            let mut of_chain = 0;
            loop {
                let (path, target) = next;
                self.watch.go_on()?;
                let target = self.resolve_parent(&target).map_err(at(&path))?;
                // What it leads to can be longer than what was said; and all of a chain is there twice.
                let more = cost(path.len() + target.len());
                (self.kept, of_chain) = (self.kept.saturating_add(more), of_chain + more);
                self.check_kept().map_err(at(&path))?;
                let following = self.links.remove_entry(&target);
                chain.push((path, target));
                match following {
                    Some(link) => next = link,
                    None => break,
                }
            }
            // Until each is made, its name is taken.
            self.links.extend(chain.iter().cloned());
            for (path, target) in chain.into_iter().rev() {
                self.links.remove(&path);
                self.late_link(&path, &target).and_then(|()| self.check_kept()).map_err(at(&path))?;
            }
            self.kept = self.kept.saturating_sub(of_chain);
        }
        Ok(())
    }

    fn late_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        if path == target {
            return Err(Error::refused("is a hard link to itself"));
        }
        if self.tree.look(target)? != Node::Absent {
            return self.link(path, target);
        }
        let found = self.link_target(target)?;
        if self.target.is_some() {
            return self.link_below(path, &found);
        }
        self.count_copied_name()?;
        self.copy_up(target, &found)?;
        self.link(path, target)?;
        // What is linked below stays linked.
        for other in self.names_below(&found)? {
            let replaced = self.is_cut(&other) || self.is_replaced(&other)?;
            if !replaced && self.tree.look(&other)? == Node::Absent {
                self.count_copied_name()?;
                self.link(&other, target)?;
            }
        }
        Ok(())
    }

    /// Whether this layer has a link under this name, or something that is not a directory on the way to it.
    fn is_replaced(&mut self, path: &[u8]) -> Result<bool, Error> {
        for above in ancestors(path).skip(1) {
            if self.links.contains_key(above) {
                return Ok(true);
            }
            match self.tree.look(above)? {
                Node::Directory => {}
                Node::Absent => break,
                Node::Symlink(_) | Node::Other => return Ok(true),
            }
        }
        Ok(self.links.contains_key(path))
    }

    /// A file of a lower layer, to which a second name is to be given.
    fn link_target(&mut self, path: &[u8]) -> Result<Found, Error> {
        let found = if self.is_cut(path) { None } else { self.below()?.look(path)? };
        let Some(found) = found else {
            let words = if self.below()?.complete() {
                "is a hard link to what neither this layer nor a lower one has"
            } else {
                "is a hard link to what this layer does not have, and nothing is known about lower ones"
            };
            return Err(Error::new(ErrorKind::NotFound, Operation::Unpack, words).about(OsStr::from_bytes(path)));
        };
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::Directory => Err(Error::refused("is a hard link to a directory")),
            FileType::Socket | FileType::Unknown => Err(Error::refused("is a hard link to a socket")),
            _ => Ok(found),
        }
    }

    /// Copies a lower layer's file into this one, so that a second name can be given to it.
    fn copy_up(&mut self, path: &[u8], found: &Found) -> Result<(), Error> {
        let meta = Meta::of_lower(found, &self.options.ownership)?;
        let left_out = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.copy_file(path, found, &meta),
            FileType::Symlink => self.symlink(path, &found.target()?, &meta),
            kind => self.node(path, kind, found.stat.st_rdev, &meta),
        }?;
        self.skip_xattrs(path, left_out);
        Ok(())
    }

    fn copy_file(&mut self, path: &[u8], found: &Found, meta: &Meta) -> Result<LeftOut, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let from = open_beneath(&found.dir, found.leaf.as_slice(), flags).map_err(fail("openat2", path))?;
        self.count_attributes(meta)?;
        let to = self.create(path, meta.mode_at_birth())?;
        let (watch, limit, attributes) = (self.watch.clone(), self.options.limits.bytes, self.attributes);
        let bytes = &mut self.bytes;
        let count = |more: u64| {
            *bytes = bytes.saturating_add(more);
            if bytes.saturating_add(attributes) > limit {
                Err(Error::limit(Operation::Unpack, "bytes in files", limit))
            } else {
                Ok(())
            }
        };
        copy_data(&File::from(from), &to, found.stat.st_size, path, count, || watch.go_on())?;
        meta.apply_to_new(to.as_fd(), path, &self.options)
    }

    /// An entry that went through a lower layer's symlink is where that led. If this layer then takes the symlink away,
    /// the entry would have been elsewhere in another order: there is no right result.
    fn check_followed(&mut self) -> Result<(), Error> {
        for (path, target) in std::mem::take(&mut self.followed) {
            let gone = self.is_cut(&path)
                || match self.tree.look(&path)? {
                    Node::Absent => false,
                    Node::Symlink(own) => own != target,
                    Node::Directory | Node::Other => true,
                };
            if gone {
                let words =
                    "is a symbolic link of a lower layer that entries went through before this layer replaces it";
                return Err(Error::refused(words).at_entry(OsStr::from_bytes(&path)));
            }
        }
        Ok(())
    }

    /// What directories without an entry of their own are like: as the lower layers have them.
    pub(super) fn describe_directories(&mut self) -> Result<(), Error> {
        let mut next = self.tree.next(None, |directory| directory.meta.is_none());
        while let Some(path) = next {
            self.watch.go_on()?;
            let meta = self.passed_through(&path).map_err(at(&path))?;
            self.count_attributes(&meta).map_err(at(&path))?;
            self.tree.describe(&path, meta);
            self.check_kept().map_err(at(&path))?;
            next = self.tree.next(Some(&path), |directory| directory.meta.is_none());
        }
        Ok(())
    }

    fn passed_through(&mut self, path: &[u8]) -> Result<Meta, Error> {
        let found = if self.is_cut(path) { None } else { self.below()?.look(path)? };
        match found.filter(Found::is_directory) {
            Some(found) => self.lowers.describe(&found, path, &self.options.ownership),
            None => Meta::of_nothing(&self.options.ownership),
        }
    }

    /// Children before their parents: a directory whose mode keeps the caller out is not needed any more then.
    fn finish_directories(&mut self) -> Result<(), Error> {
        while let Some((path, directory)) = self.tree.take_last() {
            self.finish_directory(&path, directory).map_err(at(&path))?;
        }
        Ok(())
    }

    fn finish_directory(&mut self, path: &[u8], directory: Directory) -> Result<(), Error> {
        if directory.opaque {
            self.set_opaque(path)?;
        }
        let Some(meta) = directory.meta else { return Ok(()) };
        let dir = self.tree.open(path)?;
        let left_out = meta.apply(dir.as_fd(), path, &self.options)?;
        self.skip_xattrs(path, left_out);
        Ok(())
    }
}

/// As many bytes are copied at a time.
const PIECE: u64 = 16 << 20;

/// Copies so much of a file, holes as holes: what is in them would have to be written. Before each stretch of data `count` is told how long it is, and before each
/// piece of it `go_on` is asked.
fn copy_data(
    mut from: &File,
    mut to: &File,
    length: i64,
    path: &[u8],
    mut count: impl FnMut(u64) -> Result<(), Error>,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let length = u64::try_from(length).unwrap_or(0);
    let mut end = 0;
    while end < length {
        let start = match seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(fail("lseek", path)(errno)),
        };
        end = seek(from, SeekFrom::Hole(start)).map_err(fail("lseek", path))?.min(length);
        for file in [from, to] {
            seek(file, SeekFrom::Start(start)).map_err(fail("lseek", path))?;
        }
        let mut left = end.saturating_sub(start);
        count(left)?;
        while left > 0 {
            go_on()?;
            let piece = left.min(PIECE);
            if io::copy(&mut (&mut from).take(piece), &mut to).map_err(|e| write_error(&e, path))? != piece {
                return Err(interfered(path));
            }
            left -= piece;
        }
    }
    ftruncate(to, length).map_err(fail("ftruncate", path))
}

/// Names the path that an error is about, as an entry of that name would.
pub(super) fn at(path: &[u8]) -> impl Fn(Error) -> Error {
    let path = OsStr::from_bytes(path).to_owned();
    move |error| error.at_entry(&path)
}
