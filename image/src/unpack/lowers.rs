//! The layers below, in overlay form: what is seen of them at a path.

use super::dirs::{is_directory, open_root};
use super::links::{FileId, Groups};
use super::meta::Meta;
use super::name::{TreePath, ancestors, split};
use super::resolve::Node;
use super::tree::fail;
use super::unlocked::Unlocked;
use crate::layout::open_beneath;
use crate::{Error, Ownership};
use cofferdam_unionfs::{Form, is_opaque, is_whiteout};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Lowers {
    /// Topmost first.
    layers: Vec<Arc<OwnedFd>>,
    /// Directories of theirs, of which the one that was used last comes last: names have neighbours, and ancestors.
    opened: Vec<Opened>,
    /// These are all lowers: what is not in them is not there.
    complete: bool,
    /// How they say what they hide. `None`: this is a tree, that hides nothing.
    form: Option<Form>,
    /// Which directories of the tree are open for a while. (Those of layers, which others use too, stay as they are.)
    unlocked: Option<Unlocked>,
}

/// Something that one of the layers has.
#[derive(Debug)]
pub(super) struct Found {
    /// Which one, the topmost being 0.
    pub(super) layer: usize,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) leaf: Vec<u8>,
    pub(super) stat: Stat,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        is_directory(&self.stat)
    }

    pub(super) fn file(&self) -> FileId {
        (self.stat.st_dev, self.stat.st_ino)
    }

    pub(super) fn target(&self) -> Result<Vec<u8>, Error> {
        let target = readlinkat(&self.dir, self.leaf.as_slice(), Vec::new());
        target.map(std::ffi::CString::into_bytes).map_err(fail("readlinkat", &self.leaf))
    }

    pub(super) fn node(&self) -> Result<Node, Error> {
        Ok(match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Directory => Node::Directory,
            FileType::Symlink => Node::Symlink(self.target()?),
            _ => Node::Other,
        })
    }
}

/// As many directories of the layers are kept open, of all together.
const CACHED: usize = 32;

/// A directory of one layer.
#[derive(Debug, Clone)]
struct Opened {
    layer: usize,
    path: TreePath,
    dir: Arc<OwnedFd>,
    /// It, or one above it.
    opaque: bool,
}

impl Opened {
    fn is_at_or_above(&self, layer: usize, path: &[u8]) -> bool {
        let rest = if self.layer == layer { path.strip_prefix(self.path.as_slice()) } else { None };
        rest.is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
    }
}

/// What one layer says about a path.
enum Answer {
    Found(Found),
    /// Not here; whether the layers below count depends on the directories on the way.
    Missing {
        opaque: bool,
    },
    /// Not here, and hidden in the layers below.
    Hidden,
}

impl Lowers {
    /// Nothing is known about layers below.
    pub(super) fn unknown() -> Self {
        Lowers { layers: Vec::new(), opened: Vec::new(), complete: false, form: None, unlocked: None }
    }

    /// A tree of files, as one lower.
    pub(super) fn tree(root: BorrowedFd<'_>, unlocked: Unlocked) -> Result<Self, Error> {
        Ok(Lowers { form: None, unlocked: Some(unlocked), ..Self::new(&[root], Form::default())? })
    }

