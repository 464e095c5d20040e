//! The one error of this crate.

use crate::Step;
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;

/// Why a sandbox could not be prepared, spawned, waited for or signalled.
///
/// Reads like `start the program: execve("/bin/nope"): No such file or directory (os error 2)`. Nothing is left of
/// a spawn that failed: no process, no descriptor.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

/// What sort of failure an [`Error`] is, for a caller that wants to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The sandbox or its descriptors make no sense as given; found before anything was done.
    InvalidConfig,
    /// The program, the interpreter that it names, a directory or the cgroup is missing (`ENOENT`, `ENOTDIR`, of a cgroup `ENODEV`).
    NotFound,
    /// Not allowed (`EPERM`, `EACCES`, or what `newuidmap(1)` said); for a program: not executable.
    PermissionDenied,
    /// The kernel lacks or has switched off what is asked for (`ENOSYS`, `EINVAL` of clone3, `EOPNOTSUPP`, `ENODEV`).
    Unsupported,
    /// Somebody else is in the way (`EBUSY`): a cgroup that has controllers on for its children takes no process; a file that is
    /// renamed again and again cannot be opened (`EAGAIN`).
    Busy,
    /// A limit is reached: processes, namespaces, descriptors, memory (`EAGAIN`, `ENOSPC`, `EUSERS`, `EMFILE`, `ENFILE`, `ENOMEM`).
    LimitReached,
    /// The child was killed before the program started; [`Error::signal`] says by what.
    Killed,
    /// Somebody else has released it before: see [`Release`](crate::Release).
    AlreadyReleased,
    /// A hook ended with another status than 0.
    HookFailed,
    /// A hook, or a [join](crate::Join::timeout), took longer than it may.
    TimedOut,
    /// Somebody else has taken the exit status: a foreign `waitpid(2)`, or `SIGCHLD` is ignored.
    StatusLost,
    /// The process has ended and been waited for, or the one that was to be joined has ended (`ESRCH`).
    NoSuchProcess,
    /// Anything else; [`Error::raw_os_error`] says what.
    Os,
}

#[derive(Debug)]
struct Repr {
    kind: ErrorKind,
    step: Step,
    call: Option<&'static str>,
    object: Option<OsString>,
    cause: Cause,
    /// What the kernel says in words.
    said: Option<Box<str>>,
    /// What the errno does not say.
    hint: Option<&'static str>,
}

#[derive(Debug)]
enum Cause {
    Errno(i32),
    Signal(i32),
    Words(Cow<'static, str>),
    /// What another process has met: its errno if there was one, and all of its error in words.
    Told(Option<i32>, Box<str>),
}

impl Error {
    pub(crate) fn config(object: impl Into<OsString>, words: &'static str) -> Self {
        Self::words(ErrorKind::InvalidConfig, Step::Configure, object, words)
    }

    /// What no errno says.
    pub(crate) fn words(
        kind: ErrorKind,
        step: Step,
        object: impl Into<OsString>,
        words: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(kind, step, None, Cause::Words(words.into())).about(object)
    }

    pub(crate) fn os(step: Step, call: &'static str, errno: i32) -> Self {
        Self::new(kind_of(step, call, errno), step, Some(call), Cause::Errno(errno))
    }

    pub(crate) fn told(kind: ErrorKind, step: Step, errno: Option<i32>, words: impl Into<Box<str>>) -> Self {
        Self::new(kind, step, None, Cause::Told(errno, words.into()))
    }

    pub(crate) fn killed(step: Step, signal: i32) -> Self {
        Self::new(ErrorKind::Killed, step, None, Cause::Signal(signal))
    }

    pub(crate) fn status_lost() -> Self {
        let mut error = Self::os(Step::Wait, "waitid", libc::ECHILD);
        error.0.kind = ErrorKind::StatusLost;
        error
    }

    pub(crate) fn about(mut self, object: impl Into<OsString>) -> Self {
        self.0.object = Some(object.into());
        self
    }

    /// With the kernel's own words: messages as they are read from a file system's context, "e proc: Unknown parameter 'x'".
    pub(crate) fn saying(mut self, messages: &[u8]) -> Self {
        let text = String::from_utf8_lossy(messages);
        let lines = text.lines().map(|line| line.split_once(' ').map_or(line, |(_, words)| words));
        let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        self.0.said = (!text.is_empty()).then(|| text.into());
        self
    }

    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn hinting(mut self, words: &'static str) -> Self {
        self.0.hint = Some(words);
        self
    }

