//! A sandbox that has been checked, and the caller's side of a spawn.

use crate::bind::{STREAM, STREAM_NAMES, above_streams, path_of};
use crate::deadline::{Between, Deadline};
use crate::identity::Maps;
use crate::privilege::LISTENER;
use crate::program::{Program, SLOTS, Stops};
use crate::report::NOEXEC;
use crate::sys::{self, Birth, Block, Born, Frame, Outcome, SharedPage, SignalMask, Telling, World};
use crate::target::Kind;
use crate::{
    Call, CapabilitySet, Child, Engine, Error, Fallbacks, Held, Namespaces, Report, Step, Target, fallbacks, handover,
    hint, init, scope, terminal,
};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::ffi::OsString;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A checked [`Sandbox`](crate::Sandbox) with its descriptors: spawns any number of processes, from any number of threads.
///
/// Making one is most of the caller's work of a spawn, so keep it where the same sandbox is spawned again and again.
/// It belongs to the process that made it; do not use it in a fork of that.
///
/// A clone is the same plan, not a copy of it.
#[derive(Debug, Clone)]
pub struct Plan(pub(crate) Arc<Shared>);

/// What all clones of a plan share, and the threads of held children.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) parts: Parts,
    /// Where copies tell, which cannot do so in memory that is copied; to be used again.
    tellings: Mutex<Vec<SharedPage<Telling>>>,
}

/// What a plan is made of.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of a plan")]
pub(crate) struct Parts {
    /// The program as the sandbox names it, wherever in PATH it is looked for.
    pub(crate) name: OsString,
    pub(crate) program: Program,
    pub(crate) engine: Engine,
    /// The engine that the caller insists on.
    pub(crate) asked: Option<Engine>,
    /// The namespaces that the clone makes.
    pub(crate) namespaces: Namespaces,
    /// All namespaces that are not the caller's.
    pub(crate) apart: Namespaces,
    /// Whose namespaces are joined, by a process that then clones the child.
    pub(crate) target: Option<Target>,
    /// How long it may keep the caller.
    pub(crate) timeout: Option<Duration>,
    pub(crate) fallbacks: Fallbacks,
    /// Those that were needed when the plan was made.
    pub(crate) skipped: Fallbacks,
    /// Capabilities that the kernel does not know.
    pub(crate) left_out: CapabilitySet,
    /// The version 2 cgroup that the clone enters.
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) pipes: [bool; 3],
    pub(crate) terminal: Option<terminal::Wanted>,
    /// Whether a filter has a listener.
    pub(crate) listens: bool,
    /// The highest descriptor that is there until the program starts.
    pub(crate) highest: i32,
    pub(crate) die_with_parent: bool,
    /// Whether the start of the program makes the kernel forget that.
    pub(crate) forgets_parent: bool,
    pub(crate) init: Option<init::Wanted>,
    /// The maps that the caller writes while the child waits.
    pub(crate) maps: Option<Maps>,
    /// Whether the child is another user or group than the caller.
    pub(crate) changes_ids: bool,
    #[expect(dead_code, reason = "kept open because the program uses their numbers")]
    pub(crate) held: Vec<OwnedFd>,
}

impl Plan {
    pub(crate) fn new(parts: Parts) -> Self {
        Plan(Arc::new(Shared { parts, tellings: Mutex::default() }))
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
    pub fn explain(&self) -> impl Iterator<Item = Call<'_>> {
        self.0.parts.program.calls()
    }

    /// Spawns a process and returns when its program has started.
    ///
    /// The calling thread is suspended that long, all others go on. Signals to the calling thread are held back meanwhile.
    ///
    /// A child with [ranges](crate::IdMap::ranges) of ids must wait for its caller to write them, so that this is [`hold`](Plan::hold) and
    /// [`release`](Held::release); so it is where a [join has a timeout](crate::Join::timeout).
    ///
    /// # Errors
    /// What kept the program from starting, by [step](Error::step): nothing is left of the process then.
    pub fn spawn(&self) -> Result<Child, Error> {
        let plan = &*self.0;
        scope::check(plan.parts.apart)?;
        if plan.parts.maps.is_some() || plan.parts.timeout.is_some() {
            let deadline = plan.deadline();
            return crate::held::hold(&self.0, Stops::Release, deadline)?.release_until(deadline);
        }
        let mut pipes = Pipes::open(&plan.parts)?;
        let birth = plan.birth()?;
        let outcome = plan.clone_child(pipes.slots(), Stops::Nowhere, (&birth, &Between::new()))?;
        let born = birth.take().ok_or_else(Error::status_lost)?;
        plan.judge(&born, &outcome, Deadline::NEVER)?;
        plan.finish(born, pipes.ours(), (plan.parts.engine, outcome.used), Deadline::NEVER)
    }

