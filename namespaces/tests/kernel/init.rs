//! A process 1 of this crate's: what it does for the program, and that nothing else changes.

use crate::faults::{fork, no_child_is_left};
use crate::hold::threads_end;
use crate::support::{output, output_with, program, read, refused, sh};
use cofferdam_namespaces::{
    Child, Error, ErrorKind, Fallbacks, Fds, Hook, IdMap, Join, Mount, Namespaces, OciState, Root, Sandbox, Seccomp,
    Stdio, Step,
};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_testkit::patience;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, killpg, raise, signal};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// As root of a user namespace, with a `/proc` of its own.
fn inside(sandbox: Sandbox) -> Sandbox {
    sandbox.user(IdMap::root()).namespaces(Namespaces::PID | Namespaces::MOUNT).mount(Mount::proc("/proc"))
}

pub(crate) fn with_init(sandbox: Sandbox) -> Sandbox {
    inside(sandbox).init()
}

/// The children of a process inside, living or not.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    fs::read_to_string(path).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn state(pid: u32) -> Option<char> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(") ")?.1.chars().next()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim_end().to_owned()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let (begin, most) = (Instant::now(), Duration::from_secs(100) * patience());
    while !holds() {
        assert!(begin.elapsed() < most, "{what}");
        // Who looks at a thousand processes all the time keeps them from ending.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A line that it says, and nothing behind it.
fn line(child: &mut Child) -> String {
    let mut line = String::new();
    let mut byte = [0];
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(char::from(byte[0]));
    }
    line
}

fn end(child: &Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Orphans that end all at once, when their input does, below a program that waits for nobody.
const ORPHANS: &str = "exec 3<&0; i=0; while [ $i -lt 1000 ]; do (read line <&3 &); i=$((i + 1)); done; echo made
    exec sleep 1000 <&- 3<&-";

pub(crate) fn a_thousand_zombies_are_reaped() {
    // With so many processes beside them.
    let orphans = |sandbox: Sandbox, beside: usize| {
        let mut child = sandbox.stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
        assert_eq!(line(&mut child), "made");
        assert_eq!(children(child.id()).len(), 1000 + beside);
        // A shell takes the status of whoever has ended behind each of its own commands, `echo` too: as long as it is one, as process 1 it would reap them.
        let program = if beside == 0 { child.id() } else { children(child.id())[0] };
        until("the shell is none any more", || name(program) == "sleep");
        drop(child.stdin.take());
        (child, program)
    };
    let (child, program) = orphans(with_init(sh(ORPHANS)), 1);
    // The list may lack some while others of it end, so for a moment it may seem to be alone.
    until("all are reaped but the program", || children(child.id()) == [program]);
    assert_ne!(state(program).expect("it runs"), 'Z');
    end(&child);
    // Without it they stay.
    let (child, _) = orphans(inside(sh(ORPHANS)), 0);
    until("all are zombies", || children(child.id()).iter().filter(|pid| state(**pid) == Some('Z')).count() == 1000);
    assert_eq!(children(child.id()).len(), 1000);
    end(&child);
}

/// Each comes to the program, and none is sent to it that was not sent to the init.
pub(crate) fn signals_are_forwarded() {
    let kept = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD];
    // The shell cannot catch these two, which libc keeps for itself.
    let numbers: Vec<i32> = (1..=64).filter(|number| !kept.contains(number) && ![32, 33].contains(number)).collect();
    let traps: Vec<String> = numbers.iter().map(|number| format!("trap 'echo {number}' {number}; ")).collect();
    let traps = traps.concat();
    let script = format!("{traps} echo ready; sleep 1000 & while :; do wait; done");
    let mut child = with_init(sh(&script)).stdout(Stdio::Pipe).spawn().unwrap();
    assert_eq!(line(&mut child), "ready");
    for number in numbers {
        child.signal(libc::SIGCHLD).unwrap();
        child.signal(number).unwrap();
        assert_eq!(line(&mut child), number.to_string());
    }
    end(&child);
    // Of those that nobody handles, one that ends the program; without an init process 1 does not get it.
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGRTMIN() + 3] {
        let child = with_init(program("/bin/sleep").arg("1000")).spawn().unwrap();
        child.signal(number).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
    }
}

