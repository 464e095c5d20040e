//! Fault injection: which system calls does a piece of code make, and what if the n-th one fails?
//!
//! The code runs on a throw-away thread under a seccomp filter that asks a supervisor, another
//! thread of this process, about every system call of that thread and of all that descends from it.
//! The supervisor lets it go on, answers with an errno in the kernel's place, or kills the caller.
//! So one call is chosen among all, in the parent or in the child that it is spawning, also
//! while the parent is suspended by vfork(2).
//!
//! ```no_run
//! use cofferdam_testkit::fault::{Action, Fault, Who, inject, record};
//!
//! let run = || std::process::Command::new("true").status();
//! let (calls, _) = record(run);
//! for nth in 0..calls.iter().filter(|c| c.who == Who::Child).count() {
//!     let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Errno(libc::EPERM) }, run);
//!     // ... the error names the step, nothing is left behind
//! }
//! ```
//!
//! A child is watched until its exec(2) succeeds; the new program, and what it starts, runs on
//! unhindered (each of its calls still takes a few microseconds longer). As root the filter changes
//! nothing else; as an ordinary user it takes `no_new_privs`, so set-user-id programs that the
//! thread starts, `newuidmap` among them, have no effect there.
//!
//! A child can install filters of its own, but no second one with a notification listener.

mod filter;
mod names;
mod orphan;
mod supervisor;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering;
use std::thread;

use nix::unistd::geteuid;

pub use orphan::{Orphans, kill_parent_at};
pub(crate) use supervisor::settle;

use crate::sys;

/// Whose system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// The thread that runs the code, and threads that it starts.
    Parent,
    /// A process that it starts, before its exec(2).
    Child,
}

/// One system call, as it was about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Whose.
    pub who: Who,
    /// The id of the thread or process, as this process sees it.
    pub pid: i32,
    /// Its number, `libc::SYS_…`.
    pub number: i64,
    /// Its six arguments, used or not; pointers are addresses in the caller's memory.
    pub args: [u64; 6],
    /// What was done to it instead of letting it go on.
    pub fault: Option<Action>,
}

impl Call {
    /// The system call's name, or `?` for one that the tests have had nothing to do with so far.
    #[must_use]
    pub fn name(&self) -> &'static str {
        names::name(self.number)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = self.args.map(|arg| format!("{arg:#x}")).join(", ");
        write!(f, "{:?} {} {}#{}({args})", self.who, self.pid, self.name(), self.number)?;
        match self.fault {
            Some(fault) => write!(f, " -> {fault:?}"),
            None => Ok(()),
        }
    }
}

/// What to do in the kernel's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call is not made and returns this errno.
    Errno(i32),
    /// The call is not made and its process, which must be a child, is killed.
    Kill,
}

/// What to do to which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Among whose calls.
    pub who: Who,
    /// The how-manieth of them, from 0; or [`EVERY`](Self::EVERY) one.
    pub nth: usize,
    /// What happens to it.
    pub action: Action,
}

impl Fault {
    /// As `nth`: all of them, as on a kernel that lacks the call. For a [`Watch`] of one system call.
    pub const EVERY: usize = usize::MAX;
}

/// A word in the memory that an argument of a child's system call points to, and what it becomes before the kernel reads it.
///
/// This is how a test switches a defence off that is given to the kernel in a struct: from outside, so that no such switch is built into
/// what is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poke {
    /// Of every call of this number, `libc::SYS_…`.
    pub number: i64,
    /// Which argument, from 0.
    pub argument: usize,
    /// Which machine word of the struct, from 0.
    pub word: usize,
    /// What it becomes.
    pub value: u64,
}

/// Runs `f`; each such system call of a child that it starts is made with that word changed. Returns how many there were, and what `f`
/// returned.
///
/// # Panics
/// As [`record`].
pub fn weaken<T: Send>(poke: Poke, f: impl FnOnce() -> T + Send) -> (usize, T) {
    weaken_all(&[poke], f)
}

