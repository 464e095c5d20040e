//! Directories below a root, opened by paths without symlinks, and descriptors of those that were used last.
//!
//! Each is opened from the root with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`: if somebody puts a symlink in the place of a directory
//! meanwhile, opening fails instead of leading elsewhere.

use super::name::{TreePath, join, split};
use super::tree::{fail, interfered};
use super::unlocked::open_up;
use crate::Error;
use crate::layout::open_beneath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, statat, unlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// As many directories are kept open.
const CACHED: usize = 32;

/// Directories in each other that are removed: as many descriptors are open then.
const DEEPEST: usize = 512;

#[derive(Debug)]
pub(crate) struct Dirs {
    root: Arc<OwnedFd>,
    /// Used last comes last.
    cache: Vec<(TreePath, Arc<OwnedFd>)>,
}

impl Dirs {
    pub(crate) fn new(root: BorrowedFd<'_>) -> Result<Self, Error> {
        let root = open_root(root).map_err(fail("openat2", b"."))?;
        Ok(Dirs { root: Arc::new(root), cache: Vec::new() })
    }

    /// Opens a directory that is known to be there.
    pub(crate) fn open(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        self.open_cached(path).map_err(|errno| match errno {
            // It was there a moment ago.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV => interfered(path),
            errno => fail("openat2", path)(errno),
        })
    }

    /// As [`open`](Self::open); `None` if there is no directory at this path. That it cannot be opened does not mean that it is not there.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Option<Arc<OwnedFd>>, Error> {
        match self.open_cached(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(fail("openat2", path)(errno)),
        }
    }

    fn open_cached(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(index) = self.cache.iter().rposition(|(cached, _)| cached == path) {
            let used = self.cache.remove(index);
            let fd = Arc::clone(&used.1);
            self.cache.push(used);
            return Ok(fd);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = Arc::new(open_beneath(&*self.root, path, flags)?);
        if self.cache.len() >= CACHED {
            self.cache.remove(0);
        }
        self.cache.push((path.to_vec(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Forgets what is at and below a path: it is about to be removed.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let below = join(path, b"");
        self.cache.retain(|(cached, _)| cached != path && !cached.starts_with(&below));
    }

    /// Removes what is at `path`, a directory with all that is in it. Nothing there is fine.
    pub(super) fn remove_all(&mut self, path: &[u8]) -> Result<(), Error> {
        self.forget(path);
        let (parent, leaf) = split(path);
        let dir = self.open(parent)?;
        remove_all(dir.as_fd(), leaf, path, DEEPEST)
    }

    /// Removes all that is in a directory.
    pub(super) fn clear(&mut self, path: &[u8]) -> Result<(), Error> {
        let dir = self.open(path)?;
        for name in names(dir.as_fd(), path)? {
            let path = join(path, &name);
            self.forget(&path);
            remove_all(dir.as_fd(), &name, &path, DEEPEST)?;
        }
        Ok(())
    }
}

/// Opens a directory that is open for a purpose of ours; if its mode forbids that, for the caller's purpose.
pub(super) fn open_root(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    match open_beneath(root, ".", OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::ACCESS) => rustix::io::fcntl_dupfd_cloexec(root, 0),
        opened => opened,
    }
}

/// What is in a directory.
pub(crate) fn names(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(fail("openat", path))? {
        let entry = entry.map_err(fail("getdents64", path))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// The status of a name in a directory, without following it.
pub(crate) fn stat_in(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Error> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(fail("newfstatat", name)(errno)),
    }
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Makes sure that the owner can change what is in a directory. (Root always can.)
pub(super) fn unlock(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    let stat = fstat(dir).map_err(fail("fstat", path))?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if !mode.contains(Mode::RWXU) {
        fchmod(dir, mode | Mode::RWXU).map_err(fail("fchmod", path))?;
    }
    Ok(())
}

fn remove_all(dir: BorrowedFd<'_>, name: &[u8], path: &[u8], deepest: usize) -> Result<(), Error> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What a directory answers, depending on the file system.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(fail("unlinkat", path)(errno)),
    }
    if deepest == 0 {
        return Err(Error::refused("would remove a tree that is too deep"));
    }
    let open = |flags| open_beneath(dir, name, flags | OFlags::DIRECTORY);
    let inner = open(OFlags::RDONLY).or_else(|errno| {
        // As it is its owner's, it can be removed whatever its mode is.
        if errno == Errno::ACCESS {
            open_up(open(OFlags::PATH)?.as_fd())?;
            return open(OFlags::RDONLY);
        }
        Err(errno)
    });
    let inner = inner.map_err(fail("openat2", path))?;
    unlock(inner.as_fd(), path)?;
    for name in names(inner.as_fd(), path)? {
        remove_all(inner.as_fd(), &name, &join(path, &name), deepest - 1)?;
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(fail("unlinkat", path))
}
