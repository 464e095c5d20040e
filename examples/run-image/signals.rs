//! Being told to stop, and the program's end.

use crate::Result;
use cofferdam_namespaces::Child;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::thread;

/// The signals that end us, by number, as something to be read: also in a [`Scope`](cofferdam_namespaces::Scope), whose process
/// they are not sent to.
pub(crate) struct Signals(PipeReader);

/// The signal that told us to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped by signal {0}")]
pub(crate) struct Told(pub(crate) u8);

impl Signals {
    /// From here on they end no process, but a wait: there are things to put away.
    pub(crate) fn watch() -> Result<Self> {
        let ours = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let ours: SigSet = ours.into_iter().collect();
        ours.thread_block()?;
        let (reader, mut writer) = pipe()?;
        thread::Builder::new().spawn(move || writer.write_all(&[ours.wait()? as u8]))?;
        Ok(Signals(reader))
    }

    /// Fails if one has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.told() { Err(self.read()?.into()) } else { Ok(()) }
    }

    /// Looks for them from another thread.
    pub(crate) fn watcher(&self) -> Result<Self> {
        Ok(Signals(self.0.try_clone()?))
    }

    /// Whether one has come.
    pub(crate) fn told(&self) -> bool {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Waits for the program's end, which one of them brings about. The exit code is as a shell tells it.
    pub(crate) fn wait(&self, child: &Child) -> Result<u8> {
        let mut ready = [self.0.as_fd(), child.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
        if ready[0].any() == Some(true) {
            let Told(signal) = self.read()?;
            child.kill()?;
            child.wait()?;
            return Ok(128 + signal);
        }
        let status = child.wait()?;
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }

    fn read(&self) -> Result<Told> {
        let mut number = [0];
        (&self.0).read_exact(&mut number)?;
        Ok(Told(number[0]))
    }
}
