//! Each call fails that a caller makes beside a spawn: around a child, a target, a terminal, a hook, a listing, a scope, a listener.

use crate::faults::no_child_is_left;
use crate::hold::threads_end;
use crate::joins::{end, inside, whole};
use crate::support::{program, sh};
use crate::walks::{Caller, Seen, prove, steps};
use cofferdam_namespaces::{
    Child, Error, Fds, Hook, IdMap, Join, Listing, Namespaces, OciState, Plan, Release, Scope, Seccomp, Stdio, Step,
    Target, TerminalSize,
};
use cofferdam_testkit::fault::{Action, Fault, Who, inject, record};
use nix::sys::wait::{WaitPidFlag, waitpid};

const ALL: usize = usize::MAX;

fn seen(of: &Seen, expected: &[(Step, &'static str)]) {
    let missing: Vec<_> = expected.iter().filter(|pair| !of.contains(pair)).collect();
    assert!(missing.is_empty(), "{missing:?} of {of:?}");
}

/// A process that waits to be killed; after an error of `f` it is.
fn with_child(child: &Child, f: impl FnOnce(&Child) -> Result<(), Error>) -> Result<(), Error> {
    let result = f(child);
    if result.is_err() {
        end(child);
    }
    result
}

pub(crate) fn every_call_around_a_child_can_fail() {
    let walk = Caller {
        make: &|| program("/bin/sleep").arg("1000").spawn().unwrap(),
        run: &|child| {
            with_child(&child, |child| {
                child.namespace(Namespaces::NET)?;
                child.signal(0)?;
                child.kill()?;
                child.wait().map(drop)
            })
        },
        most: ALL,
        but: &[],
        unnoticed: &[],
    };
    let walked = walk.walk();
    prove("every_call_around_a_child_can_fail", steps(&walked));
    seen(
        &walked,
        &[
            (Step::Namespace, "openat"),
            (Step::Namespace, "pidfd_send_signal"),
            (Step::Signal, "pidfd_send_signal"),
            (Step::Wait, "poll"),
            (Step::Wait, "waitid"),
        ],
    );
    no_child_is_left();
}

/// From the hold to the release by a path, on both sides of that.
pub(crate) fn every_call_of_holding_can_fail() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("start");
    let run = |plan: Plan| {
        let waiting = plan.hold()?.at(&path, 0o600)?;
        let asked = Release::at(&path)?;
        let child = waiting.wait()?;
        with_child(&child, |child| {
            asked.wait()?;
            child.wait().map(drop)
        })
    };
    let walk = Caller {
        make: &|| {
            // Of one whose end could not take it away.
            let _ = std::fs::remove_file(&path);
            program("/bin/true").prepare(Fds::new()).unwrap()
        },
        run: &run,
        most: ALL,
        // Whoever is not told waits, as long as nobody ends it; who cannot be waited for is left; a thread maps memory, and has signals, of its own.
        but: &[libc::SYS_sendto, libc::SYS_shutdown, libc::SYS_waitid, libc::SYS_mmap, libc::SYS_rt_sigprocmask],
        // Who comes too late, and the path that is taken away.
        unnoticed: &[libc::SYS_accept4, libc::SYS_unlinkat, libc::SYS_newfstatat],
    };
    let walked = walk.walk();
    prove("every_call_of_holding_can_fail", steps(&walked));
    seen(
        &walked,
        &[
            (Step::Pipe, "socketpair"),
            (Step::Clone, "pthread_create"),
            (Step::Clone, "clone3"),
            (Step::Hold, "recvfrom"),
            (Step::Release, "socket"),
            (Step::Release, "bind"),
            (Step::Release, "listen"),
            (Step::Release, "accept4"),
            (Step::Release, "connect"),
            (Step::Release, "recvfrom"),
        ],
    );
    no_child_is_left();
    threads_end();
}

pub(crate) fn every_call_for_a_target_can_fail() {
    let child = inside(whole());
    let join = Join::all().environment().working_directory().credentials();
    let walk = Caller {
        make: &|| (Target::process(child.id()).unwrap(), program("/bin/true").join(join.clone())),
        run: &|(known, sandbox)| {
            // An older kernel does not tell.
            known
                .exit_status()
                .map(drop)
                .or_else(|e| if e.raw_os_error() == Some(libc::EXFULL) { Err(e) } else { Ok(()) })?;
            sandbox.prepare(Fds::new().target(Target::process(child.id())?)).map(drop)
        },
        // There are 64 signals, and eight kinds of namespaces.
        most: 8,
        but: &[],
        // That a process still runs is what it is taken for.
        unnoticed: &[libc::SYS_poll],
    };
    let walked = walk.walk();
    prove("every_call_for_a_target_can_fail", steps(&walked));
    let calls = ["pidfd_open", "newfstatat", "openat", "read"];
    seen(&walked, &calls.map(|call| (Step::Target, call)));
    seen(&walked, &[(Step::Wait, "ioctl")]);
    end(&child);
    no_child_is_left();
}

/// Without a file system of terminals of its own, the caller opens it.
pub(crate) fn every_call_of_the_callers_terminal_can_fail() {
    let walk = Caller {
        make: &|| program("/bin/true").terminal(TerminalSize::new(24, 80)).prepare(Fds::new()).unwrap(),
        run: &|plan| with_child(&plan.spawn()?, |child| child.wait().map(drop)),
        most: ALL,
        but: &[],
        unnoticed: &[],
    };
    let walked = walk.walk();
    prove("every_call_of_the_callers_terminal_can_fail", steps(&walked));
    seen(&walked, &[(Step::Terminal, "openat"), (Step::Terminal, "fstat"), (Step::Terminal, "ioctl")]);
    no_child_is_left();
}

/// The hook itself is a spawn as any other.
pub(crate) fn every_call_of_a_hook_can_fail() {
    let hook = Hook::new("/bin/sh").args(["-c", "cat >/dev/null; echo said"]).env("PATH", "/usr/bin:/bin");
    let state = OciState::new("walked", "/srv/bundle");
    let walk = Caller {
        make: &|| {
            // A hook that cannot be waited for is left.
            while waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).is_ok() {}
            program("/bin/true").spawn().unwrap()
        },
        run: &|child: Child| {
            let errors = child.poststart(std::slice::from_ref(&hook), &state);
            let _ = (child.kill(), child.wait());
            errors.into_iter().next().map_or(Ok(()), Err)
        },
        // How often it looks at the hook is chance.
        most: 8,
        but: &[libc::SYS_pidfd_send_signal, libc::SYS_waitid],
        // The last of them are of the child that the hook is for.
        unnoticed: &[libc::SYS_poll],
    };
    let walked = walk.walk();
    prove("every_call_of_a_hook_can_fail", steps(&walked));
    while waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)).is_ok() {}
    let calls = ["pipe2", "memfd_create", "pwrite64", "fcntl", "poll", "read"];
    seen(&walked, &calls.map(|call| (Step::Hook, call)));
    no_child_is_left();
}

