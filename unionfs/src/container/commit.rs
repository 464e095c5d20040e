//! From what a container has changed to a layer.

use super::Container;
use crate::copy::{Copier, beneath};
use crate::facts::At;
use crate::{ChangeKind, Diff, Error, Form, LayerId, Operation, StoredLayer, make_opaque, make_whiteout};
use rustix::fs::Stat;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

impl Container {
    /// Makes a layer of what has [changed](Self::diff), standing on what the container stands on, and needed by its owner. Data is shared where the file
    /// system can. The container can be used on, and committed again under another name. Nothing may write to it meanwhile.
    ///
    /// # Errors
    /// As [`Stage::publish`](crate::Stage::publish) and [`diff`](Self::diff); what the system calls say. The layer is not in the store then, with the exception told there.
    pub fn commit(&self, id: &LayerId) -> Result<StoredLayer, Error> {
        let diff = self.diff()?;
        let stage = self.store.stage(&self.owner)?;
        match write_layer(&diff, stage.as_fd(), self.store.form()) {
            Ok(()) => stage.publish(id, self.parent.as_ref()),
            Err(error) => {
                // The error that is told is the first one; what is left goes with the next opening.
                let _ = stage.discard();
                Err(error)
            }
        }
    }
}

/// Writes changes as a layer into an empty directory.
fn write_layer(diff: &Diff, to: BorrowedFd<'_>, form: Form) -> Result<(), Error> {
    let mut layer = Writer {
        source: diff.source(),
        copier: Copier::new(to, Operation::Commit),
        made: HashSet::from([PathBuf::new()]),
    };
    // Whether or not it has changed: what is seen of a merged root is the topmost.
    layer.put(Path::new(""))?;
    for change in diff.changes().iter().filter(|change| !change.path.as_os_str().is_empty()) {
        let path = change.path.as_path();
        layer.lead_to(path)?;
        let link = change.link_to.is_some();
        if change.kind == ChangeKind::Deleted {
            layer.hide(path)?;
        } else if layer.put(path)? && !link {
            layer.made.insert(path.to_owned());
        }
        if change.opaque {
            make_opaque(layer.copier.directory(path)?, form).map_err(|e| e.during(Operation::Commit).about(path))?;
        }
    }
    layer.copier.finish()
}

struct Writer<'a> {
    source: BorrowedFd<'a>,
    copier: Copier<'a>,
    /// The directories of the layer.
    made: HashSet<PathBuf>,
}

impl Writer<'_> {
    /// Makes the directories above a change that have not changed themselves: as they are.
    fn lead_to(&mut self, path: &Path) -> Result<(), Error> {
        let mut missing: Vec<&Path> =
            path.ancestors().skip(1).take_while(|above| !self.made.contains(*above)).collect();
        missing.reverse();
        for above in missing {
            self.put(above)?;
            self.made.insert(above.to_owned());
        }
        Ok(())
    }

    /// Copies an entry; the answer is whether it is a directory.
    fn put(&mut self, path: &Path) -> Result<bool, Error> {
        let (dir, name) = open_parent(self.source, path)?;
        let here = At { dir: dir.as_fd(), name };
        let Some(stat) = here.stat()? else {
            let gone = rustix::io::Errno::NOENT;
            return Err(Error::os(Operation::Commit, "newfstatat", gone).about(path));
        };
        self.copier.put(here, &stat, path)?;
        Ok(is_directory(&stat))
    }

    fn hide(&mut self, path: &Path) -> Result<(), Error> {
        let parent = self.copier.directory(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().unwrap_or_default();
        make_whiteout(parent, name).map_err(|e| e.during(Operation::Commit).about(path))
    }
}

fn is_directory(stat: &Stat) -> bool {
    crate::facts::is_directory(stat)
}

fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Error> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let dir = beneath(root, parent).map_err(|e| Error::os(Operation::Commit, "openat2", e).about(parent))?;
    Ok((dir, path.file_name().unwrap_or_default()))
}
