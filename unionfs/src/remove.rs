//! Deleting a tree that others have filled, without being led out of it.

use crate::layer::Identity;
use crate::{Error, Operation};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, chmodat, fchmod, fstat, openat2, seek,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How often a directory is read again before its deletion is tried: once, unless its file system skips entries while others go.
const PASSES: usize = 8;

/// Deletes `name` in `dir` and all below it. What is not there is fine.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr, operation: Operation) -> Result<(), Error> {
    let mut walk = Walk { operation, levels: Vec::new() };
    if walk.delete(dir, name)? {
        return Ok(());
    }
    let mut here = walk.enter(dir, name)?;
    loop {
        if let Some(child) = walk.clear(here.as_fd())? {
            here = walk.enter(here.as_fd(), &child)?;
            continue;
        }
        let Some(done) = walk.levels.pop() else {
            return Ok(());
        };
        let Some(parent) = walk.levels.last() else {
            return walk.delete_empty(dir, &done.name);
        };
        here = walk.leave(&here, parent.identity)?;
        walk.delete_empty(here.as_fd(), &done.name)?;
    }
}

/// A walk through a tree of any depth that holds one directory open: the way back up is `..`, checked against what was seen on the way down.
struct Walk {
    operation: Operation,
    levels: Vec<Level>,
}

struct Level {
    name: OsString,
    identity: Identity,
}

impl Walk {
    /// Deletes one entry, unless it is a directory that is not empty: then the answer is no.
    fn delete(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Error> {
        // Work directories have mode 0: whether one is empty is found out without opening it.
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::NOTDIR) => match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(true),
                Err(e) => Err(self.failed("unlinkat", e, name)),
            },
            Err(e) => Err(self.failed("unlinkat", e, name)),
        }
    }

    /// Deletes a directory that has just been cleared.
    fn delete_empty(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed("unlinkat", e, name)),
        }
    }

    /// Deletes what it can in a directory; the answer is a directory in it that has to be cleared first.
    fn clear(&self, dir: BorrowedFd<'_>) -> Result<Option<OsString>, Error> {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        for _ in 0..PASSES {
            seek(dir, SeekFrom::Start(0)).map_err(|e| self.failed("lseek", e, OsStr::new("")))?;
            let mut entries = RawDir::new(dir, &mut buffer);
            let mut seen = false;
            while let Some(entry) = entries.next() {
                let entry = entry.map_err(|e| self.failed("getdents64", e, OsStr::new("")))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                seen = true;
                let gone = match entry.file_type() {
                    FileType::Directory | FileType::Unknown => self.delete(dir, name)?,
                    _ => match unlinkat(dir, name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => true,
                        Err(e) => return Err(self.failed("unlinkat", e, name)),
                    },
                };
                if !gone {
                    return Ok(Some(name.to_owned()));
                }
            }
            if !seen {
                break;
            }
        }
        Ok(None)
    }

    /// Opens a directory to clear it: no link, and nothing that is mounted there.
    fn enter(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Error> {
        let fd = match open(dir, name, OFlags::RDONLY) {
            Err(Errno::ACCESS) => {
                let closed = open(dir, name, OFlags::PATH).map_err(|e| self.failed("openat2", e, name))?;
                let link = format!("/proc/thread-self/fd/{}", closed.as_raw_fd());
                chmodat(CWD, link, Mode::RWXU, AtFlags::empty()).map_err(|e| self.failed("fchmodat", e, name))?;
                open(dir, name, OFlags::RDONLY)
            }
            result => result,
        };
        let fd = fd.map_err(|e| self.failed("openat2", e, name))?;
        let stat = fstat(&fd).map_err(|e| self.failed("fstat", e, name))?;
        if !Mode::from_raw_mode(stat.st_mode).contains(Mode::RWXU) {
            // Who may do everything does not need it; who may not will hear so from what comes next.
            let _ = fchmod(&fd, Mode::RWXU);
        }
        self.levels.push(Level { name: name.to_owned(), identity: (stat.st_dev, stat.st_ino) });
        Ok(fd)
    }

    /// Goes back up, and makes sure that this is where it came from: who moves a directory meanwhile would lead it elsewhere.
    fn leave(&self, here: &OwnedFd, parent: Identity) -> Result<OwnedFd, Error> {
        let up = OsStr::new("..");
        let fd = open(here.as_fd(), up, OFlags::RDONLY).map_err(|e| self.failed("openat2", e, up))?;
        let stat = fstat(&fd).map_err(|e| self.failed("fstat", e, up))?;
        if (stat.st_dev, stat.st_ino) == parent {
            return Ok(fd);
        }
        Err(self.failed("openat2", Errno::STALE, up))
    }

    fn failed(&self, call: &'static str, errno: Errno, name: &OsStr) -> Error {
        let path: PathBuf = self.levels.iter().map(|l| l.name.as_os_str()).chain([name]).collect();
        Error::os(self.operation, call, errno).about(path)
    }
}

fn open(dir: BorrowedFd<'_>, name: &OsStr, how: OFlags) -> Result<OwnedFd, Errno> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::fs::{self, File};

    #[test]
    fn a_directory_that_was_moved_does_not_lead_elsewhere() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["tree/inner", "outside"] {
            fs::create_dir_all(temp.path().join(dir)).unwrap();
        }
        let top = File::open(temp.path()).unwrap();
        let mut walk = Walk { operation: Operation::RemoveWritable, levels: Vec::new() };
        let tree = walk.enter(top.as_fd(), OsStr::new("tree")).unwrap();
        let inner = walk.enter(tree.as_fd(), OsStr::new("inner")).unwrap();
        walk.levels.pop();
        let parent = walk.levels.last().unwrap().identity;
        assert!(walk.leave(&inner, parent).is_ok());
        fs::rename(temp.path().join("tree/inner"), temp.path().join("outside/inner")).unwrap();
        let error = walk.leave(&inner, parent).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::Os, Some(OsStr::new("tree/.."))));
    }

    #[test]
    fn any_entry_can_be_the_top_and_none_is_fine() {
        let temp = tempfile::tempdir().unwrap();
        let top = File::open(temp.path()).unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        fs::create_dir_all(temp.path().join("dir/inner")).unwrap();
        std::os::unix::fs::symlink(".", temp.path().join("link")).unwrap();
        for name in ["link", "file", "dir", "nothing"] {
            remove_tree(top.as_fd(), OsStr::new(name), Operation::RemoveWritable).unwrap();
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
