//! The clone itself, and who was born.

use super::interpreter::{Frame, child};
use super::process::is_child;
use super::raw::{Entry, clone, errno_of};
use super::stack::Stack;
use crate::Engine;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

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

/// The number of a pidfd's process, where clone(2) could not tell it; 0 if it has none (any more). Nothing if it is no pidfd, or there is no `/proc`.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    Some(pid.trim().parse().unwrap_or(0))
}

/// Where a child is born.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World<'a> {
    /// The bits of its new namespaces.
    pub(crate) namespaces: u64,
    /// The directory of its version 2 cgroup.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Whether clone3(2) is missing. Then there can be no cgroup.
    pub(crate) by_old_clone: bool,
}

impl World<'_> {
    /// The caller's own.
    pub(super) const OURS: Self = World { namespaces: 0, cgroup: None, by_old_clone: false };
}

impl CloneArgs {
    /// Without a stack the child goes on where the caller is on its own, as with `vfork(2)`.
    pub(super) fn new(flags: u64, world: World<'_>, stack: Option<&Stack>, birth: &Birth) -> Self {
        birth.by_old_clone.store(world.by_old_clone.into(), Relaxed);
        let into = if world.cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        CloneArgs {
            flags: flags | world.namespaces | into | ALWAYS,
            pidfd: birth.pidfd.as_ptr().expose_provenance() as u64,
            parent_tid: birth.pid.as_ptr().expose_provenance() as u64,
            stack: stack.map_or(0, |stack| stack.bottom() as u64),
            stack_size: stack.map_or(0, |stack| stack.size as u64),
            cgroup: world.cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
            ..CloneArgs::default()
        }
    }

    /// By clone3(2), or `by_old_clone`.
    ///
    /// # Safety
    /// As [`clone`]: the flags, and what the stack is used for.
    pub(super) unsafe fn clone(&self, by_old_clone: bool, entry: Entry, data: *mut libc::c_void) -> i64 {
        if by_old_clone {
            // It tells the pidfd where clone3 tells the pid, and knows only the flags of the first 32 bits; the handlers are reset by the child.
            let flags = self.flags & !(CLONE_CLEAR_SIGHAND | libc::CLONE_PARENT_SETTID as u64);
            // SAFETY: the caller vouches for it.
            return unsafe { clone(libc::SYS_clone, [flags, self.stack + self.stack_size, self.pidfd], entry, data) };
        }
        let (args, size) = ((&raw const *self).expose_provenance() as u64, size_of::<CloneArgs>() as u64);
        // SAFETY: the caller vouches for it.
        unsafe { clone(libc::SYS_clone3, [args, size, 0], entry, data) }
    }
}

/// With a pidfd; without the caller's signal handlers.
const ALWAYS: u64 = (libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64 | CLONE_CLEAR_SIGHAND;
/// The caller is suspended until the child has started its program or ended.
pub(super) const WAITED_FOR: u64 = libc::CLONE_VFORK as u64;
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
    /// Whether clone(2) was used, which does not note the pid.
    by_old_clone: AtomicI32,
    /// Whether the process runs that clones this child.
    between: AtomicI32,
}

impl Birth {
    pub(crate) fn new() -> Self {
        Birth {
            pid: AtomicI32::new(0),
            pidfd: AtomicI32::new(-1),
            by_old_clone: AtomicI32::new(0),
            between: AtomicI32::new(0),
        }
    }

    /// As new.
    pub(crate) fn clear(&self) {
        self.pid.store(0, Relaxed);
        self.pidfd.store(-1, Relaxed);
        self.between.store(0, Relaxed);
    }

    /// The process between has been born: it makes its first step.
    pub(super) fn begins(&self) {
        self.between.store(1, Release);
    }

    /// There is no child. The kernel may have noted a descriptor before it gave up, whose number is another's by now.
    pub(super) fn failed(&self, result: i64) -> i32 {
        self.pidfd.store(-1, Relaxed);
        errno_of(result)
    }

