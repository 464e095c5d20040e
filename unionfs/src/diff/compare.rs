//! Changes by comparing two trees.

use super::{ChangeKind, Found};
use crate::dir::entries;
use crate::facts::{At, is_directory, linked};
use crate::walk::{Cursor, Visitor, walk};
use crate::{Error, Form, Operation};
use rustix::fs::{FileType, Stat};
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

pub(super) fn compare(above: BorrowedFd<'_>, below: BorrowedFd<'_>, form: Option<Form>) -> Result<Vec<Found>, Error> {
    let below = Below::new(below, form)?;
    let mut visitor = Compare { below, gone: BTreeSet::new(), found: Vec::new(), groups: HashMap::new() };
    walk(above, Operation::Diff, &mut visitor)?;
    let mut found = visitor.found;
    for (file, names) in visitor.groups {
        found.extend(regrouped(file, names));
    }
    Ok(found)
}

/// A name of a file that has others.
struct Name {
    path: PathBuf,
    /// It is told already.
    told: bool,
    /// Which file has that name below, if it, too, has others.
    below: Option<(u64, u64)>,
}

/// If anything about a file of several names has changed, or if they have not been one file before, all its names have to be told.
fn regrouped(file: (u64, u64), names: Vec<Name>) -> Vec<Found> {
    let before = names.first().and_then(|name| name.below);
    let same = before.is_some() && names.iter().all(|name| !name.told && name.below == before);
    if names.len() < 2 || same {
        return Vec::new();
    }
    let rest = names.into_iter().filter(|name| !name.told);
    rest.map(|name| Found { linked: Some(file), ..Found::new(name.path, ChangeKind::Modified) }).collect()
}

struct Compare {
    below: Below,
    /// Names below in this directory that have not been seen above so far.
    gone: BTreeSet<OsString>,
    found: Vec<Found>,
    /// Files above that have several names.
    groups: HashMap<(u64, u64), Vec<Name>>,
}

impl Visitor for Compare {
    fn enter(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        if path.as_os_str().is_empty() {
            self.found.extend(root(At { dir, name: OsStr::new("") }, &self.below)?);
        }
        self.below.enter(path)?;
        self.gone = self.below.names()?;
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, path: &Path, name: &OsStr, _: FileType) -> Result<bool, Error> {
        self.gone.remove(name);
        let here = At { dir, name };
        // Listed, but not there: a whiteout in a directory that does not merge.
        let Some(stat) = here.stat()? else { return Ok(false) };
        let below = self.below.find(name)?;
        let fail = |e: Error| e.about(path.join(name));
        let kind = match &below {
            Some((below, other)) if here.equals(&stat, *below, other).map_err(fail)? => None,
            Some(_) => Some(ChangeKind::Modified),
            None => Some(ChangeKind::Added),
        };
        if let Some(file) = linked(&stat) {
            let below = below.and_then(|(_, other)| linked(&other));
            let name = Name { path: path.join(name), told: kind.is_some(), below };
            self.groups.entry(file).or_default().push(name);
        }
        if let Some(kind) = kind {
            self.found.push(Found { linked: linked(&stat), ..Found::new(path.join(name), kind) });
        }
        Ok(true)
    }

    fn listed(&mut self, _: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        for name in std::mem::take(&mut self.gone) {
            if self.below.find(&name)?.is_some() {
                self.found.push(Found::new(path.join(name), ChangeKind::Deleted));
            }
        }
        Ok(())
    }

    fn leave(&mut self, _: BorrowedFd<'_>, _: &Path) -> Result<(), Error> {
        self.below.leave()
    }
}

/// What has become of the root itself.
pub(super) fn root(here: At<'_>, below: &Below) -> Result<Option<Found>, Error> {
    let below = At { dir: below.cursor.as_fd(), name: OsStr::new("") };
    let (Some(stat), Some(other)) = (here.stat()?, below.stat()?) else { return Ok(None) };
    let same = here.equals(&stat, below, &other)?;
    Ok((!same).then(|| Found::new(here.name.into(), ChangeKind::Modified)))
}

/// The tree below, at the same place as the walk through the one above; or nowhere, where that has no such directory.
pub(super) struct Below {
    cursor: Cursor,
    /// How many levels above there are with nothing below.
    lost: usize,
    /// How its whiteouts look, if there may be some to be seen.
    form: Option<Form>,
}

impl Below {
    pub(super) fn new(top: BorrowedFd<'_>, form: Option<Form>) -> Result<Self, Error> {
        let cursor = Cursor::new(top).map_err(|(call, e)| Error::os(Operation::Diff, call, e))?;
        Ok(Below { cursor, lost: 0, form })
    }

    /// Goes along into a directory.
    pub(super) fn enter(&mut self, path: &Path) -> Result<(), Error> {
        // The top has no name.
        let Some(name) = path.file_name() else { return Ok(()) };
        if !self.find(name)?.is_some_and(|(_, stat)| is_directory(&stat)) {
            self.lost += 1;
            return Ok(());
        }
        self.cursor.down(name).map_err(|(call, e)| Error::os(Operation::Diff, call, e).about(path))
    }

    /// From here on, until the directory is left, nothing counts that is below.
    pub(super) fn hide(&mut self) {
        self.lost += 1;
    }

    pub(super) fn unhide(&mut self) {
        self.lost -= 1;
    }

    /// Comes back up.
    pub(super) fn leave(&mut self) -> Result<(), Error> {
        if self.lost > 0 {
            self.lost -= 1;
            return Ok(());
        }
        if self.cursor.is_at_the_top() {
            return Ok(());
        }
        self.cursor.up().map_err(|(call, e)| Error::os(Operation::Diff, call, e))
    }

    /// What has a name here below.
    pub(super) fn find<'a>(&'a self, name: &'a OsStr) -> Result<Option<(At<'a>, Stat)>, Error> {
        if self.lost > 0 {
            return Ok(None);
        }
        let found = At { dir: self.cursor.as_fd(), name };
        let Some(stat) = found.stat()? else { return Ok(None) };
        // A lower alone is no overlay, and shows its whiteouts, which have nothing to hide.
        let hidden = match self.form {
            Some(form) => found.is_whiteout(&stat, form)?,
            None => false,
        };
        Ok((!hidden).then_some((found, stat)))
    }

    fn names(&self) -> Result<BTreeSet<OsString>, Error> {
        let mut names = BTreeSet::new();
        if self.lost == 0 {
            entries(&self.cursor, |name, _| _ = names.insert(name.to_owned()))
                .map_err(|(call, e)| Error::os(Operation::Diff, call, e))?;
        }
        Ok(names)
    }
}
