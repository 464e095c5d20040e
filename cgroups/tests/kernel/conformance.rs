//! The conformance list: the same calls, the same observable results, whatever the layout.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cofferdam_cgroups::{
    Cgroup, Controllers, CpuPeriod, CpuQuota, CpuWeight, Enforcement, ErrorKind, Hierarchy, Layout, Limits, Max,
};

use rustix::fs::{Mode, OFlags};

use crate::support::{BOTH, LONG, Waiting, directories, is_gone, kind, paths, until, without};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn quota(n: u64) -> CpuQuota {
    CpuQuota::time(ms(n)).unwrap()
}

fn period(n: u64) -> CpuPeriod {
    CpuPeriod::new(ms(n)).unwrap()
}

pub(crate) fn made_where_it_belongs(hierarchy: &Hierarchy) {
    let own = hierarchy.own(BOTH).unwrap();
    let job = hierarchy.create("job", BOTH).unwrap();
    assert_eq!(own.paths().count(), job.paths().count());
    for (own, job) in own.paths().zip(job.paths()) {
        assert!(job.is_dir());
        let parent = match hierarchy.layout() {
            Layout::V2 if own.join("cgroup.type").exists() => own.parent().unwrap(),
            _ => own,
        };
        assert_eq!(job, parent.join("job"));
    }
    assert_eq!(job.controllers(), BOTH | Controllers::FREEZER);
    assert_eq!(kind(hierarchy.create("job", BOTH)), ErrorKind::AlreadyExists);
    let again = hierarchy.open("job", BOTH).unwrap();
    assert_eq!(paths(&again), paths(&job));
    job.delete().unwrap();
}

pub(crate) fn deleting_is_idempotent(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    let paths = paths(&job);
    job.delete().unwrap();
    assert!(is_gone(&paths));
    job.delete().unwrap();
    job.kill(LONG).unwrap();
    assert_eq!(kind(hierarchy.open("job", BOTH)), ErrorKind::Gone);
    assert_eq!(kind(job.cpu_stats()), ErrorKind::Gone);
    assert_eq!(kind(job.pids_stats()), ErrorKind::Gone);
    assert_eq!(kind(job.limits()), ErrorKind::Gone);
    assert_eq!(kind(job.processes()), ErrorKind::Gone);
    assert_eq!(kind(job.apply(&Limits::new().pids(5), Enforcement::Strict)), ErrorKind::Gone);
    assert_eq!(kind(job.attach(std::process::id())), ErrorKind::Gone);
    assert_eq!(kind(job.child("x")), ErrorKind::Gone);
}

pub(crate) fn bad_names_change_nothing(hierarchy: &Hierarchy) {
    let own = hierarchy.own(BOTH).unwrap();
    // Other tests' own cgroups may come and go beside ours.
    let around = |path: &Path| {
        let mut found = directories(path);
        found.extend(directories(path.parent().unwrap()));
        found.retain(|found| {
            let name = found.file_name().unwrap().to_string_lossy();
            !name.starts_with("cofferdam-test-")
        });
        found
    };
    let look = || own.paths().map(around).collect::<Vec<_>>();
    let before = look();
    let long = "x".repeat(256);
    for bad in ["", ".", "..", "/", "/tmp/x", "a/b", "../x", "x/", "x\0", "x\ny", &long] {
        let results = [hierarchy.create(bad, BOTH), hierarchy.open(bad, BOTH), own.child(bad), own.open_child(bad)];
        for result in results {
            assert_eq!(kind(result), ErrorKind::InvalidInput, "{bad:?}");
        }
    }
    assert_eq!(look(), before);
}

pub(crate) fn nothing_is_left_of_a_failed_creation(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    let paths = paths(&job);
    job.delete().unwrap();
    // Someone has that name in the last tree already.
    let (last, others) = paths.split_last().unwrap();
    fs::create_dir(last).unwrap();
    let result = hierarchy.create("job", BOTH);
    let others_gone = is_gone(others);
    let last_there = last.exists();
    fs::remove_dir(last).unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(error.path(), last);
    assert!(others_gone && last_there);
}

