//! The one error of this crate.

use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

/// Why a layer could not be marked, prepared, published or mounted.
///
/// Reads like `open a layer: openat("/layers/3"): No such file or directory (os error 2)`, followed by the kernel's own
/// words where it had some.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

/// What sort of failure an [`Error`] is, for a caller that wants to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was given makes no sense; found before anything was done.
    InvalidInput,
    /// A file or directory is missing, or is not a directory (`ENOENT`, `ENOTDIR`).
    NotFound,
    /// Something of that name exists (`EEXIST`).
    AlreadyExists,
    /// Not allowed, or read-only (`EPERM`, `EACCES`, `EROFS`).
    PermissionDenied,
    /// The kernel or the file system lacks what is needed (`ENOSYS`, `EOPNOTSUPP`, `ENODEV`; an overlay without `lowerdir+`).
    Unsupported,
    /// In use by another mount (`EBUSY`); of a layer, by an owner or another layer.
    Busy,
    /// One layer lies in another one, or upper and work are not side by side (`ELOOP` of the mount).
    Overlapping,
    /// A limit is reached: descriptors, memory, mounts, space (`EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`, `EDQUOT`).
    LimitReached,
    /// The writable layer has been mounted with `volatile`: after a crash it may be incomplete.
    Volatile,
    /// A file of a layer store's own is not as this crate has written it: see [`LayerStore::check`](crate::LayerStore::check).
    Corrupt,
    /// Anything else; [`Error::raw_os_error`] and [`Error::kernel_message`] say what.
    Os,
}

/// What was being done when an [`Error`] happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Reading a name: of an archive's entry, a layer, an owner.
    ParseName,
    /// Checking what was given. Nothing has been done yet.
    Check,
    /// Making or recognising a whiteout.
    Whiteout,
    /// Marking a directory as opaque, or looking whether it is.
    Opaque,
    /// Opening a layer.
    OpenLayer,
    /// Making the overlay: handing over layers and options, and creating the mount.
    Mount,
    /// Making a mount of a layer with other owners.
    Idmap,
    /// Making the read-only bind mount of a lower alone.
    Bind,
    /// Attaching a mount to the tree.
    Attach,
    /// Making or opening the directories of a writable layer.
    PrepareWritable,
    /// Removing a writable layer.
    RemoveWritable,
    /// Making or opening a layer store, and cleaning up in it.
    OpenStore,
    /// Looking for layers in a store.
    FindLayer,
    /// Making or removing a place for a layer that is to come.
    StageLayer,
    /// Publishing a layer, and waiting for the disk.
    Publish,
    /// Noting who needs a layer.
    Reference,
    /// Removing layers from a store.
    Collect,
    /// Looking whether a store is whole.
    CheckStore,
    /// Finding out what a layer changes.
    Diff,
    /// Looking for a file inside of a tree.
    InRoot,
    /// Adding up what a tree takes of the disk.
    MeasureUsage,
    /// Copying files.
    Copy,
    /// Making or finding the files of a container.
    PrepareContainer,
    /// Making a layer of what a container has changed.
    Commit,
    /// Removing the files of a container.
    Discard,
    /// Limiting what a container writes, or looking how it stands.
    LimitSpace,
}

