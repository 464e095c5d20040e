//! The room that a container has: set up by one of the methods, found again, given up.

use super::{LimitMethod, Space, SpaceLimit, filesystem, image, project};
use crate::dir::Dir;
use crate::support::as_layer;
use crate::{AfterVolatile, Backend, Error, ErrorKind, Operation, Usage, WritableLayer};
use rustix::fs::{fstatvfs, syncfs};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What overlayfs needs for itself: the roots of upper and work, and what is in work.
const OWN_BYTES: u64 = 64 << 10;
const OWN_INODES: u64 = 8;

/// A limit by one method, as it is kept with the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) bytes: Option<u64>,
    pub(crate) inodes: Option<u64>,
    pub(crate) by: By,
}

/// What has to be known to find the limit again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The number of the project.
    Project(u32),
    Image,
    Tmpfs,
}

/// A limit that holds.
#[derive(Debug)]
pub(crate) struct Room {
    bounds: Bounds,
    /// The file system that is all the room there is. An overlay on it holds it, too.
    mount: Option<OwnedFd>,
}

impl Room {
    /// Sets up a limit by the first method that is possible. What `note` writes down is there before anything that outlives this process is done; it is called again
    /// if another method has to be tried.
    pub(crate) fn make(
        place: &Dir,
        limit: &SpaceLimit,
        backend: Backend,
        mut note: impl FnMut(&Bounds) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut reasons = Vec::new();
        let mut last = None;
        for method in &limit.methods {
            let made = Bounds::propose(place, limit, *method, backend).and_then(|bounds| {
                note(&bounds)?;
                Self::establish(place, bounds)
            });
            match made {
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                    reasons.push(format!("{}: {error}", method.name()));
                    last = Some(error);
                }
                result => return result,
            }
        }
        match (last, limit.methods.as_slice()) {
            (Some(error), [_]) => Err(error),
            (Some(_), _) => {
                let error = explained(ErrorKind::Unsupported, "no method is possible here").about(reasons.join("; "));
                Err(error)
            }
            (None, _) => Err(Error::invalid(Operation::LimitSpace, "methods", "there is none")),
        }
    }

    fn establish(place: &Dir, bounds: Bounds) -> Result<Self, Error> {
        let mount = match bounds.by {
            By::Project(_) => None,
            By::Image => {
                image::create(place, bounds.with_own())?;
                let mount = image::mount(place).and_then(taken);
                if mount.is_err() {
                    // The error that is told is the first one.
                    let _ = place.unlink(Operation::LimitSpace, image::NAME);
                }
                Some(mount?)
            }
            By::Tmpfs => Some(tmpfs(bounds.with_own())?),
        };
        Ok(Room { bounds, mount })
    }

    /// Finds the room of a container again. What was in memory is not there any more, and has to be [accepted](AfterVolatile::Accept) as empty; the answer is
    /// whether it is new.
    pub(crate) fn find(place: &Dir, bounds: Bounds, after: AfterVolatile) -> Result<(Self, bool), Error> {
        let (mount, new) = match bounds.by {
            By::Project(_) => (None, false),
            By::Image => (Some(image::mount(place)?), false),
            By::Tmpfs if after == AfterVolatile::Refuse => {
                let words = "what was written was in memory, and is gone with its process";
                return Err(explained(ErrorKind::Volatile, words).about(place.path()));
            }
            By::Tmpfs => (Some(tmpfs(bounds.with_own())?), true),
        };
        Ok((Room { bounds, mount }, new))
    }

    /// Where upper and work are to be, if not beside all else.
    pub(crate) fn directory(&self) -> Result<Option<Dir>, Error> {
        let open = |mount| crate::dir::open_directory(mount, ".").map_err(|e| failed("openat2", e));
        Ok(self.mount.as_ref().map(open).transpose()?.map(|fd| Dir::new(fd, self.bounds.by.method().name())))
    }

    /// Lets the limit hold for an upper and a work directory that are empty.
    pub(crate) fn limit_layer(&self, place: &Dir, writable: &WritableLayer) -> Result<(), Error> {
        let By::Project(id) = self.bounds.by else { return Ok(()) };
        project::join(writable.upper(), id)?;
        project::join(writable.work(), id)?;
        self.set(place, 0, 0)
    }

    /// Takes notice of all that will be in a directory that is empty; nothing is limited yet.
    pub(crate) fn watch(&self, directory: impl AsFd) -> Result<(), Error> {
        let By::Project(id) = self.bounds.by else { return Ok(()) };
        project::join(directory, id)
    }

    /// Lets the limit hold for what comes on top of what is there.
    pub(crate) fn limit_more(&self, place: &Dir) -> Result<(), Error> {
        let By::Project(id) = self.bounds.by else { return Ok(()) };
        let now = project::project(place.as_fd(), id)?;
        self.set(place, now.space, now.inodes)
    }

    fn set(&self, place: &Dir, bytes: u64, inodes: u64) -> Result<(), Error> {
        let By::Project(id) = self.bounds.by else { return Ok(()) };
        let limit = self.bounds.with_own();
        let bytes = limit.bytes.map_or(0, |limit| limit.saturating_add(bytes).div_ceil(1024));
        project::set(place, id, bytes, limit.inodes.map_or(0, |limit| limit.saturating_add(inodes)))
    }

    /// Waits until what is in a file system of its own is on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if self.bounds.by != By::Image {
            return Ok(());
        }
        // By its root: the mount itself is not open for anything.
        self.directory()?.map_or(Ok(()), |root| syncfs(root).map_err(|e| failed("syncfs", e)))
    }

    pub(crate) fn space(&self, place: BorrowedFd<'_>) -> Result<Space, Error> {
        let method = self.bounds.by.method();
        let limited = |limit: u64, asked: Option<u64>| asked.map(|_| limit);
        let (asked_bytes, asked_inodes) = (self.bounds.bytes, self.bounds.inodes);
        match (&self.mount, self.bounds.by) {
            (None, By::Project(id)) => {
                let project = project::project(place, id)?;
                let used = Usage { bytes: project.space, inodes: project.inodes };
                let bytes = limited(project.space_limit.saturating_mul(1024), asked_bytes);
                Ok(Space { method, used, bytes, inodes: limited(project.inode_limit, asked_inodes) })
            }
            (Some(mount), _) => {
                let fs = fstatvfs(mount).map_err(|e| failed("fstatfs", e))?;
                let bytes = |blocks: u64| blocks.saturating_mul(fs.f_frsize);
                let used = Usage {
                    bytes: bytes(fs.f_blocks.saturating_sub(fs.f_bfree)),
                    inodes: fs.f_files.saturating_sub(fs.f_ffree),
                };
                let inodes = limited(fs.f_files, asked_inodes);
                Ok(Space { method, used, bytes: limited(bytes(fs.f_blocks), asked_bytes), inodes })
            }
            (None, By::Image | By::Tmpfs) => Err(explained(ErrorKind::Os, "is not mounted").about(method.name())),
        }
    }
}

