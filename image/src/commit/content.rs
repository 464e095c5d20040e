//! A tree of files that is read: never through a symlink, whoever changes it meanwhile.

use super::list::Item;
use crate::archive::{Entry, Kind, Time, pad, write_end, write_entry};
use crate::unpack::{Dirs, is_label, names, split, stat_in};
use crate::{Error, ErrorKind, Operation};
use cofferdam_unionfs::{Form, is_opaque, is_overlay_xattr, is_whiteout};
use rustix::fs::{FileType, Mode, OFlags, Stat, getxattr, listxattr, openat, readlinkat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const XATTR_BYTES: usize = 64 << 10;
const BUFFER: usize = 256 << 10;

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

pub(super) struct Tree(Dirs);

/// All that makes a file what it is, but its content.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    stat: Stat,
    target: Vec<u8>,
    /// Sorted by name.
    xattrs: Vec<Xattr>,
}

impl PartialEq for Facts {
    fn eq(&self, other: &Self) -> bool {
        let key = |facts: &Self| {
            let stat = &facts.stat;
            let directory = facts.is_directory();
            // A directory's length and links are the file system's affair.
            let size = if directory { 0 } else { stat.st_size };
            (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev, size, stat.st_mtime, stat.st_mtime_nsec)
        };
        key(self) == key(other) && self.target == other.target && self.xattrs == other.xattrs
    }
}

impl Facts {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// An archive has no place for it, and a layer none but a mark that hides what was there.
    pub(super) fn is_socket(&self) -> bool {
        self.kind() == FileType::Socket
    }

    pub(super) fn links(&self) -> u64 {
        self.stat.st_nlink
    }

    pub(super) fn inode(&self) -> u64 {
        self.stat.st_ino
    }
}

impl Tree {
    pub(super) fn open(root: BorrowedFd<'_>) -> Result<Self, Error> {
        Dirs::new(root).map(Tree).map_err(|e| e.during(Operation::Commit))
    }

    /// What is in a directory, sorted.
    pub(super) fn names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let dir = self.dir(path)?;
        let mut names = names(dir.as_fd(), path).map_err(|e| e.during(Operation::Commit))?;
        names.sort_unstable();
        Ok(names)
    }

    fn dir(&mut self, path: &[u8]) -> Result<std::sync::Arc<OwnedFd>, Error> {
        self.0.open(path).map_err(|e| e.during(Operation::Commit))
    }

    pub(super) fn facts(&mut self, path: &[u8]) -> Result<Facts, Error> {
        self.find(path)?.ok_or_else(|| {
            Error::new(ErrorKind::Interfered, Operation::Commit, "was there a moment ago")
                .about(OsStr::from_bytes(path))
        })
    }

    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Facts>, Error> {
        let (parent, leaf) = place(path);
        let dir = self.0.find(parent).map_err(|e| e.during(Operation::Commit))?;
        let Some(dir) = dir else { return Ok(None) };
        let found = stat_in(dir.as_fd(), leaf).map_err(|e| e.during(Operation::Commit))?;
        let Some(stat) = found else { return Ok(None) };
        let fail = |call| failed_call(call, path);
        let target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                readlinkat(&*dir, leaf, Vec::new()).map(CString::into_bytes).map_err(fail("readlinkat"))?
            }
            _ => Vec::new(),
        };
        let xattrs = xattrs(&dir, leaf).map_err(fail("listxattr"))?;
        Ok(Some(Facts { stat, target, xattrs }))
    }

    pub(super) fn is_whiteout(&mut self, path: &[u8], form: Form) -> Result<bool, Error> {
        let (parent, leaf) = split(path);
        let dir = self.dir(parent)?;
        if leaf.is_empty() {
            return Ok(false);
        }
        is_whiteout(&*dir, OsStr::from_bytes(leaf), form).map_err(|e| Error::from_unionfs(&e).during(Operation::Commit))
    }

    pub(super) fn is_opaque(&mut self, path: &[u8], form: Form) -> Result<bool, Error> {
        let dir = self.dir(path)?;
        is_opaque(&*dir, form).map_err(|e| Error::from_unionfs(&e).during(Operation::Commit))
    }

    /// Whether only a lower layer has the rest of it.
    pub(super) fn is_incomplete(&mut self, path: &[u8], form: Form) -> Result<bool, Error> {
        let prefix = if form == Form::Trusted { "trusted" } else { "user" };
        let (parent, leaf) = place(path);
        let dir = self.dir(parent)?;
        let fail = |call| failed_call(call, path);
        let fd = openat(&*dir, leaf, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(fail("openat"))?;
        let proc = proc_path(&fd);
        for name in ["redirect", "metacopy"] {
            match getxattr(proc.as_str(), format!("{prefix}.overlay.{name}"), &mut [0; 0]) {
                Ok(_) => return Ok(true),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(fail("getxattr")(errno)),
            }
        }
        Ok(false)
    }

    /// Writes the archive.
    pub(super) fn write(&mut self, items: &[Item], not_after: Option<i64>, to: &mut impl Write) -> Result<(), Error> {
        let failed = |e| Error::from_io(Operation::Commit, e);
        let mut first_names = BTreeMap::new();
        for item in items {
            let path = item.path();
            let (parent, leaf) = split(path);
            match item {
                Item::File(_) => self.write_file(path, not_after, &mut first_names, to)?,
                Item::Whiteout(_) => {
                    let name = [parent, if parent.is_empty() { b"" } else { b"/" }, b".wh.", leaf].concat();
                    write_entry(&mark(name), to).map_err(failed)?;
                }
                Item::Opaque(_) => {
                    let name = [path, if path.is_empty() { b"" } else { b"/" }, b".wh..wh..opq"].concat();
                    write_entry(&mark(name), to).map_err(failed)?;
                }
            }
        }
        write_end(to).map_err(failed)
    }

    fn write_file(
        &mut self,
        path: &[u8],
        not_after: Option<i64>,
        first_names: &mut BTreeMap<(u64, u64), Vec<u8>>,
        to: &mut impl Write,
    ) -> Result<(), Error> {
        let failed = |e| Error::from_io(Operation::Commit, e).about(OsStr::from_bytes(path));
        let facts = self.facts(path)?;
        let Some(mut entry) = entry_of(path, &facts, not_after) else {
            // Without a mark it would show what was there before.
            let words = "became a socket while it was read";
            let error = Error::new(ErrorKind::Interfered, Operation::Commit, words);
            return Err(error.about(OsStr::from_bytes(path)));
        };
        if facts.links() > 1 && !facts.is_directory() {
            let file = (facts.stat.st_dev, facts.stat.st_ino);
            if let Some(first) = first_names.get(&file) {
                entry = Entry { kind: Kind::HardLink, link: first.clone(), size: 0, xattrs: Vec::new(), ..entry };
            } else {
                first_names.insert(file, path.to_vec());
            }
        }
        write_entry(&entry, to).map_err(failed)?;
        if entry.size == 0 {
            return Ok(());
        }
        let (parent, leaf) = place(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&*self.dir(parent)?, leaf, flags, Mode::empty());
        let file = File::from(file.map_err(failed_call("openat", path))?);
        copy(file, entry.size, to).map_err(failed)?;
        pad(entry.size, to).map_err(failed)
    }
}