impl Operation {
    fn words(self) -> &'static str {
        match self {
            Operation::ParseName => "read a name",
            Operation::Check => "check the overlay",
            Operation::Whiteout => "whiteout",
            Operation::Opaque => "opaque directory",
            Operation::OpenLayer => "open a layer",
            Operation::Mount => "mount the overlay",
            Operation::Idmap => "map the owners of a layer",
            Operation::Bind => "bind the only lower",
            Operation::Attach => "attach the mount",
            Operation::PrepareWritable => "prepare a writable layer",
            Operation::RemoveWritable => "remove a writable layer",
            Operation::OpenStore => "open the layer store",
            Operation::FindLayer => "find a layer",
            Operation::StageLayer => "stage a layer",
            Operation::Publish => "publish a layer",
            Operation::Reference => "note who needs a layer",
            Operation::Collect => "remove layers",
            Operation::CheckStore => "check the layer store",
            Operation::Diff => "find what has changed",
            Operation::InRoot => "look inside the root",
            Operation::MeasureUsage => "measure what a layer takes",
            Operation::Copy => "copy a file",
            Operation::PrepareContainer => "prepare a container",
            Operation::Commit => "commit a container",
            Operation::Discard => "discard a container",
            Operation::LimitSpace => "limit what a container writes",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

#[derive(Debug)]
struct Repr {
    kind: ErrorKind,
    operation: Operation,
    call: Option<&'static str>,
    object: Option<OsString>,
    cause: Cause,
    kernel: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Errno(Errno),
    Words(&'static str),
}

impl Error {
    pub(crate) fn invalid(operation: Operation, object: impl Into<OsString>, words: &'static str) -> Self {
        Self::new(ErrorKind::InvalidInput, operation, None, Cause::Words(words)).about(object)
    }

    pub(crate) fn os(operation: Operation, call: &'static str, errno: Errno) -> Self {
        Self::new(kind_of(operation, errno), operation, Some(call), Cause::Errno(errno))
    }

    /// What is found out after a system call has failed for a reason that its errno does not tell.
    pub(crate) fn explained(kind: ErrorKind, operation: Operation, words: &'static str) -> Self {
        Self::new(kind, operation, None, Cause::Words(words))
    }

    /// Of a file of the store's own.
    pub(crate) fn corrupt(operation: Operation, object: impl Into<OsString>, words: &'static str) -> Self {
        Self::explained(ErrorKind::Corrupt, operation, words).about(object)
    }

    pub(crate) fn with_kernel_message(mut self, message: Option<String>) -> Self {
        self.0.kernel = message;
        self
    }

    /// The same, as part of something larger.
    pub(crate) fn during(mut self, operation: Operation) -> Self {
        self.0.operation = operation;
        self
    }

    pub(crate) fn about(mut self, object: impl Into<OsString>) -> Self {
        self.0.object = Some(object.into());
        self
    }

    fn new(kind: ErrorKind, operation: Operation, call: Option<&'static str>, cause: Cause) -> Self {
        Error(Box::new(Repr { kind, operation, call, object: None, cause, kernel: None }))
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The system call that failed, if one did.
    #[must_use]
    pub fn system_call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// What it was about: a path, a name, an option.
    #[must_use]
    pub fn object(&self) -> Option<&OsStr> {
        self.0.object.as_deref()
    }

    /// The errno of the system call that failed.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Errno(errno) => Some(errno.raw_os_error()),
            Cause::Words(_) => None,
        }
    }

    /// What the kernel itself wrote about it: the messages of the file system context, one a line.
    #[must_use]
    pub fn kernel_message(&self) -> Option<&str> {
        self.0.kernel.as_deref()
    }
}

/// Puts the errno of an [`Error`] into an [`io::Error`]'s kind, for callers that speak `io::Result`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind =
            error.raw_os_error().map_or(io::ErrorKind::Other, |errno| io::Error::from_raw_os_error(errno).kind());
        io::Error::new(kind, error)
    }
}

fn kind_of(operation: Operation, errno: Errno) -> ErrorKind {
    match errno {
        Errno::LOOP if operation == Operation::Mount => ErrorKind::Overlapping,
        Errno::NOENT | Errno::NOTDIR => ErrorKind::NotFound,
        Errno::EXIST => ErrorKind::AlreadyExists,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV => ErrorKind::Unsupported,
        Errno::BUSY => ErrorKind::Busy,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC | Errno::DQUOT => ErrorKind::LimitReached,
        _ => ErrorKind::Os,
    }
}

impl std::error::Error for Repr {}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        match (self.call, &self.object) {
            (Some(call), Some(object)) => write!(f, "{call}({object:?}): ")?,
            (Some(call), None) => write!(f, "{call}: ")?,
            (None, Some(object)) => write!(f, "{object:?}: ")?,
            (None, None) => {}
        }
        match self.cause {
            Cause::Errno(errno) => io::Error::from(errno).fmt(f)?,
            Cause::Words(words) => f.write_str(words)?,
        }
        match &self.kernel {
            Some(message) => write!(f, "; the kernel says: {}", message.replace('\n', "; ")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_operation_call_object_errno() {
        let error = Error::os(Operation::OpenLayer, "openat", Errno::NOENT).about("/layers/3");
        assert_eq!(error.to_string(), "open a layer: openat(\"/layers/3\"): No such file or directory (os error 2)");
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotFound, Some(libc::ENOENT)));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_hostile_name_cannot_break_the_line() {
        let error = Error::invalid(Operation::ParseName, "a\nb\x1b", "contains a slash");
        assert_eq!(error.to_string(), "read a name: \"a\\nb\\u{1b}\": contains a slash");
    }
}
