//! What is done where the kernel lacks a system call: here it answers as an older one would.

use crate::cgroup::Group;
use crate::faults::{Unchanged, no_child_is_left};
use crate::roots::Busybox;
use crate::support::{engine, program, read, sh};
use cofferdam_namespaces::{
    Child, Error, ErrorKind, Fallbacks, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Stdio, Step,
};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use std::fs;

/// Spawns it where the `nth` call of this number fails with this errno.
pub(crate) fn lacking<T: Send>(who: Who, number: i64, nth: usize, errno: i32, spawn: impl FnOnce() -> T + Send) -> T {
    let fault = Fault { who, nth, action: Action::Errno(errno) };
    let (calls, result) = Watch::only(&[number]).inject(fault, spawn);
    assert!(calls.iter().any(|call| call.fault.is_some() && call.number == number), "the call was made");
    result
}

pub(crate) fn used(child: &Child) -> Fallbacks {
    assert_eq!(child.report().engine(), engine());
    child.report().fallbacks()
}

pub(crate) fn unsupported(error: &Error, step: Step, call: &str) {
    assert_eq!(
        (error.kind(), error.step(), error.system_call()),
        (ErrorKind::Unsupported, step, Some(call)),
        "{error}"
    );
    no_child_is_left();
}

pub(crate) fn without_clone3() {
    // The caller's handlers and what it ignores do not get in, whatever clone it is.
    let script = "cat /proc/self/status /proc/sys/kernel/hostname";
    let sandbox = sh(script).user(IdMap::root()).namespaces(Namespaces::UTS).hostname("inside").stdout(Stdio::Pipe);
    let allowed = sandbox.clone().fallbacks(Fallbacks::CLONE);
    let plan = allowed.prepare(Fds::new()).unwrap();
    let mut child = lacking(Who::Parent, libc::SYS_clone3, 0, libc::ENOSYS, || plan.spawn()).unwrap();
    assert_eq!(used(&child), Fallbacks::CLONE);
    assert!(fs::exists(format!("/proc/{}", child.id())).unwrap(), "its pid is known");
    let status = read(&mut child);
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert!(status.contains(&format!("{set}:\t{:016x}\n", 0)), "{status}");
    }
    assert!(status.ends_with("\ninside\n"), "{status}");
    assert!(child.wait().unwrap().success());
    // Without need it is not used; where it is not allowed, the call is named.
    let child = plan.spawn().unwrap();
    assert_eq!(used(&child), Fallbacks::empty());
    assert!(child.wait().unwrap().success());
    let error = lacking(Who::Parent, libc::SYS_clone3, 0, libc::ENOSYS, || sandbox.spawn()).unwrap_err();
    unsupported(&error, Step::Clone, "clone3");
}

/// The second clone3 is that of the thread.
pub(crate) fn without_clone3_held() {
    let plan = sh("echo $$").fallbacks(Fallbacks::CLONE).stdout(Stdio::Pipe).prepare(Fds::new()).unwrap();
    let (pid, mut child) = lacking(Who::Parent, libc::SYS_clone3, 1, libc::ENOSYS, || {
        let held = plan.hold().unwrap();
        (held.id(), held.release().unwrap())
    });
    assert_eq!(used(&child), Fallbacks::CLONE);
    assert_eq!((read(&mut child), child.id()), (format!("{pid}\n"), pid));
    assert!(child.wait().unwrap().success());
}

pub(crate) fn without_a_clone_into_a_cgroup() {
    let group = Group::v2();
    let sandbox = sh("cat /proc/self/cgroup").user(IdMap::root()).namespaces(Namespaces::CGROUP).stdout(Stdio::Pipe);
    let fds = || Fds::new().cgroup([group.directory()]);
    for (errno, fallbacks) in [
        (libc::EINVAL, Fallbacks::CGROUP_PROCS),
        (libc::E2BIG, Fallbacks::CGROUP_PROCS),
        (libc::ENOSYS, Fallbacks::CGROUP_PROCS | Fallbacks::CLONE),
    ] {
        let plan = sandbox.clone().fallbacks(fallbacks).prepare(fds()).unwrap();
        let mut child = lacking(Who::Parent, libc::SYS_clone3, 0, errno, || plan.spawn()).unwrap();
        assert_eq!(used(&child), fallbacks);
        let inside = read(&mut child);
        assert!(child.wait().unwrap().success());
        assert!(inside.lines().any(|line| line == "0::/"), "the namespace is rooted there: {inside}");
        let plan = sandbox.prepare(fds()).unwrap();
        let error = lacking(Who::Parent, libc::SYS_clone3, 0, errno, || plan.spawn()).unwrap_err();
        unsupported(&error, Step::Clone, "clone3");
    }
    // Without a namespace of its own it sees where it is.
    let plan =
        sh("cat /proc/self/cgroup").fallbacks(Fallbacks::CGROUP_PROCS).stdout(Stdio::Pipe).prepare(fds()).unwrap();
    let mut child = lacking(Who::Parent, libc::SYS_clone3, 0, libc::EINVAL, || plan.spawn()).unwrap();
    let seen = read(&mut child);
    assert!(seen.lines().any(|line| line.starts_with("0::") && line.ends_with(group.name())), "{seen}");
    assert!(child.wait().unwrap().success());
}

