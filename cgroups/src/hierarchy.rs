//! The trees of this machine, and one's own place in them.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cgroup::Cgroup;
use crate::controllers::{Controllers, Subsystems};
use crate::dir::{self, Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::{self, Layout, Mounted, Version};
use crate::member::{Member, Place, Places, TYPE, Tree};
use crate::{owner, text};

const MOUNTINFO: &str = "/proc/thread-self/mountinfo";
const CGROUP: &str = "/proc/thread-self/cgroup";

/// The cgroup trees that are mounted on this machine, and the calling thread's place in each. One descriptor per
/// tree. Detect it once, and keep it.
#[derive(Debug)]
pub struct Hierarchy {
    layout: Layout,
    trees: Vec<Arc<Tree>>,
    /// Trees that are mounted, but in which there is no place for us.
    unusable: Vec<(Version, Subsystems, Error)>,
}

impl Hierarchy {
    /// Looks at what is mounted: `cgroups(7)`. Reads `mountinfo` and `cgroup` of the calling thread in `/proc`, once.
    ///
    /// # Errors
    /// [`ErrorKind::NoCgroups`] if `/proc` or every cgroup file system is missing. That a single tree cannot be used
    /// is an error only when it is needed.
    pub fn detect() -> Result<Self> {
        Self::from_proc(&dir::read_file(MOUNTINFO)?, &dir::read_file(CGROUP)?)
    }

    /// Like [`detect`](Self::detect), from texts that the caller has: those of another process or, edited, with some
    /// mounts left out. The paths in it are still those of the calling thread's mount namespace.
    ///
    /// # Errors
    /// [`ErrorKind::NoCgroups`] if the texts name no cgroup file system.
    pub fn from_proc(mountinfo: &[u8], cgroup: &[u8]) -> Result<Self> {
        let (layout, mounted) =
            layout::find(mountinfo, cgroup).ok_or_else(|| Error::new(ErrorKind::NoCgroups, Op::Find, MOUNTINFO))?;
        let mut hierarchy = Hierarchy { layout, trees: Vec::with_capacity(mounted.len()), unusable: Vec::new() };
        for found in mounted {
            match open_tree(&found) {
                Ok(tree) => hierarchy.trees.push(Arc::new(tree)),
                Err(error) => hierarchy.unusable.push((found.version, found.subsystems, error)),
            }
        }
        hierarchy.share_out();
        Ok(hierarchy)
    }

    /// From directories of cgroup file systems that are open, one for each tree: what a supervisor hands to a helper, or a
    /// service to a sandbox. Each is the top of its tree, whatever is above it: [`create`](Self::create) makes cgroups
    /// in it. Nothing is looked up by a path. With a directory of v1 comes which controllers its tree has; of v2 the
    /// kernel is asked, and what is given is not looked at.
    ///
    /// # Errors
    /// [`ErrorKind::NoCgroups`] if there is none, or one is not a directory of a cgroup file system;
    /// [`ErrorKind::InvalidInput`] if there are two of v2, or if one of v1 has no controllers; [`ErrorKind::Gone`].
    pub fn from_roots(roots: impl IntoIterator<Item = (OwnedFd, Controllers)>) -> Result<Self> {
        let mut trees = Vec::new();
        for (fd, controllers) in roots {
            let (root, version, page) = Dir::given(fd)?;
            let subsystems = match version {
                Version::V1 => on_v1(&root, controllers)?,
                Version::V2 => on_v2(&root)?,
            };
            let refused = |note| Error::new(ErrorKind::InvalidInput, Op::Check, root.path()).with_note(note);
            if version == Version::V1 && subsystems.is_empty() {
                return Err(refused("which controllers it has must be told"));
            }
            if version == Version::V2 && trees.iter().any(|tree: &Arc<Tree>| tree.version == Version::V2) {
                return Err(refused("there is one unified tree"));
            }
            trees.push(Arc::new(Tree {
                version,
                subsystems,
                from_the_top: version == Version::V2 && !root.has(TYPE)?,
                root,
                page,
                own: PathBuf::new(),
                favordynmods: false,
                places: Places::default(),
            }));
        }
        let has = |version| trees.iter().any(|tree| tree.version == version);
        let layout = match (has(Version::V1), has(Version::V2)) {
            (true, true) => Layout::Hybrid,
            (true, false) => Layout::V1,
            (false, true) => Layout::V2,
            (false, false) => return Err(Error::new(ErrorKind::NoCgroups, Op::Find, "the directories given")),
        };
        let mut hierarchy = Hierarchy { layout, trees, unusable: Vec::new() };
        hierarchy.share_out();
        Ok(hierarchy)
    }

    /// In a hybrid layout what every cgroup of v2 has is v1's where that has it too, except for freezing: the unified
    /// tree is joined in any case, and does it better.
    fn share_out(&mut self) {
        let of = |version| move |tree: &&mut Tree| tree.version == version;
        let v1: Subsystems =
            self.trees.iter().filter(|tree| tree.version == Version::V1).map(|tree| tree.subsystems).collect();
        let mut has_unified = false;
        for unified in self.trees.iter_mut().filter_map(Arc::get_mut).filter(of(Version::V2)) {
            unified.subsystems |= Subsystems::FREEZER | (Subsystems::IMPLICIT - v1);
            has_unified = true;
        }
        for tree in self.trees.iter_mut().filter_map(Arc::get_mut).filter(of(Version::V1)).filter(|_| has_unified) {
            tree.subsystems -= Subsystems::FREEZER;
        }
    }

    /// v1, v2 or hybrid.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The controllers that are mounted and visible. One's place in the tree may still lack some of them (v2).
    #[must_use]
    pub fn controllers(&self) -> Controllers {
        let all: Subsystems = self.trees.iter().map(|tree| tree.subsystems).collect();
        all.into()
    }

    /// Makes a new cgroup with these controllers: on v2 next to one's own (below it if it is the root of what can be
    /// seen), on v1 below one's own, in the tree of each controller. In a hybrid layout the unified tree is joined too,
    /// for `cgroup.kill`; on v1 the freezer, for the same purpose. On v2 the controllers are enabled in the cgroups
    /// above it, where they are not.
    ///
    /// # Errors
    /// No cgroup is left behind; controllers that were enabled above stay enabled, since others may use them by now. By [`kind`](Error::kind):
    /// [`InvalidInput`](ErrorKind::InvalidInput), the name is not a plain file name, or has the form of those that
    /// [`create_owned`](Self::create_owned) makes (`cofferdam-OWNER+NAME`);
    /// [`AlreadyExists`](ErrorKind::AlreadyExists);
    /// [`ControllerUnavailable`](ErrorKind::ControllerUnavailable), it is not mounted, or not handed down to this part
    /// of the tree;
    /// [`PermissionDenied`](ErrorKind::PermissionDenied), one needs root or a delegated cgroup;
    /// [`Occupied`](ErrorKind::Occupied), controllers must be enabled in a cgroup that has processes, see
    /// [choosing the place](crate#choosing-the-place);
    /// [`Unsupported`](ErrorKind::Unsupported), the place is in a threaded subtree;
    /// [`Gone`](ErrorKind::Gone), one's own cgroup was removed.
    pub fn create(&self, name: impl AsRef<OsStr>, controllers: Controllers) -> Result<Cgroup> {
        let name = name.as_ref();
        dir::check_name(name)?;
        owner::check_untagged(name)?;
        self.make(name, controllers)
    }

    /// With a name that was checked.
    pub(crate) fn make(&self, name: &OsStr, controllers: Controllers) -> Result<Cgroup> {
        let chosen = self.choose(controllers)?;
        Cgroup::make(
            chosen.into_iter().map(|(tree, subsystems)| {
                let parent = self.place(&tree, subsystems);
                Place { tree, parent, dir: None, subsystems }
            }),
            name,
        )
    }

    /// Opens the cgroup that [`create`](Self::create) made with the same name and controllers, by this process or by
    /// another one at the same place.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if there is none, in one of the trees at least; otherwise as for [`create`](Self::create).
    pub fn open(&self, name: impl AsRef<OsStr>, controllers: Controllers) -> Result<Cgroup> {
        let name = name.as_ref();
        dir::check_name(name)?;
        let members = self.choose(controllers)?.into_iter().map(|(tree, subsystems)| {
            let relative = self.place(&tree, subsystems).join(name);
            Member::open(&tree, relative, subsystems)
        });
        Ok(Cgroup::found(members.collect::<Result<_>>()?))
    }

    /// One's own cgroup, in the trees of these controllers: a place for children, or something to look at. It can be
    /// neither killed nor deleted. Nothing is enabled by this; [`Cgroup::child`] does that.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn own(&self, controllers: Controllers) -> Result<Cgroup> {
        let members = self
            .choose(controllers)?
            .into_iter()
            .map(|(tree, subsystems)| Member::open(&tree, tree.own.clone(), subsystems));
        Ok(Cgroup::new(members.collect::<Result<_>>()?, true))
    }

    pub(crate) fn trees(&self) -> &[Arc<Tree>] {
        &self.trees
    }

    /// Everywhere in a tree where [`create`](Self::create) may have put something.
    pub(crate) fn places(&self, tree: &Tree) -> Vec<PathBuf> {
        let mut places = vec![self.place(tree, Subsystems::empty()), self.place(tree, tree.subsystems)];
        places.dedup();
        places
    }

    /// The topmost cgroup that can be seen, in the trees of these controllers: of the machine, or of the container. Something
    /// to look at; see [`Cgroup::walk`].
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn root(&self, controllers: Controllers) -> Result<Cgroup> {
        let chosen = self.choose(controllers)?.into_iter();
        let members = chosen.map(|(tree, subsystems)| Member::open(&tree, PathBuf::new(), subsystems));
        Ok(Cgroup::new(members.collect::<Result<_>>()?, true))
    }

    /// Where a new cgroup goes.
    pub(crate) fn place(&self, tree: &Tree, subsystems: Subsystems) -> PathBuf {
        // A unified tree without controllers of ours (hybrid) has no rule against processes in the parent.
        let needs_sibling = self.layout == Layout::V2 || !(subsystems - Subsystems::IMPLICIT).is_empty();
        match tree.version {
            Version::V2 if needs_sibling => tree.own.parent().unwrap_or(Path::new("")).to_owned(),
            _ => tree.own.clone(),
        }
    }

    /// The trees that these controllers need, and what of them is where. The unified tree is the last.
    fn choose(&self, controllers: Controllers) -> Result<Vec<(Arc<Tree>, Subsystems)>> {
        let required = Subsystems::from(controllers);
        let present: Subsystems = self.trees.iter().map(|tree| tree.subsystems).collect();
        if let Some(missing) = (required - present).iter().next() {
            return Err(self.missing(missing));
        }
        let mut wanted = required;
        wanted.set(Subsystems::CPUACCT, required.contains(Subsystems::CPU));
        // To kill: the unified tree can do that alone.
        wanted |= Subsystems::FREEZER;
        let mut chosen = Vec::with_capacity(self.trees.len());
        for tree in &self.trees {
            let here = tree.subsystems & wanted;
            if tree.version == Version::V2 || !here.is_empty() {
                chosen.push((Arc::clone(tree), here));
            }
        }
        chosen.sort_by_key(|(tree, _)| tree.version == Version::V2);
        if chosen.is_empty() {
            let unified = self.unusable.iter().find(|(version, ..)| *version == Version::V2);
            let none = || Error::new(ErrorKind::NoCgroups, Op::Find, MOUNTINFO);
            return Err(unified.map_or_else(none, |(_, _, error)| error.clone()));
        }
        Ok(chosen)
    }

    fn missing(&self, subsystem: Subsystems) -> Error {
        let known = self.unusable.iter().find(|(_, held, _)| held.contains(subsystem));
        if let Some((_, _, error)) = known {
            return error.clone();
        }
        let name: String = subsystem.names().collect();
        Error::new(ErrorKind::ControllerUnavailable, Op::Find, MOUNTINFO)
            .with_value(name)
            .with_note("neither mounted as v1, nor in cgroup.controllers of a v2 mount")
    }
}

