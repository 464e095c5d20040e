//! What once went wrong, or would be easy to get wrong.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use cofferdam_cgroups::{Controllers, CpuPeriod, CpuQuota, Enforcement, ErrorKind, Hierarchy, Layout, Limits, Max};
use cofferdam_testkit::fault::{Action, Fault, Who, inject, record};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{BOTH, LONG, Waiting, detect, is_gone, kind, paths, until, v1_only};

const EIO: i32 = 5;

fn bandwidth(quota_ms: u64, period_ms: u64) -> Limits {
    Limits::new()
        .cpu_quota(CpuQuota::time(Duration::from_millis(quota_ms)).unwrap())
        .cpu_period(CpuPeriod::new(Duration::from_millis(period_ms)).unwrap())
}

/// Each system call fails once; after that, closing succeeds, and nothing is left.
pub(crate) fn a_guard_can_be_closed_again(hierarchy: &Hierarchy) {
    let make = || {
        let job = hierarchy.create("job", BOTH).unwrap().into_guard();
        let process = Waiting::in_cgroup(&job, "exec sleep 60");
        (job, process)
    };
    let (job, _process) = make();
    let (calls, result) = record(|| job.close());
    result.unwrap();
    // What comes after is waiting, of any length.
    let until = calls.iter().position(|call| call.name() == "pread64").map_or(12, |at| at + 1);
    for nth in (0..until).filter(|nth| calls[*nth].name() != "close").take(3) {
        let (job, mut process) = make();
        let paths = paths(&job);
        let (_, first) = inject(Fault { who: Who::Parent, nth, action: Action::Errno(EIO) }, || job.close());
        if let Err(error) = first {
            assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
        }
        job.close().unwrap();
        assert!(is_gone(&paths));
        process.ended();
    }
}

/// v1 takes quota and period one after the other, and refuses either if the share is beyond that of the cgroup above.
pub(crate) fn a_refused_quota_changes_nothing(hierarchy: &Hierarchy) {
    let parent = hierarchy.create("job", BOTH).unwrap().into_guard();
    let child = parent.child("child").unwrap();
    parent.apply(&bandwidth(50, 100), Enforcement::Strict).unwrap();
    child.apply(&bandwidth(20, 100), Enforcement::Strict).unwrap();
    for (quota, period) in [(9, 10), (90, 100), (600, 1000), (100, 100)] {
        let result = child.apply(&bandwidth(quota, period), Enforcement::Strict);
        let found = child.limits().unwrap().cpu;
        if hierarchy.layout() == Layout::V2 {
            result.unwrap();
            assert_eq!(found, bandwidth_with(&found, quota, period));
        } else {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(22));
            assert_eq!(found, bandwidth_with(&found, 20, 100));
        }
    }
    // A burst beyond the quota is refused, and so is a quota below the burst; together they may change places.
    for (quota, burst) in [(20, 10), (40, 30), (5, 4)] {
        let mut limits = bandwidth(quota, 100);
        limits.cpu.burst = Some(Duration::from_millis(burst));
        child.apply(&limits, Enforcement::Strict).unwrap();
        assert_eq!(child.limits().unwrap().cpu.burst, limits.cpu.burst);
    }
    let before = child.limits().unwrap();
    let mut limits = bandwidth(10, 50);
    limits.cpu.burst = Some(Duration::from_millis(11));
    assert_eq!(child.apply(&limits, Enforcement::Strict).unwrap_err().raw_os_error(), Some(22));
    assert_eq!(child.limits().unwrap(), before);
    parent.close().unwrap();
}

fn bandwidth_with(found: &cofferdam_cgroups::CpuLimits, quota_ms: u64, period_ms: u64) -> cofferdam_cgroups::CpuLimits {
    let mut expected = found.clone();
    let wanted = bandwidth(quota_ms, period_ms).cpu;
    (expected.quota, expected.period) = (wanted.quota, wanted.period);
    expected
}

