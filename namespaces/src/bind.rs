//! The descriptors of a plan: what they are is checked, and where each goes.

use crate::program::{Arg, Slot};
use crate::terminal::PEER;
use crate::{Error, Stdio, Step};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The slots of the three standard streams, for pipes: their ends differ from spawn to spawn.
pub(crate) const STREAM: [Slot; 3] = [Slot(0), Slot(1), Slot(2)];
pub(crate) const STREAM_NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];
/// How a cgroup is entered: at most one directory, by the clone; any number of files, by the child.
pub(crate) struct CgroupEntry {
    pub(crate) directory: Option<OwnedFd>,
    pub(crate) procs: Vec<(PathBuf, OwnedFd)>,
}

impl CgroupEntry {
    pub(crate) fn sort(fds: Vec<OwnedFd>) -> Result<Self, Error> {
        let mut entry = CgroupEntry { directory: None, procs: Vec::new() };
        for fd in fds {
            let path = path_of(fd.as_fd());
            let fd = above_streams(fd).map_err(|e| Error::os(Step::Prepare, "fcntl", e).about(&path))?;
            let refuse = |words| Error::config(format!("cgroup {}", path.display()), words);
            let stat = fstat(&fd).map_err(|e| Error::os(Step::Prepare, "fstat", e as i32).about(&path))?;
            let magic =
                fstatfs(&fd).map_err(|e| Error::os(Step::Prepare, "fstatfs", e as i32).about(&path))?.filesystem_type();
            if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                if magic != CGROUP2_SUPER_MAGIC {
                    return Err(refuse("is a directory, but not of a cgroup2 file system"));
                }
                if entry.directory.replace(fd).is_some() {
                    return Err(refuse("is a second version 2 cgroup; a process is in one"));
                }
            } else {
                let flags = fcntl(&fd, FcntlArg::F_GETFL)
                    .map_err(|e| Error::os(Step::Prepare, "fcntl", e as i32).about(&path))?;
                let flags = OFlag::from_bits_truncate(flags);
                if magic != CGROUP_SUPER_MAGIC && magic != CGROUP2_SUPER_MAGIC {
                    return Err(refuse("is not a file of a cgroup file system"));
                }
                // "0" would mean something else in another file: a limit.
                if path.file_name() != Some(OsStr::new("cgroup.procs")) && !path.starts_with("/proc/self/fd") {
                    return Err(refuse("is not cgroup.procs"));
                }
                if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY || flags.contains(OFlag::O_PATH) {
                    return Err(refuse("is not open for writing"));
                }
                entry.procs.push((path, fd));
            }
        }
        Ok(entry)
    }
}

/// The descriptors that the caller has bound, each to be used by the sandbox.
pub(crate) struct Names(BTreeMap<String, (OwnedFd, bool)>);

impl Names {
    /// Their numbers are above `highest`.
    pub(crate) fn new(bound: Vec<(String, OwnedFd)>, highest: i32) -> Result<Self, Error> {
        let mut names = Names(BTreeMap::new());
        for (name, fd) in bound {
            let object = format!("descriptor {name:?}");
            let fd = above(fd, highest).map_err(|e| Error::os(Step::Prepare, "fcntl", e).about(&object))?;
            if names.0.insert(name, (fd, false)).is_some() {
                return Err(Error::config(object, "is bound twice"));
            }
        }
        Ok(names)
    }

    /// The number of the descriptor of this name.
    pub(crate) fn number(&mut self, name: &str) -> Result<i32, Error> {
        Ok(self.get(name)?.as_raw_fd())
    }

    /// The descriptor of this name.
    pub(crate) fn get(&mut self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        match self.0.get_mut(name) {
            Some((fd, used)) => {
                *used = true;
                Ok((*fd).as_fd())
            }
            None => Err(Error::config(format!("descriptor {name:?}"), "is not bound")),
        }
    }