/// These have no fallback: the one that is missing is named, and nothing is mounted. Nor has `openat2(2)`: see the crate's documentation, "Kernel versions".
pub(crate) fn without_the_calls_of_mounts() {
    let before = Unchanged::now();
    let mounted = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (root, here) = (Busybox::new(), mounted());
    let sandbox = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::MOUNT).fallbacks(Fallbacks::all());
    let sandbox = sandbox.root(Root::directory(root.path()));
    let sandbox = sandbox.mount(Mount::bind("/etc", "/etc").read_only()).mount(Mount::tmpfs("/tmp"));
    for (number, call, step) in [
        (libc::SYS_open_tree, "open_tree", Step::Mount),
        (libc::SYS_move_mount, "move_mount", Step::Root),
        (libc::SYS_openat2, "openat2", Step::Mount),
        (libc::SYS_fsopen, "fsopen", Step::Mount),
        (libc::SYS_fsconfig, "fsconfig", Step::Mount),
        (libc::SYS_fsmount, "fsmount", Step::Mount),
    ] {
        let error = lacking(Who::Child, number, Fault::EVERY, libc::ENOSYS, || sandbox.spawn()).unwrap_err();
        unsupported(&error, step, call);
        assert_eq!(mounted(), here, "{call}");
        before.check();
    }
    assert!(sandbox.spawn().unwrap().wait().unwrap().success());
    // Also where a link would be followed: on the way to a working directory, and to the program of a root.
    let user = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::MOUNT).fallbacks(Fallbacks::all());
    for (sandbox, step) in [
        (user.clone().working_directory("/tmp"), Step::WorkingDirectory),
        (user.root(Root::directory(root.path())), Step::Exec),
    ] {
        let error = lacking(Who::Child, libc::SYS_openat2, Fault::EVERY, libc::ENOSYS, || sandbox.spawn()).unwrap_err();
        unsupported(&error, step, "openat2");
        assert!(sandbox.spawn().unwrap().wait().unwrap().success());
    }
    before.check();
}

pub(crate) fn without_close_range() {
    // Not CLOEXEC, and many: more than one reading of the folder lists.
    let leaky: Vec<_> = (0..100).map(|_| nix::unistd::pipe().unwrap()).collect();
    let list = |sandbox: &Sandbox| -> Result<Child, Error> { sandbox.prepare(Fds::new())?.spawn() };
    let sandbox = program("/bin/ls").arg("/proc/self/fd").stdin(Stdio::Null).stdout(Stdio::Pipe);
    let allowed = sandbox.clone().fallbacks(Fallbacks::CLOSE_EACH);
    for errno in [libc::ENOSYS, libc::EINVAL] {
        let mut child = lacking(Who::Child, libc::SYS_close_range, 0, errno, || list(&allowed)).unwrap();
        assert_eq!(used(&child), Fallbacks::CLOSE_EACH);
        assert_eq!(read(&mut child), "0\n1\n2\n3\n", "the last one is that of ls itself");
        assert!(child.wait().unwrap().success());
        let error = lacking(Who::Child, libc::SYS_close_range, 0, errno, || list(&sandbox)).unwrap_err();
        unsupported(&error, Step::CloseDescriptors, "close_range");
    }
    // One that is held has let go of them at once, whether close_range(2) is missing or knows one flag less.
    let plan = allowed.user(IdMap::root()).namespaces(Namespaces::MOUNT).prepare(Fds::new()).unwrap();
    for (nth, left) in [(0, 4), (Fault::EVERY, 5)] {
        let (open, mut child) = lacking(Who::Child, libc::SYS_close_range, nth, libc::ENOSYS, || {
            let held = plan.hold().unwrap();
            (fs::read_dir(format!("/proc/{}/fd", held.id())).unwrap().count(), held.release().unwrap())
        });
        assert_eq!(open, left, "streams, gate, and the folder that lists them");
        assert_eq!(used(&child), Fallbacks::CLOSE_EACH);
        assert_eq!(read(&mut child), "0\n1\n2\n3\n");
        assert!(child.wait().unwrap().success());
    }
    drop(leaky);
}
