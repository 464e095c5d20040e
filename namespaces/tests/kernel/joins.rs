//! Joining the namespaces of others, beside nsenter(1).

use crate::faults::{Unchanged, errnos, fails_or_is_overcome, no_child_is_left};
use crate::hold::threads_end;
use crate::support::{all_namespaces, output_with, program, sh};
use crate::walks::prove;
use cofferdam_namespaces::{
    Child, Engine, Error, ErrorKind, Fds, IdMap, Join, Mount, Namespaces, Resource, Sandbox, Stdio, Step, Target,
};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who, inject, record};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

pub(crate) const NSENTER: &str = "/usr/bin/nsenter";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A sandbox that waits until it is killed.
pub(crate) fn inside(sandbox: Sandbox) -> Child {
    ready(&sandbox.stdin(Stdio::Pipe).stdout(Stdio::Pipe))
}

fn ready(sandbox: &Sandbox) -> Child {
    let mut child = sandbox.spawn().unwrap();
    // Byte by byte: what follows is for others.
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    child
}

/// In namespaces of its own, all that there are, as root of its own.
pub(crate) fn whole() -> Sandbox {
    sh("echo ready; read line")
        .user(IdMap::root())
        .namespaces(all_namespaces())
        .mount(Mount::proc("/proc"))
        .hostname("target")
}

