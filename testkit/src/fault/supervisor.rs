//! The thread that answers for the kernel.
//!
//! It must not need anything that the watched thread may hold while it waits for an answer. The
//! allocator's locks are such a thing, so the loop allocates nothing: its tables are made
//! beforehand, and files under `/proc` are read into a buffer on the stack.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;

use super::{Action, Call, Fault, Poke, Who};
use crate::sys::{self, Answer, Notification};

/// Room for so many recorded calls and so many processes; beyond it the test is told.
const CALLS: usize = 100_000;
const PROCESSES: usize = 4_096;
/// How long what a test started may take to end after the test.
const SETTLE: Duration = Duration::from_secs(2);

/// Supervisors that have not been seen to end.
static RUNNING: Mutex<Vec<Supervisor>> = Mutex::new(Vec::new());

/// A supervisor's thread.
#[derive(Debug)]
struct Supervisor {
    thread: JoinHandle<()>,
    /// Closed when the thread is about to end.
    ended: Receiver<()>,
}

/// Waits for the supervisors of this process: each ends with the last process that it watches.
pub(crate) fn settle() {
    let until = Instant::now() + SETTLE * crate::patience();
    for supervisor in lock(&RUNNING).drain(..) {
        let left = until.saturating_duration_since(Instant::now());
        // If it takes too long, the leak check will find the listener's fd.
        if supervisor.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
            let _ = supervisor.thread.join();
        }
    }
}

/// Starts a supervisor, which waits for its listener.
pub(super) fn start(fault: Option<Fault>, pokes: Vec<Poke>) -> Arc<Shared> {
    let shared = Arc::new(Shared::new());
    let (sender, ended) = channel();
    let desk = Desk { fault, pokes, ..Desk::new(Arc::clone(&shared), Pid::this()) };
    let thread = thread::spawn(move || {
        desk.run();
        drop(sender);
    });
    lock(&RUNNING).push(Supervisor { thread, ended });
    shared
}

/// What the watched thread and its supervisor both see.
#[derive(Debug)]
pub(super) struct Shared {
    /// Rung when the listener has been handed over.
    bell: EventFd,
    listener: Mutex<Option<OwnedFd>>,
    /// Whether calls are to be recorded and counted, or just let through.
    pub(super) recording: AtomicBool,
    calls: Mutex<Vec<Call>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Shared {
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("an eventfd can be made"),
            listener: Mutex::new(None),
            recording: AtomicBool::new(false),
            calls: Mutex::new(Vec::with_capacity(CALLS)),
        }
    }

    /// What was handed over; `None` if there is none.
    pub(super) fn wait_for_listener(&self) -> Option<OwnedFd> {
        self.bell.read().ok()?;
        lock(&self.listener).take()
    }

    pub(super) fn bell_number(&self) -> u32 {
        u32::try_from(self.bell.as_fd().as_raw_fd()).expect("an fd")
    }

    /// Gives the supervisor its listener, or tells it that there is none. Nobody waits for the
    /// lock, so that taking and leaving it makes no system call; the bell is allowed.
    pub(super) fn hand_over(&self, listener: Option<OwnedFd>) {
        *lock(&self.listener) = listener;
        self.bell.write(1).expect("an eventfd takes a 1");
    }

    pub(super) fn take(&self) -> Vec<Call> {
        self.recording.store(false, Ordering::SeqCst);
        let calls = std::mem::take(&mut *lock(&self.calls));
        assert!(calls.len() < CALLS, "more than {CALLS} system calls were made");
        calls
    }
}

/// What is known of a thread or process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is a thread of this process.
    Parent,
    /// It is a child, or a child's child, that has not called exec.
    Child,
    /// It has called exec; whether that succeeded is not known yet.
    AtExec,
    /// It runs another program.
    Stranger,
}

/// The supervisor's own state.
pub(super) struct Desk {
    shared: Arc<Shared>,
    /// The process whose threads are the parent.
    parent: Pid,
    fault: Option<Fault>,
    pokes: Vec<Poke>,
    /// Calls so far of the parent and of children.
    seen: [usize; 2],
    known: Vec<(i32, Known)>,
}

impl Desk {
    fn new(shared: Arc<Shared>, parent: Pid) -> Self {
        Desk { shared, parent, fault: None, pokes: Vec::new(), seen: [0; 2], known: Vec::with_capacity(PROCESSES) }
    }

    /// For calls of another process, and of those that it starts.
    pub(super) fn of(parent: Pid) -> Self {
        Self::new(Arc::new(Shared::new()), parent)
    }

    fn run(mut self) {
        let Some(listener) = self.shared.wait_for_listener() else {
            return;
        };
        sys::seccomp_take_turns(&listener);
        while wait(&listener) {
            // ENOENT: the caller was killed before its call was looked at.
            let Ok(call) = sys::seccomp_receive(&listener) else {
                continue;
            };
            let answer = self.answer(&call);
            // Again, the caller may be gone.
            let _ = sys::seccomp_answer(&listener, call.id, answer);
        }
    }