impl Bounds {
    /// What would be done by a method; nothing is.
    fn propose(place: &Dir, limit: &SpaceLimit, method: LimitMethod, backend: Backend) -> Result<Self, Error> {
        let by = match method {
            LimitMethod::Project => By::Project(project::free(place)?),
            _ if backend == Backend::Copy => {
                return Err(explained(ErrorKind::Unsupported, "a copy can be limited by a project only"));
            }
            LimitMethod::Image => By::Image,
            LimitMethod::Tmpfs => By::Tmpfs,
        };
        Ok(Bounds { bytes: limit.bytes, inodes: limit.inodes, by })
    }

    fn with_own(self) -> Self {
        let more = |limit: Option<u64>, own: u64| limit.map(|limit| limit.saturating_add(own));
        Bounds { bytes: more(self.bytes, OWN_BYTES), inodes: more(self.inodes, OWN_INODES), ..self }
    }

    /// Gives up what outlives the container, when what was written is deleted.
    pub(crate) fn give_up(self, place: impl AsFd) -> Result<(), Error> {
        match self.by {
            By::Project(id) => project::set(place, id, 0, 0),
            By::Image | By::Tmpfs => Ok(()),
        }
    }
}

impl By {
    fn method(self) -> LimitMethod {
        match self {
            By::Project(_) => LimitMethod::Project,
            By::Image => LimitMethod::Image,
            By::Tmpfs => LimitMethod::Tmpfs,
        }
    }
}

/// Memory as a file system that an overlay can be on.
fn tmpfs(bounds: Bounds) -> Result<OwnedFd, Error> {
    let mut options = vec![("mode", Some("0755".to_owned()))];
    options.extend(bounds.bytes.map(|bytes| ("size", Some(bytes.to_string()))));
    options.extend(bounds.inodes.map(|inodes| ("nr_inodes", Some(inodes.to_string()))));
    taken(filesystem::mount("tmpfs", &options)?)
}

/// A mount, if overlays can be on it.
fn taken(mount: OwnedFd) -> Result<OwnedFd, Error> {
    match as_layer(&mount).map_err(|e| e.during(Operation::LimitSpace))? {
        Ok(()) => Ok(mount),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF) => {
            let words = "this kernel has no overlays on what is mounted nowhere: Linux 6.15 has";
            Err(explained(ErrorKind::Unsupported, words))
        }
        Err(e) => Err(failed("fsconfig", e)),
    }
}

pub(super) fn failed(call: &'static str, errno: Errno) -> Error {
    Error::os(Operation::LimitSpace, call, errno)
}

pub(super) fn explained(kind: ErrorKind, words: &'static str) -> Error {
    Error::explained(kind, Operation::LimitSpace, words)
}
