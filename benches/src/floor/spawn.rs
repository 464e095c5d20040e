//! The floor of a spawn: the system calls of `cofferdam_namespaces::Plan::spawn` and `Child::wait`, one after the other.
#![allow(unsafe_code, reason = "clone3 with CLONE_VM: by hand is the point")]
#![allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "as C passes numbers to the kernel")]

use super::child::child;
use super::syscall::{at, syscall};
use std::arch::asm;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{null, null_mut};

/// What a floor spawns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `CLONE_NEW…` flags; below 2^31. With a user namespace it is root there; with pid and mount it has its own `/proc`.
    pub namespaces: i32,
    /// A host name, for a uts namespace of its own.
    pub hostname: Option<&'static CStr>,
}

/// Spawns one program again and again.
#[derive(Debug)]
pub struct Floor {
    pub(super) job: Job,
    pub(super) stack: Vec<u8>,
    // What the job points to.
    _strings: Vec<CString>,
}

/// All that the child reads.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    /// A detached mount, or -1.
    pub(super) root: i32,
    pub(super) program: *const c_char,
    pub(super) argv: [*const c_char; 2],
    pub(super) envp: [*const c_char; 1],
    pub(super) uid_map: (*const c_char, usize),
    pub(super) gid_map: (*const c_char, usize),
    pub(super) ignored: u64,
    pub(super) stdout: i32,
    pub(super) confinement: Confinement,
    /// Whether it says that it is root of a user namespace that has been joined.
    pub(super) becomes_root: bool,
}

/// What the program may not do.
#[derive(Debug, Default)]
pub struct Confinement {
    /// `PR_SET_NO_NEW_PRIVS`, which the other two take.
    pub no_new_privs: bool,
    /// A ruleset of Landlock, or none.
    pub ruleset: Option<OwnedFd>,
    /// The instructions of a filter of system calls, as they lie in memory; none if there are none.
    pub filter: Vec<u64>,
}

// SAFETY: the pointers are to strings that the floor owns and never changes.
unsafe impl Send for Floor {}

/// A process that a floor has spawned.
#[derive(Debug)]
pub struct Running {
    /// In the caller's pid namespace.
    pub pid: i32,
    pub(super) pidfd: i32,
    pub(super) stdout: i32,
}

pub(super) const STACK: usize = 64 << 10;
pub(super) const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

impl Floor {
    /// Of `program`; `ignored` are the signals that the caller ignores, as `/proc/self/status` shows them (`SigIgn`).
    #[must_use]
    pub fn new(program: CString, kind: Kind, ignored: u64) -> Self {
        let map = |id: u32| CString::new(format!("0 {id} 1")).unwrap_or_default();
        let strings = vec![program, map(nix::unistd::geteuid().as_raw()), map(nix::unistd::getegid().as_raw())];
        let text = |at: usize| strings.get(at).map_or((null(), 0), |s: &CString| (s.as_ptr(), s.as_bytes().len()));
        let job = Job {
            kind,
            root: -1,
            program: text(0).0,
            argv: [text(0).0, null()],
            envp: [null()],
            uid_map: text(1),
            gid_map: text(2),
            ignored,
            stdout: -1,
            confinement: Confinement::default(),
            becomes_root: false,
        };
        Floor { job, stack: vec![0; STACK], _strings: strings }
    }

    /// With less that the program may do.
    #[must_use]
    pub fn confined(mut self, confinement: Confinement) -> Self {
        self.job.confinement = confinement;
        self
    }

