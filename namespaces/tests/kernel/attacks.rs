//! A root whose maker wants out. Each attack is met, and with the defence switched off, from outside (see the test kit), it succeeds.

use crate::roots::Busybox;
use crate::support::{asked_for_long, engine, output_with, program, read, refused};
use cofferdam_namespaces::{Child, Engine, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio, Step, TerminalSize};
use cofferdam_testkit::Place;
use cofferdam_testkit::fault::{Action, Fault, Poke, Watch, Who, weaken, weaken_all};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Every path of the child is resolved as any path is, and not inside the root.
pub(crate) const ANYWHERE: Poke = Poke { number: libc::SYS_openat2, argument: 2, word: 2, value: 0 };

pub(crate) fn inside_with(root: &Path, name: &str) -> Sandbox {
    let sandbox = program(name).env("PATH", "/bin").namespaces(Namespaces::MOUNT | Namespaces::PID);
    sandbox.user(IdMap::root()).root(Root::directory(root))
}

fn inside(root: &Path, script: &str) -> Sandbox {
    inside_with(root, "/bin/sh").args(["-c", script])
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// How often a race is run: in one place often, and ten times as often with `COFFERDAM_TEST_LONG=1`; elsewhere to see that it works there too.
fn rounds() -> usize {
    let rounds = match (Place::required(), engine()) {
        (Ok(None | Some(Place::Host)), Engine::Shared) => 10_000,
        (Ok(None | Some(Place::Host | Place::HostUser)), _) => 1_000,
        _ => 200,
    };
    if asked_for_long() { rounds * 10 } else { rounds }
}

/// Runs `body` while somebody exchanges these two, again and again.
fn while_swapped(one: &Path, other: &Path, body: impl FnOnce()) {
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let result = std::panic::catch_unwind(AssertUnwindSafe(body));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(swaps.load(Ordering::Relaxed) > 0);
}

/// Of so many rounds, as many as these must not have ended in an error: else it is not the defence that was seen at work.
fn enough(rounds: usize) -> usize {
    rounds / 20
}

/// Where what is mounted in a sandbox is, and what it is: of its mount namespace, nothing else.
const MOUNTS: &str =
    "while read -r a b c d at rest; do rest=${rest#*- }; echo $at ${rest%% *}; done </proc/self/mountinfo";

/// What a program prints, if it starts and succeeds.
fn told(sandbox: Sandbox) -> Option<String> {
    let mut child = sandbox.stdout(Stdio::Pipe).spawn().ok()?;
    let text = read(&mut child);
    child.wait().unwrap().success().then_some(text)
}

/// CVE-2021-30465: somebody exchanges a directory on the way to a mount point and a link that leads out, while it is being made and mounted upon.
pub(crate) fn a_mount_point_swapped_for_a_link() {
    let (root, outside) = (Busybox::new(), tempfile::tempdir().unwrap());
    let (way, link) = (root.path().join("way"), root.path().join("link"));
    fs::create_dir(&way).unwrap();
    symlink(outside.path(), &link).unwrap();
    // Where the link leads, seen from inside, there is a directory too: a spawn succeeds more often.
    fs::create_dir_all(root.path().join(outside.path().strip_prefix("/").unwrap())).unwrap();
    // `target` is another one each time, so that it must be made.
    let spawn = |number: usize| {
        let sandbox = inside(root.path(), MOUNTS).mount(Mount::proc("/proc"));
        told(sandbox.mount(Mount::tmpfs(format!("/way/{number}/deep"))))
    };
    // What has been mounted is inside, under one of the names that its directory has by turns. Outside it would be gone, with the host's root.
    let hit = |number: usize, seen: &str| {
        let places = ["/way", "/link", outside.path().to_str().unwrap()];
        let root = seen.lines().next().is_some_and(|line| line.starts_with("/ "));
        let rest = seen.split_once('\n').unwrap().1;
        root && places.iter().any(|place| rest == format!("/proc proc\n{place}/{number}/deep tmpfs\n"))
    };
    while_swapped(&way, &link, || {
        let mut succeeded = 0;
        for number in 0..rounds() {
            if let Some(seen) = spawn(number) {
                assert!(hit(number, &seen), "after {number} rounds: {seen}");
                succeeded += 1;
            }
            assert_eq!(entries(outside.path()), 0, "after {number} rounds");
        }
        assert!(succeeded >= enough(rounds()), "mounted {succeeded} times");
        // Without the defence it does not take long until something is made outside, and mounted upon.
        let escaped = (0..5000).any(|number| {
            let number = rounds() + number;
            let (weakened, seen) = weaken(ANYWHERE, || spawn(number));
            assert!(weakened > 0);
            seen.is_some_and(|seen| !hit(number, &seen)) && outside.path().join(format!("{number}/deep")).exists()
        });
        assert!(escaped, "the attack is none");
    });
}

/// Somebody, a sandbox with the same root say, takes the way to what is to be masked away, at the moment in which it is looked for: what is missing needs
/// no mask. It is in a mount of the sandbox's own, and found there.
pub(crate) fn a_mask_whose_way_is_swapped() {
    let root = Busybox::new();
    let (way, other) = (root.path().join("proc"), root.path().join("other"));
    fs::create_dir(&way).unwrap();
    fs::create_dir(&other).unwrap();
    symlink("proc", root.path().join("alias")).unwrap();
    // By the shell alone, which is faster than the swaps.
    let show = "for at in /proc /other; do read -r line 2>&- <$at/version; echo $line; echo $at/sys/*/*; done; true";
    let masked = |below: &str| {
        let sandbox = inside(root.path(), show).mount(Mount::proc("/proc"));
        sandbox.mount(Mount::mask(format!("{below}/version"))).mount(Mount::mask(format!("{below}/sys")))
    };
    let hidden = |line: &str| ["", "/proc/sys/*/*", "/other/sys/*/*"].contains(&line);
    for below in ["/proc", "/alias"] {
        assert!(told(masked(below)).unwrap().lines().all(hidden), "{below}");
    }
    while_swapped(&way, &other, || {
        let mut succeeded = 0;
        for number in 0..rounds() {
            let Some(text) = told(masked("/proc")) else { continue };
            succeeded += 1;
            assert!(text.lines().all(hidden), "after {number} rounds: {text}");
        }
        assert!(succeeded >= enough(rounds()), "started {succeeded} times");
        // By another name, in which nobody sees the mount: it is looked for on the way from the root.
        let escaped = (0..5000).any(|_| told(masked("/alias")).is_some_and(|text| !text.lines().all(hidden)));
        assert!(escaped, "the attack is none");
    });
}

/// CVE-2025-52565: somebody exchanges `/dev/pts` of the root and a directory of theirs, in which what is called as a terminal is something else, while one is
/// opened. It is opened in the file system that was mounted, by no path.
pub(crate) fn a_terminal_whose_way_is_swapped() {
    let root = Busybox::new();
    let (way, other) = (root.path().join("dev/pts"), root.path().join("dev/other"));
    fs::create_dir_all(&way).unwrap();
    fs::create_dir(&other).unwrap();
    for name in ["ptmx", "0"] {
        fs::write(other.join(name), "trap\n").unwrap();
        fs::write(way.join(name), "trap\n").unwrap();
    }
    let size = TerminalSize::new(30, 90);
    let sandbox = |script: &str| inside(root.path(), script).mount(Mount::devpts("/dev/pts"));
    while_swapped(&way, &other, || {
        let mut succeeded = 0;
        for number in 0..rounds() / 10 {
            let Ok(mut child) = sandbox("busybox stty size").terminal(size).spawn() else { continue };
            assert_eq!(shown(&mut child), "30 90\r\n", "after {number} rounds");
            assert!(child.wait().unwrap().success());
            succeeded += 1;
        }
        assert!(succeeded >= enough(rounds() / 10), "started {succeeded} times");
        // By its path it is the trap.
        let naive = "read -r line 2>&- </dev/pts/0 && echo $line; true";
        let caught = (0..5000).any(|_| told(sandbox(naive)).is_some_and(|text| text == "trap\n"));
        assert!(caught, "the attack is none");
    });
    assert!(["ptmx", "0"].iter().all(|name| fs::read(way.join(name)).unwrap() == b"trap\n"));
}

/// CVE-2024-45310 and its kin: a link in the root that leads out, on the way to a mount point that is to be made.
pub(crate) fn nothing_is_made_outside() {
    let (root, outside) = (Busybox::new(), tempfile::tempdir().unwrap());
    symlink(outside.path(), root.path().join("dev")).unwrap();
    let sandboxes = || {
        [
            inside(root.path(), "exit").mount(Mount::tmpfs("/dev/made")),
            inside(root.path(), "exit").mount(Mount::bind("/etc/passwd", "/dev/file")),
            inside(root.path(), "exit").mount(Mount::dev("/dev/deep/dev")),
        ]
    };
    for sandbox in sandboxes() {
        let error = refused(&sandbox);
        assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENOENT)), "{error}");
        assert_eq!(entries(outside.path()), 0);
    }
    for (number, sandbox) in sandboxes().into_iter().enumerate() {
        // Whether it gets to its end or not: it has been outside.
        let _ = weaken(ANYWHERE, || sandbox.spawn().and_then(|child| child.wait()));
        assert_eq!(entries(outside.path()), number + 1, "the attack is none");
    }
}

