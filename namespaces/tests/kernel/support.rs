//! What several of these tests share.

use cofferdam_namespaces::{Child, Engine, Error, Fds, IdMap, Namespaces, Sandbox, Stdio};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use std::ffi::OsString;
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

static COPIES: AtomicBool = AtomicBool::new(false);

/// The kinds of namespaces, by the kernel's names for them.
pub(crate) const NAMES: [(Namespaces, &str); 8] = [
    (Namespaces::USER, "user"),
    (Namespaces::PID, "pid"),
    (Namespaces::MOUNT, "mnt"),
    (Namespaces::UTS, "uts"),
    (Namespaces::IPC, "ipc"),
    (Namespaces::NET, "net"),
    (Namespaces::CGROUP, "cgroup"),
    (Namespaces::TIME, "time"),
];

/// From here on [`program`] asks for copies.
pub(crate) fn make_copies() {
    COPIES.store(true, Relaxed);
}

/// The engine that this test is about.
pub(crate) fn engine() -> Engine {
    if COPIES.load(Relaxed) { Engine::Copy } else { Engine::Shared }
}

/// As [`Sandbox::new`], by the engine that this test is about. Every test runs once with each.
pub(crate) fn program(program: impl Into<OsString>) -> Sandbox {
    if engine() == Engine::Copy { Sandbox::new(program).engine(Engine::Copy) } else { Sandbox::new(program) }
}

/// A shell script, with the usual programs.
pub(crate) fn sh(script: &str) -> Sandbox {
    program("/bin/sh").args(["-c", script]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

/// Runs it where one call of a child is not made, and told to have succeeded: a defence that is a call of its own, switched off from outside. It is the
/// `nth` of this number.
pub(crate) fn without<T: Send>(number: i64, nth: usize, run: impl FnOnce() -> T + Send) -> T {
    let fault = Fault { who: Who::Child, nth, action: Action::Errno(0) };
    // Behind execve(2) it is another program. Where every call is meant, that is not looked for.
    let (one, two) = ([number], [number, libc::SYS_execve]);
    let watch = Watch::only(if nth == Fault::EVERY { &one } else { &two });
    let (calls, result) = watch.inject(fault, run);
    assert!(calls.iter().any(|call| call.fault.is_some() && call.number == number), "the call was made");
    result
}

/// Whether this is a run that may take hours.
pub(crate) fn asked_for_long() -> bool {
    std::env::var_os("COFFERDAM_TEST_LONG").is_some_and(|value| value == "1")
}

/// What it prints, when it succeeds.
pub(crate) fn output(sandbox: Sandbox) -> String {
    output_with(sandbox, Fds::new())
}

pub(crate) fn output_with(sandbox: Sandbox, fds: Fds) -> String {
    let mut child = sandbox.stdout(Stdio::Pipe).spawn_with(fds).expect("spawns");
    let text = read(&mut child);
    let status = child.wait().expect("is waited for");
    assert!(status.success(), "{status}: {text}");
    text
}

/// Everything that comes from its standard output.
pub(crate) fn read(child: &mut Child) -> String {
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("is read");
    text
}

/// Why it does not spawn.
pub(crate) fn refused(sandbox: &Sandbox) -> Error {
    match sandbox.spawn() {
        Ok(child) => {
            child.kill().expect("is killed");
            child.wait().expect("is waited for");
            panic!("spawned, against expectation");
        }
        Err(error) => error,
    }
}

/// All that this kernel has for a program: it may be too old to let one enter a time namespace.
pub(crate) fn all_namespaces() -> Namespaces {
    // Asked once, so that a walk over the calls of a caller does not meet it.
    static ALL: OnceLock<Namespaces> = OnceLock::new();
    *ALL.get_or_init(|| {
        let time = sh("true").user(IdMap::root()).namespaces(Namespaces::TIME).prepare(Fds::new());
        if time.is_ok() { Namespaces::all() } else { Namespaces::all() - Namespaces::TIME }
    })
}
