//! A child that is ready, but for the start of its program.

use crate::deadline::{Between, Deadline, leave};
use crate::gate::Gate;
use crate::inside::Inside;
use crate::plan::{BirthPlace, Ours, Pipes, Shared, end};
use crate::program::Stops;
use crate::sys::{self, Born, Outcome};
use crate::{Child, Error, Fallbacks, Hook, Namespaces, OciState, Step, hook, namespace};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

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
/// Dropping it kills and reaps the child: it has done nothing yet, and nobody else knows of it. It also dies with the caller's process.
#[derive(Debug)]
pub struct Held {
    plan: Arc<Shared>,
    born: Born,
    gate: Gate,
    thread: Option<JoinHandle<()>>,
    told: Arc<Told>,
    ours: Ours,
    /// It is the caller's affair now, or gone.
    released: bool,
    stops: Stops,
    /// Of one that was [created](crate::Sandbox::create).
    pub(crate) inside: Option<Inside>,
}

/// What the thread and the caller tell each other.
#[derive(Debug)]
struct Told {
    birth: BirthPlace,
    between: Between,
    /// Where the child came to, once it has left the caller's memory.
    outcome: OnceLock<Result<Outcome, Error>>,
    /// The child, if the thread is to stay for as long as it.
    stay: OnceLock<Arc<OwnedFd>>,
}

/// Returns when it waits for the first time.
pub(crate) fn hold(plan: &Arc<Shared>, stops: Stops, deadline: Deadline) -> Result<Held, Error> {
    let (gate, theirs) = Gate::pair(plan.parts.highest)?;
    let mut pipes = Pipes::open(&plan.parts)?;
    let ours = pipes.ours();
    let (birth, between) = (plan.birth()?, Between::new());
    let told = Told { birth, between, outcome: OnceLock::new(), stay: OnceLock::new() };
    let told = Arc::new(told);
    let cloner = Cloner { plan: plan.clone(), stops, pipes, gate: theirs, told: told.clone() };
    let thread = thread::Builder::new().name("cofferdam-hold".into()).stack_size(THREAD_STACK).spawn(|| cloner.run());
    let thread = thread.map_err(|e| Error::os(Step::Clone, "pthread_create", e.raw_os_error().unwrap_or(0)))?;
    let mut ready = match gate.wait_until(deadline) {
        Ok(false) => return Err(give_up(plan, told, &gate, thread)),
        ready => ready.map(drop),
    };
    // Who cannot wait does not know whether it is born already, or half.
    let born = ready.is_ok().then(|| told.birth.take()).flatten();
    if let (Some(maps), Some(born), Ok(()), None) = (&plan.parts.maps, &born, &ready, told.outcome.get()) {
        ready = maps.write(born.pid).and_then(|()| {
            gate.open();
            gate.wait()
        });
    }
    let failed = told.outcome.get().is_some();
    match born {
        Some(born) if ready.is_ok() && !failed => {
            let (plan, thread) = (plan.clone(), Some(thread));
            Ok(Held { plan, born, gate, thread, told, ours, released: false, stops, inside: None })
        }
        // Either the thread says that there is nothing to wait for, or we cannot wait.
        born => {
            drop(gate);
            if let (Some(born), false) = (&born, failed) {
                deadline.end(born);
            }
            // It does not panic, and there is nothing to do if it did.
            let _ = thread.join();
            // Not taken before: nobody else will.
            if let Some(late) = told.birth.take() {
                deadline.end(&late);
            }
            // What the child says is the cause of what the caller met.
            if !failed {
                ready?;
            }
            Err(told.failure(plan, born.as_ref(), deadline))
        }
    }
}

/// It is killed as soon as it is there, which is not long.
fn give_up(plan: &Shared, told: Arc<Told>, gate: &Gate, thread: JoinHandle<()>) -> Error {
    let soon = || Deadline::after(Some(Duration::from_millis(1)));
    while !told.between.kill(&told.birth) && matches!(gate.wait_until(soon()), Ok(false)) {}
    leave(Some(thread), move || told.birth.take_known());
    plan.took_too_long(Step::Join)
}

impl Told {
    /// Whether the program has started, and by which fallbacks; if not, the child is reaped, or left behind if that takes too long.
    fn judge(&self, plan: &Shared, born: &Born, deadline: Deadline) -> Result<Fallbacks, Error> {
        if let Some(Ok(outcome)) = self.outcome.get() {
            return plan.judge(born, outcome, deadline).map(|()| outcome.used);
        }
        // A clone that failed has no child, unless who made it was killed; and the thread tells before it opens the gate.
        deadline.end(born);
        Err(Error::status_lost())
    }

    fn failure(self: Arc<Self>, plan: &Shared, born: Option<&Born>, deadline: Deadline) -> Error {
        if let Some(Err(error)) = born.map(|born| self.judge(plan, born, deadline)) {
            return error;
        }
        let outcome = Arc::into_inner(self).and_then(|told| told.outcome.into_inner());
        outcome.and_then(Result::err).unwrap_or_else(Error::status_lost)
    }
}

/// The thread that is suspended as long as the child shares this memory.
struct Cloner {
    plan: Arc<Shared>,
    stops: Stops,
    pipes: Pipes,
    gate: Gate,
    told: Arc<Told>,
}