/// As [`weaken`], with several: what one changes for its call another can put back for the next.
///
/// # Panics
/// As [`record`].
pub fn weaken_all<T: Send>(pokes: &[Poke], f: impl FnOnce() -> T + Send) -> (usize, T) {
    let numbers: Vec<i64> = pokes.iter().map(|poke| poke.number).chain([libc::SYS_execve, libc::SYS_prctl]).collect();
    let (calls, result) = Watch::only(&numbers).run(None, pokes, f);
    let changed = |call: &&Call| call.who == Who::Child && pokes.iter().any(|poke| poke.number == call.number);
    (calls.iter().filter(changed).count(), result)
}

/// The system calls that `f` and the children that it starts make, in the order in which the kernel
/// saw them, and what `f` returned.
///
/// # Panics
/// If `f` does; if the filter cannot be installed.
pub fn record<T: Send>(f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
    Watch::default().record(f)
}

/// As [`record`], with one fault. A `nth` beyond the last call does nothing: look for the call with
/// [`fault`](Call::fault) set if it matters.
///
/// # Panics
/// As [`record`], and if the fault is to kill the parent, which would be this program.
pub fn inject<T: Send>(fault: Fault, f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
    Watch::default().inject(fault, f)
}

/// Which system calls to look at; all others are neither recorded nor counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watch {
    /// `None`: all.
    only: Option<Vec<i64>>,
}

impl Watch {
    /// Only these, `libc::SYS_…`. The others cost nothing.
    #[must_use]
    pub fn only(numbers: &[i64]) -> Self {
        Self { only: Some(numbers.to_vec()) }
    }

    /// As the function [`record`].
    ///
    /// # Panics
    /// As the function [`record`].
    pub fn record<T: Send>(&self, f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
        self.run(None, &[], f)
    }

    /// As the function [`inject`].
    ///
    /// # Panics
    /// As the function [`inject`].
    pub fn inject<T: Send>(&self, fault: Fault, f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
        let suicide = fault.who == Who::Parent && fault.action == Action::Kill;
        assert!(!suicide, "killing the parent would kill the test");
        self.run(Some(fault), &[], f)
    }

    /// As [`record`](Self::record), but before the `nth` call of the parent (from 0) this whole program is killed: for a program
    /// that a test has started to die.
    ///
    /// # Panics
    /// As [`record`].
    pub fn die_at<T: Send>(&self, nth: usize, f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
        self.run(Some(Fault { who: Who::Parent, nth, action: Action::Kill }), &[], f)
    }

    /// As [`inject`](Self::inject), and each such call of a child is made with that word changed: for an attack that two defences meet.
    ///
    /// # Panics
    /// As [`inject`](Self::inject).
    pub fn inject_weakened<T: Send>(&self, fault: Fault, poke: Poke, f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
        assert!(fault.who == Who::Child, "a poke is of a child");
        self.run(Some(fault), &[poke], f)
    }

    fn run<T: Send>(&self, fault: Option<Fault>, pokes: &[Poke], f: impl FnOnce() -> T + Send) -> (Vec<Call>, T) {
        let shared = supervisor::start(fault, pokes.to_vec());
        let result = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if !geteuid().is_root() {
                    nix::sys::prctl::set_no_new_privs().expect("no_new_privs takes no right");
                }
                let filter = filter::build(self.only.as_deref(), shared.bell_number());
                // From here on this thread waits in every system call until the supervisor has
                // answered: the listener must reach it without one that it would have to answer.
                // Ringing the bell is the one that the filter lets through.
                let listener = sys::seccomp_listen(&filter).unwrap_or_else(|e| {
                    shared.hand_over(None);
                    panic!("cannot install a seccomp filter with a listener: {e}")
                });
                shared.hand_over(Some(listener));
                shared.recording.store(true, Ordering::SeqCst);
                let result = f();
                shared.recording.store(false, Ordering::SeqCst);
                result
            });
            thread.join()
        });
        let calls = shared.take();
        match result {
            Ok(result) => (calls, result),
            Err(panic) => resume_unwind(panic),
        }
    }
}
