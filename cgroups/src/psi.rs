//! Being woken when waiting for a resource takes too long: `accounting/psi.rst`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};

use crate::cgroup::{Cgroup, file_missing};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::wait::Deadline;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// A CPU.
    Cpu,
    /// Memory.
    Memory,
    /// A block device.
    Io,
}

/// By whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// At least one.
    Some,
    /// All, so that nothing gets done.
    Full,
}

/// Becomes ready, with `POLLPRI`, when the time lost in a window has exceeded what was asked for, once in each window
/// at most. Made by [`Cgroup::pressure_trigger`]; ends when it is dropped.
#[derive(Debug)]
pub struct PressureTrigger {
    fd: OwnedFd,
    path: PathBuf,
}

impl Cgroup {
    /// A descriptor that tells when more than `stall` is lost in some `window`, by `waiting` for the resource. Needs a
    /// unified tree. The kernel takes windows of 500 ms to 10 s; without `CAP_SYS_RESOURCE` only multiples of 2 s, since
    /// Linux 6.5.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if pressure is not counted (v1, `psi=0`); [`ErrorKind::InvalidInput`] if the kernel does
    /// not take the times; [`ErrorKind::Gone`]; [`ErrorKind::PermissionDenied`].
    pub fn pressure_trigger(
        &self,
        resource: Resource,
        waiting: Waiting,
        stall: Duration,
        window: Duration,
    ) -> Result<PressureTrigger> {
        let file = match resource {
            Resource::Cpu => "cpu.pressure",
            Resource::Memory => "memory.pressure",
            Resource::Io => "io.pressure",
        };
        let off =
            |path: &Path| Error::new(ErrorKind::Unsupported, Op::Watch, path).with_note("pressure is not counted here");
        let Some(member) = self.members().last().filter(|member| member.version() == Version::V2) else {
            return Err(off(self.paths().last().unwrap_or(Path::new(""))));
        };
        let path = member.dir.path().join(file);
        let fd = match member.dir.open_both(file).map_err(|error| file_missing(&member.dir, error)) {
            Err(error) if matches!(error.kind(), ErrorKind::ControllerUnavailable | ErrorKind::Unsupported) => {
                return Err(off(&path));
            }
            fd => fd?,
        };
        let who = match waiting {
            Waiting::Some => "some",
            Waiting::Full => "full",
        };
        // The kernel wants its text to end with a zero, or takes the last byte for it.
        let text = format!("{who} {} {}\0", stall.as_micros(), window.as_micros());
        match retry_on_intr(|| rustix::io::write(&fd, text.as_bytes())) {
            Ok(_) => Ok(PressureTrigger { fd, path }),
            Err(errno) => {
                let error = Error::os(errno, Op::Watch, &path).with_value(text.trim_end_matches('\0'));
                Err(match errno {
                    Errno::INVAL => error.with_kind(ErrorKind::InvalidInput),
                    Errno::OPNOTSUPP => off(&path),
                    _ => error,
                })
            }
        }
    }
}

impl PressureTrigger {
    /// Waits until it was exceeded, at most for `timeout`. False: it was not. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] when the cgroup was deleted.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        let deadline = Deadline::after(timeout);
        loop {
            let mut watched = [PollFd::new(&self.fd, PollFlags::PRI)];
            match poll(&mut watched, Some(&deadline.remaining())) {
                Ok(0) if deadline.has_passed() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) if watched.iter().any(|fd| fd.revents().contains(PollFlags::ERR)) => {
                    return Err(Error::new(ErrorKind::Gone, Op::Wait, &self.path));
                }
                Ok(_) => return Ok(true),
                Err(errno) => return Err(Error::os(errno, Op::Wait, &self.path)),
            }
        }
    }
}

impl AsFd for PressureTrigger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
