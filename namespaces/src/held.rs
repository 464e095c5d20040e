//! A child that is ready, but for the start of its program.

use crate::gate::Gate;
use crate::plan::{Pipes, Shared, end};
use crate::sys::{Birth, Born, Frame};
use crate::{Child, Error, Namespaces, Step, namespace};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What a thread needs that clones and then waits: not much.
const THREAD_STACK: usize = 128 << 10;

/// A child that is held before the start of its program, see [`Plan::hold`](crate::Plan::hold).
///
/// ```no_run
/// # use cofferdam_namespaces::{Fds, Namespaces, Sandbox};
/// # fn connect(_: std::os::fd::OwnedFd) {}
/// let plan = Sandbox::new("/usr/bin/curl").namespaces(Namespaces::NET).prepare(Fds::new())?;
/// let held = plan.hold()?;
/// connect(held.namespace(Namespaces::NET)?); // a bridge, an address, a route
/// let child = held.release()?;
/// # Ok::<(), cofferdam_namespaces::Error>(())
/// ```
///
/// Dropping it kills and reaps the child: it has done nothing yet, and nobody else knows of it. It also ends with the caller's process.
#[derive(Debug)]
pub struct Held {
    plan: Arc<Shared>,
    born: Option<Born>,
    gate: Gate,
    done: Receiver<Outcome>,
    /// For the thread, to live as long as the child.
    lifeline: Arc<Mutex<Option<OwnedFd>>>,
    thread: Option<JoinHandle<()>>,
    ours: [Option<OwnedFd>; 3],
}

/// Where the child came to, once it has left the caller's memory.
type Outcome = Result<(usize, Option<i32>), Error>;

pub(crate) fn hold(plan: &Arc<Shared>) -> Result<Held, Error> {
    let (gate, theirs) = Gate::pair()?;
    let mut pipes = Pipes::open(plan.parts.pipes)?;
    let ours = pipes.ours();
    let (birth, lifeline) = (Arc::new(Birth::new()), Arc::new(Mutex::default()));
    let (tell, done) = channel();
    let thread =
        Cloner { plan: plan.clone(), pipes, gate: theirs, birth: birth.clone(), lifeline: Arc::clone(&lifeline), tell };
    let thread = thread::Builder::new().name("cofferdam-hold".into()).stack_size(THREAD_STACK).spawn(|| thread.run());
    let thread = thread.map_err(|e| Error::os(Step::Clone, "pthread_create", e.raw_os_error().unwrap_or(0)))?;
    gate.wait()?;
    let held = Held { plan: plan.clone(), born: birth.take(), gate, done, lifeline, thread: Some(thread), ours };
    // Either the child says that it is ready, or the thread that there is nothing to wait for.
    match held.done.try_recv() {
        Ok(outcome) => Err(held.failed(outcome)),
        Err(_) => Ok(held),
    }
}

/// The thread that is suspended as long as the child shares this memory.
struct Cloner {
    plan: Arc<Shared>,
    pipes: Pipes,
    gate: Gate,
    birth: Arc<Birth>,
    lifeline: Arc<Mutex<Option<OwnedFd>>>,
    tell: Sender<Outcome>,
}

impl Cloner {
    fn run(self) {
        let mut slots = self.pipes.slots();
        self.gate.fill(&mut slots);
        let frame = Frame::new(self.plan.parts.program.ops(), slots, true);
        let cloned = self.plan.clone_child(&frame, &self.birth);
        // To nobody, if it was dropped meanwhile.
        let _ = self.tell.send(cloned.map(|()| frame.outcome()));
        self.gate.open();
        let lifeline = self.lifeline.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(self);
        if let Some(pidfd) = lifeline {
            let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            while poll(&mut end, PollTimeout::NONE) == Err(Errno::EINTR) {}
        }
    }
}

impl Held {
    /// Its process id in the caller's pid namespace.
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.born.as_ref().map_or(0, |born| born.pid)
    }

    /// A descriptor of one of its namespaces.
    ///
    /// # Errors
    /// As [`Child::namespace`].
    pub fn namespace(&self, which: Namespaces) -> Result<OwnedFd, Error> {
        match &self.born {
            Some(born) => namespace::open(born.pid, born.pidfd.as_fd(), which),
            None => Err(Error::status_lost()),
        }
    }

    /// Starts the program, and returns when it has really started.
    ///
    /// # Errors
    /// As [`Plan::spawn`](crate::Plan::spawn).
    pub fn release(mut self) -> Result<Child, Error> {
        let born = self.born.as_ref().ok_or_else(Error::status_lost)?;
        if self.plan.parts.die_with_parent {
            let pidfd = born.pidfd.try_clone();
            let pidfd = pidfd.map_err(|e| Error::os(Step::Hold, "fcntl", e.raw_os_error().unwrap_or(0)))?;
            *self.lifeline.lock().unwrap_or_else(PoisonError::into_inner) = Some(pidfd);
            // It stays for as long as the child.
            self.thread = None;
        }
        self.gate.open();
        self.gate.wait()?;
        let outcome = self.done.recv().unwrap_or_else(|_| Err(Error::status_lost()));
        match outcome {
            Ok(outcome) => {
                let born = self.born.take().ok_or_else(Error::status_lost)?;
                self.plan.judge(&born, outcome)?;
                Ok(Child::new(born, std::mem::take(&mut self.ours)))
            }
            Err(error) => Err(error),
        }
    }

    /// Why there is no child.
    fn failed(mut self, outcome: Outcome) -> Error {
        match (outcome, self.born.take()) {
            (Err(error), _) => error,
            (Ok(outcome), Some(born)) => match self.plan.judge(&born, outcome) {
                Err(error) => error,
                Ok(()) => Error::status_lost(),
            },
            (Ok(_), None) => Error::status_lost(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(born) = self.born.take() {
            end(&born);
        }
        if let Some(thread) = self.thread.take() {
            // It does not panic, and there is nothing to do if it did.
            let _ = thread.join();
        }
    }
}
