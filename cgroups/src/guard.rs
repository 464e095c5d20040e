//! A cgroup that does not outlive its owner.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
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
    closed: AtomicBool,
}

impl Guard {
    /// For how long closing waits for the processes to end.
    pub const TIMEOUT: Duration = Duration::from_secs(5);

    /// Kills every process in it and below it, and deletes it with everything below it. Blocks. Once that has
    /// succeeded, dropping does nothing more.
    ///
    /// # Errors
    /// As for [`Cgroup::kill`] and [`Cgroup::delete`]. It can be tried again, and dropping tries it once more.
    pub fn close(&self) -> Result<()> {
        let killed = self.cgroup.kill(Self::TIMEOUT);
        // What could not be killed may have ended by itself: deleting tells. If it succeeds, nothing is left.
        self.cgroup.delete().map_err(|error| killed.err().unwrap_or(error))?;
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::Relaxed) {
            // There is nobody to tell; that is what calling it is for.
            let _ = self.close();
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
        Guard { cgroup: self, closed: AtomicBool::new(false) }
    }
}
