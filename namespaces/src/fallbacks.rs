//! What is done where the kernel lacks a system call, or somebody's seccomp filter hides it.

use crate::gate::GATE;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::{Error, Step};
use bitflags::bitflags;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

bitflags! {
    /// What may be done instead where a system call is missing: on an older kernel, or below a container engine whose seccomp filter hides it.
    ///
    /// None is used unless it is asked for ([`Sandbox::fallbacks`](crate::Sandbox::fallbacks)), because each has its price; [`Child::report`](crate::Child::report) tells
    /// which were used. Without it the missing call is an error of kind [`Unsupported`](crate::ErrorKind::Unsupported).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Fallbacks: u32 {
        /// `clone(2)` for `clone3(2)` (Linux 5.3; the filters of some container engines answer `ENOSYS`).
        ///
        /// The handlers of all signals are then reset one by one: some 60 system calls more.
        const CLONE = 1;
        /// Writing to `cgroup.procs` for `CLONE_INTO_CGROUP` (Linux 5.7): the child is born in the caller's cgroup, and goes to its own before it does anything
        /// else. That costs milliseconds, and takes the right to write to the `cgroup.procs` of the common ancestor too. [`CLONE`](Self::CLONE) needs it
        /// where there is a version 2 cgroup.
        const CGROUP_PROCS = 2;
        /// Marking each descriptor that `/proc/self/fd` lists for `close_range(2)` with `CLOSE_RANGE_CLOEXEC` (Linux 5.11). Takes as long as there are
        /// descriptors, and needs `/proc`.
        const CLOSE_EACH = 4;
        /// No [session keyring](crate::Sandbox::new_session_keyring) of its own, where the kernel lacks keys.
        const SESSION_KEYRING = 8;
        /// No restriction by a Landlock ruleset, where the kernel lacks Landlock (Linux 5.13) or has it switched off.
        const LANDLOCK = 16;
        /// `mount(2)` with `MS_REMOUNT` for `mount_setattr(2)` (Linux 5.12), which sets the flags of one mount and not of those below it. Needs `/proc`.
        ///
        /// A [bind](crate::Mount::bind) of a source below which something is mounted when the plan is made stays an error, unless it is
        /// [`non_recursive`](crate::Mount::non_recursive): it would come without that, and show what that hides. So it does with what is mounted there later.
        ///
        /// Not where all that is mounted must change ([`Sandbox::read_only_root`](crate::Sandbox::read_only_root), [`Mount::read_only_path`](crate::Mount::read_only_path)), nor for
        /// detached mounts, mapped owners, and what joins others: there the missing call stays an error.
        const REMOUNT = 32;
    }
}

/// The folder of its descriptors, which the child keeps open: the host's `/proc` is out of its sight when it needs it again.
const FOLDER: Slot = Slot(4);

/// That a child which is held cannot even close a range: not all that lack `CLOSE_RANGE_CLOEXEC` lack `close_range(2)`.
const CLOSE_AT_HOLD: Fallbacks = Fallbacks::from_bits_retain(1 << 31);

/// What a clone that failed with this errno may be replaced by, beyond what has been `used` already.
pub(crate) fn after_clone(allowed: Fallbacks, used: Fallbacks, into_cgroup: bool, errno: i32) -> Option<Fallbacks> {
    let procs = if into_cgroup { Fallbacks::CGROUP_PROCS } else { Fallbacks::empty() };
    let needed = match errno {
        libc::ENOSYS => Fallbacks::CLONE | procs,
        // A flag that it does not know, or a struct that is longer than its own.
        libc::EINVAL | libc::E2BIG => procs,
        _ => Fallbacks::empty(),
    };
    let more = needed.difference(used);
    (allowed.contains(needed) && !more.is_empty()).then_some(more)
}

/// What becomes of a `close_range(2)` that marks, and of one that closes: it may be missing, or not know `CLOSE_RANGE_CLOEXEC`.
pub(crate) fn of_close_range(allowed: Fallbacks) -> [Then; 2] {
    if allowed.contains(Fallbacks::CLOSE_EACH) {
        let mark = Then::Or(Fallbacks::CLOSE_EACH, [libc::ENOSYS, libc::EINVAL]);
        [mark, Then::Or(Fallbacks::CLOSE_EACH.union(CLOSE_AT_HOLD), [libc::ENOSYS; 2])]
    } else {
        [Then::Go; 2]
    }
}

