//! A child's life: waiting, killing, its end and its parent's.

use crate::support::{program, sh};
use cofferdam_namespaces::{Child, ErrorKind, Fds, Namespaces, Resource, Sandbox, Stdio, Step};
use cofferdam_testkit::patience;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

fn forever() -> Sandbox {
    program("/bin/sleep").arg("1000")
}

fn ended(child: &Child) {
    let ready = poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    assert_eq!(ready, 1);
}

/// The status is there for everybody, as often as they ask.
pub(crate) fn status_is_kept() {
    let child = sh("exit 7").spawn().unwrap();
    let codes: Vec<_> = thread::scope(|scope| {
        let waiters: Vec<_> = (0..8).map(|_| scope.spawn(|| child.wait().unwrap().code())).collect();
        waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect()
    });
    assert_eq!(codes, [Some(7); 8]);
    assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(7));
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap().unwrap().code(), Some(7));
}

/// All of them; where a start takes long, some.
pub(crate) fn exit_codes_and_signals_are_told() {
    let step = if patience() == 1 { 1 } else { 51 };
    for code in (0..=255).step_by(step) {
        assert_eq!(sh(&format!("exit {code}")).spawn().unwrap().wait().unwrap().code(), Some(code));
    }
    // The others do not end a program: it goes on, or stops.
    let harmless = [17, 18, 19, 20, 21, 22, 23, 28];
    let plan = forever().rlimit(Resource::Core, 0).prepare(Fds::new()).unwrap();
    for number in (1..=64).filter(|number| !harmless.contains(number)) {
        let child = plan.spawn().unwrap();
        child.signal(number).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.signal(), status.code(), status.core_dumped()), (Some(number), None, false));
    }
}

pub(crate) fn waiting_can_be_bounded() {
    let child = forever().spawn().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.wait_timeout(Duration::MAX).unwrap().unwrap().signal(), Some(libc::SIGKILL));
}

/// Killing the dead is no error, signalling them is a typed one.
pub(crate) fn signals_after_the_end() {
    let child = forever().spawn().unwrap();
    assert_eq!(child.signal(-1).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    child.kill().unwrap();
    ended(&child);
    child.signal(0).expect("a zombie can still be signalled");
    child.wait().unwrap();
    child.kill().unwrap();
    let error = child.signal(libc::SIGTERM).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NoSuchProcess, Step::Signal));
}

/// Another part of the program waits for all children, as some do.
pub(crate) fn status_taken_by_others() {
    let child = sh("exit 3").spawn().unwrap();
    ended(&child);
    waitpid(Pid::from_raw(i32::try_from(child.id()).unwrap()), Some(WaitPidFlag::__WALL)).unwrap();
    for error in [child.wait().unwrap_err(), child.try_wait().unwrap_err()] {
        assert_eq!((error.kind(), error.step()), (ErrorKind::StatusLost, Step::Wait));
    }
}

/// The kernel reaps by itself where SIGCHLD is ignored: no hang.
pub(crate) fn status_lost_to_ignored_sigchld() {
    #[expect(unsafe_code, reason = "the disposition, not a handler, of a process that runs this test alone")]
    // SAFETY: SIG_IGN and SIG_DFL run no code.
    let set = |disposition| unsafe { signal(Signal::SIGCHLD, disposition) }.unwrap();
    let before = set(SigHandler::SigIgn);
    let child = sh("exit 3").spawn().unwrap();
    let error = child.wait().unwrap_err();
    // A child that fails before its program has no exit signal: it cannot be lost.
    let missing = program("/nowhere").spawn().unwrap_err();
    set(before);
    assert_eq!(error.kind(), ErrorKind::StatusLost);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

/// A drop closes the pidfd, no more: the process runs on and is still our child.
pub(crate) fn drop_neither_kills_nor_reaps() {
    let child = forever().spawn().unwrap();
    let pid = child.id();
    drop(child);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(!stat.contains(") Z "), "{stat}");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    waitpid(pid, None).unwrap();
}

/// It dies with the thread that spawned it, and everything in its pid namespace with it.
pub(crate) fn dies_with_the_spawning_thread() {
    let mut child = thread::spawn(|| {
        let sandbox = sh("sleep 1000 & sleep 1000").stdout(Stdio::Pipe).die_with_parent();
        sandbox.namespaces(Namespaces::PID).user(cofferdam_namespaces::IdMap::root()).spawn().unwrap()
    })
    .join()
    .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    // Both held the pipe: its end means that both are gone.
    assert_eq!(child.stdout.take().unwrap().read(&mut [0]).unwrap(), 0);
}

/// Without being asked, it stays.
pub(crate) fn outlives_the_spawning_thread() {
    let child = thread::spawn(|| forever().spawn().unwrap()).join().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A process that has ended, but is traced by another one, is waited for without turning in circles: few system calls, however long it takes.
pub(crate) fn traced_by_its_own_child() {
    let script = "import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
parent = os.getpid()
ready, go = os.pipe(), os.pipe()
if os.fork() == 0:
    assert libc.ptrace(0x4206, parent, 0, 0) == 0  # PTRACE_SEIZE
    os.write(ready[1], b'x')
    os.close(go[1])
    os.read(go[0], 1)  # until the parent has ended
    signal.sigtimedwait([signal.SIGUSR1], 0.5)
    os._exit(0)
libc.prctl(0x59616d61, -1, 0, 0, 0)  # PR_SET_PTRACER_ANY, where Yama is
os.read(ready[0], 1)
os._exit(9)";
    let child = program("/usr/bin/python3").args(["-c", script]).spawn().unwrap();
    let (calls, status) =
        cofferdam_testkit::fault::Watch::only(&[libc::SYS_poll, libc::SYS_waitid]).record(|| child.wait());
    assert_eq!(status.unwrap().code(), Some(9));
    assert!(calls.len() <= 8, "{} calls", calls.len());
    // The one that traced it is left to us or to whoever reaps.
}

/// One plan, many processes.
pub(crate) fn a_plan_can_be_used_again() {
    let plan = sh("echo $$").stdout(Stdio::Pipe).prepare(Fds::new()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let mut child = plan.spawn().unwrap();
        assert_eq!(crate::support::read(&mut child), format!("{}\n", child.id()));
        assert!(child.wait().unwrap().success());
        assert!(seen.insert(child.id()));
    }
}