    /// Brings a child to the point where only the start of its program is left, and holds it there.
    ///
    /// Meanwhile its namespaces can be filled from outside: [`Held::namespace`] gives them as descriptors. It has its root, its mounts and its
    /// streams, and no other descriptor of the caller's.
    ///
    /// It takes a thread of its own, which is suspended in the caller's place. With [`die_with_parent`](crate::Sandbox::die_with_parent) that thread stays until the child
    /// has ended, so that the child then dies with the caller's *process*, whichever thread calls this.
    ///
    /// That thread cannot answer meanwhile. As long as a child is held, the caller's process cannot be stopped (`SIGSTOP`, job control), attached to by a
    /// debugger, or change its user or group by libc, which waits for all threads: release soon. A held child has the caller's memory (with
    /// [`Engine::Copy`] a copy of it): do not give its user namespace to anybody who is not trusted with that.
    ///
    /// # Errors
    /// As [`spawn`](Plan::spawn), but for the start of the program.
    #[doc(alias("create", "suspend"))]
    pub fn hold(&self) -> Result<Held, Error> {
        scope::check(self.0.parts.apart)?;
        crate::held::hold(&self.0, Stops::Release, self.0.deadline())
    }
}

impl Shared {
    /// Returns when the child has started its program or ended. One that stops makes the calls of [`Step::Hold`] too.
    pub(crate) fn clone_child(
        &self,
        slots: [i64; SLOTS],
        stops: Stops,
        (birth, between): (&Birth, &Between),
    ) -> Result<Outcome, Error> {
        let (own, engine) = (Telling::new(), self.engine(stops));
        let shared = if engine == Engine::Copy { Some(self.take_telling()?) } else { None };
        let telling = shared.as_deref().unwrap_or(&own);
        let mut frame = Frame::new(&self.parts.program, slots, stops, telling);
        let cloned = if self.parts.target.is_some() {
            self.guarded(&between.birth, |world, used| {
                frame.falls_back(used);
                sys::clone_relay(world, &mut frame, &between.birth, birth)
            })
        } else {
            self.guarded(birth, |world, used| {
                frame.falls_back(used);
                sys::clone_and_run(engine, world, &frame, birth)
            })
        };
        let outcome = telling.outcome();
        cloned?;
        if let Some(first) = between.born() {
            self.see_off(&first, birth, &outcome)?;
        }
        // Not before: a child whose process between was killed may still tell something.
        if let Some(telling) = shared {
            self.give_back(telling);
        }
        Ok(outcome)
    }

    /// While one is created, programs run beside it in its namespaces: they must not find the caller's memory there.
    pub(crate) fn engine(&self, stops: Stops) -> Engine {
        if stops == Stops::Creation { Engine::Copy } else { self.parts.engine }
    }

    /// The process between has done its part: it has ended well, and there is a child.
    fn see_off(&self, first: &Born, birth: &Birth, outcome: &Outcome) -> Result<(), Error> {
        let status = sys::reap(first.pidfd.as_fd(), Block::Yes);
        if status == Ok(Some(0)) {
            return Ok(());
        }
        // Killed while the child was on its way: nobody knows how far that has come.
        if let Some(child) = birth.take_known() {
            end(&child);
        }
        Err(self.failure(outcome, status))
    }

    /// Where a birth is noted: where it is another process that clones the child, in memory that it shares.
    pub(crate) fn birth(&self) -> Result<BirthPlace, Error> {
        if self.parts.target.is_none() {
            return Ok(BirthPlace::Here(Birth::new()));
        }
        let page = SharedPage::<Birth>::map().map_err(|(call, errno)| Error::os(Step::Memory, call, errno))?;
        page.clear();
        Ok(BirthPlace::Shared(page))
    }