pub(crate) fn codes_and_signals_are_the_programs() {
    let status = |script: String| with_init(sh(&script)).spawn().unwrap().wait().unwrap();
    for code in 0..=255 {
        assert_eq!(status(format!("exit {code}")).code(), Some(code));
    }
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28, 32, 33];
    for number in (1..=64).filter(|number| !harmless.contains(number)) {
        assert_eq!(status(format!("ulimit -c 0; kill -{number} $$")).code(), Some(128 + number), "signal {number}");
    }
    let child = with_init(program("/bin/sleep").arg("1000")).spawn().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// The same step, kind, errno and object, from the same causes.
pub(crate) fn errors_are_as_without() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let paths = format!("/nowhere:/etc/passwd:{}:/usr", folder.path().display());
    let in_path = |name: &str| program(name).env("PATH", &paths);
    let denied = file("denied", "#!/bin/sh\n", 0o644);
    let cases = [
        program("/nowhere"),
        program("/etc/passwd/nowhere"),
        program(denied),
        program(file("text", "not a program", 0o755)),
        program(file("lost", "#!/nowhere\n", 0o755)),
        program(folder.path()),
        in_path("nowhere"),
        in_path("denied"),
        in_path("text"),
        in_path("share"),
    ];
    let told = |error: &Error| {
        let object = error.object().map(ToOwned::to_owned);
        (error.step(), error.kind(), error.system_call(), object, error.raw_os_error(), error.to_string())
    };
    for case in cases {
        let (without, with) = (refused(&inside(case.clone())), refused(&with_init(case.clone())));
        assert_eq!(told(&without), told(&with), "{case:?}");
        assert_eq!(with.step(), Step::Exec);
        let held = with_init(case).prepare(Fds::new()).unwrap().hold().unwrap().release().unwrap_err();
        assert_eq!(told(&with), told(&held));
        no_child_is_left();
    }
    // Found in a later place.
    let shell = in_path("sh").env("PATH", format!("{paths}:/bin")).args(["-c", "exit 3"]);
    assert_eq!(with_init(shell).arg0("own name").spawn().unwrap().wait().unwrap().code(), Some(3));
    let error = refused(&sh("true").user(IdMap::root()).init());
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let full = with_init(sh("true")).terminal(cofferdam_namespaces::TerminalSize::new(3, 3));
    let error = refused(&full.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let asking = with_init(sh("true")).no_new_privs().seccomp(Seccomp::notify([libc::SYS_mkdir]));
    assert_eq!(refused(&asking).kind(), ErrorKind::InvalidConfig);
    let plan = with_init(sh("true")).prepare(Fds::new()).unwrap();
    #[expect(unsafe_code, reason = "it is refused")]
    // SAFETY: the closure is not run.
    let error = unsafe { plan.spawn_fn(|| 0) }.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    threads_end();
}

/// Its executable, its memory, its descriptors, as root inside sees them.
pub(crate) fn nothing_of_the_hosts_is_in_sight() {
    let script = "readlink /proc/1/exe; cat /proc/1/comm; ls -A /proc/1/fd; echo; cat /proc/1/maps";
    let text = output(with_init(sh(script)));
    let (names, maps) = text.split_once("\n\n").unwrap();
    assert_eq!(names, "/memfd:init (deleted)\ninit");
    let memory: BTreeSet<&str> = maps.lines().map(|line| line.split_whitespace().nth(5).unwrap_or("")).collect();
    let known: BTreeSet<&str> = ["/memfd:init", "[stack]", "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"].into();
    assert!(memory.is_subset(&known) && memory.contains("/memfd:init"), "{maps}");
    for line in maps.lines().filter(|line| !line.contains("[stack]")) {
        assert!(!line.split_whitespace().nth(1).unwrap().contains('w'), "{line}");
    }
    // The shell would say it too if the file were busy: see below for the seal.
    let script = "chmod 777 /proc/1/exe; : >>/proc/1/exe && echo written";
    let mut child = with_init(sh(script)).stdout(Stdio::Pipe).stderr(Stdio::Null).spawn().unwrap();
    assert_eq!(read(&mut child), "");
    assert!(!child.wait().unwrap().success());
}

