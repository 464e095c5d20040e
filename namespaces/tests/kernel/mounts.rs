//! What is mounted in a sandbox, and where.

use crate::roots::Busybox;
use crate::support::{all_namespaces, output_with, program, read, refused};
use cofferdam_namespaces::{ErrorKind, Fds, IdMap, Mount, Namespaces, Propagation, Root, Sandbox, Stdio, Step};
use cofferdam_testkit::fault::{Action, Fault, Poke, Watch, Who, weaken};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, open_tree, unmount,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A script in a root of its own, as root of a user namespace.
pub(crate) fn sh(script: &str) -> Sandbox {
    program("/bin/sh").args(["-c", script]).env("PATH", "/bin").namespaces(all_namespaces()).user(IdMap::root())
}

pub(crate) fn inside(root: &Busybox, script: &str) -> Sandbox {
    sh(script).root(Root::directory(root.path())).mount(Mount::proc("/proc"))
}

pub(crate) fn output(sandbox: Sandbox) -> String {
    output_with(sandbox, Fds::new())
}

/// What is mounted at this place: its options, its file system and that one's options.
const MOUNT_OF: &str = "of() { while read a b c d point options rest; do [ $point != $1 ] || last=\"$options ${rest#*- }\"; done </proc/self/mountinfo; echo $last; }; ";

pub(crate) fn a_directory_as_root() {
    let root = Busybox::new();
    let plan = inside(&root, "echo /*").stdout(Stdio::Pipe).prepare(Fds::new()).unwrap();
    for _ in 0..2 {
        let mut child = plan.spawn().unwrap();
        assert_eq!(read(&mut child), "/bin /proc\n");
        assert!(child.wait().unwrap().success());
    }
    // What the plan is about is gone, and something else is at its place.
    let (aside, path) = (root.path().with_extension("aside"), root.path());
    let other = Busybox::new();
    fs::create_dir(other.path().join("prize")).unwrap();
    fs::rename(path, &aside).unwrap();
    fs::rename(other.path(), path).unwrap();
    let error = plan.spawn().unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Root, Some(libc::ESTALE)), "{error}");
    // Who looked at the path alone would be in there.
    assert_eq!(output(inside(&root, "echo /*")), "/bin /prize /proc\n");
    fs::rename(path, other.path()).unwrap();
    fs::rename(&aside, path).unwrap();
    assert!(plan.spawn().unwrap().wait().unwrap().success(), "it is back");
    let error = refused(&program("/bin/true").namespaces(Namespaces::MOUNT).root(Root::directory("/nowhere")));
    assert_eq!((error.step(), error.kind()), (Step::Prepare, ErrorKind::NotFound));
    let error = refused(&program("/bin/true").namespaces(Namespaces::MOUNT).root(Root::directory("/etc/passwd")));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

/// An empty root, into which a file is bound upon a mount point that is made.
pub(crate) fn an_empty_root() {
    let sandbox =
        |script| sh(script).root(Root::Empty).mount(Mount::bind("/bin/busybox", "/bin/sh")).mount(Mount::proc("/proc"));
    assert_eq!(output(sandbox("echo /* /bin/*")), "/bin /proc /bin/sh\n");
    assert_eq!(output(sandbox("echo x >/made && read -r line </made && echo $line")), "x\n");
    let error = "if echo x 2>&- >/made; then echo made; else echo refused; fi";
    assert_eq!(output(sandbox(error).read_only_root()), "refused\n");
}

pub(crate) fn a_tmpfs_is_as_asked() {
    let root = Busybox::new();
    let script = "busybox stat -f -c '%b %S %c' /tmp; stat -c %a /tmp; touch /tmp/1 /tmp/2 /tmp/3 2>&-; echo /tmp/*";
    let tmpfs = Mount::tmpfs("/tmp").size(1 << 20).inodes(3).mode(0o1777);
    assert_eq!(output(inside(&root, script).mount(tmpfs)), "256 4096 3\n1777\n/tmp/1 /tmp/2\n");
    let script = format!("{MOUNT_OF} of /tmp; of /proc");
    let text = output(inside(&root, &script).mount(Mount::tmpfs("/tmp").read_only().noexec().noatime()));
    assert!(text.starts_with("ro,nosuid,nodev,noexec,noatime tmpfs none"), "{text}");
    assert!(text.contains("\nrw,nosuid,nodev,noexec,relatime proc none"), "{text}");
}

