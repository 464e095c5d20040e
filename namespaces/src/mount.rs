//! What is mounted in a sandbox, as plain data.

use std::path::PathBuf;

/// Something to mount in the sandbox's mount namespace, on a directory given by an absolute path.
///
/// The path is resolved inside the sandbox's root. In a root of its own, a directory of the top level is made where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Mount {
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) target: PathBuf,
    pub(crate) kind: MountKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum MountKind {
    Proc,
    Dev,
}

impl Mount {
    /// A fresh `proc(5)` that shows the sandbox's own pid namespace; nosuid, nodev, noexec.
    ///
    /// Needs [`Namespaces::PID`](crate::Namespaces::PID). In a user namespace the kernel demands that the caller's own `/proc` has nothing mounted over its parts.
    #[must_use]
    pub fn proc(target: impl Into<PathBuf>) -> Self {
        Mount { target: target.into(), kind: MountKind::Proc }
    }

    /// A minimal `/dev`: null, zero, full, random, urandom and tty (in a user namespace, which may not make devices, the host's own), terminals (`pts`, `ptmx`) and shared memory (`shm`, at most
    /// 64 MiB) of the sandbox's own, and the links fd, stdin, stdout and stderr.
    #[must_use]
    pub fn dev(target: impl Into<PathBuf>) -> Self {
        Mount { target: target.into(), kind: MountKind::Dev }
    }
}
