//! Making sure that a layer is on the disk before it is called published.

use crate::walk::{Visitor, walk};
use crate::{Error, Operation};
use rustix::fs::{FileType, Mode, OFlags, fsync, openat, syncfs};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// What a [`LayerStore`](crate::LayerStore) does so that its layers outlive a loss of power.
///
/// With any of them the store never shows a half layer, whatever happens when. They differ in what is left after the *machine* has gone
/// down. The end of a process, by `SIGKILL` too, loses nothing that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[doc(alias("fsync", "syncfs", "durability"))]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SyncPolicy {
    /// Nothing is waited for. A layer that was published so is gone after a restart of the machine, because nobody can know whether it is whole
    /// (unless [`persist`](crate::LayerStore::persist) was called): for caches, and for what can be unpacked again.
    None,
    /// One `syncfs(2)` for each layer: all that anybody has written to that file system is waited for. The fastest way for
    /// layers of many files.
    #[default]
    Filesystem,
    /// `fsync(2)` for each file and directory of the layer: others' writes are not waited for. If the layer has some that the caller may not open (an ordinary
    /// user a file of mode 0000, as `/etc/shadow` often is), it is as [`Filesystem`](Self::Filesystem).
    PerFile,
}

impl SyncPolicy {
    pub(super) fn is_durable(self) -> bool {
        self != SyncPolicy::None
    }

    /// Waits until the tree `top` is on the disk, if that is asked for.
    pub(super) fn sync(self, top: BorrowedFd<'_>, operation: Operation) -> Result<(), Error> {
        match self {
            SyncPolicy::None => Ok(()),
            SyncPolicy::Filesystem => filesystem(top, operation),
            SyncPolicy::PerFile => match walk(top, operation, &mut EachFile { operation }) {
                // What cannot be opened cannot be waited for by itself.
                Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => filesystem(top, operation),
                result => result,
            },
        }
    }
}

fn filesystem(top: BorrowedFd<'_>, operation: Operation) -> Result<(), Error> {
    syncfs(top).map_err(|e| Error::os(operation, "syncfs", e))
}

struct EachFile {
    operation: Operation,
}

impl Visitor for EachFile {
    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, kind: FileType) -> Result<bool, Error> {
        if kind == FileType::RegularFile {
            let operation = self.operation;
            let fail = |call| move |e| Error::os(operation, call, e).about(path.join(name));
            let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | careful, Mode::empty());
            fsync(file.map_err(fail("openat"))?).map_err(fail("fsync"))?;
        }
        Ok(true)
    }

    fn leave(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        fsync(dir).map_err(|e| Error::os(self.operation, "fsync", e).about(path))
    }
}
