//! Targets that lie in wait for who joins them.

use crate::fallbacks::lacking;
use crate::faults::{fork, no_child_is_left};
use crate::hold::threads_end;
use crate::identity::strangers;
use crate::joins::{end, inside, target};
use crate::support::{program, sh, without};
use cofferdam_namespaces::{Child, Engine, ErrorKind, Fallbacks, Fds, IdMap, Join, Namespaces, Sandbox, Step, Target};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, setgroups};
use std::io::{Read, Write};

/// What it is to the host.
fn seen_outside(child: &Child, line: &str) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    found.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// A target that goes into a user namespace in its own when it is told to.
fn nesting(map: IdMap, nested: &str) -> Child {
    let script = format!("echo ready; read line; exec unshare {nested} sh -c 'echo ready; read line'");
    inside(sh(&script).user(map))
}

fn nest(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
}

/// Who is not mapped in there would be the caller, to every file of his: on the host root is root.
pub(crate) fn a_namespace_in_which_the_caller_is_nobody() {
    for nested in ["-U", "-U --map-user=0", "-U --map-group=0"] {
        let mut child = nesting(IdMap::root(), nested);
        nest(&mut child);
        let error = sh("true").join(Join::all()).prepare(Fds::new().target(target(&child))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{nested}: {error}");
        assert_eq!(error.object().unwrap(), "user namespace", "{nested}: {error}");
        let error = sh("true").join(Join::all().credentials()).prepare(Fds::new().target(target(&child))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{nested}: {error}");
        end(&child);
    }
}

/// The target changes its namespace when it has been looked at. With the defence off, the program is the caller, to the host.
pub(crate) fn the_namespace_is_exchanged_behind_the_look() {
    for map in [IdMap::single(5, 6), IdMap::root()] {
        let mut child = nesting(map.clone(), "-U");
        let sandbox = program("/bin/sleep").arg("1000").join(Join::all());
        let plan = sandbox.prepare(Fds::new().target(target(&child))).unwrap();
        end(&plan.spawn().unwrap());
        nest(&mut child);
        let error = plan.spawn().unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::IdMap, Some(libc::EINVAL)), "{map:?}: {error}");
        let fault = Fault { who: Who::Child, nth: Fault::EVERY, action: Action::Errno(0) };
        let watch = Watch::only(&[libc::SYS_setresuid, libc::SYS_setresgid]);
        let (_, joined) = watch.inject(fault, || plan.spawn());
        let joined = joined.unwrap();
        let caller = nix::unistd::geteuid().as_raw();
        assert_eq!(seen_outside(&joined, "Uid:"), [caller; 4], "the attack is none");
        end(&joined);
        end(&child);
    }
}

/// Where `setgroups(2)` is denied inside, the caller's groups are dropped before. With the defence off it has them.
pub(crate) fn groups_of_the_caller_stay_outside() {
    let caller = fork(|| {
        setgroups(&[Gid::from_raw(2000)]).unwrap();
        for map in [IdMap::root(), strangers().deny_setgroups(), IdMap::single(5, 6)] {
            let child = inside(sh("echo ready; read line").user(map.clone()));
            assert!(!seen_outside(&child, "Groups:").is_empty(), "{map:?}");
            let run = |sandbox: Sandbox| sandbox.join(Join::all()).spawn_with(Fds::new().target(target(&child)));
            let joined = run(program("/bin/sleep").arg("1000")).unwrap();
            assert_eq!(seen_outside(&joined, "Groups:"), [0_u32; 0], "{map:?}");
            end(&joined);
            let joined = without(libc::SYS_setgroups, Fault::EVERY, || run(program("/bin/sleep").arg("1000"))).unwrap();
            assert_eq!(seen_outside(&joined, "Groups:"), [2000], "{map:?}");
            end(&joined);
            // The other way to come in.
            let user = child.namespace(Namespaces::USER).unwrap();
            if map != IdMap::single(5, 6) {
                let sandbox = Sandbox::new("/bin/sleep").arg("1000").user(IdMap::join("user"));
                let joined = sandbox.spawn_with(Fds::new().bind("user", user)).unwrap();
                assert_eq!(seen_outside(&joined, "Groups:"), [0_u32; 0], "{map:?}");
                end(&joined);
            }
            end(&child);
        }
    });
    assert_eq!(waitpid(caller, None), Ok(WaitStatus::Exited(caller, 0)));
}

