//! What is denied on a mount, by what happens: with the flag, and without.

use crate::roots::Busybox;
use crate::support::{output_with, program};
use cofferdam_namespaces::{Credentials, Fds, IdMap, Mount, Namespaces, Root, Sandbox};
use cofferdam_testkit::fault::{Poke, weaken};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

/// As root, without a user namespace.
fn inside(root: &Busybox, script: &str) -> Sandbox {
    let sandbox = program("/bin/sh").args(["-c", script]).env("PATH", "/bin");
    sandbox.namespaces(Namespaces::MOUNT | Namespaces::PID).root(Root::directory(root.path()))
}

fn output(sandbox: Sandbox) -> String {
    output_with(sandbox, Fds::new())
}

/// What the host has denied on what is bound stays denied: its flags are added to, never replaced.
pub(crate) fn flags_of_the_host_are_kept() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    mount("source", source.path(), "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, None).unwrap();
    fs::copy("/bin/busybox", source.path().join("busybox")).unwrap();
    let show =
        "while read -r a b c d at options rest; do [ $at != /data ] || echo $options; done </proc/self/mountinfo;
        /data/busybox echo started 2>&-; true";
    let bound = || {
        let bind = Mount::bind(source.path(), "/data").read_only().allow_suid().allow_devices();
        output(inside(&root, show).mount(Mount::proc("/proc")).mount(bind))
    };
    assert_eq!(bound(), "ro,nosuid,noexec,relatime\n");
    // The second word is what is taken away.
    let all = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let replacing = Poke { number: libc::SYS_mount_setattr, argument: 3, word: 1, value: all };
    let (weakened, seen) = weaken(replacing, bound);
    assert!(weakened > 0);
    assert_eq!(seen, "ro,relatime\nstarted\n", "the attack is none");
    unmount(source.path(), UnmountFlags::empty()).unwrap();
}

pub(crate) fn devices_and_programs_of_a_bind() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    let device = rustix::fs::makedev(1, 3);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, source.path().join("null"), kind, mode, device).unwrap();
    let bind = || Mount::bind(source.path(), "/data");
    let write = |mount| output(inside(&root, "(echo x >/data/null) 2>&- && echo written; true").mount(mount));
    assert_eq!((write(bind()), write(bind().allow_devices())), (String::new(), "written\n".to_owned()));
    // A program that says who it is to be. (Busybox would change back by itself.)
    let copy = source.path().join("cat");
    fs::copy("/bin/cat", &copy).unwrap();
    chown(&copy, Some(0), Some(0)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let who = |allow: bool| {
        let bind = Mount::bind(source.path(), "/mnt");
        let sandbox = program("/mnt/cat").arg("/proc/self/status").namespaces(Namespaces::MOUNT);
        let sandbox = sandbox.mount(if allow { bind.allow_suid() } else { bind });
        let status = output(sandbox.credentials(Credentials::new(1234, 1234)));
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
        uids.split('\t').nth(1).unwrap().to_owned()
    };
    assert_eq!((who(false), who(true)), ("1234".to_owned(), "0".to_owned()));
}

/// Access times and links.
pub(crate) fn reading_and_following() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    // Where each reading counts.
    mount("source", source.path(), "tmpfs", MountFlags::STRICTATIME, None).unwrap();
    let file = source.path().join("file");
    fs::write(&file, "content\n").unwrap();
    symlink("file", source.path().join("link")).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let bind = || Mount::bind(source.path(), "/data");
    let accessed = |mount| {
        let times = fs::FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
        fs::File::options().write(true).open(&file).unwrap().set_times(times).unwrap();
        assert_eq!(output(inside(&root, "cat /data/file").mount(mount)), "content\n");
        fs::metadata(&file).unwrap().atime() != 1
    };
    assert_eq!((accessed(bind()), accessed(bind().noatime())), (true, false));
    let followed = |mount| output(inside(&root, "cat /data/link 2>&-; true").mount(mount));
    assert_eq!((followed(bind()), followed(bind().nosymfollow())), ("content\n".to_owned(), String::new()));
    unmount(source.path(), UnmountFlags::empty()).unwrap();
}