pub(crate) fn file_systems_of_its_own() {
    let root = Busybox::new();
    let script = format!("{MOUNT_OF} for at in /sys /mq /pts /cg /over; do of $at; done; ls /sys/class/net /pts");
    let sandbox = inside(&root, &script)
        .mount(Mount::sysfs("/sys"))
        .mount(Mount::mqueue("/mq"))
        .mount(Mount::devpts("/pts"))
        .mount(Mount::cgroup("/cg"))
        .mount(Mount::file_system("ext4", "/over").flag("acl"));
    // A user namespace may not have it, or nobody.
    let error = refused(&sandbox);
    assert_eq!((error.step(), error.object().unwrap().to_str()), (Step::Mount, Some("/over")), "{error}");
    let mut sandbox = inside(&root, &script).mount(Mount::sysfs("/sys")).mount(Mount::mqueue("/mq"));
    sandbox = sandbox.mount(Mount::devpts("/pts")).mount(Mount::cgroup("/cg"));
    let text = output(sandbox.mount(Mount::file_system("tmpfs", "/over").option("mode", "700").allow_suid()));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("ro,nosuid,nodev,noexec,relatime sysfs"), "{text}");
    assert!(lines[1].starts_with("rw,nosuid,nodev,noexec,relatime mqueue"), "{text}");
    assert!(lines[2].starts_with("rw,nosuid,noexec,relatime devpts"), "{text}");
    assert!(lines[3].starts_with("ro,nosuid,nodev,noexec,relatime "), "{text}");
    assert!(lines[4].starts_with("rw,nodev,relatime tmpfs"), "{text}");
    assert!(text.contains("lo\n") && text.contains("ptmx\n") && !text.contains("eth"), "{text}");
}

/// The hierarchies that the machine has, each from the sandbox's own group downwards.
pub(crate) fn control_groups_are_in_sight() {
    let root = Busybox::new();
    let script = "cd /cg; if [ -e cgroup.procs ]; then echo 2; else echo *; true; fi";
    let text = output(inside(&root, script).mount(Mount::cgroup("/cg")));
    let version_1 = fs::read_to_string("/proc/self/cgroup").unwrap().lines().any(|line| !line.contains("::"));
    if version_1 {
        for directory in fs::read_to_string("/proc/self/cgroup").unwrap().lines() {
            let field = directory.split(':').nth(1).unwrap();
            let name = if field.is_empty() { "unified" } else { field.trim_start_matches("name=") };
            assert!(text.lines().next().unwrap().split(' ').any(|word| word == name), "{name}: {text}");
        }
    } else {
        assert_eq!(text, "2\n");
    }
}

pub(crate) fn binds_are_as_asked() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("file"), "content\n").unwrap();
    fs::copy("/bin/busybox", source.path().join("true")).unwrap();
    let script = format!(
        "{MOUNT_OF} of /data; cat /data/file; touch /data/new 2>&- && echo written; /data/true 2>&- && echo started; true"
    );
    let bind = || Mount::bind(source.path(), "/data");
    let words =
        |text: &str| text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>().join(" ");
    let told = |mount| words(&output(inside(&root, &script).mount(mount)));
    let everything = told(bind());
    assert!(
        everything.starts_with("rw,nosuid,nodev,") && everything.ends_with(" content written started"),
        "{everything}"
    );
    fs::remove_file(source.path().join("new")).unwrap();
    let nothing = told(bind().read_only().noexec());
    assert!(nothing.starts_with("ro,nosuid,nodev,noexec,") && nothing.ends_with(" content"), "{nothing}");
    let by_fd = fs::File::open(source.path()).unwrap();
    let sandbox = inside(&root, "cat /data/file").mount(Mount::bind_fd("data", "/data").read_only());
    assert_eq!(output_with(sandbox, Fds::new().bind("data", by_fd)), "content\n");
    // A file, upon a file that is there and one that is not.
    fs::write(root.path().join("file"), "").unwrap();
    for target in ["/file", "/new/file"] {
        let bind = Mount::bind(source.path().join("file"), target).read_only();
        assert_eq!(output(inside(&root, &format!("cat {target}")).mount(bind)), "content\n");
    }
    // The sandbox's own mounts do not hide what is bound.
    let hidden = sh(&format!("cat {}/file", source.path().display()))
        .mount(Mount::tmpfs(source.path().parent().unwrap()))
        .mount(Mount::bind(source.path(), source.path()));
    assert_eq!(output(hidden.env("PATH", "/bin:/usr/bin")), "content\n");
}

