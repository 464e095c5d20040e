//! Owner, attributes, permissions and times, in the only order that works: any chown clears set-user-id bits and
//! `security.capability`, attributes need a writable file, and times change with everything else.

use super::lowers::Found;
use super::tree::{cost, fail};
use crate::archive::{Entry, Time, map_ids};
use crate::layout::open_beneath;
use crate::{Error, ErrorKind, Operation, Options, Ownership, Policy};
use cofferdam_unionfs::is_overlay_xattr;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fgetxattr, flistxattr, fremovexattr, fstat, fstatvfs, setxattr, utimensat,
};
use rustix::fs::{fchmod, fchown, fsetxattr, futimens};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// No file can have more, `xattr(7)`.
const XATTR_BYTES: usize = 64 << 10;
const CAPABILITY: &[u8] = b"security.capability";
const ACL: &[u8] = b"system.posix_acl_";

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Names of attributes that the policy leaves out.
pub(super) type LeftOut = Vec<Vec<u8>>;

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
    /// Checks what an entry says.
    pub(super) fn of_entry(entry: &Entry, options: &Options) -> Result<(Self, LeftOut), Error> {
        let (lenient, ownership) = (options.policy == Policy::Lenient, &options.ownership);
        let mut left_out = LeftOut::new();
        for name in &entry.unreadable {
            if !lenient && !ownership.is_callers() {
                let words = "has an access control list of names without numbers";
                return Err(Error::new(ErrorKind::Unsupported, Operation::Unpack, words));
            }
            left_out.push(name.clone());
        }
        let mut xattrs = Vec::new();
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.contains(&0) {
                let words = "has an extended attribute without a name";
                return Err(Error::new(ErrorKind::Malformed, Operation::Unpack, words));
            }
            let steers = is_overlay_xattr(OsStr::from_bytes(name));
            #[cfg(feature = "test-hooks")]
            let steers = steers && !crate::test_hooks::is_off(crate::test_hooks::Defence::Steering);
            if steers && !lenient {
                let error = Error::refused("is an extended attribute by which a layer would steer overlayfs");
                return Err(error.about(OsStr::from_bytes(name)));
            }
            // Not the image's to say: what a security module goes by, perhaps to trust a file or to run it as another.
            let labels = is_label(name);
            #[cfg(feature = "test-hooks")]
            let labels = labels && !crate::test_hooks::is_off(crate::test_hooks::Defence::Labels);
            if steers || labels || (ownership.is_callers() && is_roots_own(name)) {
                left_out.push(name.clone());
            } else {
                xattrs.push((name.clone(), mapped(name, value, ownership)?));
            }
        }
        let meta = Meta {
            mode: entry.mode,
            uid: ownership.user(entry.uid).ok_or_else(|| ownership.nobody())?,
            gid: ownership.group(entry.gid).ok_or_else(|| ownership.nobody())?,
            mtime: entry.mtime,
            atime: entry.atime.unwrap_or(entry.mtime),
            xattrs,
        };
        Ok((meta, left_out))
    }

    /// What its attributes take in memory.
    pub(super) fn cost(&self) -> u64 {
        self.xattrs.iter().map(|(name, value)| cost(name.len() + value.len())).sum()
    }

    /// Bytes of their names and values.
    pub(super) fn xattr_bytes(&self) -> u64 {
        self.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
    }

    /// For a directory that neither this layer nor a lower one describes: root's.
    pub(super) fn of_nothing(ownership: &Ownership) -> Result<Self, Error> {
        let user = ownership.user(0).ok_or_else(|| ownership.nobody())?;
        let group = ownership.group(0).ok_or_else(|| ownership.nobody())?;
        // Not the present time: the same archive gives the same tree.
        Ok(Meta { mode: 0o755, uid: user, gid: group, ..Meta::default() })
    }

    /// What a file or directory of a lower layer has. What overlayfs keeps there is not part of it.
    pub(super) fn of_lower(found: &Found, ownership: &Ownership) -> Result<Self, Error> {
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

    /// The permissions with which a file is made: at once those that it will have, if it has its owner already. (Until the end nobody else gets to it:
    /// the directories above are the caller's alone.) To set attributes of users, the permission to write is needed, even where it is open for that.
    pub(super) fn mode_at_birth(&self) -> Mode {
        let has_owner = (self.uid, self.gid) == (geteuid().as_raw(), getegid().as_raw());
        if has_owner && self.xattrs.is_empty() {
            Mode::from_raw_mode(self.mode & 0o777)
        } else {
            Mode::RUSR | Mode::WUSR
        }
    }

    /// Gives all this to a file that was made with [`Self::mode_at_birth`]. Most were born with everything but the times, and to look
    /// costs a tenth of what a journaling file system takes to change nothing.
    pub(super) fn apply_to_new(&self, fd: BorrowedFd<'_>, path: &[u8], options: &Options) -> Result<LeftOut, Error> {
        let stat = fstat(fd).map_err(fail("fstat", path))?;
        let has_owner = options.ownership.is_callers() || (stat.st_uid, stat.st_gid) == (self.uid, self.gid);
        if has_owner && self.xattrs.is_empty() && stat.st_mode & 0o7777 == self.mode & 0o7777 {
            futimens(fd, &self.times()).map_err(fail("utimensat", path))?;
            return Ok(LeftOut::new());
        }
        self.apply(fd, path, options)
    }

    /// Gives all this to an open file or directory.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>, path: &[u8], options: &Options) -> Result<LeftOut, Error> {
        if !options.ownership.is_callers() {
            fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))).map_err(fail("fchown", path))?;
        }
        let mut left_out = LeftOut::new();
        for (name, value) in &self.xattrs {
            let set = fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
            set.or_else(|e| leave_out(e, ("fsetxattr", fd), name, options, &mut left_out))?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(fail("fchmod", path))?;
        futimens(fd, &self.times()).map_err(fail("utimensat", path))?;
        Ok(left_out)
    }

    /// The same for a directory that has been there: what it has and this has not is taken away.
    pub(super) fn replace(&self, fd: BorrowedFd<'_>, path: &[u8], options: &Options) -> Result<LeftOut, Error> {
        for name in xattr_names(fd)? {
            if is_content(&name, &options.ownership) && !self.xattrs.iter().any(|(new, _)| *new == name) {
                fremovexattr(fd, name.as_slice()).map_err(fail("fremovexattr", &name))?;
            }
        }
        self.apply(fd, path, options)
    }

    /// The same for what cannot be opened: a symlink, a device, a fifo. `fd` is `O_PATH`, and of that very file.
    pub(super) fn apply_to_node(
        &self,
        fd: BorrowedFd<'_>,
        kind: FileType,
        path: &[u8],
        options: &Options,
    ) -> Result<LeftOut, Error> {
        if !options.ownership.is_callers() {
            let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH).map_err(fail("fchownat", path))?;
        }
        let mut left_out = LeftOut::new();
        // The way to the file behind an O_PATH descriptor for the calls that do not take one. It follows nothing further.
        let proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for (name, value) in &self.xattrs {
            let set = setxattr(proc.as_str(), name.as_slice(), value, XattrFlags::empty());
            set.or_else(|e| leave_out(e, ("setxattr", fd), name, options, &mut left_out))?;
        }
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode);
            chmodat(CWD, proc.as_str(), mode, AtFlags::empty()).map_err(fail("fchmodat", path))?;
        }
        utimensat(fd, "", &self.times(), AtFlags::EMPTY_PATH).map_err(fail("utimensat", path))?;
        Ok(left_out)
    }

    fn times(&self) -> Timestamps {
        let spec = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
        Timestamps { last_access: spec(self.atime), last_modification: spec(self.mtime) }
    }
}

