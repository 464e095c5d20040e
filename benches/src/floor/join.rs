//! The floor of a join: a process joins, clones the program's process as its sibling, and ends.
#![allow(unsafe_code, reason = "clone3 and what runs behind it: by hand is the point")]
#![allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "as C passes numbers to the kernel")]

use super::child::child;
use super::spawn::{CLONE_CLEAR_SIGHAND, Floor, Job, Running, STACK, check, clone3, close, rt_sigprocmask};
use super::syscall::{at, syscall};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

/// Joins one process again and again.
#[derive(Debug)]
pub struct Joiner {
    floor: Floor,
    target: OwnedFd,
    root: OwnedFd,
    kinds: i32,
    inner: Vec<u8>,
    /// Shared with the process between: where the kernel notes the pid and the pidfd of who was born.
    page: *mut i32,
}

/// A pid and a pidfd.
const PAGE: usize = 2 * size_of::<i32>();

// SAFETY: the page is the joiner's own, and whoever has that uses it.
unsafe impl Send for Joiner {}

/// All that the process between reads.
struct Between {
    target: i32,
    kinds: i32,
    root: i32,
    job: *const Job,
    args: [u64; 11],
}

impl Joiner {
    /// Of a process, by its pidfd and its root: these namespaces, `CLONE_NEW...`.
    ///
    /// # Errors
    /// That of `mmap`.
    pub fn new(mut floor: Floor, target: OwnedFd, root: OwnedFd, kinds: i32) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes.
        let page = unsafe { libc::mmap(null_mut(), PAGE, access, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        floor.job.becomes_root = kinds & libc::CLONE_NEWUSER != 0;
        Ok(Joiner { floor, target, root, kinds, inner: vec![0; STACK], page: page.cast() })
    }

    /// `pipe2`, signals held back, `clone3` of a copy, which joins and clones; signals as before, `waitid` of the one between.
    ///
    /// # Errors
    /// The errno of a system call of the caller. What fails behind the clone shows in an exit status, 127.
    pub fn spawn(&mut self) -> io::Result<Running> {
        let mut pipe = [-1; 2];
        // SAFETY: there is room for two descriptors.
        check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
        self.floor.job.stdout = pipe[1];
        let waited = (libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
        let inner = waited | (libc::CLONE_VM | libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;
        let (pid, pidfd) = (self.page, self.page.wrapping_add(1));
        let (stack, size) = (at(self.inner.as_ptr()).next_multiple_of(16), ((STACK - 16) as u64) & !15);
        let between = Between {
            target: self.target.as_raw_fd(),
            kinds: self.kinds,
            root: self.root.as_raw_fd(),
            job: &raw const self.floor.job,
            args: [inner, at(pidfd), 0, at(pid), 0, stack, size, 0, 0, 0, 0],
        };
        let (all, mut before, mut first) = (u64::MAX, 0_u64, -1);
        // SAFETY: both masks have the 8 bytes that are said.
        check(unsafe { rt_sigprocmask(&all, &raw mut before) })?;
        let outer = waited | libc::CLONE_FILES as u64;
        let (stack, size) = (at(self.floor.stack.as_ptr()).next_multiple_of(16), ((STACK - 16) as u64) & !15);
        let args = [outer, at(&raw mut first), 0, 0, 0, stack, size, 0, 0, 0, 0];
        // SAFETY: CLONE_VFORK, and without CLONE_VM all that it reads is a copy; the page is not.
        let cloned = unsafe { clone3(&args, join, (&raw const between).cast()) };
        // SAFETY: as above.
        check(unsafe { rt_sigprocmask(&before, null_mut()) })?;
        close(pipe[1]);
        check(cloned)?;
        let joined = Running { pid: 0, pidfd: first, stdout: -1 }.wait()?;
        if !joined {
            close(pipe[0]);
            return Err(io::Error::other("it could not join"));
        }
        // SAFETY: nobody else writes to the page now.
        let pid = unsafe { pid.read() };
        // SAFETY: as above.
        let pidfd = unsafe { pidfd.read() };
        Ok(Running { pid, pidfd, stdout: pipe[0] })
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        // SAFETY: mapped by this one, and used no more.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
    }
}

/// The process between.
extern "C" fn join(between: *const libc::c_void) -> ! {
    // SAFETY: `spawn` passes one; this process has a copy.
    let between = unsafe { &*between.cast::<Between>() };
    let here = c".".as_ptr();
    let calls = [
        (libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0]),
        (libc::SYS_setns, [between.target as u64, between.kinds as u64]),
        (libc::SYS_fchdir, [between.root as u64, 0]),
        (libc::SYS_chroot, [at(here), 0]),
    ];
    let joined = calls.iter().all(|(number, [a, b])| {
        // SAFETY: descriptors, numbers, and a string that stays.
        unsafe { syscall(*number, [*a, *b, 0, 0, 0]) >= 0 }
    });
    // SAFETY: CLONE_VFORK keeps all that the child uses in this copy until it has gone; the stack is its own.
    let cloned = joined && unsafe { clone3(&between.args, child, between.job.cast()) } > 0;
    loop {
        // SAFETY: a number.
        unsafe { syscall(libc::SYS_exit_group, [u64::from(!cloned) * 127, 0, 0, 0, 0]) };
    }
}
