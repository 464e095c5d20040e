//! Being told to stop, and the program's end.

use crate::Result;
use cofferdam_namespaces::Child;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{SigSet, Signal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

/// The signals that end us, as a descriptor: to be waited for wherever the container is waited for.
pub(crate) struct Signals(Arc<Told>);

struct Told {
    event: EventFd,
    signal: AtomicI32,
}

impl Signals {
    /// From here on they end a wait and not this process, which has things to put away.
    pub(crate) fn watch() -> Result<Self> {
        let wanted: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        wanted.thread_block()?;
        let told = Arc::new(Told { event: EventFd::new()?, signal: AtomicI32::new(0) });
        let tell = Arc::clone(&told);
        thread::spawn(move || {
            if let Ok(signal) = wanted.wait() {
                tell.signal.store(signal as i32, Ordering::Release);
                // It can only fail if it has been told very often.
                let _ = tell.event.write(1);
            }
        });
        Ok(Signals(told))
    }

    /// Waits for the program's end, which a signal brings about. The exit code is as a shell tells it.
    pub(crate) fn wait(&self, child: &Child) -> Result<u8> {
        let mut ready = [child.as_fd(), self.0.event.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        while poll(&mut ready, PollTimeout::NONE) == Err(Errno::EINTR) {}
        let signal = self.0.signal.load(Ordering::Acquire);
        if signal != 0 {
            child.kill()?;
        }
        let status = child.wait()?;
        let code = match (signal, status.signal()) {
            (0, Some(by)) => 128 + by,
            (0, None) => status.code().unwrap_or(0),
            (told, _) => 128 + told,
        };
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }
}
