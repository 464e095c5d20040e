//! Killing everything in a cgroup and below it, and waiting until nothing is left.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::dir::Dir;
use crate::error::{Error, ErrorKind, Op, Result, gone_is_fine};
use crate::freeze::{freeze, thaw};
use crate::layout::Version;
use crate::member::Member;
use crate::text;
use crate::wait::{Deadline, wait_until_empty};

/// Descriptors held at once while signalling.
const BATCH: usize = 128;
/// Descriptors given back when there are no more: to look at the cgroup again.
const SPARE: usize = 3;
/// For how long one round waits for the freezer, or for killed processes to end, before it looks again.
pub(crate) const ROUND: Duration = Duration::from_millis(50);
impl Cgroup {
    /// Kills every process in this cgroup and below it, forks in progress included, and waits until they have left,
    /// at most for `timeout`. Nothing happens if it is empty or gone. Blocks.
    ///
    /// By `cgroup.kill` where there is one (v2 and hybrid, Linux 5.14). Otherwise the cgroup is frozen, each process
    /// signalled through a pidfd, and thawed, until nothing is left.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`]: some are left, for example in an uninterruptible wait;
    /// [`ErrorKind::Unsupported`]: it is threaded, and has threads only of processes that are elsewhere;
    /// [`ErrorKind::PermissionDenied`]; [`ErrorKind::InvalidInput`] for [`Hierarchy::own`](crate::Hierarchy::own), and
    /// for a cgroup in which the caller itself was found. (`cgroup.kill` does not look: it kills the caller.)
    pub fn kill(&self, timeout: Duration) -> Result<()> {
        if self.is_own() {
            return Err(self.refused(Op::Kill));
        }
        let deadline = Deadline::after(timeout);
        // What is in the v1 trees only, or in all of them if there is no cgroup.kill.
        let mut rest = Vec::with_capacity(self.members().len());
        let mut result = Ok(());
        for member in self.members() {
            if member.version() == Version::V2 && kill_at_once(&member.dir)? {
                result = wait_until_empty(member, deadline);
            } else {
                rest.push(member);
            }
        }
        // Also after a failure: somebody may be in a v1 tree alone.
        self.kill_by_signals(&rest, deadline).and(result)
    }

    fn kill_by_signals(&self, rest: &[&Member], deadline: Deadline) -> Result<()> {
        loop {
            let pids = all_processes(rest)?;
            if pids.is_empty() {
                return Ok(());
            }
            // Before it is frozen: who is frozen thaws nothing.
            if own_ids().any(|id| pids.contains(&id)) {
                return Err(self.refused(Op::Kill));
            }
            if deadline.has_passed() {
                return Err(self.error(ErrorKind::TimedOut, Op::Kill));
            }
            let frozen = freeze(rest, deadline);
            let killed = self.signal(rest, deadline);
            // A cgroup that stays frozen would never end: thaw first, look at the errors then.
            frozen.and(thaw(rest))?;
            wait_for(&killed?, deadline);
        }
    }

    pub(crate) fn refused(&self, op: Op) -> Error {
        self.error(ErrorKind::InvalidInput, op).with_note("the caller itself is in it")
    }

    pub(crate) fn error(&self, kind: ErrorKind, op: Op) -> Error {
        let path = self.paths().last().unwrap_or(Path::new(""));
        Error::new(kind, op, path)
    }

    /// Kills what is there now. Returns the processes that were signalled last.
    fn signal(&self, rest: &[&Member], deadline: Deadline) -> Result<Vec<OwnedFd>> {
        let pids: Vec<u32> = all_processes(rest)?.into_iter().collect();
        if pids.contains(&getpid().as_raw_nonzero().get().unsigned_abs()) {
            return Err(self.refused(Op::Kill));
        }
        let (mut at, mut processes) = (0, false);
        let mut last: Vec<OwnedFd> = Vec::new();
        while at < pids.len() && (at == 0 || !deadline.has_passed()) {
            last.clear();
            let mut batch = self.open_batch(&pids, at)?;
            // A number may have been given to a process elsewhere before the pidfd was opened. One that is listed
            // now, with the pidfd open, is either ours or has ended, and then the signal goes nowhere.
            let still = loop {
                match all_processes(rest) {
                    Err(error) if is_out_of_descriptors(&error) && batch.open.len() > 1 => batch.shorten(),
                    listed => break listed?,
                }
            };
            at = batch.end;
            processes |= batch.has_process;
            batch.open.retain(|(_, pid, _)| still.contains(pid));
            for (.., pidfd) in &batch.open {
                match pidfd_send_signal(pidfd, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(self.os(Op::Kill, errno)),
                }
            }
            last = batch.open.into_iter().map(|(.., pidfd)| pidfd).collect();
        }
        if !processes && !pids.is_empty() {
            return Err(self.error(ErrorKind::Unsupported, Op::Kill).with_note(
                "it is threaded, and what is in it are threads of processes in cgroups above: kill the domain",
            ));
        }
        Ok(last)
    }

