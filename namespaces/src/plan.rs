//! A sandbox that has been checked, and the caller's side of a spawn.

use crate::bind::{STREAM, STREAM_NAMES, above_streams, path_of};
use crate::program::{Program, SLOTS};
use crate::sys::{self, Block, Born, Frame, SignalMask, Stack};
use crate::{Call, Child, Error, Namespaces, Step};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// A checked [`Sandbox`](crate::Sandbox) with its descriptors: spawns any number of processes, from any number of threads.
///
/// Making one is most of the caller's work of a spawn, so keep it where the same sandbox is spawned again and again.
/// It belongs to the process that made it; do not use it in a fork of that.
#[derive(Debug)]
pub struct Plan {
    parts: Parts,
    /// Stacks of children that have left them.
    stacks: Mutex<Vec<Stack>>,
}

/// What a plan is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The program as the sandbox names it, wherever in PATH it is looked for.
    pub(crate) name: OsString,
    pub(crate) program: Program,
    /// The namespaces that the clone makes.
    pub(crate) namespaces: Namespaces,
    /// The version 2 cgroup that the clone enters.
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) pipes: [bool; 3],
    #[expect(dead_code, reason = "kept open because the program uses their numbers")]
    pub(crate) held: Vec<OwnedFd>,
}

impl Plan {
    pub(crate) fn new(parts: Parts) -> Self {
        Plan { parts, stacks: Mutex::default() }
    }

    /// The system calls that a child makes between its birth and its program, in their order.
    ///
    /// ```
    /// # use cofferdam_namespaces::{Fds, Sandbox};
    /// let plan = Sandbox::new("/bin/true").working_directory("/tmp").prepare(Fds::new())?;
    /// let calls: Vec<String> = plan.explain().map(|call| call.to_string()).collect();
    /// assert!(calls.contains(&"change into the working directory: fchdir(/tmp)".to_owned()));
    /// # Ok::<(), cofferdam_namespaces::Error>(())
    /// ```
    pub fn explain(&self) -> impl ExactSizeIterator<Item = Call<'_>> {
        self.parts.program.calls()
    }

    /// Spawns a process and returns when its program has started.
    ///
    /// The calling thread is suspended that long, all others go on. Signals to the calling thread are held back meanwhile.
    ///
    /// # Errors
    /// What kept the program from starting, by [step](Error::step): nothing is left of the process then.
    pub fn spawn(&self) -> Result<Child, Error> {
        let mut pipes = Pipes::open(self.parts.pipes)?;
        let mut stack = self.take_stack()?;
        let frame = Frame::new(self.parts.program.ops(), pipes.slots());
        let born = self.clone_child(&mut stack, &frame);
        self.give_back(stack);
        let born = born?;
        self.outcome(&born, &frame)?;
        Ok(Child::new(born.pid, born.pidfd, pipes.ours()))
    }

    fn clone_child(&self, stack: &mut Stack, frame: &Frame<'_>) -> Result<Born, Error> {
        let blocked = |errno| Error::os(Step::BlockSignals, "rt_sigprocmask", errno);
        let before = SignalMask::ALL.set().map_err(blocked)?;
        let born =
            sys::clone_and_run(self.parts.namespaces.bits(), self.parts.cgroup.as_ref().map(AsFd::as_fd), stack, frame);
        let restored = before.set().map_err(blocked);
        match (born, restored) {
            (Ok(born), Ok(_)) => Ok(born),
            (Ok(born), Err(error)) => {
                // Best effort, in a case that the kernel does not know: the error is what matters.
                let _ = sys::send_signal(born.pidfd.as_fd(), libc::SIGKILL);
                let _ = sys::reap(born.pidfd.as_fd(), Block::Yes);
                Err(error)
            }
            (Err(errno), _) => {
                let error = Error::os(Step::Clone, "clone3", errno);
                Err(match &self.parts.cgroup {
                    Some(directory) => error.about(path_of(directory.as_fd())),
                    None => error,
                })
            }
        }
    }

    /// Whether the program has started; if not, the child has ended and is reaped.
    fn outcome(&self, born: &Born, frame: &Frame<'_>) -> Result<(), Error> {
        let (at, errno) = frame.outcome();
        let Some(call) = self.parts.program.get(at) else {
            return Ok(());
        };
        if errno.is_none() && call.step() == Step::Exec {
            return Ok(());
        }
        let status = sys::reap(born.pidfd.as_fd(), Block::Yes);
        let error = match (errno, status) {
            (Some(errno), _) => Error::os(call.step(), call.name(), errno),
            (None, Ok(Some(status))) => Error::killed(call.step(), status & 0x7f),
            (None, _) => Error::status_lost(),
        };
        // Of a program that was looked for in PATH, the name says more than the last place.
        let object = if call.step() == Step::Exec { &self.parts.name } else { call.object() };
        Err(if object.is_empty() { error } else { error.about(object) })
    }

    fn take_stack(&self) -> Result<Stack, Error> {
        let kept = self.stacks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(stack) => Ok(stack),
            None => Stack::map().map_err(|(call, errno)| Error::os(Step::Stack, call, errno)),
        }
    }

    fn give_back(&self, stack: Stack) {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner).push(stack);
    }
}

/// The pipes of one spawn: the child's ends, which are closed here when this is dropped, and the caller's.
#[derive(Debug, Default)]
struct Pipes {
    theirs: [Option<OwnedFd>; 3],
    ours: [Option<OwnedFd>; 3],
}

impl Pipes {
    fn open(wanted: [bool; 3]) -> Result<Self, Error> {
        let mut pipes = Pipes::default();
        let ends = pipes.theirs.iter_mut().zip(&mut pipes.ours).zip(STREAM_NAMES).zip(wanted).enumerate();
        for (stream, (((theirs, ours), name), wanted)) in ends {
            if wanted {
                let (read, write) =
                    pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::os(Step::Pipe, "pipe2", e as i32).about(name))?;
                let (child, caller) = if stream == 0 { (read, write) } else { (write, read) };
                *theirs = Some(above_streams(child).map_err(|e| Error::os(Step::Pipe, "fcntl", e).about(name))?);
                *ours = Some(caller);
            }
        }
        Ok(pipes)
    }

    fn slots(&self) -> [i64; SLOTS] {
        let mut slots = [-1; SLOTS];
        for (end, slot) in self.theirs.iter().zip(STREAM) {
            if let (Some(fd), Some(value)) = (end, slots.get_mut(slot.0 as usize)) {
                *value = fd.as_raw_fd().into();
            }
        }
        slots
    }

    fn ours(&mut self) -> [Option<OwnedFd>; 3] {
        std::mem::take(&mut self.ours)
    }
}
