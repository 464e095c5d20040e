//! Who is who in a user namespace, and who the program is.

use crate::fallbacks::lacking;
use crate::faults::{Unchanged, errnos, fails_or_is_overcome, fork, no_child_is_left};
use crate::hold::threads_end;
use crate::support::{output, program, read, refused, sh, without};
use crate::walks::prove;
use cofferdam_namespaces::{
    Child, Clock, ClockOffset, Credentials, Engine, Error, ErrorKind, Fds, IdMap, IdRange, Namespaces, Plan, Sandbox,
    Scope, Stdio, Step,
};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who, inject, record};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// Root and others inside, all of them nobody outside.
pub(crate) fn strangers() -> IdMap {
    let range = [IdRange::new(0, 100_000, 65536)];
    IdMap::ranges(range, range)
}

/// The caller, which is root, is root inside.
fn kept() -> IdMap {
    let ranges = [IdRange::new(0, 0, 1), IdRange::new(1, 100_001, 1000)];
    IdMap::ranges(ranges, ranges)
}

const MAPS: &str = "cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups";
const IDS: &str = "grep -E '^(Uid|Gid|Groups):' /proc/self/status";

fn words(sandbox: Sandbox) -> String {
    output(sandbox).split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn several_ranges() {
    assert_eq!(words(sh(MAPS).user(kept())), "0 0 1 1 100001 1000 0 0 1 1 100001 1000 allow");
    assert_eq!(words(sh(MAPS).user(kept().deny_setgroups())), "0 0 1 1 100001 1000 0 0 1 1 100001 1000 deny");
    let root = "Uid: 0 0 0 0 Gid: 0 0 0 0 Groups:";
    assert_eq!(words(sh(IDS).user(kept())), root);
    assert_eq!(words(sh(IDS).user(strangers())), root);
    // What it makes belongs to who it is outside.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("file");
    output(sh(&format!("touch {file:?}")).user(strangers()));
    let made = fs::metadata(&file).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_000, 100_000));
}

/// In every namespace at once, all owned by the user namespace, and with the right to change its own ids.
pub(crate) fn ranges_with_all_namespaces() {
    let script = "mount -t tmpfs x /mnt && hostname inside && setpriv --reuid 7 --regid 8 --groups 9,10 \
        grep -E '^(Uid|Gid|Groups):' /proc/self/status && grep boottime /proc/self/timens_offsets";
    let sandbox = sh(script).namespaces(Namespaces::all()).clock_offset(Clock::Boottime, ClockOffset::new(1000, 0));
    assert_eq!(words(sandbox.user(strangers())), "Uid: 7 7 7 7 Gid: 8 8 8 8 Groups: 9 10 boottime 1000 0");
}

pub(crate) fn credentials_are_the_programs() {
    let credentials = Credentials::new(1234, 5678);
    let ids = "Uid: 1234 1234 1234 1234 Gid: 5678 5678 5678 5678 Groups:";
    assert_eq!(words(sh(IDS).credentials(credentials.clone())), ids);
    assert_eq!(words(sh(IDS).credentials(credentials.clone().groups([7, 3, 5]))), format!("{ids} 3 5 7"));
    for map in [kept(), strangers()] {
        let sandbox = sh(IDS).user(map).credentials(Credentials::new(12, 34).groups([56]));
        assert_eq!(words(sandbox), "Uid: 12 12 12 12 Gid: 34 34 34 34 Groups: 56");
    }
    // Nobody is root inside.
    let users = [IdRange::new(500, 100_000, 2)];
    let sandbox = sh(IDS).user(IdMap::ranges(users, users)).credentials(Credentials::new(500, 501));
    assert_eq!(words(sandbox), "Uid: 500 500 500 500 Gid: 501 501 501 501 Groups:");
    // No capability is left.
    let caps = "grep -E '^Cap(Prm|Eff|Amb)' /proc/self/status";
    let none = "CapPrm: 0000000000000000 CapEff: 0000000000000000 CapAmb: 0000000000000000";
    assert_eq!(words(sh(caps).credentials(credentials)), none);
}

