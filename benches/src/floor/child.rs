//! The floor's child: what it does between its birth and its program.
#![allow(unsafe_code, reason = "what runs in memory that is shared with the caller: by hand is the point")]
#![allow(clippy::cast_sign_loss, clippy::cast_lossless, reason = "as C passes numbers to the kernel")]

use super::spawn::Job;
use super::syscall::{at, syscall};
use std::ffi::{CStr, c_char};
use std::os::fd::AsRawFd;

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
pub(super) extern "C" fn child(job: *const libc::c_void) -> ! {
    // SAFETY: the caller passes a job, and waits with it until this process has left its memory.
    let job = unsafe { &*job.cast::<Job>() };
    set_up(job);
    loop {
        call!(SYS_exit_group, 127);
    }
}

/// Returns only if something fails.
fn set_up(job: &Job) -> Option<()> {
    must!(SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    if job.kind.namespaces & libc::CLONE_NEWUSER != 0 {
        map_ids(job)?;
    }
    if job.becomes_root {
        must!(SYS_setresgid, 0, 0, 0);
        must!(SYS_setresuid, 0, 0, 0);
    }
    if job.kind.namespaces & libc::CLONE_NEWNS != 0 {
        mount_all(job)?;
    }
    if let Some(hostname) = job.kind.hostname {
        must!(SYS_sethostname, at(hostname.as_ptr()), hostname.count_bytes());
    }
    must!(SYS_dup3, job.stdout, 1, 0);
    if job.confinement.no_new_privs {
        must!(SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    if let Some(ruleset) = &job.confinement.ruleset {
        must!(SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0);
    }
    let default = [0_u64; 4];
    for signal in 1..=64 {
        if job.ignored & (1 << (signal - 1)) != 0 {
            must!(SYS_rt_sigaction, signal, at(&raw const default), 0, 8);
        }
    }
    let none = 0_u64;
    must!(SYS_rt_sigprocmask, libc::SIG_SETMASK, at(&raw const none), 0, 8);
    let filter = &job.confinement.filter;
    if !filter.is_empty() {
        let list = [filter.len() as u64, at(filter.as_ptr())];
        must!(SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, at(&raw const list));
    }
    must!(SYS_execve, at(job.program), at(job.argv.as_ptr()), at(job.envp.as_ptr()));
    None
}

/// One id each, which the process may write itself.
fn map_ids(job: &Job) -> Option<()> {
    let write_to = |path: &CStr, (text, len): (*const c_char, usize)| {
        let file = must!(SYS_openat, libc::AT_FDCWD, at(path.as_ptr()), libc::O_WRONLY | libc::O_CLOEXEC, 0);
        must!(SYS_write, file, at(text), len);
        Some(())
    };
    write_to(c"/proc/self/setgroups", (c"deny".as_ptr(), 4))?;
    write_to(c"/proc/self/uid_map", job.uid_map)?;
    write_to(c"/proc/self/gid_map", job.gid_map)
}

const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FROM_DESCRIPTOR: u32 = 0x04;
const TO_DESCRIPTOR: u32 = 0x40;
const HERE: &CStr = c"";
const QUIET: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// Private mounts; a root, if one was opened, with `/proc` and `/dev`; without one `/proc` alone.
fn mount_all(job: &Job) -> Option<()> {
    let has = |namespace| job.kind.namespaces & namespace != 0;
    make_private()?;
    if job.root >= 0 {
        must!(SYS_move_mount, job.root, at(HERE.as_ptr()), libc::AT_FDCWD, at(c"/".as_ptr()), FROM_DESCRIPTOR);
        make_private()?;
    }
    if has(libc::CLONE_NEWPID) {
        let target = mount_point(job, c"/proc")?;
        let proc = file_system(c"proc", &[], QUIET | libc::MOUNT_ATTR_NODEV)?;
        must!(SYS_move_mount, proc, at(HERE.as_ptr()), target, at(HERE.as_ptr()), FROM_DESCRIPTOR | TO_DESCRIPTOR);
    }
    if job.root >= 0 {
        let target = mount_point(job, c"/dev")?;
        devices(target, has(libc::CLONE_NEWUSER))?;
        must!(SYS_fchdir, job.root);
        must!(SYS_pivot_root, at(c".".as_ptr()), at(c".".as_ptr()));
        must!(SYS_umount2, at(c".".as_ptr()), libc::MNT_DETACH);
        must!(SYS_chdir, at(c"/".as_ptr()));
    }
    Some(())
}

fn make_private() -> Option<()> {
    must!(SYS_mount, at(c"none".as_ptr()), at(c"/".as_ptr()), 0, libc::MS_REC | libc::MS_PRIVATE, 0);
    Some(())
}

/// A folder that is there.
fn mount_point(job: &Job, path: &CStr) -> Option<i64> {
    let (from, within) = if job.root < 0 { (libc::AT_FDCWD, 0) } else { (job.root, libc::RESOLVE_IN_ROOT) };
    let how = [(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64, 0, libc::RESOLVE_NO_MAGICLINKS | within];
    Some(must!(SYS_openat2, from, at(path.as_ptr()), at(how.as_ptr()), size_of_val(&how)))
}

fn file_system(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Option<i64> {
    let context = must!(SYS_fsopen, at(kind.as_ptr()), 1);
    for (key, value) in options {
        must!(SYS_fsconfig, context, FSCONFIG_SET_STRING, at(key.as_ptr()), at(value.as_ptr()), 0);
    }
    must!(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
    Some(must!(SYS_fsmount, context, 1, attributes))
}

const DEVICES: [(&CStr, &CStr, u32, u32); 6] = [
    (c"/dev/null", c"null", 1, 3),
    (c"/dev/zero", c"zero", 1, 5),
    (c"/dev/full", c"full", 1, 7),
    (c"/dev/random", c"random", 1, 8),
    (c"/dev/urandom", c"urandom", 1, 9),
    (c"/dev/tty", c"tty", 5, 0),
];
const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// Six devices, the host's in a user namespace; links, terminals, shared memory.
fn devices(target: i64, hosts: bool) -> Option<()> {
    let mut nodes = [-1; DEVICES.len()];
    if hosts {
        for ((path, ..), node) in DEVICES.iter().zip(&mut nodes) {
            // OPEN_TREE_CLONE is 1.
            *node = must!(SYS_open_tree, libc::AT_FDCWD, at(path.as_ptr()), 1 | libc::O_CLOEXEC);
        }
    }
    let dev = file_system(c"tmpfs", &[(c"mode", c"755"), (c"size", c"64k")], QUIET)?;
    must!(SYS_move_mount, dev, at(HERE.as_ptr()), target, at(HERE.as_ptr()), FROM_DESCRIPTOR | TO_DESCRIPTOR);
    let umask = must!(SYS_umask, 0);
    for ((_, name, major, minor), node) in DEVICES.iter().zip(nodes) {
        if hosts {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            let file = must!(SYS_openat, dev, at(name.as_ptr()), flags, 0o666);
            let flags = FROM_DESCRIPTOR | TO_DESCRIPTOR;
            must!(SYS_move_mount, node, at(HERE.as_ptr()), file, at(HERE.as_ptr()), flags);
        } else {
            let number = libc::makedev(*major, *minor);
            must!(SYS_mknodat, dev, at(name.as_ptr()), libc::S_IFCHR | 0o666, number);
        }
    }
    for (name, to) in LINKS {
        must!(SYS_symlinkat, at(to.as_ptr()), dev, at(name.as_ptr()));
    }
    inner(dev, c"pts", c"devpts", &[(c"ptmxmode", c"666"), (c"mode", c"620")], QUIET)?;
    let shm: [(&CStr, &CStr); 2] = [(c"mode", c"1777"), (c"size", c"64m")];
    inner(dev, c"shm", c"tmpfs", &shm, QUIET | libc::MOUNT_ATTR_NODEV)?;
    must!(SYS_umask, umask);
    Some(())
}

fn inner(dev: i64, name: &CStr, kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Option<()> {
    must!(SYS_mkdirat, dev, at(name.as_ptr()), 0o755);
    let mount = file_system(kind, options, attributes)?;
    must!(SYS_move_mount, mount, at(HERE.as_ptr()), dev, at(name.as_ptr()), FROM_DESCRIPTOR);
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
