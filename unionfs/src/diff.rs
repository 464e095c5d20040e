//! What a writable layer, or one tree, changes about what is below it.

mod compare;
mod upper;

use crate::container::InitPlaces;
use crate::dir::{entries, open_directory};
use crate::options::Options;
use crate::overlay::Writable;
use crate::{Error, Form, Operation, Overlay, RedirectDir};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The changes from one tree to another, as a layer of an image has them.
///
/// ```no_run
/// use cofferdam_unionfs::{AfterVolatile, Overlay, WritableLayer};
///
/// let writable = WritableLayer::open(std::fs::File::open("/var/lib/build/42")?, AfterVolatile::Refuse)?;
/// let overlay = Overlay::new().lower("/var/lib/layers/debian").writable(&writable);
/// let diff = overlay.diff()?;
/// for change in diff.changes() {
///     println!("{:?} {}", change.kind, change.path.display());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What was added or modified is to be taken from [`open`](Self::open): owner, mode, times, extended attributes, data with its holes,
/// devices. Attributes by which overlayfs keeps its own books ([`is_overlay_xattr`](crate::is_overlay_xattr)) are no part of the change. A socket is told
/// like any other file; an archive has no place for it, so what writes one and leaves it out writes a whiteout where it was
/// [`Modified`](ChangeKind::Modified), or what it has replaced would be back.
#[derive(Debug)]
pub struct Diff {
    method: DiffMethod,
    changes: Vec<Change>,
    source: OwnedFd,
}

/// How changes were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiffMethod {
    /// By looking at what the upper directory holds: takes as long as there are changes.
    Upper,
    /// By comparing all that is shown with all that is below, data too: takes as long as there is data. Necessary where an upper does not hold
    /// what it shows (`metacopy`, `redirect_dir`, with `index` a file of several names).
    Comparison,
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Where, from the root, which is the empty path.
    pub path: PathBuf,
    /// What has become of it.
    pub kind: ChangeKind,
    /// It is a directory that hides the one below it: of that, nothing is shown but what follows in this list.
    pub opaque: bool,
    /// It is a hard link to this path, which comes before it in the list.
    pub link_to: Option<PathBuf>,
}

/// What has become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// There was nothing of that name.
    Added,
    /// It is another file, or of another type, or has other attributes. Of an upper also: it has been written to, perhaps with what was there before.
    Modified,
    /// It is not there any more, with all that was in it.
    Deleted,
}

impl Diff {
    /// Compares two trees: what has to be done to `below` to make it `above`. Reads all of both.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn between(above: impl AsFd, below: impl AsFd) -> Result<Self, Error> {
        let (above, below) = (above.as_fd(), below.as_fd());
        Self::new(DiffMethod::Comparison, compare::compare(above, below, None)?, above)
    }

    pub(crate) fn of_overlay(overlay: &Overlay) -> Result<Self, Error> {
        let Some(writable) = &overlay.writable else {
            return Err(Error::invalid(Operation::Diff, "upper", "there is none"));
        };
        let below =
            Overlay { writable: None, options: Options { volatile: false, ..overlay.options }, ..overlay.clone() };
        let merged_below = below.mount()?;
        if !(overlay.options.index && has_index(writable)?) {
            let upper = writable.upper.open()?;
            if let Some(found) = upper::changes(upper.as_fd(), merged_below.as_fd(), overlay.options.form)? {
                return Self::new(DiffMethod::Upper, found, upper.as_fd());
            }
        }
        let above = if overlay.options.index {
            // Only the mount itself knows which names are one file.
            overlay.clone().read_only()
        } else {
            // As a lower it shows what it refers to, and is not in the way of a mount that writes to it.
            let mut above = below;
            above.lowers.insert(0, writable.upper.clone());
            above.options.metacopy = overlay.options.form == Form::Trusted;
            if above.options.metacopy {
                above.options.redirect_dir = RedirectDir::Follow;
            }
            above
        };
        let merged = above.mount()?;
        let found = compare::compare(merged.as_fd(), merged_below.as_fd(), Some(overlay.options.form))?;
        Self::new(DiffMethod::Comparison, found, merged.as_fd())
    }

    fn new(method: DiffMethod, found: Vec<Found>, source: BorrowedFd<'_>) -> Result<Self, Error> {
        let source = source
            .try_clone_to_owned()
            .map_err(|e| Error::os(Operation::Diff, "fcntl", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
        Ok(Diff { method, changes: in_order(found), source })
    }

    /// Leaves out what is about an init layer: its entries with all below, and directories that are there only to lead to them.
    pub(crate) fn keep_only(&mut self, places: &InitPlaces) {
        if places.is_empty() {
            return;
        }
        self.changes.retain(|change| !places.cover(&change.path));
        let mut kept: Vec<Change> = Vec::with_capacity(self.changes.len());
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            // What follows it in the list, and so comes before it here, is what is in it.
            let leads_only = change.kind == ChangeKind::Added
                && places.lead_through(&change.path)
                && !kept.last().is_some_and(|next| next.path.starts_with(&change.path));
            if !leads_only {
                kept.push(change);
            }
        }
        kept.reverse();
        lead_to_what_is_there(&mut kept);
        self.changes = kept;
    }

    /// What holds all that was added or modified.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// All changes, each directory before what is in it, names in their order as bytes.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How they were found.
    #[must_use]
    pub fn method(&self) -> DiffMethod {
        self.method
    }

    /// What a change leads to: an `O_PATH` descriptor of the file, which no link leads elsewhere. What was deleted is not found.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); what `openat2(2)` says.
    pub fn open(&self, change: &Change) -> Result<OwnedFd, Error> {
        let path = if change.path.as_os_str().is_empty() { Path::new(".") } else { &change.path };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // NO_SYMLINKS would refuse one in the last place, too; nothing above it is one, or it would not have been walked through.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.source, path, flags, Mode::empty(), resolve)
            .map_err(|e| Error::os(Operation::Diff, "openat2", e).about(&change.path))
    }
}

