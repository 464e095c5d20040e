//! A layer on its way in.

use super::about::AboutLayer;
use super::entry::EntryName;
use super::lock::{InUse, Lock, try_use};
use super::{ABOUT, CONTENT, LayerId, LayerStore, OWNERS, Owner, StoredLayer};
use crate::dir::Dir;
use crate::remove::remove_tree;
use crate::{Error, ErrorKind, Operation, is_opaque};
use rustix::fs::{Mode, fchmod};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A directory to be filled and then published as a layer. As a descriptor it is that directory, open for reading.
///
/// It belongs to the caller and has mode 0755, as the root of the layer will, unless that is changed. Whoever fills it may
/// be another thread or process; when [`publish`](Self::publish) is called they must be done.
///
/// Dropped without either call, or in a process that ends, it is left to the next [`LayerStore::open`] or [`gc`](LayerStore::gc).
#[derive(Debug)]
#[must_use = "what is staged is lost unless it is published"]
pub struct Stage {
    store: LayerStore,
    owner: Owner,
    name: OsString,
    /// Holds the flock(2) by which others see that the stage is in use.
    dir: InUse,
    content: Dir,
}

impl LayerStore {
    /// Makes an empty directory for a layer that `owner` will be the first to need.
    ///
    /// # Errors
    /// What the system calls say; nothing is left then.
    pub fn stage(&self, owner: &Owner) -> Result<Stage, Error> {
        let operation = Operation::StageLayer;
        let (name, dir) = self.place(operation)?;
        match furnish(&dir, operation, owner) {
            Ok(content) => Ok(Stage { store: self.clone(), owner: owner.clone(), name, dir, content }),
            Err(error) => {
                // The error that is told is the first one; what is left goes with the next opening.
                let _ = remove_tree(self.shared.staging.as_fd(), &name, operation);
                Err(error)
            }
        }
    }

    /// A directory among the stages, in use.
    pub(super) fn place(&self, operation: Operation) -> Result<(OsString, InUse), Error> {
        // Between its making and its being taken into use nobody may think that it is abandoned.
        let lock = Lock::shared(&self.shared.root, operation)?;
        let name = loop {
            let name = self.shared.fresh_name();
            if self.shared.staging.make(operation, &name)? {
                break name;
            }
        };
        let used = self.shared.staging.open(operation, &name).and_then(|dir| try_use(dir, operation));
        if used.is_err() {
            // It is empty.
            let _ = remove_tree(self.shared.staging.as_fd(), &name, operation);
        }
        drop(lock);
        // Nobody else could have it: its name is new, and the lock was held.
        let taken = || Error::explained(ErrorKind::Busy, operation, "is in use").about(&name);
        let dir = used?.ok_or_else(taken)?;
        Ok((name, dir))
    }
}

/// Makes what every layer has. Gives the directory that becomes its root.
fn furnish(dir: &Dir, operation: Operation, owner: &Owner) -> Result<Dir, Error> {
    let content = new_directory(dir, operation, CONTENT)?;
    fchmod(&content, Mode::from_raw_mode(0o755))
        .map_err(|e| Error::os(operation, "fchmod", e).about(content.path()))?;
    new_directory(dir, operation, OWNERS)?.write_new(operation, owner.as_str(), b"", false)?;
    Ok(content)
}

fn new_directory(dir: &Dir, operation: Operation, name: &str) -> Result<Dir, Error> {
    dir.make(operation, name)?;
    dir.open(operation, name)
}

impl Stage {
    /// Publishes the layer under `id`, standing on `parent`, needed by the stage's owner.
    ///
    /// When this returns the layer is in the store, and as safe as the handle's [`SyncPolicy`](super::SyncPolicy) promises; if that is durable,
    /// ancestors that had been published without are made so, too. Blocks until the disk has it. Of two that
    /// publish one `id` at once, one succeeds.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); [`NotFound`](ErrorKind::NotFound) if there is no such parent;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if the mode of the root is such that the caller could not open it again; what the system calls say. The layer is not in the store then, and what was staged is removed. One exception: if the very last step, waiting for
    /// the layer's *name* to be on the disk, fails, it is there.
    pub fn publish(self, id: &LayerId, parent: Option<&LayerId>) -> Result<StoredLayer, Error> {
        let placed = self.place(id, parent);
        self.settle(id, placed)
    }

