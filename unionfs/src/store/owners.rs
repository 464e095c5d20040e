//! Who needs a layer, and making sure that it lasts.

use super::entry::EntryName;
use super::lock::Lock;
use super::{Found, LayerId, LayerStore, OWNERS, Owner, StoredLayer};
use crate::dir::Dir;
use crate::{Error, Operation};
use std::os::fd::AsFd;

impl LayerStore {
    /// Looks a layer up and notes that `owner` needs it, and so all that it stands on. Doing so twice is as once.
    ///
    /// Unless the handle's policy is [`SyncPolicy::None`](super::SyncPolicy::None), waits until the note is on the disk.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt); what the system calls say. That there is no such layer is no error.
    pub fn acquire(&self, id: &LayerId, owner: &Owner) -> Result<Option<StoredLayer>, Error> {
        let operation = Operation::Reference;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let Some(found) = self.shared.find(&lock, operation, id)? else { return Ok(None) };
        let owners = found.owners(operation)?;
        let layer = found.load(operation, id)?;
        let new = owners.write_new(operation, owner.as_str(), b"", false)?;
        drop(lock);
        if new && layer.is_synced() && self.sync.is_durable() {
            owners.sync(operation)?;
        }
        Ok(Some(layer))
    }

    /// Notes that `owner` does not need a layer any more. The layer stays until [`gc`](Self::gc). The answer is no if `owner` had not
    /// needed it, or it is not there.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn release(&self, id: &LayerId, owner: &Owner) -> Result<bool, Error> {
        let operation = Operation::Reference;
        let lock = Lock::shared(&self.shared.root, operation)?;
        match self.shared.find(&lock, operation, id)? {
            Some(found) => found.owners(operation)?.unlink(operation, owner.as_str()),
            None => Ok(false),
        }
    }

    /// Notes that `owner` does not need anything any more. The answer is of how many layers that was true.
    ///
    /// # Errors
    /// What the system calls say; it can be repeated.
    pub fn release_all(&self, owner: &Owner) -> Result<usize, Error> {
        let operation = Operation::Reference;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let mut count = 0;
        for entry in self.shared.entries(&lock, operation)? {
            let dir = self.shared.layers.open(operation, entry.to_os_string())?;
            count += usize::from(Found::folder(&dir, operation, OWNERS)?.unlink(operation, owner.as_str())?);
        }
        Ok(count)
    }

    /// Who needs a layer by itself, in the order of their names.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); what the system calls say.
    pub fn owners(&self, id: &LayerId) -> Result<Vec<Owner>, Error> {
        let operation = Operation::Reference;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let found = self.shared.find_or_fail(&lock, operation, id)?;
        let mut owners = owners(&found.owners(operation)?, operation)?;
        owners.sort_unstable();
        Ok(owners)
    }

    /// Waits until a layer and all that it stands on are on the disk, if they were published with [`SyncPolicy::None`](super::SyncPolicy::None); the
    /// store is locked meanwhile. From then on they last as others do.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); what the system calls say.
    pub fn persist(&self, id: &LayerId) -> Result<(), Error> {
        let operation = Operation::Publish;
        let lock = Lock::alone(&self.shared.root, operation)?;
        self.shared.find_or_fail(&lock, operation, id)?;
        self.persist_chain(&lock, operation, id)?;
        self.shared.layers.sync(operation)
    }

    /// Does so from the lowest up, so that no layer is ever on the disk without its parent. Their names are left to be waited for.
    pub(super) fn persist_chain(&self, lock: &Lock, operation: Operation, id: &LayerId) -> Result<(), Error> {
        let mut unsynced: Vec<Found> = Vec::new();
        let mut next = Some(id.clone());
        while let Some(id) = next {
            let found = self.shared.find_or_fail(lock, operation, &id)?;
            // What stands on a layer that is on the disk is there, too.
            if found.name.unsynced.is_none() {
                break;
            }
            next = Found::about(&found.dir, operation)?.parent;
            unsynced.push(found);
        }
        let policy = if self.sync.is_durable() { self.sync } else { super::SyncPolicy::Filesystem };
        let mut done = false;
        for found in unsynced.into_iter().rev() {
            // One call is for all that is on the file system.
            if !done {
                policy.sync(found.dir.as_fd(), operation)?;
                done = policy == super::SyncPolicy::Filesystem;
            }
            let synced = EntryName { id: found.name.id.clone(), unsynced: None };
            let layers = &self.shared.layers;
            layers.rename(operation, &found.name.to_os_string(), layers, &synced.to_os_string())?;
        }
        Ok(())
    }
}

/// All names in a layer's folder of owners that are such.
pub(super) fn owners(dir: &Dir, operation: Operation) -> Result<Vec<Owner>, Error> {
    let names = dir.names(operation)?;
    Ok(names.iter().filter_map(|name| Owner::new(name.to_str()?).ok()).collect())
}
