//! The one error of this crate.

use crate::Operation;
use std::fmt;
use std::io;

/// Why a network, a namespace or an endpoint could not be made, found or removed.
///
/// Reads like `add an address: RTM_NEWADDR("ff02::1/64"): Cannot assign requested address (os error 99): ipv6: Invalid address`.
/// What the failed call had made is gone again, unless [`left_behind`](Error::left_behind) says otherwise.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

/// What sort of failure an [`Error`] is, for a caller that wants to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A spec makes no sense as given; found before anything was done.
    InvalidConfig,
    /// The process, the namespace, the network or its bridge is not there (any more).
    NotFound,
    /// The name is taken: by another endpoint with the same id, by another interface in the container (`EEXIST`).
    AlreadyExists,
    /// The link with the network's name is not ours: no bridge, or without our owner's tag. It was left as it is.
    Foreign,
    /// The network still has endpoints.
    InUse,
    /// The kernel does not accept a value (`EINVAL`, `ERANGE`, `EADDRNOTAVAIL`, …); [`Error::kernel_message`] tells more.
    Refused,
    /// Not allowed (`EPERM`, `EACCES`).
    PermissionDenied,
    /// The kernel lacks or has switched off what is asked for: bridges, veth, IPv6, pidfds.
    Unsupported,
    /// A limit is reached: namespaces, threads, descriptors, memory, ports of a bridge.
    LimitReached,
    /// The kernel's reply was lost, late, or made no sense; or a stored file did.
    Protocol,
    /// A stored file is in a form that only a later version of this crate knows. It was left as it is.
    UnknownVersion,
    /// Anything else; [`Error::raw_os_error`] says what.
    Os,
}

#[derive(Debug)]
struct Repr {
    kind: ErrorKind,
    operation: Operation,
    call: Option<&'static str>,
    object: Option<String>,
    cause: Cause,
    message: Option<String>,
    attribute: Option<&'static str>,
    left_behind: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Errno(i32),
    Words(&'static str),
}

impl Error {
    pub(crate) fn config(object: impl Into<String>, words: &'static str) -> Self {
        Self::words(ErrorKind::InvalidConfig, Operation::Configure, words).about(object)
    }

    pub(crate) fn words(kind: ErrorKind, operation: Operation, words: &'static str) -> Self {
        Self::new(kind, operation, None, Cause::Words(words))
    }

    pub(crate) fn os(operation: Operation, call: &'static str, errno: i32) -> Self {
        Self::new(kind_of(operation, errno), operation, Some(call), Cause::Errno(errno))
    }

    pub(crate) fn about(mut self, object: impl Into<String>) -> Self {
        self.0.object = Some(object.into());
        self
    }

    pub(crate) fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn with_message(mut self, message: Option<String>, attribute: Option<&'static str>) -> Self {
        self.0.message = message;
        self.0.attribute = attribute;
        self
    }

    pub(crate) fn leaving(mut self, link: impl Into<String>) -> Self {
        self.0.left_behind = Some(link.into());
        self
    }

    fn new(kind: ErrorKind, operation: Operation, call: Option<&'static str>, cause: Cause) -> Self {
        Error(Box::new(Repr {
            kind,
            operation,
            call,
            object: None,
            cause,
            message: None,
            attribute: None,
            left_behind: None,
        }))
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

    /// The system call or the netlink message (`RTM_NEWLINK`, …) that failed, if one did.
    #[must_use]
    pub fn call(&self) -> Option<&'static str> {
        self.0.call
    }

    /// What it was about: the name of a link, an address, a path, a field of a spec.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.0.object.as_deref()
    }