fn failed_call(call: &'static str, path: &[u8]) -> impl Fn(Errno) -> Error {
    move |errno| Error::os(Operation::Commit, call, errno).about(OsStr::from_bytes(path))
}

/// The name to look at, in the directory to look in. The root is looked at from within.
fn place(path: &[u8]) -> (&[u8], &[u8]) {
    let (parent, leaf) = split(path);
    if leaf.is_empty() { (b"", b".") } else { (parent, leaf) }
}

/// Exactly so many bytes: the header has promised them.
fn copy(file: File, size: u64, to: &mut impl Write) -> std::io::Result<()> {
    let (mut left, mut buffer) = (size, vec![0; BUFFER]);
    let mut file = file.take(size);
    while left > 0 {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            let words = "became shorter while it was read";
            return Err(Error::new(ErrorKind::Interfered, Operation::Commit, words).into());
        }
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        left -= count as u64;
    }
    Ok(())
}

/// An entry that is only a name.
fn mark(name: Vec<u8>) -> Entry {
    Entry { name, mode: 0o644, ..Entry::empty(Kind::File { old: false }) }
}

/// `None` for what has no place in an archive.
fn entry_of(path: &[u8], facts: &Facts, not_after: Option<i64>) -> Option<Entry> {
    let stat = &facts.stat;
    let kind = match facts.kind() {
        FileType::RegularFile => Kind::File { old: false },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Socket | FileType::Unknown => return None,
    };
    let is_file = matches!(kind, Kind::File { .. });
    let time = Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    let mtime = match not_after {
        Some(secs) => time.min(Time { secs, nanos: 0 }),
        None => time,
    };
    let name = match (path, kind) {
        (b"", _) => b"./".to_vec(),
        (path, Kind::Directory) => [path, b"/"].concat(),
        (path, _) => path.to_vec(),
    };
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    Some(Entry {
        name,
        link: facts.target.clone(),
        size: if is_file { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        mode: stat.st_mode & 0o7777,
        uid: u64::from(stat.st_uid),
        gid: u64::from(stat.st_gid),
        mtime,
        xattrs: facts.xattrs.clone(),
        device: if is_device { (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) } else { (0, 0) },
        ..Entry::empty(kind)
    })
}

/// Good for as long as the descriptor is open.
fn proc_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What of its attributes belongs to the file: not the machine's labels, not overlayfs' marks.
fn xattrs(dir: &OwnedFd, leaf: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let fd = openat(dir, leaf, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let proc = proc_path(&fd);
    let mut names = vec![0; XATTR_BYTES];
    let count = match listxattr(proc.as_str(), &mut names) {
        Ok(count) => count,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in names.get(..count).unwrap_or_default().split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // A name with "=" would be read as another one.
        if is_label(name) || is_overlay_xattr(OsStr::from_bytes(name)) || name.contains(&b'=') {
            continue;
        }
        let mut value = vec![0; XATTR_BYTES];
        let length = getxattr(proc.as_str(), name, &mut value)?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}
