//! The floor of a spawn: the system calls of `cofferdam_namespaces::Plan::spawn` and `Child::wait`, one after the other.
#![allow(unsafe_code, reason = "clone3 with CLONE_VM, and what runs in the child: by hand is the point")]
#![allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "as C passes numbers to the kernel")]
#![allow(clippy::many_single_char_names, reason = "the arguments of a system call have no better names here")]

use std::arch::asm;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr::{null, null_mut};

/// What a floor spawns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A process in the caller's namespaces.
    Plain,
    /// In its own user, pid, mount, uts, ipc and network namespaces, as root, with its own `/proc` and this host name.
    Namespaces(&'static CStr),
}

/// Spawns one program again and again.
#[derive(Debug)]
pub struct Floor {
    job: Job,
    stack: Vec<u8>,
    // What the job points to.
    _strings: Vec<CString>,
}

/// All that the child reads.
#[derive(Debug)]
struct Job {
    kind: Kind,
    program: *const c_char,
    argv: [*const c_char; 2],
    envp: [*const c_char; 1],
    uid_map: (*const c_char, usize),
    gid_map: (*const c_char, usize),
    ignored: u64,
    stdout: i32,
}

// SAFETY: the pointers are to strings that the floor owns and never changes.
unsafe impl Send for Floor {}

/// A process that a floor has spawned.
#[derive(Debug)]
pub struct Running {
    /// In the caller's pid namespace.
    pub pid: i32,
    pidfd: i32,
    stdout: i32,
}

const STACK: usize = 64 << 10;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET;

impl Floor {
    /// Of `program`; `ignored` are the signals that the caller ignores, as `/proc/self/status` shows them (`SigIgn`).
    #[must_use]
    pub fn new(program: CString, kind: Kind, ignored: u64) -> Self {
        let map = |id: u32| CString::new(format!("0 {id} 1")).unwrap_or_default();
        let strings = vec![program, map(nix::unistd::geteuid().as_raw()), map(nix::unistd::getegid().as_raw())];
        let text = |at: usize| strings.get(at).map_or((null(), 0), |s: &CString| (s.as_ptr(), s.as_bytes().len()));
        let job = Job {
            kind,
            program: text(0).0,
            argv: [text(0).0, null()],
            envp: [null()],
            uid_map: text(1),
            gid_map: text(2),
            ignored,
            stdout: -1,
        };
        Floor { job, stack: vec![0; STACK], _strings: strings }
    }

    /// `pipe2`, signals held back, `clone3`, signals as before, `close`: what `Plan::spawn` does with a pipe for stdout.
    ///
    /// # Errors
    /// The errno of a system call of the caller. What fails in the child shows in its exit status, 127.
    pub fn spawn(&mut self) -> io::Result<Running> {
        let mut pipe = [-1; 2];
        // SAFETY: there is room for two descriptors.
        check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
        self.job.stdout = pipe[1];
        let (all, mut before) = (u64::MAX, 0_u64);
        // SAFETY: both masks have the 8 bytes that are said.
        check(unsafe { rt_sigprocmask(&all, &raw mut before) })?;
        let mut pidfd = -1;
        let namespaces = if self.job.kind == Kind::Plain { 0 } else { NAMESPACES as u64 };
        let shared = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
        // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup.
        let (stack, size) = (at(self.stack.as_ptr()).next_multiple_of(16), (STACK - 16) as u64);
        let args: [u64; 11] = [shared | namespaces, at(&raw mut pidfd), 0, 0, 0, stack, size & !15, 0, 0, 0, 0];
        // SAFETY: CLONE_VFORK keeps all that the child uses until it has gone; the stack is its own.
        let pid = unsafe { clone3(&args, &raw const self.job) };
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
        close(self.stdout);
        // si_code is the third word; si_pid, si_uid and si_status begin at the fifth.
        Ok((info[2], info[6]) == (libc::CLD_EXITED, 0))
    }
}

/// One system call of the child.
macro_rules! call {
    ($name:ident $(, $arg:expr)*) => {
        // SAFETY: the arguments are what the call's manual page asks for: numbers, and addresses of constants and of parts of the job.
        unsafe { syscall(libc::$name, padded([$($arg as u64),*])) }
    };
}
/// As [`call!`], and this is the end if it fails.
macro_rules! must {
    ($($call:tt)*) => {
        match call!($($call)*) {
            result if result < 0 => return None,
            result => result,
        }
    };
}

