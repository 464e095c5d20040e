//! What a layer is given as, and the directory that it is once opened.

use crate::{Error, Form, Operation, is_opaque};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use std::ffi::OsString;
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
pub struct Layer(Source);

#[derive(Debug, Clone)]
enum Source {
    Path(PathBuf),
    Fd(Arc<OwnedFd>),
}

/// Which directory it is, whatever its name: `st_dev` and `st_ino`.
pub(crate) type Identity = (u64, u64);

/// A layer's directory, open for reading: the kernel wants that (before Linux 6.15), and so do its attributes.
#[derive(Debug)]
pub(crate) struct OpenLayer {
    pub(crate) fd: OwnedFd,
    /// For errors only.
    pub(crate) name: OsString,
}

impl Layer {
    pub(crate) fn shared(fd: &Arc<OwnedFd>) -> Self {
        Layer(Source::Fd(Arc::clone(fd)))
    }

    pub(crate) fn open(&self) -> Result<OpenLayer, Error> {
        let (base, path) = match &self.0 {
            Source::Path(path) => (CWD, path.as_path()),
            Source::Fd(fd) => (fd.as_fd(), Path::new(".")),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(base, path, flags, Mode::empty());
        let fd = opened.map_err(|e| Error::os(Operation::OpenLayer, "openat", e).about(self.name()))?;
        Ok(OpenLayer { fd, name: self.name() })
    }

    fn name(&self) -> OsString {
        match &self.0 {
            Source::Path(path) => path.clone().into_os_string(),
            Source::Fd(fd) => format!("descriptor {}", fd.as_raw_fd()).into(),
        }
    }
}

impl OpenLayer {
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        let stat = fstat(&self.fd).map_err(|e| Error::os(Operation::OpenLayer, "fstat", e).about(&self.name))?;
        Ok((stat.st_dev, stat.st_ino))
    }

    pub(crate) fn is_opaque(&self, form: Form) -> Result<bool, Error> {
        is_opaque(&self.fd, form).map_err(|e| e.about(&self.name))
    }
}

impl AsFd for OpenLayer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<PathBuf> for Layer {
    fn from(path: PathBuf) -> Self {
        Layer(Source::Path(path))
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
        Layer(Source::Fd(Arc::new(fd)))
    }
}

impl From<File> for Layer {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}