    fn answer(&mut self, call: &Notification) -> Answer {
        if !self.shared.recording.load(Ordering::SeqCst) {
            return Answer::GoOn;
        }
        let Some((who, nth)) = self.count(call) else {
            return Answer::GoOn;
        };
        let fault = self.fault.filter(|f| f.who == who && (f.nth == nth || f.nth == Fault::EVERY)).map(|f| f.action);
        let mut calls = lock(&self.shared.calls);
        if calls.len() < calls.capacity() {
            calls.push(Call { who, pid: call.pid, number: call.number, args: call.args, fault });
        }
        drop(calls);
        // Whoever is not dumpable lets only root change its memory.
        let hides = call.number == libc::SYS_prctl && call.args[..2] == [libc::PR_SET_DUMPABLE as u64, 0];
        if hides && who == Who::Child && !self.pokes.is_empty() {
            return Answer::Errno(0);
        }
        for poke in self.pokes.iter().filter(|poke| who == Who::Child && poke.number == call.number) {
            write_word(call, *poke);
        }
        match fault {
            None => Answer::GoOn,
            Some(Action::Errno(errno)) => Answer::Errno(errno),
            Some(Action::Kill) => {
                // The call is undone with its caller; the answer will come too late. No other
                // process can have the id, because the caller waits.
                let _ = kill(Pid::from_raw(call.pid), Signal::SIGKILL);
                Answer::Errno(libc::EINTR)
            }
        }
    }

    /// Whose call it is, and the how-manieth of them.
    pub(super) fn count(&mut self, call: &Notification) -> Option<(Who, usize)> {
        let who = self.who(call)?;
        let nth = self.seen[who as usize];
        self.seen[who as usize] += 1;
        Some((who, nth))
    }

    /// Whose call it is; `None` if a new program made it.
    fn who(&mut self, call: &Notification) -> Option<Who> {
        let index = self.index(call.pid)?;
        let known = &mut self.known[index].1;
        if *known == Known::AtExec {
            *known = if has_execed(call.pid) { Known::Stranger } else { Known::Child };
        }
        match *known {
            Known::Parent => Some(Who::Parent),
            Known::Stranger => None,
            Known::Child | Known::AtExec => {
                if matches!(call.number, libc::SYS_execve | libc::SYS_execveat) {
                    *known = Known::AtExec;
                }
                Some(Who::Child)
            }
        }
    }

    /// Where in `known` this thread or process stands; `None` if there is no more room.
    fn index(&mut self, thread: i32) -> Option<usize> {
        if let Some(index) = self.known.iter().position(|(pid, _)| *pid == thread) {
            return Some(index);
        }
        if self.known.len() == self.known.capacity() {
            return None;
        }
        let (process, parent) = family(thread).unwrap_or((thread, 0));
        let me = self.parent.as_raw();
        let of = |pid: i32| self.known.iter().find(|(known, _)| *known == pid).map(|(_, known)| *known);
        let known = if process == me {
            Known::Parent
        } else if let Some(known) = of(process) {
            known
        } else if parent == me {
            Known::Child
        } else if let Some(known) = of(parent) {
            known
        } else {
            // An orphan: its parent is not one of those that we watch any more.
            Known::Stranger
        };
        self.known.push((thread, known));
        Some(self.known.len() - 1)
    }
}

/// Changes the caller's memory while it waits.
fn write_word(call: &Notification, Poke { argument, word, value, .. }: Poke) {
    let base = usize::try_from(call.args[argument]).expect("an address") + word * size_of::<u64>();
    let there = [RemoteIoVec { base, len: size_of::<u64>() }];
    let written = process_vm_writev(Pid::from_raw(call.pid), &[IoSlice::new(&value.to_ne_bytes())], &there);
    assert_eq!(written, Ok(size_of::<u64>()), "a watched process's memory can be written");
}

/// Waits for a notification; false once nobody is left who could send one.
fn wait(listener: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {
                return fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// The process that a thread belongs to, and that process's parent.
fn family(thread: i32) -> Option<(i32, i32)> {
    let mut buffer = [0; 4096];
    let status = read(thread, "status", &mut buffer)?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line?.trim().parse().ok()
    };
    Some((field("Tgid:")?, field("PPid:")?))
}

/// Whether a process has called exec since it was cloned.
fn has_execed(pid: i32) -> bool {
    let mut buffer = [0; 4096];
    let flags = read(pid, "stat", &mut buffer).and_then(|stat| {
        // pid (name) state ppid pgrp session tty_nr tpgid flags
        stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(6)?.parse::<i64>().ok()
    });
    flags.is_some_and(|flags| flags & i64::from(libc::PF_FORKNOEXEC) == 0)
}

/// Reads a file of a process without allocating.
fn read<'a>(pid: i32, file: &str, buffer: &'a mut [u8; 4096]) -> Option<&'a str> {
    let mut path = [0; 64];
    let mut rest = &mut path[..];
    write!(rest, "/proc/{pid}/{file}").ok()?;
    let left = rest.len();
    let path = str::from_utf8(&path[..path.len() - left]).ok()?;
    // A path this short becomes a C string on the stack.
    let length = File::open(path).ok()?.read(buffer).ok()?;
    str::from_utf8(&buffer[..length]).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
