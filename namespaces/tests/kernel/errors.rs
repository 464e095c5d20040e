//! A spawn that cannot succeed says why, and leaves nothing.

use crate::faults::fork;
use crate::support::{output, program, refused};
use crate::walks::prove;
use cofferdam_namespaces::{ErrorKind, Fds, IdMap, Mount, Namespaces, Root, Scope, Stdio, Step};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(crate) fn missing_program() {
    let error = refused(&program("/nowhere/program"));
    assert_eq!(
        (error.kind(), error.step(), error.raw_os_error()),
        (ErrorKind::NotFound, Step::Exec, Some(libc::ENOENT))
    );
    assert_eq!(error.object().map(Path::new), Some(Path::new("/nowhere/program")));
    assert_eq!(error.system_call(), Some("execve"));
}

pub(crate) fn program_not_executable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    let error = refused(&program(&file));
    assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::Exec));
    // A program whose interpreter is missing is missing too, says execve.
    fs::write(&file, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(refused(&program(&file)).kind(), ErrorKind::NotFound);
}

pub(crate) fn missing_working_directory() {
    let error = refused(&program("/bin/true").working_directory("/nowhere"));
    assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::WorkingDirectory));
    assert_eq!(error.object().map(Path::new), Some(Path::new("/nowhere")));
}

/// A directory that no path leads to is none, however the child came there (CVE-2024-21626): here it was unmounted under the caller's feet. Not
/// asked for, it is left as it is.
pub(crate) fn working_directory_out_of_reach() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let folder = tempfile::tempdir().unwrap();
    let caller = fork(|| {
        mount(Some("x"), folder.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::env::set_current_dir(folder.path()).unwrap();
        umount2(folder.path(), MntFlags::MNT_DETACH).unwrap();
        assert!(program("/bin/true").spawn().unwrap().wait().unwrap().success());
        let error = refused(&program("/bin/true").working_directory("."));
        assert_eq!((error.step(), error.raw_os_error()), (Step::WorkingDirectory, Some(libc::ENOENT)), "{error}");
        assert_eq!(error.system_call(), Some("getcwd"));
    });
    assert_eq!(waitpid(caller, None), Ok(WaitStatus::Exited(caller, 0)));
}

/// Without privileges and without a user namespace.
pub(crate) fn clone_refused() {
    let error = refused(&program("/bin/true").namespaces(Namespaces::NET));
    assert_eq!(
        (error.kind(), error.step(), error.raw_os_error()),
        (ErrorKind::PermissionDenied, Step::Clone, Some(libc::EPERM))
    );
    assert_eq!(error.system_call(), Some("clone3"));
    assert_eq!(error.object().unwrap(), "NET");
    assert!(error.hint().unwrap().contains("CAP_SYS_ADMIN"), "{error}");
}

/// The errno says that there is no space left on a device; the hint says which switch it is.
pub(crate) fn user_namespaces_switched_off() {
    let scope = Scope::new(IdMap::root(), Namespaces::empty()).unwrap();
    #[expect(unsafe_code, reason = "a user namespace whose limits the test may change")]
    // SAFETY: writes a file, and is refused a process.
    let error = unsafe {
        scope.run(|| {
            let sandbox = program("/bin/true").user(IdMap::root());
            fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
            refused(&sandbox)
        })
    };
    let error = error.unwrap();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Clone, Some(libc::ENOSPC)), "{error}");
    assert_eq!(error.kind(), ErrorKind::LimitReached);
    assert_eq!(error.hint(), Some("user.max_user_namespaces is 0, which switches user namespaces off"));
    assert!(
        error.to_string().ends_with("(user.max_user_namespaces is 0, which switches user namespaces off)"),
        "{error}"
    );
}

/// A mount point that is no directory, or is not there: named, with its errno.
pub(crate) fn mount_point_missing() {
    let base = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::MOUNT | Namespaces::PID);
    let error = refused(&base.clone().mount(Mount::proc("/nowhere")));
    assert_eq!(
        (error.step(), error.system_call(), error.raw_os_error()),
        (Step::Mount, Some("openat2"), Some(libc::ENOENT))
    );
    assert_eq!(error.object().map(Path::new), Some(Path::new("/nowhere")));
    let error = refused(&base.mount(Mount::proc("/etc/passwd")));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENOTDIR)));
}

