//! The one error of this crate.

use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

/// Why an image could not be read, or a layer not be unpacked.
///
/// Reads like `unpack: layer 1: entry "a/b": openat2("a"): No such file or directory (os error 2)`: the operation, the layer,
/// the entry, what was done to what, and the reason. Names are quoted and escaped: an image chose them.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

/// What sort of failure an [`Error`] is, for a caller that wants to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What the caller gave makes no sense, for example a stage that is not empty; found before anything was done.
    InvalidInput,
    /// The layout, a blob, the image asked for, or the target of a hard link is missing (`ENOENT`, `ENOTDIR`).
    NotFound,
    /// Several images fit what was asked for.
    Ambiguous,
    /// The text of a digest, a JSON document or an archive is not well-formed.
    Malformed,
    /// A document or a layer is of another media type than it should be.
    MediaType,
    /// A size or digest is not the one that was promised, or the config does not have one `DiffID` for each layer.
    Mismatch,
    /// The compressed stream is damaged, cut off, or followed by something else.
    Corrupt,
    /// The archive is well-formed, but this entry must not be unpacked: it leads outside, or steers the overlay, or contradicts another entry.
    Refused,
    /// One of [`Limits`](crate::Limits) is exceeded, or a document is too large.
    LimitExceeded,
    /// Something that this version does not do, or that the kernel or the file system lacks.
    Unsupported,
    /// Not allowed, or read-only (`EPERM`, `EACCES`, `EROFS`).
    PermissionDenied,
    /// No space left (`ENOSPC`, `EDQUOT`), also no free inode.
    NoSpace,
    /// Somebody else changed the directory meanwhile: a name became something that it was not a moment ago.
    Interfered,
    /// The [`Observer`](crate::Observer) ended it, or another layer failed.
    Cancelled,
    /// Anything else; [`Error::raw_os_error`] says what.
    Os,
}

/// What was being done when an [`Error`] happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Reading the text of a [`Digest`](crate::Digest).
    ParseDigest,
    /// Opening the image's directory.
    OpenLayout,
    /// Reading an index, the outer or an inner one, and choosing from it.
    ReadIndex,
    /// Reading the manifest.
    ReadManifest,
    /// Reading the config.
    ReadConfig,
    /// Reading a layer: its blob, its compression.
    ReadLayer,
    /// Reading a layer's archive, and writing what it holds.
    Unpack,
    /// Making a layer of files.
    Commit,
    /// Writing an image to a layout or an archive.
    Write,
}

impl Operation {
    fn words(self) -> &'static str {
        match self {
            Operation::ParseDigest => "read a digest",
            Operation::OpenLayout => "open the image layout",
            Operation::ReadIndex => "read the index",
            Operation::ReadManifest => "read the manifest",
            Operation::ReadConfig => "read the config",
            Operation::ReadLayer => "read the layer",
            Operation::Unpack => "unpack",
            Operation::Commit => "make a layer",
            Operation::Write => "write the image",
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
    layer: Option<usize>,
    entry: Option<OsString>,
    call: Option<&'static str>,
    object: Option<OsString>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Errno(i32),
    Words(&'static str),
    /// A parser's or a reader's own message.
    Message(String),
    Differs {
        expected: String,
        found: String,
    },
    Limit {
        what: &'static str,
        limit: u64,
    },
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: Operation, words: &'static str) -> Self {
        Self::build(kind, operation, Cause::Words(words))
    }

    pub(crate) fn message(kind: ErrorKind, operation: Operation, message: String) -> Self {
        Self::build(kind, operation, Cause::Message(message))
    }

    pub(crate) fn differs(operation: Operation, expected: &impl ToString, found: &impl ToString) -> Self {
        let cause = Cause::Differs { expected: expected.to_string(), found: found.to_string() };
        Self::build(ErrorKind::Mismatch, operation, cause)
    }

    pub(crate) fn limit(operation: Operation, what: &'static str, limit: u64) -> Self {
        Self::build(ErrorKind::LimitExceeded, operation, Cause::Limit { what, limit })
    }

    pub(crate) fn os(operation: Operation, call: &'static str, errno: Errno) -> Self {
        let mut error = Self::build(kind_of(errno), operation, Cause::Errno(errno.raw_os_error()));
        error.0.call = Some(call);
        error
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, Operation::Unpack, "was cancelled")
    }

    /// An entry that must not be unpacked.
    pub(crate) fn refused(words: &'static str) -> Self {
        Self::new(ErrorKind::Refused, Operation::Unpack, words)
    }

