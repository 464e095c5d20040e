//! The conformance list, as far as it is about freezing, reclaiming and events.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cofferdam_cgroups::{
    Controllers, Enforcement, ErrorKind, Event, Events, Guard, Hierarchy, Layout, Limits, Resource, Waiting as Psi,
};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use rustix::event::{PollFd, PollFlags, poll};

use crate::support::{BOTH, LONG, Waiting, kind, until};

const MIB: u64 = 1 << 20;

fn make(hierarchy: &Hierarchy, controllers: Controllers) -> Guard {
    hierarchy.create("job", controllers).unwrap().into_guard()
}

/// CPU time that a process has used, in the kernel's ticks.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

pub(crate) fn what_is_frozen_does_not_run(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH);
    let child = job.child("child").unwrap_or_else(|_| panic!("a child"));
    let mut process = Waiting::in_cgroup(&child, "while :; do :; done");
    until("it runs", || ticks(process.pid()) > 2);
    assert!(!job.is_frozen().unwrap());
    job.freeze(LONG).unwrap();
    assert!(job.is_frozen().unwrap() && child.is_frozen().unwrap());
    let before = ticks(process.pid());
    // Somebody else gets on meanwhile.
    let other = Waiting::new("while :; do :; done");
    let mut other_runs = other;
    other_runs.go();
    until("the other one runs", || ticks(other_runs.pid()) > 10);
    assert_eq!(ticks(process.pid()), before);
    // Again is the same, and below a frozen one it hangs nothing.
    job.freeze(LONG).unwrap();
    child.freeze(LONG).unwrap();
    child.thaw(Duration::from_millis(20)).unwrap_err();
    job.thaw(LONG).unwrap();
    assert!(!job.is_frozen().unwrap());
    until("it runs again", || ticks(process.pid()) > before + 2);
    assert!(!process.has_ended());
    job.kill(LONG).unwrap();
    job.close().unwrap();
}

pub(crate) fn what_forks_is_frozen_too(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH);
    let _bomb = crate::conformance::fork_bomb(&job);
    for _ in 0..5 {
        job.freeze(LONG).unwrap();
        let before = job.processes().unwrap();
        assert!(before.len() > 1);
        std::thread::yield_now();
        assert_eq!(job.processes().unwrap(), before);
        job.thaw(LONG).unwrap();
    }
    job.freeze(LONG).unwrap();
    job.close().unwrap();
}

pub(crate) fn the_caller_is_not_frozen(hierarchy: &Hierarchy) {
    let own = hierarchy.own(BOTH).unwrap();
    assert_eq!(kind(own.freeze(LONG)), ErrorKind::InvalidInput);
    let job = make(hierarchy, BOTH);
    job.attach(std::process::id()).unwrap();
    let frozen = job.freeze(LONG);
    own.attach(std::process::id()).unwrap();
    assert_eq!(kind(frozen), ErrorKind::InvalidInput);
    // An empty one is frozen at once, and thawed.
    job.freeze(LONG).unwrap();
    job.thaw(LONG).unwrap();
    job.close().unwrap();
}

fn wait_for(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut seen = Vec::new();
    until("the event", || {
        seen.extend(events.wait(LONG).unwrap());
        seen.iter().any(&wanted)
    });
    seen
}

fn is_readable(events: &Events) -> bool {
    let fd = events.as_fd();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&rustix::event::Timespec::default())).unwrap() == 1
}

pub(crate) fn an_oom_kill_is_an_event(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH | Controllers::MEMORY);
    job.apply(&Limits::new().memory(16 * MIB).swap(0), Enforcement::Strict).unwrap();
    let mut events = job.events().unwrap();
    assert!(events.read().unwrap().is_empty());
    assert!(!is_readable(&events));
    let has_populated = hierarchy.layout() != Layout::V1;
    let mut allocator = Waiting::new("ulimit -v 1000000; exec tail /dev/zero 2>/dev/null");
    job.attach(allocator.pid()).unwrap();
    if has_populated {
        wait_for(&mut events, |event| *event == Event::Populated(true));
    }
    allocator.go();
    let seen = wait_for(&mut events, |event| matches!(event, Event::OomKill(_)));
    assert!(seen.iter().any(|event| matches!(event, Event::Oom(_))), "{seen:?}");
    allocator.ended();
    // It may have been told with the kill.
    if has_populated && !seen.contains(&Event::Populated(false)) {
        wait_for(&mut events, |event| *event == Event::Populated(false));
    }
    // A second one is told anew, by the descriptor too.
    let mut allocator = Waiting::in_cgroup(&job, "ulimit -v 1000000; exec tail /dev/zero 2>/dev/null");
    allocator.ended();
    until("the descriptor is readable", || is_readable(&events));
    wait_for(&mut events, |event| matches!(event, Event::OomKill(_)));
    job.close().unwrap();
    let last = events.read().unwrap();
    assert!(last.contains(&Event::Gone), "{last:?}");
    assert!(events.read().unwrap().is_empty());
}

pub(crate) fn refused_forks_and_freezing_are_events(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH);
    job.apply(&Limits::new().pids(1), Enforcement::Strict).unwrap();
    let mut events = job.events().unwrap();
    let _shell = Waiting::in_cgroup(&job, "(sleep 60) & wait; sleep 60");
    wait_for(&mut events, |event| matches!(event, Event::PidsMax(_)));
    job.freeze(LONG).unwrap();
    if hierarchy.layout() != Layout::V1 {
        wait_for(&mut events, |event| *event == Event::Frozen(true));
    }
    job.thaw(LONG).unwrap();
    job.kill(LONG).unwrap();
    job.wait_until_empty(LONG).unwrap();
    job.close().unwrap();
}

