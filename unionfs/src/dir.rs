//! Directories of our own: a descriptor, and what to call it in errors. Nothing in them is a link or a mount.

use crate::{Error, Operation};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, SeekFrom, fsync, mkdirat, openat2,
    renameat_with, seek, unlinkat,
};
use rustix::io::{Errno, read, retry_on_intr, write};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest of our own files. One that is longer is not ours.
pub(crate) const LONGEST: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// `fd` is open for reading. `path` is for errors.
    pub(crate) fn new(fd: OwnedFd, path: impl Into<PathBuf>) -> Self {
        Dir { fd, path: path.into() }
    }

    pub(crate) fn open(&self, operation: Operation, name: impl AsRef<OsStr>) -> Result<Dir, Error> {
        let name = name.as_ref();
        let fd = open_directory(self, name).map_err(|e| self.failed(operation, "openat2", e, name))?;
        Ok(Dir::new(fd, self.path.join(name)))
    }

    /// As [`open`](Self::open); `None` if no directory has this name.
    pub(crate) fn find(&self, operation: Operation, name: impl AsRef<OsStr>) -> Result<Option<Dir>, Error> {
        let name = name.as_ref();
        match open_directory(self, name) {
            Ok(fd) => Ok(Some(Dir::new(fd, self.path.join(name)))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(self.failed(operation, "openat2", e, name)),
        }
    }

    /// Makes a directory that only its owner can enter; the answer is no if something has this name.
    pub(crate) fn make(&self, operation: Operation, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        let name = name.as_ref();
        match mkdirat(self, name, Mode::RWXU) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(self.failed(operation, "mkdirat", e, name)),
        }
    }

    /// Makes a file that is not there yet; the answer is no if it is.
    pub(crate) fn write_new(
        &self,
        operation: Operation,
        name: &str,
        content: &[u8],
        sync: bool,
    ) -> Result<bool, Error> {
        let fail = |call| move |e| self.failed(operation, call, e, name.as_ref());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = match openat2(self, name, flags, Mode::RUSR | Mode::WUSR, strictly()) {
            Err(Errno::EXIST) => return Ok(false),
            result => result.map_err(fail("openat2"))?,
        };
        let mut rest = content;
        while !rest.is_empty() {
            let length = retry_on_intr(|| write(&file, rest)).map_err(fail("write"))?;
            rest = rest.get(length..).unwrap_or_default();
        }
        if sync {
            fsync(&file).map_err(fail("fsync"))?;
        }
        Ok(true)
    }

    /// What is in one of our own files; `None` if it is not there. One that is too long is [`Corrupt`](crate::ErrorKind::Corrupt), and never cut off.
    pub(crate) fn read(&self, operation: Operation, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let fail = |call| move |e| self.failed(operation, call, e, name.as_ref());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat2(self, name, flags, Mode::empty(), strictly()) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(fail("openat2"))?,
        };
        let mut content = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = retry_on_intr(|| read(&file, &mut buffer)).map_err(fail("read"))?;
            if length == 0 {
                return Ok(Some(content));
            }
            content.extend_from_slice(buffer.get(..length).unwrap_or_default());
            if content.len() > LONGEST {
                return Err(Error::corrupt(operation, self.path.join(name), "is longer than any that was written"));
            }
        }
    }

    /// All names in it, in no order.
    pub(crate) fn names(&self, operation: Operation) -> Result<Vec<OsString>, Error> {
        let mut names = Vec::new();
        entries(self, |name, _| names.push(name.to_owned()))
            .map_err(|(call, e)| Error::os(operation, call, e).about(&self.path))?;
        Ok(names)
    }

    /// Renames; the answer is no if the new name is taken.
    pub(crate) fn rename(&self, operation: Operation, name: &OsStr, to: &Dir, new: &OsStr) -> Result<bool, Error> {
        match renameat_with(self, name, to, new, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(self.failed(operation, "renameat2", e, name)),
        }
    }

    /// Deletes a file; the answer is no if there is none.
    pub(crate) fn unlink(&self, operation: Operation, name: impl AsRef<OsStr>) -> Result<bool, Error> {
        let name = name.as_ref();
        match unlinkat(self, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(self.failed(operation, "unlinkat", e, name)),
        }
    }

    /// Waits until the names in it are on the disk.
    pub(crate) fn sync(&self, operation: Operation) -> Result<(), Error> {
        fsync(self).map_err(|e| Error::os(operation, "fsync", e).about(&self.path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn failed(&self, operation: Operation, call: &'static str, errno: Errno, name: &OsStr) -> Error {
        Error::os(operation, call, errno).about(self.path.join(name))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn strictly() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

/// Opens a directory for reading: no link, and nothing that is mounted there.
pub(crate) fn open_directory(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(dir, name.as_ref(), flags, Mode::empty(), strictly())
}

/// Goes through a directory from its beginning. The call that failed is told with its errno.
pub(crate) fn entries(dir: impl AsFd, mut each: impl FnMut(&OsStr, FileType)) -> Result<(), (&'static str, Errno)> {
    let dir = dir.as_fd();
    seek(dir, SeekFrom::Start(0)).map_err(|e| ("lseek", e))?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| ("getdents64", e))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(name, entry.file_type());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::new(std::fs::File::open(temp.path()).unwrap().into(), "");
        for (length, expected) in [(0, Ok(0)), (LONGEST, Ok(LONGEST)), (LONGEST + 1, Err(ErrorKind::Corrupt))] {
            std::fs::write(temp.path().join("file"), vec![b'x'; length]).unwrap();
            let read = dir.read(Operation::FindLayer, "file").map(|text| text.unwrap().len()).map_err(|e| e.kind());
            assert_eq!(read, expected, "{length}");
        }
    }
}