    /// Opens pidfds from a place in the list on, as many as can be had.
    fn open_batch(&self, pids: &[u32], start: usize) -> Result<Batch> {
        let mut batch = Batch { open: Vec::with_capacity(BATCH.min(pids.len())), end: start, has_process: false };
        while let Some(pid) = pids.get(batch.end)
            && batch.open.len() < BATCH
        {
            match self.pidfd(*pid) {
                Ok(Found::Process(pidfd)) => batch.open.push((batch.end, *pid, pidfd)),
                Ok(Found::Thread) => {}
                Ok(Found::Nothing) => batch.has_process = true,
                Err(error) if is_out_of_descriptors(&error) && !batch.open.is_empty() => break,
                Err(error) => return Err(error),
            }
            batch.end += 1;
        }
        batch.has_process |= !batch.open.is_empty();
        Ok(batch)
    }

    fn pidfd(&self, pid: u32) -> Result<Found> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(Found::Nothing);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Found::Process(pidfd)),
            Err(Errno::SRCH) => Ok(Found::Nothing),
            // EINVAL, since Linux 6.9 ENOENT.
            Err(Errno::INVAL | Errno::NOENT) => Ok(Found::Thread),
            Err(errno) => Err(self.os(Op::Kill, errno)),
        }
    }

    pub(crate) fn os(&self, op: Op, errno: Errno) -> Error {
        Error::os(errno, op, self.paths().last().unwrap_or(Path::new("")))
    }
}

/// Processes that are signalled together.
struct Batch {
    /// Where in the list each is, its number, and its pidfd.
    open: Vec<(usize, u32, OwnedFd)>,
    /// Where in the list the next batch starts.
    end: usize,
    /// Not only threads.
    has_process: bool,
}

impl Batch {
    /// Leaves some to the next batch, so that there are descriptors to look at the cgroup again.
    fn shorten(&mut self) {
        self.open.truncate(self.open.len().saturating_sub(SPARE).max(1));
        self.end = self.open.last().map_or(self.end, |(at, ..)| at + 1);
    }
}

/// What a number stands for.
enum Found {
    Process(OwnedFd),
    /// One that is not the first of its process.
    Thread,
    Nothing,
}

fn is_out_of_descriptors(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::MFILE | Errno::NFILE))
}

/// The numbers under which this process can be listed: its own, and in a threaded cgroup those of its threads.
pub(crate) fn own_ids() -> impl Iterator<Item = u32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    std::iter::once(std::process::id()).chain(threads)
}

/// Every process in and below, in any of the trees.
pub(crate) fn all_processes(members: &[&Member]) -> Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for member in members {
        processes_below(&member.dir, &mut pids)?;
    }
    Ok(pids)
}

/// Writes `cgroup.kill`. False if this kernel, or a threaded cgroup, does not have it.
fn kill_at_once(dir: &Dir) -> Result<bool> {
    match dir.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if error.is_gone() || error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// The list of processes; in a threaded cgroup, which has none, that of threads. Their processes are listed in the
/// cgroup above them that is the domain.
fn listed(dir: &Dir) -> Result<Vec<u8>> {
    match dir.read_list("cgroup.procs") {
        Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => dir.read_list("cgroup.threads"),
        list => list,
    }
}

/// Collects the processes of a cgroup and of everything below it.
pub(crate) fn processes_below(top: &Dir, pids: &mut BTreeSet<u32>) -> Result<()> {
    for_each_below(top, |dir| {
        pids.extend(text::pids(&listed(dir)?));
        Ok(())
    })
}

/// Visits a cgroup and everything below it. What is removed meanwhile is passed over.
pub(crate) fn for_each_below(top: &Dir, mut visit: impl FnMut(&Dir) -> Result<()>) -> Result<()> {
    // Paths, not descriptors: a cgroup can have more children than a process may have descriptors.
    let mut to_visit = vec![PathBuf::new()];
    while let Some(relative) = to_visit.pop() {
        let visited = top.dir(&relative).and_then(|dir| {
            visit(&dir)?;
            to_visit.extend(dir.children()?.iter().map(|name| relative.join(name)));
            Ok(())
        });
        gone_is_fine(visited)?;
    }
    Ok(())
}

/// Waits for killed processes to end, for one round at most.
fn wait_for(processes: &[OwnedFd], deadline: Deadline) {
    let until = deadline.at_most(ROUND);
    for pidfd in processes {
        let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
        // Whatever comes of it, the next round looks at the cgroup itself.
        let _ = poll(&mut watched, Some(&until.remaining()));
    }
}