    /// `pipe2`, signals held back, `clone3`, signals as before, `close`: what `Plan::spawn` does with a pipe for stdout.
    ///
    /// A `root` is a detached mount, which the child makes its root, with `/proc` and `/dev`.
    ///
    /// # Errors
    /// The errno of a system call of the caller. What fails in the child shows in its exit status, 127.
    pub fn spawn(&mut self, root: Option<BorrowedFd<'_>>) -> io::Result<Running> {
        self.job.root = root.map_or(-1, |root| root.as_raw_fd());
        let mut pipe = [-1; 2];
        // SAFETY: there is room for two descriptors.
        check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
        self.job.stdout = pipe[1];
        let (all, mut before) = (u64::MAX, 0_u64);
        // SAFETY: both masks have the 8 bytes that are said.
        check(unsafe { rt_sigprocmask(&all, &raw mut before) })?;
        let mut pidfd = -1;
        let namespaces = self.job.kind.namespaces as u64;
        let shared = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
        // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
        let (stack, size) = (at(self.stack.as_ptr()).next_multiple_of(16), (STACK - 16) as u64);
        let args: [u64; 11] = [shared | namespaces, at(&raw mut pidfd), 0, 0, 0, stack, size & !15, 0, 0, 0, 0];
        // SAFETY: CLONE_VFORK keeps all that the child uses until it has gone; the stack is its own.
        let pid = unsafe { clone3(&args, child, (&raw const self.job).cast()) };
        // SAFETY: as above.
        check(unsafe { rt_sigprocmask(&before, null_mut()) })?;
        close(pipe[1]);
        Ok(Running { pid: i32::try_from(check(pid)?).unwrap_or(0), pidfd, stdout: pipe[0] })
    }
}

impl Running {
    /// One `read` of what the program prints in one `write`.
    ///
    /// # Errors
    /// Its errno.
    pub fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        // SAFETY: the buffer has this many bytes.
        let len = check(unsafe { libc::read(self.stdout, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)?;
        Ok(buffer.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default())
    }

    /// `waitid`, and whether the program exited with 0; closes what there is to close.
    ///
    /// # Errors
    /// The errno of `waitid`.
    pub fn wait(self) -> io::Result<bool> {
        let mut info = [0_i32; 32];
        let options = libc::WEXITED | libc::__WALL;
        // SAFETY: a siginfo_t is 128 bytes, here of integers.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, self.pidfd.cast_unsigned(), info.as_mut_ptr().cast(), options) };
        check(result.into())?;
        close(self.pidfd);
        if self.stdout >= 0 {
            close(self.stdout);
        }
        // si_code is the third word; si_pid, si_uid and si_status begin at the fifth.
        Ok((info[2], info[6]) == (libc::CLD_EXITED, 0))
    }
}

pub(super) fn check(result: i64) -> io::Result<i64> {
    match result {
        // Of libc, which has put the errno aside, or of the kernel.
        -1 => Err(io::Error::last_os_error()),
        ..-1 => Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL))),
        _ => Ok(result),
    }
}

/// # Safety
/// `before` is null or has room for a mask.
pub(super) unsafe fn rt_sigprocmask(mask: &u64, before: *mut u64) -> i64 {
    // SAFETY: both masks have the 8 bytes that are said.
    unsafe { syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, at(mask), at(before), 8, 0]) }
}

pub(super) fn close(fd: i32) {
    // SAFETY: a descriptor that this file has opened and uses no more.
    unsafe { libc::close(fd) };
}

/// What a child runs.
pub(super) type Entry = extern "C" fn(*const libc::c_void) -> !;

/// clone3 that calls `entry` on the new stack in the child.
///
/// # Safety
/// `args` asks for `CLONE_VFORK` and names a stack for the child alone; `data` is what the entry takes.
pub(super) unsafe fn clone3(args: &[u64; 11], entry: Entry, data: *const libc::c_void) -> i64 {
    let result;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child never comes back here; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r8", "call r9", "ud2", "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args.as_ptr(), in("rsi") size_of_val(args),
            in("r8") data, in("r9") entry,
            out("rcx") _, out("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the child never comes back here; the kernel keeps all registers but x0.
    unsafe {
        asm!(
            "svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x30, xzr", "mov x0, x3", "blr x4", "brk 1", "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args.as_ptr() => result,
            in("x1") size_of_val(args), in("x3") data, in("x4") entry,
        );
    }
    result
}
