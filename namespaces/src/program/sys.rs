//! The system calls that a child may make, by name and number.

macro_rules! calls {
    ($($name:ident = $number:ident,)*) => {
        /// The system calls that a child may make.
        #[derive(Debug, Clone, Copy)]
        #[allow(non_camel_case_types, reason = "the names of system calls")]
        #[cfg_attr(
            not(all(feature = "init", feature = "landlock", feature = "seccomp")),
            allow(dead_code, reason = "those of features")
        )]
        pub(crate) enum Sys { $($name,)* }
        impl Sys {
            pub(super) fn name(self) -> &'static str {
                match self { $(Sys::$name => stringify!($name),)* }
            }
            pub(super) fn number(self) -> i64 {
                match self { $(Sys::$name => libc::$number,)* }
            }
        }
    };
}

calls! {
    capset = SYS_capset,
    chdir = SYS_chdir,
    chroot = SYS_chroot,
    close = SYS_close,
    clone3 = SYS_clone3,
    close_range = SYS_close_range,
    dup3 = SYS_dup3,
    execve = SYS_execve,
    execveat = SYS_execveat,
    fcntl = SYS_fcntl,
    fchdir = SYS_fchdir,
    fchown = SYS_fchown,
    fstatfs = SYS_fstatfs,
    fsconfig = SYS_fsconfig,
    fsmount = SYS_fsmount,
    fsopen = SYS_fsopen,
    getcwd = SYS_getcwd,
    ioctl = SYS_ioctl,
    ioprio_set = SYS_ioprio_set,
    getdents64 = SYS_getdents64,
    keyctl = SYS_keyctl,
    landlock_restrict_self = SYS_landlock_restrict_self,
    lseek = SYS_lseek,
    mkdirat = SYS_mkdirat,
    mknodat = SYS_mknodat,
    mount = SYS_mount,
    mount_setattr = SYS_mount_setattr,
    move_mount = SYS_move_mount,
    open_tree = SYS_open_tree,
    openat = SYS_openat,
    openat2 = SYS_openat2,
    personality = SYS_personality,
    pipe2 = SYS_pipe2,
    pivot_root = SYS_pivot_root,
    ppoll = SYS_ppoll,
    prctl = SYS_prctl,
    prlimit64 = SYS_prlimit64,
    read = SYS_read,
    readlinkat = SYS_readlinkat,
    recvfrom = SYS_recvfrom,
    rt_sigaction = SYS_rt_sigaction,
    rt_sigpending = SYS_rt_sigpending,
    rt_sigprocmask = SYS_rt_sigprocmask,
    sched_setaffinity = SYS_sched_setaffinity,
    sched_setscheduler = SYS_sched_setscheduler,
    seccomp = SYS_seccomp,
    sendmsg = SYS_sendmsg,
    sendto = SYS_sendto,
    setdomainname = SYS_setdomainname,
    setns = SYS_setns,
    setgroups = SYS_setgroups,
    sethostname = SYS_sethostname,
    setpriority = SYS_setpriority,
    setresgid = SYS_setresgid,
    setresuid = SYS_setresuid,
    setsid = SYS_setsid,
    statx = SYS_statx,
    symlinkat = SYS_symlinkat,
    umask = SYS_umask,
    umount2 = SYS_umount2,
    unshare = SYS_unshare,
    write = SYS_write,
}
