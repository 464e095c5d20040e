//! What is inside is really apart from what is outside.

use crate::support::{NAMES, output, program, sh, without};
use cofferdam_namespaces::{IdMap, Mount, Namespaces, Sandbox};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use std::collections::BTreeMap;
use std::fs;

/// Every namespace that /proc shows, with its identity.
fn namespaces_of(sandbox: Sandbox) -> BTreeMap<String, String> {
    let listing = output(sandbox);
    listing
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

const LIST: &str = "cd /proc/self/ns && for n in user pid mnt uts ipc net cgroup; do echo $n $(readlink $n); done";

fn each_is_new(base: &Sandbox) {
    let ours = namespaces_of(sh(LIST));
    // A time namespace is entered by the program.
    let cases = NAMES.into_iter().filter(|(flag, _)| *flag != Namespaces::TIME);
    let given = namespaces_of(base.clone());
    for (flag, name) in cases {
        let theirs = namespaces_of(base.clone().namespaces(flag));
        for (other, id) in &ours {
            let new = other == name || given[other] != *id;
            assert_eq!(theirs[other] != *id, new, "{flag:?}: {other}");
        }
    }
}

pub(crate) fn each_namespace_is_new_and_no_other() {
    each_is_new(&sh(LIST));
}

pub(crate) fn each_namespace_is_new_in_a_user_namespace() {
    each_is_new(&sh(LIST).user(IdMap::root()));
}

/// The program is pid 1 and a fresh proc shows it, and nobody else.
pub(crate) fn pid_1_sees_itself_alone() {
    let sandbox = sh("echo $$; cd /proc && echo [0-9]*; readlink /proc/self/exe >/dev/null")
        .user(IdMap::root())
        .namespaces(Namespaces::PID | Namespaces::MOUNT)
        .mount(Mount::proc("/proc"));
    assert_eq!(output(sandbox), "1\n1\n");
    let options = sh("grep ' /proc ' /proc/self/mounts | tail -n 1 | cut -d ' ' -f 3,4")
        .user(IdMap::root())
        .namespaces(Namespaces::PID | Namespaces::MOUNT)
        .mount(Mount::proc("/proc"));
    let options = output(options);
    for option in ["proc ", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(option), "{options}");
    }
}

pub(crate) fn hostname_is_set_inside_only() {
    let ours = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let longest = "x".repeat(64);
    for name in ["inside", &longest] {
        let sandbox =
            sh("cat /proc/sys/kernel/hostname").user(IdMap::root()).namespaces(Namespaces::UTS).hostname(name);
        assert_eq!(output(sandbox), format!("{name}\n"));
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), ours);
}

/// One id each, mapped to the caller's; setgroups denied, so that nobody drops a group that a file denies.
pub(crate) fn ids_are_mapped() {
    let show = "id -u; id -g; cat /proc/self/setgroups; cat /proc/self/uid_map /proc/self/gid_map";
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    for (map, inner) in [(IdMap::root(), (0, 0)), (IdMap::single(1234, 5678), (1234, 5678))] {
        let text = output(sh(show).user(map));
        let words: Vec<&str> = text.split_whitespace().collect();
        let (u, g) = (inner.0.to_string(), inner.1.to_string());
        let (outer_u, outer_g) = (uid.to_string(), gid.to_string());
        assert_eq!(words, [&u, &g, "deny", &u, &outer_u, "1", &g, &outer_g, "1"]);
    }
    // The namespace alone means root.
    assert_eq!(output(sh("id -u").namespaces(Namespaces::USER)), "0\n");
}

/// Root inside may mount, and the mount stays inside, although all mounts outside are shared.
pub(crate) fn mounts_do_not_propagate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let script = format!("mount -t tmpfs inside {path} && touch {path}/file && grep -c {path} /proc/self/mountinfo");
    let sandbox = sh(&script).user(IdMap::root()).namespaces(Namespaces::MOUNT);
    assert_eq!(output(sandbox), "1\n");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// As the above, as root without a user namespace, and from a parent whose mounts are shared: here the kernel does not help.
pub(crate) fn mounts_do_not_propagate_from_root() {
    assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" shared:"), "the test needs shared mounts");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let sandbox = sh(&format!("mount -t tmpfs inside {path} && grep -c {path} /proc/self/mountinfo"));
    let sandbox = sandbox.namespaces(Namespaces::MOUNT);
    let here = || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path);
    assert_eq!(output(sandbox.clone()), "1\n");
    assert!(!here());
    without(libc::SYS_mount, 0, || output(sandbox));
    assert!(here(), "they would");
    nix::mount::umount(path).unwrap();
}

/// A new network namespace has loopback, down, and nothing else.
pub(crate) fn network_is_empty() {
    let sandbox = sh("tail -n +3 /proc/self/net/dev | cut -d : -f 1; grep -vc Iface /proc/self/net/route || true");
    let text = output(sandbox.user(IdMap::root()).namespaces(Namespaces::NET));
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words.first(), Some(&"lo"), "{text}");
    assert_eq!(words.last(), Some(&"0"), "no route: {text}");
}

pub(crate) fn environment_is_what_was_asked_for() {
    let env = |sandbox: Sandbox| output(sandbox).lines().map(str::to_owned).collect::<Vec<_>>();
    let bare = program("/usr/bin/env");
    assert_eq!(env(bare.clone()), [""; 0], "empty by default");
    assert_eq!(env(bare.clone().env("B", "1").env("A", "").env("B", "2=3")), ["A=", "B=2=3"]);
    let ours: Vec<String> = env(bare.clone().inherit_env());
    assert!(ours.iter().any(|var| var.starts_with("PATH=")), "{ours:?}");
    assert!(env(bare.inherit_env().env("PATH", "/x")).contains(&"PATH=/x".to_owned()));
}

pub(crate) fn working_directory_is_entered() {
    assert_eq!(output(sh("pwd -P").working_directory("/usr/bin")), "/usr/bin\n");
    let ours = std::env::current_dir().unwrap();
    assert_eq!(output(sh("pwd -P")), format!("{}\n", ours.canonicalize().unwrap().display()));
    // Also a long one.
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join(["x".repeat(200), "y".repeat(200)].join("/"));
    std::fs::create_dir_all(&long).unwrap();
    assert_eq!(output(sh("pwd").working_directory(&long)).trim_end(), long.to_str().unwrap());
}

/// Nothing blocked and nothing ignored, whatever the caller does; and the caller's own mask is as before.
pub(crate) fn signals_are_reset() {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.thread_block().unwrap();
    #[expect(unsafe_code, reason = "the disposition, not a handler, of a process that runs this test alone")]
    // SAFETY: SIG_IGN and SIG_DFL run no code.
    let set = |disposition| unsafe { signal(Signal::SIGHUP, disposition) }.unwrap();
    let before = set(SigHandler::SigIgn);
    let text = output(sh("grep -E 'SigBlk|SigIgn' /proc/self/status"));
    set(before);
    for line in text.lines() {
        assert_eq!(line.split_whitespace().nth(1), Some("0000000000000000"), "{text}");
    }
    assert_eq!(SigSet::thread_get_mask().unwrap(), mask);
    mask.thread_unblock().unwrap();
    // What it is for: Rust's runtime ignores SIGPIPE.
    assert_eq!(output(sh("yes | head -n 1")), "y\n");
}