/// CVE-2025-31133: a root whose `/dev/null` is what is to be seen instead of what is masked.
pub(crate) fn a_mask_is_the_hosts_null_device() {
    let root = Busybox::new();
    for folder in ["dev", "etc"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("etc/prize"), "prize\n").unwrap();
    fs::write(root.path().join("etc/secret"), "secret\n").unwrap();
    symlink("/etc/prize", root.path().join("dev/null")).unwrap();
    let show = |mount| {
        let sandbox = inside(root.path(), "cat /etc/secret; stat -c %t:%T /etc/secret").mount(mount);
        output_with(sandbox, Fds::new())
    };
    assert_eq!(show(Mount::mask("/etc/secret")), "1:3\n");
    // What a mask would be that took the root's own.
    let naive = Mount::bind(root.path().join("dev/../etc/prize"), "/etc/secret");
    assert_eq!(show(naive), "prize\n0:0\n");
}

/// Another path, of at most seven bytes, for one that a child opens.
fn elsewhere(number: i64, path: &str) -> Poke {
    let mut word = [0; 8];
    word[..path.len()].copy_from_slice(path.as_bytes());
    Poke { number, argument: 1, word: 0, value: u64::from_ne_bytes(word) }
}

/// Somebody has replaced the host's `/dev/null`, or made the child open another one: it is no mask. Where the child does not look, it is.
pub(crate) fn a_null_device_that_is_none() {
    let root = Busybox::new();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/secret"), "secret\n").unwrap();
    mount("fake", "/mnt", "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write("/mnt/n", "prize\n").unwrap();
    // Without a user namespace nothing else is opened so, but what is looked at whether it is a directory; nor is this.
    let other = elsewhere(libc::SYS_openat, "/mnt/n");
    let sandbox = program("/bin/cat").arg("/etc/secret").namespaces(Namespaces::MOUNT);
    let sandbox = sandbox.root(Root::directory(root.path())).mount(Mount::mask("/etc/secret"));
    let (weakened, result) = weaken(other, || sandbox.spawn().map(|child| child.wait().unwrap()));
    let error = result.unwrap_err();
    assert_eq!(weakened, 1);
    assert_eq!((error.step(), error.raw_os_error()), (Step::Mount, Some(libc::ENODEV)), "{error}");
    assert_eq!(told(sandbox.clone()).unwrap(), "");
    // The defence off: what the child knows from its last look, at the host's own device, it takes for a look at this one.
    let blind = sandbox.mount(Mount::bind("/dev/null", "/etc/host"));
    let watch = Watch::only(&[libc::SYS_openat, libc::SYS_statx, libc::SYS_execve]);
    let (calls, seen) = watch.record(|| told(blind.clone()));
    assert_eq!(seen.unwrap(), "");
    let numbers: Vec<_> = calls.iter().filter(|call| call.who == Who::Child).map(|call| call.number).collect();
    let nth = numbers.windows(2).position(|pair| pair == [libc::SYS_openat, libc::SYS_statx]).unwrap() + 1;
    let unseen = Fault { who: Who::Child, nth, action: Action::Errno(0) };
    let (_, seen) = watch.inject_weakened(unseen, other, || told(blind));
    assert_eq!(seen.unwrap(), "prize\n", "the attack is none");
    unmount("/mnt", UnmountFlags::empty()).unwrap();
}

/// What is shown until nobody has the other side any more.
fn shown(child: &mut Child) -> String {
    let mut text = Vec::new();
    // EIO is the end.
    let _ = fs::File::from(OwnedFd::from(child.terminal.take().unwrap())).read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

fn type_in(child: &Child, text: &str) {
    let terminal = child.terminal.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
    fs::File::from(terminal).write_all(text.as_bytes()).unwrap();
}

/// CVE-2025-52565: a terminal that is opened by a path, and a console that is bound by one, are what somebody has put there; by descriptor they are the sandbox's own.
pub(crate) fn a_terminal_by_a_path() {
    mount("trap", "/mnt", "tmpfs", MountFlags::empty(), None).unwrap();
    fs::create_dir("/mnt/pts").unwrap();
    mount("theirs", "/mnt/pts", "devpts", MountFlags::empty(), Some(c"newinstance,ptmxmode=666")).unwrap();
    symlink("/mnt/pts/ptmx", "/mnt/p").unwrap();
    fs::write("/mnt/prize", "prize\n").unwrap();
    symlink("/mnt/prize", "/mnt/c").unwrap();
    // As root of the machine, so that nothing else is opened or cloned in the ways that are changed here.
    let sandbox = |script: &str| program("/bin/sh").args(["-c", script]).namespaces(Namespaces::MOUNT);
    let run = |sandbox: &Sandbox, pokes: &[Poke]| {
        let (weakened, child) = weaken_all(pokes, || sandbox.spawn().unwrap());
        assert!(pokes.is_empty() || weakened > 0);
        child
    };
    let size = TerminalSize::new(30, 90);
    let pts = sandbox("echo /dev/pts/*; read line").mount(Mount::devpts("/dev/pts")).terminal(size);
    for (pokes, theirs, seen) in [
        (vec![], false, "/dev/pts/0 /dev/pts/ptmx"),
        (vec![elsewhere(libc::SYS_openat, "/mnt/p")], true, "/dev/pts/ptmx"),
    ] {
        let mut child = run(&pts, &pokes);
        // Who has that file system has the terminal too.
        assert_eq!(fs::exists("/mnt/pts/0").unwrap(), theirs, "{seen}");
        type_in(&child, "\n");
        assert_eq!(shown(&mut child).trim(), seen, "{theirs}");
        assert!(child.wait().unwrap().success());
    }
    let console = sandbox("read -r line 2>&- </dev/console; echo $line").mount(Mount::dev("/dev")).terminal(size);
    // The empty path is one for all calls.
    let pokes = [elsewhere(libc::SYS_open_tree, "/mnt/c"), elsewhere(libc::SYS_move_mount, "")];
    let mut child = run(&console, &pokes);
    assert_eq!(shown(&mut child), "prize\r\n", "the attack is none");
    assert!(child.wait().unwrap().success());
    let mut child = run(&console, &[]);
    type_in(&child, "typed\n");
    assert_eq!(shown(&mut child), "typed\r\ntyped\r\n");
    assert!(child.wait().unwrap().success());
    unmount("/mnt", UnmountFlags::DETACH).unwrap();
}

/// CVE-2019-16884, CVE-2025-52881: what is written to `/proc` for the sandbox does not end in a file of its root, whatever is mounted there.
pub(crate) fn a_proc_in_the_root_is_not_written() {
    let root = Busybox::new();
    let own = root.path().join("proc/self");
    fs::create_dir_all(&own).unwrap();
    for name in ["uid_map", "gid_map", "setgroups"] {
        fs::write(own.join(name), "untouched").unwrap();
    }
    let show = "cat /proc/self/uid_map; busybox id -u";
    assert_eq!(output_with(inside(root.path(), show), Fds::new()), "untouched0\n");
    let hidden = inside(root.path(), "busybox id -u; ls /proc").mount(Mount::tmpfs("/proc"));
    assert_eq!(output_with(hidden, Fds::new()), "0\n");
    for name in ["uid_map", "gid_map", "setgroups"] {
        assert_eq!(fs::read_to_string(own.join(name)).unwrap(), "untouched");
    }
    // Who wrote the maps when the root is there already would write this.
    output_with(inside(root.path(), "echo 0 0 1 >/proc/self/uid_map"), Fds::new());
    assert_eq!(fs::read_to_string(own.join("uid_map")).unwrap(), "0 0 1\n", "the attack is none");
}

/// The kernel opens the program while what is only marked to be closed is still open: a link in the root must not lead out through it.
pub(crate) fn a_program_behind_a_descriptor() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir_all(root.join("proc")).unwrap();
    fs::copy("/bin/busybox", outside.path().join("victim")).unwrap();
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sandboxes: Vec<_> = (3..32)
        .map(|number| {
            let link = root.join(format!("prog{number}"));
            symlink(format!("/proc/self/fd/{number}/../victim"), &link).unwrap();
            let sandbox = program(format!("/prog{number}")).arg0("true").user(IdMap::root());
            let sandbox = sandbox.namespaces(Namespaces::MOUNT | Namespaces::PID);
            sandbox.root(Root::directory(&root)).mount(Mount::proc("/proc"))
        })
        .collect();
    for sandbox in &sandboxes {
        let error = refused(sandbox);
        assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ENOENT)), "{error}");
    }
    // Where they are still open, the look without magic links refuses what it finds; and where that is no obstacle either, it is the host's that runs.
    let watch = Watch::only(&[libc::SYS_close_range, libc::SYS_openat2, libc::SYS_execve, libc::SYS_prctl]);
    let (calls, _) = watch.record(|| sandboxes[0].spawn());
    let children: Vec<_> = calls.iter().filter(|call| call.who == Who::Child).collect();
    let nth = children.iter().rposition(|call| call.number == libc::SYS_close_range).unwrap();
    let open = Fault { who: Who::Child, nth, action: Action::Errno(0) };
    // More than once: which numbers are taken depends on when the one who watches lets go of its own.
    let found = (0..50).flat_map(|_| &sandboxes).any(|sandbox| {
        let (_, result) = watch.inject(open, || sandbox.spawn().and_then(|child| child.wait()));
        result.expect_err("is refused").raw_os_error() == Some(libc::ELOOP)
    });
    assert!(found, "nothing is open");
    let escaped = (0..50).flat_map(|_| &sandboxes).any(|sandbox| {
        let (_, result) = watch.inject_weakened(open, ANYWHERE, || sandbox.spawn().and_then(|child| child.wait()));
        result.is_ok_and(|status| status.success())
    });
    assert!(escaped, "the attack is none");
}
