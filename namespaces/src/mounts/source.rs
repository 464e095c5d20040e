//! What is bound, as the caller sees it when the plan is made.

use super::remount::{mount_points, reserve};
use crate::bind::{Names, above_streams, path_of};
use crate::mount::{MountKind, Source};
use crate::program::Finding;
use crate::{Error, Root, Sandbox, Step};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// The root and, for each mount of the sandbox, what it binds.
pub(crate) struct Sources {
    pub(crate) root: Option<Found>,
    pub(crate) mounts: Vec<Option<Found>>,
    /// Whether the child is in a user namespace that is not the caller's.
    pub(crate) own_user: bool,
    /// The user namespace whose ids a mount has.
    pub(crate) ids: Vec<Option<RawFd>>,
    /// Kept open as long as the plan: another file cannot get their inode's number meanwhile.
    pub(crate) held: Vec<OwnedFd>,
    /// A number that is kept free, see `remount`.
    pub(super) spare: Option<RawFd>,
}

#[derive(Debug)]
pub(crate) enum Found {
    /// To be opened again by the child, in its own mount namespace: the kernel binds nothing from another one.
    Place(Place),
    /// A detached mount, which may cross from one mount namespace into another.
    Mount { fd: RawFd, directory: bool },
}

/// A file or directory, and where it was.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) directory: bool,
    device: u64,
    inode: u64,
    /// Whether something is mounted below it that comes with it, as far as that is looked for: where flags may be set by `remount`.
    pub(super) covered: bool,
}

impl Found {
    pub(crate) fn directory(&self) -> bool {
        match self {
            Found::Place(place) => place.directory,
            Found::Mount { directory, .. } => *directory,
        }
    }
}

impl Sources {
    pub(crate) fn look_up(sandbox: &Sandbox, names: &mut Names, own_user: bool) -> Result<Self, Error> {
        let held: Vec<OwnedFd> = reserve(sandbox)?.into_iter().collect();
        let spare = held.first().map(AsRawFd::as_raw_fd);
        let mut sources = Sources { own_user, root: None, mounts: Vec::new(), ids: Vec::new(), held, spare };
        sources.root = match &sandbox.root {
            Root::Host | Root::Empty => None,
            Root::Directory(path) => Some(sources.open(path)?),
            Root::Mount(name) => Some(Found::Mount { fd: names.number(name)?, directory: true }),
        };
        if let Some(Found::Place(Place { path, directory: false, .. })) = &sources.root {
            return Err(Error::config(format!("root {}", path.display()), "is not a directory"));
        }
        let points = if spare.is_some() { mount_points()? } else { Vec::new() };
        for mount in &sandbox.mounts {
            let mut found = match &mount.kind {
                MountKind::Bind(Source::Path(path)) => Some(sources.open(path)?),
                MountKind::Bind(Source::Fd(name)) => Some(Found::Place(Place::of(names.get(name)?)?)),
                MountKind::Bind(Source::Mount(name)) => {
                    let fd = names.get(name)?;
                    Some(Found::Mount { directory: is_directory(&stat(fd)?), fd: fd.as_raw_fd() })
                }
                _ => None,
            };
            if let Some(Found::Place(place)) = &mut found {
                let below = |point: &PathBuf| *point != place.path && point.starts_with(&place.path);
                place.covered = !mount.alone && points.iter().any(below);
            }
            sources.mounts.push(found);
            sources.ids.push(mount.ids.as_deref().map(|name| names.number(name)).transpose()?);
        }
        Ok(sources)
    }

    fn open(&mut self, path: &Path) -> Result<Found, Error> {
        let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::os(Step::Prepare, "openat", errno as i32).about(path))?;
        let fd = above_streams(fd).map_err(|errno| Error::os(Step::Prepare, "fcntl", errno).about(path))?;
        let place = Place::of(fd.as_fd())?;
        self.held.push(fd);
        Ok(Found::Place(place))
    }
}

impl Place {
    /// Its path is the kernel's, without links: what is resolved again has none.
    fn of(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let stat = stat(fd)?;
        let device = major(stat.st_dev) | minor(stat.st_dev) << 32;
        Ok(Place { path: path_of(fd), directory: is_directory(&stat), device, inode: stat.st_ino, covered: false })
    }

    /// What `statx(2)` says of it, and of nothing else.
    pub(crate) fn identity(&self) -> [Finding; 2] {
        [statx_word(INODE, u64::MAX, self.inode), statx_word(DEVICE, u64::MAX, self.device)]
    }
}

/// What `statx(2)` says of the null device: a character device with the numbers 1 and 3.
pub(crate) fn null_device() -> [Finding; 2] {
    let kind = u64::from(libc::S_IFMT) << 32;
    [statx_word(MODE, kind, u64::from(libc::S_IFCHR) << 32), statx_word(DEVICE_NUMBER, u64::MAX, 1 | 3 << 32)]
}

// The machine words of a struct statx.
const MODE: usize = 3;
const INODE: usize = 4;
const DEVICE_NUMBER: usize = 16;
const DEVICE: usize = 17;

fn statx_word(word: usize, mask: u64, value: u64) -> Finding {
    Finding { word, mask, value }
}

fn stat(fd: BorrowedFd<'_>) -> Result<FileStat, Error> {
    fstat(fd).map_err(|errno| Error::os(Step::Prepare, "fstat", errno as i32).about(path_of(fd)))
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}