/// What makes no sense is found before the clone, and named.
pub(crate) fn invalid_configuration() {
    let base = program("/bin/true");
    let mounts = base.clone().namespaces(Namespaces::MOUNT | Namespaces::PID);
    let cases = [
        (program(""), "program"),
        (program("/bin/tr\0ue"), "program"),
        (base.clone().arg("a\0b"), "argument"),
        (base.clone().env("", "x"), "environment variable"),
        (base.clone().env("A=B", "x"), "environment variable"),
        (base.clone().env("A", "x\0y"), "environment variable"),
        (base.clone().working_directory("/tm\0p"), "working directory"),
        (base.clone().hostname("x"), "hostname"),
        (base.clone().namespaces(Namespaces::UTS).hostname("x".repeat(65)), "hostname"),
        (base.clone().namespaces(Namespaces::UTS).hostname("x\0"), "hostname"),
        (base.clone().mount(Mount::proc("/proc")), "mount on \"/proc\""),
        (mounts.clone().mount(Mount::proc("proc")), "mount on \"proc\""),
        (mounts.clone().mount(Mount::proc("/")), "mount on \"/\""),
        (mounts.clone().mount(Mount::proc("/proc/../dev")), "mount on \"/proc/../dev\""),
        (base.clone().namespaces(Namespaces::MOUNT).mount(Mount::proc("/proc")), "mount on \"/proc\""),
        (base.clone().namespaces(Namespaces::from_bits_retain(libc::CLONE_FILES as u64)), "namespaces"),
        (base.clone().root(Root::mount("root")), "root"),
        (base.clone().namespaces(Namespaces::MOUNT).root(Root::mount("root")), "descriptor \"root\""),
        (base.clone().stdout(Stdio::fd("log")), "descriptor \"log\""),
    ];
    for (sandbox, object) in cases {
        let error = refused(&sandbox);
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure), "{error}");
        assert!(error.object().unwrap().to_string_lossy().starts_with(object), "{error}");
        assert_eq!(error.raw_os_error(), None, "{error}");
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::InvalidInput);
    }
    prove("invalid_configuration", [Step::Configure]);
}

/// Descriptors that are bound twice, or to nothing.
pub(crate) fn invalid_descriptors() {
    let null = || fs::File::open("/dev/null").unwrap();
    let unused = program("/bin/true").prepare(Fds::new().bind("log", null())).unwrap_err();
    assert_eq!(
        unused.to_string(),
        "check the configuration: descriptor \"log\": is bound, but the sandbox does not use it"
    );
    let twice = program("/bin/true").stdin(Stdio::fd("log"));
    let twice = twice.prepare(Fds::new().bind("log", null()).bind("log", null())).unwrap_err();
    assert_eq!(twice.to_string(), "check the configuration: descriptor \"log\": is bound twice");
}

/// PATH is the sandbox's own; a file that may not be started is remembered, but does not hide one that may.
pub(crate) fn path_is_searched_as_execvp_does() {
    let folder = tempfile::tempdir().unwrap();
    let (closed, open) = (folder.path().join("closed"), folder.path().join("open"));
    for (dir, mode) in [(&closed, 0o644), (&open, 0o755)] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("tool"), "#!/bin/sh\necho found\n").unwrap();
        fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = |dirs: &[&Path]| std::env::join_paths(dirs).unwrap();
    let tool = |dirs: &[&Path]| program("tool").env("PATH", path(dirs));
    let nowhere = Path::new("/nowhere");
    assert_eq!(output(tool(&[nowhere, &closed, &open])), "found\n");
    let error = refused(&tool(&[&closed, nowhere]));
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::PermissionDenied, Some("tool")));
    // Also if the last place is no directory.
    let error = refused(&tool(&[&closed, Path::new("/dev/null")]));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let error = refused(&tool(&[nowhere]));
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::NotFound, Some("tool")));
    // An empty part is the working directory, the sandbox's.
    assert_eq!(output(program("tool").env("PATH", "/nowhere:").working_directory(&open)), "found\n");
    // Without PATH, where execvp looks.
    assert_eq!(output(program("sh").args(["-c", "echo default"])), "default\n");
}