    /// Clones, by the means that there are, while no signal of the caller's can reach the child.
    pub(crate) fn guarded(
        &self,
        birth: &Birth,
        mut clone: impl FnMut(World<'_>, Fallbacks) -> Result<(), i32>,
    ) -> Result<(), Error> {
        let blocked = |errno| Error::os(Step::BlockSignals, "rt_sigprocmask", errno);
        let before = SignalMask::ALL.set().map_err(blocked)?;
        let (mut used, into_cgroup) = (Fallbacks::empty(), self.parts.cgroup.is_some());
        let cloned = loop {
            match clone(self.world(used), used) {
                Ok(()) => break Ok(()),
                Err(errno) => match fallbacks::after_clone(self.parts.fallbacks, used, into_cgroup, errno) {
                    Some(more) => used |= more,
                    None => break Err(errno),
                },
            }
        };
        let restored = before.set().map_err(blocked);
        match (cloned, restored) {
            (Ok(()), Ok(_)) => Ok(()),
            (Ok(()), Err(error)) => {
                // Best effort, in a case that the kernel does not know: the error is what matters.
                if let Some(born) = birth.take() {
                    end(&born);
                }
                Err(error)
            }
            (Err(errno), _) => {
                let call = if used.contains(Fallbacks::CLONE) { "clone" } else { "clone3" };
                Err(self.hint(Error::os(Step::Clone, call, errno).about(self.clone_object(errno))))
            }
        }
    }

    fn world(&self, used: Fallbacks) -> World<'_> {
        let (mut namespaces, mut cgroup) = (self.parts.namespaces, self.parts.cgroup.as_ref());
        if used.contains(Fallbacks::CGROUP_PROCS) {
            namespaces.remove(Namespaces::CGROUP);
            cgroup = None;
        }
        World {
            namespaces: namespaces.bits(),
            cgroup: cgroup.map(AsFd::as_fd),
            by_old_clone: used.contains(Fallbacks::CLONE),
        }
    }

    /// What a refused clone was about: the cgroup, or the namespaces, or one cannot tell.
    fn clone_object(&self, errno: i32) -> String {
        let directory = self.parts.cgroup.as_ref().map(|fd| path_of(fd.as_fd()));
        let of_cgroup = [libc::EACCES, libc::EBUSY, libc::ENODEV, libc::ENOENT, libc::EOPNOTSUPP].contains(&errno);
        let namespaces: Vec<_> = self.parts.namespaces.iter_names().map(|(name, _)| name).collect();
        let namespaces = namespaces.join(" | ");
        match directory {
            Some(path) if of_cgroup => path.display().to_string(),
            Some(path) => format!("{namespaces} in {}", path.display()),
            None => namespaces,
        }
    }

    /// The child has left the caller's memory for its program, or for an init that starts that.
    pub(crate) fn finish(
        &self,
        born: Born,
        mut ours: Ours,
        (engine, used): (Engine, Fallbacks),
        deadline: Deadline,
    ) -> Result<Child, Error> {
        init::confirm(self, &born, ours.init.take(), deadline)?;
        Child::new(born, ours, self.report(engine, used))
    }

    /// Whether the program has started; if not, the child has ended and is reaped, or left behind if that takes too long.
    pub(crate) fn judge(&self, born: &Born, outcome: &Outcome, deadline: Deadline) -> Result<(), Error> {
        let Some(call) = self.parts.program.get(outcome.at) else {
            return Ok(());
        };
        if outcome.errno.is_none() && call.starts_program() && deadline.has_started(born)? {
            return Ok(());
        }
        let status = deadline.reap(born);
        if outcome.errno.is_none() && status == Ok(None) && deadline.is_over() {
            return Err(self.took_too_long(call.step()));
        }
        Err(self.failure(outcome, status))
    }

    /// What has kept a child from starting its program that ended like this.
    fn failure(&self, outcome: &Outcome, status: Result<Option<i32>, i32>) -> Error {
        let Some(call) = self.parts.program.get(outcome.at) else {
            return Error::status_lost();
        };
        let error = match (outcome.errno, status) {
            (Some(errno), _) => Error::os(call.step(), call.name(), errno).saying(&outcome.said),
            (None, Ok(Some(status))) => Error::killed(call.step(), status & 0x7f),
            (None, _) => Error::status_lost(),
        };
        // Of a program that was looked for in PATH, the name says more than the last place.
        let object = if call.step() == Step::Exec { &self.parts.name } else { call.object() };
        let error = self.hint(if object.is_empty() { error } else { error.about(object) });
        let error = if call.starts_program() { hint::of_start(error, outcome.used.contains(NOEXEC)) } else { error };
        match self.parts.target.as_ref().map(|target| &*target.0) {
            Some(Kind::Process(target)) => error.of_target(target),
            _ => error,
        }
    }