pub(crate) fn target(child: &Child) -> Target {
    Target::from_pidfd(child.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

pub(crate) fn joined(child: &Child, sandbox: Sandbox) -> String {
    output_with(sandbox, Fds::new().target(target(child)))
}

pub(crate) fn end(child: &Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

const ALL: &str = "for n in user pid mnt uts ipc net cgroup time; do readlink /proc/self/ns/$n; done; hostname; pwd
    grep -E '^(Uid|Gid|CapEff)' /proc/self/status | tr -d 0-9; cat /proc/self/uid_map; set -- /proc/[0-9]*; echo $#";

pub(crate) fn joined_as_nsenter_does() {
    let child = inside(whole());
    let pid = child.id().to_string();
    let theirs = |options: &[&str], script: &str| {
        let mut command = Command::new(NSENTER);
        if !nix::unistd::geteuid().is_root() {
            command.arg("--preserve-credentials");
        }
        let out = command.args(["-t", &pid]).args(options).args(["--", "/bin/sh", "-c", script]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let ours = joined(&child, sh(ALL).join(Join::all()));
    assert_eq!(ours, theirs(&["-a", "-U"], ALL));
    let links = |text: &str| text.lines().take(8).map(str::to_owned).collect::<Vec<_>>();
    let names = ["user", "pid", "mnt", "uts", "ipc", "net", "cgroup", "time"];
    let of = |name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
    assert_eq!(links(&ours), names.map(of));
    assert!(ours.contains("target\n/\n"), "{ours}");
    // Some of them: as nsenter with the same ones.
    let (net, uts, pid) = (Namespaces::NET, Namespaces::UTS, Namespaces::PID);
    let some = "for n in user pid_for_children mnt uts net; do readlink /proc/self/ns/$n; done; hostname";
    let cases: [(Namespaces, &[&str]); 5] = [
        (net, &["-U", "-n"]),
        (uts | net, &["-U", "-n", "-u"]),
        (pid, &["-U", "-p"]),
        (Namespaces::MOUNT, &["-U", "-m"]),
        (Namespaces::empty(), &["-U"]),
    ];
    for (namespaces, options) in cases {
        let join = Join::only(namespaces | Namespaces::USER);
        assert_eq!(joined(&child, sh(some).join(join)), theirs(options, some), "{options:?}");
    }
    end(&child);
}

/// Where, with what and as whom the target is.
pub(crate) fn as_the_target_is() {
    let child = inside(whole().env("SECRET", "of the target").env("A", "1").working_directory("/usr/lib"));
    let script = "pwd; echo \"$SECRET/$A/$B/$HOME\"";
    let join = Join::all().working_directory().environment();
    let sandbox = sh(script).env("A", "2").env("B", "3").join(join);
    assert_eq!(joined(&child, sandbox.clone()), "/usr/lib\nof the target/2/3/\n");
    // What the sandbox says goes before.
    assert_eq!(joined(&child, sandbox.working_directory("/tmp")), "/tmp\nof the target/2/3/\n");
    assert_eq!(joined(&child, sh(script).join(Join::all())), "/\n///\n");
    // All else as without a join.
    let sandbox = sh("umask; ulimit -n; ulimit -c").umask(0o31).rlimit(Resource::Nofile, 123).rlimit(Resource::Core, 0);
    assert_eq!(joined(&child, sandbox.join(Join::all())), "0031\n123\n0\n");
    end(&child);
    // The one user that there is inside.
    let child = inside(sh("echo ready; read line").user(IdMap::single(123, 456)));
    let ids = "id -u; id -g; grep CapEff /proc/self/status";
    let none = "123\n456\nCapEff:\t0000000000000000\n";
    assert_eq!(joined(&child, sh(ids).join(Join::all())), none);
    assert_eq!(joined(&child, sh(ids).join(Join::all().credentials())), none);
    end(&child);
}

/// A target that has its ids from root.
pub(crate) fn as_whom_the_target_is() {
    use crate::identity::strangers;
    use cofferdam_namespaces::Credentials;
    let ids = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t \\n' ' '";
    let credentials = Credentials::new(12, 34).groups([56, 78]);
    let theirs = "Uid: 12 12 12 12 Gid: 34 34 34 34 Groups: 56 78 ";
    let waiting = sh("echo ready; read line").credentials(credentials);
    for sandbox in [waiting.clone().user(strangers()), waiting] {
        let user = sandbox != sandbox.clone().user(strangers());
        let child = inside(sandbox);
        let run = |join| joined(&child, sh(ids).join(join));
        assert_eq!(run(Join::all().credentials()), theirs, "{user}");
        assert!(run(Join::all()).starts_with("Uid: 0 0 0 0 Gid: 0 0 0 0 Groups:"), "{user}");
        let others = sh(ids).join(Join::all().credentials()).credentials(Credentials::new(1, 2));
        assert_eq!(joined(&child, others), "Uid: 1 1 1 1 Gid: 2 2 2 2 Groups: ");
        end(&child);
    }
}

/// The root of a target is its own, not that of its mount namespace.
pub(crate) fn the_targets_root_is_entered() {
    let root = crate::roots::Busybox::new();
    for dir in ["proc", "tmp"] {
        std::fs::create_dir(root.path().join(dir)).unwrap();
    }
    // What would be the host's program until it is started: CVE-2019-5736.
    std::os::unix::fs::symlink("/proc/self/exe", root.path().join("bin/evil")).unwrap();
    // It has changed its root by itself.
    let script = format!(
        "mount -t proc p {0}/proc && exec chroot {0} /bin/sh -c 'echo ready; read line'",
        root.path().display()
    );
    let namespaces = Namespaces::MOUNT | Namespaces::PID;
    let child = inside(sh(&script).user(IdMap::root()).namespaces(namespaces));
    let text = joined(&child, sh("pwd; echo /*; readlink /proc/self/exe").join(Join::all()));
    assert_eq!(text, "/\n/bin /proc /tmp\n/bin/busybox\n");
    let evil = program("/bin/evil").join(Join::all()).spawn_with(Fds::new().target(target(&child)));
    let error = evil.unwrap_err();
    assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ELOOP)), "{error}");
    end(&child);
}

/// New namespaces beside those that are joined, in the joined user namespace: a pod.
pub(crate) fn new_namespaces_beside_joined_ones() {
    let child = inside(whole());
    let script = "readlink /proc/self/ns/user; readlink /proc/self/ns/net; echo $$; hostname new; hostname; set -- /proc/[0-9]*; echo $#; ls /dev | wc -l";
    let join = Join::only(Namespaces::USER | Namespaces::NET);
    let sandbox = sh(script).join(join).namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS);
    let sandbox = sandbox.mount(Mount::proc("/proc")).mount(Mount::dev("/dev"));
    let text = joined(&child, sandbox.clone());
    let of = |name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", child.id())).unwrap().display().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], [&*of("user"), &*of("net"), "1", "new"]);
    assert!(lines[4].parse::<u32>().unwrap() <= 3, "{text}");
    // Both joined and new.
    let error = sandbox.namespaces(Namespaces::NET).prepare(Fds::new().target(target(&child))).unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("namespaces")));
    end(&child);
}

