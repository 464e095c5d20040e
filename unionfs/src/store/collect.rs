//! What nobody needs goes.

use super::lineage::unneeded;
use super::lock::{Lock, try_use};
use super::owners::owners;
use super::{Found, LayerId, LayerStore, OWNERS, Owner, Shared};
use crate::{Error, ErrorKind, Operation};
use std::collections::{BTreeMap, HashSet};

/// What [`LayerStore::gc`] has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Collected {
    /// The layers that are gone, each before the one that it stood on.
    pub layers: Vec<LayerId>,
    /// The notes of owners that are gone with their owners, also of layers that stay because others need them.
    pub references: Vec<(LayerId, Owner)>,
    /// The owners whose containers are gone.
    pub containers: Vec<Owner>,
    /// How many stages were found whose process had ended, or who had been dropped.
    pub stages: usize,
    /// How many things are gone from the store but could not be deleted. They take up space in the trash:
    /// [`empty_trash`](LayerStore::empty_trash) says why.
    pub undeleted: usize,
}

impl LayerStore {
    /// Removes all layers that no *live* owner needs, and what crashes have left.
    ///
    /// An owner that is not among them is dead: its notes are removed, its container, and the layers that only it needed. A container that is in use
    /// is left alone, with all that it stands on. So who is about to
    /// [`stage`](Self::stage) or [`acquire`](Self::acquire) must be among them *before* it does. The store is locked while layers are found and renamed
    /// away; deleting them, which takes longer, happens after that. Can be called by several at once.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt); what the system calls say. What was not done is done by the next call.
    pub fn gc<'a>(&self, live: impl IntoIterator<Item = &'a Owner>) -> Result<Collected, Error> {
        let operation = Operation::Collect;
        let live: HashSet<&Owner> = live.into_iter().collect();
        let store = &self.shared;
        let lock = Lock::alone(&store.root, operation)?;
        let mut collected =
            Collected { stages: store.set_aside_what_is_dead(&lock, operation)?, ..Collected::default() };
        let kept = store.drop_dead_containers(&lock, operation, &live, &mut collected)?;
        if !collected.containers.is_empty() && self.sync.is_durable() {
            // Else a loss of power could bring one back without its layers.
            store.containers.sync(operation)?;
        }
        let mut needed: HashSet<LayerId> = kept.values().flatten().cloned().collect();
        let mut names = BTreeMap::new();
        for entry in store.entries(&lock, operation)? {
            let name = entry.to_os_string();
            let folder = Found::folder(&store.layers.open(operation, &name)?, operation, OWNERS)?;
            for owner in owners(&folder, operation)? {
                if live.contains(&owner) || kept.contains_key(&owner) {
                    needed.insert(entry.id.clone());
                } else {
                    folder.unlink(operation, owner.as_str())?;
                    collected.references.push((entry.id.clone(), owner));
                }
            }
            names.insert(entry.id, name);
        }
        for id in unneeded(&store.parents(&lock, operation)?, |id| needed.contains(id)) {
            if let Some(name) = names.get(&id) {
                store.discard(&lock, operation, &store.layers, name)?;
                collected.layers.push(id);
            }
        }
        if !collected.layers.is_empty() && self.sync.is_durable() {
            // Else a loss of power could bring a layer back of which a part has been deleted.
            store.layers.sync(operation)?;
        }
        drop(lock);
        collected.undeleted = store.empty_trash(operation)?.len();
        Ok(collected)
    }

    /// Deletes what is gone from the store and could not be deleted so far: a mount or an immutable file is in it. [`open`](Self::open) and
    /// [`gc`](Self::gc) try as well.
    ///
    /// # Errors
    /// The first reason for which something could not be deleted; all else is.
    pub fn empty_trash(&self) -> Result<(), Error> {
        self.shared.empty_trash(Operation::Collect)?.into_iter().next().map_or(Ok(()), Err)
    }

    /// Removes one layer. The answer is no if it is not there. What of it cannot be deleted stays in the trash: see
    /// [`empty_trash`](Self::empty_trash).
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if an owner needs it or a layer stands on it; what the system calls say.
    pub fn remove(&self, id: &LayerId) -> Result<bool, Error> {
        let operation = Operation::Collect;
        let store = &self.shared;
        let lock = Lock::alone(&store.root, operation)?;
        let Some(found) = store.find(&lock, operation, id)? else { return Ok(false) };
        let busy = |words| Err(Error::explained(ErrorKind::Busy, operation, words).about(id.as_str()));
        if !owners(&found.owners(operation)?, operation)?.is_empty() {
            return busy("is needed by an owner");
        }
        if store.containers_on(&lock, operation, id)? {
            return busy("has a container standing on it");
        }
        if store.parents(&lock, operation)?.values().any(|parent| parent.as_ref() == Some(id)) {
            return busy("has a layer standing on it");
        }
        store.discard(&lock, operation, &store.layers, &found.name.to_os_string())?;
        if self.sync.is_durable() {
            store.layers.sync(operation)?;
        }
        drop(lock);
        store.empty_trash(operation)?;
        Ok(true)
    }
}

impl Shared {
    /// Sets the containers of dead owners aside, unless somebody uses them. The answer is who has one still, and on what it stands.
    fn drop_dead_containers(
        &self,
        lock: &Lock,
        operation: Operation,
        live: &HashSet<&Owner>,
        collected: &mut Collected,
    ) -> Result<BTreeMap<Owner, Option<LayerId>>, Error> {
        let mut kept = BTreeMap::new();
        for (owner, name) in self.container_entries(lock, operation)? {
            let name = name.to_os_string();
            let dir = self.containers.open(operation, &name)?;
            let dead = if live.contains(&owner) { None } else { try_use(&dir, operation)? };
            if dead.is_some() {
                self.discard(lock, operation, &self.containers, &name)?;
                collected.containers.push(owner);
            } else {
                kept.insert(owner, Self::about_container(&dir, operation)?.parent);
            }
        }
        Ok(kept)
    }

    /// Whether a container stands on a layer.
    fn containers_on(&self, lock: &Lock, operation: Operation, id: &LayerId) -> Result<bool, Error> {
        for (_, name) in self.container_entries(lock, operation)? {
            let dir = self.containers.open(operation, name.to_os_string())?;
            if Self::about_container(&dir, operation)?.parent.as_ref() == Some(id) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
