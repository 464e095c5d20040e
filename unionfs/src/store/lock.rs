//! One lock for a store, between processes and threads. It goes with its holder, however that ends.

use crate::dir::Dir;
use crate::{Error, Operation};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};
use std::os::fd::{AsFd, OwnedFd};

const NAME: &str = "lock";

/// A store's lock, held. With the lock shared, layers may come but none goes; alone, its holder is the only one who changes anything.
#[derive(Debug)]
pub(super) struct Lock(OwnedFd);

impl Lock {
    pub(super) fn shared(store: &Dir, operation: Operation) -> Result<Self, Error> {
        Self::take(store, operation, FlockOperation::LockShared)
    }

    pub(super) fn alone(store: &Dir, operation: Operation) -> Result<Self, Error> {
        Self::take(store, operation, FlockOperation::LockExclusive)
    }

    /// A lock belongs to what open(2) returned, so each holder opens the file anew.
    fn take(store: &Dir, operation: Operation, how: FlockOperation) -> Result<Self, Error> {
        let fail = |call| move |e| Error::os(operation, call, e).about(NAME);
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(store, NAME, flags, Mode::RUSR | Mode::WUSR).map_err(fail("openat"))?;
        retry_on_intr(|| flock(&file, how)).map_err(fail("flock"))?;
        Ok(Lock(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not left to close(2): a child that another thread is just about to start has a copy until its exec.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes a directory into use, until the descriptor is closed; the answer is no if somebody else has it.
pub(super) fn try_use(dir: impl AsFd) -> Result<bool, Errno> {
    match flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}
