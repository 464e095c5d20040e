//! Giving memory back before anybody has to.

use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::{Cgroup, file_missing};
use crate::controllers::Subsystems;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::wait::{Deadline, wait_until_empty};

impl Cgroup {
    /// Makes the kernel reclaim that many bytes from this cgroup and everything below it: `memory.reclaim`. False: it
    /// could find only less. Blocks while it does so. v2, since Linux 5.19.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on v1; [`ErrorKind::ControllerUnavailable`]; [`ErrorKind::Gone`];
    /// [`ErrorKind::PermissionDenied`].
    pub fn reclaim(&self, bytes: u64) -> Result<bool> {
        let member = self.governing(Subsystems::MEMORY)?;
        if member.version() == Version::V1 {
            let error = Error::new(ErrorKind::Unsupported, Op::Reclaim, member.dir.path());
            return Err(error.with_note("only v2 has memory.reclaim"));
        }
        match member.dir.write("memory.reclaim", &bytes.to_string()) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(Errno::AGAIN) => Ok(false),
            Err(error) => Err(file_missing(&member.dir, error)),
        }
    }

    /// Waits until no process is in this cgroup or below it, at most for `timeout`; also when it is deleted. Blocks;
    /// see [`events`](Self::events) for a descriptor to poll.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`].
    pub fn wait_until_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        self.members().iter().try_for_each(|member| wait_until_empty(member, deadline))
    }
}
