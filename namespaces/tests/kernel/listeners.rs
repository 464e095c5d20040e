//! Filters that ask the caller, and the caller's answers.

#![allow(clippy::cast_sign_loss, reason = "as C passes numbers to the kernel")]

use crate::engines::descriptors;
use crate::faults::no_child_is_left;
use crate::hold::threads_end;
use crate::joins::{end, inside, target};
use crate::support::{program, read, sh};
use cofferdam_namespaces::{
    Answer, BpfInstruction, Capabilities, Child, ErrorKind, Fds, IdMap, Join, Namespaces, Notification, Sandbox,
    Seccomp, SeccompListener, Stdio, Step,
};
use cofferdam_testkit::fault::Watch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::thread;

const MKDIR: [libc::c_long; 2] = [libc::SYS_mkdir, libc::SYS_mkdirat];

/// With and without new privileges, with and without a user namespace, where this caller may.
fn each(sandbox: &Sandbox) -> Vec<Sandbox> {
    let user = sandbox.clone().user(IdMap::root());
    let mut all = vec![
        sandbox.clone().no_new_privs(),
        user.clone().no_new_privs(),
        user.clone(),
        user.clone().capabilities(Capabilities::none()),
        user.capabilities(Capabilities::none()).no_new_privs(),
    ];
    if nix::unistd::geteuid().is_root() {
        all.push(sandbox.clone());
    }
    all
}

fn listener(child: &mut Child) -> SeccompListener {
    child.seccomp_listener.take().expect("a listener")
}

/// Answers until nobody is left; what was asked.
fn supervise(listener: &SeccompListener, answer: impl Fn(&Notification) -> Option<Answer>) -> Vec<Notification> {
    let mut asked = Vec::new();
    while let Some(call) = listener.receive().unwrap() {
        if let Some(answer) = answer(&call) {
            listener.answer(call.id, answer).unwrap();
        }
        asked.push(call);
    }
    asked
}

/// The calls are answered instead of being made: as done, and with an errno.
pub(crate) fn a_supervisor_answers() {
    let script =
        sh("mkdir /nowhere/at/all && echo made; rmdir /nowhere; echo end").stdout(Stdio::Pipe).stderr(Stdio::Null);
    for sandbox in each(&script.seccomp(Seccomp::notify(MKDIR))) {
        for (answer, said) in
            [(Answer::Value(0), "made\nend\n"), (Answer::Errno(libc::EXFULL), "end\n"), (Answer::GoOn, "end\n")]
        {
            let mut child = sandbox.spawn().unwrap();
            let asked = supervise(&listener(&mut child), |_| Some(answer));
            assert_eq!(read(&mut child), said, "{answer:?}");
            assert!(child.wait().unwrap().success());
            let numbers: Vec<_> = asked.iter().map(|call| i64::from(call.number)).collect();
            assert!(numbers.len() == 1 && MKDIR.contains(&numbers[0]), "{numbers:?}");
        }
    }
}

/// A file is opened by the supervisor, whatever is at its path: what the path says is read once, from whom still waits.
pub(crate) fn a_descriptor_is_the_answer() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"from the supervisor\n").unwrap();
    let sandbox = sh("cat /nowhere/file; cat /nowhere/other || echo none").stdout(Stdio::Pipe).stderr(Stdio::Null);
    let calls = [libc::SYS_open, libc::SYS_openat];
    let mut child = sandbox.no_new_privs().seccomp(Seccomp::notify(calls)).spawn().unwrap();
    let listener = listener(&mut child);
    while let Some(call) = listener.receive().unwrap() {
        let name = call.args[usize::from(i64::from(call.number) == libc::SYS_openat)];
        let memory = std::fs::File::open(format!("/proc/{}/mem", call.pid)).unwrap();
        assert!(listener.is_waiting(call.id).unwrap());
        let mut path = [0; 13];
        if memory.read_exact_at(&mut path, name).is_ok() && &path == b"/nowhere/file" {
            let again =
                std::fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
            assert!(listener.answer_with_fd(call.id, again, true).unwrap().is_some());
            assert!(!listener.answer(call.id, Answer::GoOn).unwrap(), "answered twice");
        } else {
            listener.answer(call.id, Answer::GoOn).unwrap();
        }
    }
    assert_eq!(read(&mut child), "from the supervisor\nnone\n");
    assert!(child.wait().unwrap().success());
}

/// Every call, by any number, also of the child that is about to start its program.
fn everything() -> Seccomp {
    Seccomp::bpf([BpfInstruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF }]).listener()
}