/// Whose a namespace is the caller may not know: that is no error.
pub(crate) fn every_call_of_a_listing_can_fail() {
    let walk =
        Caller { make: &|| (), run: &|()| Listing::read().map(drop), most: 2, but: &[], unnoticed: &[libc::SYS_ioctl] };
    let walked = walk.walk();
    prove("every_call_of_a_listing_can_fail", steps(&walked));
    seen(&walked, &["openat", "getdents64", "newfstatat"].map(|call| (Step::List, call)));
}

/// What its process does, and what the caller does for it.
pub(crate) fn every_call_of_a_scope_can_fail() {
    let scope = Scope::new(IdMap::root(), Namespaces::NET).unwrap();
    #[expect(unsafe_code, reason = "what this test is about")]
    // SAFETY: the closure does nothing.
    let run = |()| unsafe { scope.run(|| ()) };
    // If it cannot be waited for it is left.
    let walk = Caller { make: &|| (), run: &run, most: ALL, but: &[libc::SYS_waitid], unnoticed: &[] };
    let mut walked = walk.walk();
    let (calls, result) = record(|| run(()));
    result.unwrap();
    let of_process = calls.iter().filter(|call| call.who == Who::Child).enumerate();
    for (nth, call) in of_process {
        let fault = Fault { who: Who::Child, nth, action: Action::Errno(libc::EXFULL) };
        let named = [libc::SYS_setns, libc::SYS_chdir, libc::SYS_prctl].contains(&call.number);
        if !named {
            continue;
        }
        let (_, result) = inject(fault, || run(()));
        let error = result.expect_err("fails");
        let told = (error.step(), error.system_call(), error.raw_os_error());
        assert_eq!(told, (Step::Scope, Some(call.name()), Some(libc::EXFULL)), "{call}: {error}");
        walked.insert((error.step(), call.name()));
        no_child_is_left();
    }
    prove("every_call_of_a_scope_can_fail", steps(&walked));
    let calls = ["getcwd", "pthread_create", "rt_sigprocmask", "clone3", "setns", "chdir", "prctl"];
    seen(&walked, &calls.map(|call| (Step::Scope, call)));
}

/// The child's filter has the listener; the caller's, by which its calls fail, is another thread's.
pub(crate) fn every_call_of_a_supervisor_can_fail() {
    let script = "mkdir /nowhere/at/all; exit 0";
    let walk = Caller {
        make: &|| {
            let asks = Seccomp::notify([libc::SYS_mkdir, libc::SYS_mkdirat]);
            sh(script).stderr(Stdio::Null).no_new_privs().seccomp(asks).spawn().unwrap()
        },
        run: &|mut child| {
            let listener = child.seccomp_listener.take().expect("asked for");
            with_child(&child, |child| {
                while let Some(call) = listener.receive()? {
                    listener.is_waiting(call.id)?;
                    listener.answer(call.id, cofferdam_namespaces::Answer::Errno(libc::EPERM))?;
                }
                child.wait().map(drop)
            })
        },
        most: ALL,
        but: &[],
        unnoticed: &[],
    };
    let walked = walk.walk();
    prove("every_call_of_a_supervisor_can_fail", steps(&walked));
    seen(&walked, &["poll", "ioctl"].map(|call| (Step::Supervise, call)));
    no_child_is_left();
}
