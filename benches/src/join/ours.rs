//! cofferdam and its floor.

use super::check;
use super::target::Target;
use crate::Result;
use crate::area::{Contender, Role};
use crate::floor::join::Joiner;
use crate::floor::spawn::{Floor, Kind};
use crate::spawn::run::{of_child, of_floor};
use crate::spawn::{Program, Shape, ignored_signals};
use cofferdam_namespaces::{Fds, Join, Sandbox, Stdio};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

/// Our library: a plan that is kept, or one for each run, with the look at the target that it takes.
pub(super) fn cofferdam(shape: Shape, prepared: bool, program: &Program, target: &Arc<Target>) -> Result<Contender> {
    let sandbox = Sandbox::new(program.path(shape)).join(Join::all()).stdout(Stdio::Pipe);
    let target = Arc::clone(target);
    let fds = move || {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
            Fds::new().target(cofferdam_namespaces::Target::from_pidfd(target.pidfd()?)?),
        )
    };
    let plan = if prepared { Some(sandbox.prepare(fds()?)?) } else { None };
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let (sandbox, plan, fds) = (sandbox.clone(), plan.clone(), fds.clone());
        move || {
            let spawn = || match &plan {
                Some(plan) => Ok(plan.spawn()?),
                None => Ok(sandbox.spawn_with(fds()?)?),
            };
            of_child(spawn, |said, _| check(said))
        }
    }))
}

/// The same system calls by hand.
pub(super) fn floor(shape: Shape, program: &Program, target: &Arc<Target>) -> Result<Contender> {
    let path = CString::new(program.path(shape).into_os_string().into_vec())?;
    let (kinds, ignored) = (i32::try_from(shape.namespaces.bits())?, ignored_signals()?);
    let target = Arc::clone(target);
    Ok(Contender::new("floor", Role::Floor, move || {
        let floor = Floor::new(path.clone(), Kind { namespaces: 0, hostname: None }, ignored);
        let joiner = target.pidfd().and_then(|pidfd| Ok(Joiner::new(floor, pidfd, target.root()?, kinds)?));
        let mut joiner = joiner.map_err(|error| error.to_string());
        move || {
            let joiner = joiner.as_mut().map_err(|error| error.clone())?;
            of_floor(|| Ok(joiner.spawn()?), |said, _| check(said))
        }
    }))
}