    /// How a child came to be that was made so.
    pub(crate) fn report(&self, engine: Engine, fallbacks: Fallbacks) -> Report {
        let Parts { skipped, left_out, .. } = self.parts;
        Report::new(engine, fallbacks, skipped, left_out)
    }

    fn hint(&self, error: Error) -> Error {
        hint::add(error, self.parts.namespaces)
    }

    fn take_telling(&self) -> Result<SharedPage<Telling>, Error> {
        let kept = self.tellings.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(telling) => Ok(telling),
            None => SharedPage::map().map_err(|(call, errno)| Error::os(Step::Memory, call, errno)),
        }
    }

    fn give_back(&self, telling: SharedPage<Telling>) {
        telling.clear();
        self.tellings.lock().unwrap_or_else(PoisonError::into_inner).push(telling);
    }
}

/// Where the kernel notes who was born.
#[derive(Debug)]
pub(crate) enum BirthPlace {
    Here(Birth),
    Shared(SharedPage<Birth>),
}

impl Deref for BirthPlace {
    type Target = Birth;

    fn deref(&self) -> &Birth {
        match self {
            BirthPlace::Here(birth) => birth,
            BirthPlace::Shared(page) => page,
        }
    }
}

/// Kills and reaps a child that the caller will not get.
pub(crate) fn end(born: &Born) {
    Deadline::NEVER.end(born);
}

/// The pipes of one spawn: the child's ends, which are closed here when this is dropped, and the caller's.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    theirs: [Option<OwnedFd>; 3],
    terminal: Option<terminal::Theirs>,
    init: Option<init::Theirs>,
    listener: Option<OwnedFd>,
    ours: Ours,
}

/// What the caller has of a child.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    pub(crate) streams: [Option<OwnedFd>; 3],
    pub(crate) terminal: Option<terminal::Ours>,
    pub(crate) init: Option<init::Ours>,
    /// By which the listener of a filter comes.
    pub(crate) listener: Option<OwnedFd>,
}

impl Pipes {
    pub(crate) fn open(parts: &Parts) -> Result<Self, Error> {
        let mut pipes = Pipes::default();
        let ends = pipes.theirs.iter_mut().zip(&mut pipes.ours.streams).zip(STREAM_NAMES);
        let ends = ends.zip(parts.pipes).enumerate();
        for (stream, (((theirs, ours), name), wanted)) in ends {
            if wanted {
                let (read, write) =
                    pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::os(Step::Pipe, "pipe2", e as i32).about(name))?;
                let (child, caller) = if stream == 0 { (read, write) } else { (write, read) };
                *theirs = Some(above_streams(child).map_err(|e| Error::os(Step::Pipe, "fcntl", e).about(name))?);
                *ours = Some(caller);
            }
        }
        if let Some(wanted) = &parts.terminal {
            let (ours, theirs) = terminal::open_ends(wanted)?;
            (pipes.ours.terminal, pipes.terminal) = (Some(ours), Some(theirs));
        }
        if let Some(wanted) = &parts.init {
            let (ours, theirs) = wanted.open()?;
            (pipes.ours.init, pipes.init) = (Some(ours), Some(theirs));
        }
        if parts.listens {
            let (ours, theirs) = handover::pair(Step::Pipe, parts.highest)?;
            (pipes.ours.listener, pipes.listener) = (Some(ours), Some(theirs));
        }
        Ok(pipes)
    }

    pub(crate) fn slots(&self) -> [i64; SLOTS] {
        let mut slots = [-1; SLOTS];
        let streams = self.theirs.iter().zip(STREAM).filter_map(|(end, slot)| Some((slot, end.as_ref()?)));
        let others = self.terminal.iter().chain(self.init.iter().flatten()).map(|(slot, fd)| (*slot, fd));
        let others = others.chain(self.listener.iter().map(|fd| (LISTENER, fd)));
        for (slot, fd) in streams.chain(others) {
            if let Some(value) = slots.get_mut(slot.0) {
                *value = fd.as_raw_fd().into();
            }
        }
        slots
    }

    pub(crate) fn ours(&mut self) -> Ours {
        std::mem::take(&mut self.ours)
    }
}