/// The file of an init that has ended.
fn file_of_init() -> File {
    let child = with_init(program("/bin/sleep").arg("1000")).spawn().unwrap();
    let file = File::open(format!("/proc/{}/exe", child.id())).unwrap();
    end(&child);
    file
}

pub(crate) fn its_file_cannot_be_changed() {
    let writes = |file: &File| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut again = OpenOptions::new().write(true).open(path).unwrap();
        [again.write_all(b"x"), again.set_len(0), again.set_len(100_000)]
    };
    let file = file_of_init();
    for result in writes(&file) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    let seals = SealFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap());
    let needed = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    assert!(seals.contains(needed), "{seals:?}");
    // One for each spawn.
    assert_ne!(file.metadata().unwrap().ino(), file_of_init().metadata().unwrap().ino());
    // Without the seals it could be written to.
    let (calls, ()) = Watch::only(&[libc::SYS_fcntl]).record(|| drop(file_of_init()));
    let parents = calls.iter().filter(|call| call.who == Who::Parent);
    let nth = parents.clone().position(|call| call.args[1] == u64::from(libc::F_ADD_SEALS.cast_unsigned())).unwrap();
    let fault = Fault { who: Who::Parent, nth, action: Action::Errno(0) };
    let (_, open) = Watch::only(&[libc::SYS_fcntl]).inject(fault, file_of_init);
    assert!(writes(&open).into_iter().all(|result| result.is_ok()));
}

/// The program has what was asked for, the init nothing; also where ranges cannot be closed.
pub(crate) fn descriptors_are_the_programs() {
    let null = || File::open("/dev/null").unwrap();
    let run = |sandbox: Sandbox, fds: Fds| {
        let sandbox =
            with_init(sandbox.args(["-c", "ls /proc/self/fd; echo; ls -A /proc/1/fd"]).env("PATH", "/bin:/usr/bin"));
        let text = output_with(sandbox, fds);
        let (own, inits) = text.split_once("\n\n").unwrap();
        assert_eq!(inits, "");
        let mut own: Vec<u32> = own.lines().map(|line| line.parse().unwrap()).collect();
        own.sort_unstable();
        own
    };
    let one = |number: u32| (program("/bin/sh").fd(number, "null"), Fds::new().bind("null", null()));
    assert_eq!(run(program("/bin/sh"), Fds::new()), [0, 1, 2, 3]);
    let (sandbox, fds) = one(4);
    assert_eq!(run(sandbox, fds), [0, 1, 2, 3, 4]);
    let (sandbox, fds) = one(900);
    assert_eq!(run(sandbox, fds), [0, 1, 2, 3, 900]);
    let fault = Fault { who: Who::Child, nth: Fault::EVERY, action: Action::Errno(libc::ENOSYS) };
    let (sandbox, fds) = one(6);
    let (_, own) =
        Watch::only(&[libc::SYS_close_range]).inject(fault, || run(sandbox.fallbacks(Fallbacks::CLOSE_EACH), fds));
    assert_eq!(own, [0, 1, 2, 3, 6]);
    // A limit is the program's.
    let sandbox = with_init(sh("ulimit -n")).rlimit(cofferdam_namespaces::Resource::Nofile, 4);
    assert_eq!(output(sandbox), "4\n");
    // Its pipes end with the program, whatever else has become of process 1.
    let mut child = with_init(sh("exec >&-; kill -STOP $$")).stdout(Stdio::Pipe).spawn().unwrap();
    assert_eq!(read(&mut child), "");
    end(&child);
}