pub(crate) fn attached_processes_are_in_every_tree(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let process = Waiting::new("exit");
    job.attach(process.pid()).unwrap();
    assert_eq!(job.processes().unwrap(), [process.pid()]);
    for path in job.paths() {
        let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap();
        assert_eq!(listed.trim(), process.pid().to_string(), "{}", path.display());
    }
    let pid = process.pid();
    drop(process);
    assert_eq!(kind(job.attach(pid)), ErrorKind::NoProcess);
    for bad in [0, u32::MAX] {
        assert_eq!(kind(job.attach(bad)), ErrorKind::InvalidInput);
    }
    job.close().unwrap();
}

/// A shell is given the entries as its standard descriptors, which is room for three.
pub(crate) fn entry_is_a_way_in(hierarchy: &Hierarchy) {
    for controllers in [Controllers::CPU, Controllers::PIDS] {
        let job = hierarchy.create("job", controllers).unwrap().into_guard();
        let entries = job.entry().unwrap();
        assert_eq!(entries.len(), job.paths().count());
        let mut files = Vec::new();
        for (entry, path) in entries.into_iter().zip(job.paths()) {
            let entry = fs::File::from(entry);
            let found = entry.metadata().unwrap();
            if found.is_dir() {
                assert_eq!(found.ino(), fs::metadata(path).unwrap().ino());
                assert_ne!(hierarchy.layout(), Layout::V1);
            } else {
                assert_eq!(found.ino(), fs::metadata(path.join("cgroup.procs")).unwrap().ino());
                assert_ne!(hierarchy.layout(), Layout::V2);
                files.push((OwnedFd::from(entry), path.join("cgroup.procs")));
            }
        }
        let mut shell = Command::new("/bin/sh");
        let mut script = String::new();
        let names: Vec<_> = files.iter().map(|(_, name)| name.clone()).collect();
        for (at, (file, _)) in files.into_iter().enumerate() {
            match at {
                0 => shell.stdin(Stdio::from(file)),
                1 => shell.stdout(Stdio::from(file)),
                2 => shell.stderr(Stdio::from(file)),
                _ => panic!("more trees than standard descriptors"),
            };
            script.push_str(&["echo 0 >&", &at.to_string(), " || exit 1; "].concat());
        }
        // Each line of the lists is then read by a process that is a child of one in it.
        for name in &names {
            let name = name.to_str().unwrap();
            script.push_str(&["grep -qx $$ ", name, " || exit 2; "].concat());
        }
        assert!(shell.args(["-c", &script]).status().unwrap().success());
        job.close().unwrap();
    }
}

pub(crate) fn limits_are_read_back(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let fresh = job.limits().unwrap();
    assert_eq!(fresh.cpu.quota, Some(Max::Max));
    assert_eq!(fresh.cpu.period, Some(CpuPeriod::DEFAULT));
    assert_eq!(fresh.cpu.weight, Some(CpuWeight::DEFAULT));
    assert_eq!(fresh.pids, Some(Max::Max));
    let all =
        Limits::new().cpu_quota(quota(30)).cpu_period(period(50)).cpu_weight(CpuWeight::new(321).unwrap()).pids(17);
    job.apply(&all, Enforcement::Strict).unwrap();
    let found = job.limits().unwrap();
    assert_eq!((found.cpu.quota, found.cpu.period), (all.cpu.quota, all.cpu.period));
    assert_eq!((found.cpu.weight, found.pids), (all.cpu.weight, all.pids));
    for weight in [1, 2, 99, 101, 9_999, 10_000] {
        let weight = CpuWeight::new(weight).unwrap();
        job.apply(&Limits::new().cpu_weight(weight), Enforcement::Strict).unwrap();
        assert_eq!(job.limits().unwrap().cpu.weight, Some(weight));
    }
    for pids in [Max::Limit(0), Max::Limit(4_194_304), Max::Max] {
        job.apply(&Limits::new().pids(pids), Enforcement::Strict).unwrap();
        assert_eq!(job.limits().unwrap().pids, Some(pids));
    }
    job.apply(&Limits::new().cpu_quota(Max::Max), Enforcement::Strict).unwrap();
    assert_eq!(job.limits().unwrap().cpu.quota, Some(Max::Max));
    job.close().unwrap();
}