/// What is mounted below a source comes along, read-only too; or it does not, if that was asked for.
pub(crate) fn binds_take_along_what_is_mounted_below() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    let below = source.path().join("below");
    fs::create_dir(&below).unwrap();
    mount("below", &below, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, None).unwrap();
    fs::write(below.join("file"), "").unwrap();
    let script = format!("{MOUNT_OF} echo /data/below/*; touch /data/below/x 2>&- && echo written; of /data/below");
    let bind = Mount::bind(source.path(), "/data").allow_suid();
    let all = inside(&root, &script);
    let text = output(all.clone().mount(bind.clone().read_only()));
    // Its own flags are kept: in a user namespace nobody may take them away.
    assert!(text.starts_with("/data/below/file\nro,nosuid,nodev,noexec,"), "{text}");
    assert!(output(all.mount(bind.clone())).contains("written"));
    let alone = Mount::bind(source.path(), "/data").non_recursive();
    let error = refused(&inside(&root, "true").mount(alone.clone()));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::EINVAL)), "uncovered: {error}");
    let privileged = program("/bin/sh").args(["-c", "echo /data/below/*"]).namespaces(Namespaces::MOUNT);
    assert_eq!(output(privileged.root(Root::directory(root.path())).mount(alone)), "/data/below/*\n");
    unmount(&below, UnmountFlags::empty()).unwrap();
}

/// Owners as a user namespace has them, for root without one.
pub(crate) fn binds_with_other_owners() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    mount("source", source.path(), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(source.path().join("file"), "").unwrap();
    let namespaces = program("/").user(IdMap::single(0, 0)).namespaces(Namespaces::USER);
    let held = namespaces.prepare(Fds::new()).unwrap().hold().unwrap();
    let user = held.namespace(Namespaces::USER).unwrap();
    std::os::unix::fs::chown(source.path().join("file"), Some(0), Some(7)).unwrap();
    let sandbox = program("/bin/stat").args(["-c", "%u %g", "/data/file"]).namespaces(Namespaces::MOUNT);
    let sandbox =
        sandbox.root(Root::directory(root.path())).mount(Mount::bind(source.path(), "/data").id_mapped("ids"));
    // Of the namespace's ids, 0 is 0, and 7 is nobody.
    assert_eq!(output_with(sandbox, Fds::new().bind("ids", user)), "0 65534\n");
    drop(held);
    unmount(source.path(), UnmountFlags::empty()).unwrap();
}

/// A mount that the caller has made.
pub(crate) fn detached_mounts_are_attached() {
    let (root, other) = (Busybox::new(), Busybox::new());
    fs::write(other.path().join("mark"), "other\n").unwrap();
    let sandbox = inside(&root, "cat /data/deep/mark; touch /data/deep/x 2>&- || echo refused");
    let sandbox = sandbox.mount(Mount::attach("other", "/data/deep").read_only());
    assert_eq!(output_with(sandbox, Fds::new().bind("other", other.mount())), "other\nrefused\n");
}

