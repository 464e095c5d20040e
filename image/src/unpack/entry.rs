//! One entry: what it is, whether it may be, and who makes it.

use super::Unpacker;
use super::meta::{LeftOut, Meta};
use super::name::{Meaning, meaning, tree_path};
use super::resolve::Node;
use super::tree::cost;
use crate::archive::{Archive, Entry, Kind};
use crate::report::{Skipped, SkippedPart};
#[cfg(feature = "test-hooks")]
use crate::test_hooks::{Defence, is_off};
use crate::{Devices, Error, ErrorKind, Operation, Policy};
use rustix::fs::FileType;
#[cfg(feature = "test-hooks")]
use rustix::fs::{AtFlags, linkat};
use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt;

impl Unpacker {
    pub(super) fn entry<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), Error> {
        let path = match meaning(&entry.name, &self.options.limits)? {
            Meaning::Entry(path) => path,
            Meaning::Whiteout(path) => {
                self.kept += cost(path.len());
                self.whiteouts.insert(path);
                return Ok(());
            }
            Meaning::Opaque(path) => {
                self.kept += cost(path.len());
                self.opaques.insert(path);
                return Ok(());
            }
            Meaning::Reserved => {
                self.skip(&entry.name, SkippedPart::AufsMetadata);
                return Ok(());
            }
        };
        let replaces_root = path.is_empty() && entry.kind != Kind::Directory;
        #[cfg(feature = "test-hooks")]
        let replaces_root = replaces_root && !is_off(Defence::Root);
        if replaces_root {
            return Err(Error::refused("would replace the root by something that is not a directory"));
        }
        let (meta, left_out) = Meta::of_entry(entry, &self.options)?;
        let path = self.resolve_parent(&path)?;
        let not_set = match entry.kind {
            Kind::Directory => self.directory(&path, meta).map(|()| Vec::new()),
            Kind::File { .. } => self.file(&path, &meta, entry.sparse.as_ref(), archive),
            Kind::Symlink => self.symlink(&path, &entry.link, &meta),
            // Its attributes are those of its target.
            Kind::HardLink => return self.hard_link(&path, &entry.link),
            Kind::Fifo => self.node(&path, FileType::Fifo, 0, &meta),
            Kind::CharDevice | Kind::BlockDevice => match self.device(&path, entry, &meta)? {
                Some(not_set) => Ok(not_set),
                None => return Ok(()),
            },
            Kind::Other(flag) if self.options.policy == Policy::Lenient => {
                self.skip(&entry.name, SkippedPart::UnknownType(flag));
                return Ok(());
            }
            Kind::Other(_) => {
                let words = "is of a type that is not known";
                return Err(Error::new(ErrorKind::Unsupported, Operation::Unpack, words));
            }
        };
        self.skip_xattrs(&entry.name, left_out);
        self.skip_xattrs(&entry.name, not_set?);
        Ok(())
    }

    /// A device, if there is to be one.
    fn device(&mut self, path: &[u8], entry: &Entry, meta: &Meta) -> Result<Option<LeftOut>, Error> {
        let char_device = entry.kind == Kind::CharDevice;
        let steers = char_device && entry.device == (0, 0);
        #[cfg(feature = "test-hooks")]
        let steers = steers && !is_off(Defence::Steering);
        if steers {
            return Err(Error::refused("is the device 0:0, by which a layer would steer overlayfs"));
        }
        if self.options.devices == Devices::Make {
            let kind = if char_device { FileType::CharacterDevice } else { FileType::BlockDevice };
            let made = self.node(path, kind, rustix::fs::makedev(entry.device.0, entry.device.1), meta);
            match made {
                Err(e) if e.kind() == ErrorKind::PermissionDenied && self.options.policy == Policy::Lenient => {}
                made => return made.map(Some),
            }
        }
        self.skip(&entry.name, SkippedPart::Device);
        Ok(None)
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        #[cfg(feature = "test-hooks")]
        if is_off(Defence::Links) {
            let from = rustix::fs::CWD;
            return self.replacing(path, "linkat", |dir, leaf| linkat(from, target, dir, leaf, AtFlags::empty()));
        }
        let target = tree_path(target, &self.options.limits)?;
        let found = self.resolve_parent(&target)?;
        if found == path {
            return Err(Error::refused("is a hard link to itself"));
        }
        if self.tree.look(&found)? == Node::Absent {
            // It may come later; else it is a lower layer's.
            self.kept += cost(path.len() + target.len());
            self.links.insert(path.to_vec(), target);
            return Ok(());
        }
        self.link(path, &found)
    }

    fn skip(&mut self, name: &[u8], what: SkippedPart) {
        let more = if let SkippedPart::Xattr(xattr) = &what { xattr.len() } else { 0 };
        let cost = cost(name.len() + more);
        self.kept += cost;
        self.kept_of_skipped += cost;
        self.skipped.push(Skipped { entry: OsString::from_vec(name.to_vec()), what });
    }

    pub(super) fn skip_xattrs(&mut self, name: &[u8], left_out: LeftOut) {
        for xattr in left_out {
            self.skip(name, SkippedPart::Xattr(OsString::from_vec(xattr)));
        }
    }
}