fn on_v2(root: &Dir) -> Result<Subsystems> {
    let mut buffer = buffer();
    Ok(Subsystems::named(text::words(root.read("cgroup.controllers", &mut buffer)?)))
}

/// What callers call one controller are two of v1, together or apart: their files tell.
fn on_v1(root: &Dir, controllers: Controllers) -> Result<Subsystems> {
    let mut subsystems = Subsystems::from(controllers);
    if controllers.contains(Controllers::CPU) {
        subsystems.set(Subsystems::CPU, root.has("cpu.shares")?);
        subsystems.set(Subsystems::CPUACCT, root.has("cpuacct.usage")?);
    }
    Ok(subsystems)
}

fn open_tree(found: &Mounted) -> Result<Tree> {
    let mut first_error = None;
    for view in &found.views {
        let opened = Dir::mount(&view.point, found.version, found.device).and_then(|(root, page)| {
            let (version, subsystems) = (found.version, found.subsystems);
            let mut tree = Tree {
                version,
                subsystems,
                root,
                page,
                own: view.own.clone(),
                from_the_top: false,
                favordynmods: found.favordynmods,
                places: Places::default(),
            };
            if found.version == Version::V2 {
                tree.subsystems = on_v2(&tree.root)?;
                tree.from_the_top = !tree.root.has(TYPE)?;
            }
            Ok(tree)
        });
        match opened {
            Ok(tree) => return Ok(tree),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| {
        let own = found.own.clone().unwrap_or_else(|| CGROUP.into());
        Error::new(ErrorKind::NoCgroups, Op::Find, own)
            .with_note("one's own cgroup is not below any mount that can be seen")
    }))
}