    /// All layers below, lowest first.
    pub(super) fn new(lowest_first: &[BorrowedFd<'_>], form: Form) -> Result<Self, Error> {
        let layers: Result<_, Errno> = lowest_first.iter().rev().map(|fd| open_root(*fd).map(Arc::new)).collect();
        let layers = layers.map_err(fail("openat2", b"."))?;
        Ok(Lowers { layers, opened: Vec::new(), complete: true, form: Some(form), unlocked: None })
    }

    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// What is seen at a path without symlinks, in the union of these layers.
    pub(super) fn look(&mut self, path: &[u8]) -> Result<Option<Found>, Error> {
        for number in 0..self.layers.len() {
            match self.ask(number, path)? {
                Answer::Found(found) => return Ok(Some(found)),
                Answer::Missing { opaque: false } => {}
                Answer::Missing { opaque: true } | Answer::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What a directory that was found is like.
    pub(super) fn describe(&self, found: &Found, path: &[u8], ownership: &Ownership) -> Result<Meta, Error> {
        if let Some(unlocked) = &self.unlocked {
            let (dir, above) = (found.dir.as_fd(), split(path).0);
            let open = || unlocked.open(dir, &found.leaf, path);
            unlocked.within(dir, above, open).map_err(fail("openat2", path))?;
        }
        Meta::of_lower(found, ownership)
    }

    /// Bytes that are kept in memory about them.
    pub(super) fn kept(&self) -> u64 {
        self.unlocked.as_ref().map_or(0, Unlocked::kept)
    }

    /// The names of a layer's files that have several. See [`Groups::of`].
    pub(super) fn groups(
        &self,
        layer: usize,
        room: u64,
        go_on: impl Fn() -> Result<(), Error>,
    ) -> Result<Option<Groups>, Error> {
        self.layers.get(layer).map_or_else(|| Ok(Some(Groups::default())), |layer| Groups::of(layer, room, go_on))
    }

    fn ask(&mut self, number: usize, path: &[u8]) -> Result<Answer, Error> {
        let Some(root) = self.layers.get(number).cloned() else { return Ok(Answer::Missing { opaque: false }) };
        if path.is_empty() {
            let stat = rustix::fs::fstat(&root).map_err(fail("fstat", path))?;
            return Ok(Answer::Found(self.found(number, root, b".", stat, path)));
        }
        let (parent, leaf) = split(path);
        let (dir, opaque) = match self.walk(number, root, parent)? {
            Ok(opened) => (opened.dir, opened.opaque),
            Err(answer) => return Ok(answer),
        };
        Ok(match self.stat_in(&dir, leaf, parent)? {
            None => Answer::Missing { opaque },
            Some(_) if self.is_whiteout(&dir, leaf)? => Answer::Hidden,
            Some(stat) => Answer::Found(self.found(number, dir, leaf, stat, path)),
        })
    }

    /// Opens a directory of a layer, from the nearest one above it that is open. The inner error: the answer that there is none.
    fn walk(&mut self, layer: usize, root: Arc<OwnedFd>, path: &[u8]) -> Result<Result<Opened, Answer>, Error> {
        let open = self.opened.iter().enumerate().filter(|(_, opened)| opened.is_at_or_above(layer, path));
        let nearest = open.max_by_key(|(_, opened)| opened.path.len()).map(|(index, _)| index);
        let mut found = match nearest {
            Some(index) => self.opened.remove(index),
            None => Opened { layer, path: TreePath::new(), opaque: self.is_opaque(&root)?, dir: root },
        };
        let known = found.path.len();
        for at in ancestors(path).chain([path]).skip(1).filter(|at| at.len() > known) {
            let (parent, component) = split(at);
            let stat = self.stat_in(&found.dir, component, parent)?;
            if !stat.as_ref().is_some_and(is_directory) {
                let opaque = found.opaque;
                self.remember(found);
                return Ok(Err(if stat.is_none() { Answer::Missing { opaque } } else { Answer::Hidden }));
            }
            let dir = self.open(&found.dir, component, at).map_err(fail("openat2", component))?;
            let opaque = found.opaque || self.is_opaque(&dir)?;
            let inner = Opened { layer, path: at.to_vec(), opaque, dir: Arc::new(dir) };
            self.remember(std::mem::replace(&mut found, inner));
        }
        self.remember(found.clone());
        Ok(Ok(found))
    }

    fn remember(&mut self, opened: Opened) {
        if self.opened.len() >= CACHED {
            self.opened.remove(0);
        }
        self.opened.push(opened);
    }

    /// What is there, with the mode that it had.
    fn found(&self, layer: usize, dir: Arc<OwnedFd>, leaf: &[u8], mut stat: Stat, path: &[u8]) -> Found {
        if let Some(mode) = self.unlocked.as_ref().and_then(|unlocked| unlocked.mode(path)) {
            stat.st_mode = stat.st_mode & !0o7777 | mode.as_raw_mode();
        }
        Found { layer, dir, leaf: leaf.to_vec(), stat }
    }

    fn open(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Errno> {
        match &self.unlocked {
            Some(unlocked) => unlocked.open(dir.as_fd(), name, path),
            None => open_beneath(dir, name, OFlags::RDONLY | OFlags::DIRECTORY),
        }
    }

    /// The status of a name in the directory at `parent`.
    fn stat_in(&self, dir: &OwnedFd, name: &[u8], parent: &[u8]) -> Result<Option<Stat>, Error> {
        let stat = || match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some),
        };
        let found = match &self.unlocked {
            Some(unlocked) => unlocked.within(dir.as_fd(), parent, stat),
            None => stat(),
        };
        found.map_err(fail("newfstatat", name))
    }

    fn is_whiteout(&self, dir: &OwnedFd, name: &[u8]) -> Result<bool, Error> {
        let Some(form) = self.form else { return Ok(false) };
        is_whiteout(dir, OsStr::from_bytes(name), form).map_err(|e| Error::from_unionfs(&e))
    }

    fn is_opaque(&self, dir: &OwnedFd) -> Result<bool, Error> {
        let Some(form) = self.form else { return Ok(false) };
        is_opaque(dir.as_fd(), form).map_err(|e| Error::from_unionfs(&e))
    }
}
