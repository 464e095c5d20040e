//! Code of the caller's instead of a program: the caller's side. The child's, and what is allowed, is in `sys::closure`.

use crate::deadline::Deadline;
use crate::gate::Gate;
use crate::plan::{Pipes, Shared, end};
use crate::program::Stops;
use crate::sys::{self, Birth, Born, Frame, SharedPage, Stack, Task};
use crate::{Child, Engine, Error, Step, scope};
use std::os::fd::AsFd;

pub(crate) fn spawn(plan: &Shared, body: &mut dyn FnMut() -> u8) -> Result<Child, Error> {
    if plan.parts.asked == Some(Engine::Shared) {
        return Err(Error::config("engine", "cannot be Shared, because code of the caller's runs in the sandbox"));
    }
    if plan.parts.target.is_some() {
        return Err(Error::config("closure", "cannot run in namespaces that are joined: it has the caller's memory"));
    }
    if plan.parts.init.is_some() {
        return Err(Error::config("closure", "cannot be run by an init, which starts programs"));
    }
    if plan.parts.listens {
        return Err(Error::config("closure", "cannot be asked about by a filter: it has not left this program yet"));
    }
    scope::check(plan.parts.apart)?;
    let (gate, theirs) = Gate::pair(plan.parts.highest)?;
    let mut pipes = Pipes::open(&plan.parts)?;
    let mut slots = pipes.slots();
    theirs.fill(&mut slots, plan.parts.highest);
    let no_memory = |(call, errno)| Error::os(Step::Memory, call, errno);
    let telling = SharedPage::map().map_err(no_memory)?;
    let mut stack = Stack::map(Stack::LARGE).map_err(no_memory)?;
    let birth = Birth::new();
    let mut task =
        Task::new(Frame::new(&plan.parts.program, slots, Stops::Release, &telling).without_program(), &theirs, body);
    plan.guarded(&birth, |world, used| {
        task.frame.falls_back(used);
        sys::clone_task(world, &mut stack, &mut task, &birth)
    })?;
    drop(theirs);
    let born = birth.take().ok_or_else(Error::status_lost)?;
    let started = accompany(plan, &gate, &born);
    if started.is_err() {
        end(&born);
    }
    let outcome = telling.outcome();
    if started.is_ok() || outcome.errno.is_some() {
        plan.judge(&born, &outcome, Deadline::NEVER)?;
    }
    started?;
    Child::new(born, pipes.ours(), plan.report(Engine::Copy, outcome.used))
}

/// Until the closure has begun, or the child has ended. It stops where a held one does, which has no descriptors of ours any more.
fn accompany(plan: &Shared, gate: &Gate, born: &Born) -> Result<(), Error> {
    let pidfd = born.pidfd.as_fd();
    gate.wait_for(pidfd)?;
    if let Some(maps) = &plan.parts.maps {
        maps.write(born.pid)?;
        gate.open();
        gate.wait_for(pidfd)?;
    }
    gate.open();
    gate.wait_for(pidfd)
}
