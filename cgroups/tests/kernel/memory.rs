//! The conformance list, as far as it is about memory. What the kernel does differently on v1 and v2 is told in the
//! crate's documentation, and asserted here for either.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use cofferdam_cgroups::{
    Applied, Cgroup, Controllers, Enforcement, Error, ErrorKind, Guard, Hierarchy, Limits, Max, MemoryLimits,
};
use cofferdam_testkit::fault::{Action, Call, Fault, Who, inject, record};
use rustix::thread::CapabilitySet;

use crate::devices::without_right;
use crate::support::{BOTH, LONG, Waiting, kind, until};

const MIB: u64 = 1 << 20;
const SIGKILL: i32 = 9;
/// Takes memory until it is stopped: by the cgroup or, at about a gigabyte, by a limit of its own.
const ALLOCATOR: &str = "ulimit -v 1000000; exec tail /dev/zero 2>/dev/null";
/// Holds 40 MiB.
const HOLDER: &str = "exec perl -e 'my $n = 40 << 20; my $x = \"a\" x $n; sleep 60'";

fn make(hierarchy: &Hierarchy) -> Guard {
    hierarchy.create("job", BOTH | Controllers::MEMORY).unwrap().into_guard()
}

/// Whether memory is on v2.
fn on_v2(job: &Cgroup) -> bool {
    job.paths().any(|path| path.join("memory.max").exists())
}

fn in_force(job: &Cgroup) -> (Max<u64>, Max<u64>) {
    let MemoryLimits { max, swap, .. } = job.limits().unwrap().memory;
    (max.unwrap(), swap.unwrap())
}

fn both(memory: impl Into<Max<u64>>, swap: impl Into<Max<u64>>) -> Limits {
    Limits::new().memory(memory).swap(swap)
}

fn in_pages(bytes: u64) -> Max<u64> {
    let page = u64::try_from(rustix::param::page_size()).unwrap();
    Max::Limit(bytes / page * page)
}

/// Starts the holder and waits until it has its memory.
fn holding(job: &Cgroup) -> Waiting {
    let holder = Waiting::in_cgroup(job, HOLDER);
    until("the memory is in use", || job.memory_stats().unwrap().current > 40 * MIB);
    holder
}

pub(crate) fn an_allocator_is_killed_at_the_limit(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    // With swap to be had, memory's own limit is the one that is met first.
    for (kills, swap) in [(1, 8 * MIB), (2, 0)] {
        job.apply(&both(32 * MIB, swap), Enforcement::Strict).unwrap();
        let mut allocator = Waiting::in_cgroup(&job, ALLOCATOR);
        assert_eq!(allocator.ended().signal(), Some(SIGKILL));
        let stats = job.memory_stats().unwrap();
        assert_eq!(stats.max, Max::Limit(32 * MIB));
        assert_eq!(stats.events.oom_kill, Some(kills), "{stats:?}");
        assert!(stats.events.max.unwrap() > 0, "{stats:?}");
        assert!((16 * MIB..=32 * MIB).contains(&stats.peak.unwrap()), "{stats:?}");
        if on_v2(&job) {
            assert!(stats.events.oom.unwrap() >= kills && stats.events.high == Some(0), "{stats:?}");
        } else {
            assert_eq!((stats.events.oom, stats.events.high), (None, None));
        }
    }
    job.close().unwrap();
}

/// What the test above proves is the limit's doing.
pub(crate) fn without_a_limit_nothing_is_killed(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let mut allocator = Waiting::in_cgroup(&job, "ulimit -v 150000; exec tail /dev/zero 2>/dev/null");
    assert_eq!(allocator.ended().code(), Some(1));
    let stats = job.memory_stats().unwrap();
    assert_eq!((stats.max, stats.events.oom_kill, stats.events.max), (Max::Max, Some(0), Some(0)));
    assert!(stats.peak.unwrap() > 64 * MIB, "{stats:?}");
    job.close().unwrap();
}

