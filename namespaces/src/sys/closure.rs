//! Code of the caller's in a sandbox: see [`Plan::spawn_fn`].

use super::clone::{Birth, CloneArgs, World};
use super::interpreter::{Frame, end, follow};
use super::raw::{errno_of, syscall6};
use super::stack::Stack;
use crate::gate::Gate;
use crate::{Child, Error, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The exit code of a Rust program that panics.
const PANICKED: u8 = 101;

impl Plan {
    /// Runs a closure in the sandbox instead of its program, and returns as soon as the closure has begun.
    ///
    /// All steps are taken but the start of the program, which is not looked for: its name is for errors alone. The closure runs in a copy of this
    /// program ([`Engine::Copy`](crate::Engine::Copy)); what it changes in memory, nobody sees. Its process has the descriptors 0, 1 and 2 and no others: hand one
    /// in as a stream. What it returns is the exit code; a panic is code 101, after its message. Code that is run when a program ends, and
    /// what is still in the buffers of its output, is not: flush.
    ///
    /// A filter of system calls is in place before the closure begins: it must allow `sendto(2)`, `close(2)` and `exit_group(2)` too, by which this crate tells the caller and ends.
    ///
    /// Its end raises no `SIGCHLD`, and no foreign `waitpid(-1)` meets it: the [`Child`] tells. With [`die_with_parent`](crate::Sandbox::die_with_parent)
    /// it dies with the calling thread.
    ///
    /// ```no_run
    /// # use cofferdam_namespaces::{Error, Fds, Namespaces, Sandbox};
    /// let plan = Sandbox::new("worker").namespaces(Namespaces::NET | Namespaces::PID).prepare(Fds::new())?;
    /// let code = |found: bool| if found { 0 } else { 1 };
    /// // SAFETY: this program has one thread.
    /// let child = unsafe { plan.spawn_fn(|| code(std::path::Path::new("/etc/hostname").exists())) }?;
    /// assert_eq!(child.wait()?.code(), Some(0));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`spawn`](Plan::spawn); [`InvalidConfig`](crate::ErrorKind::InvalidConfig) where [`Engine::Shared`](crate::Engine::Shared) was asked for.
    ///
    /// # Safety
    /// As after `fork(2)`, of all threads there is only the calling one in the copy, and the others have left the memory in the middle of whatever they did.
    ///
    /// - If this program has other threads, the closure may only do what a signal handler may, `signal-safety(7)`: a lock that one of them held
    ///   stays locked for ever, the allocator's, that of standard output and that of a panic's message among them. So: no allocation, no
    ///   `println!`, no panic. (`fork(3)` of libc cares for the allocator; a clone with namespaces is no such fork.)
    /// - What the closure captures is dropped in the copy, and in this program too. What owns a descriptor (a `File`, a socket) must be neither
    ///   used nor dropped in the copy, where it is closed already: put it in a `ManuallyDrop`.
    /// - The copy has everything that this program has in memory, its secrets too. It is no place for code that is not trusted. If it crashes, or a filter kills it, all of
    ///   that is in its core dump, which may lie in the sandbox: [`Resource::Core`](crate::Resource::Core) limits that.
    #[doc(alias("fork", "pre_exec", "unshare", "clone"))]
    pub unsafe fn spawn_fn(&self, closure: impl FnOnce() -> u8) -> Result<Child, Error> {
        let mut closure = Some(closure);
        let mut body = || {
            let result = closure.take().map(|closure| catch_unwind(AssertUnwindSafe(closure)));
            match result {
                Some(Ok(code)) => code,
                // To drop what a panic carries may panic again.
                other => {
                    std::mem::forget(other);
                    PANICKED
                }
            }
        };
        crate::closure::spawn(&self.0, &mut body)
    }
}

/// What such a child does.
pub(crate) struct Task<'a> {
    pub(crate) frame: Frame<'a>,
    /// The number of the descriptor by which it says that it is there.
    gate: u64,
    /// Does not unwind.
    body: &'a mut dyn FnMut() -> u8,
}

impl<'a> Task<'a> {
    pub(crate) fn new(frame: Frame<'a>, gate: &Gate, body: &'a mut dyn FnMut() -> u8) -> Self {
        Task { frame, gate: u64::from(gate.number().cast_unsigned()), body }
    }
}

/// Clones with these namespaces, and returns at once. As [`clone_and_run`](super::clone::clone_and_run) otherwise.
pub(crate) fn clone_task(world: World<'_>, stack: &mut Stack, task: &mut Task<'_>, birth: &Birth) -> Result<(), i32> {
    let args = CloneArgs::new(0, world, Some(stack), birth);
    // SAFETY: without CLONE_VM the child has copies of `task` and of the stack; `run_task` never returns.
    let result = unsafe { args.clone(world.by_old_clone, run_task, std::ptr::from_mut(task).cast()) };
    if result < 0 { Err(errno_of(result)) } else { Ok(()) }
}

extern "C" fn run_task(task: *mut libc::c_void) -> ! {
    // SAFETY: `clone_task` passes a task; this process has the only copy that is used.
    let task = unsafe { &mut *task.cast::<Task<'_>>() };
    if !follow(&task.frame, 0) {
        end(127, [0; 2]);
    }
    task.frame.arrived();
    let text = c"s".as_ptr().expose_provenance() as u64;
    // SAFETY: a descriptor, a text of one byte, numbers.
    unsafe { syscall6(libc::SYS_sendto, [task.gate, text, 1, libc::MSG_NOSIGNAL as u64, 0, 0]) };
    // SAFETY: it is this process's, and nobody in it uses it any more.
    unsafe { syscall6(libc::SYS_close, [task.gate, 0, 0, 0, 0, 0]) };
    end((task.body)(), [0; 2])
}
