//! Names of system calls, for people who read a failed test.

macro_rules! names {
    ($(#[$attribute:meta])* fn $function:ident: $($call:ident)*) => {
        $(#[$attribute])*
        fn $function(number: i64) -> Option<&'static str> {
            match number {
                $(libc::$call => Some(stringify!($call)),)*
                _ => None,
            }
        }
    };
}

names! { fn common:
    SYS_accept4 SYS_bind SYS_bpf SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chroot SYS_clock_gettime
    SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_close SYS_close_range SYS_connect SYS_dup SYS_dup3
    SYS_epoll_create1 SYS_epoll_ctl SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group
    SYS_faccessat SYS_faccessat2 SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl
    SYS_fdatasync SYS_fgetxattr SYS_flock SYS_fsconfig SYS_fsetxattr SYS_fsmount SYS_fsopen SYS_fspick
    SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_getcwd SYS_getdents64 SYS_getegid
    SYS_geteuid SYS_getgid SYS_getpid SYS_getppid SYS_getrandom SYS_getresgid SYS_getresuid SYS_getsockopt SYS_gettid SYS_getuid
    SYS_ioctl SYS_keyctl SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_linkat SYS_listen SYS_lseek SYS_madvise SYS_memfd_create SYS_mkdirat
    SYS_mknodat SYS_mmap SYS_mount SYS_mount_setattr SYS_move_mount SYS_mprotect SYS_mremap SYS_munmap
    SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_open_tree SYS_openat SYS_openat2 SYS_pidfd_getfd
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pivot_root SYS_ppoll SYS_prctl SYS_pread64
    SYS_prlimit64 SYS_pwrite64 SYS_quotactl_fd SYS_read SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmsg SYS_renameat
    SYS_renameat2 SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait
    SYS_sched_getaffinity SYS_sched_setaffinity SYS_sched_yield SYS_seccomp SYS_sendmsg SYS_sendto
    SYS_set_robust_list SYS_set_tid_address SYS_setdomainname SYS_setfsgid SYS_setfsuid SYS_setgid
    SYS_setgroups SYS_sethostname SYS_setns SYS_setpgid SYS_setregid SYS_setresgid SYS_setresuid
    SYS_setreuid SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_sigaltstack SYS_signalfd4 SYS_socket
    SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_syncfs SYS_symlinkat SYS_tgkill SYS_umask SYS_umount2
    SYS_unlinkat SYS_unshare SYS_utimensat SYS_wait4 SYS_waitid SYS_write SYS_writev
}

#[cfg(target_arch = "x86_64")]
names! { fn older:
    SYS_access SYS_arch_prctl SYS_dup2 SYS_fork SYS_getpgrp SYS_mkdir SYS_open SYS_pipe SYS_poll
    SYS_readlink SYS_rename SYS_rmdir SYS_stat SYS_symlink SYS_unlink SYS_vfork
}

#[cfg(not(target_arch = "x86_64"))]
names! { #[allow(clippy::match_single_binding, reason = "newer architectures have none of the older calls")] fn older: }

pub(super) fn name(number: i64) -> &'static str {
    let name = common(number).or_else(|| older(number)).unwrap_or("?");
    name.strip_prefix("SYS_").unwrap_or(name)
}