/// A filter that asks about all calls does not ask about those of the child: the first is the program's own, and no call of its is let pass. By each way to the
/// start of a program, with other filters behind it.
pub(crate) fn asked_from_the_first_call_on() {
    let place = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::UTS));
    let script = sh("/bin/true; exec /bin/echo said").stdout(Stdio::Pipe).seccomp(Seccomp::no_user_namespaces());
    let script = script.seccomp(everything()).seccomp(Seccomp::no_terminal_injection());
    let check = |mut child: Child| {
        let asked = supervise(&listener(&mut child), |_| Some(Answer::GoOn));
        assert_eq!(read(&mut child), "said\n");
        assert!(child.wait().unwrap().success());
        let numbers: Vec<_> = asked.iter().map(|call| i64::from(call.number)).collect();
        let own = [libc::SYS_execve, libc::SYS_sendmsg, libc::SYS_dup3, libc::SYS_capset, libc::SYS_seccomp];
        assert!(!own.contains(&numbers[0]), "{numbers:?}");
        // Two programs that it starts itself, and three that end.
        let count = |wanted| numbers.iter().filter(|number| **number == wanted).count();
        assert_eq!((count(libc::SYS_execve), count(libc::SYS_exit_group)), (2, 2), "{numbers:?}");
    };
    for sandbox in each(&script) {
        check(sandbox.spawn().unwrap());
        check(sandbox.prepare(Fds::new()).unwrap().hold().unwrap().release().unwrap());
        check(sandbox.create(Fds::new()).unwrap().finish().unwrap().release().unwrap());
    }
    check(script.join(Join::all()).no_new_privs().spawn_with(Fds::new().target(target(&place))).unwrap());
    end(&place);
    threads_end();
}

/// A start that fails is told, although the filter would ask about the child's end.
pub(crate) fn a_start_that_fails_asks_nobody() {
    let before = descriptors();
    for path in ["/nowhere", "nowhere", "/etc/passwd"] {
        let sandbox = program(path).env("PATH", "/nowhere:/bin").no_new_privs().seccomp(everything());
        let error = sandbox.spawn().unwrap_err();
        assert_eq!(error.step(), Step::Exec, "{error}");
        let error = sandbox.prepare(Fds::new()).unwrap().hold().unwrap().release().unwrap_err();
        assert_eq!(error.step(), Step::Exec, "{error}");
    }
    no_child_is_left();
    threads_end();
    assert_eq!(descriptors(), before);
}

/// Nobody answers any more: what waits and what is asked then fails.
pub(crate) fn a_supervisor_that_is_gone() {
    let script = sh("mkdir /nowhere/at/all; mkdir /nowhere/else; echo end").stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    let mut child = script.no_new_privs().seccomp(Seccomp::notify(MKDIR)).spawn().unwrap();
    let listener = listener(&mut child);
    let call = listener.receive().unwrap().unwrap();
    assert!(listener.is_waiting(call.id).unwrap());
    drop(listener);
    assert_eq!(read(&mut child), "end\n");
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut errors).unwrap();
    assert_eq!(errors.matches("Function not implemented").count(), 2, "{errors}");
    assert!(child.wait().unwrap().success());
    // Whoever asked is gone.
    let mut child =
        program("/bin/mkdir").arg("/nowhere/x").no_new_privs().seccomp(Seccomp::notify(MKDIR)).spawn().unwrap();
    let listener = self::listener(&mut child);
    let call = listener.receive().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!listener.is_waiting(call.id).unwrap());
    assert!(!listener.answer(call.id, Answer::Value(0)).unwrap());
    assert_eq!(listener.receive().unwrap(), None);
}

/// The program has its three descriptors, and what it was given.
pub(crate) fn no_listener_in_the_program() {
    let before = descriptors();
    let list = program("/bin/ls").arg("/proc/self/fd").stdout(Stdio::Pipe).no_new_privs();
    let list = list.seccomp(Seccomp::notify(MKDIR).wait_killable());
    let mut child = list.spawn().unwrap();
    assert_eq!(read(&mut child), "0\n1\n2\n3\n");
    child.wait().unwrap();
    drop(child);
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut child = list.fd(5, "null").spawn_with(Fds::new().bind("null", null)).unwrap();
    assert_eq!(read(&mut child), "0\n1\n2\n3\n5\n");
    child.wait().unwrap();
    drop(child);
    assert_eq!(descriptors(), before);
}

/// Several threads and several listeners, each its own.
pub(crate) fn many_listeners_at_once() {
    let sandbox =
        sh("i=0; while [ $i -lt 20 ]; do mkdir /nowhere/x && i=$((i + 1)); done; echo $i").stdout(Stdio::Pipe);
    let plan = sandbox.no_new_privs().seccomp(Seccomp::notify(MKDIR)).prepare(Fds::new()).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut child = plan.spawn().unwrap();
                let listener = listener(&mut child);
                assert_eq!(supervise(&listener, |_| Some(Answer::Value(0))).len(), 20);
                assert_eq!(read(&mut child), "20\n");
                assert!(child.wait().unwrap().success());
            });
        }
    });
}