/// What is its environment it says itself: `LD_PRELOAD`. Where its files are not the program's it may not say that.
pub(crate) fn no_environment_without_its_files() {
    let child = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::UTS | Namespaces::MOUNT));
    let prepare = |join: Join| sh("true").join(join.environment()).prepare(Fds::new().target(target(&child)));
    for namespaces in [Namespaces::USER, Namespaces::USER | Namespaces::UTS] {
        let error = prepare(Join::only(namespaces)).unwrap_err();
        assert_eq!(
            (error.kind(), error.object().unwrap()),
            (ErrorKind::InvalidConfig, "environment".as_ref()),
            "{error}"
        );
    }
    assert!(prepare(Join::only(Namespaces::USER | Namespaces::MOUNT)).is_ok());
    end(&child);
    // All that it has of its own; the mount namespace is the caller's.
    let child = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::UTS));
    let error = sh("true").join(Join::all().environment()).prepare(Fds::new().target(target(&child))).unwrap_err();
    assert_eq!(error.object().unwrap(), "environment", "{error}");
    end(&child);
}

/// With `fs.suid_dumpable` of 1 the kernel makes a process traceable again when its ids change.
pub(crate) fn no_join_where_the_kernel_shows_it() {
    let child = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::UTS));
    let user = child.namespace(Namespaces::USER).unwrap();
    let join = |join: Join| sh("true").join(join).prepare(Fds::new().target(target(&child)));
    let enter = || {
        let fds = Fds::new().bind("user", user.try_clone().unwrap());
        Sandbox::new("/bin/true").user(IdMap::join("user")).prepare(fds)
    };
    assert!(join(Join::all()).is_ok() && enter().is_ok());
    // The setting is the machine's: here it only looks so.
    let file = tempfile::NamedTempFile::new().unwrap();
    let place = "/proc/sys/fs/suid_dumpable";
    mount(Some(file.path()), place, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    for (text, refused) in [("0\n", false), ("1\n", true), ("2\n", false)] {
        std::fs::write(file.path(), text).unwrap();
        for (plan, refused) in
            [(join(Join::all()), refused), (enter(), refused), (join(Join::only(Namespaces::UTS)), false)]
        {
            let object = plan.as_ref().err().and_then(cofferdam_namespaces::Error::object);
            assert_eq!(object, refused.then_some(place.as_ref()), "{text:?}");
        }
    }
    umount(place).unwrap();
    end(&child);
}

/// A number of the caller's pid namespace, and a `/proc` that numbers by another one: what would be looked at is another process.
pub(crate) fn numbers_of_another_proc() {
    let plan = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::PID).engine(Engine::Copy);
    let plan = plan.prepare(Fds::new()).unwrap();
    #[expect(unsafe_code, reason = "a closure in a copy")]
    // SAFETY: no other thread of this process holds a lock.
    let child = unsafe {
        plan.spawn_fn(|| match Target::process(std::process::id()) {
            Err(error) if error.kind() == ErrorKind::InvalidConfig => 0,
            Err(_) => 1,
            Ok(_) => 2,
        })
    };
    assert_eq!(child.unwrap().wait().unwrap().code(), Some(0));
}

/// As long as it is hidden from the target, its files are hidden from itself, if it is not root.
pub(crate) fn its_own_files_are_roots() {
    let child = inside(sh("echo ready; read line").user(IdMap::root()));
    let sandbox = program("/bin/true").oom_score_adj(500).join(Join::all());
    let error = sandbox.spawn_with(Fds::new().target(target(&child))).unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::OomScore, Some(libc::EACCES)), "{error}");
    end(&child);
}

/// The processes whose parent this is, but for these.
fn children_but(known: &[u32]) -> Vec<i32> {
    let parent = format!("PPid:\t{}\n", std::process::id());
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let ours = all.filter(|pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&parent))
    });
    ours.filter(|pid| !known.contains(pid)).map(u32::cast_signed).collect()
}

/// The process between is killed while its child waits: the child is ended too, and the plan is as good as new, by either clone.
pub(crate) fn the_process_between_is_killed() {
    let child = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::PID));
    let sandbox = program("/bin/true").fallbacks(Fallbacks::CLONE).join(Join::all());
    let plan = sandbox.prepare(Fds::new().target(target(&child))).unwrap();
    let kill_it = || {
        let held = plan.hold().unwrap();
        let between = children_but(&[child.id(), held.id()]);
        assert_eq!(between.len(), 1);
        kill(Pid::from_raw(between[0]), Signal::SIGKILL).unwrap();
        let error = held.release().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StatusLost, "{error}");
        assert_eq!(children_but(&[child.id()]), [0_i32; 0]);
    };
    kill_it();
    // The first clone3(2) is that of the thread.
    lacking(Who::Parent, libc::SYS_clone3, 1, libc::ENOSYS, kill_it);
    let joined = plan.spawn().unwrap();
    assert!(joined.wait().unwrap().success());
    end(&child);
    threads_end();
    no_child_is_left();
}
