//! Changes by looking at what an upper directory holds.

use super::compare::{Below, root};
use super::{ChangeKind, Found};
use crate::facts::{At, is_directory, linked};
use crate::walk::{Visitor, walk};
use crate::{Error, Form, Operation, is_opaque};
use rustix::fs::{FileType, Stat};
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// `None`: the upper does not hold what it shows, and has to be compared.
pub(super) fn changes(upper: BorrowedFd<'_>, below: BorrowedFd<'_>, form: Form) -> Result<Option<Vec<Found>>, Error> {
    let mut visitor =
        Upper { below: Below::new(below, Some(form))?, form, opaque: Vec::new(), found: Vec::new(), refers: false };
    walk(upper, Operation::Diff, &mut visitor)?;
    Ok((!visitor.refers).then_some(visitor.found))
}

struct Upper {
    below: Below,
    form: Form,
    /// Of the directories that the walk is in, whether they are opaque.
    opaque: Vec<bool>,
    found: Vec<Found>,
    /// Something refers to data or a directory elsewhere.
    refers: bool,
}

impl Upper {
    fn directory(&mut self, here: At<'_>, stat: &Stat, path: &Path) -> Result<(), Error> {
        self.refers |= here.has_xattr(self.form.redirect())?;
        let (mut opaque, mut kind) = (false, Some(ChangeKind::Added));
        if let Some((below, other)) = self.below.find(here.name)? {
            // Only a directory can be hidden by one; anything else is just replaced.
            opaque = is_directory(&other) && here.xattr(self.form.opaque())?.as_deref() == Some(b"y");
            let same = is_directory(&other) && !opaque && here.equals(stat, below, &other)?;
            kind = (!same).then_some(ChangeKind::Modified);
        }
        if let Some(kind) = kind {
            let mut found = Found::new(path.join(here.name), kind);
            found.change.opaque = opaque;
            self.found.push(found);
        }
        Ok(())
    }

    fn file(&mut self, here: At<'_>, stat: &Stat, path: &Path) -> Result<(), Error> {
        // Its data may be elsewhere. That it has no blocks would not tell: its attributes may have one. With user.* attributes the kernel
        // leaves no data behind, whatever is asked for.
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !self.refers && is_regular && stat.st_size > 0 && self.form == Form::Trusted {
            self.refers = here.has_xattr(self.form.metacopy())?;
        }
        // Of several names it may have been written to by one that is not here.
        self.refers |= stat.st_nlink > 1 && here.has_xattr(self.form.nlink())?;
        let kind = if self.below.find(here.name)?.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let mut found = Found::new(path.join(here.name), kind);
        found.linked = linked(stat);
        self.found.push(found);
        Ok(())
    }
}

impl Visitor for Upper {
    fn enter(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let here = At { dir, name: OsStr::new("") };
        let is_root = path.as_os_str().is_empty();
        if is_root {
            self.found.extend(root(here, &self.below)?);
        }
        self.below.enter(path)?;
        let opaque = !is_root && is_opaque(dir, self.form)?;
        if opaque {
            self.below.hide();
        }
        self.opaque.push(opaque);
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, kind: FileType) -> Result<bool, Error> {
        let here = At { dir, name };
        let Some(stat) = here.stat()? else { return Ok(false) };
        if kind == FileType::Directory {
            self.directory(here, &stat, path)?;
        } else if here.is_whiteout(&stat, self.form)? {
            if self.below.find(name)?.is_some() {
                self.found.push(Found::new(path.join(name), ChangeKind::Deleted));
            }
        } else {
            self.file(here, &stat, path)?;
        }
        Ok(true)
    }

    fn leave(&mut self, _: BorrowedFd<'_>, _: &Path) -> Result<(), Error> {
        if self.opaque.pop() == Some(true) {
            self.below.unhide();
        }
        self.below.leave()
    }
}