/// One that the caller has cloned from a shared mount is its peer: what is mounted in it inside must not appear outside, nor the other way round.
pub(crate) fn detached_mounts_are_nobodys_peers() {
    let (root, shared) = (Busybox::new(), tempfile::tempdir().unwrap());
    mount("shared", shared.path(), "tmpfs", MountFlags::empty(), None).unwrap();
    mount_change(shared.path(), MountPropagationFlags::SHARED).unwrap();
    fs::create_dir(shared.path().join("below")).unwrap();
    let here = || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = here();
    let attach = || {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, shared.path(), flags).unwrap();
        let sandbox = inside(&root, "read -r line").stdin(Stdio::Pipe).mount(Mount::attach("tree", "/data"));
        let mut child = sandbox.mount(Mount::tmpfs("/data/below")).spawn_with(Fds::new().bind("tree", tree)).unwrap();
        let meanwhile = here();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(child.wait().unwrap().success());
        meanwhile
    };
    assert_eq!(attach(), before);
    let peer = Poke { number: libc::SYS_mount_setattr, argument: 3, word: 2, value: 0 };
    let (weakened, meanwhile) = weaken(peer, attach);
    assert!(weakened > 0 && meanwhile > before, "the attack is none");
    let _ = unmount(shared.path().join("below"), UnmountFlags::DETACH);
    unmount(shared.path(), UnmountFlags::empty()).unwrap();
}

pub(crate) fn masks_hide() {
    let root = Busybox::new();
    fs::create_dir_all(root.path().join("etc/private")).unwrap();
    fs::write(root.path().join("etc/secret"), "secret").unwrap();
    fs::write(root.path().join("etc/private/key"), "secret").unwrap();
    let script =
        "cat /etc/secret; ls /etc/private; touch /etc/private/x 2>&- || echo refused; stat -c '%t:%T %F' /etc/secret
        busybox chmod 0 /etc/secret 2>&- || echo kept; cat /proc/version; ls /proc/irq";
    let mut sandbox = inside(&root, script);
    for path in ["/etc/secret", "/etc/private", "/proc/version", "/proc/irq", "/etc/missing", "/missing/too"] {
        sandbox = sandbox.mount(Mount::mask(path));
    }
    assert_eq!(output(sandbox), "refused\n1:3 character special file\nkept\n");
    assert!(!root.path().join("etc/missing").exists());
    let script = "for file in /etc/new /etc/private/new /tmp/new; do touch $file 2>&- && echo $file; done";
    let frozen = inside(&root, script)
        .mount(Mount::tmpfs("/tmp"))
        .mount(Mount::read_only_path("/etc"))
        .mount(Mount::read_only_path("/missing"));
    assert_eq!(output(frozen), "/tmp/new\n");
    // A mount that is covered as a whole, and something in it afterwards.
    let script = "cat /data/secret; touch /data/x 2>&- || echo refused; cat /dev/full; ls /dev/shm";
    let whole = inside(&root, script)
        .mount(Mount::bind(root.path().join("etc"), "/data"))
        .mount(Mount::read_only_path("/data"))
        .mount(Mount::mask("/data/secret"))
        .mount(Mount::dev("/dev"))
        .mount(Mount::mask("/dev/full"))
        .mount(Mount::mask("/dev/shm"));
    assert_eq!(output(whole), "refused\n");
}

/// With their directories, with the modes that they should have, inside the root and in what is certainly empty; nowhere else.
pub(crate) fn mount_points_are_made() {
    let root = Busybox::new();
    let made = inside(&root, "stat -c %a /a /a/b /a/b/c /t/x/y").mount(Mount::bind("/usr", "/a/b/c").read_only());
    let made = made.mount(Mount::tmpfs("/t")).mount(Mount::bind("/etc/passwd", "/t/x/y"));
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let text = output(made);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    assert_eq!(text, "755\n755\n755\n644\n");
    assert_eq!(fs::metadata(root.path().join("a/b")).unwrap().permissions().mode() & 0o777, 0o755);
    // What is bound is somebody else's, and so is the host's root.
    let source = tempfile::tempdir().unwrap();
    let below = inside(&root, "true").mount(Mount::bind(source.path(), "/data")).mount(Mount::tmpfs("/data/new"));
    let error = refused(&below);
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENOENT)), "{error}");
    // Also if it is reached by a link.
    std::os::unix::fs::symlink("/data", root.path().join("link")).unwrap();
    let by_link = inside(&root, "true").mount(Mount::bind(source.path(), "/data")).mount(Mount::tmpfs("/link/new"));
    let error = refused(&by_link);
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::EXDEV)), "{error}");
    let hosts = sh("true").mount(Mount::tmpfs(source.path().join("new")));
    assert_eq!(refused(&hosts).kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(source.path()).unwrap().count(), 0);
}

