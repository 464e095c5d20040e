//! cofferdam and its floor.

use super::{HOSTNAME, Program, Shape, Way, check, own_hostname};
use crate::Result;
use crate::area::{Contender, Role, Sample};
use crate::floor::spawn::{Floor, Kind};
use cofferdam_namespaces::{Child, Fds, IdMap, Mount, Namespaces, Sandbox, Stdio};
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Instant;

fn sandbox(shape: Shape, program: &Program) -> Sandbox {
    let sandbox = Sandbox::new(program.path()).stdout(Stdio::Pipe);
    match shape {
        Shape::Plain => sandbox,
        Shape::Namespaces => sandbox
            .namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::NET)
            .user(IdMap::root())
            .mount(Mount::proc("/proc"))
            .hostname(HOSTNAME.to_string_lossy().into_owned()),
    }
}

/// Our library.
///
/// # Errors
/// If the plan cannot be made.
pub fn cofferdam(shape: Shape, way: Way, program: &Program) -> Result<Contender> {
    let sandbox = sandbox(shape, program);
    let plan = Arc::new(sandbox.prepare(Fds::new())?);
    let hostname: Arc<str> = hostname(shape)?.into();
    Ok(Contender::new("cofferdam", Role::Cofferdam, move || {
        let (sandbox, plan, hostname) = (sandbox.clone(), Arc::clone(&plan), Arc::clone(&hostname));
        move || {
            let start = Instant::now();
            let child = if way == Way::Prepared { plan.spawn() } else { sandbox.spawn() };
            finish(child?, start, shape, &hostname)
        }
    }))
}

fn finish(mut child: Child, start: Instant, shape: Shape, hostname: &str) -> Result<Sample> {
    let returned = start.elapsed();
    let mut buffer = [0; 128];
    // One read: the program writes all at once.
    let len = child.stdout.take().ok_or("no pipe")?.read(&mut buffer)?;
    let status = child.wait()?;
    let pid = if shape == Shape::Plain { child.id() } else { 1 };
    drop(child);
    let whole = start.elapsed();
    if !status.success() {
        return Err(status.to_string().into());
    }
    check(&buffer[..len], pid, hostname)?;
    Ok(Sample { whole, returned })
}

/// The same system calls by hand.
///
/// # Errors
/// If there is no `/proc`.
pub fn floor(shape: Shape, program: &Program) -> Result<Contender> {
    let path = CString::new(program.path().into_os_string().into_vec())?;
    let kind = match shape {
        Shape::Plain => Kind::Plain,
        Shape::Namespaces => Kind::Namespaces(HOSTNAME),
    };
    let ignored = ignored_signals()?;
    let hostname: Arc<str> = hostname(shape)?.into();
    Ok(Contender::new("floor", Role::Floor, move || {
        let mut floor = Floor::new(path.clone(), kind, ignored);
        let hostname = Arc::clone(&hostname);
        move || {
            let start = Instant::now();
            let running = floor.spawn()?;
            let returned = start.elapsed();
            let mut buffer = [0; 128];
            let pid = if shape == Shape::Plain { running.pid.cast_unsigned() } else { 1 };
            let len = running.read(&mut buffer)?.len();
            let success = running.wait()?;
            let whole = start.elapsed();
            if !success {
                return Err("its child failed".into());
            }
            check(&buffer[..len], pid, &hostname)?;
            Ok(Sample { whole, returned })
        }
    }))
}

fn hostname(shape: Shape) -> Result<String> {
    match shape {
        Shape::Plain => own_hostname(),
        Shape::Namespaces => Ok(HOSTNAME.to_string_lossy().into_owned()),
    }
}

fn ignored_signals() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).ok_or("no SigIgn")?;
    Ok(u64::from_str_radix(mask.trim(), 16)?)
}
