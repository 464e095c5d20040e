//! Programs at the points of a sandbox's life that OCI names: when they run, where, as whom, and what is left of one that fails.

use crate::faults::{Unchanged, no_child_is_left};
use crate::hold::{threads_end, walk};
use crate::identity::strangers;
use crate::roots::Busybox;
use crate::support::{program, read, without};
use crate::walks::prove;
use cofferdam_namespaces::{
    Capabilities, Creating, Credentials, Engine, Error, ErrorKind, Fds, Hook, IdMap, Join, Mount, Namespaces, OciState,
    Root, Sandbox, Seccomp, Stdio, Step,
};
use cofferdam_testkit::fault::{Watch, Who};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// The creation is always by a copy: there is no other engine to run it by.
fn sandbox(root: &Path) -> Sandbox {
    let all = Namespaces::MOUNT | Namespaces::PID | Namespaces::UTS | Namespaces::NET | Namespaces::IPC;
    Sandbox::new("/bin/sh")
        .env("PATH", "/bin")
        .namespaces(all)
        .root(Root::directory(root))
        .mount(Mount::proc("/proc"))
        .hostname("inside")
        .stdout(Stdio::Pipe)
}

fn state() -> OciState {
    OciState::new("a \"name\"", "/srv/bundle").annotation("org.example.why", "test")
}

