//! What is asked for is what the program finds.

use crate::faults::fork;
use crate::support::{output, program, refused, sh};
use cofferdam_namespaces::{
    ErrorKind, IdMap, IoPriority, Namespaces, Personality, Resource, Rlimit, Sandbox, Scheduler, Step,
};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs;

fn words(sandbox: Sandbox) -> String {
    output(sandbox).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A field of the program's `/proc/self/stat`, counted as in `proc_pid_stat(5)`.
fn stat(sandbox: Sandbox, field: usize) -> i64 {
    let text = output(sandbox);
    let (_, rest) = text.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(field - 3).unwrap().parse().unwrap()
}

fn cat(file: &str) -> Sandbox {
    sh(&format!("exec cat {file}"))
}

pub(crate) fn names_are_the_sandboxs() {
    let ours = fs::read_to_string("/proc/sys/kernel/domainname").unwrap();
    let base = cat("/proc/sys/kernel/domainname").user(IdMap::root());
    assert_eq!(output(base.clone().namespaces(Namespaces::UTS).domainname("inside")), "inside\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/domainname").unwrap(), ours);
    assert_eq!(refused(&base.domainname("x")).kind(), ErrorKind::InvalidConfig);
    assert_eq!(output(program("/bin/sh").args(["-c", "echo $0"]).arg0("-login")), "-login\n");
}

pub(crate) fn a_session_of_its_own() {
    let (of_parent, own) = (nix::unistd::getsid(None).unwrap(), cat("/proc/self/stat"));
    assert_eq!(stat(own.clone(), 6), i64::from(of_parent.as_raw()));
    let text = output(own.new_session());
    let mut fields = text.split_whitespace();
    let pid = fields.next().unwrap().to_owned();
    // Session, then terminal.
    assert_eq!(fields.nth(4), Some(&*pid));
    assert_eq!(fields.next(), Some("0"));
}

/// Every resource, with what may be asked of it by anybody: no more than there is.
pub(crate) fn limits_are_the_programs() {
    let titles = [
        (Resource::As, "Max address space"),
        (Resource::Core, "Max core file size"),
        (Resource::Cpu, "Max cpu time"),
        (Resource::Data, "Max data size"),
        (Resource::Fsize, "Max file size"),
        (Resource::Locks, "Max file locks"),
        (Resource::Memlock, "Max locked memory"),
        (Resource::Msgqueue, "Max msgqueue size"),
        (Resource::Nice, "Max nice priority"),
        (Resource::Nofile, "Max open files"),
        (Resource::Nproc, "Max processes"),
        (Resource::Rss, "Max resident set"),
        (Resource::Rtprio, "Max realtime priority"),
        (Resource::Rttime, "Max realtime timeout"),
        (Resource::Sigpending, "Max pending signals"),
        (Resource::Stack, "Max stack size"),
    ];
    assert_eq!(titles.map(|(resource, _)| resource), *Resource::ALL);
    let limits = |sandbox: Sandbox| output(sandbox);
    let ours = limits(cat("/proc/self/limits"));
    let of = |text: &str, title: &str| -> (String, String) {
        let line = text.lines().find_map(|line| line.strip_prefix(title)).unwrap_or_else(|| panic!("{title}: {text}"));
        let numbers: Vec<_> =
            line.split_whitespace().filter(|w| w.parse::<u64>().is_ok() || *w == "unlimited").collect();
        (numbers[0].to_owned(), numbers[1].to_owned())
    };
    let as_much = |hard: &str, wanted: u64| hard.parse().map_or(wanted, |hard: u64| hard.min(wanted));
    let mut sandbox = cat("/proc/self/limits");
    let mut expected = Vec::new();
    for (nth, (resource, title)) in titles.into_iter().enumerate() {
        let limit = as_much(&of(&ours, title).1, 1 << (34 - nth % 3));
        let limit = if resource == Resource::Nofile { limit.min(20) } else { limit };
        sandbox = sandbox.rlimit(resource, Rlimit::new(limit / 2, limit));
        expected.push((title, ((limit / 2).to_string(), limit.to_string())));
    }
    let text = limits(sandbox);
    for (title, limit) in expected {
        assert_eq!(of(&text, title), limit, "{title}");
    }
    assert_eq!(limits(cat("/proc/self/limits")), ours);
}

/// Fewer descriptors than the caller has open, and a directory to be opened all the same.
pub(crate) fn few_descriptors_are_enough() {
    let many: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    let sandbox = sh("ulimit -n; pwd").rlimit(Resource::Nofile, 10).working_directory("/usr");
    assert_eq!(words(sandbox), "10 /usr");
    drop(many);
}

