//! A cgroup in one tree: making it, opening it, and enabling controllers above it.

use std::ffi::OsStr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::io::Errno;

use crate::controllers::Subsystems;
use crate::cpuset;
use crate::dir::{Dir, buffer};
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::text;

/// Every cgroup of v2 has it but the true root.
pub(crate) const TYPE: &str = "cgroup.type";
pub(crate) const SUBTREE_CONTROL: &str = "cgroup.subtree_control";
/// Processes that are just leaving make the kernel say EBUSY for a moment: 1 + 2 + … + 32 ms.
const BUSY_TRIES: u32 = 6;

/// A mounted tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) version: Version,
    pub(crate) subsystems: Subsystems,
    pub(crate) root: Dir,
    /// The size of a page, in which the kernel counts memory.
    pub(crate) page: u64,
    /// One's own cgroup, relative to the root.
    pub(crate) own: PathBuf,
    /// The root of the tree is the true one, which can have threaded children beside others (v2).
    pub(crate) from_the_top: bool,
    /// Mounted so that processes can be moved fast.
    pub(crate) favordynmods: bool,
    /// Directories in which new cgroups go, once they were opened: one's own and the one above it.
    pub(crate) places: Places,
}

/// See [`Tree::parent`].
#[derive(Debug, Default)]
pub(crate) struct Places([OnceLock<Dir>; 2]);

/// A directory that is kept open, or one that was opened just now.
#[derive(Debug)]
pub(crate) enum Parent<'a> {
    Kept(&'a Dir),
    Opened(Dir),
}

impl Deref for Parent<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        match self {
            Parent::Kept(dir) => dir,
            Parent::Opened(dir) => dir,
        }
    }
}

impl Tree {
    /// The directory in which a cgroup is made or deleted. The places where most of them go are opened once.
    pub(crate) fn parent(&self, path: &Path) -> Result<Parent<'_>> {
        let Places([own, above]) = &self.places;
        let place = if path == self.own {
            own
        } else if Some(path) == self.own.parent() {
            above
        } else {
            return self.root.dir(path).map(Parent::Opened);
        };
        if let Some(dir) = place.get() {
            return Ok(Parent::Kept(dir));
        }
        let dir = self.root.dir(path)?;
        Ok(Parent::Kept(place.get_or_init(|| dir)))
    }
}

/// A cgroup's directory in one tree.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) tree: Arc<Tree>,
    /// Relative to the tree's root.
    pub(crate) relative: PathBuf,
    pub(crate) dir: Dir,
    /// Those of the caller's subsystems that are governed here.
    pub(crate) subsystems: Subsystems,
}

/// Where a cgroup is to be made in one tree.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tree: Arc<Tree>,
    /// The directory above, relative to the tree's root.
    pub(crate) parent: PathBuf,
    /// The same, where it is open: it is then this very one, whatever has that name now.
    pub(crate) dir: Option<&'a Dir>,
    pub(crate) subsystems: Subsystems,
}

impl<'a> Place<'a> {
    pub(crate) fn below(member: &'a Member) -> Self {
        let (tree, parent) = (Arc::clone(&member.tree), member.relative.clone());
        Place { tree, parent, dir: Some(&member.dir), subsystems: member.subsystems }
    }
}

impl Member {
    /// Makes a new cgroup. Fails if there is one of that name.
    pub(crate) fn make(place: Place<'_>, name: &OsStr) -> Result<Self> {
        let Place { tree, parent, dir, subsystems } = place;
        let above = match dir {
            Some(dir) => Parent::Kept(dir),
            None => tree.parent(&parent)?,
        };
        let parent_dir: &Dir = &above;
        let to_enable = subsystems - Subsystems::IMPLICIT;
        if tree.version == Version::V2 && !to_enable.is_empty() {
            enable_below(&tree.root, &parent, parent_dir, to_enable)?;
        }
        parent_dir.make(name).map_err(explain_creation)?;
        let ready = parent_dir.dir(Path::new(name)).and_then(|dir| {
            match tree.version {
                Version::V1 if tree.subsystems.contains(Subsystems::CPUSET) => {
                    cpuset::inherit(&tree.root, &parent, parent_dir, &dir)?;
                }
                // Directly below the true root every new one is, and where these controllers were found to be on above.
                Version::V2 if tree.from_the_top && parent.as_os_str().is_empty() => {}
                Version::V2 if to_enable.intersects(Subsystems::OF_DOMAINS) => {}
                Version::V2 => must_be_domain(&dir)?,
                Version::V1 => {}
            }
            Ok(dir)
        });
        match ready {
            Ok(dir) => {
                drop(above);
                Ok(Member { relative: parent.join(name), tree, dir, subsystems })
            }
            Err(error) => {
                // Made just now and empty. If it cannot be removed, the first error is the one that tells more.
                let _ = parent_dir.remove(name);
                Err(error)
            }
        }
    }

    /// Opens a cgroup that exists.
    pub(crate) fn open(tree: &Arc<Tree>, relative: PathBuf, subsystems: Subsystems) -> Result<Self> {
        let dir = tree.root.dir(&relative)?;
        Ok(Member { tree: Arc::clone(tree), relative, dir, subsystems })
    }

