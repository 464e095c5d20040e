//! The writable layer: the directories `upper` and `work`, side by side.

use crate::dir::open_directory;
use crate::remove::remove_tree;
use crate::{Error, ErrorKind, Operation};
use rustix::fs::AtFlags;
use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat2, unlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

const UPPER: &str = "upper";
const WORK: &str = "work";
/// Where in the work directory the kernel notes that a mount was volatile, and what else it knows of such notes.
const INCOMPAT: &str = "work/incompat";
const VOLATILE: &str = "work/incompat/volatile";

/// A place for what is written: the directories `upper` and `work` in a directory of the caller's.
///
/// ```no_run
/// # use cofferdam_unionfs::{Overlay, WritableLayer};
/// let place = std::fs::File::open("/var/lib/build/42")?;
/// let layer = WritableLayer::create(&place)?;
/// let merged = Overlay::new().lower("/var/lib/layers/debian").writable(&layer).mount()?;
/// // ...
/// drop(merged);
/// WritableLayer::remove(&place)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The file system must be one that the kernel takes as an upper: not an overlay itself, with `d_type`, `RENAME_WHITEOUT` and extended attributes. ext4, xfs,
/// btrfs and tmpfs are. Dropping the value deletes nothing.
#[derive(Debug)]
#[doc(alias("upperdir", "workdir"))]
pub struct WritableLayer {
    upper: Arc<OwnedFd>,
    work: Arc<OwnedFd>,
}

/// What to do with a layer that has been mounted with [`volatile`](crate::Overlay::volatile).
///
/// The kernel cannot tell whether the machine went down meanwhile; the caller may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum AfterVolatile {
    /// Refuse it, [`ErrorKind::Volatile`]: what was written may be on the disk in part.
    #[default]
    Refuse,
    /// Take it as it is, and remove the kernel's mark so that it can be mounted again.
    Accept,
}

impl WritableLayer {
    /// Makes both directories in `dir`. They belong to the caller; `upper` has mode 0755, whatever the umask.
    ///
    /// The root of the merged tree has the owner and mode of `upper`, not of the lowers: see [`set_root_like`](Self::set_root_like).
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if either exists; what the system calls say. What was made is removed again then.
    pub fn create(dir: impl AsFd) -> Result<Self, Error> {
        let dir = dir.as_fd();
        let work = make(dir, WORK, 0o700)?;
        match make(dir, UPPER, 0o755) {
            Ok(upper) => Ok(WritableLayer { upper: Arc::new(upper), work: Arc::new(work) }),
            Err(error) => {
                // The error that is told is the first one.
                let _ = unlinkat(dir, WORK, AtFlags::REMOVEDIR);
                Err(error)
            }
        }
    }

    /// Finds in `dir` what [`create`](Self::create) made, with what has been written since.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Volatile`](ErrorKind::Volatile) unless `after` accepts it; what the system calls say.
    pub fn open(dir: impl AsFd, after: AfterVolatile) -> Result<Self, Error> {
        let dir = dir.as_fd();
        let upper = open_directory(dir, UPPER).map_err(|e| prepare("openat2", e, UPPER))?;
        let work = open_directory(dir, WORK).map_err(|e| prepare("openat2", e, WORK))?;
        if was_volatile(&work).map_err(|e| prepare("openat2", e, VOLATILE))? {
            match after {
                AfterVolatile::Refuse => return Err(volatile_error(Operation::PrepareWritable, WORK)),
                AfterVolatile::Accept => forget_volatile(&work)?,
            }
        }
        Ok(WritableLayer { upper: Arc::new(upper), work: Arc::new(work) })
    }

    /// Deletes what [`create`](Self::create) made in `dir`, with all that is in it. What is missing is no error, so that it can be
    /// repeated after a crash.
    ///
    /// No mount may use it any more. Symbolic links are deleted and never followed, and other file systems that are mounted in there are not
    /// entered but an error. However deep the tree is, it takes two descriptors. Blocks for as long as it takes.
    ///
    /// # Errors
    /// What the system calls say, with the path in `dir`; the rest is still there then.
    pub fn remove(dir: impl AsFd) -> Result<(), Error> {
        let dir = dir.as_fd();
        remove_tree(dir, OsStr::new(WORK), Operation::RemoveWritable)?;
        remove_tree(dir, OsStr::new(UPPER), Operation::RemoveWritable)
    }

    /// Gives the root of the merged tree the owner and mode of another directory, such as the topmost lower. Its extended attributes
    /// and times are not copied.
    ///
    /// # Errors
    /// What the system calls say; [`PermissionDenied`](ErrorKind::PermissionDenied) for an owner that the caller may not set.
    pub fn set_root_like(&self, other: impl AsFd) -> Result<(), Error> {
        let stat: Stat = fstat(other).map_err(|e| prepare("fstat", e, "the other directory"))?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        own(&self.upper, UPPER, (uid, gid), Mode::from_raw_mode(stat.st_mode))
    }

    /// The directory that holds what was written, as overlayfs does: new and changed files, whiteouts, opaque directories. Open for reading.
    #[must_use]
    pub fn upper(&self) -> &Arc<OwnedFd> {
        &self.upper
    }

    /// The kernel's work directory.
    #[must_use]
    pub fn work(&self) -> &Arc<OwnedFd> {
        &self.work
    }
}

fn prepare(call: &'static str, errno: Errno, object: impl Into<OsString>) -> Error {
    Error::os(Operation::PrepareWritable, call, errno).about(object)
}

/// Makes a directory that belongs to the caller, also in one that passes its group on.
fn make(dir: BorrowedFd<'_>, name: &'static str, mode: u32) -> Result<OwnedFd, Error> {
    let mode = Mode::from_raw_mode(mode);
    mkdirat(dir, name, Mode::RWXU).map_err(|e| prepare("mkdirat", e, name))?;
    let result = open_directory(dir, name)
        .map_err(|e| prepare("openat2", e, name))
        .and_then(|fd| own(&fd, name, (geteuid(), getegid()), mode).map(|()| fd));
    if result.is_err() {
        // The error that is told is the first one.
        let _ = unlinkat(dir, name, AtFlags::REMOVEDIR);
    }
    result
}

/// In this order: a change of owner can clear bits of the mode.
fn own(fd: &OwnedFd, name: &str, (uid, gid): (Uid, Gid), mode: Mode) -> Result<(), Error> {
    fchown(fd, Some(uid), Some(gid)).map_err(|e| prepare("fchown", e, name))?;
    fchmod(fd, mode).map_err(|e| prepare("fchmod", e, name))
}

/// Whether a mount with this work directory was volatile.
pub(crate) fn was_volatile(work: impl AsFd) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(work, VOLATILE, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(crate) fn volatile_error(operation: Operation, object: impl Into<OsString>) -> Error {
    let words = "has been mounted as volatile, and may be incomplete";
    Error::explained(ErrorKind::Volatile, operation, words).about(object)
}

fn forget_volatile(work: &OwnedFd) -> Result<(), Error> {
    let incompat = open_directory(work.as_fd(), INCOMPAT).map_err(|e| prepare("openat2", e, INCOMPAT))?;
    remove_tree(incompat.as_fd(), OsStr::new("volatile"), Operation::PrepareWritable)
}