pub(crate) fn limits_that_cannot_be() {
    let error = refused(&program("/bin/true").rlimit(Resource::Core, Rlimit::new(2, 1)));
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("RLIMIT_CORE")));
}

/// Raised above what the caller has: for root alone, and not in a user namespace.
pub(crate) fn limits_are_raised_by_root() {
    use nix::sys::resource::{Resource as R, getrlimit, setrlimit};
    let caller = fork(|| {
        setrlimit(R::RLIMIT_NOFILE, 100, 200).unwrap();
        let more = sh("ulimit -n; ulimit -Hn").rlimit(Resource::Nofile, Rlimit::new(20, 300));
        assert_eq!(words(more.clone()), "20 300");
        let error = refused(&more.user(IdMap::root()));
        assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::Limits), "{error}");
        assert_eq!(getrlimit(R::RLIMIT_NOFILE).unwrap(), (100, 200));
    });
    assert_eq!(waitpid(caller, None), Ok(WaitStatus::Exited(caller, 0)));
}

/// And the caller's is as it was, although its memory was the child's when that wrote its own.
pub(crate) fn oom_score_is_the_programs() {
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let file = "/proc/self/oom_score_adj";
    assert_eq!(output(cat(file).oom_score_adj(777)), "777\n");
    assert_eq!(output(cat(file).oom_score_adj(1000).user(IdMap::root())), "1000\n");
    assert_eq!(fs::read_to_string(file).unwrap(), ours);
    let held = cat(file).oom_score_adj(500).prepare(cofferdam_namespaces::Fds::new()).unwrap().hold().unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", held.id())).unwrap(), "500\n");
    assert_eq!(fs::read_to_string(file).unwrap(), ours);
    assert_eq!(refused(&cat(file).oom_score_adj(1001)).kind(), ErrorKind::InvalidConfig);
}

pub(crate) fn scheduling_is_the_programs() {
    let status = cat("/proc/self/stat");
    assert_eq!(stat(status.clone().nice(19), 19), 19);
    let policies = [(Scheduler::Other, 0), (Scheduler::Batch, 3), (Scheduler::Idle, 5)];
    for (scheduler, number) in policies {
        assert_eq!(stat(status.clone().scheduler(scheduler), 41), number, "{scheduler:?}");
    }
    // Nice values go with the usual policies.
    let both = output(status.clone().scheduler(Scheduler::Batch).nice(7));
    assert!(both.contains(" 27 7 "), "{both}");
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    let ours = words(sh(allowed));
    let first: u16 = ours.split([',', '-']).next().unwrap().parse().unwrap();
    assert_eq!(words(sh(allowed).cpu_affinity([first, 4000])), first.to_string());
    let error = refused(&sh("true").cpu_affinity([8191]));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Scheduling, Some(libc::EINVAL)), "{error}");
    for (priority, text) in [
        (IoPriority::BestEffort(7), "best-effort: prio 7"),
        (IoPriority::Idle, "idle"),
        (IoPriority::BestEffort(0), "best-effort: prio 0"),
    ] {
        assert_eq!(words(sh("ionice -p $$").io_priority(priority)), text);
    }
    for wrong in [
        sh("true").nice(20),
        sh("true").scheduler(Scheduler::Fifo(0)),
        sh("true").io_priority(IoPriority::BestEffort(8)),
        sh("true").cpu_affinity([]),
        sh("true").cpu_affinity([8192]),
    ] {
        assert_eq!(refused(&wrong).kind(), ErrorKind::InvalidConfig);
    }
}

pub(crate) fn real_time_is_for_root() {
    let status = cat("/proc/self/stat");
    for (scheduler, number) in [(Scheduler::Fifo(5), 1), (Scheduler::RoundRobin(99), 2)] {
        assert_eq!(stat(status.clone().scheduler(scheduler), 41), number, "{scheduler:?}");
    }
    assert_eq!(stat(status.nice(-20), 19), -20);
    assert_eq!(words(sh("ionice -p $$").io_priority(IoPriority::RealTime(3))), "realtime: prio 3");
}

pub(crate) fn priority_is_not_for_everybody() {
    let error = refused(&sh("true").nice(-20));
    assert_eq!((error.kind(), error.step()), (ErrorKind::PermissionDenied, Step::Scheduling), "{error}");
    assert_eq!((error.system_call(), error.object().unwrap().to_str()), (Some("setpriority"), Some("nice")));
}

