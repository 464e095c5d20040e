//! Where the files of containers are in a store.

use super::about::AboutContainer;
use super::entry::EntryName;
use super::lock::{InUse, Lock, try_use};
use super::recover::remove_container;
use super::{ABOUT, LayerId, LayerStore, Owner, Shared, SyncPolicy, about_text, unreadable};
use crate::container::{Copied, Files, InitPlaces, Overlaid};
use crate::dir::{Dir, LONGEST};
use crate::layer::Identity;
use crate::limit::Room;
use crate::{AfterVolatile, Backend, Container, ContainerSpec, Error, ErrorKind, Operation, StoredLayer};
use rustix::fs::fstat;
use std::ffi::OsStr;
use std::os::fd::AsFd;

/// Where the entries of the init layer are.
const PLACES: &str = "init-places";

impl LayerStore {
    /// Makes the files of a container that stands on a layer, or on nothing, and notes that `owner` needs that layer. It is in use at once.
    ///
    /// With the policy [`SyncPolicy::None`] a container, as a layer, is gone after a restart of the machine. With the others it is found again, on layers that
    /// are whole; of what the container itself has written, what the file system has.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if the owner has one; [`NotFound`](ErrorKind::NotFound) without the layer;
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an init layer that makes no sense or whose names take more than 64 KiB, and for more layers than the kernel takes: with
    /// what the container writes and the init layer, [`MAX_LOWERS`](crate::MAX_LOWERS); [`Unsupported`](ErrorKind::Unsupported) if its [limit](ContainerSpec::limit) is possible by none of the methods, of which each says why;
    /// what the system calls say. Nothing is left then but the note.
    pub fn prepare(&self, owner: &Owner, parent: Option<&LayerId>, spec: &ContainerSpec) -> Result<Container, Error> {
        let operation = Operation::PrepareContainer;
        spec.init.checked()?;
        if spec.init.places().to_text().len() > LONGEST {
            let words = "has more entries than can be noted: their names take more than 64 KiB";
            return Err(Error::invalid(operation, "the init layer", words));
        }
        let chain = match parent {
            Some(parent) => self.hold(parent, owner)?,
            None => Vec::new(),
        };
        if spec.backend == Backend::Overlay {
            Overlaid::check(&chain, &spec.init)?;
        }
        let top = chain.first().cloned();
        let (name, dir) = self.place(operation)?;
        let result = self.fill(&dir, parent, chain, spec).and_then(|filled| {
            self.settle_container(owner, &name, top.as_ref())?;
            Ok(filled)
        });
        match result {
            Ok((files, room)) => Ok(Container {
                store: self.clone(),
                owner: owner.clone(),
                parent: parent.cloned(),
                backend: spec.backend,
                fallbacks: spec.fallbacks,
                places: spec.init.places(),
                files,
                room,
                dir,
            }),
            Err(error) => {
                // The error that is told is the first one; what is left goes with the next opening. Not what has got its place, and could not be taken back.
                if self.shared.staging.find(operation, &name).is_ok_and(|there| there.is_some()) {
                    let _ = remove_container(&self.shared.staging, &dir, &name, operation);
                }
                Err(error)
            }
        }
    }

    /// Finds the files of a container that was [prepared](Self::prepare), and takes it into use. What to do about one that has been mounted with
    /// [`volatile`](crate::Overlay::volatile) is said by `after`.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if it is in use, or its [image](crate::LimitMethod::Image) is still mounted after a second; [`Volatile`](ErrorKind::Volatile), also if
    /// what it had written was in [memory](crate::LimitMethod::Tmpfs): accepted, it begins anew; [`Corrupt`](ErrorKind::Corrupt); what the system calls say. That there
    /// is none is no error.
    pub fn container(&self, owner: &Owner, after: AfterVolatile) -> Result<Option<Container>, Error> {
        let operation = Operation::PrepareContainer;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let Some((_, dir)) = self.shared.find_container(&lock, operation, owner)? else { return Ok(None) };
        let Some(dir) = try_use(dir, operation)? else {
            return Err(Error::explained(ErrorKind::Busy, operation, "is in use").about(owner.as_str()));
        };
        let about = Shared::about_container(&dir, operation)?;
        drop(lock);
        let places = dir.read(operation, PLACES)?.and_then(|text| InitPlaces::parse(&text));
        let places =
            places.ok_or_else(|| Error::corrupt(operation, dir.path().join(PLACES), "is missing or damaged"))?;
        let chain = match &about.parent {
            Some(parent) => self.chain(parent).map_err(|e| orphan(e, operation, owner))?,
            None => Vec::new(),
        };
        let form = self.form();
        let room = about.limit.map(|limit| Room::find(&dir, limit, after)).transpose()?;
        let files: Box<dyn Files> = match about.backend {
            Backend::Overlay => {
                let options = (form, about.fallbacks);
                let room = room.as_ref().map(|(room, new)| (room, *new));
                Box::new(Overlaid::find(&dir, chain, !places.is_empty(), room, options, after)?)
            }
            Backend::Copy => Box::new(Copied::find(&dir, chain, form)?),
        };
        let (store, owner) = (self.clone(), owner.clone());
        let AboutContainer { parent, backend, fallbacks, .. } = about;
        let room = room.map(|(room, _)| room);
        Ok(Some(Container { store, owner, parent, backend, fallbacks, places, files, room, dir }))
    }