    /// The child, for the first who asks after it was born.
    pub(crate) fn take(&self) -> Option<Born> {
        let pidfd = self.pidfd.swap(-1, Relaxed);
        // A clone that fails late has noted a descriptor that is another's by now; but not a pid.
        let born = self.pid.load(Relaxed) != 0 || self.by_old_clone.load(Relaxed) != 0;
        if pidfd < 0 || !born {
            return None;
        }
        // SAFETY: the kernel has opened this descriptor, CLOEXEC, and put it here, from where it is taken once.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let pid = match self.pid.load(Relaxed).cast_unsigned() {
            0 => pid_of(&pidfd).unwrap_or(0),
            pid => pid,
        };
        Some(Born { pid, pidfd: Arc::new(pidfd) })
    }

    /// Whether there is one to be taken, for who asks while the clone may still be going on. clone3(2) notes the pid last, when nothing can fail any more. clone(2) notes
    /// only a descriptor, and may fail yet: whose number is another's then. So it counts when the process itself has noted, with the `child` that it is to clone, that it runs.
    pub(crate) fn is_there(&self, child: &Birth) -> bool {
        self.pid.load(Acquire) != 0 || child.between.load(Acquire) != 0
    }

    /// As [`take`](Self::take), where who cloned was killed meanwhile. clone3(2) notes the pid of a child that there is; what clone(2) has noted may be another's by
    /// now, and counts only if it is a child of ours.
    pub(crate) fn take_known(&self) -> Option<Born> {
        let by_pid = self.pid.load(Relaxed) != 0;
        if !by_pid && !is_child(self.pidfd.load(Relaxed)) {
            self.pidfd.store(-1, Relaxed);
        }
        self.take()
    }
}

/// Clones with these namespaces and returns when the child has started its program or ended; `frame` tells which, `birth` who it is.
///
/// The child runs on the caller's stack, below what is in use: less than 2 KiB, and some more in a build without optimisation. A stack of its own would have to
/// be mapped, for which all threads of the caller have to wait for one another.
///
/// The child has no exit signal until it starts a program, so that a failed one neither raises SIGCHLD nor meets a foreign `waitpid(-1)`.
pub(crate) fn clone_and_run(engine: Engine, world: World<'_>, frame: &Frame<'_>, birth: &Birth) -> Result<(), i32> {
    let memory = match engine {
        Engine::Shared => IN_OUR_MEMORY,
        Engine::Copy => WAITED_FOR,
    };
    let args = CloneArgs::new(memory, world, None, birth);
    // SAFETY: CLONE_VFORK suspends this thread until the child has left this memory, so that `args`, `frame` and `birth` outlive it, and
    // nobody else uses the stack; a copy has copies of them. `child` never returns and keeps to the rules of this folder.
    let result = unsafe { args.clone(world.by_old_clone, child, std::ptr::from_ref(frame).cast_mut().cast()) };
    if result < 0 { Err(birth.failed(result)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::process::{own_pidfd, pidfd_of};
    use super::*;
    use std::fs::File;
    use std::os::fd::IntoRawFd;
    use std::process::Command;

    /// Noted by a clone(2) whose caller was killed: it may have failed late, and the number may be anybody's since.
    #[test]
    fn a_number_of_others_is_not_taken() {
        let noted = |number: i32| {
            let birth = Birth::new();
            birth.by_old_clone.store(1, Relaxed);
            birth.pidfd.store(number, Relaxed);
            birth
        };
        let others: [OwnedFd; 2] = [File::open("/dev/null").unwrap().into(), own_pidfd().unwrap()];
        for fd in others {
            let birth = noted(fd.as_raw_fd());
            assert!(birth.take_known().is_none() && birth.take().is_none());
            fd.try_clone().unwrap();
        }
        assert!(Birth::new().take_known().is_none());
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        // A child of ours may be another's too: whether it is this one only the process can say, as long as the clone may fail.
        let (own, inner) = (noted(pidfd_of(child.id()).unwrap().into_raw_fd()), Birth::new());
        assert!(!own.is_there(&inner));
        inner.begins();
        assert!(own.is_there(&inner));
        let born = own.take_known().unwrap();
        assert_eq!(born.pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
