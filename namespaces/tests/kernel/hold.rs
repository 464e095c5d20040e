//! A child that waits for its release.

use crate::faults::{Unchanged, inject_at, no_child_is_left};
use crate::support::{program, read, sh};
use crate::walks::prove;
use cofferdam_namespaces::{Error, ErrorKind, Fds, Held, IdMap, Namespaces, Plan, Sandbox, Stdio, Step};
use cofferdam_testkit::fault::{Action, Call, Who, record};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

fn plan(sandbox: &Sandbox) -> Plan {
    sandbox.prepare(Fds::new()).unwrap()
}

fn descriptors(held: &Held) -> usize {
    fs::read_dir(format!("/proc/{}/fd", held.id())).unwrap().count()
}

/// Its namespaces can be had while it waits, and are those that the program finds itself in.
pub(crate) fn namespaces_before_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("started");
    let script = format!(
        "touch {file:?}; cd /proc/self/ns; for n in user pid mnt uts ipc net cgroup time; do readlink $n; done"
    );
    let held = plan(&sh(&script).user(IdMap::root()).namespaces(Namespaces::all()).stdout(Stdio::Pipe)).hold().unwrap();
    let mut ours = Vec::new();
    for which in Namespaces::all() {
        let namespace = fs::File::from(held.namespace(which).unwrap());
        ours.push(namespace.metadata().unwrap().ino());
    }
    let error = held.namespace(Namespaces::NET | Namespaces::PID).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(!file.exists(), "started before its release");
    let mut child = held.release().unwrap();
    let theirs = read(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(file.exists());
    let theirs: BTreeSet<u64> =
        theirs.lines().map(|line| line.split(['[', ']']).nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(ours.into_iter().collect::<BTreeSet<_>>(), theirs);
    let error = child.namespace(Namespaces::NET).unwrap_err();
    assert_eq!((error.step(), error.kind()), (Step::Namespace, ErrorKind::NotFound), "{error}");
}

/// What is done in a namespace from outside is there when the program starts.
pub(crate) fn filled_from_outside() {
    let held = plan(&sh("hostname").namespaces(Namespaces::UTS).stdout(Stdio::Pipe)).hold().unwrap();
    let namespace = held.namespace(Namespaces::UTS).unwrap();
    thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWUTS).unwrap();
        nix::unistd::sethostname("from-outside").unwrap();
    })
    .join()
    .unwrap();
    let mut child = held.release().unwrap();
    assert_eq!(read(&mut child), "from-outside\n");
    assert!(child.wait().unwrap().success());
}

pub(crate) fn dropped_without_release() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("started");
    let held = plan(&sh(&format!("touch {file:?}"))).hold().unwrap();
    let pid = held.id();
    drop(held);
    assert!(!file.exists());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    no_child_is_left();
    threads_end();
}

/// The thread that was suspended ends by itself, soon.
pub(crate) fn threads_end() {
    while fs::read_dir("/proc/self/task").unwrap().count() > 1 {
        thread::yield_now();
    }
}

/// It has let go of everything of ours: pipes of others end while it waits.
pub(crate) fn keeps_no_pipe_of_others_open() {
    let mut other = program("/bin/cat").stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
    let held = plan(&program("/bin/true").stdin(Stdio::Null)).hold().unwrap();
    let more = plan(&program("/bin/true").stdin(Stdio::Pipe)).hold().unwrap();
    assert_eq!((descriptors(&held), descriptors(&more)), (4, 4), "streams and gate");
    drop(other.stdin.take());
    assert_eq!(read(&mut other), "");
    assert!(other.wait().unwrap().success());
    assert!(held.release().unwrap().wait().unwrap().success());
    assert!(more.release().unwrap().wait().unwrap().success());
}

/// A program that cannot be started is told at the release; everything before it, at once.
pub(crate) fn errors_come_when_they_happen() {
    let error = plan(&program("/nowhere").working_directory("/nowhere")).hold().unwrap_err();
    assert_eq!((error.step(), error.kind()), (Step::WorkingDirectory, ErrorKind::NotFound));
    let error = plan(&program("/nowhere")).hold().unwrap().release().unwrap_err();
    assert_eq!((error.step(), error.kind()), (Step::Exec, ErrorKind::NotFound));
    no_child_is_left();
    let killed = plan(&program("/bin/true")).hold().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(killed.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let error = killed.release().unwrap_err();
    assert_eq!((error.step(), error.kind(), error.signal()), (Step::Hold, ErrorKind::Killed, Some(libc::SIGKILL)));
    threads_end();
}

/// Every call of a child that waits on its way, failed and killed in turn; at the end it has run its program. `left` looks for what is left each time. Returns the steps
/// that this met.
pub(crate) fn walk(run: impl Fn() -> Result<ExitStatus, Error> + Sync, left: fn()) -> BTreeSet<Step> {
    let (mut steps, before) = (BTreeSet::new(), Unchanged::now());
    let (calls, result) = record(&run);
    assert!(result.unwrap().success());
    // Who has joined for it has nothing more to do.
    let counts = |call: &Call| call.who == Who::Child && call.number != libc::SYS_exit_group;
    let calls: Vec<_> = calls.into_iter().filter(counts).collect();
    for (at, call) in calls.iter().enumerate() {
        // How many ranges of descriptors a child closes depends on which numbers are taken here: a supervisor may be about to leave its own.
        before.check();
        let (after, result) = inject_at(&calls, at, Action::Errno(libc::EXFULL), &run);
        assert!(after.iter().any(|call| call.fault.is_some()), "{call} is made again");
        let error = result.expect_err("fails");
        assert_eq!(
            (error.system_call(), error.raw_os_error()),
            (Some(call.name()), Some(libc::EXFULL)),
            "{call}: {error}"
        );
        let step = error.step();
        steps.insert(step);
        left();
        before.check();
        let (_, result) = inject_at(&calls, at, Action::Kill, &run);
        if step != Step::Exec {
            let error = result.expect_err("is killed");
            assert_eq!((error.step(), error.signal()), (step, Some(libc::SIGKILL)), "{call}: {error}");
        }
        left();
        before.check();
    }
    threads_end();
    steps
}

pub(crate) fn every_call_of_a_held_child_can_fail() {
    let sandbox = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::PID).die_with_parent();
    let steps = walk(|| plan(&sandbox).hold()?.release()?.wait(), no_child_is_left);
    prove("every_call_of_a_held_child_can_fail", steps);
}

