//! cofferdam and its floor.

use super::shape::HOSTNAME;
use super::{Expect, Program, Shape, Way};
use crate::Result;
use crate::area::{Contender, Role, Sample};
use crate::floor::root::detached;
use crate::floor::spawn::{Floor, Kind};
use cofferdam_namespaces::{Child, Engine, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio};
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

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
            let start = Instant::now();
            let child = match &plan {
                Some(plan) => plan.spawn()?,
                None if shape.root => sandbox.spawn_with(Fds::new().bind("root", detached(&root)?))?,
                None => sandbox.spawn()?,
            };
            finish(child, start, &expect)
        }
    }))
}

fn finish(mut child: Child, start: Instant, expect: &Expect) -> Result<Sample> {
    let mut buffer = [0; 128];
    // One read: the program writes all at once.
    let len = child.stdout.take().ok_or("no pipe")?.read(&mut buffer)?;
    let returned = start.elapsed();
    let status = child.wait()?;
    let pid = child.id();
    drop(child);
    let whole = start.elapsed();
    if !status.success() {
        return Err(status.to_string().into());
    }
    expect.check(&buffer[..len], pid)?;
    Ok(Sample { whole, returned })
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
            let start = Instant::now();
            let root = if shape.root { Some(detached(&root)?) } else { None };
            let running = floor.spawn(root.as_ref().map(AsFd::as_fd))?;
            drop(root);
            let mut buffer = [0; 128];
            let pid = running.pid.cast_unsigned();
            let len = running.read(&mut buffer)?.len();
            let returned = start.elapsed();
            let success = running.wait()?;
            let whole = start.elapsed();
            if !success {
                return Err("its child failed".into());
            }
            expect.check(&buffer[..len], pid)?;
            Ok(Sample { whole, returned })
        }
    }))
}

pub(crate) fn ignored_signals() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).ok_or("no SigIgn")?;
    Ok(u64::from_str_radix(mask.trim(), 16)?)
}
