//! Waiting: for the time, but also for what may come before it, a signal or the end of the process.

use crate::stop::Stop;
use cofferdam_namespaces::Child;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

/// The signals that end the demonstration, as a descriptor.
pub(crate) struct Watch {
    signals: SignalFd,
}

impl Watch {
    /// Blocks the signals, so that they come here instead. A program that is spawned does not inherit that.
    pub(crate) fn start() -> Result<Self, Stop> {
        let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let wanted: SigSet = wanted.into_iter().collect();
        wanted.thread_block().map_err(io::Error::from)?;
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Watch { signals: signals.map_err(io::Error::from)? })
    }

    /// Returns at that time, unless a signal comes or the process ends.
    pub(crate) fn wait_until(&self, time: Instant, child: &Child) -> Result<(), Stop> {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            let mut fds = [self.signals.as_fd(), child.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match ppoll(&mut fds, Some(left.into()), None) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            if let Some(signal) = self.signals.read_signal().map_err(io::Error::from)? {
                return Err(Stop::Signal(u8::try_from(signal.ssi_signo).unwrap_or(0)));
            }
            if let Some(status) = child.try_wait()? {
                return Err(Stop::Failed(format!("the busy process has ended early: {status}")));
            }
        }
    }
}
