//! Killing everything in a cgroup and below it, and waiting until nothing is left.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::{Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result, gone_is_fine};
use crate::layout::Version;
use crate::member::Member;
use crate::text;

/// Descriptors held at once while signalling.
const BATCH: usize = 128;
/// Descriptors kept back when there are no more: to look at the cgroup again.
const SPARE: usize = 3;
/// For how long one round waits for the freezer, or for killed processes to end, before it looks again.
const ROUND: Duration = Duration::from_millis(50);
/// Between two looks where the kernel gives no event (v1).
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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

    fn error(&self, kind: ErrorKind, op: Op) -> Error {
        let path = self.paths().last().unwrap_or(Path::new(""));
        Error::new(kind, op, path)
    }

    /// Kills what is there now. Returns the processes that were signalled.
    fn signal(&self, rest: &[&Member], deadline: Deadline) -> Result<Vec<OwnedFd>> {
        let pids: Vec<u32> = all_processes(rest)?.into_iter().collect();
        if pids.contains(&getpid().as_raw_nonzero().get().unsigned_abs()) {
            return Err(self.refused(Op::Kill));
        }
        let (mut at, mut threads) = (0, 0);
        let mut last: Vec<OwnedFd> = Vec::new();
        while at < pids.len() && (at == 0 || !deadline.has_passed()) {
            last.clear();
            let mut open = Vec::with_capacity(BATCH.min(pids.len()));
            while let Some(pid) = pids.get(at)
                && open.len() < BATCH
            {
                match self.pidfd(*pid) {
                    Ok(Found::Process(pidfd)) => open.push((at, *pid, pidfd)),
                    Ok(Found::Thread) => threads += 1,
                    Ok(Found::Nothing) => {}
                    Err(error) if is_out_of_descriptors(&error) && open.len() > SPARE => {
                        open.truncate(open.len() - SPARE);
                        at = open.last().map_or(at, |(at, ..)| at + 1);
                        break;
                    }
                    Err(error) => return Err(error),
                }
                at += 1;
            }
            // A number may have been given to a process elsewhere before the pidfd was opened. One that is listed
            // now, with the pidfd open, is either ours or has ended, and then the signal goes nowhere.
            let still = all_processes(rest)?;
            open.retain(|(_, pid, _)| still.contains(pid));
            for (.., pidfd) in &open {
                match pidfd_send_signal(pidfd, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(self.os(errno)),
                }
            }
            last = open.into_iter().map(|(.., pidfd)| pidfd).collect();
        }
        if threads == pids.len() && threads > 0 {
            return Err(self.error(ErrorKind::Unsupported, Op::Kill).with_note(
                "it is threaded, and what is in it are threads of processes in cgroups above: kill the domain",
            ));
        }
        Ok(last)
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
            Err(errno) => Err(self.os(errno)),
        }
    }

    fn os(&self, errno: Errno) -> Error {
        Error::os(errno, Op::Kill, self.paths().last().unwrap_or(Path::new("")))
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
fn own_ids() -> impl Iterator<Item = u32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    std::iter::once(std::process::id()).chain(threads)
}

/// Every process in and below, in any of the trees.
fn all_processes(members: &[&Member]) -> Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for member in members {
        processes_below(&member.dir, &mut pids)?;
    }
    Ok(pids)
}