/// All that is left inside is killed.
pub(crate) fn the_end_of_the_program_ends_all() {
    let script = "trap '' TERM HUP INT; (exec sleep 1000) & (setsid sleep 1000 &); exit 9";
    let mut child = with_init(sh(script)).stdout(Stdio::Pipe).spawn().unwrap();
    // They all have the pipe.
    assert_eq!(read(&mut child), "");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

/// Numbers as they are inside, 0 for what is outside: parent, process group, session.
const PLACE: &str = "read -r pid name state parent group session rest </proc/self/stat
    echo $((group == pid)) $((session == pid)) $((group == 0)) $((session == 0))";

/// Group and session as without an init; and that is in no group of others.
pub(crate) fn groups_and_sessions_are_as_without() {
    for change in [(|sandbox| sandbox) as fn(Sandbox) -> Sandbox, Sandbox::new_session] {
        let (without, with) = (output(change(inside(sh(PLACE)))), output(change(with_init(sh(PLACE)))));
        assert_eq!(without, with);
        let child = change(with_init(program("/bin/sleep").arg("1000"))).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        assert_eq!(nix::unistd::getpgid(Some(pid)), Ok(pid));
        end(&child);
    }
}

/// A signal to the caller's process group, as a terminal sends it, comes to the program once.
pub(crate) fn a_group_is_signalled_once() {
    let leader = fork(|| {
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
        #[expect(unsafe_code, reason = "to survive it")]
        // SAFETY: no handler is run.
        unsafe { signal(Signal::SIGUSR1, SigHandler::SigIgn) }.unwrap();
        let script =
            "trap 'echo once' USR1; trap 'echo end; exit 0' TERM; echo ready; sleep 1000 & while :; do wait; done";
        let mut child = with_init(sh(script)).stdout(Stdio::Pipe).spawn().unwrap();
        assert_eq!(line(&mut child), "ready");
        killpg(nix::unistd::getpgrp(), Signal::SIGUSR1).unwrap();
        assert_eq!(line(&mut child), "once");
        child.signal(libc::SIGTERM).unwrap();
        assert_eq!(line(&mut child), "end");
        assert!(child.wait().unwrap().success());
    });
    let status = nix::sys::wait::waitpid(leader, None).unwrap();
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(leader, 0));
}

/// Held, joined, killed with its parent: as any other.
pub(crate) fn held_joined_and_orphaned() {
    let plan = with_init(sh("read line; exit 4")).stdin(Stdio::Pipe).prepare(Fds::new()).unwrap();
    let held = plan.hold().unwrap();
    assert!(held.namespace(Namespaces::PID).is_ok());
    let mut child = held.release().unwrap();
    // What somebody leaves behind who has joined is the init's too.
    let text = crate::joins::joined(&child, sh("(sleep 1001 >&- 2>&- &); cat /proc/1/comm").join(Join::all()));
    assert_eq!(text, "init\n");
    until("it has inherited it", || children(child.id()).len() == 2);
    let orphan = children(child.id()).into_iter().max().unwrap();
    nix::sys::signal::kill(Pid::from_raw(orphan.try_into().unwrap()), Signal::SIGKILL).unwrap();
    until("it is reaped", || children(child.id()).len() == 1);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(4));
    for hold in [false, true] {
        let (told, tell) = nix::unistd::pipe().unwrap();
        let caller = fork(|| {
            let sandbox = with_init(program("/bin/sleep").arg("1000").stdout(Stdio::fd("pipe"))).die_with_parent();
            let plan = sandbox.prepare(Fds::new().bind("pipe", tell.try_clone().unwrap())).unwrap();
            let child = if hold { plan.hold().unwrap().release() } else { plan.spawn() };
            std::mem::forget(child.unwrap());
            raise(Signal::SIGKILL).unwrap();
        });
        drop(tell);
        nix::sys::wait::waitpid(caller, None).unwrap();
        assert_eq!(File::from(told).read(&mut [0]).unwrap(), 0, "the pipe ends");
    }
    threads_end();
}

