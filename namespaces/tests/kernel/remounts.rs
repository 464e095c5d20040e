//! Flags of mounts where the kernel lacks `mount_setattr(2)`.

use crate::fallbacks::{lacking, unsupported, used};
use crate::roots::Busybox;
use crate::support::{program, read, refused, without};
use cofferdam_namespaces::{Fallbacks, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio, Step};
use cofferdam_testkit::fault::{Fault, Who};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;

/// What is mounted where, with which flags.
const LIST: &str = "while read -r a b c d at options rest; do echo $at $options; done </proc/self/mountinfo";

fn inside(root: &Busybox, script: &str) -> Sandbox {
    let sandbox = program("/bin/sh").args(["-c", script]).env("PATH", "/bin").stdout(Stdio::Pipe);
    let sandbox = sandbox
        .namespaces(Namespaces::MOUNT | Namespaces::PID | Namespaces::CGROUP)
        .root(Root::directory(root.path()))
        .mount(Mount::proc("/proc"));
    sandbox.fallbacks(Fallbacks::all() - Fallbacks::REMOUNT)
}

/// The same, where flags may be set otherwise.
fn remounted(root: &Busybox, script: &str) -> Sandbox {
    inside(root, script).fallbacks(Fallbacks::REMOUNT)
}

/// What it prints, line by line in order, and by which fallbacks it came to be.
fn lines(sandbox: &Sandbox) -> (Vec<String>, Fallbacks) {
    let mut child = sandbox.spawn().unwrap();
    let mut lines: Vec<String> = read(&mut child).lines().map(str::to_owned).collect();
    lines.sort();
    assert!(child.wait().unwrap().success());
    (lines, used(&child))
}

fn on_an_older_kernel<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    lacking(Who::Child, libc::SYS_mount_setattr, Fault::EVERY, libc::ENOSYS, run)
}

/// For a test that needs the other way to fail a call.
pub(crate) fn hidden<T>(number: i64, run: impl FnOnce() -> T) -> T {
    let rules = [(number, Vec::new())].into_iter().collect();
    let (allow, lacks) = (seccompiler::SeccompAction::Allow, seccompiler::SeccompAction::Errno(libc::ENOSYS as u32));
    let filter = seccompiler::SeccompFilter::new(rules, allow, lacks, std::env::consts::ARCH.try_into().unwrap());
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    // Of this thread, which ends with the run.
    seccompiler::apply_filter(&program).unwrap();
    run()
}

/// The same mounts with the same flags.
pub(crate) fn without_mount_setattr() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/secret"), "x").unwrap();
    let strict = inside(&root, LIST)
        .user(IdMap::root())
        .mount(Mount::dev("/dev"))
        .mount(Mount::dev("/dev2").read_only())
        .mount(Mount::cgroup("/sys/fs/cgroup"))
        .mount(Mount::bind(source.path(), "/data").read_only().noexec().nosymfollow())
        .mount(Mount::bind("/bin/busybox", "/program").non_recursive().allow_suid())
        .mount(Mount::tmpfs("/tmp"))
        .mount(Mount::bind(source.path(), "/tmp/deep").allow_devices())
        .mount(Mount::mask("/etc/secret"))
        .mount(Mount::mask("/tmp/deep"));
    let sandbox = strict.clone().fallbacks(Fallbacks::REMOUNT);
    let (expected, none) = lines(&sandbox);
    assert_eq!(none, Fallbacks::empty());
    assert!(expected.iter().any(|line| line.starts_with("/data ro,nosuid,nodev,noexec")), "{expected:?}");
    let (found, report) = on_an_older_kernel(|| lines(&sandbox));
    assert_eq!(report, Fallbacks::REMOUNT);
    assert_eq!(found, expected);
    // Unasked it is an error.
    unsupported(&on_an_older_kernel(|| refused(&strict)), Step::Mount, "mount_setattr");
}

