//! What works here, before anything is tried.

use std::path::Path;

use crate::controllers::{Controllers, Subsystems};
use crate::dir::buffer;
use crate::error::Result;
use crate::hierarchy::Hierarchy;
use crate::layout::{Layout, Version};
use crate::member::{TYPE, Tree};
use crate::text;

/// What works here: see [`Hierarchy::capabilities`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How cgroups are mounted.
    pub layout: Layout,
    /// For each controller that the kernel has here, in the order of [`Controllers`].
    pub controllers: Vec<Support>,
    /// Whether a cgroup can be killed at once (`cgroup.kill`), rather than process by process. `None`: that cannot be
    /// seen without making a cgroup.
    pub kill: Option<bool>,
    /// Whether a process can be born in a cgroup without `cgroup.procs` being written to (v2 alone).
    pub birth: bool,
    /// Whether pressure is counted.
    pub pressure: bool,
}

/// What is known of one controller.
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// Which one.
    pub controller: Controllers,
    /// Whether it is in a tree of v1, as opposed to v2.
    pub is_v1: bool,
    /// Whether a new cgroup can have it: it is on for the children of the place where [`Hierarchy::create`] makes
    /// them, or can be turned on there by who may write there. (A cgroup that has processes can still be in the way.)
    pub available: bool,
    /// Whether the caller may make cgroups there, as far as the owner and mode of the directory tell. A mount that is
    /// read-only says no.
    pub writable: bool,
    /// Whether moving a process costs microseconds rather than milliseconds: the tree is mounted with `favordynmods`.
    pub favordynmods: bool,
}

impl Capabilities {
    /// The controllers that a new cgroup can have, and that the caller may make one with.
    #[must_use]
    pub fn usable(&self) -> Controllers {
        let usable = self.controllers.iter().filter(|support| support.available && support.writable);
        usable.map(|support| support.controller).collect()
    }

    /// What is known of one controller; nothing if the kernel does not have it here.
    #[must_use]
    pub fn controller(&self, controller: Controllers) -> Option<&Support> {
        self.controllers.iter().find(|support| support.controller == controller)
    }
}

impl Hierarchy {
    /// Finds out what works here, without changing anything. For single files, see
    /// [`Cgroup::has_file`](crate::Cgroup::has_file).
    ///
    /// # Errors
    /// [`ErrorKind::Gone`](crate::ErrorKind::Gone) if one's own cgroup was removed.
    pub fn capabilities(&self) -> Result<Capabilities> {
        let mut controllers = Vec::new();
        for tree in self.trees() {
            let known = Controllers::from(tree.subsystems);
            for controller in known.iter() {
                controllers.push(self.support(tree, controller)?);
            }
        }
        controllers.sort_by_key(|support| support.controller.bits());
        let unified = self.trees().iter().find(|tree| tree.version == Version::V2);
        Ok(Capabilities {
            layout: self.layout(),
            controllers,
            kill: match unified {
                Some(tree) => knows_kill(tree)?,
                None => Some(false),
            },
            birth: self.layout() == Layout::V2,
            pressure: match unified {
                Some(tree) => tree.root.has("cpu.pressure")? || Path::new("/proc/pressure/cpu").exists(),
                None => false,
            },
        })
    }

    fn support(&self, tree: &Tree, controller: Controllers) -> Result<Support> {
        let subsystems = Subsystems::from(controller);
        let place = tree.root.dir(&self.place(tree, subsystems))?;
        let available = match tree.version {
            Version::V1 => true,
            Version::V2 if Subsystems::IMPLICIT.contains(subsystems) => true,
            Version::V2 => {
                let mut buffer = buffer();
                let names = place.read("cgroup.controllers", &mut buffer)?;
                Subsystems::named(text::words(names)).contains(subsystems)
            }
        };
        Ok(Support {
            controller,
            is_v1: tree.version == Version::V1,
            available,
            writable: place.is_writable(),
            favordynmods: tree.favordynmods,
        })
    }
}

/// The root does not have the file: any other cgroup tells.
fn knows_kill(tree: &Tree) -> Result<Option<bool>> {
    let own = tree.root.dir(&tree.own)?;
    if own.has(TYPE)? {
        return Ok(Some(own.has("cgroup.kill")?));
    }
    for name in own.children()? {
        match own.dir(Path::new(&name)).and_then(|child| child.has("cgroup.kill")) {
            Err(error) if error.is_gone() => {}
            known => return known.map(Some),
        }
    }
    Ok(None)
}