/// Still killed with its parent, although the kernel forgets that with the ids.
pub(crate) fn other_credentials_die_with_the_parent() {
    for map in [None, Some(strangers())] {
        let mut sandbox = program("/bin/sleep").arg("1000").credentials(Credentials::new(12, 34)).die_with_parent();
        if let Some(map) = map {
            sandbox = sandbox.user(map);
        }
        let (told, tell) = nix::unistd::pipe().unwrap();
        let caller = fork(|| {
            let sandbox = sandbox.clone().stdout(Stdio::fd("pipe"));
            std::mem::forget(sandbox.spawn_with(Fds::new().bind("pipe", tell.try_clone().unwrap())).unwrap());
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        drop(tell);
        waitpid(caller, None).unwrap();
        assert_eq!(std::io::Read::read(&mut fs::File::from(told), &mut [0]).unwrap(), 0, "the pipe ends");
    }
}

/// The kernel forgets with the ids what was asked for before: asked once only, the program lives on, in nobody's care.
pub(crate) fn asked_once_it_outlives_the_parent() {
    let sandbox = sh("read -r line; echo $line").credentials(Credentials::new(12, 34)).die_with_parent();
    let sandbox = sandbox.stdin(Stdio::fd("in")).stdout(Stdio::fd("out"));
    // What it says when its parent has died; nothing, if it has died too.
    let says = |asked_twice: bool| {
        let (input, tell) = nix::unistd::pipe().unwrap();
        let (told, out) = nix::unistd::pipe().unwrap();
        let caller = fork(|| {
            let fds = Fds::new().bind("in", input.try_clone().unwrap()).bind("out", out.try_clone().unwrap());
            let plan = sandbox.prepare(fds).unwrap();
            // The first prctl(2) stands before the change of user, the second behind it.
            let child = if asked_twice { plan.spawn() } else { without(libc::SYS_prctl, 1, || plan.spawn()) };
            std::mem::forget(child.unwrap());
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        drop(out);
        waitpid(caller, None).unwrap();
        // It may be gone, and its end of the pipe is kept here.
        nix::unistd::write(&tell, b"alive\n").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut File::from(told), &mut text).unwrap();
        text
    };
    assert_eq!((says(true), says(false)), (String::new(), "alive\n".to_owned()));
}

/// A set-user-id program's caller stays behind: in a user namespace, the program is one user and one group, also where it could change to another.
pub(crate) fn other_ids_of_the_caller_stay_outside() {
    let ids = |sandbox| words(sandbox);
    let (users, groups) = (getresuid().unwrap(), getresgid().unwrap());
    setresgid(Gid::from_raw(7002), Gid::from_raw(0), Gid::from_raw(7002)).unwrap();
    setresuid(Uid::from_raw(7001), Uid::from_raw(0), Uid::from_raw(7001)).unwrap();
    let root = "Uid: 0 0 0 0 Gid: 0 0 0 0";
    for map in [IdMap::root(), kept(), strangers()] {
        assert!(ids(sh(IDS).user(map.clone())).starts_with(root), "{map:?}");
    }
    // Not by a shell, which would change back.
    let real = || ids(program("/bin/grep").args(["-E", "^(Uid|Gid):", "/proc/self/status"]).user(kept()));
    assert!(real().starts_with(root));
    let without_a_change = without(libc::SYS_setresuid, Fault::EVERY, real);
    assert!(without_a_change.starts_with("Uid: 65534 0"), "the attack is none: {without_a_change}");
    let single = ids(sh(IDS).user(IdMap::single(5, 6)).credentials(Credentials::new(5, 6)));
    assert!(single.starts_with("Uid: 5 5 5 5 Gid: 6 6 6 6"), "{single}");
    assert!(Scope::new(IdMap::root(), Namespaces::empty()).is_ok(), "as root inside, which it is");
    setresuid(users.real, users.effective, users.saved).unwrap();
    setresgid(groups.real, groups.effective, groups.saved).unwrap();
}

/// Descriptors of the plan's own are never 0, 1 or 2, also where the caller has closed those: a stream would take their place in the child.
pub(crate) fn closed_streams_of_the_caller() {
    let aside = nix::unistd::dup(std::io::stdin()).unwrap();
    #[expect(unsafe_code, reason = "a stream is closed")]
    // SAFETY: nobody in this process reads from it.
    drop(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(0) });
    let sandbox = program("/bin/true").die_with_parent().credentials(Credentials::new(12, 34)).stdin(Stdio::Null);
    let result = sandbox.spawn().and_then(|child| child.wait());
    nix::unistd::dup2_stdin(&aside).unwrap();
    assert!(result.unwrap().success());
}

pub(crate) fn umask_is_the_programs() {
    assert_eq!(output(sh("umask").umask(0o027)), "0027\n");
    assert_eq!(refused(&sh("umask").umask(0o1000)).kind(), ErrorKind::InvalidConfig);
}

/// Of a single map, only its own ids; and nothing that an ordinary user may not.
pub(crate) fn credentials_that_cannot_be() {
    let single = program("/bin/true").user(IdMap::single(5, 6));
    assert!(single.clone().credentials(Credentials::new(5, 6)).spawn().unwrap().wait().unwrap().success());
    for wrong in [Credentials::new(0, 6), Credentials::new(5, 0), Credentials::new(5, 6).groups([])] {
        let error = refused(&single.clone().credentials(wrong));
        assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("credentials")));
    }
}

