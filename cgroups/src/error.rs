//! The one error of the crate.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The result of everything in this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// What went wrong, on which file, and the kernel's answer.
///
/// Its text is one line, for example
/// `write "max 100000" to /sys/fs/cgroup/job/cpu.max: Permission denied (os error 13)`.
#[derive(Clone, thiserror::Error)]
#[error("{0}")]
pub struct Error(Box<Inner>);

/// The kind of an [`Error`], for a program to act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value or a name given by the caller is not acceptable. Nothing was touched.
    InvalidInput,
    /// The cgroup does not exist, or no longer.
    Gone,
    /// There is no such process, or no longer.
    NoProcess,
    /// A cgroup of that name exists already.
    AlreadyExists,
    /// The kernel refuses: a missing right, or a file system that is mounted read-only.
    PermissionDenied,
    /// The controller is not mounted, or not available at that place.
    ControllerUnavailable,
    /// The cgroup has processes of its own, so that controllers cannot be enabled for its children (v2).
    Occupied,
    /// The cgroup is still in use: processes are in it, or leaving it takes longer than we wait; or it uses more memory
    /// than it is to be limited to, and the kernel could not take that away (v1).
    Busy,
    /// The deadline has passed.
    TimedOut,
    /// The kernel, or this kind of cgroup, cannot do that.
    Unsupported,
    /// No usable cgroup file system is mounted.
    NoCgroups,
    /// The kernel's text is not what it is documented to be.
    Malformed,
    /// Another error of the operating system, see [`Error::raw_os_error`].
    Os,
}

impl ErrorKind {
    fn text(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "not acceptable",
            ErrorKind::Gone => "no such cgroup",
            ErrorKind::NoProcess => "no such process",
            ErrorKind::AlreadyExists => "exists already",
            ErrorKind::PermissionDenied => "permission denied",
            ErrorKind::ControllerUnavailable => "controller not available here",
            ErrorKind::Occupied => "the cgroup has processes of its own",
            ErrorKind::Busy => "in use",
            ErrorKind::TimedOut => "deadline passed",
            ErrorKind::Unsupported => "not supported",
            ErrorKind::NoCgroups => "no usable cgroup file system is mounted",
            ErrorKind::Malformed => "unexpected text from the kernel",
            ErrorKind::Os => "operating system error",
        }
    }

    fn of(errno: Errno) -> Self {
        match errno {
            // A file of a cgroup that has been removed answers with either, also in the middle of a walk.
            Errno::NOENT | Errno::NODEV => ErrorKind::Gone,
            Errno::SRCH => ErrorKind::NoProcess,
            Errno::EXIST => ErrorKind::AlreadyExists,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::PermissionDenied,
            Errno::BUSY => ErrorKind::Busy,
            Errno::OPNOTSUPP | Errno::NOSYS => ErrorKind::Unsupported,
            _ => ErrorKind::Os,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What was being done. The text of each is what [`Error::operation`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Attach,
    #[cfg(feature = "systemd")]
    Connect,
    Open,
    Read,
    Write,
    List,
    Create,
    Remove,
    Enable,
    Find,
    Check,
    Freeze,
    Give,
    Kill,
    Reclaim,
    Schedule,
    #[cfg(feature = "systemd")]
    Start,
    #[cfg(feature = "systemd")]
    Stop,
    Wait,
    Watch,
    Duplicate,
}

impl Op {
    fn text(self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Read => "read",
            Op::Write => "write",
            Op::List => "list",
            Op::Create => "create cgroup",
            Op::Remove => "remove cgroup",
            Op::Enable => "enable controller",
            Op::Find => "find controller",
            Op::Check => "check",
            Op::Attach => "attach a program to",
            Op::Freeze => "freeze or thaw",
            Op::Give => "give to a user",
            Op::Kill => "kill",
            Op::Reclaim => "reclaim memory",
            #[cfg(feature = "systemd")]
            Op::Connect => "connect to",
            #[cfg(feature = "systemd")]
            Op::Start => "start unit",
            #[cfg(feature = "systemd")]
            Op::Stop => "stop unit",
            Op::Schedule => "set affinity of a process",
            Op::Wait => "wait for event",
            Op::Watch => "watch",
            Op::Duplicate => "duplicate descriptor of",
        }
    }

    /// Stands between the value and the path.
    fn preposition(self) -> &'static str {
        match self {
            Op::Write => " to ",
            Op::Check => " for ",
            _ => " in ",
        }
    }
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    op: Op,
    value: Option<String>,
    path: PathBuf,
    errno: Option<Errno>,
    note: Option<Cow<'static, str>>,
}

