//! Making a store in an empty folder, and what is done after a crash.

use super::about::{AboutContainer, AboutStore};
use super::entry::EntryName;
use super::lock::{Lock, try_use};
use super::{ABOUT, CONTAINERS, LAYERS, STAGING, Shared, TRASH, about_text, unreadable};
use crate::dir::Dir;
use crate::remove::remove_tree;
use crate::{Error, ErrorKind, Form, Operation};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::Path;

/// The file `about` before it has its name: a store is one when that is there.
const NEW_ABOUT: &str = "about.new";
/// All that the making of a store can have left behind.
const OURS: [&str; 6] = ["lock", NEW_ABOUT, LAYERS, CONTAINERS, STAGING, TRASH];

/// Makes sure that a folder is a store of this form. The store's lock is held alone.
pub(super) fn prepare(root: &Dir, form: Form) -> Result<(), Error> {
    let operation = Operation::OpenStore;
    if let Some(text) = root.read(operation, ABOUT)? {
        let about = AboutStore::parse(&text).map_err(|why| unreadable(operation, Path::new(""), why))?;
        if about.form == form {
            // Stores of the first days have none.
            return root.make(operation, CONTAINERS).map(drop);
        }
        let words = "has layers in the other form of attributes";
        return Err(Error::invalid(operation, "the store", words));
    }
    if let Some(foreign) = root.names(operation)?.iter().find(|name| !OURS.iter().any(|ours| name == ours)) {
        return Err(Error::invalid(operation, foreign, "is in a folder that is neither a layer store nor empty"));
    }
    for name in [LAYERS, CONTAINERS, STAGING, TRASH] {
        root.make(operation, name)?;
    }
    root.unlink(operation, NEW_ABOUT)?;
    root.write_new(operation, NEW_ABOUT, AboutStore { form }.to_text().as_bytes(), true)?;
    root.rename(operation, OsStr::new(NEW_ABOUT), root, OsStr::new(ABOUT))?;
    root.sync(operation)
}

impl Shared {
    /// Puts into the trash what nobody will ever use: stages whose process is gone, layers and containers that had not reached the disk when the
    /// machine went down. The answer is how many.
    pub(super) fn set_aside_what_is_dead(&self, lock: &Lock, operation: Operation) -> Result<usize, Error> {
        let mut count = 0;
        for name in self.staging.names(operation)? {
            let Some(stage) = self.staging.find(operation, &name)? else { continue };
            if let Some(_in_use) = try_use(&stage, operation)? {
                self.discard(lock, operation, &self.staging, &name)?;
                count += 1;
            }
        }
        for folder in [&self.layers, &self.containers] {
            for name in folder.names(operation)? {
                if EntryName::parse(&name).is_some_and(|entry| entry.is_doubtful(&self.boot)) {
                    self.discard(lock, operation, folder, &name)?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    /// Renames something into the trash. From then on it is not there any more, whatever happens. The answer is its name there.
    pub(super) fn discard(&self, _: &Lock, operation: Operation, from: &Dir, name: &OsStr) -> Result<OsString, Error> {
        loop {
            let new = self.fresh_name();
            match from.rename(operation, name, &self.trash, &new) {
                Ok(true) => return Ok(new),
                Ok(false) => {}
                // A stage that its user was just about to remove.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(new),
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes what is in the trash, whatever of it can be. Several may do so at once: each takes what no other has. The lock is not
    /// needed. The answer is why things could not be deleted.
    pub(super) fn empty_trash(&self, operation: Operation) -> Result<Vec<Error>, Error> {
        let names = self.trash.names(operation)?;
        Ok(names.iter().filter_map(|name| self.delete(operation, name).err()).collect())
    }

    /// Deletes something in the trash, unless somebody else is just doing so.
    pub(super) fn delete(&self, operation: Operation, name: &OsStr) -> Result<(), Error> {
        // No directory: a file that was in a layer's place, or gone by now.
        let Some(dead) = self.trash.find(operation, name)? else {
            return remove_tree(self.trash.as_fd(), name, operation);
        };
        match try_use(dead, operation) {
            Ok(Some(dead)) => remove_container(&self.trash, &dead, name, operation),
            _ => Ok(()),
        }
    }
}

/// Deletes what may be a container's folder: what it has of the system goes when its files are gone and before what tells of it, so that a crash loses track of nothing.
pub(super) fn remove_container(from: &Dir, folder: &Dir, name: &OsStr, operation: Operation) -> Result<(), Error> {
    let about = about_text(folder, operation)?;
    if let Some(limit) = about.and_then(|text| AboutContainer::parse(&text).ok()?.limit) {
        for inside in folder.names(operation)?.iter().filter(|inside| *inside != ABOUT) {
            remove_tree(folder.as_fd(), inside, operation)?;
        }
        limit.give_up(folder).map_err(|e| e.during(operation))?;
    }
    remove_tree(from.as_fd(), name, operation)
}
