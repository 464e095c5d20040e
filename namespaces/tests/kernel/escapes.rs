//! The escape program in sandboxes with all defences, and with some of them off.

use crate::escape;
use crate::roots::Busybox;
use crate::support::{program, read};
use cofferdam_namespaces::{
    Capabilities, Capability, CapabilitySet, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Seccomp, Stdio,
};
use nix::pty::openpty;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The escape program in a root with the host's libraries, and a masked file. Its defences are still to come.
fn open(root: &Path, proc: Mount) -> Sandbox {
    let secret = root.join("etc/secret");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::write(secret, "secret").unwrap();
    let mut sandbox = program("/escape")
        .arg("escape")
        .namespaces(Namespaces::MOUNT)
        .root(Root::directory(root))
        .mount(Mount::tmpfs("/tmp"))
        .mount(proc)
        .mount(Mount::bind(escape::program(), "/escape").read_only())
        .mount(Mount::mask("/etc/secret"))
        .env("ESCAPE_HOST_FILE", escape::program())
        .stdin(Stdio::fd("terminal"))
        .stdout(Stdio::Pipe);
    for folder in ["/usr", "/lib", "/lib64"].into_iter().filter(|folder| Path::new(folder).exists()) {
        sandbox = sandbox.mount(Mount::bind(folder, folder).read_only());
    }
    sandbox
}

/// All that this crate has.
fn closed(sandbox: Sandbox) -> Sandbox {
    let capabilities = Capabilities::container_default();
    let all = Namespaces::PID | Namespaces::NET | Namespaces::IPC | Namespaces::UTS | Namespaces::CGROUP;
    sandbox
        .namespaces(all)
        .mount(Mount::read_only_path("/proc/sys"))
        .mount(Mount::read_only_path("/proc/sysrq-trigger"))
        .capabilities(capabilities)
        .no_new_privs()
        .new_session()
        .new_session_keyring()
        .seccomp(Seccomp::container_default(&capabilities))
        .seccomp(Seccomp::no_terminal_injection())
        .seccomp(Seccomp::no_user_namespaces())
}

/// What it says of each way out.
fn tried(sandbox: &Sandbox, fds: Fds) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut child = sandbox.spawn_with(fds).unwrap();
    let said = read(&mut child);
    assert!(child.wait().unwrap().success(), "{said}");
    let with = |start: &str| said.lines().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect();
    let (escaped, refused): (BTreeSet<String>, BTreeSet<String>) = (with("ESCAPED: "), with("refused: "));
    assert_eq!(said.lines().count(), escaped.len() + refused.len(), "{said}");
    (escaped, refused)
}

fn terminal() -> (OwnedFd, Fds) {
    let pty = openpty(None, None).unwrap();
    (pty.master, Fds::new().bind("terminal", pty.slave))
}

fn all() -> BTreeSet<String> {
    escape::ALL.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn nothing_gets_out(user: Option<IdMap>) {
    let root = Busybox::new();
    let own = fs::read(escape::program()).unwrap();
    crate::privilege::have_a_key();
    let mut sandbox = closed(open(root.path(), Mount::proc("/proc")));
    if let Some(map) = user {
        sandbox = sandbox.user(map);
    }
    let (_master, fds) = terminal();
    let (escaped, refused) = tried(&sandbox, fds);
    assert_eq!((escaped, refused), (BTreeSet::new(), all()));
    assert_eq!(fs::read(escape::program()).unwrap(), own);
}

/// As root of the machine.
pub(crate) fn root_does_not_get_out() {
    nothing_gets_out(None);
}

/// As root of a user namespace, who is the caller: root, or an ordinary user.
pub(crate) fn root_of_a_user_namespace_does_not_get_out() {
    nothing_gets_out(Some(IdMap::root()));
}

/// Without its defence each way is open: or the attack would be none. Only what does not need something of the machine that it may lack.
pub(crate) fn without_defences_they_get_out() {
    let root = Busybox::new();
    let open_ways = ["ptrace", "mknod", "mount", "unmask", "remount", "handle", "userns", "raw-socket", "key", "exe"];
    let files = ["proc-sys", "core-pattern", "inheritable"];
    crate::privilege::have_a_key();
    let sandbox = open(root.path(), Mount::bind("/proc", "/proc")).args(open_ways).args(files);
    let inherit = |sandbox: Sandbox| {
        let mut sets = Capabilities::only(CapabilitySet::all() - Capability::SysResource.into());
        sets = sets.inheritable(Capability::Chown);
        sandbox.capabilities(sets)
    };
    let (_master, fds) = terminal();
    let sandbox = inherit(sandbox).mount(Mount::tmpfs("/tmp").allow_devices());
    let sandbox = sandbox.mount(Mount::bind(escape::program(), "/escape"));
    let (escaped, refused) = tried(&sandbox, fds);
    assert_eq!(refused, BTreeSet::new());
    assert!(open_ways.iter().chain(&files).all(|name| escaped.contains(*name)), "{escaped:?}");
    // Without a root of its own.
    let (folder, ways) = (tempfile::tempdir().unwrap(), ["host-files", "chroot"]);
    let sandbox = program(escape::program()).arg("escape").args(ways).stdin(Stdio::Null).stdout(Stdio::Pipe);
    let sandbox = sandbox.env("ESCAPE_HOST_FILE", escape::program()).env("ESCAPE_FOLDER", folder.path());
    assert_eq!(tried(&sandbox, Fds::new()), (ways.map(str::to_owned).into(), BTreeSet::new()));
}

/// A descriptor that the host has left open for programs is one for the sandbox, where nobody closes it.
pub(crate) fn a_descriptor_left_open() {
    let left = fs::File::open("/").unwrap();
    let number = nix::fcntl::fcntl(&left, nix::fcntl::FcntlArg::F_DUPFD(3)).unwrap();
    let said = output_of_a_plain_spawn();
    assert_eq!(said, "ESCAPED: descriptors\n", "the attack is none");
    let sandbox = program(escape::program()).args(["escape", "descriptors"]);
    assert_eq!(crate::support::output(sandbox), "refused: descriptors\n");
    nix::unistd::close(number).unwrap();
}

fn output_of_a_plain_spawn() -> String {
    let output = std::process::Command::new(escape::program()).args(["escape", "descriptors"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
