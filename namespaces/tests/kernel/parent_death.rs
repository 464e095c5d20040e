//! What a program dies of when its parent does, which the kernel forgets where a start gives more rights.

use crate::faults::fork;
use crate::support::{output, program, without};
use cofferdam_namespaces::{
    Capabilities, Capability, CapabilitySet, ErrorKind, Fds, IdMap, Namespaces, Sandbox, SecureBits, Stdio, Step,
};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::File;
use std::io::Read;

/// What `prctl(2)` says inside.
fn is_remembered(sandbox: &Sandbox) -> bool {
    let dump = output(sandbox.clone());
    let line = dump.lines().find(|line| line.starts_with("Parent death signal: ")).expect("a line of setpriv's");
    line.ends_with(": KILL")
}

/// Its caller is killed: whether the sandbox is gone then. Otherwise it lives until it has said so.
fn dies(sandbox: &Sandbox) -> bool {
    let sandbox = sandbox.clone().stdin(Stdio::fd("in")).stdout(Stdio::fd("out"));
    let (input, tell) = nix::unistd::pipe().unwrap();
    let (told, out) = nix::unistd::pipe().unwrap();
    let caller = fork(|| {
        let fds = Fds::new().bind("in", input.try_clone().unwrap()).bind("out", out.try_clone().unwrap());
        std::mem::forget(sandbox.spawn_with(fds).unwrap());
        raise(Signal::SIGKILL).unwrap();
    });
    drop(out);
    assert_eq!(waitpid(caller, None), Ok(WaitStatus::Signaled(caller, Signal::SIGKILL, false)));
    nix::unistd::write(&tell, b"alive\n").unwrap();
    let mut text = String::new();
    File::from(told).read_to_string(&mut text).unwrap();
    text.is_empty()
}

fn is_refused(sandbox: &Sandbox) {
    let error = sandbox.prepare(Fds::new()).unwrap_err();
    assert_eq!((error.step(), error.kind()), (Step::Configure, ErrorKind::InvalidConfig), "{error}");
    assert_eq!(error.object().unwrap().to_str(), Some("die_with_parent"));
}

/// Prints what it would die of, or waits for a line to say.
fn both(change: impl Fn(Sandbox) -> Sandbox) -> [Sandbox; 2] {
    let (dump, wait) = (program("/usr/bin/setpriv").arg("--dump"), program("/usr/bin/head").args(["-n", "1"]));
    [dump, wait].map(|sandbox| change(sandbox).die_with_parent())
}

/// Root of a user namespace, with a permitted set of its own.
pub(crate) fn what_a_start_would_forget_is_refused() {
    let kill = [Capability::Kill];
    let sandbox = |change: &dyn Fn(Sandbox) -> Sandbox| both(|sandbox| change(sandbox.user(IdMap::root())));
    let more = Capabilities::none().bounding(kill);
    for capabilities in [more, Capabilities::only(kill).bounding(CapabilitySet::all()), more.inheritable(kill)] {
        let with = |sandbox: Sandbox| sandbox.capabilities(capabilities);
        sandbox(&with).iter().for_each(is_refused);
        sandbox(&|s| with(s).namespaces(Namespaces::PID)).iter().for_each(is_refused);
        let [dump, wait] = sandbox(&|s| with(s).no_new_privs());
        assert!(is_remembered(&dump) && dies(&wait), "{capabilities:?}");
        let [dump, wait] = sandbox(&|s| with(s).securebits(SecureBits::NOROOT));
        assert!(is_remembered(&dump) && dies(&wait), "{capabilities:?}");
    }
    for capabilities in [Capabilities::none(), Capabilities::only(kill), Capabilities::only(CapabilitySet::all())] {
        let [dump, wait] = sandbox(&|s| s.capabilities(capabilities));
        assert!(is_remembered(&dump) && dies(&wait), "{capabilities:?}");
    }
    let [dump, wait] = sandbox(&|s| s);
    assert!(is_remembered(&dump) && dies(&wait));
    // Who is not root gets nothing by being that.
    let [dump, wait] = both(|s| s.user(IdMap::single(1000, 1000)).capabilities(more));
    assert!(is_remembered(&dump) && dies(&wait));
}

/// A caller that is root of the host, and has given up what it may still get.
pub(crate) fn root_with_less_than_it_could_have() {
    let dropped = fork(|| {
        let header = [0x2008_0522_u32, 0];
        #[expect(unsafe_code, reason = "nothing is permitted any more")]
        // SAFETY: for this version the kernel reads two numbers and six.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), [0_u32; 6].as_ptr()) };
        assert_eq!(result, 0);
        both(|s| s).iter().for_each(is_refused);
        let [dump, wait] = both(Sandbox::no_new_privs);
        assert!(is_remembered(&dump) && dies(&wait));
        #[expect(unsafe_code, reason = "a flag of this process")]
        // SAFETY: numbers only.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        assert_eq!(result, 0);
        let [dump, wait] = both(|s| s);
        assert!(is_remembered(&dump) && dies(&wait));
    });
    assert_eq!(waitpid(dropped, None), Ok(WaitStatus::Exited(dropped, 0)));
    let [dump, wait] = both(|s| s);
    assert!(is_remembered(&dump) && dies(&wait));
    // The kernel does forget: where the call is not made that lets it through.
    let [dump, _] = both(|s| s.user(IdMap::root()).capabilities(Capabilities::none().bounding([Capability::Kill])));
    let dump = dump.no_new_privs();
    let plan = dump.prepare(Fds::new()).unwrap();
    let mut calls = plan.explain().filter(|call| call.number() == libc::SYS_prctl && call.step() != Step::Creation);
    let nth = calls.position(|call| call.step() == Step::NoNewPrivs).unwrap();
    assert!(!without(libc::SYS_prctl, nth, || is_remembered(&dump)), "there is no such danger");
}