pub(crate) fn settings_that_are_none_are_left_alone(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let all = Limits::new().cpu_quota(quota(30)).cpu_period(period(50)).pids(9);
    job.apply(&all, Enforcement::Strict).unwrap();
    let bandwidth = || {
        let cpu = job.limits().unwrap().cpu;
        (cpu.quota.unwrap(), cpu.period.unwrap())
    };
    job.apply(&Limits::new(), Enforcement::Strict).unwrap();
    assert_eq!(bandwidth(), (quota(30).into(), period(50)));
    // A period alone keeps the quota, and does not turn it into none.
    job.apply(&Limits::new().cpu_period(period(200)), Enforcement::Strict).unwrap();
    assert_eq!(bandwidth(), (quota(30).into(), period(200)));
    // A quota alone keeps the period; cores are of the period in force.
    job.apply(&Limits::new().cpu_quota(quota(5)), Enforcement::Strict).unwrap();
    assert_eq!(bandwidth(), (quota(5).into(), period(200)));
    job.apply(&Limits::new().cpu_quota(CpuQuota::cores(0.25).unwrap()), Enforcement::Strict).unwrap();
    assert_eq!(bandwidth(), (quota(50).into(), period(200)));
    assert_eq!(job.limits().unwrap().cpu.cores(), Some(0.25));
    assert_eq!(job.limits().unwrap().pids, Some(Max::Limit(9)));
    // Without a quota, a period is just a period.
    job.apply(&Limits::new().cpu_quota(Max::Max), Enforcement::Strict).unwrap();
    job.apply(&Limits::new().cpu_period(period(100)), Enforcement::Strict).unwrap();
    assert_eq!(bandwidth(), (Max::Max, period(100)));
    job.close().unwrap();
}

pub(crate) fn invalid_limits_write_nothing(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let before = job.limits().unwrap();
    let too_short = Limits::new()
        .cpu_weight(CpuWeight::new(5).unwrap())
        .cpu_quota(CpuQuota::cores(0.01).unwrap())
        .cpu_period(period(10))
        .pids(3);
    assert_eq!(kind(job.apply(&too_short, Enforcement::Strict)), ErrorKind::InvalidInput);
    let too_many = Limits::new().cpu_quota(quota(10)).pids(4_194_305);
    assert_eq!(kind(job.apply(&too_many, Enforcement::Strict)), ErrorKind::InvalidInput);
    assert_eq!(job.limits().unwrap(), before);
    job.close().unwrap();

    let only_pids = hierarchy.create("job", Controllers::PIDS).unwrap().into_guard();
    let limits = Limits::new().pids(3).cpu_quota(quota(10));
    assert_eq!(kind(only_pids.apply(&limits, Enforcement::Strict)), ErrorKind::ControllerUnavailable);
    assert_eq!(only_pids.limits().unwrap().pids, Some(Max::Max));
    only_pids.close().unwrap();
}

/// v1 refuses a quota above the parent's at each single write.
pub(crate) fn a_quota_can_change_in_any_order_below_a_limited_parent(hierarchy: &Hierarchy) {
    let parent = hierarchy.create("job", BOTH).unwrap().into_guard();
    let child = parent.child("child").unwrap();
    let half = Limits::new().cpu_quota(quota(50)).cpu_period(period(100));
    parent.apply(&half, Enforcement::Strict).unwrap();
    // Up and down in length; the share stays below the parent's.
    for (q, p) in [(40, 100), (4, 10), (400, 1000), (1, 100), (2, 4), (450, 1000), (5, 10)] {
        let limits = Limits::new().cpu_quota(quota(q)).cpu_period(period(p));
        child.apply(&limits, Enforcement::Strict).unwrap();
        let found = child.limits().unwrap().cpu;
        assert_eq!(found.quota, Some(quota(q).into()));
        assert_eq!(found.period, Some(period(p)));
    }
    // And one that is above it: v1 refuses, v2 lets it have no effect.
    let beyond = child.apply(&Limits::new().cpu_quota(quota(9)).cpu_period(period(10)), Enforcement::Strict);
    if hierarchy.layout() == Layout::V2 {
        beyond.unwrap();
    } else {
        assert_eq!(beyond.unwrap_err().raw_os_error(), Some(22));
    }
    parent.close().unwrap();
}

