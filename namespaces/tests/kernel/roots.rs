//! A root of its own: what is inside is all there is.

use crate::attacks::ANYWHERE;
use crate::support::{output_with, program, read, refused, without};
use cofferdam_namespaces::{ErrorKind, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio, Step};
use cofferdam_testkit::fault::{Poke, weaken};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, UnmountFlags, open_tree, unmount};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A root file system of one program.
pub(crate) struct Busybox(tempfile::TempDir);

impl Busybox {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
        for name in [
            "sh", "ls", "cat", "ps", "true", "stat", "readlink", "hostname", "touch", "grep", "pwd", "chmod", "head",
            "wc", "env",
        ] {
            symlink("busybox", root.path().join("bin").join(name)).unwrap();
        }
        Busybox(root)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn mount(&self) -> OwnedFd {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, self.path(), flags).unwrap()
    }

    fn output(&self, sandbox: Sandbox) -> String {
        output_with(sandbox, Fds::new().bind("root", self.mount()))
    }
}

fn sh(script: &str) -> Sandbox {
    program("/bin/sh")
        .args(["-c", script])
        .env("PATH", "/bin")
        .namespaces(Namespaces::MOUNT | Namespaces::PID)
        .root(Root::mount("root"))
        .mount(Mount::proc("/proc"))
        .mount(Mount::dev("/dev"))
}

fn with_and_without_user_namespace(script: &str, expected: &str) {
    let root = Busybox::new();
    assert_eq!(root.output(sh(script)), expected);
    assert_eq!(root.output(sh(script).user(IdMap::root())), expected, "in a user namespace");
}

pub(crate) fn the_root_is_all_there_is() {
    with_and_without_user_namespace("pwd; echo /* /../../*", "/\n/bin /dev /proc /../../bin /../../dev /../../proc\n");
    // No mount of the host is left, not even hidden under the new root, but, in a user namespace, the devices that it cannot make.
    let points = "while read a b c d point rest; do echo $point; done </proc/self/mountinfo";
    let root = Busybox::new();
    let seen = |sandbox| {
        let mut seen: Vec<_> = root.output(sandbox).lines().map(str::to_owned).collect();
        seen.sort();
        seen.join(" ")
    };
    assert_eq!(seen(sh(points)), "/ /dev /dev/pts /dev/shm /proc");
    let with_the_hosts = without(libc::SYS_umount2, 0, || seen(sh(points)));
    assert!(with_the_hosts.len() > "/ /dev /dev/pts /dev/shm /proc".len(), "they would be there: {with_the_hosts}");
    let devices = "/dev/full /dev/null /dev/pts /dev/random /dev/shm /dev/tty /dev/urandom /dev/zero";
    assert_eq!(seen(sh(points).user(IdMap::root())), format!("/ /dev {devices} /proc"));
}

pub(crate) fn it_is_pid_1_of_its_own_proc() {
    with_and_without_user_namespace("ps -o pid,comm; true", "PID   COMMAND\n    1 sh\n    2 ps\n");
}

const DEVICES: &str = "stat -c %t:%T /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
    echo x >/dev/null && [ -z \"$(cat /dev/null)\" ] && ! echo x 2>/dev/null >/dev/full && echo written
    head -c 5 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c
    readlink /dev/fd && readlink /dev/stdin && readlink /dev/ptmx
    touch /dev/shm/file && stat -c %a /dev/shm /dev/null && ls /dev/pts";
const THEY_WORK: &str =
    "1:3\n1:5\n1:7\n1:8\n1:9\n5:0\nwritten\n5\n5\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n1777\n666\nptmx\n";

pub(crate) fn devices_work() {
    with_and_without_user_namespace(DEVICES, THEY_WORK);
}

/// The new /dev over the host's, which it must not take its devices from after it has hidden them.
pub(crate) fn devices_work_on_the_hosts_root() {
    let namespaces = Namespaces::MOUNT | Namespaces::PID;
    let sandbox = crate::support::sh(DEVICES).namespaces(namespaces).user(IdMap::root()).mount(Mount::dev("/dev"));
    assert_eq!(output_with(sandbox, Fds::new()), THEY_WORK);
}

/// Without a user namespace they are its own: root inside can change them, and the host's stay as they are.
pub(crate) fn devices_are_its_own() {
    // Not one that `devices_of_the_host_are_kept` lets itself be attacked with, beside this.
    let before = fs::metadata("/dev/zero").unwrap();
    let root = Busybox::new();
    assert_eq!(root.output(sh("chmod 600 /dev/zero && stat -c %a /dev/zero; umask")), "600\n0022\n");
    let after = fs::metadata("/dev/zero").unwrap();
    assert_eq!((before.mode(), before.ctime()), (after.mode(), after.ctime()));
}

/// In a user namespace of root's they are the host's, and root inside owns them: their modes stay as they are.
pub(crate) fn devices_of_the_host_are_kept() {
    let before = fs::metadata("/dev/full").unwrap();
    let root = Busybox::new();
    // The mode that it has: the attack leaves only its time.
    let change = |script: &str| {
        let sandbox = sh(script).user(IdMap::root()).stdout(Stdio::Pipe);
        let mut child = sandbox.spawn_with(Fds::new().bind("root", root.mount())).unwrap();
        let said = read(&mut child);
        (said, child.wait().unwrap().success())
    };
    let script =
        "chmod 666 /dev/full && echo changed; touch /dev/null 2>&- && echo touched; echo x >/dev/null && echo ok";
    assert_eq!(change(script), ("ok\n".to_owned(), true));
    let after = fs::metadata("/dev/full").unwrap();
    assert_eq!((before.mode(), before.ctime_nsec()), (after.mode(), after.ctime_nsec()));
    let writable = Poke { number: libc::SYS_mount_setattr, argument: 3, word: 0, value: 0 };
    let (weakened, (said, _)) = weaken(writable, || change(script));
    assert!(weakened > 0 && said.starts_with("changed\n"), "the attack is none: {said}");
    assert_ne!(fs::metadata("/dev/full").unwrap().ctime_nsec(), after.ctime_nsec());
}

/// A mount of a shared directory is a peer of it: what is mounted inside must not appear outside. The leak check would find it too.
pub(crate) fn mounts_inside_do_not_propagate() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(before.lines().any(|line| line.contains(" / / ") && line.contains(" shared:")), "the test's own premise");
    let root = Busybox::new();
    let meanwhile = || {
        let mut child = sh("cat").stdin(Stdio::Pipe).spawn_with(Fds::new().bind("root", root.mount())).unwrap();
        let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let devices = fs::read_dir(root.path().join("dev")).unwrap().count();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        (seen, devices)
    };
    assert_eq!(meanwhile(), (before, 0));
    // Without the second call that makes mounts private, that of the root.
    // The kernel does not pivot then, but it is too late.
    let _ = without(libc::SYS_mount, 1, || sh("true").spawn_with(Fds::new().bind("root", root.mount())));
    assert!(fs::read_dir(root.path().join("dev")).unwrap().count() > 0, "they would");
    for point in ["proc", "dev"] {
        unmount(root.path().join(point), UnmountFlags::DETACH).unwrap();
    }
}