pub(crate) fn best_effort_tells_what_was_skipped(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", Controllers::PIDS).unwrap().into_guard();
    // No controller of memory and CPU here.
    let limits = bandwidth(10, 100).pids(7).memory(1 << 20);
    assert_eq!(kind(job.apply(&limits, Enforcement::Strict)), ErrorKind::ControllerUnavailable);
    assert_eq!(job.limits().unwrap().pids, Some(Max::Max));
    let applied = job.apply(&limits, Enforcement::BestEffort).unwrap();
    let [written] = &applied.written[..] else { panic!("{applied:?}") };
    assert!(written.path.ends_with("job/pids.max"));
    assert_eq!(written.text, "7");
    let kinds: Vec<_> = applied.skipped.iter().map(cofferdam_cgroups::Error::kind).collect();
    assert_eq!(kinds, [ErrorKind::ControllerUnavailable; 2]);
    assert_eq!(job.limits().unwrap().pids, Some(Max::Limit(7)));
    // What is not acceptable is never skipped.
    let too_many = Limits::new().pids(4_194_305);
    assert_eq!(kind(job.apply(&too_many, Enforcement::BestEffort)), ErrorKind::InvalidInput);
    job.close().unwrap();

    // What only the other version has.
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let mut limits = Limits::new();
    limits.cpu.realtime_runtime = Some(Max::Limit(Duration::ZERO));
    limits.files.insert("cpu.no_such_file".to_owned(), "1".to_owned());
    let expected =
        if hierarchy.layout() == Layout::V2 { ErrorKind::Unsupported } else { ErrorKind::ControllerUnavailable };
    assert_eq!(kind(job.apply(&limits, Enforcement::Strict)), expected);
    let applied = job.apply(&limits, Enforcement::BestEffort).unwrap();
    assert_eq!(applied.written.len() + applied.skipped.len(), 2, "{applied:?}");
    assert!(applied.skipped.iter().any(|error| error.path().ends_with("cpu.no_such_file")), "{applied:?}");
    job.close().unwrap();
}

pub(crate) fn what_a_caller_names_stays_in_the_cgroup(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let victim = std::env::temp_dir().join("victim");
    fs::write(&victim, "mine").unwrap();
    let absolute = victim.to_str().unwrap();
    for bad in [absolute, "../pids.max", "pids.max/../../x", "cgroup.procs", "cgroup.kill", "tasks", "", "pids"] {
        let mut limits = Limits::new().pids(3);
        limits.files.insert(bad.to_owned(), "1".to_owned());
        for how in [Enforcement::Strict, Enforcement::BestEffort] {
            assert_eq!(kind(job.apply(&limits, how)), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(job.limits().unwrap().pids, Some(Max::Max));
    let mut limits = Limits::new();
    limits.files.insert("pids.max".to_owned(), "5".to_owned());
    job.apply(&limits, Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().pids, Some(Max::Limit(5)));
    fs::remove_file(victim).unwrap();
    job.close().unwrap();
}

/// Each process is signalled through a descriptor, and there are more of them than descriptors: however many are to be had, some must be left
/// to look at the cgroup again.
pub(crate) fn kills_many_with_few_descriptors() {
    let hierarchy = v1_only();
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    for free in 4..=14 {
        let mut shell = Waiting::in_cgroup(&job, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; wait");
        until("all of them run", || job.pids_stats().unwrap().current == 13);
        let killed = with_free_descriptors(free, || job.kill(LONG));
        assert!(killed.is_ok(), "with {free}: {killed:?}");
        shell.ended();
    }
    job.close().unwrap();
}

/// So many descriptors and no more are to be had meanwhile, whatever this process has inherited.
fn with_free_descriptors<T>(count: usize, run: impl FnOnce() -> T) -> T {
    let before = getrlimit(Resource::Nofile);
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let highest: u64 = open.map(|name| name.to_str().unwrap().parse().unwrap()).max().unwrap();
    let limit = highest + u64::try_from(count).unwrap() + 1;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum }).unwrap();
    let first = fs::File::open("/dev/null").unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| first.try_clone().ok()).collect();
    taken.truncate(taken.len() - count);
    let result = run();
    setrlimit(Resource::Nofile, before).unwrap();
    result
}

pub(crate) fn kill_reaches_who_is_in_one_tree_only() {
    let job = detect().create("job", BOTH).unwrap().into_guard();
    let mut process = Waiting::new("exec sleep 60");
    let first = job.paths().next().unwrap().join("cgroup.procs");
    fs::write(first, process.pid().to_string()).unwrap();
    process.go();
    assert!(job.processes().unwrap().is_empty());
    job.kill(LONG).unwrap();
    process.ended();
    job.close().unwrap();
}

pub(crate) fn a_hybrid_does_without_its_unified_tree() {
    // It is mounted, but where it cannot be found.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let moved = |line: &str| {
        let mut fields: Vec<_> = line.split(' ').collect();
        if line.contains(" - cgroup2 ") {
            fields[4] = "/nowhere/at/all";
        }
        fields.join(" ") + "\n"
    };
    let mounts: String = mounts.lines().map(moved).collect();
    let hierarchy = Hierarchy::from_proc(mounts.as_bytes(), &fs::read("/proc/self/cgroup").unwrap()).unwrap();
    assert_eq!(hierarchy.layout(), Layout::Hybrid);
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let mut process = Waiting::in_cgroup(&job, "exec sleep 60");
    job.kill(LONG).unwrap();
    process.ended();
    job.close().unwrap();
}