/// One that is empty already: nothing in it changes any more.
pub(crate) fn the_end_of_a_cgroup_is_an_event(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH);
    let mut events = job.events().unwrap();
    assert!(events.tells_of_the_end());
    assert!(events.read().unwrap().is_empty() && !is_readable(&events));
    // Others come and go beside it and in it; whatever wakes us, nothing has happened and nothing stays to be read.
    for other in [hierarchy.create("other", BOTH).unwrap(), job.child("child").unwrap()] {
        other.delete().unwrap();
        assert!(events.read().unwrap().is_empty() && !is_readable(&events));
    }
    job.delete().unwrap();
    assert!(is_readable(&events));
    assert_eq!(events.read().unwrap(), [Event::Gone]);
    assert!(events.read().unwrap().is_empty() && !is_readable(&events));
    assert_eq!(kind(job.events()), ErrorKind::Gone);
}

/// With and without a watch, which not every user can have.
pub(crate) fn the_end_of_a_cgroup_ends_a_wait(hierarchy: &Hierarchy) {
    for controllers in [BOTH, Controllers::empty()] {
        for errno in [None, Some(libc::EMFILE)] {
            let job = make(hierarchy, controllers);
            let mut events = match errno {
                None => job.events().unwrap(),
                Some(errno) => {
                    let fault = Fault { who: Who::Parent, nth: 0, action: Action::Errno(errno) };
                    Watch::only(&[libc::SYS_inotify_init1]).inject(fault, || job.events().unwrap()).1
                }
            };
            assert_eq!(events.tells_of_the_end(), errno.is_none());
            let (send, answers) = mpsc::channel();
            let waiter = std::thread::spawn(move || {
                send.send(Err(fs::read_link("/proc/thread-self").unwrap())).unwrap();
                send.send(Ok(events.wait(Duration::MAX).unwrap())).unwrap();
            });
            let thread = answers.recv().unwrap().unwrap_err();
            let stat = Path::new("/proc").join(thread).join("stat");
            until("it waits", || fs::read_to_string(&stat).unwrap().contains(") S "));
            job.close().unwrap();
            let answer = answers.recv_timeout(LONG * cofferdam_testkit::patience());
            assert_eq!(answer, Ok(Ok(vec![Event::Gone])), "{controllers:?} {errno:?}");
            waiter.join().unwrap();
        }
    }
}

/// Where only the unified tree has something to offer.
pub(crate) fn pressure_wakes_a_waiter() {
    let hierarchy = crate::support::detect();
    assert!(hierarchy.capabilities().unwrap().pressure);
    let job = make(&hierarchy, Controllers::empty());
    let (stall, window) = (Duration::from_millis(10), Duration::from_secs(2));
    assert_eq!(kind(job.pressure_trigger(Resource::Cpu, Psi::Some, window, stall)), ErrorKind::InvalidInput);
    let trigger = job.pressure_trigger(Resource::Cpu, Psi::Some, stall, window).unwrap();
    let count = 2 * std::thread::available_parallelism().unwrap().get();
    let _loops: Vec<_> = (0..=count).map(|_| Waiting::in_cgroup(&job, "while :; do :; done")).collect();
    assert!(trigger.wait(LONG * cofferdam_testkit::patience()).unwrap());
    assert!(job.stats(cofferdam_cgroups::Select::CPU_PRESSURE).unwrap().cpu_pressure.unwrap().some.total >= stall);
    job.close().unwrap();
    assert_eq!(kind(trigger.wait(LONG)), ErrorKind::Gone);
}

/// Who goes beyond it is slowed down, not killed.
pub(crate) fn memory_beyond_high_is_an_event() {
    let job = make(&crate::support::detect(), BOTH | Controllers::MEMORY);
    job.apply(&Limits::new().memory_high(4 * MIB).swap(0), Enforcement::Strict).unwrap();
    let mut events = job.events().unwrap();
    assert!(events.read().unwrap().is_empty());
    let mut process = Waiting::in_cgroup(&job, "exec perl -e 'my $x = \"a\" x (16 << 20); sleep 60'");
    let seen = wait_for(&mut events, |event| matches!(event, Event::MemoryHigh(_)));
    assert!(!seen.iter().any(|event| matches!(event, Event::OomKill(_))), "{seen:?}");
    assert!(!process.has_ended());
    job.kill(LONG).unwrap();
    job.close().unwrap();
}

pub(crate) fn memory_is_reclaimed(hierarchy: &Hierarchy) {
    let job = make(hierarchy, BOTH | Controllers::MEMORY);
    let file = std::env::temp_dir().join("data");
    let script = format!("head -c 20000000 /dev/zero > {0}; cat {0} > /dev/null; sleep 60", file.display());
    let _process = Waiting::in_cgroup(&job, &script);
    let current = || job.memory_stats().unwrap().current;
    until("it has memory", || current() > 15 * MIB);
    if job.paths().any(|path| path.join("memory.max").exists()) {
        // How much there is to be had depends on what the temporary folder is.
        let before = current();
        let all = job.reclaim(4 * MIB).unwrap();
        assert!(!all || current() < before, "{before}");
        assert!(!job.reclaim(1 << 40).unwrap());
    } else {
        assert_eq!(kind(job.reclaim(MIB)), ErrorKind::Unsupported);
    }
    job.close().unwrap();
    let _ = fs::remove_file(file);
}