/// A union, as any other file system.
pub(crate) fn an_overlay_by_its_name() {
    let (root, lower, work) = (Busybox::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    mount("work", work.path(), "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["upper", "work"] {
        fs::create_dir(work.path().join(name)).unwrap();
    }
    fs::write(lower.path().join("below"), "below\n").unwrap();
    let overlay = Mount::file_system("overlay", "/merged")
        .option("lowerdir", lower.path())
        .option("upperdir", work.path().join("upper"))
        .option("workdir", work.path().join("work"));
    assert_eq!(output(inside(&root, "cat /merged/below; echo new >/merged/made").mount(overlay)), "below\n");
    assert_eq!(fs::read_to_string(work.path().join("upper/made")).unwrap(), "new\n");
    assert!(!lower.path().join("made").exists());
    unmount(work.path(), UnmountFlags::empty()).unwrap();
}

/// A root that the caller has mounted.
pub(crate) fn a_read_only_root_of_the_caller() {
    let root = Busybox::new();
    let show = "(echo x >/new) 2>&- && echo written; true";
    for user in [false, true] {
        let run = |read_only: bool| {
            let sandbox = program("/bin/sh").args(["-c", show]).env("PATH", "/bin").namespaces(Namespaces::MOUNT);
            let sandbox = sandbox.root(Root::mount("root"));
            let sandbox = if user { sandbox.user(IdMap::root()) } else { sandbox };
            let sandbox = if read_only { sandbox.read_only_root() } else { sandbox };
            output_with(sandbox, Fds::new().bind("root", root.mount()))
        };
        assert_eq!((run(true), run(false)), (String::new(), "written\n".to_owned()), "{user}");
        fs::remove_file(root.path().join("new")).unwrap();
    }
}

/// The mask of a file is the host's null device: who could change its mode or its times would do it for the whole machine.
pub(crate) fn a_mask_cannot_be_changed() {
    let root = Busybox::new();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/secret"), "secret").unwrap();
    let null = || fs::metadata("/dev/null").unwrap();
    let before = null().mode();
    // To what it is already: with the defence off, it is the machine's.
    let change = || {
        let script = format!("chmod {:o} /etc/secret 2>&- && echo changed; true", before & 0o7777);
        output(inside(&root, &script).mount(Mount::mask("/etc/secret")))
    };
    assert_eq!(change(), "");
    let writable = Poke { number: libc::SYS_mount_setattr, argument: 3, word: 0, value: 0 };
    let (weakened, said) = weaken(writable, change);
    assert_eq!((weakened, said.as_str(), null().mode()), (1, "changed\n", before), "the attack is none");
}

/// Mount points are made on the root's own mount: a link in it to what is bound leads there only for what is there already.
pub(crate) fn nothing_is_made_in_a_bind() {
    let (root, source) = (Busybox::new(), tempfile::tempdir().unwrap());
    symlink("/data", root.path().join("link")).unwrap();
    let spawn = || {
        let sandbox = inside(&root, "true").mount(Mount::bind(source.path(), "/data"));
        sandbox.mount(Mount::tmpfs("/link/new")).spawn().map(|child| child.wait().unwrap().success())
    };
    assert_eq!(spawn().unwrap_err().raw_os_error(), Some(libc::EXDEV));
    assert_eq!(fs::read_dir(source.path()).unwrap().count(), 0);
    let value = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let any_mount = Poke { number: libc::SYS_openat2, argument: 2, word: 2, value };
    let (weakened, result) = weaken(any_mount, spawn);
    assert!(weakened > 0 && result.is_ok(), "{result:?}");
    assert!(source.path().join("new").exists(), "the attack is none");
}
