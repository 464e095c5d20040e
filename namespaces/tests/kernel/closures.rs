//! Code of ours in a sandbox, instead of a program.

use crate::faults::{Unchanged, inject_at, no_child_is_left};
use crate::identity::strangers;
use crate::support::read;
use cofferdam_namespaces::{Child, Engine, Error, ErrorKind, Fds, IdMap, Mount, Namespaces, Sandbox, Stdio, Step};
use cofferdam_testkit::fault::{Action, Who, record};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

fn sandbox() -> Sandbox {
    Sandbox::new("closure").stdin(Stdio::Pipe).stdout(Stdio::Pipe)
}

fn spawn(sandbox: &Sandbox, closure: impl FnOnce() -> u8) -> Result<Child, Error> {
    let plan = sandbox.prepare(Fds::new())?;
    #[expect(unsafe_code, reason = "what these tests are about")]
    // SAFETY: a test's process has one thread. (Where another one supervises its calls, it allocates nothing meanwhile.)
    unsafe {
        plan.spawn_fn(closure)
    }
}

/// Says it to the caller, and nothing stays in a buffer.
fn say(text: &str) {
    nix::unistd::write(std::io::stdout(), text.as_bytes()).unwrap();
}

pub(crate) fn a_closure_runs_inside() {
    let sandbox = sandbox()
        .user(IdMap::root())
        .namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS)
        .mount(Mount::proc("/proc"))
        .hostname("inside")
        .working_directory("/proc");
    let mut child = spawn(&sandbox, || {
        let name = nix::unistd::gethostname().unwrap();
        let here = std::env::current_dir().unwrap();
        let (pid, uid) = (std::process::id(), nix::unistd::geteuid());
        say(&format!("{} {} {pid} {uid}", name.display(), here.display()));
        42
    })
    .unwrap();
    assert_eq!(read(&mut child), "inside /proc 1 0");
    assert_eq!(child.wait().unwrap().code(), Some(42));
    assert_eq!(child.report().engine(), Engine::Copy);
    let error = spawn(&sandbox.engine(Engine::Shared), || 0).unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("engine")));
}

pub(crate) fn a_closure_has_three_descriptors() {
    let ours = fs::File::open("/dev/null").unwrap();
    let mut child = spawn(&sandbox(), || {
        // That of the folder itself is the fourth.
        say(&fs::read_dir("/proc/self/fd").unwrap().count().to_string());
        0
    })
    .unwrap();
    assert_eq!(read(&mut child), "4");
    assert!(child.wait().unwrap().success());
    drop(ours);
}

pub(crate) fn a_closure_changes_nothing_here() {
    let mut number = 1;
    let here = std::env::current_dir().unwrap();
    let child = spawn(&sandbox(), || {
        number += 1;
        std::env::set_current_dir("/").unwrap();
        number
    });
    assert_eq!(child.unwrap().wait().unwrap().code(), Some(2));
    assert_eq!((number, std::env::current_dir().unwrap()), (1, here));
}

pub(crate) fn a_panic_is_an_exit_code() {
    let child = spawn(&sandbox(), || panic!("on purpose")).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(101));
    let child = spawn(&sandbox(), || {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        7
    });
    // No handler of the caller's is there, and nothing is blocked.
    assert_eq!(child.unwrap().wait().unwrap().signal(), Some(libc::SIGTERM));
}

/// The closure waits for what the caller does after the spawn.
pub(crate) fn the_caller_goes_on_beside_a_closure() {
    let closure = || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap();
        text.len().try_into().unwrap()
    };
    let mut child = spawn(&sandbox(), closure).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.stdin.take().unwrap().write_all(b"seven..").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

pub(crate) fn every_call_before_a_closure_can_fail() {
    let run = || {
        let sandbox = sandbox()
            .user(IdMap::root())
            .namespaces(Namespaces::PID | Namespaces::UTS)
            .hostname("walked")
            .working_directory("/")
            .die_with_parent();
        spawn(&sandbox, || 5)?.wait()
    };
    std::thread::spawn(|| ()).join().unwrap();
    let (calls, result) = record(run);
    assert_eq!(result.unwrap().code(), Some(5));
    let calls: Vec<_> = calls.into_iter().filter(|call| call.who == Who::Child).collect();
    let mut steps = BTreeSet::new();
    let before = Unchanged::now();
    // The last three are its own, behind the list: that it is there, that nobody listens to it any more, its end.
    let listed = calls.len() - 3;
    assert_eq!(calls[listed].number, libc::SYS_sendto);
    for (at, call) in calls.iter().enumerate().take(listed) {
        let (_, result) = inject_at(&calls, at, Action::Errno(libc::EXFULL), run);
        let error = result.expect_err(&call.to_string());
        assert_eq!(
            (error.system_call(), error.raw_os_error()),
            (Some(call.name()), Some(libc::EXFULL)),
            "{call}: {error}"
        );
        steps.insert(error.step());
        no_child_is_left();
        let (_, result) = inject_at(&calls, at, Action::Kill, run);
        assert_eq!(result.expect_err(&call.to_string()).signal(), Some(libc::SIGKILL), "{call}");
        no_child_is_left();
        before.check();
    }
    assert!(steps.contains(&Step::Hold) && !steps.contains(&Step::Exec), "{steps:?}");
}

pub(crate) fn a_closure_with_ranges_of_ids() {
    let mut child = spawn(&sandbox().user(strangers()), || {
        say(&fs::read_to_string("/proc/self/uid_map").unwrap());
        0
    })
    .unwrap();
    let map = read(&mut child);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert!(child.wait().unwrap().success());
}