/// The directories that can be frozen.
fn freezers<'a>(members: &'a [&'a Member]) -> impl Iterator<Item = &'a Member> {
    let can = |member: &&Member| match member.version() {
        Version::V1 => member.subsystems.contains(Subsystems::FREEZER),
        Version::V2 => true,
    };
    members.iter().copied().filter(can)
}

/// Stops forking, where there is a freezer: for a while at most, and for a part at worst. What escapes is caught in
/// the next round.
fn freeze(members: &[&Member], deadline: Deadline) -> Result<()> {
    let until = deadline.at_most(ROUND);
    for member in freezers(members) {
        let (file, text) = freezer(member, true);
        loop {
            match gone_is_fine(member.dir.write(file, text)) {
                Ok(()) if is_frozen(member)? => break,
                // v1: processes that fork keep it in "FREEZING" until it is told again.
                Ok(()) if !until.has_passed() => std::thread::sleep(LOOK_AGAIN),
                result => break result?,
            }
        }
    }
    Ok(())
}

/// Also what had been frozen below before: on v1 a frozen process does not even die.
fn thaw(members: &[&Member]) -> Result<()> {
    let mut result = Ok(());
    for member in freezers(members) {
        let (file, text) = freezer(member, false);
        // All of them, also after one that cannot be thawed.
        let mut first = Ok(());
        let walked = for_each_below(&member.dir, |dir| {
            let thawed = gone_is_fine(dir.write(file, text));
            first = std::mem::replace(&mut first, Ok(())).and(thawed);
            Ok(())
        });
        result = result.and(first).and(walked);
    }
    result
}

/// Writes `cgroup.kill`. False if this kernel, or a threaded cgroup, does not have it.
fn kill_at_once(dir: &Dir) -> Result<bool> {
    match dir.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if error.is_gone() || error.kind() == ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// The file of a freezer, and what to write.
fn freezer(member: &Member, on: bool) -> (&'static str, &'static str) {
    match (member.version(), on) {
        (Version::V1, true) => ("freezer.state", "FROZEN"),
        (Version::V1, false) => ("freezer.state", "THAWED"),
        (Version::V2, true) => ("cgroup.freeze", "1"),
        (Version::V2, false) => ("cgroup.freeze", "0"),
    }
}

/// Whether there is nothing more to wait for: also where the cgroup is gone.
fn is_frozen(member: &Member) -> Result<bool> {
    let mut buffer = buffer();
    let frozen = match member.version() {
        Version::V1 => (member.dir.read_if_there("freezer.state", &mut buffer))
            .map(|text| text.is_none_or(|text| text == b"FROZEN\n")),
        Version::V2 => (member.dir.read_if_there("cgroup.events", &mut buffer))
            .map(|text| text.is_none_or(|text| text::field(text, "frozen") != Some(0))),
    };
    match frozen {
        Err(error) if error.is_gone() => Ok(true),
        frozen => frozen,
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
fn processes_below(top: &Dir, pids: &mut BTreeSet<u32>) -> Result<()> {
    for_each_below(top, |dir| {
        pids.extend(text::pids(&listed(dir)?));
        Ok(())
    })
}

/// Visits a cgroup and everything below it. What is removed meanwhile is passed over.
fn for_each_below(top: &Dir, mut visit: impl FnMut(&Dir) -> Result<()>) -> Result<()> {
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

/// Waits until no process is in or below: by the kernel's event on v2, by looking again on v1.
pub(crate) fn wait_until_empty(member: &Member, deadline: Deadline) -> Result<()> {
    let waited = match member.version() {
        Version::V2 => wait_for_event(&member.dir, deadline),
        Version::V1 => look_until_empty(&member.dir, deadline),
    };
    gone_is_fine(waited)
}

fn wait_for_event(dir: &Dir, deadline: Deadline) -> Result<()> {
    const EVENTS: &str = "cgroup.events";
    let events = dir.readable(EVENTS)?;
    let failed = |errno| Error::os(errno, Op::Wait, dir.path());
    loop {
        let mut buffer = buffer();
        // Reading also arms the event, so that no change is lost between this and the poll.
        let n = rustix::io::pread(&events, &mut buffer[..], 0).map_err(failed)?;
        if text::field(buffer.get(..n).unwrap_or_default(), "populated") != Some(1) {
            return Ok(());
        }
        let mut watched = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut watched, Some(&deadline.remaining())) {
            Ok(0) if deadline.has_passed() => {
                return Err(Error::new(ErrorKind::TimedOut, Op::Wait, dir.path()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn look_until_empty(dir: &Dir, deadline: Deadline) -> Result<()> {
    loop {
        let mut pids = BTreeSet::new();
        processes_below(dir, &mut pids)?;
        if pids.is_empty() {
            return Ok(());
        }
        if deadline.has_passed() {
            return Err(Error::new(ErrorKind::TimedOut, Op::Wait, dir.path()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
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

/// A point in time at which waiting ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A time-out too long to be expressed never passes.
    pub(crate) fn after(timeout: Duration) -> Self {
        Deadline(Instant::now().checked_add(timeout))
    }

    fn at_most(self, timeout: Duration) -> Self {
        let other = Self::after(timeout).0;
        Deadline(match (self.0, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        })
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    fn remaining(self) -> Timespec {
        const LONG: Duration = Duration::from_secs(3600);
        let left = self.0.map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
        Timespec {
            tv_sec: i64::try_from(left.min(LONG).as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.min(LONG).subsec_nanos()),
        }
    }
}
