//! What there is to know of a file in a directory, to tell it from another.

use crate::sys::xattr;
use crate::{Error, Form, Operation, is_overlay_xattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, lgetxattr, llistxattr, openat, readlinkat, statat};
use rustix::io::{Errno, read, retry_on_intr};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A name in a directory. An empty name: the directory itself.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
}

impl At<'_> {
    /// `None`: there is nothing of that name.
    pub(crate) fn stat(self) -> Result<Option<Stat>, Error> {
        let flags = if self.name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
        match statat(self.dir, self.name, flags) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.failed("newfstatat", e)),
        }
    }

    /// The value of an extended attribute of a file of any type, if it has it.
    pub(crate) fn xattr(self, name: &CStr) -> Result<Option<Vec<u8>>, Error> {
        let mut value = vec![0; 256];
        loop {
            match self.get_xattr(name, &mut value) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err((_, Errno::NODATA | Errno::OPNOTSUPP)) => return Ok(None),
                Err((_, Errno::RANGE)) if value.len() < 1 << 16 => value.resize(value.len() * 4, 0),
                Err((call, e)) => return Err(self.failed(call, e)),
            }
        }
    }

    /// Whether it has an extended attribute.
    pub(crate) fn has_xattr(self, name: &CStr) -> Result<bool, Error> {
        match self.get_xattr(name, &mut []) {
            Ok(_) => Ok(true),
            Err((_, Errno::NODATA | Errno::OPNOTSUPP)) => Ok(false),
            Err((call, e)) => Err(self.failed(call, e)),
        }
    }

    /// By the directory and the name where the kernel can, else by the directory's link in `/proc`, which takes it several times as long.
    fn get_xattr(self, name: &CStr, value: &mut [u8]) -> Result<usize, (&'static str, Errno)> {
        let own_name = CString::new(self.name.as_bytes()).map_err(|_| ("getxattrat", Errno::INVAL))?;
        match xattr::get(self.dir, &own_name, name, value) {
            Err(Errno::NOSYS | Errno::PERM) => lgetxattr(self.path(), name, value).map_err(|e| ("lgetxattr", e)),
            result => result.map_err(|e| ("getxattrat", e)),
        }
    }

    fn list_xattrs(self, list: &mut [u8]) -> Result<usize, (&'static str, Errno)> {
        let own_name = CString::new(self.name.as_bytes()).map_err(|_| ("listxattrat", Errno::INVAL))?;
        match xattr::list(self.dir, &own_name, list) {
            Err(Errno::NOSYS | Errno::PERM) => llistxattr(self.path(), list).map_err(|e| ("llistxattr", e)),
            result => result.map_err(|e| ("listxattrat", e)),
        }
    }

    /// Whether this entry, of which `stat` is known, is a whiteout: see [`is_whiteout`](crate::is_whiteout).
    pub(crate) fn is_whiteout(self, stat: &Stat, form: Form) -> Result<bool, Error> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Ok(stat.st_rdev == 0),
            FileType::RegularFile if stat.st_size == 0 => self.has_xattr(form.whiteout()),
            _ => Ok(false),
        }
    }

    /// All extended attributes but those of overlayfs.
    pub(crate) fn xattrs(self) -> Result<BTreeMap<OsString, Vec<u8>>, Error> {
        let mut list = vec![0; 1024];
        let length = loop {
            match self.list_xattrs(&mut list) {
                Ok(length) => break length,
                Err((_, Errno::OPNOTSUPP)) => break 0,
                Err((_, Errno::RANGE)) if list.len() < 1 << 16 => list.resize(list.len() * 4, 0),
                Err((call, e)) => return Err(self.failed(call, e)),
            }
        };
        let mut found = BTreeMap::new();
        for name in list.get(..length).unwrap_or_default().split_inclusive(|b| *b == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            let key = OsStr::from_bytes(name.to_bytes());
            if !is_overlay_xattr(key)
                && let Some(value) = self.xattr(name)?
            {
                found.insert(key.to_owned(), value);
            }
        }
        Ok(found)
    }

    /// Whether two entries are the same in all that an archive can say, the data too.
    pub(crate) fn equals(self, stat: &Stat, other: At<'_>, others: &Stat) -> Result<bool, Error> {
        let attributes = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_mtime, s.st_mtime_nsec);
        if attributes(stat) != attributes(others) {
            return Ok(false);
        }
        let same = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_size == others.st_size && self.same_data(other)?,
            FileType::Symlink => self.target()? == other.target()?,
            FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev == others.st_rdev,
            _ => true,
        };
        Ok(same && self.xattrs()? == other.xattrs()?)
    }

    pub(crate) fn target(self) -> Result<OsString, Error> {
        let target = readlinkat(self.dir, self.name, Vec::new()).map_err(|e| self.failed("readlinkat", e))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    fn same_data(self, other: At<'_>) -> Result<bool, Error> {
        let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |at: At<'_>| {
            openat(at.dir, at.name, OFlags::RDONLY | OFlags::CLOEXEC | careful, Mode::empty())
                .map_err(|e| at.failed("openat", e))
        };
        let (one, two) = (open(self)?, open(other)?);
        let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let (x, y) = (self.fill(&one, &mut a)?, other.fill(&two, &mut b)?);
            if a.get(..x) != b.get(..y) {
                return Ok(false);
            }
            if x == 0 {
                return Ok(true);
            }
        }
    }

    /// Reads until a buffer is full, or to the end.
    fn fill(self, file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut length = 0;
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match retry_on_intr(|| read(file.as_fd(), &mut *rest)).map_err(|e| self.failed("read", e))? {
                0 => break,
                more => length += more,
            }
        }
        Ok(length)
    }

    /// No descriptor would do: a link or a device has extended attributes, and is not to be opened.
    pub(crate) fn path(self) -> OsString {
        let mut path = OsString::from(format!("/proc/thread-self/fd/{}/", self.dir.as_raw_fd()));
        path.push(if self.name.is_empty() { OsStr::new(".") } else { self.name });
        path
    }

    fn failed(self, call: &'static str, errno: Errno) -> Error {
        Error::os(Operation::Diff, call, errno).about(self.name)
    }
}

/// Which file it is, if it may have other names.
pub(crate) fn linked(stat: &Stat) -> Option<(u64, u64)> {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    (!is_directory && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino))
}

/// Whether an entry is a directory.
pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
