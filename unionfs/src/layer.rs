//! What a layer is given as, and the directory that it is once opened.

use crate::{Error, Form, Operation, is_opaque, sys};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory for an [`Overlay`](crate::Overlay): a path, opened at each mount, or a descriptor.
///
/// ```
/// use cofferdam_unionfs::Layer;
///
/// let by_path: Layer = "/var/lib/layers/debian".into();
/// let by_fd: Layer = std::fs::File::open("/")?.into();
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A relative path starts from the working directory at the time of the mount. A descriptor may be `O_PATH` or the root of a detached
/// mount (Linux 6.15 for overlays); it must belong to the caller's mount namespace.
#[derive(Debug, Clone)]
pub struct Layer {
    source: Source,
    /// `None`: to be found out.
    opaque_root: Option<bool>,
    /// The user namespace whose owners its files are to have.
    userns: Option<Arc<OwnedFd>>,
}

#[derive(Debug, Clone)]
enum Source {
    Path(PathBuf),
    /// Of whatever sort: opened anew, for reading, and only if it is a directory.
    Fd(Arc<OwnedFd>),
    /// A directory that this crate has opened for reading. It is used as it is.
    Ready(Arc<OwnedFd>),
}

/// A layer as it was given. What is given in the same way twice is one directory; what is not may be one all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Given<'a> {
    Path(&'a OsStr),
    Fd(i32),
}

/// Which directory it is, whatever its name: `st_dev` and `st_ino`.
pub(crate) type Identity = (u64, u64);

/// A layer's directory, open for reading: the kernel wants that (before Linux 6.15), and so do its attributes.
#[derive(Debug)]
pub(crate) struct OpenLayer<'a> {
    pub(crate) fd: OpenFd<'a>,
    pub(crate) opaque_root: Option<bool>,
    /// Whose owners its files are to have.
    pub(crate) userns: Option<BorrowedFd<'a>>,
    /// A mount of it with these owners: what is to be handed over then.
    pub(crate) idmapped: Option<OwnedFd>,
    /// For errors only.
    pub(crate) name: Cow<'a, OsStr>,
}

#[derive(Debug)]
pub(crate) enum OpenFd<'a> {
    Own(OwnedFd),
    Shared(BorrowedFd<'a>),
}

impl Layer {
    fn new(source: Source) -> Self {
        Layer { source, opaque_root: None, userns: None }
    }

    /// `fd` is a directory that is open for reading.
    pub(crate) fn ready(fd: &Arc<OwnedFd>) -> Self {
        Self::new(Source::Ready(Arc::clone(fd)))
    }

    /// Says whether the root of the layer is [opaque](crate::make_opaque), so that a mount need not ask: a system call less for each lower. Whoever
    /// made the layer knows; a [`StoredLayer`](crate::StoredLayer) says it by itself. If it is wrong, a mount shows too much or too little.
    #[must_use]
    pub fn root_is_opaque(mut self, opaque: bool) -> Self {
        self.opaque_root = Some(opaque);
        self
    }

    /// Shows the owners of its files as a user namespace maps them: what is 0 on the disk is what the namespace has for 0. So one copy of a layer serves many namespaces.
    ///
    /// For a lower only, and real root: whoever mounts needs `CAP_SYS_ADMIN` in the user namespace that owns the layer's file system, which must be one that can be idmapped. Linux 6.15 takes such
    /// a layer as it is; before that [`Fallbacks::ATTACH`](crate::Fallbacks::ATTACH) is needed, unless it is alone. What is written above belongs to whoever writes, and is not mapped.
    #[must_use]
    #[doc(alias("idmap", "MOUNT_ATTR_IDMAP"))]
    pub fn idmapped(mut self, userns: impl Into<OwnedFd>) -> Self {
        self.userns = Some(Arc::new(userns.into()));
        self
    }

    pub(crate) fn open(&self) -> Result<OpenLayer<'_>, Error> {
        let (base, path) = match &self.source {
            Source::Path(path) => (CWD, path.as_path()),
            Source::Fd(fd) => (fd.as_fd(), Path::new(".")),
            Source::Ready(fd) => return self.opened(OpenFd::Shared(fd.as_fd())),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(base, path, flags, Mode::empty());
        let fd = opened.map_err(|e| Error::os(Operation::OpenLayer, "openat", e).about(self.name()))?;
        self.opened(OpenFd::Own(fd))
    }

    fn opened<'a>(&'a self, fd: OpenFd<'a>) -> Result<OpenLayer<'a>, Error> {
        let userns = self.userns.as_ref().map(|userns| userns.as_fd());
        OpenLayer { fd, opaque_root: self.opaque_root, userns, idmapped: None, name: self.name() }.with_owners()
    }

    pub(crate) fn is_idmapped(&self) -> bool {
        self.userns.is_some()
    }

    pub(crate) fn given(&self) -> Given<'_> {
        match &self.source {
            Source::Path(path) => Given::Path(path.as_os_str()),
            Source::Fd(fd) | Source::Ready(fd) => Given::Fd(fd.as_raw_fd()),
        }
    }

    fn name(&self) -> Cow<'_, OsStr> {
        match &self.source {
            Source::Path(path) => path.as_os_str().into(),
            Source::Fd(fd) | Source::Ready(fd) => Cow::Owned(format!("descriptor {}", fd.as_raw_fd()).into()),
        }
    }
}

impl OpenLayer<'_> {
    /// What the kernel gets.
    pub(crate) fn handed_over(&self) -> BorrowedFd<'_> {
        self.idmapped.as_ref().map_or(self.as_fd(), AsFd::as_fd)
    }

    /// The directory as a mount of its own.
    pub(crate) fn as_mount(&self, operation: Operation) -> Result<OwnedFd, Error> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(self.as_fd(), "", flags).map_err(|e| Error::os(operation, "open_tree", e).about(&self.name))
    }

    /// The same, as a mount with other owners if that is wanted, attached nowhere.
    pub(crate) fn with_owners(mut self) -> Result<Self, Error> {
        if let Some(userns) = self.userns {
            let mount = self.as_mount(Operation::Idmap)?;
            sys::idmap(mount.as_fd(), userns)
                .map_err(|e| Error::os(Operation::Idmap, "mount_setattr", e).about(&self.name))?;
            self.idmapped = Some(mount);
        }
        Ok(self)
    }

    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        let stat = fstat(self).map_err(|e| Error::os(Operation::OpenLayer, "fstat", e).about(&self.name))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    pub(crate) fn is_opaque(&self, form: Form) -> Result<bool, Error> {
        match self.opaque_root {
            Some(opaque) => Ok(opaque),
            None => is_opaque(self, form).map_err(|e| e.about(&self.name)),
        }
    }
}

impl AsFd for OpenLayer<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            OpenFd::Own(fd) => fd.as_fd(),
            OpenFd::Shared(fd) => *fd,
        }
    }
}

impl From<PathBuf> for Layer {
    fn from(path: PathBuf) -> Self {
        Layer::new(Source::Path(path))
    }
}

impl From<&Path> for Layer {
    fn from(path: &Path) -> Self {
        path.to_path_buf().into()
    }
}

impl From<&PathBuf> for Layer {
    fn from(path: &PathBuf) -> Self {
        path.clone().into()
    }
}

impl From<&str> for Layer {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<OwnedFd> for Layer {
    fn from(fd: OwnedFd) -> Self {
        Layer::new(Source::Fd(Arc::new(fd)))
    }
}

impl From<File> for Layer {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}