pub(crate) fn credentials_of_others_are_refused() {
    let error = refused(&program("/bin/true").credentials(Credentials::new(0, 0)));
    assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::Credentials), "{error}");
    assert_eq!(error.system_call(), Some("setgroups"));
}

/// Who may drop groups could read a file that denies access to one of them: CVE-2014-8989. With `setgroups` allowed it is readable.
pub(crate) fn a_file_that_denies_a_group_is_denied() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "secret").unwrap();
    // Nobody's whom the caller is, or is mapped to.
    chown(file.path(), Some(1), Some(2000)).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o604)).unwrap();
    let tempdir = file.path().parent().unwrap();
    fs::set_permissions(tempdir, fs::Permissions::from_mode(0o755)).unwrap();
    let script = format!("cat {0:?} || setpriv --clear-groups cat {0:?} || echo denied", file.path());
    let caller = fork(|| {
        setgroups(&[Gid::from_raw(2000)]).unwrap();
        let script = sh(&script).stderr(Stdio::Null);
        assert_eq!(output(script.clone().user(strangers().deny_setgroups())), "denied\n");
        assert_eq!(output(script.clone().user(strangers())), "secret");
        // A single id. Without the denial the kernel itself lets nobody map a group there.
        assert_eq!(output(script.clone().user(IdMap::root())), "denied\n");
        let error = without(libc::SYS_write, 0, || script.user(IdMap::root()).spawn()).unwrap_err();
        assert_eq!((error.step(), error.raw_os_error()), (Step::IdMap, Some(libc::EPERM)), "{error}");
        assert!(error.to_string().contains("gid_map"), "{error}");
    });
    assert_eq!(waitpid(caller, None), Ok(nix::sys::wait::WaitStatus::Exited(caller, 0)));
}

/// As `/etc/subuid` and `/etc/subgid` have them, by way of newuidmap and newgidmap.
pub(crate) fn subordinate_ids() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let text = words(sh(MAPS).user(IdMap::subordinate()));
    let own = |id: u32| format!("0 {id} 1 1 100000 65536");
    assert_eq!(text, format!("{} {} allow", own(uid.as_raw()), own(gid.as_raw())));
    assert_eq!(words(sh(IDS).user(IdMap::subordinate())), "Uid: 0 0 0 0 Gid: 0 0 0 0 Groups:");
    let text = words(sh("cat /proc/self/setgroups").user(IdMap::subordinate().deny_setgroups()));
    assert_eq!(text, "deny");
    let others = sh(IDS).user(IdMap::subordinate()).credentials(Credentials::new(12, 34).groups([56]));
    assert_eq!(words(others), "Uid: 12 12 12 12 Gid: 34 34 34 34 Groups: 56");
    // A scope has them too: a file of another user's.
    let file = tempfile::NamedTempFile::new().unwrap();
    let scope = Scope::new(IdMap::subordinate(), Namespaces::empty()).unwrap();
    #[expect(unsafe_code, reason = "the scope's own")]
    // SAFETY: a system call.
    unsafe { scope.run(|| chown(file.path(), Some(7), Some(8)).unwrap()) }.unwrap();
    let owner = fs::metadata(file.path()).unwrap();
    assert_eq!(owner.uid(), 100_006);
}