/// Links in the root that lead outside lead nowhere: CVE-2024-45310 and its kin.
pub(crate) fn links_out_of_the_root_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("sentinel"), "").unwrap();
    let before = fs::metadata(outside.path()).unwrap();
    for name in ["dev", "proc"] {
        let root = Busybox::new();
        symlink(outside.path(), root.path().join(name)).unwrap();
        let result = sh("true").spawn_with(Fds::new().bind("root", root.mount()));
        let error = result.unwrap_err();
        assert_eq!((error.step(), error.kind()), (Step::Mount, ErrorKind::NotFound), "{error}");
        // A link to a directory that is there, seen from inside, is followed there.
        let root = Busybox::new();
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        symlink("/elsewhere", root.path().join(name)).unwrap();
        let listed = root.output(sh("ls -d /elsewhere/self /elsewhere/null 2>/dev/null; true"));
        assert_eq!(listed, if name == "dev" { "/elsewhere/null\n" } else { "/elsewhere/self\n" });
    }
    let after = fs::metadata(outside.path()).unwrap();
    assert_eq!((before.mode(), before.mtime_nsec(), before.nlink()), (after.mode(), after.mtime_nsec(), after.nlink()));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// Somebody renames things all the time, so that the kernel cannot be sure of a path with `..` in it, and says so: it is tried again.
pub(crate) fn renames_elsewhere_do_not_matter() {
    let root = Busybox::new();
    for dir in ["run", "run/p", "var"] {
        fs::create_dir(root.path().join(dir)).unwrap();
    }
    symlink("../run", root.path().join("var/run")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (elsewhere.path().join("a"), elsewhere.path().join("b"));
            fs::write(&a, "").unwrap();
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&a, &b).unwrap();
                fs::rename(&b, &a).unwrap();
            }
        });
        for _ in 0..200 {
            let sandbox = program("/bin/true").namespaces(Namespaces::MOUNT | Namespaces::PID);
            let sandbox = sandbox.root(Root::mount("root")).mount(Mount::proc("/var/run/p"));
            let result = sandbox.spawn_with(Fds::new().bind("root", root.mount())).and_then(|child| child.wait());
            if result.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            assert!(result.unwrap().success());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// No descriptor that is still open before the program starts is a way out: CVE-2024-21626.
pub(crate) fn no_working_directory_outside() {
    let leak = fs::File::open("/").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    for path in
        (0..64).map(|n| format!("/proc/self/fd/{n}")).chain(["/proc/self/cwd", "/proc/1/root"].map(String::from))
    {
        let root = Busybox::new();
        let error = sh("pwd").working_directory(&path).spawn_with(Fds::new().bind("root", root.mount())).unwrap_err();
        assert_eq!(error.step(), Step::WorkingDirectory, "{path}");
        assert!([libc::ELOOP, libc::ENOENT].map(Some).contains(&error.raw_os_error()), "{path}: {error}");
    }
    let root = Busybox::new();
    assert_eq!(root.output(sh("pwd").working_directory("/proc")), "/proc\n");
    // Would one be followed, it is seen to lead out before the program starts.
    let outside = sh("pwd").working_directory(format!("/proc/self/fd/{}", leak.as_raw_fd()));
    let (weakened, result) = weaken(ANYWHERE, || outside.spawn_with(Fds::new().bind("root", root.mount())));
    let error = result.unwrap_err();
    assert!(weakened > 0);
    let told = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(told, (Step::WorkingDirectory, Some("getcwd"), Some(libc::ENOENT)), "{error}");
}

/// A detached mount can be attached once, and a sandbox with a root needs a mount namespace.
pub(crate) fn roots_that_cannot_be() {
    let root = Busybox::new();
    let plan = sh("true").prepare(Fds::new().bind("root", root.mount())).unwrap();
    assert!(plan.spawn().unwrap().wait().unwrap().success());
    let again = plan.spawn().unwrap_err();
    assert_eq!((again.step(), again.raw_os_error()), (Step::Root, Some(libc::EINVAL)));
    let error = refused(&program("/bin/true").root(Root::mount("root")));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let no_mount = fs::File::open("/").unwrap();
    let error = sh("true").spawn_with(Fds::new().bind("root", no_mount)).unwrap_err();
    assert_eq!(error.step(), Step::Root, "{error}");
}
