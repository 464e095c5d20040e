//! Core dumps of a child that has not started its program yet: they would be of the host program's memory, in a place that the sandbox can read.

#![allow(clippy::cast_sign_loss, reason = "as C passes numbers to the kernel")]

use crate::support::{engine, program, without};
use cofferdam_namespaces::{BpfInstruction, Engine, ErrorKind, Fds, Plan, Resource, Rlimit, Sandbox, Seccomp, Step};
use std::fs;
use std::path::Path;

/// Works in this folder, and may write as large a core dump as it likes.
fn within(folder: &Path, name: &str) -> Sandbox {
    program(name).no_new_privs().working_directory(folder).rlimit(Resource::Core, Rlimit::UNLIMITED)
}

/// Answers these calls so, and allows all others.
fn answers(calls: &[i64], answer: u32) -> Seccomp {
    let instruction = |code, jt, jf, k| BpfInstruction { code, jt, jf, k };
    let one = |call: &i64| [instruction(0x15, 0, 1, u32::try_from(*call).unwrap()), instruction(0x06, 0, 0, answer)];
    let last = instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW);
    Seccomp::bpf([instruction(0x20, 0, 0, 0)].into_iter().chain(calls.iter().flat_map(one)).chain([last]))
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().count() == 0
}

fn dies(plan: &Plan) {
    assert_eq!(plan.spawn().unwrap_err().step(), Step::Exec);
}

/// By the filter itself, or because that does not let it end.
pub(crate) fn no_core_of_a_child_that_its_filter_kills() {
    let refusing = [libc::SYS_execve, libc::SYS_exit_group, libc::SYS_exit];
    for filter in [
        answers(&[libc::SYS_execve], libc::SECCOMP_RET_KILL_PROCESS),
        answers(&[libc::SYS_execve], libc::SECCOMP_RET_TRAP),
        answers(&refusing, libc::SECCOMP_RET_ERRNO | libc::EXFULL as u32),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = within(folder.path(), "/bin/true").seccomp(filter);
        let plan = sandbox.prepare(Fds::new()).unwrap();
        dies(&plan);
        assert!(is_empty(folder.path()), "a core dump");
        // The defence off: it is the last call of its number.
        let nth = plan.explain().filter(|call| call.number() == libc::SYS_prctl).count() - 1;
        without(libc::SYS_prctl, nth, || dies(&plan));
        assert!(!is_empty(folder.path()), "the attack is none");
        let shared = sandbox.engine(Engine::Shared).prepare(Fds::new()).unwrap_err();
        assert_eq!((shared.kind(), shared.step()), (ErrorKind::InvalidConfig, Step::Configure), "{shared}");
    }
}

/// A filter that lets the child start its program and end is no reason for a copy.
pub(crate) fn filters_that_let_it_start_are_no_reason() {
    let deadly = answers(&[libc::SYS_chdir], libc::SECCOMP_RET_KILL_PROCESS);
    let child = program("/bin/true").no_new_privs().seccomp(deadly).spawn().unwrap();
    assert_eq!(child.report().engine(), engine());
    assert!(child.wait().unwrap().success());
    let deadly = answers(&[libc::SYS_exit_group], libc::SECCOMP_RET_KILL_PROCESS);
    let child = program("/bin/true").no_new_privs().seccomp(deadly).spawn().unwrap();
    assert_eq!(child.report().engine(), Engine::Copy);
    assert!(!child.wait().unwrap().success());
}

/// Ctrl-\\ while it is on its way: all signals are held back then, and it would die of it as soon as they are not.
pub(crate) fn no_core_of_a_child_that_was_told_to_quit() {
    for signal in [libc::SIGQUIT, libc::SIGXFSZ] {
        let (folder, before) = (tempfile::tempdir().unwrap(), std::env::current_dir().unwrap());
        let sandbox = program("/bin/true").rlimit(Resource::Core, Rlimit::UNLIMITED);
        let plan = sandbox.prepare(Fds::new()).unwrap();
        let quit = || {
            let held = plan.hold().unwrap();
            let pid = nix::unistd::Pid::from_raw(held.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
            held.release().unwrap_err()
        };
        std::env::set_current_dir(&folder).unwrap();
        let error = quit();
        assert_eq!(error.step(), Step::Signals, "{error}");
        let (errno, killed) = if engine() == Engine::Shared { (Some(libc::EINTR), None) } else { (None, Some(signal)) };
        assert_eq!((error.raw_os_error(), error.signal()), (errno, killed), "{error}");
        assert!(is_empty(folder.path()), "a core dump");
        // The defence off. Of a copy it is the last call of its number, behind two for the hold.
        let (defence, nth) =
            if engine() == Engine::Shared { (libc::SYS_rt_sigpending, 0) } else { (libc::SYS_prctl, 2) };
        let error = without(defence, nth, quit);
        assert_eq!((error.step(), error.signal()), (Step::Signals, Some(signal)), "{error}");
        assert!(!is_empty(folder.path()), "the attack is none");
        std::env::set_current_dir(before).unwrap();
    }
    // What ends it without a core dump still does so.
    let held = program("/bin/true").prepare(Fds::new()).unwrap().hold().unwrap();
    let pid = nix::unistd::Pid::from_raw(held.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(held.release().unwrap_err().signal(), Some(libc::SIGTERM));
}