impl Cloner {
    fn run(self) {
        let Cloner { plan, stops, pipes, gate, told } = self;
        let mut slots = pipes.slots();
        gate.fill(&mut slots, plan.parts.highest);
        let _ = told.outcome.set(plan.clone_child(slots, stops, (&told.birth, &told.between)));
        // What the caller then finds closed is closed.
        drop((plan, pipes));
        let stay = told.stay.get().cloned();
        drop(told);
        gate.open();
        drop(gate);
        if let Some(pidfd) = stay {
            let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            while poll(&mut end, PollTimeout::NONE) == Err(Errno::EINTR) {}
        }
    }
}

impl Held {
    pub(crate) fn born(&self) -> &Born {
        &self.born
    }

    /// Its process id in the caller's pid namespace.
    #[must_use]
    #[doc(alias = "pid")]
    pub fn id(&self) -> u32 {
        self.born.pid
    }

    /// A descriptor of one of its namespaces.
    ///
    /// # Errors
    /// As [`Child::namespace`].
    pub fn namespace(&self, which: Namespaces) -> Result<OwnedFd, Error> {
        if let Some(inside) = &self.inside {
            return inside.namespace(which);
        }
        namespace::open_of_held(self.born.pid, self.born.pidfd.as_fd(), which)
    }

    /// Why something about it could not be done: that it is not there any more is the cause, if it is not.
    pub(crate) fn cause(mut self, met: Error) -> Error {
        let mut end = [PollFd::new(self.born.pidfd.as_fd(), PollFlags::POLLIN)];
        // Its files in /proc may go a moment before.
        if poll(&mut end, PollTimeout::from(200_u8)) != Ok(1) {
            return met;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.released = true;
        self.told.judge(&self.plan, &self.born, Deadline::NEVER).err().unwrap_or(met)
    }

    /// Runs these hooks one after the other in its namespaces and its root, as who its program will be and under all that confines that: capabilities, filters,
    /// rulesets, limits, cgroup. (A filter's listener is not asked: what it would be asked fails, `ENOSYS`.) They are programs of the sandbox's root, and so as hostile as
    /// that may be: of the child that waits they can see no memory, no descriptor and no program file.
    ///
    /// # Errors
    /// That of the first that fails: see [`Hook`]. Those behind it are not run. [`InvalidConfig`](crate::ErrorKind::InvalidConfig) if the child was not
    /// made by [`Sandbox::create`](crate::Sandbox::create).
    #[doc(alias = "startContainer")]
    pub fn start_container(&self, hooks: &[Hook], state: &OciState) -> Result<(), Error> {
        let words = "run beside a child that is made by Sandbox::create";
        let inside = self.inside.as_ref().ok_or_else(|| Error::config("hooks", words))?;
        let json = state.json("created", Some(hook::pid_inside(self.id())?));
        hooks.iter().try_for_each(|one| hook::run(one, inside.with_its_own_root()?, &json))
    }

    /// Lets it go on to where it waits next.
    pub(crate) fn go_on(&mut self) -> Result<(), Error> {
        self.gate.open();
        self.gate.wait()?;
        if self.told.outcome.get().is_none() {
            return Ok(());
        }
        // It has ended, or it would not have been told of.
        let judged = self.told.judge(&self.plan, &self.born, Deadline::NEVER);
        self.released = true;
        judged.and(Err(Error::status_lost()))
    }

    /// Starts the program, and returns when it has really started.
    ///
    /// # Errors
    /// As [`Plan::spawn`](crate::Plan::spawn).
    pub fn release(self) -> Result<Child, Error> {
        let deadline = self.plan.deadline();
        self.release_until(deadline)
    }

    pub(crate) fn release_until(mut self, deadline: Deadline) -> Result<Child, Error> {
        let stay = self.plan.parts.die_with_parent;
        if stay {
            self.told.stay.get_or_init(|| self.born.pidfd.clone());
        }
        self.gate.open();
        if !self.gate.wait_until(deadline)? {
            self.released = true;
            self.told.between.kill(&self.told.birth);
            let _ = sys::send_signal(self.born.pidfd.as_fd(), libc::SIGKILL);
            let born = self.born.clone();
            leave(self.thread.take(), move || Some(born));
            return Err(self.plan.took_too_long(Step::Exec));
        }
        let judged = self.told.judge(&self.plan, &self.born, deadline);
        self.released = true;
        if judged.is_err() && deadline.is_over() {
            // It may stay as long as the child, which is not waited for.
            drop(self.thread.take());
        }
        let fallbacks = judged?;
        let keeper = if stay { self.thread.take() } else { None };
        let engine = self.plan.engine(self.stops);
        let ours = std::mem::take(&mut self.ours);
        Ok(self.plan.finish(self.born.clone(), ours, (engine, fallbacks), deadline)?.kept_by(keeper))
    }
}

/// The pidfd: readable if it ends while it is held.
impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.born.pidfd.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.released {
            end(&self.born);
        }
        if let Some(thread) = self.thread.take() {
            // It does not panic, and there is nothing to do if it did.
            let _ = thread.join();
        }
    }
}