/// Judged by the kernel's own count of periods and CPU time. A machine that has other things to do gives less than the quota, but
/// never more, and sooner or later some period's quota is used up.
pub(crate) fn busy_loops_are_held_to_the_quota(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let limits = Limits::new().cpu_quota(CpuQuota::cores(0.2).unwrap()).cpu_period(period(100));
    job.apply(&limits, Enforcement::Strict).unwrap();
    let mut loops = [(); 2].map(|()| Waiting::in_cgroup(&job, "while :; do :; done"));
    // Not from the very start: the first period is cut.
    let periods = |stats: &cofferdam_cgroups::CpuStats| stats.nr_periods.unwrap();
    until("two periods", || periods(&job.cpu_stats().unwrap()) >= 2);
    let before = job.cpu_stats().unwrap();
    // The time counts only from when a thread would have gone on in user mode (Linux 6.18), to which a busy machine may not let it.
    until("twenty more, and five throttled for some time", || {
        let now = job.cpu_stats().unwrap();
        let throttled = now.nr_throttled.unwrap() - before.nr_throttled.unwrap();
        periods(&now) >= periods(&before) + 20 && throttled >= 5 && now.throttled.unwrap() > before.throttled.unwrap()
    });
    let after = job.cpu_stats().unwrap();
    let passed = u32::try_from(periods(&after) - periods(&before)).unwrap();
    let used = after.usage.saturating_sub(before.usage);
    // One more at either end, and what the kernel lends each CPU at a time.
    let most = Duration::from_millis(20) * (passed + 2) + Duration::from_millis(20);
    assert!(used <= most, "{used:?} in {passed} periods");
    assert!(after.user > before.user);
    assert!(loops.iter_mut().all(|one| !one.has_ended()));
    job.close().unwrap();
}

pub(crate) fn pids_limit_stops_forks(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    job.apply(&Limits::new().pids(3), Enforcement::Strict).unwrap();
    let before = job.pids_stats().unwrap();
    assert_eq!((before.current, before.max), (0, Max::Limit(3)));
    assert_eq!(before.events_max, Some(0));
    let script = "sleep 60 & sleep 60 & sleep 60 & sleep 60 & wait";
    let shell = Waiting::in_cgroup(&job, script);
    until("a refused fork", || job.pids_stats().unwrap().events_max.unwrap() > 0);
    let after = job.pids_stats().unwrap();
    // The shell and two; it may have given up meanwhile.
    assert!((2..=3).contains(&after.current), "{after:?}");
    assert!(after.peak.is_none_or(|peak| peak == 3), "{after:?}");
    job.kill(LONG).unwrap();
    drop(shell);
    until("nobody", || job.pids_stats().unwrap().current == 0);
    job.close().unwrap();
}

/// Every process forks again and again, as fast as it can, up to a limit.
pub(crate) fn fork_bomb(job: &Cgroup) -> Waiting {
    job.apply(&Limits::new().pids(40), Enforcement::Strict).unwrap();
    let script = "exec perl -e 'my $first = $$; $SIG{CHLD} = \"IGNORE\"; while (1) { \
        my $pid = fork(); srand($$) if defined $pid && $pid == 0; \
        select(undef, undef, undef, 0.002); exit if $$ != $first && rand() < 0.2 }'";
    let bomb = Waiting::in_cgroup(job, script);
    until("many processes", || job.pids_stats().unwrap().current > 20);
    bomb
}

pub(crate) fn kill_ends_a_fork_bomb(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let mut bomb = fork_bomb(&job);
    job.kill(LONG).unwrap();
    assert!(job.processes().unwrap().is_empty());
    until("the first process has ended", || bomb.has_ended());
    let paths = paths(&job);
    job.close().unwrap();
    assert!(is_gone(&paths));
}

