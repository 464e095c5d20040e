//! Looking at processes, waiting for them, and throw-away children.

use std::fs;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use std::os::fd::AsFd;

use crate::sys;

/// Runs `f` in a copy of this program, which must have one thread, and brings back what it says.
/// What `f` does to its process (namespaces, mounts, cgroups) ends with that process.
pub(crate) fn in_child(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let say = |e: io::Error| format!("cannot try it in a child process: {e}");
    let (from_child, to_parent) = pipe2(OFlag::O_CLOEXEC).map_err(|e| say(e.into()))?;
    let Some(child) = sys::fork().map_err(say)? else {
        let answer = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| Err("the probe panicked".into()));
        let text = answer.err().unwrap_or_default();
        let sent = fs::File::from(to_parent).write_all(text.as_bytes());
        std::process::exit(i32::from(sent.is_err()));
    };
    drop(to_parent);
    let mut text = String::new();
    let read = fs::File::from(from_child).read_to_string(&mut text);
    let status = waitpid(child, None).map_err(|e| say(e.into()))?;
    read.map_err(say)?;
    match (status, text.is_empty()) {
        (WaitStatus::Exited(_, 0), true) => Ok(()),
        (WaitStatus::Exited(_, 0), false) => Err(text),
        (other, _) => Err(format!("the child process that tried it ended with {other:?}")),
    }
}

/// `name (pid)` of a process, and whether it is a zombie; `None` once it is gone.
pub(crate) struct Seen {
    pub(crate) pid: Pid,
    pub(crate) name: String,
    pub(crate) parent: Pid,
    pub(crate) zombie: bool,
}

impl Seen {
    pub(crate) fn look(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name) state ppid ...: the name may contain anything, ")" too
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let mut rest = rest.split_ascii_whitespace();
        let zombie = matches!(rest.next()?, "Z" | "X");
        let parent = Pid::from_raw(rest.next()?.parse().ok()?);
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = command.replace('\0', " ");
        let name = if command.is_empty() { name.to_owned() } else { format!("{name}: {}", command.trim_end()) };
        Some(Self { pid, name, parent, zombie })
    }
}

/// All processes that `/proc` shows.
pub(crate) fn all() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| Seen::look(Pid::from_raw(e.file_name().to_str()?.parse().ok()?))).collect()
}

/// `pid (name)` of all that descend from a process, parents before their children.
pub(crate) fn descendants_of(pid: Pid) -> Vec<String> {
    let (all, mut found) = (all(), vec![pid]);
    let mut names = Vec::new();
    while let Some(parent) = found.pop() {
        for child in all.iter().filter(|p| p.parent == parent) {
            names.push(format!("{} ({})", child.pid, child.name));
            found.push(child.pid);
        }
    }
    names
}

/// Takes the status of every child that has ended. Says whether children are left.
pub(crate) fn reap() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills every child, and every process that thereby becomes one (this process being a
/// subreaper), until there is none. `free` is called now and then: it lets go of processes that
/// cannot die as they are.
pub(crate) fn kill_children(free: impl Fn()) {
    const NOW_AND_THEN: Duration = Duration::from_millis(50);
    while reap() {
        for child in all().iter().filter(|p| p.parent == Pid::this() && !p.zombie) {
            if let Ok(fd) = sys::pidfd_open(child.pid) {
                // An error means that it is gone already.
                let _ = kill(child.pid, Signal::SIGKILL);
                free();
                let _ = wait_readable(&fd, Some(Instant::now() + NOW_AND_THEN));
            }
        }
    }
}

/// Waits until `fd` is readable (for a pidfd: until the process has ended) or the time has come.
pub(crate) fn wait_readable(fd: &impl AsFd, until: Option<Instant>) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, time_left(until)) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The time-out to give to poll(2), rounded up.
pub(crate) fn time_left(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