    /// The owners that have a container, in the order of their names.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn containers(&self) -> Result<Vec<Owner>, Error> {
        let operation = Operation::PrepareContainer;
        let lock = Lock::shared(&self.shared.root, operation)?;
        let mut owners: Vec<Owner> =
            self.shared.container_entries(&lock, operation)?.into_iter().map(|(owner, _)| owner).collect();
        owners.sort_unstable();
        Ok(owners)
    }

    pub(crate) fn discard_container(&self, owner: &Owner, parent: Option<&LayerId>, dir: InUse) -> Result<(), Error> {
        let operation = Operation::Discard;
        let store = &self.shared;
        let lock = Lock::alone(&store.root, operation)?;
        // Later, without the lock, the owner could have taken the layer for its next container. One that has no note is kept by its container.
        if let Some(parent) = parent
            && let Some(layer) = store.find(&lock, operation, parent)?
        {
            layer.owners(operation)?.unlink(operation, owner.as_str())?;
        }
        let Some((name, _)) = store.find_container(&lock, operation, owner)? else { return Ok(()) };
        let trash = store.discard(&lock, operation, &store.containers, &name.to_os_string())?;
        if self.sync.is_durable() {
            store.containers.sync(operation)?;
        }
        // Whoever deletes it has to see that it is not in use any more.
        drop((lock, dir));
        store.delete(operation, &trash)
    }

    /// Takes a layer, as safe as this handle's policy promises, and all below it.
    fn hold(&self, parent: &LayerId, owner: &Owner) -> Result<Vec<StoredLayer>, Error> {
        let operation = Operation::PrepareContainer;
        let layer = self.acquire(parent, owner)?.ok_or_else(|| super::no_such_layer(operation, parent))?;
        if self.sync.is_durable() && !layer.is_synced() {
            self.persist(parent)?;
        }
        self.chain(parent)
    }

    /// Looks for the layer that was [taken](Self::hold) again, and for its note: somebody may have released and collected it since then. Nobody can once the
    /// container stands on it.
    fn hold_still(&self, lock: &Lock, parent: &StoredLayer, owner: &Owner) -> Result<(), Error> {
        let operation = Operation::PrepareContainer;
        let found = self.shared.find_or_fail(lock, operation, parent.id())?;
        let owners = found.owners(operation)?;
        let synced = found.name.unsynced.is_none();
        // It may be another one of the same name.
        if identity(found.load(operation, parent.id())?)? != identity(parent)? {
            return Err(super::no_such_layer(operation, parent.id()));
        }
        let new = owners.write_new(operation, owner.as_str(), b"", false)?;
        if new && synced && self.sync.is_durable() { owners.sync(operation) } else { Ok(()) }
    }

    fn fill(
        &self,
        dir: &Dir,
        parent: Option<&LayerId>,
        chain: Vec<StoredLayer>,
        spec: &ContainerSpec,
    ) -> Result<(Box<dyn Files>, Option<Room>), Error> {
        let (operation, form) = (Operation::PrepareContainer, self.form());
        let (backend, fallbacks) = (spec.backend, spec.fallbacks);
        let room = if let Some(limit) = &spec.limit {
            Some(Room::make(dir, limit, backend, |limit| {
                let about = AboutContainer { parent: parent.cloned(), backend, fallbacks, limit: Some(*limit) };
                dir.unlink(operation, ABOUT)?;
                // On the disk before there is anything that only this tells of.
                let durable = self.sync.is_durable();
                dir.write_new(operation, ABOUT, about.to_text().as_bytes(), durable).map(drop)
            })?)
        } else {
            let about = AboutContainer { parent: parent.cloned(), backend, fallbacks, limit: None };
            dir.write_new(operation, ABOUT, about.to_text().as_bytes(), false)?;
            None
        };
        dir.write_new(operation, PLACES, spec.init.places().to_text().as_bytes(), false)?;
        let files: Box<dyn Files> = match backend {
            Backend::Overlay => Box::new(Overlaid::prepare(dir, chain, (spec, room.as_ref()), form)?),
            Backend::Copy => Box::new(Copied::prepare(dir, chain, (&spec.init, room.as_ref()), form)?),
        };
        match (self.sync, spec.backend) {
            (SyncPolicy::None, _) => {}
            // A few files: others' writes need not be waited for.
            (_, Backend::Overlay) => {
                room.as_ref().map_or(Ok(()), Room::sync)?;
                SyncPolicy::PerFile.sync(dir.as_fd(), operation)?;
            }
            (policy, Backend::Copy) => policy.sync(dir.as_fd(), operation)?,
        }
        Ok((files, room))
    }

    /// Renames a container into its place, if the layer that it stands on is there still.
    fn settle_container(&self, owner: &Owner, name: &OsStr, parent: Option<&StoredLayer>) -> Result<(), Error> {
        let (operation, store) = (Operation::PrepareContainer, &self.shared);
        let exists = || {
            let words = "has a container already";
            Error::explained(ErrorKind::AlreadyExists, operation, words).about(owner.as_str())
        };
        let lock = Lock::alone(&store.root, operation)?;
        if store.find_container(&lock, operation, owner)?.is_some() {
            return Err(exists());
        }
        if let Some(parent) = parent {
            self.hold_still(&lock, parent, owner)?;
        }
        let unsynced = (!self.sync.is_durable()).then(|| store.boot.clone());
        let new = EntryName { id: LayerId::from(owner), unsynced }.to_os_string();
        if !store.staging.rename(operation, name, &store.containers, &new)? {
            return Err(exists());
        }
        drop(lock);
        let synced = if self.sync.is_durable() { store.containers.sync(operation) } else { Ok(()) };
        if synced.is_err() {
            // Who is told that there is none must not find one. It is in use, so nobody else has it meanwhile.
            let _ = store.containers.rename(operation, &new, &store.staging, name);
        }
        synced
    }
}