/// The child. It shares the caller's memory: no libc from here on.
extern "C" fn child(job: *const Job) -> ! {
    // SAFETY: the caller waits, with the job, until this process has left its memory.
    let job = unsafe { &*job };
    set_up(job);
    loop {
        call!(SYS_exit_group, 127);
    }
}

/// Returns only if something fails.
fn set_up(job: &Job) -> Option<()> {
    must!(SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    if let Kind::Namespaces(hostname) = job.kind {
        enter_namespaces(job, hostname)?;
    }
    must!(SYS_dup3, job.stdout, 1, 0);
    let default = [0_u64; 4];
    for signal in 1..=64 {
        if job.ignored & (1 << (signal - 1)) != 0 {
            must!(SYS_rt_sigaction, signal, at(&raw const default), 0, 8);
        }
    }
    let none = 0_u64;
    must!(SYS_rt_sigprocmask, libc::SIG_SETMASK, at(&raw const none), 0, 8);
    must!(SYS_execve, at(job.program), at(job.argv.as_ptr()), at(job.envp.as_ptr()));
    None
}

fn enter_namespaces(job: &Job, hostname: &CStr) -> Option<()> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const BY_DESCRIPTORS: u32 = 0x44;
    let write_to = |path: &CStr, (text, len): (*const c_char, usize)| {
        let file = must!(SYS_openat, libc::AT_FDCWD, at(path.as_ptr()), libc::O_WRONLY | libc::O_CLOEXEC, 0);
        must!(SYS_write, file, at(text), len);
        Some(())
    };
    write_to(c"/proc/self/setgroups", (c"deny".as_ptr(), 4))?;
    write_to(c"/proc/self/uid_map", job.uid_map)?;
    write_to(c"/proc/self/gid_map", job.gid_map)?;
    must!(SYS_mount, at(c"none".as_ptr()), at(c"/".as_ptr()), 0, libc::MS_REC | libc::MS_PRIVATE, 0);
    let how = [(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64, 0, libc::RESOLVE_NO_MAGICLINKS];
    let target = must!(SYS_openat2, libc::AT_FDCWD, at(c"/proc".as_ptr()), at(how.as_ptr()), size_of_val(&how));
    let context = must!(SYS_fsopen, at(c"proc".as_ptr()), 1);
    must!(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let mount = must!(SYS_fsmount, context, 1, attributes);
    must!(SYS_move_mount, mount, at(c"".as_ptr()), target, at(c"".as_ptr()), BY_DESCRIPTORS);
    must!(SYS_sethostname, at(hostname.as_ptr()), hostname.count_bytes());
    Some(())
}

const fn padded<const N: usize>(given: [u64; N]) -> [u64; 5] {
    let mut all = [0; 5];
    let mut at = 0;
    while at < N {
        all[at] = given[at];
        at += 1;
    }
    all
}

fn at<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn check(result: i64) -> io::Result<i64> {
    match result {
        // Of libc, which has put the errno aside, or of the kernel.
        -1 => Err(io::Error::last_os_error()),
        ..-1 => Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL))),
        _ => Ok(result),
    }
}

/// # Safety
/// `before` is null or has room for a mask.
unsafe fn rt_sigprocmask(mask: &u64, before: *mut u64) -> i64 {
    // SAFETY: both masks have the 8 bytes that are said.
    unsafe { syscall(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, at(mask), at(before), 8, 0]) }
}

fn close(fd: i32) {
    // SAFETY: a descriptor that this file has opened and uses no more.
    unsafe { libc::close(fd) };
}

/// clone3 that calls [`child`] on the new stack in the child.
///
/// # Safety
/// `args` asks for `CLONE_VM | CLONE_VFORK` and names a stack for the child alone.
unsafe fn clone3(args: &[u64; 11], job: *const Job) -> i64 {
    let result;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child never comes back here; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r8", "call r9", "ud2", "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args.as_ptr(), in("rsi") size_of_val(args),
            in("r8") job, in("r9") child as extern "C" fn(*const Job) -> !,
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
            in("x1") size_of_val(args), in("x3") job, in("x4") child as extern "C" fn(*const Job) -> !,
        );
    }
    result
}

/// # Safety
/// As the system call demands.
unsafe fn syscall(number: i64, [a, b, c, d, e]: [u64; 5]) -> i64 {
    let result;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the arguments; the kernel keeps all registers but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
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
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack),
        );
    }
    result
}
