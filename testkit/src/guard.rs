//! The two processes around a test: the guard, which is what the harness starts, and the reaper.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, setsid};

use crate::cgroup::Groups;
use crate::inside;
use crate::process::{self, kill_children, reap, time_left, wait_readable};
use crate::sys;
use crate::test::Test;

/// First argument of a guard.
const FLAG: &str = "--cofferdam-test-guard";
/// A process that was killed, but not waited for by the test, is given this long to go.
const GRACE: Duration = Duration::from_millis(500);

/// What the harness tells the guard on its command line.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) test: String,
    /// The folder in which `tmp` is the test's `TMPDIR`.
    pub(crate) dir: PathBuf,
    pub(crate) time: Duration,
    /// Whether the test gets namespaces of its own.
    pub(crate) isolated: bool,
    /// The harness.
    pub(crate) parent: Pid,
}

impl Order {
    pub(crate) fn to_args(&self) -> [OsString; 6] {
        let [time, parent] = [self.time.as_millis().to_string(), self.parent.to_string()];
        let isolated = if self.isolated { "namespaces" } else { "process" };
        [FLAG.into(), self.test.clone().into(), self.dir.clone().into(), time.into(), isolated.into(), parent.into()]
    }

    /// `None` if this process is not to be a guard.
    pub(crate) fn from_command_line() -> Option<Result<Self, String>> {
        let mut args = env::args_os().skip(1);
        if args.next()? != FLAG {
            return None;
        }
        let rest: Vec<OsString> = args.collect();
        Some(Self::parse(&rest).ok_or_else(|| format!("{FLAG} is for the harness itself")))
    }

    fn parse(args: &[OsString]) -> Option<Self> {
        let [test, dir, time, isolated, parent] = args else {
            return None;
        };
        // If the harness dies, whoever it was killed by, this process gets a signal and cleans up.
        prctl::set_pdeathsig(Signal::SIGTERM).ok()?;
        let parent = Pid::from_raw(parent.to_str()?.parse().ok()?);
        if getppid() != parent {
            return None;
        }
        Some(Self {
            test: test.to_str()?.to_owned(),
            dir: dir.into(),
            time: Duration::from_millis(time.to_str()?.parse().ok()?),
            isolated: isolated == "namespaces",
            parent,
        })
    }
}

/// The guard: runs the test, and leaves nothing of it.
pub(crate) fn run(order: &Order, tests: &[Test]) -> ExitCode {
    let complaints = match tests.iter().find(|t| t.name == order.test) {
        Some(test) => guard(order, test).unwrap_or_else(|why| vec![format!("testkit: {why}")]),
        None => vec![format!("testkit: there is no test {:?}", order.test)],
    };
    for line in &complaints {
        tell(line);
    }
    if getppid() != order.parent {
        // The harness was killed, and will not remove the test's folder.
        let _ = fs::remove_dir_all(&order.dir);
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says something on stderr, which may be a pipe to a harness that is gone.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Everything that was wrong with the test.
fn guard(order: &Order, test: &Test) -> Result<Vec<String>, String> {
    let say = |what: &'static str| move |e: Errno| format!("{what}: {e}");
    prctl::set_child_subreaper(true).map_err(say("cannot become a subreaper"))?;
    let stops = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]);
    let mut usual = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stops), Some(&mut usual)).map_err(say("cannot block signals"))?;
    let signals = SignalFd::new(&stops).map_err(say("cannot make a signalfd"))?;
    let groups = Groups::make(&test.needs)?;

    let mut complaints = Vec::new();
    let started = start_reaper(order, test, &groups, &usual);
    complaints.extend(started.and_then(|reaper| watch(order, reaper, &signals)).err());
    kill_children(|| groups.thaw());
    complaints.extend(groups.others().iter().map(|cgroup| format!("leaked: cgroup {}", cgroup.display())));
    complaints.extend(groups.remove().err());
    let left = fs::read_dir(order.dir.join("tmp")).into_iter().flatten().flatten();
    complaints.extend(left.map(|entry| format!("leaked: in TMPDIR, {}", entry.file_name().display())));
    Ok(complaints)
}

