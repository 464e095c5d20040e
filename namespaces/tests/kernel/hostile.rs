//! Targets that lie in wait for who joins them.

use crate::faults::fork;
use crate::identity::strangers;
use crate::joins::{end, inside, target};
use crate::support::{program, sh, without};
use cofferdam_namespaces::{Child, ErrorKind, Fds, IdMap, Join, Sandbox, Step};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, setgroups};
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
            let user = child.namespace(cofferdam_namespaces::Namespaces::USER).unwrap();
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
