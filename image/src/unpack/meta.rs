//! Owner, attributes, permissions and times, in the only order that works: any chown clears set-user-id bits and
//! `security.capability`, attributes need a writable file, and times change with everything else.

use super::lowers::Found;
use super::tree::fail;
use crate::archive::{Entry, Time};
use crate::layout::open_beneath;
use crate::{Error, ErrorKind, Operation, Ownership};
use cofferdam_unionfs::is_overlay_xattr;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fgetxattr, flistxattr, fstat, setxattr, utimensat,
};
use rustix::fs::{fchmod, fchown, fsetxattr, futimens};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// No file can have more, `xattr(7)`.
const XATTR_BYTES: usize = 64 << 10;

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// What a file has beside its content.
#[derive(Debug, Clone, Default)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) atime: Time,
    pub(super) xattrs: Vec<Xattr>,
}

impl Meta {
    /// Checks what an entry says. The second result: names of attributes that are left out.
    pub(super) fn of_entry(entry: &Entry, ownership: Ownership) -> Result<(Self, Vec<Vec<u8>>), Error> {
        let mut left_out = Vec::new();
        let mut xattrs = Vec::new();
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.contains(&0) {
                return Err(Error::new(
                    ErrorKind::Malformed,
                    Operation::Unpack,
                    "has an extended attribute without a name",
                ));
            }
            if is_overlay_xattr(OsStr::from_bytes(name)) {
                let error = Error::refused("is an extended attribute by which a layer would steer overlayfs");
                return Err(error.about(OsStr::from_bytes(name)));
            }
            let roots_own = name.starts_with(b"trusted.") || name.starts_with(b"security.");
            if roots_own && ownership == Ownership::Caller {
                left_out.push(name.clone());
            } else {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        let meta = Meta {
            mode: entry.mode,
            uid: id(entry.uid)?,
            gid: id(entry.gid)?,
            mtime: entry.mtime,
            atime: entry.atime.unwrap_or(entry.mtime),
            xattrs,
        };
        Ok((meta, left_out))
    }

    /// For a directory that neither this layer nor a lower one describes.
    pub(super) fn of_nothing() -> Self {
        // Not the present time: the same archive gives the same tree.
        Meta { mode: 0o755, ..Meta::default() }
    }

    /// What a file or directory of a lower layer has. What overlayfs keeps there is not part of it.
    pub(super) fn of_lower(found: &Found, ownership: Ownership) -> Result<Self, Error> {
        let flags = match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile | FileType::Directory => OFlags::RDONLY | OFlags::NONBLOCK,
            _ => return Ok(Self::of_stat(&found.stat)),
        };
        let fd = open_beneath(&found.dir, found.leaf.as_slice(), flags).map_err(fail("openat2", &found.leaf))?;
        Ok(Meta { xattrs: xattrs_of(fd.as_fd(), ownership)?, ..Self::of_stat(&found.stat) })
    }

    fn of_stat(stat: &Stat) -> Self {
        let time = |secs, nanos| Time { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
        Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            atime: time(stat.st_atime, stat.st_atime_nsec),
            xattrs: Vec::new(),
        }
    }

    /// Gives all this to an open file or directory.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>, path: &[u8], ownership: Ownership) -> Result<(), Error> {
        if ownership == Ownership::Archive {
            fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))).map_err(fail("fchown", path))?;
        }
        for (name, value) in &self.xattrs {
            fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()).map_err(fail("fsetxattr", name))?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(fail("fchmod", path))?;
        futimens(fd, &self.times()).map_err(fail("utimensat", path))
    }

    /// The same for what cannot be opened: a symlink, a device, a fifo. `fd` is `O_PATH`, and of that very file.
    pub(super) fn apply_to_node(
        &self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        path: &[u8],
        ownership: Ownership,
    ) -> Result<(), Error> {
        if ownership == Ownership::Archive {
            let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(fail("fchownat", path))?;
        }
        // The way to the file behind an O_PATH descriptor for the calls that do not take one. It follows nothing further.
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for (name, value) in &self.xattrs {
            setxattr(proc.as_str(), name.as_slice(), value, XattrFlags::empty()).map_err(fail("setxattr", name))?;
        }
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode);
            chmodat(CWD, proc.as_str(), mode, AtFlags::empty()).map_err(fail("fchmodat", path))?;
        }
        utimensat(fd, "", &self.times(), AtFlags::EMPTY_PATH).map_err(fail("utimensat", path))
    }

    fn times(&self) -> Timestamps {
        let spec = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }
}

/// The highest id means "leave it as it is" to chown(2), so it must not get there.
fn id(number: u64) -> Result<u32, Error> {
    let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| Error::new(ErrorKind::Malformed, Operation::Unpack, "has an owner that no file can have"))
}

/// The attributes of a file of a lower layer that make part of its content.
fn xattrs_of(fd: BorrowedFd<'_>, ownership: Ownership) -> Result<Vec<Xattr>, Error> {
    let mut names = vec![0; XATTR_BYTES];
    let count = match flistxattr(fd, &mut names) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(fail("flistxattr", b"")(errno)),
    };
    let mut xattrs = Vec::new();
    for name in names.get(..count).unwrap_or_default().split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let roots_own = name.starts_with(b"trusted.") || name.starts_with(b"security.");
        let labels = name.starts_with(b"security.") && name != b"security.capability";
        if is_overlay_xattr(OsStr::from_bytes(name)) || labels || (roots_own && ownership == Ownership::Caller) {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES];
        let length = fgetxattr(fd, name, &mut value).map_err(fail("fgetxattr", name))?;
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    Ok(xattrs)
}

/// Whether a descriptor is of a file of this type.
pub(super) fn is_of(fd: BorrowedFd<'_>, kind: FileType, path: &[u8]) -> Result<bool, Error> {
    let stat = fstat(fd).map_err(fail("fstat", path))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == kind)
}
