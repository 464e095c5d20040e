//! A cgroup: what can be done with it while it lives.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::controllers::{Controllers, Subsystems};
use crate::dir::{self, Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::member::{Member, Place, SUBTREE_CONTROL, TYPE};
use crate::{owner, text};

const PROCS: &str = "cgroup.procs";
const HAS_CHILDREN: &str = "controllers are enabled for its children, so that it can have no processes itself";
/// EINVAL may mean that the process is still being made.
const ATTACH_TRIES: u32 = 5;

/// A cgroup: one directory on v2, one in each tree on v1 and hybrid. It owns a descriptor for each; dropping it frees
/// those and nothing else. See [`into_guard`](Self::into_guard) for one that kills and deletes.
#[derive(Debug)]
pub struct Cgroup {
    /// v1 first, the unified tree last.
    members: Vec<Member>,
    /// It is the caller's own: must not be killed or deleted.
    own: bool,
}

impl Cgroup {
    pub(crate) fn new(members: Vec<Member>, own: bool) -> Self {
        Cgroup { members, own }
    }

    /// One that was found, not made: it may be the caller's own, or have it below.
    pub(crate) fn found(members: Vec<Member>) -> Self {
        let own = members.iter().any(|member| member.tree.own.starts_with(&member.relative));
        Cgroup { members, own }
    }

    /// Makes it in all of the trees, or in none.
    pub(crate) fn make<'a>(places: impl Iterator<Item = Place<'a>>, name: &OsStr) -> Result<Self> {
        let mut made = Cgroup::new(Vec::new(), false);
        for place in places {
            match Member::make(place, name) {
                Ok(member) => made.members.push(member),
                Err(error) => {
                    // Only what was made here, and it is empty. The first error tells more than a second one.
                    let _ = made.delete();
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Makes a new cgroup below this one, with the same controllers. On v2 they are enabled for the children of this
    /// one, which must have no processes then.
    ///
    /// # Errors
    /// As for [`Hierarchy::create`](crate::Hierarchy::create); [`ErrorKind::Gone`] if this one was deleted, also if another of its
    /// name is there now.
    pub fn child(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        dir::check_name(name)?;
        owner::check_untagged(name)?;
        Self::make(self.members.iter().map(Place::below), name)
    }

    /// Opens a cgroup below this one.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is none of that name, in one of the trees at least;
    /// [`ErrorKind::InvalidInput`] if the name is not a plain file name.
    pub fn open_child(&self, name: impl AsRef<OsStr>) -> Result<Self> {
        let name = name.as_ref();
        dir::check_name(name)?;
        let members = self.members.iter().map(|member| member.open_below(Path::new(name)));
        Ok(Cgroup::found(members.collect::<Result<_>>()?))
    }

    /// Where it is in each of its trees. For people and logs: use it for nothing else.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.members.iter().map(|member| member.dir.path())
    }

    /// The controllers that it has: those that it was made or opened with, and what comes along with them, which is
    /// [`Controllers::FREEZER`] wherever there is one.
    #[must_use]
    pub fn controllers(&self) -> Controllers {
        let all: Subsystems = self.members.iter().map(|m| m.subsystems).collect();
        all.into()
    }

    /// How to be born in it. On v2 one *directory* (`O_PATH`), for `clone3(2)` with `CLONE_INTO_CGROUP`. On v1 one
    /// `cgroup.procs` for each tree, open for writing, into which the child writes `0`. On hybrid both: the files, and
    /// the unified tree's directory as the last. `fstat(2)` tells which is which.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`], [`ErrorKind::PermissionDenied`].
    pub fn entry(&self) -> Result<Vec<OwnedFd>> {
        let entry = |member: &Member| match member.version() {
            Version::V1 => member.dir.writable(PROCS),
            Version::V2 => member.dir.duplicate(),
        };
        self.members.iter().map(entry).collect()
    }

    /// Moves a process, with all of its threads, into this cgroup; its children so far stay where they are. The number
    /// is one of the caller's pid namespace. To be sure that it stands for the process that is meant, that one must be
    /// the caller's own child and not waited for yet.
    ///
    /// Costs milliseconds per tree, see [kernels](crate#kernels).
    ///
    /// # Errors
    /// [`ErrorKind::NoProcess`]; [`ErrorKind::Gone`]; [`ErrorKind::PermissionDenied`]: the caller must be allowed to
    /// write `cgroup.procs` here, and on v2 also in the nearest common ancestor of both cgroups, which must be visible
    /// (`nsdelegate`); [`ErrorKind::Occupied`]: controllers are enabled for the children of this cgroup, so that it can
    /// have no processes itself (v2); [`ErrorKind::Unsupported`]: it is threaded. After an error the process may be in
    /// some of the trees.
    pub fn attach(&self, pid: u32) -> Result<()> {
        let pid = text::positive(pid, "process")?;
        for member in &self.members {
            must_take_processes(member)?;
            enter(&member.dir, PROCS, &pid)?;
        }
        Ok(())
    }

    /// The processes in this cgroup itself, not below it, as numbers of the caller's pid namespace; those that it
    /// cannot see are left out. They may be gone when this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn processes(&self) -> Result<Vec<u32>> {
        match self.members.last() {
            Some(member) => Ok(text::pids(&member.dir.read_list(PROCS)?).collect()),
            None => Ok(Vec::new()),
        }
    }

    /// The directory in which a subsystem is governed.
    pub(crate) fn governing(&self, subsystem: Subsystems) -> Result<&Member> {
        let found = self.members.iter().find(|m| m.subsystems.contains(subsystem));
        found.ok_or_else(|| {
            let path = self.paths().last().unwrap_or(Path::new("")).to_owned();
            let name: String = subsystem.names().collect();
            Error::new(ErrorKind::ControllerUnavailable, Op::Find, path)
                .with_value(name)
                .with_note("the cgroup was made or opened without it")
        })
    }
}

/// A process in a cgroup that has controllers for its children is refused, or, if all of those can be threaded, makes it
/// a "domain threaded" one, and then nothing can enter its children. Where the tree has no such controllers the kernel
/// refuses, so that there is no need to look.
fn must_take_processes(member: &Member) -> Result<()> {
    let can_be_threaded = member.version() == Version::V2 && member.tree.subsystems.intersects(Subsystems::THREADED);
    let mut buffer = buffer();
    if can_be_threaded
        && !member.dir.read(SUBTREE_CONTROL, &mut buffer)?.trim_ascii().is_empty()
        && member.dir.read_if_there(TYPE, &mut buffer)? == Some(b"domain\n")
    {
        let error = Error::new(ErrorKind::Occupied, Op::Check, member.dir.path());
        return Err(error.with_note(HAS_CHILDREN));
    }
    Ok(())
}

/// Writes a number into a list of processes or threads.
pub(crate) fn enter(dir: &Dir, list: &str, pid: &str) -> Result<()> {
    let mut tries = 1;
    loop {
        match dir.write(list, pid) {
            Err(error) if error.errno() == Some(Errno::INVAL) && tries < ATTACH_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result.map_err(|error| not_entered(dir, error)),
        }
    }
}

/// What the kernel's answer means for the one who wanted to get in.
fn not_entered(dir: &Dir, error: Error) -> Error {
    match error.errno() {
        Some(Errno::NOENT) if dir.is_alive() => error
            .with_kind(ErrorKind::PermissionDenied)
            .with_note("where the process comes from, or goes to, is outside of this cgroup namespace (nsdelegate)"),
        Some(Errno::BUSY) => error.with_kind(ErrorKind::Occupied).with_note(HAS_CHILDREN),
        Some(Errno::OPNOTSUPP) => error.with_note("it is threaded, or below a threaded one"),
        Some(Errno::NOSPC) => error.with_note("its cpuset has no CPUs, or no memory nodes"),
        _ => error,
    }
}

/// A file that is missing in a cgroup that exists means that the controller is not on.
pub(crate) fn file_missing(dir: &Dir, error: Error) -> Error {
    if error.is_gone() && dir.is_alive() { error.with_kind(ErrorKind::ControllerUnavailable) } else { error }
}
