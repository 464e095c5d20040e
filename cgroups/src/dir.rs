//! A directory of a cgroup file system, and all access to its files: nothing else in this crate opens anything there.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;

/// `include/uapi/linux/magic.h`.
const CGROUP_MAGIC: u64 = 0x27_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// openat2 answers EAGAIN if something was renamed meanwhile. It hardly ever does here: no path below a directory has a `..`.
const OPEN_TRIES: u32 = 16;

/// Enough for every file of a fixed number of fields.
pub(crate) type Buffer = [u8; 4096];

/// A buffer to read into.
pub(crate) const fn buffer() -> Buffer {
    [0; 4096]
}

/// An open directory (`O_PATH`), and how a human would name it.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// The flags with which everything below a mount is opened. Cgroup file systems have no links, and nothing of ours
/// is behind a mount below them: whatever is, was put there by someone else.
fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens the root of a mount and verifies, once, that it is what mountinfo says: another file system may have
    /// been mounted over it. With it comes the kernel's page size, which is the block size of these file systems.
    pub(crate) fn mount(path: &Path, version: Version, device: (u32, u32)) -> Result<(Self, u64)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
            .map_err(|errno| Error::os(errno, Op::Open, path))?;
        let check = |errno| Error::os(errno, Op::Check, path);
        let magic = match version {
            Version::V1 => CGROUP_MAGIC,
            Version::V2 => CGROUP2_MAGIC,
        };
        let system = rustix::fs::fstatfs(&fd).map_err(check)?;
        let stat = rustix::fs::fstat(&fd).map_err(check)?;
        let found_device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        if u64::try_from(system.f_type).ok() != Some(magic) || found_device != device {
            return Err(
                Error::new(ErrorKind::NoCgroups, Op::Check, path).with_note("another file system is mounted over it")
            );
        }
        let page = u64::try_from(system.f_bsize).unwrap_or_default();
        Ok((Dir { fd, path: path.to_owned() }, page))
    }

    /// A directory that somebody has opened, if it is one of a cgroup file system, and of which version.
    pub(crate) fn given(fd: OwnedFd) -> Result<(Self, Version, u64)> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = std::fs::read_link(&link).unwrap_or_else(|_| link.into());
        let system = rustix::fs::fstatfs(&fd).map_err(|errno| Error::os(errno, Op::Check, &path))?;
        let version = match u64::try_from(system.f_type) {
            Ok(CGROUP_MAGIC) => Version::V1,
            Ok(CGROUP2_MAGIC) => Version::V2,
            _ => return Err(Error::new(ErrorKind::NoCgroups, Op::Check, path)),
        };
        let page = u64::try_from(system.f_bsize).unwrap_or_default();
        let given = Dir { fd, path };
        // What is a file cannot be opened once more as a directory.
        Ok((given.dir(Path::new(""))?, version, page))
    }

    /// A directory of any file system.
    #[cfg(test)]
    pub(crate) fn any(path: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Dir { fd: rustix::fs::open(path, flags, Mode::empty()).unwrap(), path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory below, or this one again if the path is empty. However deep it is: a path that the kernel would not take at once,
    /// which who may make cgroups can bring about, is gone in parts.
    pub(crate) fn dir(&self, relative: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if relative.as_os_str().is_empty() {
            return Ok(Dir { fd: self.open(Path::new("."), flags)?, path: self.path.clone() });
        }
        let mut reached: Option<Dir> = None;
        for part in parts(relative) {
            let from = reached.as_ref().unwrap_or(self);
            let next = Dir { fd: from.open(&part, flags)?, path: from.path.join(&part) };
            reached = Some(next);
        }
        reached.map_or_else(|| self.dir(Path::new("")), Ok)
    }

    /// The directory above, whatever it is called by now. `None` at the top of what is mounted.
    pub(crate) fn above(&self) -> Result<Option<OwnedFd>> {
        let above =
            match self.open_as(Path::new(".."), OFlags::PATH | OFlags::DIRECTORY, resolve() - ResolveFlags::BENEATH) {
                Err(error) if error.errno() == Some(Errno::XDEV) => return Ok(None),
                above => Dir { fd: above?, path: self.path.join("..") },
            };
        // The top of a mount that is attached nowhere is above itself.
        Ok((!self.is_named(&above, OsStr::new("."))?).then_some(above.fd))
    }

    fn open(&self, relative: &Path, flags: OFlags) -> Result<OwnedFd> {
        self.open_as(relative, flags, resolve())
    }

    fn open_as(&self, relative: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
        let mut tries = 0;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if tries < OPEN_TRIES => tries += 1,
                Err(errno) => return Err(Error::os(errno, Op::Open, self.path.join(relative))),
            }
        }
    }

    /// Reads a small file in one go: three system calls.
    pub(crate) fn read<'a>(&self, file: &str, buffer: &'a mut Buffer) -> Result<&'a [u8]> {
        let fd = self.open(Path::new(file), OFlags::RDONLY)?;
        self.read_from(&fd, file, buffer)
    }

    /// Reads a small file that is open.
    pub(crate) fn read_from<'a>(&self, fd: &OwnedFd, file: &str, buffer: &'a mut Buffer) -> Result<&'a [u8]> {
        let n = retry_on_intr(|| rustix::io::read(fd, &mut buffer[..]))
            .map_err(|errno| Error::os(errno, Op::Read, self.path.join(file)))?;
        match buffer.get(..n) {
            Some(text) if n < size_of::<Buffer>() => Ok(text),
            _ => Err(self.malformed(file)),
        }
    }

    /// Like [`read`](Self::read), for a file that this kernel, or this kind of cgroup, may not have.
    pub(crate) fn read_if_there<'a>(&self, file: &str, buffer: &'a mut Buffer) -> Result<Option<&'a [u8]>> {
        match self.read(file, buffer) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_gone() && self.is_alive() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a file of any length: a list.
    pub(crate) fn read_list(&self, file: &str) -> Result<Vec<u8>> {
        let fd = self.open(Path::new(file), OFlags::RDONLY)?;
        read_to_end(&fd).map_err(|errno| Error::os(errno, Op::Read, self.path.join(file)))
    }

    /// Writes a text in one go: three system calls.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        let fd = self.writable(file).map_err(|error| self.write_error(&error, file, text))?;
        self.write_to(&fd, file, text)
    }

    /// Writes a text to a file that is open.
    pub(crate) fn write_to(&self, fd: &OwnedFd, file: &str, text: &str) -> Result<()> {
        match retry_on_intr(|| rustix::io::write(fd, text.as_bytes())) {
            Ok(n) if n == text.len() => Ok(()),
            // The kernel takes a setting whole or not at all.
            Ok(_) => Err(self.malformed(file)),
            Err(errno) => {
                let path = self.path.join(file);
                Err(Error::os(errno, Op::Write, path).with_value(text))
            }
        }
    }

    /// What the caller wanted was to write; that it failed at the opening does not help.
    fn write_error(&self, error: &Error, file: &str, text: &str) -> Error {
        let path = self.path.join(file);
        match error.errno() {
            Some(errno) => Error::os(errno, Op::Write, path).with_value(text),
            None => error.clone(),
        }
    }

    /// A file, open for writing.
    pub(crate) fn writable(&self, file: &str) -> Result<OwnedFd> {
        self.open(Path::new(file), OFlags::WRONLY)
    }

    /// A file, open for both.
    pub(crate) fn open_both(&self, file: &str) -> Result<OwnedFd> {
        self.open(Path::new(file), OFlags::RDWR)
    }

    /// A file, open for reading, to be waited for.
    pub(crate) fn readable(&self, file: &str) -> Result<OwnedFd> {
        self.open(Path::new(file), OFlags::RDONLY)
    }

    /// Another descriptor of this directory.
    pub(crate) fn duplicate(&self) -> Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 0).map_err(|errno| Error::os(errno, Op::Duplicate, &self.path))
    }

    /// Makes a directory, which is a cgroup.
    pub(crate) fn make(&self, name: &OsStr) -> Result<()> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))
            .map_err(|errno| Error::os(errno, Op::Create, self.path.join(name)))
    }

    /// Removes a directory, which is a cgroup without processes and children.
    pub(crate) fn remove(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(()),
            // A read-only mount says so even of what does not exist.
            Err(Errno::ROFS) if self.identity_of(name).is_err() => {
                Err(Error::os(Errno::NOENT, Op::Remove, self.path.join(name)))
            }
            Err(errno) => Err(Error::os(errno, Op::Remove, self.path.join(name))),
        }
    }

    /// Gives a file, or this directory, to a user.
    pub(crate) fn give(&self, file: Option<&str>, uid: u32, gid: u32) -> Result<()> {
        let owner = (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
        let path = file.map_or_else(|| self.path.clone(), |file| self.path.join(file));
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        rustix::fs::chownat(&self.fd, file.unwrap_or(""), owner.0, owner.1, flags)
            .map_err(|errno| Error::os(errno, Op::Give, path))
    }

    /// The names of the directories in this one, which are its children.
    pub(crate) fn children(&self) -> Result<Vec<OsString>> {
        self.names(FileType::Directory)
    }

    /// The names of the files in this directory.
    pub(crate) fn files(&self) -> Result<Vec<OsString>> {
        self.names(FileType::RegularFile)
    }

    fn names(&self, wanted: FileType) -> Result<Vec<OsString>> {
        let fd = self.open(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let list = |errno| Error::os(errno, Op::List, &self.path);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).map_err(list)? {
            let entry = entry.map_err(list)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if entry.file_type() == wanted && name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Whether the name still stands for this very directory, and not for one made later.
    pub(crate) fn is_named(&self, parent: &Dir, name: &OsStr) -> Result<bool> {
        let own = rustix::fs::fstat(&self.fd).map_err(|errno| Error::os(errno, Op::Check, &self.path))?;
        match parent.identity_of(name) {
            Ok(found) => Ok(found == (own.st_dev, own.st_ino)),
            Err(Errno::NOENT | Errno::NODEV) => Ok(false),
            Err(errno) => Err(Error::os(errno, Op::Check, &self.path)),
        }
    }

    fn identity_of(&self, name: &OsStr) -> std::result::Result<(u64, u64), Errno> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether the caller may make something in this directory.
    pub(crate) fn is_writable(&self) -> bool {
        rustix::fs::accessat(&self.fd, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    /// Whether there is a file of that name.
    pub(crate) fn has(&self, file: &str) -> Result<bool> {
        match self.open(Path::new(file), OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the cgroup still exists: a removed one has no files.
    pub(crate) fn is_alive(&self) -> bool {
        rustix::fs::accessat(&self.fd, "cgroup.procs", Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// The file's text is not what it should be.
    pub(crate) fn malformed(&self, file: &str) -> Error {
        Error::new(ErrorKind::Malformed, Op::Read, self.path.join(file))
    }
}

fn read_to_end(fd: &OwnedFd) -> std::result::Result<Vec<u8>, Errno> {
    let (mut text, mut part) = (Vec::new(), buffer());
    loop {
        let n = retry_on_intr(|| rustix::io::read(fd, &mut part[..]))?;
        match part.get(..n) {
            Some(read) if !read.is_empty() => text.extend_from_slice(read),
            _ => return Ok(text),
        }
    }
}

/// A file outside of the cgroup file systems: `/proc/…`.
pub(crate) fn read_file(path: &str) -> Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
        .and_then(|fd| read_to_end(&fd))
        .map_err(|errno| Error::os(errno, Op::Read, path).with_kind(ErrorKind::NoCgroups))
}

/// A name that stands for an entry of a directory, and for nothing else.
pub(crate) fn check_name(name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    let plain = !bytes.is_empty()
        && bytes.len() <= 255
        && bytes != b"."
        && bytes != b".."
        // The kernel refuses a line break too: it would break the lines of /proc/PID/cgroup.
        && !bytes.iter().any(|byte| matches!(byte, b'/' | b'\0' | b'\n'));
    if plain {
        Ok(())
    } else {
        Err(Error::invalid(name.to_string_lossy(), "cgroup name", "a plain file name is needed"))
    }
}

/// A path in parts that the kernel takes: it refuses more than 4095 bytes at once.
fn parts(path: &Path) -> impl Iterator<Item = PathBuf> {
    const LONGEST: usize = 3000;
    let mut components = path.components().peekable();
    std::iter::from_fn(move || {
        let mut part = PathBuf::from(components.next()?.as_os_str());
        while let Some(next) = components.next_if(|next| part.as_os_str().len() + next.as_os_str().len() < LONGEST) {
            part.push(next);
        }
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in ["a", "build-42", "a:b", "...", "..a", "a b", "é", " (deleted)"] {
            assert!(check_name(OsStr::new(good)).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "/", "/etc", "a/b", "../a", "a/", "a\0", "a\nb"] {
            let error = check_name(OsStr::new(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(check_name(OsStr::new(&"x".repeat(255))).is_ok());
        assert!(check_name(OsStr::new(&"x".repeat(256))).is_err());
    }

    #[test]
    fn another_file_system_is_not_taken_for_cgroups() {
        let error = Dir::mount(Path::new("/proc"), Version::V2, (0, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoCgroups);
    }

    #[test]
    fn the_kernel_refuses_what_the_check_would_miss() {
        // Any directory will do: only the flags are tested.
        let fd = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let root = Dir { fd, path: "/".into() };
        assert_eq!(root.dir(Path::new("..")).unwrap_err().errno(), Some(Errno::XDEV));
        assert_eq!(root.dir(Path::new("/tmp")).unwrap_err().errno(), Some(Errno::XDEV));
        assert_eq!(root.readable("proc/self/exe").unwrap_err().errno(), Some(Errno::XDEV));
        assert_eq!(root.dir(Path::new("proc/self")).unwrap_err().errno(), Some(Errno::XDEV));
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_normal_component(bytes: Vec<u8>) {
            let name = OsStr::from_bytes(&bytes);
            if check_name(name).is_ok() {
                let parts: Vec<_> = Path::new(name).components().collect();
                prop_assert_eq!(parts, [std::path::Component::Normal(name)]);
            }
        }
    }
}
