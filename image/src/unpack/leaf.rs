//! Makes single files: by their name in a directory that is open, never following it, never opening what is there.

use super::Unpacker;
use super::meta::{LeftOut, Meta, is_of};
use super::name::{join, split};
use super::resolve::Node;
use super::tree::{Directory, fail, interfered};
use crate::archive::{Archive, Sparse};
use crate::layout::RETRIES;
use crate::{Error, ErrorKind, Operation, Policy};
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags, fstat, ftruncate, linkat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

impl Unpacker {
    /// Attributes that something new is about to get. One global header gives them to every entry: few bytes of an archive ask for many on the disk.
    pub(super) fn count_attributes(&mut self, meta: &Meta) -> Result<(), Error> {
        self.attributes = self.attributes.saturating_add(meta.xattr_bytes());
        let limit = self.options.limits.bytes;
        let too_many = !meta.xattrs.is_empty() && self.bytes.saturating_add(self.attributes) > limit;
        if too_many { Err(Error::limit(Operation::Unpack, "bytes in files", limit)) } else { Ok(()) }
    }

    /// A directory. What it is beside its name is done at the end, when nothing is made in it any more.
    pub(super) fn directory(&mut self, path: &[u8], meta: Meta) -> Result<(), Error> {
        self.count_attributes(&meta)?;
        // Something else that stood here hides what lower layers have, as it would if layers were unpacked one onto the other.
        let mut opaque = self.links.contains_key(path);
        if opaque {
            self.clear(path)?;
        }
        match self.tree.look(path)? {
            Node::Directory => {
                self.tree.describe(path, meta);
                if opaque {
                    self.tree.set_opaque(path);
                }
                return Ok(());
            }
            Node::Symlink(_) | Node::Other => {
                self.clear(path)?;
                opaque = true;
            }
            Node::Absent => {}
        }
        let (parent, _) = split(path);
        self.tree.ensure(parent)?;
        self.tree.make(path, Directory { meta: Some(meta), opaque, merged: false })?.map_err(|()| interfered(path))
    }

    pub(super) fn file<R: BufRead>(
        &mut self,
        path: &[u8],
        meta: &Meta,
        sparse: Option<&Sparse>,
        archive: &mut Archive<R>,
    ) -> Result<LeftOut, Error> {
        self.count_attributes(meta)?;
        let file = self.create(path, meta.mode_at_birth())?;
        match sparse {
            None => self.write_at(&file, path, 0, u64::MAX, archive)?,
            Some(sparse) => {
                for (offset, count) in &sparse.segments {
                    self.write_at(&file, path, *offset, *count, archive)?;
                }
                ftruncate(&file, sparse.length).map_err(fail("ftruncate", path))?;
            }
        }
        meta.apply_to_new(file.as_fd(), path, &self.options)
    }

    /// Writes data of the entry, `count` bytes at most, to where they belong.
    fn write_at<R: BufRead>(
        &mut self,
        file: &File,
        path: &[u8],
        mut offset: u64,
        mut count: u64,
        archive: &mut Archive<R>,
    ) -> Result<(), Error> {
        while count > 0 {
            let data = archive.data()?;
            let length = usize::try_from(count).unwrap_or(usize::MAX).min(data.len());
            let data = data.get(..length).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            file.write_all_at(data, offset).map_err(|e| write_error(&e, path))?;
            archive.advance(length);
            offset += length as u64;
            count -= length as u64;
            self.bytes += length as u64;
        }
        Ok(())
    }

    /// A new file, in place of what was there. Never an old one: that could have other names.
    pub(super) fn create(&mut self, path: &[u8], mode: Mode) -> Result<File, Error> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        #[cfg(feature = "test-hooks")]
        let flags = if crate::test_hooks::is_off(crate::test_hooks::Defence::Leaves) {
            OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY
        } else {
            flags
        };
        let fd = self.replacing(path, "openat", |dir, leaf| openat(dir, leaf, flags, mode))?;
        Ok(File::from(fd))
    }

    pub(super) fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<LeftOut, Error> {
        if target.is_empty() {
            return Err(Error::refused("is a symbolic link without a target"));
        }
        self.count_attributes(meta)?;
        self.replacing(path, "symlinkat", |dir, leaf| symlinkat(target, dir, leaf))?;
        self.finish_node(path, FileType::Symlink, 0, meta)
    }

    pub(super) fn node(&mut self, path: &[u8], kind: FileType, device: Dev, meta: &Meta) -> Result<LeftOut, Error> {
        self.count_attributes(meta)?;
        self.replacing(path, "mknodat", |dir, leaf| mknodat(dir, leaf, kind, Mode::RUSR | Mode::WUSR, device))?;
        self.finish_node(path, kind, device, meta)
    }

    /// Gives its attributes to what has just been made, if it still is what was made.
    fn finish_node(&mut self, path: &[u8], kind: FileType, device: Dev, meta: &Meta) -> Result<LeftOut, Error> {
        let (parent, leaf) = split(path);
        let dir = self.tree.open(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&*dir, leaf, flags, Mode::empty()).map_err(fail("openat", path))?;
        let stat = fstat(&fd).map_err(fail("fstat", path))?;
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if !is_of(fd.as_fd(), kind, path)? || (is_device && stat.st_rdev != device) {
            return Err(interfered(path));
        }
        meta.apply_to_node(fd.as_fd(), kind, path, &self.options)
    }

    /// Another name for a file of this layer. A symlink is linked itself, not its target.
    pub(super) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        if self.tree.has(target) {
            return Err(Error::refused("is a hard link to a directory"));
        }
        let (target_parent, target_leaf) = split(target);
        let from = self.tree.open(target_parent)?;
        self.replacing(path, "linkat", |dir, leaf| linkat(&*from, target_leaf, dir, leaf, AtFlags::empty()))
    }

    /// Makes something new under a name, for which what was there must go: the last entry of a name counts.
    pub(super) fn replacing<T>(
        &mut self,
        path: &[u8],
        call: &'static str,
        mut make: impl FnMut(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let (parent, leaf) = split(path);
        if self.links.contains_key(path) {
            self.clear(path)?;
        }
        for _ in 0..RETRIES {
            let dir = self.tree.ensure(parent)?;
            match make(dir.as_fd(), leaf) {
                Ok(done) => return Ok(done),
                Err(Errno::EXIST) => self.clear(path)?,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(fail(call, path)(errno)),
            }
        }
        Err(interfered(path))
    }

    fn clear(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.options.policy == Policy::Strict {
            return Err(Error::refused("comes twice"));
        }
        // Had this entry come first, those others would not have been possible.
        if self.tree.get(path).is_some_and(|directory| directory.meta.is_none()) {
            return Err(Error::refused("would replace a directory that other entries are in"));
        }
        self.links.remove(path);
        // Links that wait in a directory go with it.
        let start = join(path, b"");
        let waiting = self.links.range(start.clone()..).map(|(link, _)| link);
        for link in waiting.take_while(|link| link.starts_with(&start)).cloned().collect::<Vec<_>>() {
            self.links.remove(&link);
        }
        self.tree.remove(path)
    }
}

pub(super) fn write_error(error: &std::io::Error, path: &[u8]) -> Error {
    match error.raw_os_error() {
        Some(errno) => fail("write", path)(Errno::from_raw_os_error(errno)),
        None => Error::message(ErrorKind::Os, Operation::Unpack, error.to_string()),
    }
}