/// A shell script of the host's, or of the root's.
fn hook(script: &str) -> Hook {
    Hook::new("/bin/sh").args(["-c", script]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

/// What hooks see of where they are: five namespaces, host name, who they are, whether a file of the host's is there.
fn look(folder: &Path) -> String {
    format!(
        "for n in mnt pid uts net ipc; do readlink /proc/self/ns/$n; done; hostname; id -u
         if [ -e {}/marker ]; then echo host; else echo root; fi; cat",
        folder.display()
    )
}

/// What was written into this file, line by line; the last is the state.
fn told(path: &Path) -> (Vec<String>, serde_json::Value) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let state = serde_json::from_str(&lines.pop().unwrap()).unwrap();
    (lines, state)
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let names = ["mnt", "pid", "uts", "net", "ipc"];
    names.iter().map(|n| fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap().display().to_string()).collect()
}

fn expected(status: &str, pid: Option<u32>) -> serde_json::Value {
    let mut state = serde_json::json!({
        "ociVersion": "1.0.2", "id": "a \"name\"", "status": status, "bundle": "/srv/bundle",
        "annotations": {"org.example.why": "test"},
    });
    if let Some(pid) = pid {
        state["pid"] = pid.into();
    }
    state
}

/// Each at its point: before and after what it is to be before and after, in whose namespaces, with which state.
pub(crate) fn each_point_is_where_oci_says() {
    let (root, outside) = (Busybox::new(), tempfile::tempdir().unwrap());
    for folder in ["mnt", "proc", "etc"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    symlinks(root.path(), &["id", "mkdir"]);
    fs::write(outside.path().join("marker"), "").unwrap();
    let script = "echo program; cat /mnt/made /etc/started; hostname; touch /etc/over; read -r line";
    let wanted = sandbox(root.path()).args(["-c", script]).stdin(Stdio::Pipe);
    for wanted in [wanted.clone(), wanted.user(IdMap::root())] {
        let creating = wanted.create(Fds::new()).unwrap();
        before_the_root_changes(&creating, root.path(), outside.path());
        let inside = namespaces_of(creating.id());
        afterwards(creating, &inside, root.path(), outside.path());
        fs::remove_file(root.path().join("etc/over")).unwrap();
    }
    threads_end();
}

fn before_the_root_changes(creating: &Creating, root: &Path, outside: &Path) {
    let (ours, out) = (namespaces_of(std::process::id()), |name: &str| outside.join(name));
    let own_name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    // The host's root is the child's too.
    let script = format!("exec >{}; {}", out("1").display(), look(outside));
    creating.create_runtime(&[hook(&script)], &state()).unwrap();
    let (lines, told_state) = told(&out("1"));
    assert_eq!((&lines[..5], &lines[5], &*lines[7]), (&ours[..], &own_name, "host"));
    assert_eq!(told_state, expected("creating", Some(creating.id())));
    assert!(fs::exists(format!("/proc/{}/root{}", creating.id(), out("marker").display())).unwrap());
    // In there, with a file system that the program will find.
    let mounted = format!("mount -t tmpfs made {0}/mnt && echo made >{0}/mnt/made", root.display());
    let script = format!("exec >{}; {mounted}; {}", out("2").display(), look(outside));
    creating.create_container(&[hook(&script)], &state()).unwrap();
    let (lines, told_state) = told(&out("2"));
    assert_eq!((&lines[..5], &*lines[6], &*lines[7]), (&namespaces_of(creating.id())[..], "0", "host"));
    assert!(lines[..5].iter().all(|line| !ours.contains(line)), "{lines:?}");
    assert_eq!(told_state, expected("creating", Some(1)));
    assert!(!root.join("mnt/made").exists(), "mounted outside");
    assert!(!root.join("etc/over").exists(), "started");
}

fn afterwards(creating: Creating, inside: &[String], root: &Path, outside: &Path) {
    let (ours, out) = (namespaces_of(std::process::id()), |name: &str| outside.join(name));
    let held = creating.finish().unwrap();
    let script = format!("exec >/etc/started; {}", look(outside));
    let inner = Hook::new("/bin/sh").args(["-c", &script]).env("PATH", "/bin");
    held.start_container(&[inner], &state()).unwrap();
    let (lines, told_state) = told(&root.join("etc/started"));
    assert_eq!((&lines[..5], &*lines[5], &*lines[6], &*lines[7]), (inside, "inside", "0", "root"));
    assert_eq!(told_state, expected("created", Some(1)));
    assert!(!root.join("etc/over").exists(), "started");
    let mut child = held.release().unwrap();
    assert_eq!(child.report().engine(), Engine::Copy);
    let script = format!("exec >{}; {}", out("4").display(), look(outside));
    assert!(child.poststart(&[hook(&script)], &state()).is_empty());
    let (lines, told_state) = told(&out("4"));
    assert_eq!((&lines[..5], told_state), (&ours[..], expected("running", Some(child.id()))));
    drop(child.stdin.take());
    let said = read(&mut child);
    assert!(said.starts_with("program\nmade\n") && said.ends_with("inside\n"), "{said}");
    child.wait().unwrap();
    assert!(root.join("etc/over").exists());
    let script = format!("exec >{}; {}", out("5").display(), look(outside));
    assert!(child.poststop(&[hook(&script)], &state()).is_empty());
    let (lines, told_state) = told(&out("5"));
    assert_eq!((&lines[..5], told_state), (&ours[..], expected("stopped", None)));
}

fn symlinks(root: &Path, names: &[&str]) {
    for name in names {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// A hook of the root's may do no more than the program, and is no more than it.
pub(crate) fn hooks_inside_are_confined() {
    let root = Busybox::new();
    let show = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid)' /proc/self/status >/seen; umask >>/seen";
    let capabilities = Capabilities::container_default();
    let confined = |sandbox: Sandbox| {
        let filter = Seccomp::container_default(&capabilities);
        sandbox.capabilities(capabilities).no_new_privs().seccomp(filter).umask(0o027)
    };
    fs::create_dir(root.path().join("proc")).unwrap();
    for sandbox in [sandbox(root.path()), sandbox(root.path()).user(IdMap::root())] {
        let sandbox = confined(sandbox).args(["-c", show]);
        let held = sandbox.create(Fds::new()).unwrap().finish().unwrap();
        held.start_container(&[Hook::new("/bin/sh").args(["-c", show]).env("PATH", "/bin")], &state()).unwrap();
        let hooks = fs::read_to_string(root.path().join("seen")).unwrap();
        fs::remove_file(root.path().join("seen")).unwrap();
        assert!(held.release().unwrap().wait().unwrap().success());
        let programs = fs::read_to_string(root.path().join("seen")).unwrap();
        fs::remove_file(root.path().join("seen")).unwrap();
        assert!(programs.contains("NoNewPrivs:\t1") && programs.contains("Seccomp:\t2"), "{programs}");
        assert_eq!(hooks, programs);
    }
    threads_end();
}

/// Beside it waits a copy of this program: it cannot look into that, nor at its program's file (CVE-2019-5736). With the defence off it can.
pub(crate) fn hooks_inside_see_nothing_of_the_caller() {
    let root = Busybox::new();
    fs::create_dir(root.path().join("proc")).unwrap();
    let look = "readlink /proc/1/exe >/seen; head -c 1 /proc/1/environ >>/seen; readlink /proc/1/fd/0 >>/seen; true";
    let look = || Hook::new("/bin/sh").args(["-c", look]).env("PATH", "/bin");
    let seen = || {
        let held = sandbox(root.path()).user(IdMap::root()).create(Fds::new())?.finish()?;
        held.start_container(&[look()], &state())?;
        let seen = fs::read_to_string(root.path().join("seen")).unwrap();
        fs::remove_file(root.path().join("seen")).unwrap();
        Ok::<String, Error>(seen)
    };
    assert_eq!(seen().unwrap(), "");
    let (calls, result) = Watch::only(&[libc::SYS_prctl]).record(seen);
    assert_eq!(result.unwrap(), "");
    let hides = |call: &cofferdam_testkit::fault::Call| {
        call.who == Who::Child && call.args[..2] == [libc::PR_SET_DUMPABLE as u64, 0]
    };
    let nth = calls.iter().filter(|call| call.who == Who::Child).position(hides).unwrap();
    let seen = without(libc::SYS_prctl, nth, seen).unwrap();
    assert!(seen.contains(&std::env::current_exe().unwrap().display().to_string()), "the attack is none: {seen}");
    threads_end();
}

/// Whichever it is: the error says what it was and what it said, those behind it are not run, and nothing of the sandbox is left.
pub(crate) fn a_hook_that_fails_ends_it() {
    let (root, folder) = (Busybox::new(), tempfile::tempdir().unwrap());
    let (before, ran) = (Unchanged::now(), folder.path().join("ran"));
    let create = || sandbox(root.path()).user(IdMap::root()).create(Fds::new());
    let bad = || [hook("echo some; echo 'no device\x1b[2J' >&2; exit 3"), hook(&format!("touch {}", ran.display()))];
    let check = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::HookFailed, Step::Hook), "{error}");
        assert_eq!(error.object().unwrap(), "/bin/sh");
        let said = "run a hook: /bin/sh: ended with exit status: 3: \"some\\nno device\\u{1b}[2J\"";
        assert_eq!(error.to_string(), said);
        assert!(!ran.exists());
        no_child_is_left();
        before.check();
    };
    check(create().and_then(|creating| creating.create_runtime(&bad(), &state())));
    check(create().and_then(|creating| creating.create_container(&bad(), &state())));
    check(create().and_then(Creating::finish).and_then(|held| held.start_container(&bad(), &state())));
    // Told, and the others run.
    let mut child = program("/bin/cat").stdin(Stdio::Pipe).spawn().unwrap();
    let errors = child.poststart(&bad(), &state());
    assert_eq!(errors.iter().map(Error::kind).collect::<Vec<_>>(), [ErrorKind::HookFailed]);
    assert!(ran.exists());
    fs::remove_file(&ran).unwrap();
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!((child.poststop(&bad(), &state()).len(), ran.exists()), (1, true));
    // One that is not there is an error of the start.
    let missing = create().unwrap().create_container(&[Hook::new("/nowhere/hook")], &state()).unwrap_err();
    assert_eq!((missing.kind(), missing.step()), (ErrorKind::NotFound, Step::Exec), "{missing}");
    let killed = create().unwrap().create_runtime(&[hook("kill -9 $$")], &state()).unwrap_err();
    assert!(killed.to_string().contains("signal: 9"), "{killed}");
    no_child_is_left();
    threads_end();
}

