//! Code of the caller's in a scope: see [`Scope::run`].

use super::clone::{Birth, CloneArgs, IN_OUR_MEMORY, World};
use super::interpreter::end;
use super::process::{Block, reap};
use super::raw::{errno_of, syscall6};
use super::signals::SignalMask;
use super::stack::Stack;
use crate::scope::{self, Running};
use crate::{Error, Scope, Step};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

impl Scope {
    /// Runs a closure in the scope, and returns what it returns.
    ///
    /// The closure is run by a process of its own, in this program's memory, with its descriptors and the calling thread's working
    /// directory, with all signals blocked. Its working directory, credentials and namespaces are its own. The calling thread and a helper thread
    /// wait; all others go on. A process that the closure spawns is a child of that process, not of this program: it must be waited for inside.
    /// If the program is killed, so is the closure's process.
    ///
    /// A panic of the closure goes on in the calling thread.
    ///
    /// # Errors
    /// [`Step::Scope`]: a namespace could not be joined, the working directory is not there, the process was killed, or 256 of them run at once (`EAGAIN`).
    ///
    /// # Safety
    /// The closure's process has this program's memory, and the rights of root in the scope.
    ///
    /// - Nothing that is not trusted may run in the scope's own user namespace: it could write this program's memory. A [`Sandbox`](crate::Sandbox) that is
    ///   spawned inside needs a user namespace of its own ([`Sandbox::user`](crate::Sandbox::user)), or is refused; start nothing untrusted
    ///   by other means.
    /// - The closure runs with the identity of a suspended thread: thread-locals and locks work, but the kernel knows another thread and process
    ///   id. It must not use locks that know their owner by thread id (`PTHREAD_PRIO_INHERIT`), allocators that use `rseq(2)` (the per-CPU mode of
    ///   `TCMalloc`), or change credentials (the dumpable flag belongs to the memory).
    /// - It must not leave a thread running that may hold a lock: all its threads end with it.
    /// - If its process is killed from outside ([`Killed`](crate::ErrorKind::Killed)), locks that it held stay locked, the allocator's among them: end the program
    ///   soon. Nothing but `SIGKILL` reaches it from outside; a stack overflow, which ends any program, does this too.
    ///
    /// Rust's own locks, channels, collections and files, the system's allocator, and the cofferdam crates are fine.
    pub unsafe fn run<R: Send>(&self, closure: impl FnOnce() -> R + Send) -> Result<R, Error> {
        let (mut closure, mut result) = (Some(closure), None);
        // A process that is killed may leave half a result: it counts when this has been set after it.
        let done = AtomicBool::new(false);
        let mut body = || {
            result = closure.take().map(|closure| catch_unwind(AssertUnwindSafe(|| crate::scope::inside(closure))));
            done.store(true, Release);
        };
        let ended = self.run_with(|namespaces, directory| {
            Errand { namespaces, directory, body: &mut body, failed: None, parent: std::process::id() }.run()
        });
        if !done.load(Acquire) {
            std::mem::forget(result);
            return Err(ended.err().unwrap_or_else(Error::status_lost));
        }
        match (ended, result) {
            (_, Some(Ok(result))) => Ok(result),
            (_, Some(Err(panic))) => resume_unwind(panic),
            (ended, None) => Err(ended.err().unwrap_or_else(Error::status_lost)),
        }
    }
}

/// Code of the caller's that a child runs in other namespaces, in the caller's memory and with its descriptors.
struct Errand<'a> {
    /// To be joined, in this order.
    namespaces: &'a [BorrowedFd<'a>],
    /// The working directory, which joining a mount namespace changes.
    directory: &'a CStr,
    /// Does not unwind, and does what [`Scope::run`] allows.
    body: &'a mut (dyn FnMut() + Send),
    /// The system call that failed before the body was run, and its errno.
    failed: Option<(&'static str, i32)>,
    /// This program's process id: whoever has another parent than that has lost it.
    parent: u32,
}

impl Errand<'_> {
    /// On a thread that can be suspended and then ends.
    fn run(&mut self) -> Result<(), Error> {
        let failed = |(call, errno)| Error::os(Step::Scope, call, errno);
        let _running = Running::new().ok_or_else(|| failed(("clone3", libc::EAGAIN)))?;
        SignalMask::ALL.set().map_err(|errno| failed(("rt_sigprocmask", errno)))?;
        let (stack, birth) = (Stack::map(Stack::LARGE).map_err(failed)?, Birth::new());
        let args = CloneArgs::new(libc::CLONE_FILES as u64 | IN_OUR_MEMORY, World::OURS, Some(&stack), &birth);
        // SAFETY: as in `clone_and_run`. This thread is suspended, so that the child can use its thread-locals: nobody else does.
        let result = unsafe { args.clone(false, run_errand, std::ptr::from_mut(self).cast()) };
        if result < 0 {
            return Err(failed(("clone3", errno_of(result))));
        }
        let born = birth.take().ok_or_else(Error::status_lost)?;
        let status = reap(born.pidfd.as_fd(), Block::Yes);
        scope::ended(born.pid);
        let status = status.map_err(|errno| failed(("waitid", errno)))?;
        match (self.failed, status.unwrap_or(0) & 0x7f) {
            (Some(call), _) => Err(failed(call)),
            (None, 0) => Ok(()),
            (None, signal) => Err(Error::killed(Step::Scope, signal)),
        }
    }
}

extern "C" fn run_errand(errand: *mut libc::c_void) -> ! {
    // SAFETY: `Errand::run` passes itself, and does not touch itself before this process has ended.
    let errand = unsafe { &mut *errand.cast::<Errand<'_>>() };
    let join = |fd: &BorrowedFd<'_>| ("setns", libc::SYS_setns, [u64::from(fd.as_raw_fd().cast_unsigned()), 0]);
    let directory = errand.directory.as_ptr().expose_provenance() as u64;
    let then = [
        ("chdir", libc::SYS_chdir, [directory, 0]),
        // Not before: joining a user namespace takes it back.
        ("prctl", libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]),
    ];
    for (name, number, [a, b]) in errand.namespaces.iter().map(join).chain(then) {
        // SAFETY: descriptors, numbers and a string that the errand keeps.
        let result = unsafe { syscall6(number, [a, b, 0, 0, 0, 0]) };
        if result < 0 {
            errand.failed = Some((name, errno_of(result)));
            end(127, [0; 2]);
        }
    }
    // SAFETY: no arguments.
    let parent = unsafe { syscall6(libc::SYS_getppid, [0; 6]) };
    if parent == i64::from(errand.parent) {
        (errand.body)();
    }
    end(127, [0; 2])
}