fn start_reaper(order: &Order, test: &Test, groups: &Groups, mask: &SigSet) -> Result<Pid, String> {
    if order.isolated {
        unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("testkit: cannot make a pid namespace: {e}"))?;
    }
    if let Some(reaper) = sys::fork().map_err(|e| format!("testkit: cannot fork: {e}"))? {
        return Ok(reaper);
    }
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let code = run_reaper(order, test, groups, mask).unwrap_or_else(|why| {
        tell(&format!("testkit: {why}"));
        inside::PANICKED
    });
    std::process::exit(code);
}

/// Waits for the reaper's end, the end of the time, or a signal.
fn watch(order: &Order, reaper: Pid, signals: &SignalFd) -> Result<(), String> {
    let reaper_fd = sys::pidfd_open(reaper).map_err(|e| format!("testkit: pidfd_open: {e}"))?;
    let until = Instant::now() + order.time;
    let mut fds = [reaper_fd.as_fd(), signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let ready = loop {
        match poll(&mut fds, time_left(Some(until))) {
            Err(Errno::EINTR) => {}
            other => break other.map_err(|e| format!("testkit: poll: {e}"))?,
        }
    };
    if fds[0].any() == Some(true) {
        return match waitpid(reaper, None) {
            Ok(WaitStatus::Exited(_, inside::PASSED)) => Ok(()),
            Ok(WaitStatus::Exited(_, inside::LEAKED)) => Err("the test passed, but left something behind".into()),
            Ok(WaitStatus::Exited(..)) => Err("the test failed".into()),
            other => Err(format!("testkit: the test's reaper ended with {other:?}")),
        };
    }
    let why = if ready == 0 { format!("timed out after {:?}", order.time) } else { "was stopped by a signal".into() };
    let running = process::descendants_of(reaper).join(", ");
    let _ = kill(reaper, Signal::SIGKILL);
    Err(format!("the test {why}, running: {running}"))
}

/// The reaper: starts the test and waits for it, takes in its orphans and names those that live.
fn run_reaper(order: &Order, test: &Test, groups: &Groups, mask: &SigSet) -> Result<i32, String> {
    prctl::set_child_subreaper(true).map_err(|e| format!("cannot become a subreaper: {e}"))?;
    if order.isolated {
        own_namespaces().map_err(|e| format!("cannot set up the test's namespaces: {e}"))?;
    }
    let Some(child) = sys::fork().map_err(|e| format!("cannot fork: {e}"))? else {
        if !order.isolated {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        }
        let ready = setsid().and(sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None));
        let code = if ready.is_ok() { inside::run(test, groups, order.isolated) } else { inside::PANICKED };
        std::process::exit(code);
    };
    let mut code = wait_for(child)?;
    for orphan in orphans() {
        tell(&format!("leaked: process {orphan} still runs"));
        code = code.max(inside::LEAKED);
    }
    // The kernel will kill what is left when this process, the first of its namespace, ends.
    groups.thaw();
    Ok(code)
}

/// A network namespace, and a mount namespace with `/proc` for the new pid namespace. Its mounts do
/// not reach the machine's own, but, being shared, show what a sandbox forgot to make private.
fn own_namespaces() -> Result<(), Errno> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, nothing)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SHARED, nothing)
}

/// The test's exit code; other children that end meanwhile are orphans, and nobody's any more.
fn wait_for(test: Pid) -> Result<i32, String> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == test => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == test => {
                tell(&format!("the test's process was killed by {signal}"));
                return Ok(inside::PANICKED);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(format!("cannot wait for the test: {e}")),
        }
    }
}

/// Processes of the test that live on: all others in this pid namespace, or at least our children.
fn orphans() -> Vec<String> {
    let until = Instant::now() + GRACE;
    let me = Pid::this();
    let ours = |p: &process::Seen| {
        if me.as_raw() == 1 { p.pid != me } else { p.parent == me }
    };
    let mut alive = Vec::new();
    if !reap() && me.as_raw() != 1 {
        return alive;
    }
    for one in process::all().into_iter().filter(|p| ours(p) && !p.zombie) {
        let ended = sys::pidfd_open(one.pid).is_ok_and(|fd| wait_readable(&fd, Some(until)).unwrap_or(true));
        if !ended && process::Seen::look(one.pid).is_some() {
            alive.push(format!("{} ({})", one.pid, one.name));
        }
    }
    alive
}
