//! Looking around in a tree, and who is in it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::cgroup::{Cgroup, enter};
use crate::dir::{self, Dir};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::kill::for_each_below;
use crate::layout::Version;
use crate::member::Member;
use crate::{owner, text};

impl Cgroup {
    /// The names of the cgroups directly below, in any of the trees.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn children(&self) -> Result<Vec<OsString>> {
        let mut names = BTreeSet::new();
        for member in self.members() {
            names.extend(member.dir.children()?);
        }
        Ok(names.into_iter().collect())
    }

    /// All cgroups below, as paths relative to this one, parents before their children, in the order of their names.
    /// What comes and goes meanwhile may be in it or not. See [`open_below`](Self::open_below).
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if this one is gone.
    pub fn walk(&self) -> Result<Vec<PathBuf>> {
        let mut found = BTreeSet::new();
        for member in self.members() {
            if !member.dir.is_alive() {
                return Err(Error::new(ErrorKind::Gone, Op::List, member.dir.path()));
            }
            let top = member.dir.path();
            for_each_below(&member.dir, |dir| {
                found.extend(dir.path().strip_prefix(top).map(Path::to_owned));
                Ok(())
            })?;
        }
        found.remove(Path::new(""));
        Ok(found.into_iter().collect())
    }

    /// Opens a cgroup any number of levels below: `a/b`. With an empty path it is this one once more.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is none, in one of the trees at least; [`ErrorKind::InvalidInput`] unless the path
    /// consists of plain file names.
    pub fn open_below(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        names(path)?;
        let members = self.members().iter().map(|member| member.open_below(path));
        Ok(Cgroup::found(members.collect::<Result<_>>()?))
    }

    /// Like [`open_below`](Self::open_below), but in those of the trees only where there is one: on v1 and hybrid somebody
    /// else's cgroup need not be in all of them. Something to look at.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if it is in none; [`ErrorKind::InvalidInput`] unless the path consists of plain file names.
    pub fn find_below(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        names(path)?;
        let mut found = Vec::new();
        for member in self.members() {
            match member.open_below(path) {
                Err(error) if error.is_gone() => {}
                member => found.push(member?),
            }
        }
        if found.is_empty() {
            return Err(self.error(ErrorKind::Gone, Op::Open).with_value(path.to_string_lossy()));
        }
        Ok(Cgroup::found(found))
    }

    /// Makes a cgroup any number of levels below, with those on the way where they are missing. What was made stays if
    /// it fails further down.
    ///
    /// # Errors
    /// As for [`child`](Self::child); [`ErrorKind::InvalidInput`] unless the path consists of plain file names.
    pub fn create_below(&self, path: impl AsRef<Path>) -> Result<Self> {
        let names = names(path.as_ref())?;
        let Some((last, above)) = names.split_last() else {
            return Err(Error::invalid("", "cgroup path", "a name is needed"));
        };
        names.iter().try_for_each(|name| owner::check_untagged(name))?;
        let mut reached: Option<Cgroup> = None;
        for name in above {
            let from = reached.as_ref().unwrap_or(self);
            // Somebody else may be doing the same.
            reached = Some(match from.child(name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => from.open_child(name)?,
                made => made?,
            });
        }
        reached.as_ref().unwrap_or(self).child(last)
    }

    /// The threads in this cgroup itself, not below it, as numbers of the caller's pid namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`].
    pub fn threads(&self) -> Result<Vec<u32>> {
        match self.members().last() {
            Some(member) => Ok(text::pids(&member.dir.read_list(thread_list(member))?).collect()),
            None => Ok(Vec::new()),
        }
    }

    /// Moves one thread into this cgroup: on v1 into any, on v2 into a [threaded](Self::make_threaded) one below the
    /// cgroup of its process.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach); [`ErrorKind::Unsupported`] if on v2 it is not such a cgroup.
    pub fn attach_thread(&self, tid: u32) -> Result<()> {
        let tid = text::positive(tid, "thread")?;
        self.members().iter().try_for_each(|member| enter(&member.dir, thread_list(member), &tid))
    }

    /// Makes this cgroup one of threads, whose processes are in a cgroup above, which thereby becomes a "threaded
    /// domain". There is no way back. v2, and only the controllers cpu, cpuset, pids and `perf_event` can do it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if it has other controllers, and on v1, where every cgroup can have threads.
    pub fn make_threaded(&self) -> Result<()> {
        let v2 = self.members().iter().filter(|member| member.version() == Version::V2);
        let mut made = false;
        for member in v2 {
            member.dir.write("cgroup.type", "threaded")?;
            made = true;
        }
        if made { Ok(()) } else { Err(self.error(ErrorKind::Unsupported, Op::Create).with_note("v1 has no such type")) }
    }

    /// Moves every process that is in this cgroup itself into another one, until none is left. Returns how many there
    /// were. For instance to free one's own cgroup, so that controllers can be enabled for its children.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach). Processes that end meanwhile are passed over. [`ErrorKind::Busy`] if more and
    /// more come.
    pub fn move_processes(&self, to: &Cgroup) -> Result<usize> {
        const ROUNDS: usize = 100;
        let mut moved = 0;
        for _ in 0..ROUNDS {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(moved);
            }
            for pid in processes {
                match to.attach(pid) {
                    Err(error) if error.kind() == ErrorKind::NoProcess => {}
                    result => {
                        result?;
                        moved += 1;
                    }
                }
            }
        }
        Err(self.error(ErrorKind::Busy, Op::Write).with_note("processes come as fast as they are moved"))
    }

    /// Whether this cgroup has a file, for instance `memory.reclaim`: its controller is on, and the kernel knows it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] unless it is a plain file name; [`ErrorKind::Gone`].
    pub fn has_file(&self, name: &str) -> Result<bool> {
        dir::check_name(OsStr::new(name))?;
        for member in self.members() {
            if member.dir.has(name)? {
                return Ok(true);
            }
        }
        match self.members().iter().find(|member| !member.dir.is_alive()) {
            Some(member) => Err(Error::new(ErrorKind::Gone, Op::Open, member.dir.path())),
            None => Ok(false),
        }
    }

    /// Gives the cgroup to a user, who can then make cgroups in it and move processes between them: the directory, its
    /// list of processes and, on v2, what the kernel names in `/sys/kernel/cgroup/delegate`. The limits stay whose they
    /// are. Kernel documentation: `admin-guide/cgroup-v2.rst`, "Delegation". v1 is not made for this: who has a cgroup
    /// there can set its limits.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`]; [`ErrorKind::Gone`].
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<()> {
        for member in self.members() {
            let files: &[&str] = match member.version() {
                Version::V1 => &["cgroup.procs", "tasks"],
                Version::V2 => &V2_DELEGATED,
            };
            for file in files {
                give(&member.dir, file, uid, gid)?;
            }
            member.dir.give(None, uid, gid)?;
        }
        Ok(())
    }
}

/// `/sys/kernel/cgroup/delegate` of Linux 6.18; older kernels have fewer, and what is not there is passed over.
const V2_DELEGATED: [&str; 5] =
    ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group", "memory.reclaim"];

fn give(dir: &Dir, file: &str, uid: u32, gid: u32) -> Result<()> {
    match dir.give(Some(file), uid, gid) {
        Err(error) if error.is_gone() && dir.is_alive() => Ok(()),
        result => result,
    }
}

pub(crate) fn thread_list(member: &Member) -> &'static str {
    match member.version() {
        Version::V1 => "tasks",
        Version::V2 => "cgroup.threads",
    }
}

/// The parts of a relative path.
pub(crate) fn names(path: &Path) -> Result<Vec<&OsStr>> {
    let name = |part| match part {
        Component::Normal(name) => dir::check_name(name).map(|()| name),
        _ => Err(Error::invalid(path.to_string_lossy(), "cgroup path", "plain file names are needed, like a/b")),
    };
    path.components().map(name).collect()
}