/// Bound to the process, not to the thread that held and released it.
pub(crate) fn outlives_the_holding_thread_and_not_the_process() {
    let child = thread::spawn(|| {
        let sandbox = program("/bin/sleep").arg("1000").die_with_parent();
        plan(&sandbox).hold().unwrap().release().unwrap()
    });
    let child = child.join().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    threads_end();
}

/// Killed at any moment before its release, it says so, and nothing is left.
pub(crate) fn killed_and_released_at_once() {
    let plan = plan(&program("/bin/true"));
    for _ in 0..300 {
        let held = plan.hold().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(held.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let error = held.release().unwrap_err();
        assert_eq!((error.step(), error.signal()), (Step::Hold, Some(libc::SIGKILL)), "{error}");
    }
    no_child_is_left();
    threads_end();
}

/// Without those that are on their way out and will run nothing of this program any more.
fn running_threads() -> usize {
    const PF_EXITING: u32 = 4;
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let running = threads.filter(|thread| {
        let stat = fs::read_to_string(thread.as_ref().unwrap().path().join("stat")).unwrap_or_default();
        // Behind the name: state, parent, group, session, terminal, its group, flags.
        let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u32>().ok());
        flags.is_some_and(|flags| flags & PF_EXITING == 0)
    });
    running.count()
}

/// A pipe of its output ends with it, and a dropped plan lets go of its descriptors, as soon as the caller can look.
pub(crate) fn nothing_lingers_after_release() {
    for die_with_parent in [false, true] {
        let mut sandbox = program("/bin/true").stdin(Stdio::fd("kept")).stdout(Stdio::Pipe);
        if die_with_parent {
            sandbox = sandbox.die_with_parent();
        }
        for _ in 0..200 {
            let (told, tell) = nix::unistd::pipe().unwrap();
            let held = sandbox.prepare(Fds::new().bind("kept", tell)).unwrap().hold().unwrap();
            let mut child = held.release().unwrap();
            assert!(child.wait().unwrap().success());
            assert_eq!(running_threads(), 1, "the thread is still there");
            nix::fcntl::fcntl(&told, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
            assert_eq!(nix::unistd::read(&told, &mut [0]), Ok(0), "the plan's descriptor is still open");
            let output = child.stdout.take().unwrap();
            nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
            assert_eq!(nix::unistd::read(&output, &mut [0]), Ok(0), "the pipe is still open");
        }
    }
    threads_end();
}

/// The caller dies while the child waits, or after: in both cases the pipe that the child has for its output ends.
pub(crate) fn ends_with_the_caller() {
    for release in [false, true] {
        let (told, tell) = nix::unistd::pipe().unwrap();
        let caller = crate::faults::fork(|| {
            let mut sandbox = program("/bin/sleep").arg("1000").stdout(Stdio::fd("pipe"));
            if release {
                sandbox = sandbox.die_with_parent();
            }
            let held = sandbox.prepare(Fds::new().bind("pipe", tell.try_clone().unwrap())).unwrap().hold().unwrap();
            if release {
                std::mem::forget(held.release().unwrap());
            } else {
                std::mem::forget(held);
            }
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        drop(tell);
        nix::sys::wait::waitpid(caller, None).unwrap();
        assert_eq!(fs::File::from(told).read(&mut [0]).unwrap(), 0, "the pipe ends");
    }
}

/// A fork of the caller's has copies of all its descriptors, also of what the child waits at, and lives on.
pub(crate) fn ends_with_the_caller_whatever_it_forked() {
    let (told, tell) = nix::unistd::pipe().unwrap();
    let (stays, end) = nix::unistd::pipe().unwrap();
    let caller = crate::faults::fork(|| {
        let sandbox = program("/bin/true").stdout(Stdio::fd("pipe"));
        let held = sandbox.prepare(Fds::new().bind("pipe", tell.try_clone().unwrap())).unwrap().hold().unwrap();
        crate::faults::fork(|| {
            // Everything but the gate and what it waits for.
            let (keep, folder) = (stays.as_raw_fd(), fs::read_dir("/proc/self/fd").unwrap());
            let open: Vec<i32> = folder.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect();
            for fd in open {
                let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
                if fd != keep && link.to_string_lossy().starts_with("pipe:") {
                    let _ = nix::unistd::close(fd);
                }
            }
            let _ = nix::unistd::read(&stays, &mut [0]);
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        std::mem::forget(held);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    drop(tell);
    nix::sys::wait::waitpid(caller, None).unwrap();
    assert_eq!(fs::File::from(told).read(&mut [0]).unwrap(), 0, "the pipe ends");
    drop(end);
}

pub(crate) fn many_at_once() {
    let plan = plan(&sh("exit 5").user(IdMap::root()).namespaces(Namespaces::PID | Namespaces::NET));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..25 {
                    let held = plan.hold().unwrap();
                    if round % 3 == 0 {
                        continue;
                    }
                    assert_eq!(held.release().unwrap().wait().unwrap().code(), Some(5));
                }
            });
        }
    });
    threads_end();
}