/// By descriptors alone, also when nobody is in them any more, and of different owners.
pub(crate) fn namespaces_by_descriptor() {
    let child = inside(whole());
    let all = [Namespaces::NET, Namespaces::UTS, Namespaces::USER, Namespaces::MOUNT];
    let fds = || all.map(|kind| child.namespace(kind).unwrap());
    let fds = [fds(), fds()];
    end(&child);
    let user = cofferdam_namespaces::NamespaceId::of(&fds[0][2]).unwrap().inode();
    let [first, second] = fds.map(|fds| Target::from_namespaces(fds).unwrap());
    // In that mount namespace /proc is that of a pid namespace that is gone.
    let sandbox = sh("hostname; id -u").join(Join::all());
    assert_eq!(output_with(sandbox, Fds::new().target(first.clone())), "target\n0\n");
    let sandbox = sh("readlink /proc/self/ns/user; hostname").join(Join::only(Namespaces::USER | Namespaces::UTS));
    assert_eq!(output_with(sandbox, Fds::new().target(second)), format!("user:[{user}]\ntarget\n"));
    for join in [Join::all().environment(), Join::all().credentials(), Join::only(Namespaces::IPC)] {
        let error = sh("true").join(join).prepare(Fds::new().target(first.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    let error = Target::from_namespaces([null]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

/// A network of root's and a user namespace that does not own it: the one is joined before the rights in it are lost.
pub(crate) fn a_namespace_of_another_owner() {
    let net = inside(sh("echo ready; read line").namespaces(Namespaces::NET));
    let user = inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::UTS));
    let fds = [
        user.namespace(Namespaces::UTS).unwrap(),
        user.namespace(Namespaces::USER).unwrap(),
        net.namespace(Namespaces::NET).unwrap(),
    ];
    let target = Target::from_namespaces(fds).unwrap();
    let script = "for n in user uts net; do readlink /proc/self/ns/$n; done";
    let text = output_with(sh(script).join(Join::all()), Fds::new().target(target));
    let of = |child: &Child, name: &str| std::fs::read_link(format!("/proc/{}/ns/{name}", child.id())).unwrap();
    let expected = [of(&user, "user"), of(&user, "uts"), of(&net, "net")].map(|link| link.display().to_string());
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    // One process in all of them: at once.
    let script = "echo ready; read line";
    let mixed = inside(sh(script).user(IdMap::root()));
    assert_eq!(joined(&mixed, sh("id -u").join(Join::all())), "0\n");
    [net, user, mixed].iter().for_each(end);
}

pub(crate) fn joins_that_cannot_be() {
    let child = inside(whole());
    let sandbox = || sh("true").join(Join::all());
    let fds = || Fds::new().target(target(&child));
    let refused = |sandbox: Sandbox, fds: Fds, object: &str| {
        let error = sandbox.prepare(fds).unwrap_err();
        let found = error.object().unwrap().to_str().unwrap().to_owned();
        assert_eq!((error.kind(), &*found), (ErrorKind::InvalidConfig, object), "{error}");
    };
    refused(sandbox(), Fds::new(), "target");
    refused(sh("true"), fds(), "target");
    refused(sandbox().engine(Engine::Shared), fds(), "engine");
    refused(sandbox().user(IdMap::root()), fds(), "user or time namespace");
    refused(sandbox().namespaces(Namespaces::TIME), fds(), "user or time namespace");
    refused(sandbox().hostname("x"), fds(), "hostname");
    refused(sh("true").join(Join::all().timeout(Duration::ZERO)), fds(), "join");
    let timed = Join::all().environment().timeout(Duration::from_secs(1));
    refused(sh("true").join(timed), fds(), "environment");
    let plan = sandbox().prepare(fds()).unwrap();
    #[expect(unsafe_code, reason = "refused")]
    // SAFETY: it is not run.
    let error = unsafe { plan.spawn_fn(|| 0) }.unwrap_err();
    assert_eq!(error.object().unwrap(), "closure");
    end(&child);
    let error = Target::process(child.id()).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NoSuchProcess, Step::Target), "{error}");
    let error = Target::from_pidfd(File::open("/dev/null").unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

/// Each call of both processes, failed in turn; and each of the two killed.
pub(crate) fn every_call_of_joining_can_fail() {
    let child = inside(whole());
    let join = Join::all().working_directory().credentials();
    let prepare =
        || program("/bin/true").join(join.clone()).die_with_parent().prepare(Fds::new().target(target(&child)));
    let run = || prepare()?.spawn()?.wait();
    // With the first thread glibc takes two signals for itself, which may have been ignored.
    thread::spawn(|| ()).join().unwrap();
    let (calls, result) = record(run);
    assert!(result.unwrap().success());
    let plan = prepare().unwrap();
    let told: Vec<i64> = plan.explain().map(|call| call.number()).collect();
    let made: Vec<i64> = calls.iter().filter(|call| call.who == Who::Child).map(|call| call.number).collect();
    // The process between ends when the program has started.
    assert_eq!(made, [&told[..], &[libc::SYS_exit_group]].concat());
    let mut steps = BTreeSet::new();
    let before = Unchanged::now();
    for (nth, call) in plan.explain().enumerate() {
        for errno in errnos() {
            let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Errno(*errno) }, run);
            fails_or_is_overcome(&call, *errno, result);
            no_other_child_is_left();
            before.check();
        }
        let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Kill }, run);
        if call.step() != Step::Exec {
            let error = result.expect_err("is killed");
            assert_eq!((error.step(), error.kind()), (call.step(), ErrorKind::Killed), "{call}: {error}");
        }
        no_other_child_is_left();
        before.check();
        steps.insert(call.step());
    }
    prove("every_call_of_joining_can_fail", steps);
    end(&child);
}

