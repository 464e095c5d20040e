//! Fault injection into what std does.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use cofferdam_testkit::fault::{Action, Call, Fault, Watch, Who, inject, kill_parent_at, record};
use nix::sys::wait::WaitStatus;

fn run_true() -> std::io::Result<ExitStatus> {
    Command::new("true").status()
}

/// Positions of the calls of this name among those of `who`.
fn positions(calls: &[Call], who: Who, name: &str) -> Vec<usize> {
    let of_who = calls.iter().filter(|c| c.who == who).enumerate();
    of_who.filter(|(_, c)| c.name() == name).map(|(nth, _)| nth).collect()
}

fn show(calls: &[Call]) -> String {
    calls.iter().map(|c| format!("{c}\n")).collect::<Vec<_>>().concat()
}

pub(crate) fn record_sees_the_parent() {
    let (calls, umask) = record(|| nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o22)));
    assert_eq!(umask.bits(), 0o22);
    assert_eq!(calls.len(), 1, "{}", show(&calls));
    assert_eq!((calls[0].who, calls[0].name(), calls[0].args[0]), (Who::Parent, "umask", 0o22));
}

pub(crate) fn record_sees_a_child_until_exec() {
    let (calls, status) = record(run_true);
    assert!(status.unwrap().success());
    let child: Vec<&Call> = calls.iter().filter(|c| c.who == Who::Child).collect();
    assert_eq!(child.last().expect("a child").name(), "execve", "{}", show(&calls));
    // PATH is searched, so that some attempts may have failed; nothing of the program is seen.
    assert!(positions(&calls, Who::Child, "brk").is_empty(), "{}", show(&calls));
    let started = ["clone3", "clone", "vfork"].iter().any(|name| !positions(&calls, Who::Parent, name).is_empty());
    assert!(started, "{}", show(&calls));
}

pub(crate) fn record_sees_a_child_whose_exec_fails() {
    let (calls, status) = record(|| Command::new("/no/such/program").status());
    assert_eq!(status.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    let child: Vec<&str> = calls.iter().filter(|c| c.who == Who::Child).map(Call::name).collect();
    assert!(child.contains(&"execve"), "{child:?}");
    assert!(child.last().unwrap().starts_with("exit"), "{child:?}");
}

/// It is told how its child ends, or that it does not.
pub(crate) fn what_is_left_of_a_program_that_dies() {
    let run = |script: &'static str| {
        move || {
            let mut child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            child.wait().unwrap();
        }
    };
    let (calls, ()) = record(run("exit 7"));
    let last = calls.iter().filter(|call| call.who == Who::Child).count() - 1;
    let left = kill_parent_at(Who::Child, last, run("exit 7"));
    assert_eq!(left.call.map(|call| call.name()), Some("execve"));
    assert!(matches!(left.ended[..], [WaitStatus::Exited(_, 7)]), "{left:?}");
    assert!(left.left.is_empty(), "{left:?}");
    let left = kill_parent_at(Who::Child, last, run("sleep 1000"));
    // The shell, what it has become or started; who is ending has no arguments any more.
    let is_ours = |one: &String| one.contains("sleep") || one.ends_with("(sh)");
    assert!(!left.left.is_empty() && left.left.iter().all(is_ours), "{left:?}");
    assert!(left.ended.iter().all(|status| matches!(status, WaitStatus::Signaled(..))), "{left:?}");
}

/// Setting the id makes std use fork(2) and not `posix_spawn(3)`.
pub(crate) fn record_sees_a_fork() {
    let (calls, status) = record(|| Command::new("true").uid(nix::unistd::geteuid().as_raw()).status());
    assert!(status.unwrap().success());
    let last = calls.iter().rfind(|c| c.who == Who::Child).expect("a child");
    assert_eq!(last.name(), "execve", "{}", show(&calls));
    assert!(!positions(&calls, Who::Child, "setuid").is_empty(), "{}", show(&calls));
}

pub(crate) fn a_child_may_outlive_the_recording() {
    let (calls, child) = record(|| Command::new("cat").stdin(Stdio::piped()).spawn());
    assert!(calls.iter().any(|c| c.who == Who::Child));
    let mut child = child.unwrap();
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

pub(crate) fn an_errno_for_one_call_of_the_parent() {
    let open_twice =
        || [File::open("/dev/null"), File::open("/dev/zero")].map(|r| r.map(drop).map_err(|e| e.raw_os_error()));
    let (calls, results) = record(open_twice);
    assert_eq!(results, [Ok(()), Ok(())]);
    let opens = positions(&calls, Who::Parent, "openat");
    assert_eq!(opens.len(), 2, "{}", show(&calls));
    let fault = Fault { who: Who::Parent, nth: opens[1], action: Action::Errno(libc::EMFILE) };
    let (calls, results) = inject(fault, open_twice);
    assert_eq!(results, [Ok(()), Err(Some(libc::EMFILE))]);
    assert_eq!(calls.iter().filter(|c| c.fault.is_some()).count(), 1);
}

pub(crate) fn an_errno_for_one_call_of_the_child() {
    let (calls, _) = record(run_true);
    for nth in positions(&calls, Who::Child, "execve") {
        let (calls, status) = inject(Fault { who: Who::Child, nth, action: Action::Errno(libc::ENOEXEC) }, run_true);
        assert_eq!(status.unwrap_err().raw_os_error(), Some(libc::ENOEXEC), "{}", show(&calls));
    }
}

pub(crate) fn a_child_is_killed() {
    let (calls, _) = record(run_true);
    let nth = positions(&calls, Who::Child, "execve")[0];
    let (_, status) = inject(Fault { who: Who::Child, nth, action: Action::Kill }, run_true);
    assert_eq!(status.unwrap().signal(), Some(libc::SIGKILL));
}

pub(crate) fn every_call_can_fail() {
    let (calls, _) = record(run_true);
    let count = calls.iter().filter(|c| c.who == Who::Child).count();
    assert!(count > 2, "{}", show(&calls));
    for nth in 0..count {
        let (calls, _) = inject(Fault { who: Who::Child, nth, action: Action::Errno(libc::EPERM) }, run_true);
        let hit: Vec<&Call> = calls.iter().filter(|c| c.fault.is_some()).collect();
        assert_eq!(hit.len(), 1, "{nth} of {count}: {}", show(&calls));
    }
}

pub(crate) fn other_calls_are_not_watched() {
    let only = Watch::only(&[libc::SYS_execve, libc::SYS_umask]);
    let (calls, status) = only.record(run_true);
    assert!(status.unwrap().success());
    assert!(!calls.is_empty() && calls.iter().all(|c| c.name() == "execve"), "{}", show(&calls));
}

pub(crate) fn a_panic_comes_through() {
    let result = std::panic::catch_unwind(|| record(|| panic!("this is meant")));
    assert!(result.is_err());
}

pub(crate) fn only_the_thread_is_filtered() {
    let seccomp = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|l| l.strip_prefix("Seccomp:").map(|v| v.trim().to_owned())).unwrap()
    };
    let before = seccomp();
    let (_, inside) = record(seccomp);
    assert_eq!(inside, "2");
    assert_eq!(seccomp(), before);
}
