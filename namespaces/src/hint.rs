//! What an errno does not say: who forbids user namespaces, and why a file system may not be mounted in one.
//!
//! Found out by the caller, after a failure: nothing is asked of a spawn that works.

use crate::{Error, Namespaces, Step};

/// Switches of the administrator, as they are now: read by name below `/proc/sys`.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Adds to an error of a spawn with these namespaces what else can be told.
pub(crate) fn add(error: Error, namespaces: Namespaces) -> Error {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).ok();
    match of(&error, namespaces, &read) {
        Some(words) => error.hinting(words),
        None => error,
    }
}

fn of(error: &Error, namespaces: Namespaces, read: Read<'_>) -> Option<&'static str> {
    let (errno, user) = (error.raw_os_error()?, namespaces.contains(Namespaces::USER));
    let is = |name: &str, value: &str| read(name).is_some_and(|text| text.trim() == value);
    match (error.step(), errno) {
        (Step::Clone, libc::ENOSPC | libc::EUSERS) if user && is("user/max_user_namespaces", "0") => {
            Some("user.max_user_namespaces is 0, which switches user namespaces off")
        }
        (Step::Clone, libc::ENOSPC) if !namespaces.is_empty() => {
            Some("one of the limits user.max_*_namespaces is reached, or they are nested more than 32 deep")
        }
        (Step::Clone, libc::EPERM) if user && is("kernel/unprivileged_userns_clone", "0") => {
            Some("kernel.unprivileged_userns_clone is 0, which leaves user namespaces to root")
        }
        (Step::Clone, libc::EPERM) if user => Some(
            "the caller is in a chroot, its user or group has no id in its own user namespace, or a security module forbids it",
        ),
        (Step::Clone, libc::EPERM) if !namespaces.is_empty() => {
            Some("without a user namespace of its own, Sandbox::user, a namespace takes CAP_SYS_ADMIN")
        }
        (step, libc::EPERM | libc::EACCES)
            if user && is_of_capability(step) && is("kernel/apparmor_restrict_unprivileged_userns", "1") =>
        {
            Some(
                "kernel.apparmor_restrict_unprivileged_userns is 1, which takes the capabilities in a user namespace from \
                 programs without an AppArmor profile that allows it",
            )
        }
        (Step::Mount, libc::EPERM) if user && error.system_call() == Some("fsmount") => Some(
            "in a user namespace, proc and sysfs can be mounted only while one is in sight that has nothing mounted over its parts",
        ),
        _ => of_files(error, errno, user),
    }
}

/// About roots, mounts and what is found there.
fn of_files(error: &Error, errno: i32, user: bool) -> Option<&'static str> {
    let words = match (error.step(), error.system_call()?, errno) {
        (Step::BoundingSet | Step::SecureBits, "prctl", libc::EPERM) => {
            "it takes CAP_SETPCAP, which an ordinary user has in a user namespace of its own, Sandbox::user"
        }
        (Step::Capabilities, "capset", libc::EPERM) => "the caller does not have them all itself",
        (Step::Seccomp, "seccomp", libc::EACCES) | (Step::Landlock, _, libc::EPERM) => {
            "it takes Sandbox::no_new_privs, or CAP_SYS_ADMIN"
        }
        (_, "statx", libc::ESTALE) => "something else is there than when the plan was made: make a new one",
        (_, "statx", libc::ENODEV) => "it is not the null device",
        (Step::Mount, "openat2", libc::ENOENT) => {
            "mount points are made in the sandbox's own root and in its tmpfs, and nowhere else"
        }
        (Step::Mount, "openat2", libc::EXDEV) => {
            "the mount point is missing, and in another mount than its path says; or a link to what is masked leads out of its mount"
        }
        (Step::Exec, "openat2", libc::ELOOP) => {
            "in a root of its own, neither the program nor what runs it as a script may be a link like /proc/self/exe, which is the host's program"
        }
        (Step::Exec, "openat2" | "read", libc::EACCES) => {
            "in a root of its own a program must be readable: it is looked at before it is started"
        }
        (Step::Exec, "openat2" | "read", libc::EMFILE) => {
            "in a root of its own a program is looked at before it is started, which takes two descriptors: see RLIMIT_NOFILE"
        }
        (Step::Mount, "open_tree", libc::EINVAL) if user => {
            "a user namespace may not see what is hidden below other mounts: bind recursively"
        }
        (_, "mount_setattr", libc::EPERM) if user => {
            "a user namespace may not change how the host counts access times, nor map the owners of the host's files"
        }
        (Step::Root | Step::Mount, "move_mount", libc::EINVAL) => {
            "the descriptor is no detached mount, or it has been attached already: such a plan spawns once"
        }
        (Step::Pivot, "pivot_root", libc::EINVAL) => {
            "the caller's root is an initramfs or no mount point; Sandbox::allow_chroot is for that"
        }
        _ => return None,
    };
    Some(words)
}