impl Shared {
    /// The lock is a witness: nobody renames a container meanwhile.
    pub(super) fn find_container(
        &self,
        _: &Lock,
        operation: Operation,
        owner: &Owner,
    ) -> Result<Option<(EntryName, Dir)>, Error> {
        for unsynced in [None, Some(self.boot.clone())] {
            let name = EntryName { id: LayerId::from(owner), unsynced };
            if let Some(dir) = self.containers.find(operation, name.to_os_string())? {
                return Ok(Some((name, dir)));
            }
        }
        Ok(None)
    }

    /// All containers, with their folders' names.
    pub(super) fn container_entries(&self, _: &Lock, operation: Operation) -> Result<Vec<(Owner, EntryName)>, Error> {
        let names = self.containers.names(operation)?;
        let entries = names.iter().filter_map(|name| EntryName::parse(name));
        Ok(entries
            .filter(|entry| !entry.is_doubtful(&self.boot))
            .map(|entry| (Owner::from(&entry.id), entry))
            .collect())
    }

    pub(super) fn about_container(dir: &Dir, operation: Operation) -> Result<AboutContainer, Error> {
        let text = about_text(dir, operation)?.unwrap_or_default();
        AboutContainer::parse(&text).map_err(|why| unreadable(operation, dir.path(), why))
    }
}

/// Which directory it is. Its number is nobody else's as long as it is open.
fn identity(layer: impl AsFd) -> Result<Identity, Error> {
    let stat = fstat(layer).map_err(|e| Error::os(Operation::PrepareContainer, "fstat", e))?;
    Ok((stat.st_dev, stat.st_ino))
}

fn orphan(error: Error, operation: Operation, owner: &Owner) -> Error {
    if error.kind() == ErrorKind::NotFound {
        return Error::corrupt(operation, owner.as_str(), "stands on a layer that is not there");
    }
    error
}