pub(crate) fn a_renamed_cgroup_is_not_taken_for_deleted() {
    let hierarchy = v1_only();
    let job = hierarchy.create("job", Controllers::PIDS).unwrap();
    let path = paths(&job).into_iter().find(|path| path.join("pids.max").exists()).unwrap();
    let other = path.with_file_name("renamed");
    fs::rename(&path, &other).unwrap();
    // What is made below is made there.
    drop(job.child("child").unwrap());
    assert!(other.join("child").exists());
    fs::remove_dir(other.join("child")).unwrap();
    assert_eq!(kind(job.delete()), ErrorKind::Gone);
    assert!(other.exists());
    fs::rename(&other, &path).unwrap();
    job.delete().unwrap();
    assert!(!path.exists());
}

pub(crate) fn an_empty_cpuset_above_is_filled() {
    let hierarchy = v1_only();
    let own = hierarchy.own(Controllers::CPUSET).unwrap();
    let top = own.paths().find(|path| path.join("cpuset.cpus").exists()).unwrap();
    for dir in ["a", "a/b"] {
        fs::create_dir(top.join(dir)).unwrap();
    }
    let read = |dir: &str, file: &str| fs::read_to_string(top.join(dir).join(file)).unwrap().trim().to_owned();
    fs::write(top.join("a/cpuset.mems"), "0").unwrap();
    fs::write(top.join("a/cpuset.cpus"), "").unwrap();
    // The freezer's tree has it too.
    let freezer = own.paths().find(|path| path.join("freezer.state").exists() || !path.starts_with(top));
    let freezer = freezer.unwrap().to_owned();
    fs::create_dir_all(freezer.join("a/b")).unwrap();
    let b = own.open_child("a").unwrap().open_child("b").unwrap();
    let job = b.child("job").unwrap();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        for dir in ["a", "a/b", "a/b/job"] {
            assert!(!read(dir, file).is_empty(), "{dir} {file}");
        }
    }
    assert_eq!(read("a", "cpuset.mems"), "0");
    drop(Waiting::in_cgroup(&job, "exit"));
    own.open_child("a").unwrap().delete().unwrap();
}

/// What the program does that this test starts.
pub(crate) fn waiting_threads() {
    let thread = std::thread::spawn(|| std::thread::sleep(Duration::from_secs(600)));
    drop(thread.join());
}

/// The process is in the domain, one of its threads in a threaded cgroup below.
pub(crate) fn threads_of_others_cannot_be_killed() {
    let job = detect().create("job", Controllers::empty()).unwrap().into_guard();
    let threaded = job.child("threaded").unwrap();
    let path = threaded.paths().last().unwrap().to_owned();
    fs::write(path.join("cgroup.type"), "threaded").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut program = command.arg(crate::WAITING_THREADS).stdin(Stdio::null()).spawn().unwrap();
    job.attach(program.id()).unwrap();
    let tasks = format!("/proc/{}/task", program.id());
    let threads = || -> Vec<u32> {
        let entries = fs::read_dir(&tasks).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    };
    until("there are two threads", || threads().len() == 2);
    let second = threads().into_iter().find(|tid| *tid != program.id()).unwrap();
    fs::write(path.join("cgroup.threads"), second.to_string()).unwrap();
    let error = threaded.kill(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("domain"), "{error}");
    assert!(program.try_wait().unwrap().is_none());
    job.kill(LONG).unwrap();
    program.wait().unwrap();
    job.close().unwrap();
}

pub(crate) fn who_cannot_enter_is_told_why() {
    let hierarchy = detect();
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let child = job.child("child").unwrap();
    let process = Waiting::new("exit");
    let error = job.attach(process.pid()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Occupied, "{error}");
    assert!(error.to_string().contains("no processes itself"), "{error}");
    child.attach(process.pid()).unwrap();
    drop(process);
    job.close().unwrap();
}