pub(crate) fn personality_is_the_programs() {
    let of = |sandbox: Sandbox| output(sandbox).trim().to_owned();
    let personality = cat("/proc/self/personality");
    assert_eq!(of(personality.clone().personality(Personality::ADDR_NO_RANDOMIZE)), "00040000");
    assert_eq!(of(personality.clone().personality(Personality::LINUX32 | Personality::UNAME26)), "00020008");
    assert_eq!(of(personality.personality(Personality::empty())), "00000000");
    let addresses = cat("/proc/self/maps").personality(Personality::ADDR_NO_RANDOMIZE);
    assert_eq!(output(addresses.clone()), output(addresses));
}

const OWN: Namespaces = Namespaces::NET.union(Namespaces::IPC).union(Namespaces::PID).union(Namespaces::MOUNT);

/// Each in its namespace, and the host's as they were.
pub(crate) fn sysctls_are_the_namespaces() {
    let files = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/lo/rp_filter"];
    let before = files.map(|file| fs::read_to_string(file).unwrap());
    let sandbox = cat(&files.join(" ")).user(IdMap::root()).namespaces(OWN);
    let sandbox = sandbox.sysctl("net.ipv4.ip_forward", "1").sysctl("net/ipv4/conf/lo/rp_filter", "2");
    assert_eq!(words(sandbox), "1 2");
    assert_eq!(files.map(|file| fs::read_to_string(file).unwrap()), before);
    // How many user namespaces there may be below it: none.
    let none = sh("unshare -U true && echo made; true").stderr(cofferdam_namespaces::Stdio::Null);
    let none = none.user(IdMap::root()).namespaces(OWN).sysctl("user.max_user_namespaces", "0");
    assert_eq!(output(none), "");
}

pub(crate) fn sysctls_of_root() {
    let files = "/proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/sem /proc/sys/kernel/domainname";
    let before = output(cat(files));
    let sandbox = cat(files).namespaces(Namespaces::IPC | Namespaces::UTS);
    let sandbox = sandbox.sysctl("kernel.shmmax", "4096").sysctl("fs.mqueue.msg_max", "11");
    let sandbox = sandbox.sysctl("kernel.sem", "1 2 3 4").sysctl("kernel.domainname", "inside");
    assert_eq!(words(sandbox), "4096 11 1 2 3 4 inside");
    assert_eq!(output(cat(files)), before);
}

/// The host's are out of reach, a value that the kernel does not like is told with its name.
pub(crate) fn sysctls_that_cannot_be() {
    let base = sh("true").user(IdMap::root()).namespaces(OWN);
    for name in ["kernel.core_pattern", "vm.swappiness", "net/../kernel/core_pattern", "kernel.hostname"] {
        let error = refused(&base.clone().sysctl(name, "1"));
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let error = refused(&sh("true").user(IdMap::root()).namespaces(Namespaces::NET).sysctl("net.ipv4.ip_forward", "1"));
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let error = refused(&base.clone().sysctl("net.ipv4.ip_forward", "maybe"));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Sysctl, Some(libc::EINVAL)), "{error}");
    assert_eq!(error.object().unwrap(), "net.ipv4.ip_forward");
    let error = refused(&base.sysctl("net.nowhere", "1"));
    assert_eq!((error.step(), error.kind()), (Step::Sysctl, ErrorKind::NotFound), "{error}");
}

/// Something that lies over `/proc` is not written to: CVE-2019-16884. The caller's own proc is covered, as a hostile root could have it.
pub(crate) fn sysctls_go_to_a_proc_of_their_own() {
    use nix::mount::{MsFlags, mount};
    let trap = tempfile::tempdir().unwrap();
    let file = trap.path().join("net/ipv4/ip_forward");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "").unwrap();
    // What is below, `net`, is another directory in each network namespace: nothing that is mounted there would be in sight.
    let (none, here) = (None::<&str>, "/proc/sys");
    mount(Some(trap.path()), here, none, MsFlags::MS_BIND, none).unwrap();
    // Read by another proc than the covered one.
    let script = "mount -t proc x /mnt && cat /mnt/sys/net/ipv4/ip_forward";
    let sandbox = sh(script).namespaces(Namespaces::NET | Namespaces::MOUNT).sysctl("net.ipv4.ip_forward", "1");
    assert_eq!(output(sandbox), "1\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "", "the trap has caught something");
    // Who writes to the path is caught.
    let naive = sh("echo 1 >/proc/sys/net/ipv4/ip_forward").namespaces(Namespaces::NET | Namespaces::MOUNT);
    assert_eq!(output(naive), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n", "the attack is none");
    nix::mount::umount(here).unwrap();
}
