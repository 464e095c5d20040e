//! System calls that nix does not wrap, and all that runs between clone and exec: the only file with `unsafe`.
//!
//! The child shares the caller's memory while one of the caller's threads is suspended and all others go on. It therefore touches nothing
//! but its own stack, its [`Frame`] and what the frame points to: no allocator, no lock, no thread-local (libc's errno is one), no panic.
#![allow(unsafe_code, reason = "the one file for it; every block says why it is sound")]
#![allow(clippy::many_single_char_names, reason = "the six arguments of a system call have no better names here")]

use crate::program::{Arg, Op, SLOTS, Then};
use crate::{Error, Scope, Step};
use std::arch::asm;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};

/// Everything that the child reads and all that it tells.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    ops: &'a [Op],
    slots: [i64; SLOTS],
    /// Whether the calls that hold the child are made too.
    held: bool,
    /// Index of the system call that the child is in.
    at: AtomicUsize,
    /// Its errno, once it has failed.
    errno: AtomicI32,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(ops: &'a [Op], slots: [i64; SLOTS], held: bool) -> Self {
        Frame { ops, slots, held, at: AtomicUsize::new(0), errno: AtomicI32::new(0) }
    }

    /// The system call that the child came to last, and its errno if it failed.
    pub(crate) fn outcome(&self) -> (usize, Option<i32>) {
        let errno = self.errno.load(Relaxed);
        (self.at.load(Relaxed), (errno != 0).then_some(errno))
    }
}

/// The child. No panic, no allocation, no libc: see the top of this file.
extern "C" fn child(frame: *mut libc::c_void) -> ! {
    // SAFETY: `clone_and_run` passes a frame, and keeps it until the clone returns to it, which is after this function's last use.
    let frame = unsafe { &*frame.cast::<Frame<'_>>() };
    let mut slots = frame.slots;
    let mut denied = false;
    for (at, op) in frame.ops.iter().enumerate() {
        if op.held && !frame.held {
            continue;
        }
        frame.at.store(at, Relaxed);
        let [a, b, c, d, e, f] = op.args.map(|arg| match arg {
            Arg::Value(value) => value,
            Arg::Slot(slot) => slots.get(slot.0 as usize).map_or(u64::MAX, |value| value.cast_unsigned()),
        });
        let mut tries = 0;
        let result = loop {
            // SAFETY: the program was made from system calls and arguments that are valid in any process; pointers are to memory that it owns.
            let result = unsafe { syscall6(op.number, [a, b, c, d, e, f]) };
            // A rename anywhere on the machine may have come between its steps.
            if op.number != libc::SYS_openat2 || errno_of(result) != libc::EAGAIN || tries == OPENAT2_TRIES {
                break result;
            }
            tries += 1;
        };
        let errno = if result < 0 { errno_of(result) } else { 0 };
        let failure = match op.then {
            Then::Keep(slot) if errno == 0 => {
                if let Some(kept) = slots.get_mut(slot.0 as usize) {
                    *kept = result;
                }
                0
            }
            Then::Unless(expected) if errno == expected => 0,
            Then::Exactly(wanted, otherwise) if errno == 0 && result != wanted => otherwise,
            // As execvp(3): go on looking, but remember that there was one that may not be started.
            Then::TryNext if errno == libc::EACCES => {
                denied = true;
                0
            }
            Then::TryNext if is_elsewhere(errno) => 0,
            _ if denied && is_elsewhere(errno) => libc::EACCES,
            _ => errno,
        };
        if failure != 0 {
            frame.errno.store(failure, Relaxed);
            break;
        }
    }
    exit()
}

/// How often an `openat2(2)` is tried that has been interfered with.
const OPENAT2_TRIES: u32 = 64;

/// A program that is not there, as `execvp(3)` sees it: it may be in the next place.
fn is_elsewhere(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT)
}

fn exit() -> ! {
    loop {
        // SAFETY: exit_group takes a number and ends this process only: it is no thread of the caller.
        unsafe { syscall6(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]) };
    }
}

