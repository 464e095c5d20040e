//! What goes into a layer: the paths of a tree, in the order in which they are written.

use super::content::{Facts, Tree};
use super::unsupported;
use crate::Error;
use cofferdam_unionfs::{Form, WhiteoutName};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// One entry of the layer. The root's path is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    File(Vec<u8>),
    /// This is hidden.
    Whiteout(Vec<u8>),
    /// All in this directory is hidden.
    Opaque(Vec<u8>),
}

/// Everything.
pub(super) fn all(tree: &mut Tree) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    add(tree, Vec::new(), &mut items)?;
    Ok(items)
}

/// A path with all that is below it.
fn add(tree: &mut Tree, path: Vec<u8>, items: &mut Vec<Item>) -> Result<(), Error> {
    let mut waiting = vec![path];
    while let Some(path) = waiting.pop() {
        let facts = tree.facts(&path)?;
        if facts.is_directory() {
            // The first one is taken off first.
            waiting.extend(children(tree, &path)?.into_iter().rev());
        }
        // Nothing is below that could show in its place.
        if !facts.is_socket() {
            items.push(Item::File(path));
        }
    }
    Ok(())
}

/// Sorted, and none that a layer would mean otherwise.
fn children(tree: &mut Tree, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let names = tree.names(path)?;
    for name in &names {
        if !matches!(WhiteoutName::parse(OsStr::from_bytes(name)), Ok(None)) {
            return Err(unsupported("has a name that means something else in a layer", name));
        }
    }
    Ok(names.iter().map(|name| join(path, name)).collect())
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// An upper directory: its marks become entries.
pub(super) fn of_upper(tree: &mut Tree, form: Form) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        if tree.is_whiteout(&path, form)? {
            items.push(Item::Whiteout(path));
            continue;
        }
        if tree.is_incomplete(&path, form)? {
            return Err(unsupported(
                "is a part of a file or directory of a lower layer (metacopy or redirect_dir)",
                &path,
            ));
        }
        let facts = tree.facts(&path)?;
        if facts.is_socket() {
            // It cannot be in a layer, but it hides what is below. What that is nobody knows here; a mark too many hides nothing.
            items.push(Item::Whiteout(path));
            continue;
        }
        items.push(Item::File(path.clone()));
        if facts.is_directory() {
            waiting.extend(children(tree, &path)?.into_iter().rev());
            if tree.is_opaque(&path, form)? {
                items.push(Item::Opaque(path));
            }
        }
    }
    Ok(items)
}

/// The difference of two trees.
pub(super) fn changes(before: &mut Tree, after: &mut Tree) -> Result<Vec<Item>, Error> {
    let mut found = Found::default();
    compare(before, after, &mut found)?;
    // A file that is one with a changed one goes with it, or they would not be one any more.
    let changed: BTreeSet<u64> = found.files.iter().filter_map(|path| found.inodes.get(path)).copied().collect();
    let siblings = found.inodes.iter().filter(|(_, inode)| changed.contains(inode)).map(|(path, _)| path.clone());
    found.files.extend(siblings.collect::<Vec<_>>());
    let files = found.files.into_iter().map(Item::File);
    let mut items: Vec<Item> = files.chain(found.gone.into_iter().map(Item::Whiteout)).collect();
    items.sort_by(|one, other| one.components().cmp(other.components()));
    Ok(items)
}

impl Item {
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Item::File(path) | Item::Whiteout(path) | Item::Opaque(path) => path,
        }
    }

    /// Parents first. A whiteout comes before what replaces it.
    fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.path().split(|b| *b == b'/').filter(|c| !c.is_empty())
    }
}

#[derive(Default)]
struct Found {
    files: BTreeSet<Vec<u8>>,
    gone: Vec<Vec<u8>>,
    /// Files with several names, changed or not.
    inodes: BTreeMap<Vec<u8>, u64>,
}

fn compare(before: &mut Tree, after: &mut Tree, found: &mut Found) -> Result<(), Error> {
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let (old, new) = (before.find(&path)?, after.facts(&path)?);
        if new.is_socket() {
            // Neither is in a layer. What else was there must not come back.
            if old.is_some_and(|old| !old.is_socket()) {
                found.gone.push(path);
            }
            continue;
        }
        if new.links() > 1 && !new.is_directory() {
            found.inodes.insert(path.clone(), new.inode());
        }
        let old_directory = old.as_ref().is_some_and(Facts::is_directory);
        if new.is_directory() {
            let names = children(after, &path)?;
            if old_directory {
                let there: BTreeSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
                let gone = children(before, &path)?.into_iter().filter(|old| !there.contains(old.as_slice()));
                found.gone.extend(gone);
            }
            waiting.extend(names);
        }
        if old.is_none_or(|old| old != new) {
            found.files.insert(path);
        }
    }
    Ok(())
}
