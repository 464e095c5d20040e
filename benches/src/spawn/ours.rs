//! cofferdam and its floor.

use super::run::{of_child, of_floor};
use super::shape::HOSTNAME;
use super::{Expect, Program, Shape, Way};
use crate::Result;
use crate::area::{Contender, Role};
use crate::floor::root::detached;
use crate::floor::spawn::{Floor, Kind};
use cofferdam_namespaces::{Engine, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio};
use std::os::fd::AsFd;
use std::sync::Arc;

/// A plan that is kept has a directory as its root: a mount can be attached once.
fn sandbox(shape: Shape, way: Way, program: &Program) -> Sandbox {
    let mut sandbox = Sandbox::new(program.path(shape)).namespaces(shape.namespaces).stdout(Stdio::Pipe);
    if shape.has(Namespaces::USER) {
        sandbox = sandbox.user(IdMap::root());
    }
    if shape.has(Namespaces::UTS) {
        sandbox = sandbox.hostname(HOSTNAME.to_string_lossy().into_owned());
    }
    if shape.has_proc() {
        sandbox = sandbox.mount(Mount::proc("/proc"));
    }
    if shape.root {
        let root = if way.is_prepared() { Root::directory(program.folder()) } else { Root::mount("root") };
        sandbox = sandbox.root(root).mount(Mount::dev("/dev"));
    }
    sandbox
}

/// Our library.
///
/// # Errors
/// If the plan cannot be made.
pub fn cofferdam(shape: Shape, way: Way, program: &Program) -> Result<Contender> {
    let mut sandbox = sandbox(shape, way, program);
    if way.is_copy() {
        sandbox = sandbox.engine(Engine::Copy);
    }
    let plan = if way.is_prepared() { Some(sandbox.prepare(Fds::new())?) } else { None };
    let root = program.root()?;
    let expect = Arc::new(Expect::of(shape)?);
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let (sandbox, plan, root, expect) = (sandbox.clone(), plan.clone(), root.clone(), Arc::clone(&expect));
        move || {
            let spawn = || match &plan {
                Some(plan) => Ok(plan.spawn()?),
                None if shape.root => Ok(sandbox.spawn_with(Fds::new().bind("root", detached(&root)?))?),
                None => Ok(sandbox.spawn()?),
            };
            of_child(spawn, |said, pid| expect.check(said, pid))
        }
    }))
}

/// The same system calls by hand.
///
/// # Errors
/// If there is no `/proc`.
pub fn floor(shape: Shape, program: &Program) -> Result<Contender> {
    let path = program.path_text(shape)?;
    let kind = Kind {
        namespaces: i32::try_from(shape.namespaces.bits())?,
        hostname: shape.has(Namespaces::UTS).then_some(HOSTNAME),
    };
    let ignored = ignored_signals()?;
    let root = program.root()?;
    let expect = Arc::new(Expect::of(shape)?);
    Ok(Contender::new("floor", Role::Floor, move || {
        let mut floor = Floor::new(path.clone(), kind, ignored);
        let (root, expect) = (root.clone(), Arc::clone(&expect));
        move || {
            let spawn = || {
                let root = if shape.root { Some(detached(&root)?) } else { None };
                Ok(floor.spawn(root.as_ref().map(AsFd::as_fd))?)
            };
            of_floor(spawn, |said, pid| expect.check(said, pid))
        }
    }))
}

pub(crate) fn ignored_signals() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).ok_or("no SigIgn")?;
    Ok(u64::from_str_radix(mask.trim(), 16)?)
}