    /// Opens one below this one.
    pub(crate) fn open_below(&self, path: &Path) -> Result<Self> {
        let dir = self.dir.dir(path)?;
        let relative = self.relative.join(path);
        Ok(Member { tree: Arc::clone(&self.tree), relative, dir, subsystems: self.subsystems })
    }

    pub(crate) fn version(&self) -> Version {
        self.tree.version
    }
}

fn explain_creation(error: Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            error.with_note("root is needed, or on v2 a cgroup delegated to this user (Delegate=yes)")
        }
        _ if error.errno() == Some(Errno::AGAIN) => {
            error.with_note("cgroup.max.descendants or cgroup.max.depth of a cgroup above")
        }
        _ => error,
    }
}

/// Below a threaded cgroup the kernel makes new ones "domain invalid": no process can enter them.
fn must_be_domain(dir: &Dir) -> Result<()> {
    let mut buffer = buffer();
    match dir.read_if_there(TYPE, &mut buffer)? {
        None | Some(b"domain\n") => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Unsupported, Op::Create, dir.path())
            .with_note("the cgroup above is threaded, so that no process could enter this one")),
    }
}

/// Enables controllers for the children of `parent`, and for that in as many cgroups above it as needed. Where they
/// are enabled already nothing is written, so that no right to write there is needed.
///
/// The cgroups above are found by their path. It leads to the right ones: none can be removed while ours is there, and
/// v2 renames nothing.
fn enable_below(root: &Dir, parent: &Path, parent_dir: &Dir, wanted: Subsystems) -> Result<()> {
    let Some(missing) = missing(parent_dir, wanted)? else { return Ok(()) };
    let mut to_enable = Vec::new();
    for above in parent.ancestors().skip(1) {
        let dir = root.dir(above)?;
        match self::missing(&dir, wanted)? {
            Some(missing) => to_enable.push((dir, missing)),
            None => break,
        }
    }
    for (dir, missing) in to_enable.iter().rev() {
        enable(dir, *missing)?;
    }
    enable(parent_dir, missing)
}

/// Which of these are not enabled for the children of a cgroup, if any.
fn missing(dir: &Dir, wanted: Subsystems) -> Result<Option<Subsystems>> {
    let mut buffer = buffer();
    let missing = wanted - Subsystems::named(text::words(dir.read(SUBTREE_CONTROL, &mut buffer)?));
    Ok((!missing.is_empty()).then_some(missing))
}

/// Enables controllers for the children of one cgroup, which must have no processes of its own: otherwise the kernel
/// refuses, or, for controllers that can be threaded (cpu and pids can), turns it into a "domain threaded" one,
/// whose children no process can enter.
fn enable(dir: &Dir, missing: Subsystems) -> Result<()> {
    let mut buffer = buffer();
    // Only the true root has no type, and it is free of this rule.
    let is_root = match dir.read_if_there(TYPE, &mut buffer)? {
        None => true,
        Some(b"domain\n") => false,
        Some(_) => {
            return Err(refused(dir, missing, ErrorKind::Unsupported, "it is threaded"));
        }
    };
    if !is_root && !dir.read_list("cgroup.procs")?.is_empty() {
        return Err(occupied(dir, missing));
    }
    match write_control(dir, &missing.signed('+')) {
        // All or nothing is the kernel's way. One by one shows which it is, and enables what can be.
        Err(_) if missing.iter().nth(1).is_some() => {
            for one in missing.iter() {
                write_control(dir, &one.signed('+')).map_err(|error| explain(dir, one, error))?;
            }
        }
        result => result.map_err(|error| explain(dir, missing, error))?,
    }
    if !is_root && dir.read_if_there(TYPE, &mut buffer)? != Some(b"domain\n") {
        // A process came in between the look and the write.
        write_control(dir, &missing.signed('-'))?;
        return Err(occupied(dir, missing));
    }
    Ok(())
}

fn write_control(dir: &Dir, text: &str) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    for _ in 1..BUSY_TRIES {
        match dir.write(SUBTREE_CONTROL, text) {
            Err(error) if error.errno() == Some(Errno::BUSY) => std::thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    dir.write(SUBTREE_CONTROL, text)
}

fn refused(dir: &Dir, missing: Subsystems, kind: ErrorKind, note: &'static str) -> Error {
    Error::new(kind, Op::Enable, dir.path()).with_value(missing.signed('+')).with_note(note)
}

fn occupied(dir: &Dir, missing: Subsystems) -> Error {
    let note = "they must move first, for example into a child that was made without controllers";
    refused(dir, missing, ErrorKind::Occupied, note)
}

/// What the kernel's answer means for the one who wanted a controller.
fn explain(dir: &Dir, one: Subsystems, error: Error) -> Error {
    match error.errno() {
        Some(Errno::NOENT) if dir.is_alive() => {
            error.with_kind(ErrorKind::ControllerUnavailable).with_note("it is not in cgroup.controllers")
        }
        Some(Errno::BUSY) => error.with_kind(ErrorKind::Occupied),
        Some(Errno::INVAL) if one == Subsystems::CPU => {
            error.with_note("real-time processes outside of the root keep the cpu controller off")
        }
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            error.with_note("the controller is not enabled here, and enabling it needs root or delegation")
        }
        _ => error,
    }
}