/// Of a program that may not be started, and that lies where none may, or does not.
pub(crate) fn of_start(error: Error, noexec: bool) -> Error {
    if noexec && error.raw_os_error() == Some(libc::EACCES) {
        return error.hinting("the file system of the program is mounted noexec");
    }
    error
}

/// Of `newuidmap(1)`, which has failed and is only of use with rights of its own.
pub(crate) fn of_helper(error: Error, nosuid: bool, no_new_privs: bool) -> Error {
    match (nosuid, no_new_privs) {
        (true, _) => error.hinting(
            "the file system of the program is mounted nosuid: it is started without the rights that it needs",
        ),
        (false, true) => error.hinting(
            "the caller has no_new_privs, PR_SET_NO_NEW_PRIVS: no program that it starts has more rights than itself",
        ),
        (false, false) => error,
    }
}

/// What takes a capability in the child's own user namespace.
fn is_of_capability(step: Step) -> bool {
    matches!(step, Step::IdMap | Step::Propagation | Step::Root | Step::Mount | Step::Pivot | Step::Hostname)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_named_that_forbids() {
        const PLAIN: Namespaces = Namespaces::NET;
        let user = Namespaces::USER | Namespaces::MOUNT;
        let max = "user/max_user_namespaces";
        let debian = "kernel/unprivileged_userns_clone";
        let ubuntu = "kernel/apparmor_restrict_unprivileged_userns";
        let clone = (Step::Clone, "clone3");
        let fsmount = (Step::Mount, "fsmount");
        // Which call failed, how, with which namespaces, which switch forbids them, how the hint begins.
        let cases = [
            (clone, libc::ENOSPC, user, max, "user.max_user_namespaces is 0"),
            (clone, libc::ENOSPC, user, "", "one of the limits"),
            (clone, libc::ENOSPC, PLAIN, max, "one of the limits"),
            (clone, libc::EPERM, user, debian, "kernel.unprivileged_userns_clone is 0"),
            (clone, libc::EPERM, user, "", "the caller is in a chroot"),
            (clone, libc::EPERM, PLAIN, debian, "without a user namespace"),
            (clone, libc::EAGAIN, user, max, ""),
            (clone, libc::EPERM, Namespaces::empty(), "", ""),
            ((Step::IdMap, "write"), libc::EPERM, user, ubuntu, "kernel.apparmor_restrict"),
            ((Step::Mount, "fsopen"), libc::EACCES, user, ubuntu, "kernel.apparmor_restrict"),
            ((Step::Exec, "execve"), libc::EACCES, user, ubuntu, ""),
            (fsmount, libc::EPERM, user, "", "in a user namespace, proc"),
            (fsmount, libc::EPERM, PLAIN, "", ""),
            ((Step::Mount, "openat2"), libc::ENOENT, user, "", "mount points are made"),
            ((Step::BoundingSet, "prctl"), libc::EPERM, PLAIN, "", "it takes CAP_SETPCAP"),
            ((Step::Capabilities, "capset"), libc::EPERM, PLAIN, "", "the caller does not"),
            ((Step::Seccomp, "seccomp"), libc::EACCES, PLAIN, "", "it takes Sandbox::no_new_privs"),
            ((Step::Landlock, "landlock_restrict_self"), libc::EPERM, PLAIN, "", "it takes Sandbox::no_new_privs"),
            ((Step::Mount, "openat2"), libc::ELOOP, user, "", ""),
            ((Step::Exec, "openat2"), libc::ELOOP, user, "", "in a root of its own, neither"),
            ((Step::Exec, "openat2"), libc::EACCES, user, "", "in a root of its own a program must"),
            ((Step::Exec, "read"), libc::EMFILE, user, "", "in a root of its own a program is"),
            ((Step::Root, "statx"), libc::ESTALE, PLAIN, "", "something else is there"),
            ((Step::Mount, "open_tree"), libc::EINVAL, user, "", "a user namespace may not see"),
            ((Step::Mount, "open_tree"), libc::EINVAL, PLAIN, "", ""),
            ((Step::Pivot, "pivot_root"), libc::EINVAL, user, "", "the caller's root is an initramfs"),
        ];
        for ((step, call), errno, namespaces, switch, start) in cases {
            let value = if switch == ubuntu { "1\n" } else { "0\n" };
            let read = |name: &str| (name == switch).then(|| value.to_owned());
            let found = of(&Error::os(step, call, errno), namespaces, &read).unwrap_or_default();
            assert!(found.starts_with(start) && found.is_empty() == start.is_empty(), "{call} {errno}: {found}");
        }
    }
}
