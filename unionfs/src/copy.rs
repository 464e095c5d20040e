//! Copying entries from one tree into another, with all that an archive could say of them.

mod data;
mod flatten;

pub(crate) use flatten::flatten;

use crate::dir::{entries, open_directory};
use crate::facts::{At, is_directory, linked};
use crate::remove::remove_tree;
use crate::{Error, Operation};
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, linkat,
    lremovexattr, lsetxattr, mkdirat, mknodat, openat2, symlinkat, utimensat,
};
use rustix::fs::{XattrFlags, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Fills a tree that nobody else writes to. What is in the way of an entry is removed; directories merge.
pub(crate) struct Copier<'a> {
    root: BorrowedFd<'a>,
    operation: Operation,
    /// Files of several names: the one under which they are here.
    links: HashMap<(u64, u64), PathBuf>,
    /// Directories that get these when nothing is made in them any more: until then their owner has to be able to fill them.
    pending: BTreeMap<PathBuf, Pending>,
}

/// What a directory gets at the end.
struct Pending {
    mode: Mode,
    times: Timestamps,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, operation: Operation) -> Self {
        Copier { root, operation, links: HashMap::new(), pending: BTreeMap::new() }
    }

    /// Makes `path` what `from` is, of which `stat` tells. A directory is made without what is in it; the empty path is the root.
    pub(crate) fn put(&mut self, from: At<'_>, stat: &Stat, path: &Path) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        let made = self.make(from, stat, parent.as_fd(), name, path);
        let made = made.map_err(|e| e.during(self.operation).about(path))?;
        if made {
            self.dress(from, stat, At { dir: parent.as_fd(), name }, path)
                .map_err(|e| e.during(self.operation).about(path))?;
        }
        Ok(())
    }

    /// The files of another layer are others, even if they have the same numbers.
    pub(crate) fn forget_links(&mut self) {
        self.links.clear();
    }

    /// Makes an empty directory of this mode, or gives one that is there the mode, at once: with less than 0700 nothing could be made in it.
    pub(crate) fn new_directory(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        if !path.as_os_str().is_empty() {
            self.make_directory(parent.as_fd(), name).map_err(|e| e.about(path))?;
        }
        chmodat(&parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
            .map_err(|e| self.failed("fchmodat", e, path))
    }

    /// Makes a file with this content.
    pub(crate) fn new_file(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        remove_tree(parent.as_fd(), name, self.operation)?;
        let written = data::write(parent.as_fd(), name, content, Mode::from_raw_mode(mode));
        written.map_err(|(call, e)| self.failed(call, e, path))
    }

    /// Makes a symbolic link.
    pub(crate) fn new_link(&mut self, path: &Path, target: &Path) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        let link = || symlinkat(target, &parent, name);
        self.instead(parent.as_fd(), name, "symlinkat", link).map_err(|e| e.about(path))
    }

    /// Takes away what is there under a name.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let (parent, name) = self.parent(path)?;
        self.pending.retain(|other, _| !other.starts_with(path));
        remove_tree(parent.as_fd(), name, self.operation)
    }

    /// Takes away what is in a directory.
    pub(crate) fn clear(&mut self, path: &Path) -> Result<(), Error> {
        let dir = self.directory(path)?;
        let mut names = Vec::new();
        entries(&dir, |name, _| names.push(name.to_owned())).map_err(|(call, e)| self.failed(call, e, path))?;
        self.pending.retain(|other, _| other == path || !other.starts_with(path));
        names.iter().try_for_each(|name| remove_tree(dir.as_fd(), name, self.operation))
    }

    /// Sets modes and times of directories, those inside first. Nothing may be made after that.
    pub(crate) fn finish(self) -> Result<(), Error> {
        for (path, Pending { mode, times }) in self.pending.iter().rev() {
            let (parent, name) = self.parent(path)?;
            utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| self.failed("utimensat", e, path))?;
            // After that its owner may not even look it up.
            chmodat(&parent, name, *mode, AtFlags::empty()).map_err(|e| self.failed("fchmodat", e, path))?;
        }
        Ok(())
    }

    /// A directory of the tree, open for reading: no link leads out of it.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd, Error> {
        let opened =
            if path.as_os_str().is_empty() { open_directory(self.root, ".") } else { beneath(self.root, path) };
        opened.map_err(|e| self.failed("openat2", e, path))
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Error> {
        let name = path.file_name().unwrap_or(OsStr::new("."));
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Makes an entry, empty of attributes; the answer is no if it is another name of a file that is there already.
    fn make(
        &mut self,
        from: At<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<bool, Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && self.pending.contains_key(path) {
            // It was a directory.
            self.pending.retain(|other, _| !other.starts_with(path));
        }
        if let Some(file) = linked(stat) {
            if let Some(first) = self.links.get(&file) {
                let (there, first) = self.parent(first)?;
                let link = || linkat(&there, first, dir, name, AtFlags::empty());
                return self.instead(dir, name, "linkat", link).map(|()| false);
            }
            self.links.insert(file, path.to_owned());
        }
        if kind == FileType::Directory {
            return self.make_directory(dir, name).map(|()| true);
        }
        if kind == FileType::RegularFile {
            return data::copy(from, stat, dir, name, || remove_tree(dir, name, self.operation)).map(|()| true);
        }
        if kind == FileType::Symlink {
            let target = from.target()?;
            return self.instead(dir, name, "symlinkat", || symlinkat(target.as_os_str(), dir, name)).map(|()| true);
        }
        let device: Dev = stat.st_rdev;
        self.instead(dir, name, "mknodat", || mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)).map(|()| true)
    }

    fn make_directory(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
        let fail = |call| move |e| Error::os(self.operation, call, e);
        match mkdirat(dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(fail("mkdirat")),
        }
        let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("newfstatat"))?;
        if !is_directory(&there) {
            return self.instead(dir, name, "mkdirat", || mkdirat(dir, name, Mode::RWXU));
        }
        if Mode::from_raw_mode(there.st_mode).contains(Mode::RWXU) {
            return Ok(());
        }
        chmodat(dir, name, Mode::RWXU, AtFlags::empty()).map_err(fail("fchmodat"))
    }

    /// Makes something, in place of what has its name.
    fn instead(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        call: &'static str,
        make: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Error> {
        let result = match make() {
            Err(Errno::EXIST) => {
                remove_tree(dir, name, self.operation)?;
                make()
            }
            result => result,
        };
        result.map_err(|e| Error::os(self.operation, call, e))
    }

    /// Gives an entry its attributes, in this order: a change of owner clears bits of the mode and capabilities, and all change times.
    fn dress(&mut self, from: At<'_>, stat: &Stat, to: At<'_>, path: &Path) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let operation = self.operation;
        let fail = |call| move |e| Error::os(operation, call, e);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let now = statat(to.dir, to.name, nofollow).map_err(fail("newfstatat"))?;
        if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(to.dir, to.name, Some(uid), Some(gid), nofollow).map_err(fail("fchownat"))?;
        }
        self.attributes(&from.xattrs()?, to)?;
        let (mode, times) = (Mode::from_raw_mode(stat.st_mode & 0o7777), times(stat));
        if kind == FileType::Directory {
            self.pending.insert(path.to_owned(), Pending { mode, times });
            return Ok(());
        }
        if kind != FileType::Symlink {
            chmodat(to.dir, to.name, mode, AtFlags::empty()).map_err(fail("fchmodat"))?;
        }
        utimensat(to.dir, to.name, &times, nofollow).map_err(fail("utimensat"))
    }

    fn attributes(&self, wanted: &BTreeMap<OsString, Vec<u8>>, to: At<'_>) -> Result<(), Error> {
        let path = to.path();
        for name in to.xattrs()?.keys().filter(|name| !wanted.contains_key(*name)) {
            lremovexattr(&path, name.as_os_str()).map_err(|e| Error::os(self.operation, "lremovexattr", e))?;
        }
        for (name, value) in wanted {
            lsetxattr(&path, name.as_os_str(), value, XattrFlags::empty())
                .map_err(|e| Error::os(self.operation, "lsetxattr", e))?;
        }
        Ok(())
    }

    fn failed(&self, call: &'static str, errno: Errno, path: &Path) -> Error {
        Error::os(self.operation, call, errno).about(path)
    }
}

/// A directory below another one, through no link and no mount.
pub(crate) fn beneath(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), resolve)
}

fn times(stat: &Stat) -> Timestamps {
    // Nanoseconds are below a milliard, and a time before 1970 is negative in its seconds alone.
    let time =
        |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
