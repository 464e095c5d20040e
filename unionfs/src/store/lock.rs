//! One lock for a store, between processes and threads. It goes with its holder, however that ends.

use crate::dir::Dir;
use crate::{Error, Operation};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::{Errno, retry_on_intr};
use std::borrow::Borrow;
use std::ops::Deref;
use std::os::fd::OwnedFd;

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

/// A directory that is in use: others see its flock(2).
#[derive(Debug)]
pub(crate) struct InUse<D: Borrow<Dir> = Dir>(D);

/// Takes a directory into use; `None` if somebody else has it.
pub(super) fn try_use<D: Borrow<Dir>>(dir: D, operation: Operation) -> Result<Option<InUse<D>>, Error> {
    match flock(dir.borrow(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(InUse(dir))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(e) => Err(Error::os(operation, "flock", e).about(dir.borrow().path())),
    }
}

impl<D: Borrow<Dir>> Deref for InUse<D> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        self.0.borrow()
    }
}

impl<D: Borrow<Dir>> Drop for InUse<D> {
    fn drop(&mut self) {
        // As with the lock: a child that is just about to start would keep it in use.
        let _ = flock(self.0.borrow(), FlockOperation::Unlock);
    }
}
