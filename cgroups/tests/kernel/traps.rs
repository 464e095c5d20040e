//! What the kernel does that others have stumbled over, as far as no other test shows it: `traps.md` has the list.

#![allow(unsafe_code, reason = "memory is mapped to see whether the kernel grants it")]

use std::fs;
use std::time::Duration;

use cofferdam_cgroups::{
    Cgroup, Controllers, CpuLimits, Enforcement, ErrorKind, Hierarchy, IdList, Limits, Max, PageSize, Select,
};
use cofferdam_testkit::fault::{Action, Call, Fault, Who, inject, record};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::support::{BOTH, LONG, Waiting, detect, kind};

const EIO: i32 = 5;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const EOPNOTSUPP: i32 = 95;

fn at(calls: &[Call], name: &str) -> Vec<usize> {
    (0..calls.len()).filter(|nth| calls[*nth].name() == name).collect()
}

fn failing<T: Send>(nth: usize, errno: i32, f: impl FnOnce() -> T + Send) -> T {
    inject(Fault { who: Who::Parent, nth, action: Action::Errno(errno) }, f).1
}

/// EINVAL may mean that a process is still being made; anything else is told at once.
pub(crate) fn a_process_that_is_still_being_made_is_tried_again(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let process = Waiting::new("exit");
    let (calls, attached) = record(|| job.attach(process.pid()));
    attached.unwrap();
    let writes = at(&calls, "write");
    assert_eq!(writes.len(), job.paths().count());
    for nth in writes {
        let process = Waiting::new("exit");
        failing(nth, EINVAL, || job.attach(process.pid())).unwrap();
        assert!(job.processes().unwrap().contains(&process.pid()));
        let process = Waiting::new("exit");
        let error = failing(nth, EIO, || job.attach(process.pid())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO));
    }
    drop(process);
    job.close().unwrap();
}