/// It is killed with what it has started, wherever it runs; what it left behind beforehand and that keeps its output open, keeps nobody waiting.
pub(crate) fn a_hook_that_takes_too_long_is_killed() {
    let (root, folder) = (Busybox::new(), tempfile::tempdir().unwrap());
    symlinks(root.path(), &["sleep"]);
    let fifo = folder.path().join("fifo");
    let open = || fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let slow = || {
        let script = format!("exec 9>{}; sleep 1000 & sleep 1000; true", fifo.display());
        hook(&script).timeout(Duration::from_millis(200))
    };
    let ended = |error: Error| {
        assert_eq!((error.kind(), error.step()), (ErrorKind::TimedOut, Step::Hook), "{error}");
        // Nobody has the other side any more: none of the three.
        let both = open();
        let mut end = fs::File::open(&fifo).unwrap();
        drop(both);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut end, &mut rest).unwrap();
    };
    let both = open();
    let creating = sandbox(root.path()).user(IdMap::root()).create(Fds::new()).unwrap();
    let error = creating.create_runtime(&[slow()], &state()).unwrap_err();
    drop(both);
    ended(error);
    drop(creating);
    no_child_is_left();
    let both = open();
    let creating = sandbox(root.path()).user(IdMap::root()).create(Fds::new()).unwrap();
    let error = creating.create_container(&[slow()], &state()).unwrap_err();
    drop(both);
    ended(error);
    drop(creating);
    no_child_is_left();
    // A daemon, which goes on.
    let pid = folder.path().join("pid");
    let daemon = format!(
        "setsid sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000' & while [ ! -e {0} ]; do :; done",
        pid.display()
    );
    let child = program("/bin/true").spawn().unwrap();
    assert!(child.poststart(&[hook(&daemon)], &state()).is_empty());
    child.wait().unwrap();
    let pid = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    threads_end();
}