/// More than a process can have open.
pub(crate) fn many_mounts() {
    let mut sandbox = sh("n=0; for at in /m/*; do n=$((n+1)); done; echo $n").root(Root::Empty);
    sandbox = sandbox.mount(Mount::bind("/bin/busybox", "/bin/sh"));
    for number in 0..500 {
        sandbox = sandbox.mount(Mount::file_system("tmpfs", format!("/m/{number}")).read_only());
    }
    assert_eq!(output(sandbox), "500\n");
}

/// As many as there are in `/proc` and `/sys`, and few descriptors for it.
pub(crate) fn many_masks() {
    let root = Busybox::new();
    let mut sandbox = inside(&root, "cat /m/file*; touch /m/frozen0/x 2>&- || echo refused; ls /m/folder*");
    for number in 0..100 {
        let name = |kind: &str| (root.path().join(format!("m/{kind}{number}")), format!("/m/{kind}{number}"));
        let ((file, masked), (folder, hidden), (frozen, kept)) = (name("file"), name("folder"), name("frozen"));
        fs::create_dir_all(folder.join("secret")).unwrap();
        fs::create_dir(frozen).unwrap();
        fs::write(file, "secret").unwrap();
        sandbox = sandbox.mount(Mount::mask(masked)).mount(Mount::mask(hidden)).mount(Mount::read_only_path(kept));
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let text = output(sandbox);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(text.starts_with("refused\n") && !text.contains("secret"), "{text}");
}

pub(crate) fn a_read_only_root() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    let script = "for file in /new /tmp/new /data/new /dev/shm/new; do touch $file 2>&- && echo $file; done";
    let sandbox = inside(&root, script)
        .read_only_root()
        .mount(Mount::dev("/dev"))
        .mount(Mount::tmpfs("/tmp"))
        .mount(Mount::bind(source.path(), "/data"));
    assert_eq!(output(sandbox), "/tmp/new\n/data/new\n/dev/shm/new\n");
    assert!(source.path().join("new").exists() && !root.path().join("new").exists());
    // The host's, with all that is mounted there.
    let path = source.path().display();
    let script = format!("touch {path}/other 2>&- && echo written; touch /mnt/new && echo there");
    let hosts = sh(&script).env("PATH", "/bin:/usr/bin").read_only_root().mount(Mount::tmpfs("/mnt"));
    assert_eq!(output(hosts), "there\n");
}

/// A mount that the host makes later is seen by a slave, and by nobody else.
pub(crate) fn later_mounts_of_the_host() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    let below = source.path().join("below");
    fs::create_dir(&below).unwrap();
    let run = |propagation| {
        let sandbox = inside(&root, "read line; echo /data/below/*").mount(Mount::bind(source.path(), "/data"));
        let sandbox = sandbox.propagation(propagation).stdin(Stdio::Pipe).stdout(Stdio::Pipe);
        let mut child = sandbox.spawn().unwrap();
        mount("later", &below, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(below.join("file"), "").unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let text = read(&mut child);
        assert!(child.wait().unwrap().success());
        unmount(&below, UnmountFlags::empty()).unwrap();
        text
    };
    assert_eq!(run(Propagation::Slave), "/data/below/file\n");
    assert_eq!(run(Propagation::Private), "/data/below/*\n");
}

/// What a helper mounts for the host, if that is asked for.
pub(crate) fn mounts_for_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let script = format!("mount -t tmpfs shared {0} && touch {0}/file", path.display());
    let run = |propagation| {
        let sandbox = crate::support::sh(&script).namespaces(Namespaces::MOUNT).propagation(propagation);
        assert!(sandbox.spawn().unwrap().wait().unwrap().success());
        path.join("file").exists()
    };
    assert!(!run(Propagation::Private));
    assert!(run(Propagation::Shared));
    unmount(path, UnmountFlags::empty()).unwrap();
}