/// Arguments of clone3(2), as of Linux 5.7.
#[repr(C, align(8))]
#[derive(Debug, Default)]
struct CloneArgs {
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
    fn new(flags: u64, cgroup: Option<BorrowedFd<'_>>, stack: &Stack, birth: &Birth) -> Self {
        let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        CloneArgs {
            flags: flags | into | SHARED,
            pidfd: birth.pidfd.as_ptr().expose_provenance() as u64,
            parent_tid: birth.pid.as_ptr().expose_provenance() as u64,
            stack: stack.bottom() as u64,
            stack_size: stack.size as u64,
            cgroup: cgroup.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned())),
            ..CloneArgs::default()
        }
    }
}

/// In the caller's memory, which is suspended meanwhile; with a pidfd; without the caller's signal handlers.
const SHARED: u64 =
    (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64 | CLONE_CLEAR_SIGHAND;
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

/// Clones with `flags` and returns when the child has started its program or ended; `frame` tells which, `birth` who it is.
///
/// The child has no exit signal until it starts a program, so that a failed one neither raises SIGCHLD nor meets a foreign `waitpid(-1)`.
pub(crate) fn clone_and_run(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &mut Stack,
    frame: &Frame<'_>,
    birth: &Birth,
) -> Result<(), i32> {
    let args = CloneArgs::new(flags, cgroup, stack, birth);
    // SAFETY: CLONE_VFORK suspends this thread until the child has left this memory, so that `args`, `frame`, `birth` and the stack,
    // which nobody else uses, outlive it; `child` never returns and keeps to the rules of this file.
    let result = unsafe { clone3(&raw const args, child, std::ptr::from_ref(frame).cast_mut().cast()) };
    if result < 0 { Err(errno_of(result)) } else { Ok(()) }
}

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
    /// [`Step::Scope`]: a namespace could not be joined, the working directory is not there, or the process was killed.
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
        SignalMask::ALL.set().map_err(|errno| failed(("rt_sigprocmask", errno)))?;
        let (stack, birth) = (Stack::map(Stack::LARGE).map_err(failed)?, Birth::new());
        let args = CloneArgs::new(libc::CLONE_FILES as u64, None, &stack, &birth);
        // SAFETY: as in `clone_and_run`. This thread is suspended, so that the child can use its thread-locals: nobody else does.
        let result = unsafe { clone3(&raw const args, run_errand, std::ptr::from_mut(self).cast()) };
        if result < 0 {
            return Err(failed(("clone3", errno_of(result))));
        }
        let born = birth.take().ok_or_else(Error::status_lost)?;
        let status = reap(born.pidfd.as_fd(), Block::Yes).map_err(|errno| failed(("waitid", errno)))?;
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
            exit();
        }
    }
    // SAFETY: no arguments.
    let parent = unsafe { syscall6(libc::SYS_getppid, [0; 6]) };
    if parent == i64::from(errand.parent) {
        (errand.body)();
    }
    exit()
}

/// What a child runs, on its own stack.
type Entry = extern "C" fn(*mut libc::c_void) -> !;

/// clone3(2) that calls `entry` with `data` on the new stack in the child, and returns in the caller.
///
/// # Safety
/// `args` asks for `CLONE_VM` and `CLONE_VFORK` and names a stack for the child alone; both pointers are valid during the call.
unsafe fn clone3(args: *const CloneArgs, entry: Entry, data: *mut libc::c_void) -> i64 {
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child starts with an empty frame on its own, aligned stack and never comes back here; the kernel keeps all
    // registers but rax, rcx and r11, which are declared.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") data,
            in("r9") entry,
            out("rcx") _,
            out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x3",
            "blr x4",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args => result,
            in("x1") size_of::<CloneArgs>(),
            in("x3") data,
            in("x4") entry,
        );
    }
    result
}

/// A system call that touches nothing of libc. Returns what the kernel returns: an error is a negated errno.
///
/// # Safety
/// As the system call demands.
unsafe fn syscall6(number: i64, [a, b, c, d, e, f]: [u64; 6]) -> i64 {
    let result: i64;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// A stack for a child, with a guard page below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<libc::c_void>,
    size: usize,
}

// SAFETY: a stack is plain memory, used by one spawn at a time.
unsafe impl Send for Stack {}

impl Stack {
    /// What a child needs for its list of calls: less than 2 KiB, and some more in a build without optimisation.
    pub(crate) const SMALL: usize = 64 << 10;
    /// As much as a thread of a program usually has, for code that is not ours. Only what is used takes memory.
    pub(crate) const LARGE: usize = 8 << 20;
    /// At least one page on every architecture.
    const GUARD: usize = 64 << 10;