/// None but the target, which runs.
pub(crate) fn no_other_child_is_left() {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    assert_eq!(waitid(Id::All, flags), Ok(WaitStatus::StillAlive));
}

/// A program of the target's that looks at each process that it is told of.
const SPY: &str = "echo ready
    while read -r line; do
        for p in /proc/[0-9]*; do
            case ${p#/proc/} in 1|$$) continue;; esac
            exe=$(readlink $p/exe) && echo \"exe $exe\"
        done
        echo done
    done";

/// Nobody inside may look into the copy of the caller's memory that joins, nor at its program: CVE-2016-9962, CVE-2019-5736. With the flag left on they may.
pub(crate) fn nobody_inside_sees_who_joins() {
    let mut child = ready(
        &sh(SPY)
            .user(IdMap::root())
            .namespaces(Namespaces::PID | Namespaces::MOUNT)
            .mount(Mount::proc("/proc"))
            .stdin(Stdio::Pipe)
            .stdout(Stdio::Pipe)
            .stderr(Stdio::Null),
    );
    let ours = std::env::current_exe().unwrap().display().to_string();
    let plan = program("/bin/sleep").arg("1000").join(Join::all()).prepare(Fds::new().target(target(&child))).unwrap();
    let look = |child: &mut Child| -> Vec<String> {
        child.stdin.as_mut().unwrap().write_all(b"look\n").unwrap();
        let answers = BufReader::new(child.stdout.as_mut().unwrap());
        answers.lines().map(Result::unwrap).take_while(|line| line != "done").collect()
    };
    let held = plan.hold().unwrap();
    let seen = look(&mut child);
    drop(held);
    assert!(!seen.iter().any(|line| line.contains(&ours)), "{seen:?}");
    // The defence off.
    let fault = Fault { who: Who::Child, nth: 0, action: Action::Errno(0) };
    let (_, held) = Watch::only(&[libc::SYS_prctl]).inject(fault, || plan.hold().unwrap());
    let seen = look(&mut child);
    drop(held);
    assert!(seen.contains(&format!("exe {ours}")), "{seen:?}");
    // Of the program that is running then, all there is is what is inside.
    let joined = plan.spawn().unwrap();
    let seen = look(&mut child);
    end(&joined);
    assert!(seen.iter().any(|line| line.ends_with("/sleep")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains(&ours)), "{seen:?}");
    threads_end();
    end(&child);
}

/// Exactly the three streams.
pub(crate) fn a_joined_program_has_three_descriptors() {
    let child = inside(whole());
    let leaky = File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    // 3 is ls's own look at the folder.
    assert_eq!(joined(&child, program("/bin/ls").arg("/proc/self/fd").join(Join::all())), "0\n1\n2\n3\n");
    end(&child);
}

/// 100 sandboxes, each joined from each of 8 threads.
pub(crate) fn eight_threads_join_a_hundred() {
    let children: Vec<Child> = (0..100)
        .map(|number| {
            inside(
                sh("echo ready; read line")
                    .user(IdMap::root())
                    .namespaces(Namespaces::PID | Namespaces::UTS)
                    .hostname(format!("box-{number}")),
            )
        })
        .collect();
    thread::scope(|scope| {
        for thread in 0..8_usize {
            let children = &children;
            scope.spawn(move || {
                for at in 0..children.len() {
                    // Each in an order of its own.
                    let number = (at * 37 + thread * 13) % children.len();
                    let sandbox = program("/bin/hostname").join(Join::all());
                    assert_eq!(joined(&children[number], sandbox), format!("box-{number}\n"));
                }
            });
        }
    });
    children.iter().for_each(end);
    no_child_is_left();
}

/// The error of a thread that may not.
pub(crate) fn joins_of_strangers_are_refused() {
    let refused = |result: Result<Child, Error>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    };
    // Process 1 of the machine is root's.
    let target = Target::process(1).unwrap();
    let sandbox = Sandbox::new("/bin/true").env("PATH", PATH).join(Join::all());
    refused(sandbox.spawn_with(Fds::new().target(target)));
}

/// Told to who did not spawn it, once its parent knows; or, by an older kernel, not at all.
pub(crate) fn the_end_of_others_is_told() {
    let mut child = sh("sleep 1000 & echo $!; wait; read line").stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().parse().unwrap();
    let other = Target::process(pid).unwrap();
    match other.exit_status() {
        Ok(status) => assert_eq!(status, None),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            return end_both(&child, pid);
        }
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGTERM).unwrap();
    let told = loop {
        match other.exit_status() {
            Ok(None) => thread::yield_now(),
            Ok(Some(status)) => break Some(status),
            // Linux 6.13 and 6.14.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                break None;
            }
        }
    };
    if let Some(status) = told {
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGTERM));
    }
    child.stdin = None;
    let ended = target(&child);
    let status = child.wait().unwrap();
    if told.is_some() {
        assert_eq!(ended.exit_status().unwrap(), Some(status));
    }
}

fn end_both(child: &Child, other: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(other.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    end(child);
}