/// Where the status of every child is lost, the helpers' too: what they have written is there, and what they have not is said.
pub(crate) fn subordinate_ids_where_children_are_ignored() {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    #[expect(unsafe_code, reason = "a disposition is set")]
    // SAFETY: no handler is set, and none was.
    unsafe { nix::sys::signal::signal(nix::sys::signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    let mut child = sh(MAPS).user(IdMap::subordinate()).stdout(Stdio::Pipe).spawn().unwrap();
    let text = read(&mut child).split_whitespace().collect::<Vec<_>>().join(" ");
    let own = |id: u32| format!("0 {id} 1 1 100000 65536");
    assert_eq!(text, format!("{} {} allow", own(uid.as_raw()), own(gid.as_raw())));
    assert_eq!(child.wait().unwrap_err().kind(), ErrorKind::StatusLost);
    ranges_that_are_not_ours();
}

/// What the administrator does not allow is said in newuidmap's words, and nothing is left.
pub(crate) fn ranges_that_are_not_ours() {
    let of_root = [IdRange::new(0, 0, 1)];
    let error = refused(&program("/bin/true").user(IdMap::ranges(of_root, of_root)));
    assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::IdMap), "{error}");
    assert!(error.object().unwrap().to_str().unwrap().ends_with("/newuidmap"), "{error}");
    assert!(error.to_string().contains("uid range [0-1) -> [0-1) not allowed"), "{error}");
    assert_eq!(waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::__WALL), Err(Errno::ECHILD));
}

/// Each call of the child and each of the caller that writes the maps, failed in turn; and the child killed.
pub(crate) fn every_call_for_the_maps_can_fail() {
    let sandbox = program("/bin/true").user(strangers()).credentials(Credentials::new(12, 34));
    let prepare = || sandbox.prepare(Fds::new());
    let steps = walk(&prepare);
    prove("every_call_for_the_maps_can_fail", steps);
    let run = || prepare()?.spawn()?.wait();
    // The caller writes nothing but the two maps.
    let writes = Watch::only(&[libc::SYS_write]);
    let (calls, _) = writes.record(run);
    assert_eq!(calls.iter().filter(|call| call.who == Who::Parent).count(), 2);
    for nth in 0..2 {
        let (_, result) = writes.inject(Fault { who: Who::Parent, nth, action: Action::Errno(libc::EXFULL) }, run);
        let error = result.expect_err("fails");
        assert_eq!((error.step(), error.raw_os_error()), (Step::IdMap, Some(libc::EXFULL)), "{error}");
        no_child_is_left();
    }
    threads_end();
}

/// Lets each call of a child fail, and kills it there. The steps that were walked.
fn walk(prepare: &(dyn Fn() -> Result<Plan, Error> + Sync)) -> BTreeSet<Step> {
    let run = || prepare()?.spawn()?.wait();
    // With the first thread glibc takes two signals for itself, which may have been ignored.
    std::thread::spawn(|| ()).join().unwrap();
    let (calls, result) = record(run);
    assert!(result.unwrap().success());
    let plan = prepare().unwrap();
    let told: Vec<i64> = plan.explain().map(|call| call.number()).collect();
    let done: Vec<i64> = calls.iter().filter(|call| call.who == Who::Child).map(|call| call.number).collect();
    assert_eq!(done, told);
    let before = Unchanged::now();
    for (nth, call) in plan.explain().enumerate() {
        for errno in errnos() {
            let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Errno(*errno) }, run);
            fails_or_is_overcome(&call, *errno, result);
            no_child_is_left();
            before.check();
        }
        let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Kill }, run);
        if call.step() != Step::Exec {
            let error = result.expect_err("is killed");
            assert_eq!((error.step(), error.kind()), (call.step(), ErrorKind::Killed), "{call}: {error}");
        }
        no_child_is_left();
        before.check();
    }
    plan.explain().map(|call| call.step()).collect()
}

/// A user namespace that is there, and nobody in it.
fn prepared(map: IdMap) -> OwnedFd {
    let held = program("/bin/true").user(map).prepare(Fds::new()).unwrap().hold().unwrap();
    held.namespace(Namespaces::USER).unwrap()
}

fn joining(sandbox: Sandbox, user: &OwnedFd) -> Result<Plan, Error> {
    sandbox.user(IdMap::join("user")).prepare(Fds::new().bind("user", user.try_clone().unwrap()))
}