/// Whether the kernel keeps files in the index. They are also shown by names that the upper does not have: it may have had only one that is gone.
fn has_index(writable: &Writable) -> Result<bool, Error> {
    let failed = |call, errno| Error::os(Operation::Diff, call, errno).about("work/index");
    let index = match open_directory(writable.work.open()?, "index") {
        Ok(index) => index,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(failed("openat2", errno)),
    };
    let mut found = false;
    entries(index, |_, _| found = true).map_err(|(call, errno)| failed(call, errno))?;
    Ok(found)
}

/// Of the names of a file whose first one is not told, the next one takes its place.
fn lead_to_what_is_there(changes: &mut [Change]) {
    let told: HashSet<PathBuf> = changes.iter().map(|change| change.path.clone()).collect();
    let mut next: HashMap<PathBuf, PathBuf> = HashMap::new();
    for change in changes {
        let Some(first) = change.link_to.take_if(|first| !told.contains(first)) else { continue };
        match next.get(&first) {
            Some(next) => change.link_to = Some(next.clone()),
            None => _ = next.insert(first, change.path.clone()),
        }
    }
}

/// A change, and which file it is if it may have other names.
struct Found {
    change: Change,
    linked: Option<(u64, u64)>,
}

impl Found {
    fn new(path: PathBuf, kind: ChangeKind) -> Self {
        Found { change: Change { path, kind, opaque: false, link_to: None }, linked: None }
    }
}

/// As paths are compared, which takes several times as long because it first looks for what these never have: `.`, or a slash at the end.
fn by_components(a: &Path, b: &Path) -> Ordering {
    let (a, b) = (a.as_os_str().as_bytes(), b.as_os_str().as_bytes());
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => rank(a).cmp(&rank(b)),
        None => a.len().cmp(&b.len()),
    }
}

/// In the order of the paths' components; of the names of one file the first is the file.
fn in_order(mut found: Vec<Found>) -> Vec<Change> {
    found.sort_by(|a, b| by_components(&a.change.path, &b.change.path));
    let mut files: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for Found { change, linked } in &mut found {
        let Some(file) = linked else { continue };
        match files.get(file) {
            Some(first) => change.link_to = Some(first.clone()),
            None => _ = files.insert(*file, change.path.clone()),
        }
    }
    found.into_iter().map(|found| found.change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_compared_as_paths_are(a in path(), b in path()) {
            prop_assert_eq!(by_components(&a, &b), a.cmp(&b));
        }
    }

    fn path() -> impl Strategy<Value = PathBuf> {
        let name = prop_oneof!["[a-c]{1,3}", "[-+.a0]a", "a[\u{1}-\u{20}\u{e000}]"];
        proptest::collection::vec(name, 0..4).prop_map(|names| names.into_iter().collect())
    }
}