    /// From an [`io::Error`], which is one of ours that went through a reader, or the reader's own.
    pub(crate) fn from_io(operation: Operation, error: io::Error) -> Self {
        if let Some(errno) = error.raw_os_error() {
            return Self::os(operation, "read", Errno::from_raw_os_error(errno));
        }
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Self::message(ErrorKind::Os, operation, error.to_string()),
        }
    }

    /// From the sister crate that knows how whiteouts look on disk.
    pub(crate) fn from_unionfs(error: &cofferdam_unionfs::Error) -> Self {
        match (error.raw_os_error(), error.system_call()) {
            (Some(errno), Some(call)) => Self::os(Operation::Unpack, call, Errno::from_raw_os_error(errno)),
            _ => Self::message(ErrorKind::Refused, Operation::Unpack, error.to_string()),
        }
    }

    /// From the sister crate's store or root directory.
    pub(crate) fn from_store(error: &cofferdam_unionfs::Error) -> Self {
        use cofferdam_unionfs::ErrorKind as Theirs;
        let mut own = Self::message(ErrorKind::Os, Operation::Unpack, error.to_string());
        own.set_kind(match (error.raw_os_error(), error.kind()) {
            (Some(errno), _) => kind_of(Errno::from_raw_os_error(errno)),
            (None, Theirs::NotFound) => ErrorKind::NotFound,
            (None, Theirs::InvalidInput) => ErrorKind::InvalidInput,
            (None, Theirs::LimitReached) => ErrorKind::LimitExceeded,
            (None, Theirs::Unsupported) => ErrorKind::Unsupported,
            (None, _) => ErrorKind::Os,
        });
        own
    }

    pub(crate) fn about(mut self, object: impl Into<OsString>) -> Self {
        self.0.object = Some(object.into());
        self
    }

    pub(crate) fn set_kind(&mut self, kind: ErrorKind) {
        self.0.kind = kind;
    }

    pub(crate) fn during(mut self, operation: Operation) -> Self {
        self.0.operation = operation;
        self
    }

    pub(crate) fn in_layer(mut self, layer: usize) -> Self {
        self.0.layer.get_or_insert(layer);
        self
    }

    pub(crate) fn at_entry(mut self, entry: &OsStr) -> Self {
        self.0.entry.get_or_insert_with(|| entry.to_owned());
        self
    }

    fn build(kind: ErrorKind, operation: Operation, cause: Cause) -> Self {
        Error(Box::new(Repr { kind, operation, layer: None, entry: None, call: None, object: None, cause }))
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

    /// The number of the layer in its image, 0 being the lowest.
    #[must_use]
    pub fn layer(&self) -> Option<usize> {
        self.0.layer
    }

    /// The name of the entry in the layer's archive, as it stands there. Do not print it as it is.
    #[must_use]
    pub fn entry(&self) -> Option<&OsStr> {
        self.0.entry.as_deref()
    }

    /// The system call that failed, if one did.
    #[must_use]
    pub fn system_call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// What the system call, or the reason, was about: a path, a blob's digest, an attribute.
    #[must_use]
    pub fn object(&self) -> Option<&OsStr> {
        self.0.object.as_deref()
    }

    /// The errno of the system call that failed.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Errno(errno) => Some(errno),
            _ => None,
        }
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

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ErrorKind::NotFound,
        Errno::PERM | Errno::ACCESS | Errno::ROFS => ErrorKind::PermissionDenied,
        Errno::NOSYS | Errno::OPNOTSUPP | Errno::NODEV => ErrorKind::Unsupported,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        // A symlink where a directory was, a rename that goes on and on.
        Errno::LOOP | Errno::AGAIN | Errno::EXIST | Errno::XDEV => ErrorKind::Interfered,
        _ => ErrorKind::Os,
    }
}

impl std::error::Error for Repr {}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation)?;
        if let Some(layer) = self.layer {
            write!(f, "layer {layer}: ")?;
        }
        if let Some(entry) = &self.entry {
            write!(f, "entry {entry:?}: ")?;
        }
        match (self.call, &self.object) {
            (Some(call), Some(object)) => write!(f, "{call}({object:?}): ")?,
            (Some(call), None) => write!(f, "{call}: ")?,
            (None, Some(object)) => write!(f, "{object:?}: ")?,
            (None, None) => {}
        }
        match &self.cause {
            Cause::Errno(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
            Cause::Words(words) => f.write_str(words),
            Cause::Message(message) => write!(f, "{}", message.escape_debug()),
            Cause::Differs { expected, found } => {
                write!(f, "expected {}, found {}", expected.escape_debug(), found.escape_debug())
            }
            Cause::Limit { what, limit } => write!(f, "more than {limit} {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_operation_layer_entry_call_object_errno() {
        let error = Error::os(Operation::Unpack, "openat2", Errno::LOOP).about("a");
        let error = error.at_entry(OsStr::new("a/\u{1b}b")).in_layer(1);
        assert_eq!(
            error.to_string(),
            "unpack: layer 1: entry \"a/\\u{1b}b\": openat2(\"a\"): Too many levels of symbolic links (os error 40)"
        );
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Interfered, Some(1)));
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn one_of_ours_comes_back_from_a_reader_as_it_was() {
        let ours = Error::limit(Operation::ReadLayer, "bytes", 7);
        let back = Error::from_io(Operation::Unpack, io::Error::from(ours));
        assert_eq!(back.to_string(), "read the layer: more than 7 bytes");
        let theirs = Error::from_io(Operation::Unpack, io::Error::other("the cable\nis cut"));
        assert_eq!(theirs.to_string(), "unpack: the cable\\nis cut");
    }

    #[test]
    fn what_was_said_first_about_where_stays() {
        let error = Error::refused("no").in_layer(1).in_layer(2).at_entry(OsStr::new("a")).at_entry(OsStr::new("b"));
        assert_eq!((error.layer(), error.entry()), (Some(1), Some(OsStr::new("a"))));
    }
}