pub(crate) fn memory_in_use_is_told(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    job.apply(&Limits::new().memory(200 * MIB), Enforcement::Strict).unwrap();
    assert!(job.memory_stats().unwrap().current < 10 * MIB);
    // Below it is counted as well.
    let child = job.child("child").unwrap();
    let holder = holding(&child);
    let stats = job.memory_stats().unwrap();
    assert!((30 * MIB..200 * MIB).contains(&stats.current), "{stats:?}");
    assert_eq!(stats.max, Max::Limit(200 * MIB));
    assert_eq!(stats.events.oom_kill, Some(0));
    assert_eq!(child.memory_stats().unwrap().max, Max::Max);
    drop(holder);
    until("the memory is given back", || job.memory_stats().unwrap().current < 30 * MIB);
    assert!(job.memory_stats().unwrap().peak.unwrap() > 40 * MIB);
    job.kill(LONG).unwrap();
    job.close().unwrap();
    assert_eq!(kind(child.memory_stats()), ErrorKind::Gone);
}

pub(crate) fn memory_limits_are_read_back(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    assert_eq!(in_force(&job), (Max::Max, Max::Max));
    job.apply(&Limits::new(), Enforcement::Strict).unwrap();
    assert_eq!(in_force(&job), (Max::Max, Max::Max));
    for (memory, swap) in [(64 * MIB, 16 * MIB), (MIB, 0), (0, 0), (0, MIB), (8_191, 8_191), (50_000_001, 3)] {
        job.apply(&both(memory, swap), Enforcement::Strict).unwrap();
        assert_eq!(in_force(&job), (in_pages(memory), in_pages(swap)));
    }
    // More than the kernel can count is no limit.
    job.apply(&both(u64::MAX, u64::MAX), Enforcement::Strict).unwrap();
    assert_eq!(in_force(&job), (Max::Max, Max::Max));
    // Together with other controllers, which are left alone otherwise.
    job.apply(&both(64 * MIB, 0).pids(7), Enforcement::Strict).unwrap();
    job.apply(&Limits::new().memory(32 * MIB), Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().pids, Some(Max::Limit(7)));
    assert_eq!(in_force(&job), (Max::Limit(32 * MIB), Max::Limit(0)));
    job.close().unwrap();
}

/// On v1 the sum must not be below memory at any time. What goes up and what goes down is different in each step.
pub(crate) fn memory_limits_change_in_any_order(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let values = [0, 4, 40, 64].map(|n| Max::Limit(n * MIB));
    let mut pairs: Vec<_> = values.iter().flat_map(|memory| values.map(|swap| (*memory, swap))).collect();
    pairs.push((Max::Limit(16 * MIB), Max::Max));
    pairs.push((Max::Max, Max::Max));
    for from in &pairs {
        for to in &pairs {
            for (memory, swap) in [from, to] {
                job.apply(&both(*memory, *swap), Enforcement::Strict).unwrap();
                assert_eq!(in_force(&job), (*memory, *swap));
            }
        }
    }
    // And each part alone.
    job.apply(&both(0, 0), Enforcement::Strict).unwrap();
    let mut expected = (Max::Limit(0), Max::Limit(0));
    for (memory, swap) in pairs.iter().filter(|(memory, _)| *memory != Max::Max) {
        job.apply(&Limits::new().memory(*memory), Enforcement::Strict).unwrap();
        expected.0 = *memory;
        assert_eq!(in_force(&job), expected);
        job.apply(&Limits::new().swap(*swap), Enforcement::Strict).unwrap();
        expected.1 = *swap;
        assert_eq!(in_force(&job), expected);
    }
    job.close().unwrap();
}

pub(crate) fn swap_without_a_limit_of_memory(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    for swap in [0, 8 * MIB] {
        let alone = Limits::new().pids(5).swap(swap);
        if on_v2(&job) {
            job.apply(&alone, Enforcement::Strict).unwrap();
            assert_eq!(in_force(&job), (Max::Max, Max::Limit(swap)));
        } else {
            assert_eq!(kind(job.apply(&alone, Enforcement::Strict)), ErrorKind::Unsupported);
            assert_eq!(kind(job.apply(&both(Max::Max, swap), Enforcement::Strict)), ErrorKind::Unsupported);
            assert_eq!(in_force(&job), (Max::Max, Max::Max));
            assert_eq!(job.limits().unwrap().pids, Some(Max::Max));
        }
    }
    // With the limit of memory in force it is the same on both, and memory alone leaves swap what it is.
    job.apply(&Limits::new().memory(32 * MIB), Enforcement::Strict).unwrap();
    job.apply(&Limits::new().swap(8 * MIB), Enforcement::Strict).unwrap();
    assert_eq!(in_force(&job), (Max::Limit(32 * MIB), Max::Limit(8 * MIB)));
    for memory in [64 * MIB, 16 * MIB] {
        job.apply(&Limits::new().memory(memory), Enforcement::Strict).unwrap();
        assert_eq!(in_force(&job), (Max::Limit(memory), Max::Limit(8 * MIB)));
    }
    job.apply(&Limits::new().memory(Max::Max), Enforcement::Strict).unwrap();
    let swap = if on_v2(&job) { Max::Limit(8 * MIB) } else { Max::Max };
    assert_eq!(in_force(&job), (Max::Max, swap));
    job.close().unwrap();
}

