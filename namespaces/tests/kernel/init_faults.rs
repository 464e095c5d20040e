//! Each system call of a spawn with an init fails in turn: the caller's, those of process 1 before it is the init, and by a filter the init's own.

use crate::faults::{Unchanged, inject_at, no_child_is_left};
use crate::hold::threads_end;
use crate::init::with_init;
use crate::support::{program, sh};
use crate::walks::prove;
use cofferdam_namespaces::{
    BpfInstruction, Error, ErrorKind, Fds, IdMap, Namespaces, Sandbox, Seccomp, Step, TerminalSize,
};
use cofferdam_testkit::fault::{Action, Who, record};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Answers so to one system call, and allows all others.
fn answering(number: i64, answer: u32) -> Seccomp {
    let number = u32::try_from(number).unwrap();
    Seccomp::bpf([
        // The number; if it is this one; the answer.
        BpfInstruction::from((0x20, 0, 0, 0)),
        BpfInstruction::from((0x15, 0, 1, number)),
        BpfInstruction::from((0x06, 0, 0, answer)),
        BpfInstruction::from((0x06, 0, 0, libc::SECCOMP_RET_ALLOW)),
    ])
}

fn run(sandbox: Sandbox, number: i64, answer: u32) -> Result<ExitStatus, Error> {
    let sandbox = sandbox.user(IdMap::root()).namespaces(Namespaces::PID).init().no_new_privs();
    sandbox.terminal(TerminalSize::new(10, 10)).seccomp(answering(number, answer)).spawn()?.wait()
}

const EXFULL: u32 = libc::SECCOMP_RET_ERRNO | libc::EXFULL as u32;

/// Told as what it was, where there is a way to tell it.
pub(crate) fn every_call_of_the_init_can_fail() {
    for (number, step, call) in [
        (libc::SYS_execveat, Step::Init, "execveat"),
        (libc::SYS_clone, Step::Init, "clone"),
        (libc::SYS_rt_sigtimedwait, Step::Init, "rt_sigtimedwait"),
        (libc::SYS_fcntl, Step::Init, "fcntl"),
        (libc::SYS_setsid, Step::Session, "setsid"),
        (libc::SYS_ioctl, Step::Session, "ioctl"),
        (libc::SYS_rt_sigprocmask, Step::Signals, "rt_sigprocmask"),
        (libc::SYS_execve, Step::Exec, "execve"),
    ] {
        let error = run(program("/bin/true"), number, EXFULL).unwrap_err();
        let told = (error.step(), error.system_call(), error.raw_os_error());
        assert_eq!(told, (step, Some(call), Some(libc::EXFULL)), "{call}: {error}");
        no_child_is_left();
    }
    // It cannot be told which it was.
    for number in [libc::SYS_write, libc::SYS_close, libc::SYS_kill] {
        let error = run(program("/bin/true"), number, EXFULL).unwrap_err();
        assert_eq!((error.step(), error.kind()), (Step::Init, ErrorKind::Os), "{number}: {error}");
        no_child_is_left();
    }
    // The program runs; what follows from it is bounded.
    for (number, code) in [(libc::SYS_prctl, 3), (libc::SYS_setpgid, 3), (libc::SYS_wait4, 125)] {
        assert_eq!(run(sh("exit 3"), number, EXFULL).unwrap().code(), Some(code), "{number}");
    }
    // It does not go on behind its end.
    let status = run(program("/bin/true"), libc::SYS_exit_group, EXFULL).unwrap();
    assert!(matches!(status.signal(), Some(libc::SIGILL | libc::SIGSEGV)), "{status}");
}

/// A filter that kills: it says by what.
pub(crate) fn the_init_can_be_killed_at_every_call() {
    for number in [
        libc::SYS_execveat,
        libc::SYS_prctl,
        libc::SYS_clone,
        libc::SYS_close,
        libc::SYS_setpgid,
        libc::SYS_kill,
        libc::SYS_fcntl,
        libc::SYS_setsid,
        libc::SYS_ioctl,
        libc::SYS_rt_sigprocmask,
        libc::SYS_write,
    ] {
        let error = run(program("/bin/true"), number, libc::SECCOMP_RET_KILL_PROCESS).unwrap_err();
        assert_eq!((error.kind(), error.signal()), (ErrorKind::Killed, Some(libc::SIGSYS)), "{number}: {error}");
        no_child_is_left();
    }
}

/// Each call of process 1 up to the init, failed and killed in turn.
pub(crate) fn every_call_up_to_the_init_can_fail() {
    let sandbox = with_init(program("/bin/true")).die_with_parent();
    let before = Unchanged::now();
    let plan = sandbox.prepare(Fds::new()).unwrap();
    let told: Vec<i64> = plan.explain().map(|call| call.number()).collect();
    drop(plan);
    for hold in [false, true] {
        let run = || {
            let plan = sandbox.prepare(Fds::new())?;
            if hold { plan.hold()?.release()?.wait() } else { plan.spawn()?.wait() }
        };
        let (calls, result) = record(run);
        assert!(result.unwrap().success());
        let calls: Vec<_> = calls.into_iter().filter(|call| call.who == Who::Child).collect();
        if !hold {
            assert_eq!(calls.iter().map(|call| call.number).collect::<Vec<_>>(), told);
        }
        let (mut inits, mut steps) = (0, BTreeSet::new());
        for (at, call) in calls.iter().enumerate() {
            let (_, result) = inject_at(&calls, at, Action::Errno(libc::EXFULL), run);
            let error = result.expect_err("fails");
            let failed = (error.system_call(), error.raw_os_error());
            assert_eq!(failed, (Some(call.name()), Some(libc::EXFULL)), "{call}: {error}");
            let step = error.step();
            inits += usize::from(step == Step::Init);
            steps.insert(step);
            no_child_is_left();
            let (_, result) = inject_at(&calls, at, Action::Kill, run);
            let error = result.expect_err("is killed");
            assert_eq!((error.step(), error.signal()), (step, Some(libc::SIGKILL)), "{call}: {error}");
            no_child_is_left();
            before.check();
        }
        assert_eq!(inits, 7);
        prove("every_call_up_to_the_init_can_fail", steps);
    }
    threads_end();
}

/// What the caller does for it: a file, its seals, a pair of sockets.
pub(crate) fn every_call_of_the_caller_can_fail() {
    let run = || with_init(program("/bin/true")).prepare(Fds::new())?.spawn()?.wait();
    let before = Unchanged::now();
    let (calls, result) = record(run);
    assert!(result.unwrap().success());
    let (mut seen, mut steps) = (BTreeSet::new(), BTreeSet::new());
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.who == Who::Parent) {
        let step = match call.number {
            libc::SYS_memfd_create => Step::Memory,
            libc::SYS_fcntl if call.args[1] == u64::from(libc::F_ADD_SEALS.cast_unsigned()) => Step::Memory,
            libc::SYS_socketpair => Step::Pipe,
            libc::SYS_recvmsg => Step::Init,
            _ => continue,
        };
        let (_, result) = inject_at(&calls, at, Action::Errno(libc::EXFULL), run);
        let error = result.expect_err("fails");
        assert_eq!((error.step(), error.raw_os_error()), (step, Some(libc::EXFULL)), "{call}: {error}");
        assert_eq!(error.system_call(), Some(call.name()));
        seen.insert(call.name());
        steps.insert(error.step());
        no_child_is_left();
        before.check();
    }
    prove("every_call_for_an_init_can_fail", steps);
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["fcntl", "memfd_create", "recvmsg", "socketpair"]);
}
