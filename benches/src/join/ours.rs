//! cofferdam and its floor.

use super::check;
use super::target::Target;
use crate::Result;
use crate::area::{Contender, Role, Sample};
use crate::floor::join::Joiner;
use crate::floor::spawn::{Floor, Kind};
use crate::spawn::{Program, Shape, ignored_signals};
use cofferdam_namespaces::{Fds, Join, Sandbox, Stdio};
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Instant;

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
            let start = Instant::now();
            let mut child = match &plan {
                Some(plan) => plan.spawn()?,
                None => sandbox.spawn_with(fds()?)?,
            };
            let mut buffer = [0; 128];
            // One read: the program writes all at once.
            let len = child.stdout.take().ok_or("no pipe")?.read(&mut buffer)?;
            let returned = start.elapsed();
            let status = child.wait()?;
            drop(child);
            let whole = start.elapsed();
            if !status.success() {
                return Err(status.to_string().into());
            }
            check(&buffer[..len])?;
            Ok(Sample { whole, returned })
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
            let start = Instant::now();
            let running = joiner.spawn()?;
            let mut buffer = [0; 128];
            let len = running.read(&mut buffer)?.len();
            let returned = start.elapsed();
            let success = running.wait()?;
            let whole = start.elapsed();
            if !success {
                return Err("its child failed".into());
            }
            check(&buffer[..len])?;
            Ok(Sample { whole, returned })
        }
    }))
}