/// In an initramfs `pivot_root(2)` is `EINVAL`: here it is made to be.
pub(crate) fn where_the_root_cannot_be_pivoted() {
    let root = Busybox::new();
    let pivot = Watch::only(&[libc::SYS_pivot_root, libc::SYS_execve]);
    let fault = Fault { who: Who::Child, nth: 0, action: Action::Errno(libc::EINVAL) };
    let sandbox = inside(&root, "echo /* /../*").stdout(Stdio::Pipe);
    let (_, result) = pivot.inject(fault, || sandbox.spawn());
    let error = result.unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Pivot, Some(libc::EINVAL)), "{error}");
    let (calls, result) = pivot.inject(fault, || sandbox.clone().allow_chroot().spawn());
    let mut child = result.unwrap();
    assert!(calls.iter().any(|call| call.fault.is_some()));
    assert!(child.report().chrooted());
    assert_eq!(read(&mut child), "/bin /proc /../bin /../proc\n");
    assert!(child.wait().unwrap().success());
    let mut child = sandbox.allow_chroot().spawn().unwrap();
    assert_eq!(read(&mut child), "/bin /proc /../bin /../proc\n", "not where it is not needed");
    assert!(!child.report().chrooted());
    assert!(child.wait().unwrap().success());
}

/// The kernel's own words about an option.
pub(crate) fn the_kernel_says_what_is_wrong() {
    let root = Busybox::new();
    let refused_with = |mount| refused(&inside(&root, "true").mount(mount));
    let error = refused_with(Mount::tmpfs("/tmp").option("size", "much"));
    assert_eq!(
        (error.step(), error.system_call(), error.raw_os_error()),
        (Step::Mount, Some("fsconfig"), Some(libc::EINVAL))
    );
    assert!(error.kernel_text().unwrap().contains("size"), "{error}");
    assert!(error.to_string().ends_with(error.kernel_text().unwrap()), "{error}");
    let error = refused_with(Mount::tmpfs("/tmp").option("nonsense", "1"));
    assert!(error.kernel_text().unwrap().contains("nonsense"), "{error}");
    let error = refused_with(Mount::file_system("nonsense", "/tmp"));
    assert_eq!((error.system_call(), error.kind()), (Some("fsopen"), ErrorKind::Unsupported), "{error}");
}

pub(crate) fn mounts_that_make_no_sense() {
    let (all, some) = (Namespaces::all(), Namespaces::USER | Namespaces::MOUNT);
    let fd = || fs::File::open("/").unwrap();
    let cases = [
        (program("x").namespaces(some).mount(Mount::sysfs("/sys")), "mount on \"/sys\""),
        (program("x").namespaces(some).mount(Mount::mqueue("/mq")), "mount on \"/mq\""),
        (program("x").namespaces(some).mount(Mount::cgroup("/cg")), "mount on \"/cg\""),
        (program("x").namespaces(all).mount(Mount::bind("/", "/a").option("size", "1")), "mount on \"/a\""),
        (program("x").namespaces(all).mount(Mount::tmpfs("/a").non_recursive()), "mount on \"/a\""),
        (program("x").namespaces(all).mount(Mount::dev("/a").id_mapped("fd")), "mount on \"/a\""),
        (program("x").namespaces(all).mount(Mount::mask("/a/../b")), "mount on \"/a/../b\""),
        (program("x").namespaces(all).mount(Mount::tmpfs("/a\0b")), "mount point"),
        (program("x").namespaces(all).mount(Mount::tmpfs("/a").option("a\0", "b")), "mount option"),
        (program("x").namespaces(all).mount(Mount::bind_fd("none", "/a")), "descriptor \"none\""),
        (program("x").read_only_root(), "read-only root"),
        (program("x").propagation(Propagation::Slave), "propagation"),
        (program("x").namespaces(all).root(Root::Empty).propagation(Propagation::Shared), "propagation"),
        (program("x").namespaces(all).mount(Mount::tmpfs("/a")).propagation(Propagation::Shared), "propagation"),
    ];
    for (sandbox, object) in cases {
        let error = refused(&sandbox);
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure), "{error}");
        assert!(error.object().unwrap().to_string_lossy().starts_with(object), "{error}");
    }
    let unused = program("x").namespaces(all).prepare(Fds::new().bind("root", fd())).unwrap_err();
    assert_eq!(unused.kind(), ErrorKind::InvalidConfig);
    let missing = refused(&program("x").namespaces(all).mount(Mount::bind(Path::new("/nowhere"), "/a")));
    assert_eq!((missing.step(), missing.kind()), (Step::Prepare, ErrorKind::NotFound), "{missing}");
}