    /// The errno, if the kernel gave one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Errno(errno) => Some(errno),
            Cause::Words(_) => None,
        }
    }

    /// The kernel's own words about it, from netlink's extended acknowledgement. Newer kernels have more to say.
    #[must_use]
    #[doc(alias = "extack")]
    pub fn kernel_message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// The attribute that the kernel objects to, for example `IFLA_ADDRESS`.
    #[must_use]
    pub fn attribute(&self) -> Option<&str> {
        self.0.attribute
    }

    /// The link that is still there because undoing failed too.
    #[must_use]
    pub fn left_behind(&self) -> Option<&str> {
        self.0.left_behind.as_deref()
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

fn kind_of(operation: Operation, errno: i32) -> ErrorKind {
    match errno {
        // IPv6 is switched off in the namespace.
        libc::EACCES if matches!(operation, Operation::AddAddress | Operation::SetUpBridge) => ErrorKind::Unsupported,
        // setns of a descriptor that is no network namespace; a path that is none any more.
        libc::EINVAL if operation == Operation::OpenNamespace => ErrorKind::NotFound,
        libc::ENOENT | libc::ENOTDIR | libc::ESRCH | libc::ENODEV => ErrorKind::NotFound,
        libc::EEXIST => ErrorKind::AlreadyExists,
        libc::EPERM | libc::EACCES => ErrorKind::PermissionDenied,
        libc::ENOSYS | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT => {
            ErrorKind::Unsupported
        }
        libc::EAGAIN
        | libc::ENOSPC
        | libc::EUSERS
        | libc::EMFILE
        | libc::ENFILE
        | libc::ENOMEM
        | libc::EXFULL
        | libc::ENOBUFS => ErrorKind::LimitReached,
        libc::EINVAL | libc::ERANGE | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            ErrorKind::Refused
        }
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
            Cause::Errno(errno) => io::Error::from_raw_os_error(errno).fmt(f)?,
            Cause::Words(words) => f.write_str(words)?,
        }
        if let Some(message) = &self.message {
            write!(f, ": {}", message.escape_debug())?;
        }
        if let Some(attribute) = self.attribute {
            write!(f, " ({attribute})")?;
        }
        if let Some(link) = &self.left_behind {
            write!(f, "; undoing failed too, and left {link:?} behind")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_operation_call_object_errno_kernels_words() {
        let error = Error::os(Operation::AddAddress, "RTM_NEWADDR", libc::EADDRNOTAVAIL).about("ff02::1/64");
        let plain = "add an address: RTM_NEWADDR(\"ff02::1/64\"): Cannot assign requested address (os error 99)";
        assert_eq!(error.to_string(), plain);
        let error = error.with_message(Some("ipv6: Invalid address\n".into()), Some("IFA_LOCAL")).leaving("cd-x");
        let more = ": ipv6: Invalid address\\n (IFA_LOCAL); undoing failed too, and left \"cd-x\" behind";
        assert_eq!(error.to_string(), format!("{plain}{more}"));
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Refused, Some(libc::EADDRNOTAVAIL)));
        assert_eq!(error.left_behind(), Some("cd-x"));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn what_makes_no_sense_has_no_errno() {
        let error = Error::config("net\n", "is no name");
        assert_eq!(error.to_string(), "check the configuration: \"net\\n\": is no name");
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidConfig, None));
    }

    #[test]
    fn one_errno_can_mean_different_things() {
        let kind = |operation, errno| Error::os(operation, "x", errno).kind();
        assert_eq!(kind(Operation::AddAddress, libc::EACCES), ErrorKind::Unsupported);
        assert_eq!(kind(Operation::SetUpBridge, libc::EACCES), ErrorKind::Unsupported);
        assert_eq!(kind(Operation::SetUpBridge, libc::EPERM), ErrorKind::PermissionDenied);
        assert_eq!(kind(Operation::OpenSocket, libc::EACCES), ErrorKind::PermissionDenied);
        assert_eq!(kind(Operation::OpenNamespace, libc::EINVAL), ErrorKind::NotFound);
        assert_eq!(kind(Operation::CreatePair, libc::EINVAL), ErrorKind::Refused);
    }
}