    /// As [`publish`](Self::publish), for an `id` that stands for the content, such as a digest: if it has been published meanwhile, that layer
    /// is taken for the stage's owner, and what was staged is removed. It is then as safe as if it had been published by this handle.
    ///
    /// # Errors
    /// As `publish`; [`AlreadyExists`](ErrorKind::AlreadyExists) only if that layer stands on another parent. If what was staged cannot be removed, that is no error here.
    pub fn publish_or_take(self, id: &LayerId, parent: Option<&LayerId>) -> Result<StoredLayer, Error> {
        loop {
            let placed = self.place(id, parent);
            if !placed.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
                return self.settle(id, placed);
            }
            // Gone again, if none is found: whoever had needed it did not any more.
            if let Some(taken) = self.take(id, parent, placed).transpose() {
                // What is left of the stage goes with the next opening.
                let _ = self.remove();
                return taken;
            }
        }
    }

    /// Takes the layer that has the name already, if it stands on the same one. Else the answer is that it could not be placed.
    fn take(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        placed: Result<Placed, Error>,
    ) -> Result<Option<StoredLayer>, Error> {
        let Some(mut layer) = self.store.acquire(id, &self.owner)? else { return Ok(None) };
        if layer.parent() != parent {
            self.store.release(id, &self.owner)?;
            return placed.map(|_| None);
        }
        if self.store.sync.is_durable() {
            // Whoever has published it may have waited for nothing, or not have waited yet.
            self.store.persist(id)?;
            layer.synced = true;
        }
        Ok(Some(layer))
    }

    /// Removes what was staged. Blocks for as long as it takes.
    ///
    /// # Errors
    /// What the system calls say; the rest is left to the next [`LayerStore::open`] or [`gc`](LayerStore::gc).
    pub fn discard(self) -> Result<(), Error> {
        self.remove()
    }

    fn remove(&self) -> Result<(), Error> {
        remove_tree(self.store.shared.staging.as_fd(), &self.name, Operation::StageLayer)
    }

    /// All up to the rename: if it fails, the stage is still one.
    fn place(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Placed, Error> {
        let operation = Operation::Publish;
        let (store, policy) = (&self.store.shared, self.store.sync);
        let about = AboutLayer { parent: parent.cloned(), opaque_root: is_opaque(&self.content, store.form)? };
        // If it is there, it is from the attempt before, and says the same.
        self.dir.write_new(operation, ABOUT, about.to_text().as_bytes(), false)?;
        // As whoever looks for the layer will.
        self.dir.open(operation, CONTENT)?;
        policy.sync(self.dir.as_fd(), operation)?;

        let lock = Lock::alone(&store.root, operation)?;
        if store.find(&lock, operation, id)?.is_some() {
            return Err(exists(id));
        }
        if let Some(parent) = parent {
            let found = store.find_or_fail(&lock, operation, parent)?;
            if policy.is_durable() && found.name.unsynced.is_some() {
                self.store.persist_chain(&lock, operation, parent)?;
            }
        }
        let unsynced = (!policy.is_durable()).then(|| store.boot.clone());
        let name = EntryName { id: id.clone(), unsynced };
        if !store.staging.rename(operation, &self.name, &store.layers, &name.to_os_string())? {
            return Err(exists(id));
        }
        Ok(Placed { about, synced: policy.is_durable() })
    }

    /// What comes after the rename; or, if it has not been made, the stage's end.
    fn settle(self, id: &LayerId, placed: Result<Placed, Error>) -> Result<StoredLayer, Error> {
        match placed {
            // It is there now: nothing may be left that can fail, but the one call that is said to.
            Ok(Placed { about, synced }) => {
                if synced {
                    self.store.shared.layers.sync(Operation::Publish)?;
                }
                let content = Arc::new(self.content.into_fd());
                Ok(StoredLayer {
                    id: id.clone(),
                    parent: about.parent,
                    content,
                    opaque_root: about.opaque_root,
                    synced,
                })
            }
            Err(error) => {
                // The error that is told is the first one; what is left goes with the next opening.
                let _ = self.remove();
                Err(error)
            }
        }
    }
}

/// What is known of a layer that has just been renamed into its place.
struct Placed {
    about: AboutLayer,
    synced: bool,
}

fn exists(id: &LayerId) -> Error {
    Error::explained(ErrorKind::AlreadyExists, Operation::Publish, "there is such a layer already").about(id.as_str())
}

/// The directory that becomes the layer's root.
impl AsFd for Stage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.content.as_fd()
    }
}
