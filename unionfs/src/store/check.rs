//! Looking whether a store is as this crate leaves it, and making it so.

use super::about::{AboutContainer, Unreadable};
use super::entry::EntryName;
use super::lineage::{Parents, ancestry, descendants};
use super::lock::Lock;
use super::{CONTENT, LayerId, LayerStore, OWNERS, Shared, about, about_text};
use crate::{Error, ErrorKind, Operation, is_opaque};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Something in a store that this crate has not left there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The name in the folder `layers`, or in `containers`.
    pub name: OsString,
    /// It is a container, not a layer.
    pub container: bool,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with a layer in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// No layer has such a name.
    Foreign,
    /// What is known of the layer cannot be read.
    Unreadable,
    /// A later version of this crate has published it.
    LaterVersion,
    /// Its content, or the folder of its owners, is missing.
    Incomplete,
    /// The layer that it stands on is missing.
    Orphan,
    /// It stands on itself, by others.
    Loop,
    /// Whoever looks may not open its root: the mode has been changed.
    Closed,
    /// Its root is opaque and was not when it was published, or the other way round.
    RootChanged,
}

impl LayerStore {
    /// Looks at every layer and every container, not at what is inside. An empty list: all is well.
    ///
    /// Crashes and losses of power leave nothing that is found here; a file system that lost data, or somebody who changed the folder, may.
    ///
    /// # Errors
    /// What the system calls say.
    #[doc(alias = "fsck")]
    pub fn check(&self) -> Result<Vec<Problem>, Error> {
        let lock = Lock::shared(&self.shared.root, Operation::CheckStore)?;
        let mut problems = self.shared.problems(&lock)?;
        problems.extend(self.shared.container_problems(&lock)?);
        Ok(problems)
    }

    /// Removes every layer that [`check`](Self::check) finds fault with, and all layers that stand on such, whoever needs them; what is
    /// [`Foreign`](Fault::Foreign) or of a [`LaterVersion`](Fault::LaterVersion) stays, and so do containers, which have what is nowhere else. The answer is what was found. What cannot be deleted stays in the
    /// trash: see [`empty_trash`](Self::empty_trash).
    ///
    /// # Errors
    /// What the system calls say; it can be repeated.
    pub fn repair(&self) -> Result<Vec<Problem>, Error> {
        let operation = Operation::CheckStore;
        let store = &self.shared;
        let lock = Lock::alone(&store.root, operation)?;
        let problems = store.problems(&lock)?;
        let names: BTreeMap<LayerId, OsString> =
            store.entries(&lock, operation)?.into_iter().map(|e| (e.id.clone(), e.to_os_string())).collect();
        let parents = store.readable_parents(&lock, &names)?;
        let bad = problems.iter().filter(|p| !matches!(p.fault, Fault::Foreign | Fault::LaterVersion));
        let mut gone = BTreeSet::new();
        for id in bad.filter_map(|p| EntryName::parse(&p.name)).map(|entry| entry.id) {
            for id in descendants(&id, &parents) {
                if let (true, Some(name)) = (gone.insert(id.clone()), names.get(&id)) {
                    store.discard(&lock, operation, &store.layers, name)?;
                }
            }
        }
        let mut problems = problems;
        problems.extend(store.container_problems(&lock)?);
        drop(lock);
        store.empty_trash(operation)?;
        Ok(problems)
    }
}

impl Shared {
    fn problems(&self, lock: &Lock) -> Result<Vec<Problem>, Error> {
        let operation = Operation::CheckStore;
        let mut problems = Vec::new();
        let mut names = BTreeMap::new();
        let mut all = self.layers.names(operation)?;
        all.sort_unstable();
        for name in all {
            match EntryName::parse(&name) {
                Some(entry) if !names.contains_key(&entry.id) => _ = names.insert(entry.id, name),
                _ => problems.push(Problem { name, container: false, fault: Fault::Foreign }),
            }
        }
        let parents = self.readable_parents(lock, &names)?;
        for (id, name) in &names {
            if let Some(fault) = self.fault_of(id, name, &parents)? {
                problems.push(Problem { name: name.clone(), container: false, fault });
            }
        }
        Ok(problems)
    }

    fn container_problems(&self, lock: &Lock) -> Result<Vec<Problem>, Error> {
        let operation = Operation::CheckStore;
        let mut names = self.containers.names(operation)?;
        names.sort_unstable();
        let mut problems = Vec::new();
        for name in names {
            if let Some(fault) = self.container_fault(lock, &name)? {
                problems.push(Problem { name, container: true, fault });
            }
        }
        Ok(problems)
    }

    fn container_fault(&self, lock: &Lock, name: &OsString) -> Result<Option<Fault>, Error> {
        let operation = Operation::CheckStore;
        if EntryName::parse(name).is_none() {
            return Ok(Some(Fault::Foreign));
        }
        let Some(dir) = self.containers.find(operation, name)? else { return Ok(Some(Fault::Incomplete)) };
        Ok(match AboutContainer::parse(&about_text(&dir, operation)?.unwrap_or_default()) {
            Err(Unreadable::Version) => Some(Fault::LaterVersion),
            Err(Unreadable::Damaged) => Some(Fault::Unreadable),
            Ok(AboutContainer { parent: Some(parent), .. }) if self.find(lock, operation, &parent)?.is_none() => {
                Some(Fault::Orphan)
            }
            Ok(_) => None,
        })
    }

    fn fault_of(&self, id: &LayerId, name: &OsString, parents: &Parents) -> Result<Option<Fault>, Error> {
        let operation = Operation::CheckStore;
        let Some(dir) = self.layers.find(operation, name)? else { return Ok(Some(Fault::Incomplete)) };
        let about = match about(&dir, operation)? {
            Ok(about) => about,
            Err(Unreadable::Version) => return Ok(Some(Fault::LaterVersion)),
            Err(Unreadable::Damaged) => return Ok(Some(Fault::Unreadable)),
        };
        let content = match dir.find(operation, CONTENT) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Some(Fault::Closed)),
            result => result?,
        };
        let owners = dir.find(operation, OWNERS)?;
        let (Some(content), Some(_)) = (content, owners) else { return Ok(Some(Fault::Incomplete)) };
        let lowest = ancestry(id, parents).last().and_then(|lowest| parents.get(*lowest)?.as_ref());
        Ok(match lowest {
            Some(above) if parents.contains_key(above) => Some(Fault::Loop),
            Some(_) if about.parent.as_ref().is_some_and(|parent| !parents.contains_key(parent)) => Some(Fault::Orphan),
            _ if is_opaque(&content, self.form)? != about.opaque_root => Some(Fault::RootChanged),
            _ => None,
        })
    }

    /// What stands on what. A layer about which nothing can be read stands on nothing.
    fn readable_parents(&self, _: &Lock, names: &BTreeMap<LayerId, OsString>) -> Result<Parents, Error> {
        let mut parents = Parents::new();
        for (id, name) in names {
            let dir = self.layers.find(Operation::CheckStore, name)?;
            let about = dir.map(|dir| about(&dir, Operation::CheckStore)).transpose()?;
            parents.insert(id.clone(), about.and_then(Result::ok).and_then(|about| about.parent));
        }
        Ok(parents)
    }
}
