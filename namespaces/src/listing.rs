//! The namespaces of the machine and who is in them, as `lsns(8)` shows them.

use crate::namespace::KINDS;
use crate::{Error, Namespaces, Step, sys};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Which namespace: no two that exist at the same time are equal. Prints as the kernel's links do, without the kind: `[4026531836]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// Of a descriptor of a namespace, `namespaces(7)`.
    ///
    /// # Errors
    /// What `fstat(2)` says.
    pub fn of(namespace: impl AsFd) -> Result<Self, Error> {
        let stat = fstat(namespace).map_err(|errno| Error::os(Step::List, "fstat", errno as i32))?;
        Ok(Self::of_stat(&stat))
    }

    pub(crate) fn of_stat(stat: &FileStat) -> Self {
        NamespaceId { device: stat.st_dev, inode: stat.st_ino }
    }

    #[cfg(test)]
    pub(crate) fn of_numbers(device: u64, inode: u64) -> Self {
        NamespaceId { device, inode }
    }

    /// The number by which `/proc/PID/ns` and `lsns(8)` name it.
    #[must_use]
    pub fn inode(self) -> u64 {
        self.inode
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.inode)
    }
}

/// One namespace, see [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Exactly one kind.
    pub kind: Namespaces,
    /// Which one.
    pub id: NamespaceId,
    /// The user namespace that owns it; of a user namespace its parent. `None` where the caller may not know: it is outside the caller's own.
    pub owner: Option<NamespaceId>,
    /// Of a pid or user namespace the one that it was made in, if the caller may know.
    pub parent: Option<NamespaceId>,
    /// Of a user namespace the user that made it, as the caller's own user namespace numbers users.
    pub owner_uid: Option<u32>,
    /// The processes in it that the caller may look at, in order. The first is mostly the oldest; a pid number can be used again.
    pub processes: Vec<u32>,
}

impl NamespaceInfo {
    /// The process in it that was started first, as `lsns(8)` takes it: the one with the lowest number.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.processes.first().copied()
    }
}

/// The namespaces in which there are processes that the caller may look at, as they were in one walk through `/proc`.
///
/// ```
/// use cofferdam_namespaces::{Listing, Namespaces};
///
/// let listing = Listing::read()?;
/// let mine = listing.of_process(std::process::id()).find(|n| n.kind == Namespaces::PID);
/// assert!(mine.is_some_and(|n| n.processes.contains(&std::process::id())));
/// # Ok::<(), cofferdam_namespaces::Error>(())
/// ```
///
/// Processes come and go meanwhile; one that ends during the walk may be missing, in some of its namespaces or in all. Whose namespaces
/// may be seen is decided as for `ptrace(2)` (`PTRACE_MODE_READ_FSCREDS`): root sees all, others their own.
#[derive(Debug, Clone, Default)]
#[doc(alias = "lsns")]
pub struct Listing {
    found: BTreeMap<NamespaceId, NamespaceInfo>,
    hidden: usize,
}

impl Listing {
    /// Walks through `/proc`.
    ///
    /// # Errors
    /// `/proc` is not there or cannot be read; a limit on descriptors is reached.
    pub fn read() -> Result<Self, Error> {
        let failed =
            |call, error: &io::Error| Error::os(Step::List, call, error.raw_os_error().unwrap_or(0)).about("/proc");
        let proc = fs::File::open("/proc").map_err(|e| failed("openat", &e))?;
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").map_err(|e| failed("openat", &e))? {
            let entry = entry.map_err(|e| failed("getdents64", &e))?;
            pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        let mut listing = Listing::default();
        for pid in pids {
            listing.add_process(&proc, pid)?;
        }
        Ok(listing)
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &NamespaceInfo> {
        self.found.values()
    }

    /// Those that a process is in.
    pub fn of_process(&self, pid: u32) -> impl Iterator<Item = &NamespaceInfo> {
        self.iter().filter(move |namespace| namespace.processes.binary_search(&pid).is_ok())
    }

    /// The one with this id.
    #[must_use]
    pub fn get(&self, id: NamespaceId) -> Option<&NamespaceInfo> {
        self.found.get(&id)
    }

    /// How many processes there were whose namespaces the caller may not see.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    fn add_process(&mut self, proc: &fs::File, pid: u32) -> Result<(), Error> {
        for (kind, name) in KINDS {
            let path = format!("{pid}/ns/{name}");
            let added = match fstatat(proc, path.as_str(), AtFlags::empty()) {
                Ok(stat) => self.add(proc, &path, kind, NamespaceId::of_stat(&stat), pid),
                Err(errno) => Err(("newfstatat", errno)),
            };
            match added {
                // A zombie has none, and this kernel may not have this kind.
                Ok(()) | Err((_, Errno::ENOENT | Errno::ESRCH)) => {}
                Err((_, Errno::EACCES | Errno::EPERM)) => {
                    self.hidden += 1;
                    return Ok(());
                }
                Err((call, errno)) => {
                    return Err(Error::os(Step::List, call, errno as i32).about(Path::new("/proc").join(path)));
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        proc: &fs::File,
        path: &str,
        kind: Namespaces,
        id: NamespaceId,
        pid: u32,
    ) -> Result<(), (&'static str, Errno)> {
        match self.found.entry(id) {
            Entry::Occupied(known) => known.into_mut().processes.push(pid),
            Entry::Vacant(new) => {
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                let fd = openat(proc, path, flags, Mode::empty()).map_err(|errno| ("openat", errno))?;
                // The process may have joined another one since.
                if NamespaceId::of(&fd).is_ok_and(|now| now == id) {
                    new.insert(describe(kind, id, &fd)).processes.push(pid);
                }
            }
        }
        Ok(())
    }
}

/// What the kernel tells of a namespace, as far as the caller may know.
fn describe(kind: Namespaces, id: NamespaceId, fd: &OwnedFd) -> NamespaceInfo {
    let related = |question| sys::related_namespace(fd.as_fd(), question).ok().and_then(|fd| NamespaceId::of(fd).ok());
    let nested = kind == Namespaces::PID || kind == Namespaces::USER;
    NamespaceInfo {
        kind,
        id,
        owner: related(sys::Related::Owner),
        parent: if nested { related(sys::Related::Parent) } else { None },
        owner_uid: if kind == Namespaces::USER { sys::owner_of_namespace(fd.as_fd()).ok() } else { None },
        processes: Vec::new(),
    }
}