/// What the allowed ones may need: the file by which this cgroup is entered otherwise, and a `/proc`.
pub(crate) fn prepare(allowed: Fallbacks, cgroup: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Error> {
    if allowed.intersects(Fallbacks::CLOSE_EACH | Fallbacks::REMOUNT) {
        check_proc()?;
    }
    let directory = cgroup.filter(|_| allowed.contains(Fallbacks::CGROUP_PROCS));
    directory.map(|directory| cgroup_procs(directory.as_fd())).transpose()
}

/// The file by which a version 2 cgroup is entered without `CLONE_INTO_CGROUP`.
fn cgroup_procs(directory: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::os(Step::Prepare, "openat", errno as i32).about("cgroup.procs");
    let file = openat(directory, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    crate::bind::above_streams(file).map_err(|errno| Error::os(Step::Prepare, "fcntl", errno).about("cgroup.procs"))
}

/// `/proc` is what it says: the child will believe it.
fn check_proc() -> Result<(), Error> {
    let path = "/proc/self/fd";
    let found = statfs(path).map_err(|errno| Error::os(Step::Prepare, "statfs", errno as i32).about(path))?;
    if found.filesystem_type() == PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::config("fallbacks CLOSE_EACH and REMOUNT", "need /proc"))
}

/// Marks all descriptors above 2 to be closed at the start of a program.
pub(crate) fn mark_each(program: &mut Program, highest: i32) {
    let (folder, path) = match program.proc() {
        Some(proc) => (proc, c"self/fd"),
        None => (libc::AT_FDCWD, c"/proc/self/fd"),
    };
    let path = program.string(path.to_owned());
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let (step, none) = (Step::CloseDescriptors, Arg::Value(0));
    let open = [folder.into(), path.into(), flags.into(), none];
    program.only(Fallbacks::CLOSE_EACH, |program| {
        program.call_then(step, "/proc/self/fd", Sys::openat, open, Then::Keep(FOLDER));
        if highest > 2 {
            // Out of the way of those that the program gets.
            let copy = [FOLDER.into(), libc::F_DUPFD_CLOEXEC.into(), (highest + 1).into()];
            program.call_then(step, "/proc/self/fd", Sys::fcntl, copy, Then::Keep(FOLDER));
        }
        program.call_then(step, "/proc/self/fd", Sys::getdents64, list(), Then::MarkEach);
    });
}

/// Closes all descriptors above 2 but the gate, as a child that is held has to.
pub(crate) fn close_each(program: &mut Program, highest: i32) {
    let (step, none) = (Step::Hold, Arg::Value(0));
    program.only(CLOSE_AT_HOLD, |program| {
        program.call(step, "/proc/self/fd", Sys::lseek, [FOLDER.into(), none, none]);
        program.call_then(
            step,
            "/proc/self/fd",
            Sys::getdents64,
            list(),
            Then::CloseEachBut(highest.cast_unsigned().into(), [GATE, FOLDER]),
        );
    });
}

/// Closes all descriptors above 2, the folder that lists them last.
pub(crate) fn close_all(program: &mut Program, highest: i32) {
    let (step, none) = (Step::LetGo, Arg::Value(0));
    program.only(CLOSE_AT_HOLD, |program| {
        program.call(step, "/proc/self/fd", Sys::lseek, [FOLDER.into(), none, none]);
        program.call_then(
            step,
            "/proc/self/fd",
            Sys::getdents64,
            list(),
            Then::CloseEachBut(highest.cast_unsigned().into(), [FOLDER, FOLDER]),
        );
        program.call(step, "/proc/self/fd", Sys::close, [FOLDER.into()]);
    });
}

/// Closes these numbers, open or not.
pub(crate) fn close_these(program: &mut Program, step: Step, numbers: std::ops::RangeInclusive<u32>) {
    program.only(CLOSE_AT_HOLD, |program| {
        for number in numbers {
            let then = Then::Unless(libc::EBADF);
            program.call_then(step, format!("descriptor {number}"), Sys::close, [number.into()], then);
        }
    });
}

fn list() -> [Arg; 3] {
    [FOLDER.into(), Arg::Scratch, ((crate::program::SCRATCH * size_of::<u64>()) as u64).into()]
}

/// Enters a version 2 cgroup, in which a cgroup namespace is rooted only then.
pub(crate) fn enter_cgroup(program: &mut Program, procs: &OwnedFd, own_namespace: bool) {
    let myself = program.string(c"0".to_owned());
    program.only(Fallbacks::CGROUP_PROCS, |program| {
        let enter = [procs.as_raw_fd().into(), myself.into(), 1_u64.into()];
        program.call(Step::Cgroup, "cgroup.procs", Sys::write, enter);
        if own_namespace {
            program.call(Step::CgroupNamespace, "", Sys::unshare, [libc::CLONE_NEWCGROUP.into()]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_used_once_and_only_if_allowed() {
        let (all, none, clone, procs) =
            (Fallbacks::all(), Fallbacks::empty(), Fallbacks::CLONE, Fallbacks::CGROUP_PROCS);
        // Allowed, used already, whether there is a cgroup to be born in, errno; what is to be used then.
        let cases = [
            (all, none, false, libc::ENOSYS, Some(clone)),
            (all, none, true, libc::ENOSYS, Some(clone | procs)),
            (clone, none, true, libc::ENOSYS, None),
            (clone, none, false, libc::ENOSYS, Some(clone)),
            (procs, none, false, libc::ENOSYS, None),
            (all, clone, false, libc::ENOSYS, None),
            (all, procs, true, libc::ENOSYS, Some(clone)),
            (all, none, true, libc::EINVAL, Some(procs)),
            (all, none, true, libc::E2BIG, Some(procs)),
            (all, none, false, libc::EINVAL, None),
            (all, procs, true, libc::EINVAL, None),
            (clone, none, true, libc::EINVAL, None),
            (all, none, true, libc::EPERM, None),
            (none, none, true, libc::ENOSYS, None),
        ];
        for (allowed, used, into_cgroup, errno, expected) in cases {
            let found = after_clone(allowed, used, into_cgroup, errno);
            assert_eq!(found, expected, "{allowed:?} {used:?} {into_cgroup} {errno}");
        }
    }
}