/// Every call of a child that is created in steps, failed and killed in turn.
pub(crate) fn every_call_of_a_creation_can_fail() {
    let root = Busybox::new();
    // Not missing the first time and there the next.
    fs::create_dir(root.path().join("proc")).unwrap();
    let sandbox = sandbox(root.path()).user(IdMap::root()).args(["-c", "exit 0"]).die_with_parent();
    let steps = walk(|| sandbox.create(Fds::new())?.finish()?.release()?.wait(), no_child_is_left);
    prove("every_call_of_a_creation_can_fail", steps);
}

/// While it is created it keeps nothing of ours open but what it needs, and is gone when it is dropped; and then its program gets what it asked for.
pub(crate) fn a_creation_lets_go() {
    let root = Busybox::new();
    let mut other = program("/bin/cat").stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
    let null = || fs::File::open("/dev/null").unwrap();
    let wanted = sandbox(root.path()).user(IdMap::root()).fd(7, "seven").stdin(Stdio::Null);
    let wanted = wanted.args(["-c", "ls /proc/self/fd"]);
    let creating = wanted.create(Fds::new().bind("seven", null())).unwrap();
    // Three streams, gate, root, descriptor 7 and the three sources of streams.
    let open = fs::read_dir(format!("/proc/{}/fd", creating.id())).unwrap().count();
    assert!(open <= 9, "{open}");
    drop(other.stdin.take());
    assert_eq!(read(&mut other), "");
    assert!(other.wait().unwrap().success());
    let mut child = creating.finish().unwrap().release().unwrap();
    assert_eq!(read(&mut child), "0\n1\n2\n3\n7\n");
    assert!(child.wait().unwrap().success());
    let creating = wanted.create(Fds::new().bind("seven", null())).unwrap();
    let pid = creating.id();
    drop(creating);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    no_child_is_left();
    threads_end();
}

/// The caller writes the map meanwhile, and the child is somebody else then. Hooks inside are root, and then who the program is.
pub(crate) fn a_creation_with_other_ids() {
    let root = Busybox::new();
    symlinks(root.path(), &["id"]);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let wanted = Sandbox::new("/bin/sh").args(["-c", "[ $(id -u)/$(id -g) = 5/6 ]"]).env("PATH", "/bin");
    let wanted = wanted.namespaces(Namespaces::MOUNT | Namespaces::PID).root(Root::mount("root"));
    let wanted = wanted.user(strangers()).credentials(Credentials::new(5, 6));
    let creating = wanted.create(Fds::new().bind("root", root.mount())).unwrap();
    creating.create_runtime(&[hook("[ $(id -u) = 0 ]")], &state()).unwrap();
    let map = "[ $(id -u) = 0 ] && read -r inside outside count </proc/self/uid_map && [ $outside = 0 ]";
    creating.create_runtime(&[hook(map)], &state()).unwrap();
    creating.create_container(&[hook(&map.replace("outside = 0", "outside = 100000"))], &state()).unwrap();
    let held = creating.finish().unwrap();
    let inner = Hook::new("/bin/sh").args(["-c", "[ $(id -u)/$(id -g) = 5/6 ]"]).env("PATH", "/bin");
    held.start_container(&[inner], &state()).unwrap();
    assert!(held.release().unwrap().wait().unwrap().success());
    threads_end();
}

pub(crate) fn creations_that_cannot_be() {
    let root = Busybox::new();
    let refused = |result: Result<Creating, Error>, object: &str| {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.object().unwrap().to_str()),
            (ErrorKind::InvalidConfig, Some(object)),
            "{error}"
        );
    };
    let wanted = || sandbox(root.path()).user(IdMap::root());
    refused(wanted().engine(Engine::Shared).create(Fds::new()), "engine");
    refused(program("/bin/true").engine(Engine::Copy).join(Join::all()).create(Fds::new()), "join");
    let creating = wanted().create(Fds::new()).unwrap();
    for hook in [Hook::new("relative"), Hook::new("/bin/true").timeout(Duration::ZERO)] {
        let error = creating.create_runtime(&[hook], &state()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let error = creating.namespace(Namespaces::NET | Namespaces::PID).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    drop(creating);
    let held = program("/bin/true").prepare(Fds::new()).unwrap().hold().unwrap();
    let error = held.start_container(&[], &state()).unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("hooks")), "{error}");
    drop(held);
    threads_end();
}