pub(crate) fn kill_ends_what_was_frozen(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let child = job.child("child").unwrap();
    let mut process = Waiting::in_cgroup(&child, "exec sleep 60");
    let mut frozen = 0;
    for path in child.paths() {
        for (file, text) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            if path.join(file).exists() {
                fs::write(path.join(file), text).unwrap();
                frozen += 1;
            }
        }
    }
    assert_eq!(frozen, 1);
    job.kill(LONG).unwrap();
    until("it has ended", || process.has_ended());
    job.close().unwrap();
}

pub(crate) fn kill_reaches_what_is_below(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let child = job.child("a").unwrap().child("b").unwrap();
    let mut below = Waiting::in_cgroup(&child, "exec sleep 60");
    let mut elsewhere = Waiting::new("exec sleep 60");
    job.kill(LONG).unwrap();
    until("it has ended", || below.has_ended());
    assert!(!elsewhere.has_ended());
    assert!(child.processes().unwrap().is_empty());
    job.close().unwrap();
}

/// Without `cgroup.kill` the cgroup is frozen first; with the caller in it, nobody would be left to thaw it.
pub(crate) fn kill_spares_the_caller(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    let own = hierarchy.own(BOTH).unwrap();
    job.attach(std::process::id()).unwrap();
    let killed = if hierarchy.layout() == cofferdam_cgroups::Layout::V1 { Some(job.kill(LONG)) } else { None };
    own.attach(std::process::id()).unwrap();
    assert!(killed.is_none_or(|killed| kind(killed) == ErrorKind::InvalidInput));
    job.delete().unwrap();
}

/// Deeper than any path that the kernel takes: who may make cgroups can do that.
pub(crate) fn kills_and_deletes_however_deep(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    let name = "n".repeat(250);
    for path in paths(&job) {
        let mut dir =
            rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..20 {
            rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755)).unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
        }
    }
    let mut process = Waiting::in_cgroup(&job, "exec sleep 60");
    let paths = paths(&job);
    job.kill(LONG).unwrap();
    until("it has ended", || process.has_ended());
    job.delete().unwrap();
    assert!(is_gone(&paths));
}

pub(crate) fn kill_of_an_empty_cgroup_does_nothing(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    job.kill(Duration::ZERO).unwrap();
    // It can be used afterwards: it is not left frozen.
    let mut process = Waiting::in_cgroup(&job, "exit");
    until("it has run", || process.has_ended());
    job.close().unwrap();
}

pub(crate) fn populated_is_not_deleted(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let (child, empty) = (job.child("child").unwrap(), job.child("empty").unwrap());
    let mut process = Waiting::in_cgroup(&child, "exec sleep 60");
    let error = job.delete().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(!process.has_ended());
    // Where the process is, nothing was deleted, and it was not moved.
    assert_eq!(child.processes().unwrap(), [process.pid()]);
    for (path, empty) in child.paths().zip(empty.paths()) {
        assert!(path.exists() && empty.exists(), "{}", path.display());
    }
    job.close().unwrap();
}

pub(crate) fn deletes_everything_below(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap();
    for name in ["a", "b", "c"] {
        let child = job.child(name).unwrap();
        child.child("x").unwrap().child("y").unwrap();
        assert_eq!(kind(child.child("x")), ErrorKind::AlreadyExists);
        assert_eq!(
            paths(&child.open_child("x").unwrap()),
            paths(&child).iter().map(|p| p.join("x")).collect::<Vec<_>>()
        );
    }
    let paths = paths(&job);
    job.delete().unwrap();
    assert!(is_gone(&paths));
}