    fn new(kind: ErrorKind, step: Step, call: Option<&'static str>, cause: Cause) -> Self {
        Error(Box::new(Repr { kind, step, call, object: None, cause, said: None, hint: None }))
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The step that failed.
    #[must_use]
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// The system call that failed, if one did.
    #[must_use]
    pub fn system_call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// What the step was about: a path, a name, a stream.
    #[must_use]
    pub fn object(&self) -> Option<&OsStr> {
        self.0.object.as_deref()
    }

    /// The errno of the system call that failed.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Errno(errno) => Some(errno),
            Cause::Told(errno, _) => errno,
            _ => None,
        }
    }

    /// What the kernel said about it in words: the log of a file system's context, `fsopen(2)`.
    #[must_use]
    #[doc(alias = "fs_context log")]
    pub fn kernel_text(&self) -> Option<&str> {
        self.0.said.as_deref()
    }

    /// What the errno does not say, where Linux is known to be unclear: which switch of the administrator forbids user namespaces, what a mount in
    /// one needs. For a human; the words may change. They are part of what the error displays.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.0.hint
    }

    /// The signal that killed the child before the program started ([`ErrorKind::Killed`]).
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Signal(signal) => Some(signal),
            _ => None,
        }
    }
}

/// Puts the errno of an [`Error`] into an [`io::Error`]'s kind, for callers that speak `io::Result`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno).kind(),
            None => match error.kind() {
                ErrorKind::InvalidConfig => io::ErrorKind::InvalidInput,
                ErrorKind::TimedOut => io::ErrorKind::TimedOut,
                _ => io::ErrorKind::Other,
            },
        };
        io::Error::new(kind, error)
    }
}

fn kind_of(step: Step, call: &str, errno: i32) -> ErrorKind {
    match errno {
        // clone3 of a kernel that does not know a flag or has no such namespace; close_range of one that can only close.
        libc::EINVAL if step == Step::Clone || call == "close_range" => ErrorKind::Unsupported,
        libc::E2BIG if call == "clone3" => ErrorKind::Unsupported,
        // A cgroup that has been deleted.
        libc::ENODEV if matches!(step, Step::Clone | Step::Cgroup) => ErrorKind::NotFound,
        libc::EAGAIN if call == "openat2" => ErrorKind::Busy,
        libc::EBUSY => ErrorKind::Busy,
        libc::ENOENT | libc::ENOTDIR => ErrorKind::NotFound,
        libc::EPERM | libc::EACCES => ErrorKind::PermissionDenied,
        libc::ENOSYS | libc::EOPNOTSUPP | libc::ENODEV => ErrorKind::Unsupported,
        libc::EAGAIN | libc::ENOSPC | libc::EUSERS | libc::EMFILE | libc::ENFILE | libc::ENOMEM => {
            ErrorKind::LimitReached
        }
        libc::ESRCH => ErrorKind::NoSuchProcess,
        _ => ErrorKind::Os,
    }
}

impl std::error::Error for Repr {}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        match (self.call, &self.object) {
            (Some(call), Some(object)) => write!(f, "{call}({object:?}): ")?,
            (Some(call), None) => write!(f, "{call}: ")?,
            (None, Some(object)) => write!(f, "{}: ", object.display())?,
            (None, None) => {}
        }
        match &self.cause {
            Cause::Errno(errno) => io::Error::from_raw_os_error(*errno).fmt(f),
            Cause::Signal(signal) => write!(f, "the child was killed by signal {signal}"),
            Cause::Words(words) => f.write_str(words),
            Cause::Told(_, words) => f.write_str(words),
        }?;
        match &self.said {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_step_call_object_errno() {
        let error = Error::os(Step::Exec, "execve", libc::ENOENT).about("/bin/nope");
        assert_eq!(
            error.to_string(),
            "start the program: execve(\"/bin/nope\"): No such file or directory (os error 2)"
        );
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotFound, Some(libc::ENOENT)));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_kernels_words_come_last() {
        let error = |said: &[u8]| Error::os(Step::Mount, "fsconfig", libc::EINVAL).about("/tmp").saying(said);
        let start = "mount: fsconfig(\"/tmp\"): Invalid argument (os error 22)";
        assert_eq!(error(b"").to_string(), start);
        let said = error(b"e tmpfs: Bad value for 'size'\n");
        assert_eq!(said.to_string(), format!("{start}: tmpfs: Bad value for 'size'"));
        assert_eq!(said.kernel_text(), Some("tmpfs: Bad value for 'size'"));
    }

    #[test]
    fn every_cause_has_its_accessor() {
        let killed = Error::killed(Step::Mount, libc::SIGKILL);
        assert_eq!((killed.signal(), killed.raw_os_error()), (Some(libc::SIGKILL), None));
        assert_eq!(killed.to_string(), "mount: the child was killed by signal 9");
        let config = Error::config("hostname", "is longer than 64 bytes");
        assert_eq!(config.to_string(), "check the configuration: hostname: is longer than 64 bytes");
        assert_eq!(Error::status_lost().kind(), ErrorKind::StatusLost);
    }
}