/// Only root may set it, or it names users.
fn is_roots_own(name: &[u8]) -> bool {
    [&b"trusted."[..], b"security.", ACL].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether an attribute of a file that is there is part of its content: not the machine's labels, not overlayfs' own.
fn is_content(name: &[u8], ownership: &Ownership) -> bool {
    let beyond = ownership.is_callers() && is_roots_own(name);
    !is_overlay_xattr(OsStr::from_bytes(name)) && !is_label(name) && !beyond
}

/// What security modules keep with a file belongs to the machine: labels of `SELinux` and Smack, the signatures of IMA and EVM.
pub(crate) fn is_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != CAPABILITY
}

/// The value of an attribute for other owners than the archive's.
fn mapped(name: &[u8], value: &[u8], ownership: &Ownership) -> Result<Vec<u8>, Error> {
    let Ownership::Mapped(_) = ownership else { return Ok(value.to_vec()) };
    let found = if name.starts_with(ACL) {
        map_ids(value, |id| ownership.user(id.into()), |id| ownership.group(id.into()))
    } else if name == CAPABILITY {
        map_capability(value, |id| ownership.user(id.into()))
    } else {
        Some(value.to_vec())
    };
    found.ok_or_else(|| ownership.nobody())
}

/// File capabilities count in the namespace of one root, `capabilities(7)`: version 2 means the machine's, version 3 says whose.
fn map_capability(value: &[u8], user: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    const REVISION: u32 = 0xff00_0000;
    let (magic, rest) = value.split_first_chunk::<4>()?;
    let magic = u32::from_le_bytes(*magic);
    let (sets, root) = rest.split_at_checked(16)?;
    let root = match (magic >> 24, root.try_into()) {
        (3, Ok(root)) => u32::from_le_bytes(root),
        (2, Err(_)) if root.is_empty() => 0,
        _ => return None,
    };
    let magic = (magic & !REVISION) | 3 << 24;
    Some([&magic.to_le_bytes()[..], sets, &user(root)?.to_le_bytes()].concat())
}