/// The namespaces that it makes are the joined one's, and it is root in all of them, however often it is spawned.
pub(crate) fn a_user_namespace_is_joined() {
    let user = prepared(IdMap::root());
    let number = File::from(user.try_clone().unwrap()).metadata().unwrap().ino();
    let script = format!("readlink /proc/self/ns/user; {IDS}; mount -t tmpfs x /mnt && hostname joined && hostname");
    let sandbox =
        copied(&script).namespaces(Namespaces::all() - Namespaces::PID - Namespaces::TIME).stdout(Stdio::Pipe);
    let plan = joining(sandbox, &user).unwrap();
    for _ in 0..3 {
        let mut child = plan.spawn().unwrap();
        let text = read(&mut child);
        assert!(child.wait().unwrap().success());
        // An ordinary user may not drop them outside, and inside it is denied.
        assert_eq!(child.report().kept_groups(), !nix::unistd::geteuid().is_root());
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words[0], format!("user:[{number}]"));
        assert_eq!(words[1..11].join(" "), "Uid: 0 0 0 0 Gid: 0 0 0 0");
        assert_eq!(words.last(), Some(&"joined"));
    }
    let child = lacking(Who::Child, libc::SYS_setgroups, Fault::EVERY, libc::EPERM, || plan.spawn()).unwrap();
    assert!(child.report().kept_groups() && read_and_wait(child));
    let error = joining(program("/bin/true").namespaces(Namespaces::PID), &user).unwrap_err();
    assert_eq!(
        (error.kind(), error.object().unwrap().to_str()),
        (ErrorKind::InvalidConfig, Some("pid or time namespace"))
    );
    let error = joining(Sandbox::new("/bin/true").engine(Engine::Shared), &user).unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("engine")));
    let no_namespace = fs::File::open("/dev/null").unwrap().into();
    let error = joining(copied("true"), &no_namespace).unwrap().spawn().unwrap_err();
    assert_eq!((error.step(), error.system_call()), (Step::JoinUser, Some("setns")), "{error}");
}

pub(crate) fn credentials_in_a_joined_namespace() {
    let user = prepared(strangers());
    let sandbox = copied(IDS).credentials(Credentials::new(12, 34).groups([56])).stdout(Stdio::Pipe);
    let mut child = joining(sandbox, &user).unwrap().spawn().unwrap();
    let text = read(&mut child).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(text, "Uid: 12 12 12 12 Gid: 34 34 34 34 Groups: 56");
    assert!(child.wait().unwrap().success());
}

pub(crate) fn every_call_of_a_join_can_fail() {
    let user = prepared(IdMap::root());
    let sandbox = Sandbox::new("/bin/true").namespaces(Namespaces::MOUNT | Namespaces::NET);
    let steps = walk(&|| joining(sandbox.clone(), &user));
    prove("every_call_of_a_join_can_fail", steps);
}

/// Root of the joined namespace cannot look into a child that has a copy of our memory: CVE-2016-9962. Into its program it can.
pub(crate) fn who_joins_cannot_be_traced() {
    let user = prepared(IdMap::root());
    let script = "read -r pid; readlink /proc/$pid/exe >/dev/null && echo seen || echo hidden; read -r pid; readlink /proc/$pid/exe >/dev/null && echo seen || echo hidden; read -r again;
        readlink /proc/$pid/exe >/dev/null && echo seen || echo hidden";
    let root = copied(script).stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Null);
    let mut root = joining(root, &user).unwrap().spawn().unwrap();
    let (mut tell, told) = (root.stdin.take().unwrap(), root.stdout.take().unwrap());
    let mut answers = BufReader::new(told).lines();
    // The first prctl(2) is the one that keeps others out.
    let plan = joining(Sandbox::new("/bin/sleep").arg("1000"), &user).unwrap();
    let traceable = without(libc::SYS_prctl, 0, || plan.hold()).unwrap();
    writeln!(tell, "{}", traceable.id()).unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "seen", "the attack is none");
    drop(traceable);
    let held = plan.hold().unwrap();
    writeln!(tell, "{}", held.id()).unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "hidden");
    let child = held.release().unwrap();
    writeln!(tell, "again").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "seen");
    assert!(root.wait().unwrap().success());
    child.kill().unwrap();
    child.wait().unwrap();
    threads_end();
}

fn read_and_wait(mut child: Child) -> bool {
    read(&mut child);
    child.wait().unwrap().success()
}

/// Whatever engine the test is about: who joins is a copy.
fn copied(script: &str) -> Sandbox {
    sh(script).engine(Engine::Copy)
}