pub(crate) fn anothers_cgroup_of_the_same_name_is_left_alone(hierarchy: &Hierarchy) {
    let first = hierarchy.create("job", BOTH).unwrap();
    hierarchy.open("job", BOTH).unwrap().delete().unwrap();
    let second = hierarchy.create("job", BOTH).unwrap();
    let child = second.child("child").unwrap();
    first.delete().unwrap();
    // Nor is anything made or opened in it by who has the old one.
    assert_eq!(kind(first.child("intruder")), ErrorKind::Gone);
    assert_eq!(kind(first.open_child("child")), ErrorKind::Gone);
    for path in paths(&second).iter().chain(&paths(&child)) {
        assert!(path.exists(), "{}", path.display());
    }
    second.delete().unwrap();
}

pub(crate) fn a_guard_kills_and_deletes(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let paths = paths(&job);
    let child = job.child("child").unwrap();
    let mut processes = [Waiting::in_cgroup(&child, "exec sleep 60"), Waiting::new("exec sleep 60")];
    drop(job);
    assert!(is_gone(&paths));
    until("it has ended", || processes[0].has_ended());
    assert!(!processes[1].has_ended());
    assert_eq!(kind(child.processes()), ErrorKind::Gone);
}

pub(crate) fn own_is_neither_killed_nor_deleted(hierarchy: &Hierarchy) {
    let own = hierarchy.own(BOTH).unwrap();
    assert!(own.processes().unwrap().contains(&std::process::id()));
    assert_eq!(kind(own.kill(LONG)), ErrorKind::InvalidInput);
    assert_eq!(kind(own.delete()), ErrorKind::InvalidInput);
    // By its name it is still our own.
    if hierarchy.layout() == cofferdam_cgroups::Layout::V2 {
        let name = own.paths().next().unwrap().file_name().unwrap().to_owned();
        let found = hierarchy.open(name, BOTH).unwrap();
        assert_eq!(kind(found.kill(LONG)), ErrorKind::InvalidInput);
        assert_eq!(kind(found.delete()), ErrorKind::InvalidInput);
    }
    until("our own use is counted", || own.cpu_stats().unwrap().usage > Duration::ZERO);
}

/// In a process of its own: with the first thread the C library keeps a signal handler for good, which the harness
/// would find.
pub(crate) fn made_and_deleted_by_many_threads(hierarchy: &Hierarchy) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([crate::THREADS, &hierarchy.layout().to_string()]);
    assert!(child.status().unwrap().success());
}

/// What that process does: many cgroups, each with a process in it, all of them there at once.
pub(crate) fn many_threads(hierarchy: &Hierarchy) {
    // In the virtual machine it would take minutes and show nothing else.
    let each = if cofferdam_testkit::patience() == 1 { 250 } else { 10 };
    let start = std::sync::Barrier::new(4);
    let start = &start;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let make = |n| {
                    let job = hierarchy.create(format!("job-{thread}-{n}"), BOTH).unwrap();
                    job.apply(&Limits::new().pids(10), Enforcement::Strict).unwrap();
                    let process = Command::new("/bin/sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
                    job.attach(process.id()).unwrap();
                    (job, process)
                };
                let many: Vec<_> = (0..each).map(make).collect();
                start.wait();
                for (job, mut process) in many {
                    let paths = paths(&job);
                    assert_eq!(job.processes().unwrap(), [process.id()]);
                    job.kill(LONG).unwrap();
                    assert!(!process.wait().unwrap().success());
                    job.delete().unwrap();
                    assert!(is_gone(&paths));
                }
            });
        }
    });
}

pub(crate) fn missing_controllers_are_named(hierarchy: &Hierarchy) {
    assert!(hierarchy.controllers().contains(BOTH));
    if hierarchy.layout() == Layout::V2 {
        let child = hierarchy.create("job", Controllers::empty()).unwrap();
        assert_eq!(kind(child.pids_stats()), ErrorKind::ControllerUnavailable);
        child.delete().unwrap();
    } else {
        let fewer = without(",pids");
        assert!(!fewer.controllers().contains(Controllers::PIDS));
        assert!(fewer.controllers().contains(Controllers::CPU));
        let error = fewer.create("job", BOTH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ControllerUnavailable);
        assert!(error.to_string().contains("\"pids\""), "{error}");
        fewer.create("job", Controllers::CPU).unwrap().delete().unwrap();
    }
}
