//! The layers below, in overlay form: what is seen of them at a path.

use super::dirs::{is_directory, stat_in};
use super::links::{FileId, Groups};
use super::name::{components, split};
use super::resolve::Node;
use super::tree::fail;
use crate::layout::open_beneath;
use crate::{Error, Operation};
use cofferdam_unionfs::{Form, is_opaque, is_whiteout};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

#[derive(Debug)]
pub(super) struct Lowers {
    /// Topmost first.
    layers: Vec<OwnedFd>,
    /// These are all lowers: what is not in them is not there.
    complete: bool,
    /// How they say what they hide. `None`: this is a tree, that hides nothing.
    form: Option<Form>,
}

/// Something that one of the layers has.
#[derive(Debug)]
pub(super) struct Found {
    /// Which one, the topmost being 0.
    pub(super) layer: usize,
    pub(super) dir: OwnedFd,
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
        Lowers { layers: Vec::new(), complete: false, form: None }
    }

    /// A tree of files, as one lower.
    pub(super) fn tree(root: BorrowedFd<'_>) -> Result<Self, Error> {
        let mut tree = Self::new(&[root], Form::default())?;
        tree.form = None;
        Ok(tree)
    }

    /// All layers below, lowest first.
    pub(super) fn new(lowest_first: &[BorrowedFd<'_>], form: Form) -> Result<Self, Error> {
        let open = |fd: &BorrowedFd<'_>| open_beneath(fd, ".", OFlags::RDONLY | OFlags::DIRECTORY);
        let layers: Result<Vec<OwnedFd>, Errno> = lowest_first.iter().rev().map(open).collect();
        Ok(Lowers { layers: layers.map_err(fail("openat2", b"."))?, complete: true, form: Some(form) })
    }

    pub(super) fn complete(&self) -> bool {
        self.complete
    }

    /// What is seen at a path without symlinks, in the union of these layers.
    pub(super) fn look(&self, path: &[u8]) -> Result<Option<Found>, Error> {
        for (number, layer) in self.layers.iter().enumerate() {
            match self.ask(number, layer, path)? {
                Answer::Found(found) => return Ok(Some(found)),
                Answer::Missing { opaque: false } => {}
                Answer::Missing { opaque: true } | Answer::Hidden => return Ok(None),
            }
        }
        Ok(None)
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

    fn ask(&self, number: usize, layer: &OwnedFd, path: &[u8]) -> Result<Answer, Error> {
        let mut dir = layer.try_clone().map_err(|e| Error::from_io(Operation::Unpack, e))?;
        if path.is_empty() {
            let stat = statat(&dir, ".", AtFlags::SYMLINK_NOFOLLOW).map_err(fail("newfstatat", path))?;
            return Ok(Answer::Found(Found { layer: number, dir, leaf: b".".to_vec(), stat }));
        }
        let (parent, leaf) = split(path);
        let mut opaque = self.is_opaque(&dir)?;
        for component in components(parent).filter(|c| !c.is_empty()) {
            let Some(stat) = stat_in(dir.as_fd(), component)? else { return Ok(Answer::Missing { opaque }) };
            if !is_directory(&stat) {
                return Ok(Answer::Hidden);
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            dir = open_beneath(&dir, component, flags).map_err(fail("openat2", component))?;
            opaque |= self.is_opaque(&dir)?;
        }
        Ok(match stat_in(dir.as_fd(), leaf)? {
            None => Answer::Missing { opaque },
            Some(_) if self.is_whiteout(&dir, leaf)? => Answer::Hidden,
            Some(stat) => Answer::Found(Found { layer: number, dir, leaf: leaf.to_vec(), stat }),
        })
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