/// Sets limits while one of the calls of that name fails.
fn apply_with(job: &Cgroup, limits: &Limits, name: &str, nth: usize, errno: i32) -> Result<Applied, Error> {
    job.apply(&both(Max::Max, Max::Max), Enforcement::Strict).unwrap();
    let (calls, _) = record(|| job.apply(limits, Enforcement::Strict));
    job.apply(&both(Max::Max, Max::Max), Enforcement::Strict).unwrap();
    let mut named = calls.iter().enumerate().filter(|(_, call)| call.name() == name);
    let (nth, _) = named.nth(nth).unwrap();
    let (calls, result) = inject(Fault { who: Who::Parent, nth, action: Action::Errno(errno) }, || {
        job.apply(limits, Enforcement::Strict)
    });
    assert_eq!(calls[nth].name(), name);
    assert!(calls[nth].fault.is_some());
    result
}

/// A kernel without the file, as far as one can have it: the opening of the file fails.
pub(crate) fn swap_that_is_not_counted(hierarchy: &Hierarchy) {
    const ENOENT: i32 = 2;
    let job = make(hierarchy);
    // Which opening: v2 writes swap first; v1 reads the limits in force before it writes, memory first.
    let met = usize::from(!on_v2(&job));
    for swap in [Max::Limit(0), Max::Max] {
        apply_with(&job, &both(32 * MIB, swap), "openat2", met, ENOENT).unwrap();
        assert_eq!(in_force(&job), (Max::Limit(32 * MIB), Max::Max));
    }
    // v1 would open the sum's file once more to write to it, which is there: that case is one of the policy's tests.
    if on_v2(&job) {
        let error = apply_with(&job, &both(32 * MIB, 8 * MIB), "openat2", met, ENOENT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ControllerUnavailable, "{error}");
        assert!(error.path().ends_with("memory.swap.max"), "{error}");
        assert!(error.to_string().contains("does not count swap"), "{error}");
        assert_eq!(in_force(&job), (Max::Max, Max::Max));
    }
    job.close().unwrap();
}

pub(crate) fn refused_limits_of_memory_change_nothing(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    job.apply(&both(64 * MIB, 8 * MIB), Enforcement::Strict).unwrap();
    let before = job.limits().unwrap();
    let too_many = both(MIB, 0).pids(4_194_305);
    assert_eq!(kind(job.apply(&too_many, Enforcement::Strict)), ErrorKind::InvalidInput);
    assert_eq!(job.limits().unwrap(), before);
    job.close().unwrap();

    let without = hierarchy.create("job", BOTH).unwrap().into_guard();
    assert_eq!(without.controllers(), BOTH | Controllers::FREEZER);
    for limits in [Limits::new().memory(MIB), Limits::new().swap(0)] {
        assert_eq!(kind(without.apply(&limits.pids(5), Enforcement::Strict)), ErrorKind::ControllerUnavailable);
    }
    let found = without.limits().unwrap();
    assert_eq!((found.pids, found.memory), (Some(Max::Max), MemoryLimits::default()));
    assert_eq!(kind(without.memory_stats()), ErrorKind::ControllerUnavailable);
    without.close().unwrap();
}

