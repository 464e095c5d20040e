//! A cgroup that does not outlive its owner.

use std::ops::Deref;
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::error::Result;

/// A [`Cgroup`] that is killed and deleted when this is dropped. Made by [`Cgroup::into_guard`].
///
/// Dropping can take up to [`TIMEOUT`](Self::TIMEOUT) and a second, and cannot report errors: call
/// [`close`](Self::close) where they matter. A program that is killed drops nothing.
#[derive(Debug)]
#[must_use = "dropping it kills and deletes the cgroup"]
pub struct Guard {
    cgroup: Cgroup,
    armed: bool,
}

impl Guard {
    /// For how long closing waits for the processes to end.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Kills every process in it and below it, and deletes it with everything below it. Blocks.
    ///
    /// # Errors
    /// As for [`Cgroup::kill`] and [`Cgroup::delete`]. After an error nothing more is tried.
    pub fn close(mut self) -> Result<()> {
        self.armed = false;
        self.end()
    }

    fn end(&self) -> Result<()> {
        self.cgroup.kill(Self::TIMEOUT)?;
        self.cgroup.delete()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            // There is nobody to tell; that is what close is for.
            let _ = self.end();
        }
    }
}

impl Deref for Guard {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.cgroup
    }
}

impl Cgroup {
    /// Binds the cgroup's life to a guard, which kills and deletes it when dropped.
    pub fn into_guard(self) -> Guard {
        Guard { cgroup: self, armed: true }
    }
}
