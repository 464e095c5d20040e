//! One run of whatever starts the program: until that has said something, and until it has ended and been waited for.

use crate::Result;
use crate::area::Sample;
use crate::floor::spawn::Running;
use cofferdam_namespaces::Child;
use std::io::Read;
#[cfg(feature = "peers")]
use std::process::{Command, Stdio};
use std::time::Instant;

/// Longer than what it says.
const ROOM: usize = 128;

/// `check` sees what the program has said, and its number outside.
pub(crate) fn of_child(
    spawn: impl FnOnce() -> Result<Child>,
    check: impl FnOnce(&[u8], u32) -> Result<()>,
) -> Result<Sample> {
    let start = Instant::now();
    let mut child = spawn()?;
    let mut buffer = [0; ROOM];
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
    check(&buffer[..len], pid)?;
    Ok(Sample { whole, returned })
}

pub(crate) fn of_floor(
    spawn: impl FnOnce() -> Result<Running>,
    check: impl FnOnce(&[u8], u32) -> Result<()>,
) -> Result<Sample> {
    let start = Instant::now();
    let running = spawn()?;
    let mut buffer = [0; ROOM];
    let pid = running.pid.cast_unsigned();
    let len = running.read(&mut buffer)?.len();
    let returned = start.elapsed();
    let success = running.wait()?;
    let whole = start.elapsed();
    if !success {
        return Err("its child failed".into());
    }
    check(&buffer[..len], pid)?;
    Ok(Sample { whole, returned })
}

#[cfg(feature = "peers")]
pub(crate) fn of_command(mut command: Command, check: impl FnOnce(&[u8], u32) -> Result<()>) -> Result<Sample> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut buffer = [0; ROOM];
    let len = child.stdout.take().ok_or("no pipe")?.read(&mut buffer)?;
    let returned = start.elapsed();
    let status = child.wait()?;
    let whole = start.elapsed();
    if !status.success() {
        return Err(status.to_string().into());
    }
    check(&buffer[..len], child.id())?;
    Ok(Sample { whole, returned })
}