/// In steps, with a hook that runs beside process 1 before it is the init, and leaves somebody behind.
pub(crate) fn created_with_an_init() {
    let root = crate::roots::Busybox::new();
    let sandbox = Sandbox::new("/bin/sh").args(["-c", "read line; exit 5"]).root(Root::directory(root.path()));
    let creating = with_init(sandbox.stdin(Stdio::Pipe)).create(Fds::new()).unwrap();
    let state = OciState::new("id", "/srv/bundle");
    let hook = Hook::new("/bin/sh").args(["-c", "(true &); (sleep 0 &)"]).env("PATH", "/bin");
    let held = creating.finish().unwrap();
    held.start_container(&[hook], &state).unwrap();
    let mut child = held.release().unwrap();
    until("the hook's orphans are reaped", || children(child.id()).len() == 1);
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    threads_end();
}

/// A fork of the caller's that lives on has copies of all its descriptors.
pub(crate) fn a_fork_of_the_caller_keeps_nobody_waiting() {
    let (end, go) = nix::unistd::pipe().unwrap();
    let plan = with_init(sh("exit 6")).prepare(Fds::new()).unwrap();
    let (forks, codes) = std::thread::scope(|scope| {
        // Another thread's, in the middle of spawns.
        let wait = || assert_eq!(nix::unistd::read(&end, &mut [0]), Ok(1));
        let forker = scope.spawn(move || (0..20).map(|_| fork(wait)).collect::<Vec<_>>());
        let codes: Vec<_> = (0..40).map(|_| plan.spawn().unwrap().wait().unwrap().code()).collect();
        (forker.join().unwrap(), codes)
    });
    assert_eq!(codes, [Some(6); 40]);
    nix::unistd::write(&go, &[0; 20]).unwrap();
    for pid in forks {
        nix::sys::wait::waitpid(pid, None).unwrap();
    }
}

/// Who may trace it can stop it: the caller has the child by then, and can end it.
pub(crate) fn an_init_that_is_stopped_keeps_nobody_waiting() {
    let script = "
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT = 0x4206, 0x4207
assert libc.ptrace(SEIZE, 1, None, None) == 0
assert libc.ptrace(INTERRUPT, 1, None, None) == 0
print('stopped', flush=True)
import time
time.sleep(1000)
";
    let python = program("/usr/bin/python3").args(["-c", script]);
    let mut child = with_init(python).stdout(Stdio::Pipe).spawn().unwrap();
    assert_eq!(line(&mut child), "stopped");
    assert_eq!(child.try_wait().unwrap(), None);
    end(&child);
}

/// In a root of its own, and as an ordinary user of it.
pub(crate) fn in_a_root_of_its_own() {
    let root = crate::roots::Busybox::new();
    let sandbox = |script: &str| {
        program("/bin/sh")
            .args(["-c", script])
            .env("PATH", "/bin")
            .namespaces(Namespaces::PID | Namespaces::MOUNT)
            .root(Root::directory(root.path()))
            .read_only_root()
            .mount(Mount::proc("/proc"))
            .credentials(cofferdam_namespaces::Credentials::new(1234, 1234))
            .no_new_privs()
            .init()
    };
    assert_eq!(output(sandbox("id -u; echo $$; cat /proc/1/comm")), "1234\n2\ninit\n");
    let child = sandbox("exec sleep 1000").spawn().unwrap();
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let error = refused(
        &program("nowhere").namespaces(Namespaces::PID | Namespaces::MOUNT).root(Root::directory(root.path())).init(),
    );
    assert_eq!((error.step(), error.kind()), (Step::Exec, ErrorKind::NotFound));
}