/// v1 refuses, and says how much is in use; v2 makes it so.
pub(crate) fn a_limit_below_what_is_in_use(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    job.apply(&both(200 * MIB, 0), Enforcement::Strict).unwrap();
    let mut holder = holding(&job);
    let result = job.apply(&Limits::new().memory(8 * MIB), Enforcement::Strict);
    if on_v2(&job) {
        result.unwrap();
        assert_eq!(holder.ended().signal(), Some(SIGKILL));
        assert_eq!(job.memory_stats().unwrap().events.oom_kill, Some(1));
        assert_eq!(in_force(&job), (Max::Limit(8 * MIB), Max::Limit(0)));
    } else {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert_eq!(error.raw_os_error(), Some(16), "{error}");
        let text = error.to_string();
        let (_, note) = text.split_once("; ").unwrap();
        let (usage, rest) = note.split_once(' ').unwrap();
        assert_eq!(rest, "bytes are in use and could not be reclaimed");
        assert!((30 * MIB..200 * MIB).contains(&usage.parse().unwrap()), "{text}");
        assert_eq!(in_force(&job), (Max::Limit(200 * MIB), Max::Limit(0)));
        assert!(!holder.has_ended());
    }
    job.close().unwrap();
}

/// The error is typed and says which file, no limit is other than before or wanted, and the next try succeeds.
pub(crate) fn every_call_of_a_memory_limit_can_fail(hierarchy: &Hierarchy) {
    const EIO: i32 = 5;
    let job = make(hierarchy);
    let wanted = both(32 * MIB, 8 * MIB);
    let (calls, result) = record(|| job.apply(&wanted, Enforcement::Strict));
    result.unwrap();
    let count = |name| calls.iter().filter(|call: &&Call| call.name() == name).count();
    let expected = if on_v2(&job) { (2, 0, 2) } else { (2, 2, 2) };
    assert_eq!((count("openat2"), count("read"), count("write")), expected, "{calls:?}");
    for name in ["openat2", "read", "write"] {
        for nth in 0..count(name) {
            let error = apply_with(&job, &wanted, name, nth, EIO).unwrap_err();
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Os, Some(EIO)), "{error}");
            assert!(error.path().file_name().unwrap().to_str().unwrap().starts_with("memory."), "{error}");
            let (memory, swap) = in_force(&job);
            assert!([Max::Max, Max::Limit(32 * MIB)].contains(&memory));
            assert!([Max::Max, Max::Limit(8 * MIB)].contains(&swap));
            job.apply(&wanted, Enforcement::Strict).unwrap();
            assert_eq!(in_force(&job), (Max::Limit(32 * MIB), Max::Limit(8 * MIB)));
        }
    }
    job.close().unwrap();
}

/// On v2 each reader has its own, since Linux 6.12; on v1 there is one for all.
pub(crate) fn a_peak_is_reset(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::MEMORY).unwrap().into_guard();
    let (first, second) = (job.memory_peak().unwrap(), job.memory_peak().unwrap());
    let mut process = Waiting::in_cgroup(&job, "exec perl -e 'my $x = \"a\" x (20 << 20)'");
    assert!(process.ended().success());
    until("the memory is free", || job.memory_stats().unwrap().current < 10 * MIB);
    assert!(first.read().unwrap() > 20 * MIB && second.read().unwrap() > 20 * MIB);
    let is_v1 = job.paths().any(|path| path.join("memory.limit_in_bytes").exists());
    first.reset().unwrap();
    assert!(first.read().unwrap() < 20 * MIB);
    assert_eq!(second.read().unwrap() < 20 * MIB, is_v1);
    assert_eq!(job.memory_stats().unwrap().peak.unwrap() < 20 * MIB, is_v1);
    if is_v1 {
        assert_eq!(kind(job.swap_peak()), ErrorKind::Unsupported);
    }
    job.close().unwrap();
    assert_eq!(kind(first.read()), ErrorKind::Gone);
    assert_eq!(kind(job.memory_peak()), ErrorKind::Gone);
}

/// Who may only read the file learns the peak, and does not reset it.
pub(crate) fn a_peak_that_may_only_be_read_is_read(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::MEMORY).unwrap().into_guard();
    let files = ["memory.peak", "memory.max_usage_in_bytes"];
    let file = job.paths().flat_map(|path| files.map(|file| path.join(file))).find(|file| file.exists()).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o444)).unwrap();
    without_right(CapabilitySet::DAC_OVERRIDE, || {
        let peak = job.memory_peak().unwrap();
        peak.read().unwrap();
        assert_eq!(kind(peak.reset()), ErrorKind::Unsupported);
        peak.read().unwrap();
    });
    job.close().unwrap();
}
