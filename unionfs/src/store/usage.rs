//! How much of the disk a layer takes.

use super::{LayerId, LayerStore};
use crate::walk::{Visitor, walk};
use crate::{Error, Operation};
use rustix::fs::{AtFlags, FileType, statat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// What a tree takes of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// What its files and directories occupy, as `du(1)` counts it: a hard link once, holes not at all.
    pub bytes: u64,
    /// How many files, directories and others there are, a hard link once, the root not counted.
    pub inodes: u64,
}

impl LayerStore {
    /// How much of the disk a layer takes by itself. Goes through all of it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), also if the layer is removed meanwhile; what the system calls say.
    #[doc(alias = "du")]
    pub fn usage(&self, id: &LayerId) -> Result<Usage, Error> {
        let operation = Operation::MeasureUsage;
        let layer = self.layer(id)?.ok_or_else(|| super::no_such_layer(operation, id))?;
        usage(layer.as_fd(), operation)
    }
}

/// How much of the disk a tree takes.
pub(crate) fn usage(top: BorrowedFd<'_>, operation: Operation) -> Result<Usage, Error> {
    let mut sum = Sum { operation, usage: Usage::default(), linked: HashSet::new() };
    walk(top, operation, &mut sum)?;
    Ok(sum.usage)
}

struct Sum {
    operation: Operation,
    usage: Usage,
    /// What has been counted already and may be seen again.
    linked: HashSet<(u64, u64)>,
}

impl Visitor for Sum {
    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, kind: FileType) -> Result<bool, Error> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::os(self.operation, "newfstatat", e).about(path.join(name)))?;
        if kind != FileType::Directory && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return Ok(false);
        }
        self.usage.inodes += 1;
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        Ok(true)
    }
}