    /// Maps a new stack.
    pub(crate) fn map(size: usize) -> Result<Self, (&'static str, i32)> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice changes nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), Self::GUARD + size, libc::PROT_NONE, flags, -1, 0) };
        let stack = match NonNull::new(base) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED => Stack { base, size },
            _ => return Err(("mmap", last_errno())),
        };
        let usable = stack.base.as_ptr().wrapping_byte_add(Self::GUARD);
        // SAFETY: the range is the upper part of the mapping just made, which nobody uses yet.
        let result = unsafe { libc::mprotect(usable, size, libc::PROT_READ | libc::PROT_WRITE) };
        if result == 0 { Ok(stack) } else { Err(("mprotect", last_errno())) }
    }

    fn bottom(&self) -> usize {
        self.base.as_ptr().wrapping_byte_add(Self::GUARD).expose_provenance()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no child runs on it: a clone returns only when its child has left.
        unsafe { libc::munmap(self.base.as_ptr(), Self::GUARD + self.size) };
    }
}

/// A signal mask as the kernel knows it: libc's own calls would leave out the signals that it uses itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignalMask(u64);

impl SignalMask {
    pub(crate) const ALL: SignalMask = SignalMask(u64::MAX);

    /// Gives this thread the mask; returns the one before.
    pub(crate) fn set(self) -> Result<SignalMask, i32> {
        let mut before = 0_u64;
        let new = (&raw const self.0).expose_provenance() as u64;
        let old = (&raw mut before).expose_provenance() as u64;
        // SAFETY: both point to 8 bytes on this stack; blocking and unblocking signals is always sound.
        let result =
            unsafe { syscall6(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, new, old, SIGNAL_SET_SIZE, 0, 0]) };
        if result == 0 { Ok(SignalMask(before)) } else { Err(errno_of(result)) }
    }
}

/// The signals that this process ignores. Asked of the kernel, because libc hides the two that it uses itself.
pub(crate) fn ignored_signals() -> Result<Vec<u32>, i32> {
    let mut ignored = Vec::new();
    for signal in 1..=64_u32 {
        // Of the kernel's struct sigaction, on both architectures: handler, flags, restorer, mask.
        let mut action = [0_u64; 4];
        let old = (&raw mut action).expose_provenance() as u64;
        // SAFETY: without a new action nothing changes; `old` points to a struct of the right size.
        let result = unsafe { syscall6(libc::SYS_rt_sigaction, [signal.into(), 0, old, SIGNAL_SET_SIZE, 0, 0]) };
        if result < 0 {
            return Err(errno_of(result));
        }
        if action[0] == libc::SIG_IGN as u64 {
            ignored.push(signal);
        }
    }
    Ok(ignored)
}

/// Bytes in the kernel's signal set.
pub(crate) const SIGNAL_SET_SIZE: u64 = 8;

/// Whether [`reap`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Yes,
    No,
    /// Waits, and leaves the status for another call.
    Look,
}

/// waitid(2) on a pidfd: what became of the process, as `wait(2)` encodes it; `None` while it runs.
///
/// With `__WALL`, because a child that never started a program has no exit signal.
pub(crate) fn reap(pidfd: BorrowedFd<'_>, block: Block) -> Result<Option<i32>, i32> {
    let options = libc::WEXITED
        | libc::__WALL
        | match block {
            Block::Yes => 0,
            Block::No => libc::WNOHANG,
            Block::Look => libc::WNOWAIT,
        };
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is writable and of the right type.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd().cast_unsigned(), info.as_mut_ptr(), options) };
        match (result, last_errno()) {
            (0, _) => break,
            (_, libc::EINTR) => {}
            (_, errno) => return Err(errno),
        }
    }
    // SAFETY: all bytes are initialised, by `zeroed` or by the kernel; every bit pattern is a siginfo_t.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills in the fields of SIGCHLD, or leaves them zero.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    Ok((pid != 0).then_some(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }))
}

/// `pidfd_send_signal(2)`.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: numbers and a null pointer only.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null_mut::<libc::siginfo_t>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A pidfd of this process.
pub(crate) fn own_pidfd() -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just opened it for us, CLOEXEC.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The errno in a system call's result.
fn errno_of(result: i64) -> i32 {
    i32::try_from(result.wrapping_neg()).unwrap_or(libc::EINVAL)
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