    /// All of them, to be kept open as long as their numbers are used.
    pub(crate) fn finish(self) -> Result<Vec<OwnedFd>, Error> {
        if let Some((name, _)) = self.0.iter().find(|(_, (_, used))| !used) {
            return Err(Error::config(format!("descriptor {name:?}"), "is bound, but the sandbox does not use it"));
        }
        Ok(self.0.into_values().map(|(fd, _)| fd).collect())
    }
}

/// Where each stream's descriptor comes from.
pub(crate) struct Streams {
    pub(crate) sources: [Option<Arg>; 3],
    pub(crate) pipes: [bool; 3],
    /// To be kept open, as those of [`Names`].
    pub(crate) held: Vec<OwnedFd>,
}

impl Streams {
    pub(crate) fn bind(stdio: &[Stdio; 3], terminal: bool, names: &mut Names) -> Result<Self, Error> {
        let mut streams = Streams { sources: [None; 3], pipes: [false; 3], held: Vec::new() };
        let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let callers = [input.as_fd(), output.as_fd(), errors.as_fd()];
        let targets = stdio.iter().zip(STREAM).zip(&mut streams.sources).zip(&mut streams.pipes);
        let targets = targets.zip(callers.into_iter().zip(STREAM_NAMES));
        for ((((stdio, slot), source), pipe), (stream, name)) in targets {
            *source = match stdio {
                Stdio::Inherit if terminal => Some(PEER.into()),
                Stdio::Inherit => inherit(stream, name)?.map(|fd| {
                    let number = fd.as_raw_fd();
                    streams.held.push(fd);
                    number.into()
                }),
                Stdio::Pipe => {
                    *pipe = true;
                    Some(slot.into())
                }
                Stdio::Null => {
                    let null = open_null()?;
                    let number = null.as_raw_fd();
                    streams.held.push(null);
                    Some(number.into())
                }
                Stdio::Fd(name) => Some(names.number(name)?.into()),
            };
        }
        Ok(streams)
    }
}

/// A stream of the caller's stays where it is, unless it is to be closed at the start of a program: then it is put there again.
fn inherit(stream: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Error> {
    let failed = |errno| Error::os(Step::Prepare, "fcntl", errno).about(name);
    match fcntl(stream, FcntlArg::F_GETFD) {
        Ok(flags) if FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC) => {
            let copy = stream.try_clone_to_owned().map_err(|e| failed(e.raw_os_error().unwrap_or(0)))?;
            Ok(Some(copy))
        }
        Ok(_) => Ok(None),
        Err(Errno::EBADF) => {
            Err(Error::config(name, "is closed, and what is opened next would be it; use Stdio::Null"))
        }
        Err(errno) => Err(failed(errno as i32)),
    }
}

/// `/dev/null`, and nothing that somebody has put in its place.
fn open_null() -> Result<OwnedFd, Error> {
    let path = "/dev/null";
    let null = open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
        .map_err(|e| Error::os(Step::Prepare, "openat", e as i32).about(path))?;
    let stat = fstat(&null).map_err(|e| Error::os(Step::Prepare, "fstat", e as i32).about(path))?;
    let character = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !character || (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3) {
        return Err(Error::config(path, "is not the null device"));
    }
    above_streams(null).map_err(|e| Error::os(Step::Prepare, "fcntl", e).about(path))
}

/// The same file under a number that no standard stream will take in the child.
pub(crate) fn above_streams(fd: OwnedFd) -> Result<OwnedFd, i32> {
    above(fd, 2)
}

/// The same file under a number above this one.
pub(crate) fn above(fd: OwnedFd, highest: i32) -> Result<OwnedFd, i32> {
    if fd.as_raw_fd() > highest { Ok(fd) } else { crate::sys::copy_above(fd.as_fd(), highest) }
}

/// A descriptor's path, for errors only.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> PathBuf {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).unwrap_or(PathBuf::from(link))
}