/// What is mounted below the source would be without the flags: an error, unless it is not wanted. What the host denies stays denied.
pub(crate) fn binds_alone_without_mount_setattr() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    mount("source", source.path(), "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, None).unwrap();
    let below = source.path().join("below");
    fs::create_dir(&below).unwrap();
    let bind = || Mount::bind(source.path(), "/data").allow_suid().allow_devices().read_only();
    let script = format!("{LIST}; ls /data/below; touch /data/made 2>&-; true");
    let early = remounted(&root, &script).mount(bind()).prepare(Fds::new()).unwrap();
    mount("below", &below, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(below.join("file"), "x").unwrap();
    let sandbox = |bind: Mount| remounted(&root, &script).mount(bind);
    let has = |lines: &[String], line: &str| lines.iter().any(|one| one == line);
    let (all, none) = lines(&sandbox(bind().noatime()));
    assert!(has(&all, "file") && has(&all, "/data ro,nosuid,noexec,noatime"), "{all:?}");
    assert!(has(&all, "/data/below ro,noatime"), "{all:?}");
    assert_eq!(none, Fallbacks::empty());
    unsupported(&on_an_older_kernel(|| refused(&sandbox(bind()))), Step::Mount, "mount_setattr");
    let (alone, report) = on_an_older_kernel(|| lines(&sandbox(bind().noatime().non_recursive())));
    assert_eq!(report, Fallbacks::REMOUNT);
    assert!(has(&alone, "/data ro,nosuid,noexec,noatime"), "{alone:?}");
    assert!(!alone.iter().any(|line| line.contains("below")) && !has(&alone, "file"), "{alone:?}");
    // Times stay as they are, if nothing is said of them.
    let (alone, _) = on_an_older_kernel(|| lines(&sandbox(bind().non_recursive())));
    assert!(has(&alone, "/data ro,nosuid,noexec,relatime"), "{alone:?}");
    assert!(!source.path().join("made").exists());
    // What has come since the plan was made.
    let late = on_an_older_kernel(|| {
        let mut child = early.spawn().unwrap();
        let text = read(&mut child);
        assert!(child.wait().unwrap().success());
        text
    });
    assert!(late.contains("/data ro,nosuid,noexec") && !late.contains("below") && !late.contains("file"), "{late}");
    // In a user namespace what is below must stay in sight.
    let user = sandbox(bind().non_recursive()).user(IdMap::root());
    let error = refused(&user);
    let told = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(told, (Step::Mount, Some("open_tree"), Some(libc::EINVAL)), "{error}");
    drop(early);
    unmount(&below, UnmountFlags::empty()).unwrap();
    unmount(source.path(), UnmountFlags::empty()).unwrap();
}

/// What takes more than one mount, and what comes detached: the missing call is named.
pub(crate) fn what_only_mount_setattr_does() {
    let root = Busybox::new();
    let base = || remounted(&root, "true").user(IdMap::root());
    for (sandbox, step) in
        [(base().read_only_root(), Step::Root), (base().mount(Mount::read_only_path("/bin")), Step::Mount)]
    {
        unsupported(&on_an_older_kernel(|| refused(&sandbox)), step, "mount_setattr");
    }
    if nix::unistd::geteuid().is_root() {
        let sandbox = base().mount(Mount::attach("tree", "/opt"));
        let spawn = || sandbox.spawn_with(Fds::new().bind("tree", root.mount()));
        unsupported(&on_an_older_kernel(spawn).unwrap_err(), Step::Mount, "mount_setattr");
    }
}

/// It finds the mount by a path in `/proc`, which the sandbox may have covered: then it fails, and whatever the path leads to, the mount itself is asked whether it
/// has its flags.
pub(crate) fn a_remount_that_goes_elsewhere() {
    let source = tempfile::tempdir().unwrap();
    let sandbox = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::MOUNT | Namespaces::PID);
    let sandbox = sandbox.fallbacks(Fallbacks::REMOUNT);
    let bind = Mount::bind(source.path(), source.path()).read_only();
    let covered = sandbox.clone().mount(Mount::tmpfs("/proc")).mount(bind.clone());
    let error = on_an_older_kernel(|| refused(&covered));
    let told = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(told, (Step::Mount, Some("mount"), Some(libc::ENOENT)), "{error}");
    // Before Linux 5.10 mount(2) takes no notice of this one.
    let links = Mount::bind(source.path(), source.path()).allow_suid().allow_devices().nosymfollow();
    let links = sandbox.clone().mount(links);
    let error = without(libc::SYS_mount, 1, || hidden(libc::SYS_mount_setattr, || refused(&links)));
    unsupported(&error, Step::Mount, "fstatfs");
    // The first one makes all mounts private.
    let sandbox = sandbox.mount(bind);
    let error = without(libc::SYS_mount, 1, || hidden(libc::SYS_mount_setattr, || refused(&sandbox)));
    let told = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(told, (Step::Mount, Some("fstatfs"), Some(libc::ESTALE)), "{error}");
}
