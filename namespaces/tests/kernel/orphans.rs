//! The program is killed in the middle of a spawn, at each step in turn: no process is left, no mount, nobody in the cgroup.

use crate::cgroup::Group;
use crate::faults::{everything_of, fds};
use crate::roots::Busybox;
use crate::support::program;
use cofferdam_namespaces::{Child, Credentials, Error, Fds, IdMap, Namespaces, Plan, Step};
use cofferdam_testkit::Place;
use cofferdam_testkit::fault::{self, Orphans, Who, kill_parent_at, record};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::fs;

/// Where a program may be killed: at these calls of a child's, and at these of its own.
struct Places {
    child: Vec<usize>,
    parent: Vec<usize>,
}

/// Each call of the child; and each of the caller's from the clone on, before which there is nothing to be left. Where time is short, the first of several that
/// are alike.
fn places(calls: &[fault::Call]) -> Places {
    let all = matches!(Place::required(), Ok(None | Some(Place::Host)));
    let of = |who| calls.iter().filter(move |call| call.who == who).collect::<Vec<_>>();
    let differs = |calls: &[&fault::Call], at: usize| at == 0 || calls[at].number != calls[at - 1].number;
    let (child, parent) = (of(Who::Child), of(Who::Parent));
    let clone = parent.iter().position(|call| call.number == libc::SYS_clone3).expect("it clones");
    Places {
        child: (0..child.len()).filter(|at| all || differs(&child, *at)).collect(),
        parent: (clone..parent.len()).filter(|at| all || differs(&parent, *at)).collect(),
    }
}

/// What is found of mounts and of the cgroup, if there is one.
fn seen(group: Option<&Group>) -> (String, String) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    (mounts, group.map(Group::members).unwrap_or_default())
}

/// Kills the program at each call; each process that it leaves ends at once, without having become the program.
fn kill_at_each(group: Option<&Group>, spawn: &(dyn Fn() -> Result<Child, Error> + Sync)) {
    let run = || {
        let child = spawn().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let (calls, ()) = record(run);
    let places = places(&calls);
    assert!(!places.child.is_empty() && !places.parent.is_empty());
    let before = seen(group);
    let both = [(Who::Child, places.child), (Who::Parent, places.parent)];
    for (who, nth) in both.into_iter().flat_map(|(who, all)| all.into_iter().map(move |nth| (who, nth))) {
        let Orphans { call, ended, left } = kill_parent_at(who, nth, run);
        let told = call.map_or("nowhere".to_owned(), |call| call.to_string());
        assert!(left.is_empty(), "killed at {who:?} {nth}, {told}: {left:?}");
        assert!(ended.iter().all(ends_as_an_orphan), "killed at {who:?} {nth}, {told}: {ended:?}");
        assert!(call.is_some() || who == Who::Parent, "the child makes call {nth}");
        assert_eq!(seen(group), before, "killed at {who:?} {nth}, {told}");
    }
}

/// By the signal that it asked for, or by having looked.
fn ends_as_an_orphan(status: &WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(_, 127))
}

/// A program that would stay, at the end of every step.
fn everything(root: &Busybox, fds: Fds) -> Result<Plan, Error> {
    everything_of(program("busybox").args(["sleep", "1000"]), root, fds)
}

/// Mount points that are missing are made by the first one.
fn root() -> Busybox {
    let root = Busybox::new();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/secret"), "x").unwrap();
    let child = everything(&root, fds()).unwrap().spawn().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    root
}

pub(crate) fn the_caller_can_be_killed_at_every_call() {
    let root = root();
    kill_at_each(None, &|| everything(&root, fds())?.spawn());
}

/// While it is held, the caller goes on beside it.
pub(crate) fn who_holds_can_be_killed_at_every_call() {
    let root = root();
    kill_at_each(None, &|| everything(&root, fds())?.hold()?.release());
}

pub(crate) fn the_caller_can_be_killed_with_a_child_in_a_cgroup() {
    let group = Group::any();
    let sandbox = program("/bin/sleep").arg("1000").user(IdMap::root()).die_with_parent();
    let sandbox = sandbox.namespaces(Namespaces::CGROUP | Namespaces::PID | Namespaces::MOUNT);
    let plan = || sandbox.prepare(Fds::new().cgroup([group.procs()]));
    kill_at_each(Some(&group), &|| plan()?.spawn());
    kill_at_each(Some(&group), &|| plan()?.hold()?.release());
}

/// The child changes its user, with which the kernel forgets what it has asked for: it asks again.
pub(crate) fn the_caller_can_be_killed_with_a_child_of_other_ids() {
    let sandbox = program("/bin/sleep").arg("1000").credentials(Credentials::new(65534, 65534)).die_with_parent();
    kill_at_each(None, &|| sandbox.prepare(Fds::new())?.spawn());
    // Without the second time it would outlive its caller.
    let forgetful = sandbox.prepare(Fds::new()).unwrap();
    let asks: Vec<_> = forgetful.explain().filter(|call| call.step() == Step::ParentDeath).collect();
    assert_eq!(asks.len(), 4, "twice: the signal, and a look");
}

/// Who has not asked for it is left: these tests could fail.
pub(crate) fn without_the_signal_the_child_stays() {
    let sandbox = program("/bin/sh").args(["-c", "exit 7"]).user(IdMap::root()).namespaces(Namespaces::MOUNT);
    let run = || {
        let child = sandbox.prepare(Fds::new()).unwrap().spawn().unwrap();
        child.wait().unwrap();
    };
    let (calls, ()) = record(run);
    let last = calls.iter().filter(|call| call.who == Who::Child).count() - 1;
    for nth in [0, last] {
        let Orphans { call, ended, left } = kill_parent_at(Who::Child, nth, run);
        assert!(left.is_empty() && call.is_some(), "{left:?}");
        assert!(matches!(ended[..], [WaitStatus::Exited(_, 7)]), "it became the program: {ended:?}");
    }
}