/// What cannot be had is left out, if the caller said so.
fn leave_out(
    errno: Errno,
    (call, fd): (&'static str, BorrowedFd<'_>),
    name: &[u8],
    options: &Options,
    left_out: &mut LeftOut,
) -> Result<(), Error> {
    let too_large = errno == Errno::NOSPC && has_room(fd);
    let cannot_be_had = too_large
        || matches!(
            errno,
            Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL | Errno::TOOBIG | Errno::RANGE
        );
    if cannot_be_had && options.policy == Policy::Lenient {
        left_out.push(name.to_vec());
        return Ok(());
    }
    if too_large {
        let words = "is an extended attribute that, with the file's others, is larger than this file system has them";
        return Err(Error::new(ErrorKind::Unsupported, Operation::Unpack, words).about(OsStr::from_bytes(name)));
    }
    Err(fail(call, name)(errno))
}

/// Whether a file system that has no space for an attribute has some for files: ext4 keeps all attributes of a file in one block, and
/// says no more of what does not fit than of a full disk.
fn has_room(fd: BorrowedFd<'_>) -> bool {
    // One that does not count its inodes has no number of them.
    fstatvfs(fd).is_ok_and(|now| now.f_bavail > 0 && (now.f_files == 0 || now.f_favail > 0))
}

fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let mut names = vec![0; XATTR_BYTES];
    let count = match flistxattr(fd, &mut names) {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(fail("flistxattr", b"")(errno)),
    };
    let names = names.get(..count).unwrap_or_default().split(|b| *b == 0);
    Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The attributes of a file of a lower layer that make part of its content.
fn xattrs_of(fd: BorrowedFd<'_>, ownership: &Ownership) -> Result<Vec<Xattr>, Error> {
    let mut xattrs = Vec::new();
    for name in xattr_names(fd)?.into_iter().filter(|name| is_content(name, ownership)) {
        let mut value = vec![0; XATTR_BYTES];
        let length = fgetxattr(fd, name.as_slice(), &mut value).map_err(fail("fgetxattr", &name))?;
        value.truncate(length);
        xattrs.push((name, value));
    }
    Ok(xattrs)
}

/// Whether a descriptor is of a file of this type.
pub(super) fn is_of(fd: BorrowedFd<'_>, kind: FileType, path: &[u8]) -> Result<bool, Error> {
    let stat = fstat(fd).map_err(fail("fstat", path))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == kind)
}
