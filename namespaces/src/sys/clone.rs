//! The clone itself, and who was born.

use super::interpreter::{Frame, child};
use super::raw::{clone3, errno_of};
use super::stack::Stack;
use crate::Engine;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

/// Arguments of clone3(2), as of Linux 5.7.
#[repr(C, align(8))]
#[derive(Debug, Default)]
pub(super) struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// Without a stack the child goes on where the caller is on its own, as with `vfork(2)`.
    pub(super) fn new(flags: u64, cgroup: Option<BorrowedFd<'_>>, stack: Option<&Stack>, birth: &Birth) -> Self {
        let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        CloneArgs {
            flags: flags | into | ALWAYS,
            pidfd: birth.pidfd.as_ptr().expose_provenance() as u64,
            parent_tid: birth.pid.as_ptr().expose_provenance() as u64,
            stack: stack.map_or(0, |stack| stack.bottom() as u64),
            stack_size: stack.map_or(0, |stack| stack.size as u64),
            cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
            ..CloneArgs::default()
        }
    }
}

/// With a pidfd; without the caller's signal handlers.
const ALWAYS: u64 = (libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64 | CLONE_CLEAR_SIGHAND;
/// The caller is suspended until the child has started its program or ended.
const WAITED_FOR: u64 = libc::CLONE_VFORK as u64;
/// In the caller's memory. Never without `CLONE_VFORK`: the kernel's OOM killer would take the caller for one of its victim's processes.
pub(super) const IN_OUR_MEMORY: u64 = libc::CLONE_VM as u64 | WAITED_FOR;
// libc's constants of these two are too narrow.
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A process just cloned.
#[derive(Debug, Clone)]
pub(crate) struct Born {
    pub(crate) pid: u32,
    pub(crate) pidfd: Arc<OwnedFd>,
}

/// Where the kernel notes the pid and the pidfd of the child, before the child makes its first step.
#[derive(Debug)]
pub(crate) struct Birth {
    pid: AtomicI32,
    pidfd: AtomicI32,
}

impl Birth {
    pub(crate) fn new() -> Self {
        Birth { pid: AtomicI32::new(0), pidfd: AtomicI32::new(-1) }
    }

    /// The child, for the first who asks after it was born.
    pub(crate) fn take(&self) -> Option<Born> {
        let pidfd = self.pidfd.swap(-1, Relaxed);
        if pidfd < 0 {
            return None;
        }
        // SAFETY: the kernel has opened this descriptor, CLOEXEC, and put it here, from where it is taken once.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Some(Born { pid: self.pid.load(Relaxed).cast_unsigned(), pidfd: Arc::new(pidfd) })
    }
}

/// Clones with these namespaces and returns when the child has started its program or ended; `frame` tells which, `birth` who it is.
///
/// The child runs on the caller's stack, below what is in use: less than 2 KiB, and some more in a build without optimisation. A stack of its own would have to
/// be mapped, for which all threads of the caller have to wait for one another.
///
/// The child has no exit signal until it starts a program, so that a failed one neither raises SIGCHLD nor meets a foreign `waitpid(-1)`.
pub(crate) fn clone_and_run(
    engine: Engine,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    frame: &Frame<'_>,
    birth: &Birth,
) -> Result<(), i32> {
    let memory = match engine {
        Engine::Shared => IN_OUR_MEMORY,
        Engine::Copy => WAITED_FOR,
    };
    let args = CloneArgs::new(namespaces | memory, cgroup, None, birth);
    // SAFETY: CLONE_VFORK suspends this thread until the child has left this memory, so that `args`, `frame` and `birth` outlive it, and
    // nobody else uses the stack; a copy has copies of them. `child` never returns and keeps to the rules of this folder.
    let result = unsafe { clone3(&raw const args, child, std::ptr::from_ref(frame).cast_mut().cast()) };
    if result < 0 { Err(errno_of(result)) } else { Ok(()) }
}