impl Error {
    /// An error that we found out ourselves.
    pub(crate) fn new(kind: ErrorKind, op: Op, path: impl Into<PathBuf>) -> Self {
        Error(Box::new(Inner { kind, op, value: None, path: path.into(), errno: None, note: None }))
    }

    /// An error that the kernel returned.
    pub(crate) fn os(errno: Errno, op: Op, path: impl Into<PathBuf>) -> Self {
        let mut error = Error::new(ErrorKind::of(errno), op, path);
        error.0.errno = Some(errno);
        error
    }

    /// A value that the caller gave and that is refused.
    pub(crate) fn invalid(value: impl Into<String>, path: &str, note: &'static str) -> Self {
        Error::new(ErrorKind::InvalidInput, Op::Check, path).with_value(value).with_note(note)
    }

    pub(crate) fn with_value(mut self, value: impl Into<String>) -> Self {
        self.0.value = Some(value.into());
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Says in words what is missing.
    pub(crate) fn with_note(mut self, note: impl Into<Cow<'static, str>>) -> Self {
        self.0.note = Some(note.into());
        self
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    /// Whether the cgroup, or one of its files, is not there.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.kind == ErrorKind::Gone
    }

    /// The kind, for a program to act upon.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done: `open`, `write`, `create cgroup`, …
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.op.text()
    }

    /// The file or directory concerned, as a human would write it. For an unacceptable value, the name of the
    /// setting that it was given for.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The kernel's error number, where the kernel refused: `errno(3)`.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.0.errno.map(Errno::raw_os_error)
    }
}

/// For what would have removed, killed or thawed the cgroup anyway.
pub(crate) fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_gone() => Ok(()),
        result => result,
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.text())?;
        match &self.value {
            Some(value) => write!(f, " \"{}\"{}", value.escape_debug(), self.op.preposition())?,
            None => f.write_str(" ")?,
        }
        write!(f, "{}: ", self.path.display())?;
        match self.errno {
            Some(errno) => write!(f, "{}", std::io::Error::from(errno))?,
            None => f.write_str(self.kind.text())?,
        }
        match &self.note {
            Some(note) => write!(f, "; {note}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What `unwrap` and `main` print should be readable, and hold all that there is.
        write!(f, "{:?}: {}", self.0.kind, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_operation_object_and_errno() {
        let error = Error::os(Errno::ACCESS, Op::Write, "/sys/fs/cgroup/x/cpu.max").with_value("max 100000");
        assert_eq!(
            error.to_string(),
            "write \"max 100000\" to /sys/fs/cgroup/x/cpu.max: Permission denied (os error 13)"
        );
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.operation(), "write");
        assert_eq!(error.path(), Path::new("/sys/fs/cgroup/x/cpu.max"));
        assert_eq!(error.raw_os_error(), Some(13));
    }

    #[test]
    fn a_refused_value_has_no_errno() {
        let error = Error::invalid("0", "cpu period", "1 ms to 1 s");
        assert_eq!(error.to_string(), "check \"0\" for cpu period: not acceptable; 1 ms to 1 s");
        assert_eq!(error.raw_os_error(), None);
    }

    #[test]
    fn a_value_cannot_break_the_line() {
        let error = Error::invalid("a\nb", "name", "a plain file name");
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn absent_and_removed_are_both_gone() {
        for errno in [Errno::NOENT, Errno::NODEV] {
            assert!(Error::os(errno, Op::Read, "x").is_gone());
        }
    }
}