/// Of several threads each takes what another has not, and all of them hear that nobody is left: also those that found the descriptor readable, as an event loop
/// does, and were too late. It is the last call that too many may wait for: many rounds, of few calls.
pub(crate) fn many_threads_on_one_listener() {
    let worker = "(i=0; while [ $i -lt 2 ]; do cd / && i=$((i + 1)); done; echo $i) & ".repeat(4);
    let sandbox = sh(&format!("{worker} wait")).stdout(Stdio::Pipe).no_new_privs();
    let plan = sandbox.seccomp(Seccomp::notify([libc::SYS_chdir])).prepare(Fds::new()).unwrap();
    for _ in 0..40 {
        let mut child = plan.spawn().unwrap();
        let listener = &listener(&mut child);
        let take = |first_looks: bool| {
            let mut taken = 0;
            loop {
                if first_looks {
                    poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
                }
                let Some(call) = listener.receive().unwrap() else { return taken };
                assert!(listener.answer(call.id, Answer::Value(0)).unwrap(), "nobody else's");
                taken += 1;
            }
        };
        let taken: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|at| scope.spawn(move || take(at % 2 == 0))).collect();
            assert_eq!(read(&mut child), "2\n".repeat(4));
            // Before Linux 6.11 somebody is left until it is reaped.
            assert!(child.wait().unwrap().success());
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 8);
    }
}

pub(crate) fn listeners_that_cannot_be() {
    let sandbox = || sh("true").no_new_privs();
    let refused = |sandbox: Sandbox| {
        let error = sandbox.prepare(Fds::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    };
    refused(sandbox().seccomp(Seccomp::notify(MKDIR)).seccomp(everything()));
    refused(sandbox().seccomp(Seccomp::no_user_namespaces().wait_killable()));
    let long = vec![BpfInstruction { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }; 4080];
    refused(sandbox().seccomp(Seccomp::bpf(long.clone()).listener()));
    sandbox().seccomp(Seccomp::bpf(long)).prepare(Fds::new()).unwrap();
    let plan = sandbox().seccomp(everything()).prepare(Fds::new()).unwrap();
    #[expect(unsafe_code, reason = "refused")]
    // SAFETY: it is not run.
    let error = unsafe { plan.spawn_fn(|| 0) }.unwrap_err();
    assert_eq!(
        (error.kind(), error.object().unwrap().to_str()),
        (ErrorKind::InvalidConfig, Some("closure")),
        "{error}"
    );
    // The caller has one over it already: the test's.
    let (_, result) = Watch::only(&[libc::SYS_getpid]).record(|| plan.spawn());
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Busy, Step::Seccomp), "{error}");
    no_child_is_left();
    // The hand-over fails: a filter over the caller refuses it.
    let error = thread::spawn(move || {
        let filter = seccompiler::SeccompFilter::new(
            [(libc::SYS_sendmsg, vec![])].into_iter().collect(),
            seccompiler::SeccompAction::Allow,
            seccompiler::SeccompAction::Errno(libc::EXFULL as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        plan.spawn().unwrap_err()
    });
    let error = error.join().unwrap();
    let what = (error.step(), error.system_call(), error.raw_os_error());
    assert_eq!(what, (Step::Seccomp, Some("sendmsg"), Some(libc::EXFULL)), "{error}");
    no_child_is_left();
}

/// Nobody else's call passes by what the child's do: not by the same numbers, whatever is in the arguments that the kernel does not look at.
pub(crate) fn the_exception_is_the_childs_alone() {
    // As a program that knows how it is made would try it; the secret it cannot know.
    let script = format!(
        "import ctypes; c = ctypes.CDLL(None, use_errno=True).syscall
for a, b in ((0, 0), (-1, -1), (1 << 63, 1)):
    print(c({}, -1, -1, 0, 0, ctypes.c_ulong(a), ctypes.c_ulong(b)), ctypes.get_errno())",
        libc::SYS_dup3
    );
    let sandbox = program("/usr/bin/python3").args(["-I", "-S", "-c", &script]).stdout(Stdio::Pipe).no_new_privs();
    let mut child = sandbox.seccomp(Seccomp::notify([libc::SYS_dup3])).spawn().unwrap();
    let asked = supervise(&listener(&mut child), |_| Some(Answer::Errno(libc::EXFULL)));
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(read(&mut child), format!("-1 {0}\n", libc::EXFULL).repeat(3));
    assert!(child.wait().unwrap().success());
}
