//! What an errno does not say: on which file system a program lies that cannot be started, or has no rights.

use crate::faults::fork;
use crate::support::{program, refused};
use cofferdam_namespaces::{ErrorKind, IdMap, Mount, Namespaces, Sandbox, Seccomp, Step};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NOEXEC: &str = "the file system of the program is mounted noexec";

fn hint_of(sandbox: &Sandbox) -> Option<&'static str> {
    let error = refused(sandbox);
    assert_eq!((error.step(), error.kind()), (Step::Exec, ErrorKind::PermissionDenied), "{error}");
    assert_eq!(error.hint().is_some(), error.to_string().ends_with(')') && error.to_string().contains(" (the "));
    error.hint()
}

/// As the child sees it, in whose mounts it lies.
pub(crate) fn a_program_without_execution() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| program(name).user(IdMap::root()).namespaces(Namespaces::MOUNT);
    let bound = Mount::bind("/usr/bin", folder.path());
    let there = folder.path().join("true");
    let there = there.to_str().unwrap();
    let noexec = inside(there).mount(bound.clone().noexec());
    assert_eq!(hint_of(&noexec), Some(NOEXEC));
    assert!(inside(there).mount(bound).spawn().unwrap().wait().unwrap().success());
    // Looked for in PATH, and found nowhere else.
    let searched = inside("true").env("PATH", format!("{}:/nowhere", folder.path().display()));
    assert_eq!(hint_of(&searched.mount(Mount::bind("/usr/bin", folder.path()).noexec())), Some(NOEXEC));
    // A file without the bit is another matter.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(hint_of(&program(&file)), None);
    // A filter stands before the question; nobody answers then.
    let filtered = noexec.no_new_privs().seccomp(Seccomp::no_terminal_injection());
    assert_eq!(hint_of(&filtered), None);
}

/// A tmpfs of the host's.
pub(crate) fn a_tmpfs_without_execution() {
    let folder = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    mount(Some("x"), folder.path(), Some("tmpfs"), MsFlags::MS_NOEXEC, none).unwrap();
    let file = folder.path().join("true");
    fs::copy("/bin/true", &file).unwrap();
    assert_eq!(hint_of(&program(&file)), Some(NOEXEC));
    mount(none, folder.path(), none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none).unwrap();
    assert!(program(&file).spawn().unwrap().wait().unwrap().success());
    // Only the file's own mode is in the way now.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(hint_of(&program(&file)), None);
    umount2(folder.path(), MntFlags::empty()).unwrap();
}

/// The helper is set-user-id, which its file system or the caller may forbid.
pub(crate) fn a_helper_without_its_rights() {
    const USER: u32 = 65534;
    let (helper, none) = (Path::new("/usr/bin/newuidmap"), None::<&str>);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{USER}:200000:1000\n")).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let lists = ["/etc/subuid", "/etc/subgid"];
    for list in lists {
        mount(Some(file.path()), list, none, MsFlags::MS_BIND, none).unwrap();
    }
    mount(Some(helper), helper, none, MsFlags::MS_BIND, none).unwrap();
    let remount = |flags| mount(none, helper, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none).unwrap();
    // In a process of that user.
    let as_user = |no_new_privs: bool, expected: Option<&'static str>| {
        let caller = fork(|| {
            setgroups(&[]).unwrap();
            setresgid(Gid::from_raw(USER), Gid::from_raw(USER), Gid::from_raw(USER)).unwrap();
            setresuid(Uid::from_raw(USER), Uid::from_raw(USER), Uid::from_raw(USER)).unwrap();
            nix::sys::prctl::set_dumpable(true).unwrap();
            if no_new_privs {
                nix::sys::prctl::set_no_new_privs().unwrap();
            }
            let sandbox = program("/bin/true").user(IdMap::subordinate());
            let Some(expected) = expected else {
                assert!(sandbox.spawn().unwrap().wait().unwrap().success());
                return;
            };
            let error = refused(&sandbox);
            assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::IdMap), "{error}");
            assert_eq!(error.object().map(Path::new), Some(helper), "{error}");
            assert!(error.hint().unwrap().starts_with(expected), "{error}");
        });
        assert_eq!(waitpid(caller, None), Ok(WaitStatus::Exited(caller, 0)), "{expected:?}");
    };
    as_user(false, None);
    as_user(true, Some("the caller has no_new_privs"));
    remount(MsFlags::MS_NOSUID);
    as_user(false, Some("the file system of the program is mounted nosuid"));
    umount2(helper, MntFlags::empty()).unwrap();
    for list in lists {
        umount2(list, MntFlags::empty()).unwrap();
    }
}
