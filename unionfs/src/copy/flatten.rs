//! What a stack of layers shows, as a plain tree: what overlayfs does, done once and for all by copying.

use super::Copier;
use crate::facts::At;
use crate::walk::{Visitor, walk};
use crate::{Error, Form, Operation, is_opaque};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Fills an empty directory with what the layers show, topmost first, whose whiteouts are in this form.
pub(crate) fn flatten<'a>(
    layers: impl DoubleEndedIterator<Item = BorrowedFd<'a>>,
    form: Form,
    to: BorrowedFd<'_>,
    operation: Operation,
) -> Result<(), Error> {
    let mut copier = Copier::new(to, operation);
    for layer in layers.rev() {
        copier.forget_links();
        let mut visitor = Layer { copier: &mut copier, form, operation };
        walk(layer, operation, &mut visitor)?;
    }
    copier.finish()
}

struct Layer<'c, 'a> {
    copier: &'c mut Copier<'a>,
    form: Form,
    operation: Operation,
}

impl Visitor for Layer<'_, '_> {
    fn enter(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let here = At { dir, name: OsStr::new("") };
        if path.as_os_str().is_empty()
            && let Some(stat) = here.stat()?
        {
            self.copier.put(here, &stat, path)?;
        }
        if is_opaque(dir, self.form).map_err(|e| e.during(self.operation).about(path))? {
            self.copier.clear(path)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, _: FileType) -> Result<bool, Error> {
        let here = At { dir, name };
        let Some(stat) = here.stat()? else { return Ok(false) };
        let path = path.join(name);
        if here.is_whiteout(&stat, self.form)? {
            self.copier.remove(&path)?;
        } else {
            self.copier.put(here, &stat, &path)?;
        }
        Ok(true)
    }
}
