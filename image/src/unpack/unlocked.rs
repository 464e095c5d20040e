//! Directories of a tree whose mode keeps out even their owner. (It keeps nobody out who has `CAP_DAC_OVERRIDE`.) To look into them and to merge them, the owner opens
//! them up for a while.

use super::name::TreePath;
use super::tree::{cost, fail};
use crate::Error;
use crate::layout::open_beneath;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, fstat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directories that were opened up, and the modes that they had.
#[derive(Debug, Clone, Default)]
pub(super) struct Unlocked(Arc<Mutex<Modes>>);

#[derive(Debug, Default)]
struct Modes {
    modes: BTreeMap<TreePath, Mode>,
    kept: u64,
}

impl Unlocked {
    /// Opens a directory by its name in another one, and opens it up if its mode forbids that. `path` is where in the tree it is.
    pub(super) fn open(&self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
        let open = |flags| open_beneath(dir, name, flags | OFlags::DIRECTORY);
        match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => {
                self.open_up(open(OFlags::PATH)?.as_fd(), path)?;
                open(OFlags::RDONLY)
            }
            opened => opened,
        }
    }

    /// Does something in a directory; once more when it is opened up, if its mode forbids that.
    pub(super) fn within<T>(
        &self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        act: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match act() {
            Err(Errno::ACCESS) => {
                self.open_up(dir, path)?;
                act()
            }
            done => done,
        }
    }

    fn open_up(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
        let mode = open_up(dir)?;
        let mut all = self.all();
        if !all.modes.contains_key(path) {
            all.kept = all.kept.saturating_add(cost(path.len()));
            all.modes.insert(path.to_vec(), mode);
        }
        Ok(())
    }

    /// The mode that a directory had.
    pub(super) fn mode(&self, path: &[u8]) -> Option<Mode> {
        self.all().modes.get(path).copied()
    }

    /// Bytes that all this takes in memory.
    pub(super) fn kept(&self) -> u64 {
        self.all().kept
    }

    /// Forgets a directory: it is the layer's now, and has another mode in the end.
    pub(super) fn forget(&self, path: &[u8]) {
        self.all().modes.remove(path);
    }

    /// Gives those of them that are `wanted` their modes back, children before their parents. What is not there any more need not be locked.
    pub(super) fn lock_again(&self, root: BorrowedFd<'_>, wanted: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        let mut all = self.all();
        let modes = std::mem::take(&mut all.modes);
        let (wanted, others) = modes.into_iter().partition::<BTreeMap<_, _>, _>(|(path, _)| wanted(path));
        all.modes = others;
        let lock = |path: &[u8], mode| match path {
            b"" => change(root, mode),
            path => change(open_beneath(root, path, OFlags::PATH | OFlags::DIRECTORY)?.as_fd(), mode),
        };
        for (path, mode) in wanted.into_iter().rev() {
            match lock(&path, mode) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(fail("fchmodat", &path)(errno)),
            }
        }
        Ok(())
    }

    fn all(&self) -> MutexGuard<'_, Modes> {
        // What is behind it is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the owner of a directory read, change and enter it. Returns the mode that it had.
pub(super) fn open_up(dir: BorrowedFd<'_>) -> Result<Mode, Errno> {
    let mode = Mode::from_raw_mode(fstat(dir)?.st_mode & 0o7777);
    change(dir, mode | Mode::RWXU)?;
    Ok(mode)
}

/// The descriptor may be one that says only where the directory is.
fn change(dir: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
    chmodat(CWD, format!("/proc/self/fd/{}", dir.as_raw_fd()).as_str(), mode, AtFlags::empty())
}
