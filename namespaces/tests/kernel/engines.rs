//! What the two engines have in common, and what they do not do to the program that spawns.

use crate::identity::strangers;
use crate::support::{engine, program};
use cofferdam_namespaces::{Credentials, Engine, ErrorKind, Fds, IdMap, Namespaces, Plan, Sandbox, Stdio};
use nix::sys::signal::SigSet;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What is asked for is what happens, and what happens is reported.
pub(crate) fn the_engine_is_reported() {
    let plan = program("/bin/true").prepare(Fds::new()).unwrap();
    for child in [plan.spawn().unwrap(), plan.hold().unwrap().release().unwrap()] {
        assert_eq!(child.report().engine(), engine());
        assert!(child.wait().unwrap().success());
    }
    let asked = Sandbox::new("/bin/true").engine(Engine::Shared).spawn().unwrap();
    assert_eq!(asked.report().engine(), Engine::Shared);
    assert!(asked.wait().unwrap().success());
}

/// What of this process a child could change that shares its memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Host {
    dumpable: bool,
    oom_score_adj: String,
    directory: PathBuf,
    root: PathBuf,
    mask: SigSet,
    umask: String,
    /// Of the thread that asks.
    nice: String,
}

impl Host {
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        Host {
            dumpable: nix::sys::prctl::get_dumpable().unwrap(),
            oom_score_adj: fs::read_to_string("/proc/self/oom_score_adj").unwrap(),
            directory: std::env::current_dir().unwrap(),
            root: fs::read_link("/proc/self/root").unwrap(),
            mask: SigSet::thread_get_mask().unwrap(),
            umask: status.lines().find(|line| line.starts_with("Umask:")).unwrap().to_owned(),
            // pid (name) state ppid ...: the 19th field.
            nice: stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(16).unwrap().to_owned(),
        }
    }
}

pub(crate) fn descriptors() -> BTreeSet<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| fs::read_link(entry.unwrap().path()));
    open.filter_map(Result::ok).filter(|path| !path.starts_with("/proc")).collect()
}

/// Both engines at once from 8 threads; no other thread ever sees this program as anything but what it was.
pub(crate) fn the_host_program_is_unchanged() {
    let (before, open) = (Host::now(), descriptors());
    let mut sandboxes = vec![everything().engine(Engine::Shared), everything().engine(Engine::Copy)];
    if nix::unistd::geteuid().is_root() {
        sandboxes.push(everything().user(strangers()).credentials(Credentials::new(7, 8)));
        sandboxes.push(Sandbox::new("true").credentials(Credentials::new(65534, 65534)));
    }
    let plans: Vec<Plan> = sandboxes.iter().map(|sandbox| sandbox.prepare(Fds::new()).unwrap()).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(Host::now(), before, "look {looks}");
                looks += 1;
            }
            looks
        });
        let spawners: Vec<_> = (0..8)
            .map(|thread| {
                let (plans, before) = (&plans, &before);
                scope.spawn(move || {
                    for round in 0..32 {
                        let plan = &plans[(thread + round) % plans.len()];
                        let child = if round % 3 == 0 { plan.hold().unwrap().release() } else { plan.spawn() };
                        assert!(child.unwrap().wait().unwrap().success());
                        assert_eq!(Host::now(), *before);
                    }
                })
            })
            .collect();
        for spawner in spawners {
            spawner.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
    drop(plans);
    assert_eq!((Host::now(), descriptors()), (before, open));
}

fn everything() -> Sandbox {
    Sandbox::new("true")
        .user(IdMap::root())
        .namespaces(Namespaces::MOUNT | Namespaces::PID | Namespaces::UTS)
        .hostname("inside")
        .oom_score_adj(1000)
        .nice(19)
        .umask(0o077)
        .working_directory("/")
        .stdin(Stdio::Null)
}

/// User and group cannot change in the caller's memory.
pub(crate) fn ids_change_in_a_copy_alone() {
    let sandbox = Sandbox::new("true").credentials(Credentials::new(65534, 65534));
    let error = sandbox.clone().engine(Engine::Shared).prepare(Fds::new()).unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("engine")), "{error}");
    let child = sandbox.spawn().unwrap();
    assert_eq!(child.report().engine(), Engine::Copy);
    assert!(child.wait().unwrap().success());
}