pub(crate) fn a_failed_freeze_leaves_nothing_frozen(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    // The first time there is more to do: memory.
    let mut recorded = Vec::new();
    for _ in 0..2 {
        let (calls, frozen) = record(|| job.freeze(LONG));
        frozen.unwrap();
        recorded = calls;
        job.thaw(LONG).unwrap();
    }
    let calls = recorded;
    let write = at(&calls, "write")[0];
    let after = (write + 1..calls.len()).filter(|nth| !matches!(calls[*nth].name(), "close" | "fcntl"));
    for nth in after {
        let error = failing(nth, EIO, || job.freeze(LONG)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
        assert!(!job.is_frozen().unwrap());
        // What was frozen before stays so.
        job.freeze(LONG).unwrap();
        let _ = failing(nth, EIO, || job.freeze(LONG));
        assert!(job.is_frozen().unwrap());
        job.thaw(LONG).unwrap();
    }
    job.close().unwrap();
}

/// A mount that is read-only says so of every name: what is there cannot be deleted, what is not has been.
pub(crate) fn a_read_only_tree_is_no_reason_for_what_is_gone(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    let (calls, deleted) = record(|| job.delete());
    deleted.unwrap();
    let nth = at(&calls, "unlinkat")[0];
    let job = hierarchy.create("job", BOTH).unwrap();
    let error = failing(nth, EROFS, || job.delete()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    job.delete().unwrap();
}

/// PSI that is switched off has files that cannot be opened, or read; the others are read all the same.
pub(crate) fn statistics_do_without_pressure() {
    let job = detect().create("job", Controllers::empty()).unwrap().into_guard();
    let select = Select::CPU | Select::CPU_PRESSURE;
    let (calls, stats) = record(|| job.stats(select));
    assert!(stats.unwrap().cpu.is_some());
    for name in ["openat2", "pread64"] {
        // The last one is that of the pressure, where there is one.
        let nth = *at(&calls, name).last().unwrap();
        let stats = failing(nth, EOPNOTSUPP, || job.stats(select)).unwrap();
        assert!(stats.cpu_pressure.is_none());
    }
    job.close().unwrap();
}

/// Since Linux 6.2 a process keeps what it asked for, wherever it is moved.
pub(crate) fn an_affinity_is_reset_if_asked_for(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::CPUSET).unwrap().into_guard();
    let process = Waiting::new("exec sleep 60");
    let all = allowed(process.pid());
    let first = IdList::new(all.iter().take(1)).unwrap();
    let mut set = CpuSet::new();
    first.iter().for_each(|cpu| set.set(usize::try_from(cpu).unwrap()));
    sched_setaffinity(Pid::from_raw(process.pid().cast_signed()), &set).unwrap();
    assert_eq!(kind(job.reset_affinity(process.pid())), ErrorKind::InvalidInput);
    job.attach(process.pid()).unwrap();
    job.reset_affinity(process.pid()).unwrap();
    assert_eq!(allowed(process.pid()), all);
    // Never beyond the cpuset.
    job.apply(&Limits::new().cpus(first.clone()), Enforcement::Strict).unwrap();
    job.reset_affinity(process.pid()).unwrap();
    assert_eq!(allowed(process.pid()), first);
    drop(process);
    job.close().unwrap();
}

fn allowed(pid: u32) -> IdList {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().parse().unwrap()
}

/// Whether the kernel grants that many bytes in huge pages. They are not touched.
fn maps_huge(bytes: u64) -> bool {
    let (size, protection) = (usize::try_from(bytes).unwrap(), ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: anonymous memory at a place of the kernel's choice.
    let mapped =
        unsafe { mmap_anonymous(std::ptr::null_mut(), size, protection, MapFlags::PRIVATE | MapFlags::HUGETLB) };
    mapped.is_ok_and(|at| {
        // SAFETY: it was mapped just now, and nothing refers to it.
        unsafe { munmap(at, size) }.is_ok()
    })
}

/// The machine's huge pages. There are as many as before when this is dropped.
struct Pool(String);

impl Pool {
    const FILE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn of(pages: u32) -> Self {
        let before = fs::read_to_string(Self::FILE).unwrap();
        fs::write(Self::FILE, pages.to_string()).unwrap();
        Pool(before)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.0);
    }
}

/// Without a limit of reservations a mapping beyond the limit is granted, and SIGBUS comes when it is touched.
pub(crate) fn huge_pages_are_refused_when_they_are_mapped(hierarchy: &Hierarchy) {
    const SIZE: u64 = 2 << 20;
    let _pool = Pool::of(8);
    let own = hierarchy.own(Controllers::HUGETLB).unwrap();
    let job = hierarchy.create("job", Controllers::HUGETLB).unwrap().into_guard();
    let mapped = |limits: &Limits, bytes| {
        job.apply(limits, Enforcement::Strict).unwrap();
        job.attach(std::process::id()).unwrap();
        let mapped = maps_huge(bytes);
        own.attach(std::process::id()).unwrap();
        mapped
    };
    let size = PageSize::new(SIZE).unwrap();
    assert!(mapped(&Limits::new(), 4 * SIZE));
    assert!(!mapped(&Limits::new().hugetlb(size, 2 * SIZE), 4 * SIZE));
    assert!(mapped(&Limits::new(), 2 * SIZE));
    assert_eq!(job.limits().unwrap().hugetlb[&size], Max::Limit(2 * SIZE));
    // The defence off: only the pages are limited.
    let mut pages = Limits::new().hugetlb(size, Max::Max);
    let is_v1 = job.paths().any(|path| path.join("hugetlb.2MB.limit_in_bytes").exists());
    let file = if is_v1 { "hugetlb.2MB.limit_in_bytes" } else { "hugetlb.2MB.max" };
    pages.files.insert(file.to_owned(), (2 * SIZE).to_string());
    assert!(mapped(&pages, 4 * SIZE));
    job.close().unwrap();
}

pub(crate) fn the_root_of_v2_does_not_tell_of_memory() {
    let root = detect().root(Controllers::MEMORY).unwrap();
    assert_eq!(kind(root.memory_stats()), ErrorKind::ControllerUnavailable);
    assert_eq!(root.limits().unwrap().memory.max, None);
    // All that it does tell is there at once.
    assert!(root.stats(Select::all()).unwrap().cpu.is_some());
}

/// The kernel's file asks whether to *disable* it.
pub(crate) fn the_oom_killer_is_disabled_only_if_asked_for(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", Controllers::MEMORY).unwrap().into_guard();
    let path = job.paths().find(|path| path.join("memory.oom_control").exists()).unwrap();
    for killer in [false, true] {
        let mut limits = Limits::new();
        limits.memory.oom_killer = Some(killer);
        job.apply(&limits, Enforcement::Strict).unwrap();
        let text = fs::read_to_string(path.join("memory.oom_control")).unwrap();
        assert!(text.starts_with(&format!("oom_kill_disable {}\n", u8::from(!killer))), "{text}");
    }
    job.close().unwrap();
}

fn realtime(job: &Cgroup, runtime_ms: u64, period_ms: u64) -> Result<CpuLimits, cofferdam_cgroups::Error> {
    let mut limits = Limits::new();
    limits.cpu.realtime_runtime = Some(Max::Limit(Duration::from_millis(runtime_ms)));
    limits.cpu.realtime_period = Some(Duration::from_millis(period_ms));
    job.apply(&limits, Enforcement::Strict)?;
    Ok(job.limits()?.cpu)
}

/// As the quota: each of both is checked when it is written.
pub(crate) fn real_time_changes_in_any_order_below_a_limited_parent(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let own = hierarchy.own(BOTH).unwrap();
    // One's own has none to begin with, and what is below it cannot have more.
    assert_eq!(realtime(&job, 10, 1000).unwrap_err().raw_os_error(), Some(EINVAL));
    realtime(&own, 100, 1000).unwrap();
    for (runtime, period) in [(90, 1000), (9, 100), (1, 20), (190, 2000), (0, 1000)] {
        let found = realtime(&job, runtime, period).unwrap();
        assert_eq!(found.realtime_runtime, Some(Max::Limit(Duration::from_millis(runtime))));
        assert_eq!(found.realtime_period, Some(Duration::from_millis(period)));
    }
    assert_eq!(realtime(&job, 200, 1000).unwrap_err().raw_os_error(), Some(EINVAL));
    assert_eq!(job.limits().unwrap().cpu.realtime_runtime, Some(Max::Limit(Duration::ZERO)));
    realtime(&own, 0, 1000).unwrap();
    job.close().unwrap();
}
