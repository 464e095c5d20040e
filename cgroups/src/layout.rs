//! From the kernel's texts to the trees of this machine and one's own place in each. Pure: nothing is opened here.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::controllers::Subsystems;
use crate::mountinfo::{self, Mount};

/// How cgroups are mounted on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Only v1: one tree per controller, or per group of co-mounted ones.
    V1,
    /// Only v2: one unified tree.
    V2,
    /// v1 trees, and a unified tree beside them.
    Hybrid,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Layout::V1 => "v1",
            Layout::V2 => "v2",
            Layout::Hybrid => "hybrid",
        })
    }
}

/// Which interface a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    V1,
    V2,
}

/// A tree, with every way to get to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) version: Version,
    /// Major and minor number. Co-mounted controllers, and several mounts of one tree, have one.
    pub(crate) device: (u32, u32),
    /// An option of the tree, however it is mounted.
    pub(crate) favordynmods: bool,
    /// On v1 from the mount's options; on v2 the kernel must be asked.
    pub(crate) subsystems: Subsystems,
    /// One's own cgroup as the kernel names it, if it does.
    pub(crate) own: Option<PathBuf>,
    /// The mounts below which one's own cgroup is visible; the best first.
    pub(crate) views: Vec<View>,
}

/// One mount of a tree, below which one's own cgroup is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) point: PathBuf,
    /// One's own cgroup, relative to the mount point. Empty if it is the mount's root.
    pub(crate) own: PathBuf,
    read_only: bool,
}

/// The layout, and every tree that holds something that we use. `None` if there is no cgroup mount at all.
pub(crate) fn find(mountinfo: &[u8], cgroup: &[u8]) -> Option<(Layout, Vec<Mounted>)> {
    let (mut v1, mut v2) = (false, false);
    let mut trees: Vec<Mounted> = Vec::new();
    for mount in mountinfo::cgroup_mounts(mountinfo) {
        let subsystems = if mount.unified {
            v2 = true;
            Subsystems::empty()
        } else {
            v1 = true;
            Subsystems::named(mount.super_options())
        };
        if !mount.unified && subsystems.is_empty() {
            continue;
        }
        let known = trees.iter().position(|tree| tree.device == mount.device);
        let index = known.unwrap_or(trees.len());
        if known.is_none() {
            trees.push(new_tree(&mount, subsystems, cgroup));
        }
        if let Some(tree) = trees.get_mut(index)
            && let Some(view) = view(&mount, tree.own.as_deref())
        {
            tree.views.push(view);
        }
    }
    for tree in &mut trees {
        // Stable: among equals the one that was mounted first, which is the one below /sys.
        tree.views.sort_by_key(|view| view.read_only);
    }
    let layout = match (v1, v2) {
        (true, true) => Layout::Hybrid,
        (true, false) => Layout::V1,
        (false, true) => Layout::V2,
        (false, false) => return None,
    };
    Some((layout, trees))
}

fn new_tree(mount: &Mount<'_>, subsystems: Subsystems, cgroup: &[u8]) -> Mounted {
    Mounted {
        version: if mount.unified { Version::V2 } else { Version::V1 },
        device: mount.device,
        favordynmods: mount.super_options().any(|option| option == b"favordynmods"),
        subsystems,
        own: own(cgroup, mount.unified, subsystems),
        views: Vec::new(),
    }
}

/// Where one's own cgroup is below this mount, if the mount shows it: in a container the mount's root is often a
/// directory deep in the tree, and `/proc/PID/cgroup` may name the cgroup from the tree's root.
fn view(mount: &Mount<'_>, own: Option<&Path>) -> Option<View> {
    let root = mountinfo::unescape(mount.root);
    let own = own?.strip_prefix(&root).ok()?;
    // A cgroup namespace's "/../x" is outside what the mount shows, unless its root is outside as well.
    if own.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return None;
    }
    Some(View { point: mountinfo::unescape(mount.point), own: own.to_owned(), read_only: mount.read_only })
}

/// One's own path in a tree, from the lines `ID:CONTROLLERS:PATH` of `/proc/PID/cgroup` (`cgroups(7)`). The path may
/// hold colons. It may end in ` (deleted)`; so may a cgroup's name, so it is left as it is, and not found later.
fn own(text: &[u8], unified: bool, subsystems: Subsystems) -> Option<PathBuf> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = if unified {
            id == b"0" && controllers.is_empty()
        } else {
            Subsystems::named(controllers.split(|byte| *byte == b',')).intersects(subsystems)
        };
        ours.then(|| PathBuf::from(OsStr::from_bytes(path)))
    })
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
