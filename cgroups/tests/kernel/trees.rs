//! The conformance list, as far as it is about many cgroups: walking, moving, giving away, and finding what was left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cofferdam_cgroups::{Controllers, Enforcement, ErrorKind, Hierarchy, Layout, Limits, Owner};

use crate::support::{BOTH, LONG, Waiting, is_gone, kind, paths, until, v1_only};

pub(crate) fn a_tree_is_walked(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    for path in ["b/x/y", "a", "b/z"] {
        job.create_below(path).unwrap();
    }
    assert_eq!(kind(job.create_below("b/z")), ErrorKind::AlreadyExists);
    let expected = ["a", "b", "b/x", "b/x/y", "b/z"].map(PathBuf::from);
    assert_eq!(job.walk().unwrap(), expected);
    assert_eq!(job.children().unwrap(), ["a", "b"]);
    assert_eq!(paths(&job.open_below("b/x/y").unwrap())[0], paths(&job)[0].join("b/x/y"));
    for bad in ["", "/", "..", "a/../b", "/a"] {
        if !bad.is_empty() {
            assert_eq!(kind(job.open_below(bad)), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert_eq!(kind(job.create_below(bad)), ErrorKind::InvalidInput, "{bad:?}");
    }
    assert_eq!(kind(job.open_below("a/none")), ErrorKind::Gone);
    // It is found from the top as well.
    let root = hierarchy.root(BOTH).unwrap();
    assert!(root.walk().unwrap().iter().any(|path| path.ends_with("job/b/x/y")));
    assert_eq!(kind(root.delete()), ErrorKind::InvalidInput);
    // An empty path is the same cgroup, which is no more to be deleted than that.
    for same in [root.open_below(""), root.find_below("")].map(Result::unwrap) {
        assert_eq!(paths(&same), paths(&root));
        assert_eq!(kind(same.delete()), ErrorKind::InvalidInput);
    }
    job.close().unwrap();
    assert_eq!(kind(job.walk()), ErrorKind::Gone);
}

pub(crate) fn processes_and_threads_are_moved(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let (from, to) = (job.child("from").unwrap(), job.child("to").unwrap());
    let processes: Vec<_> = (0..5).map(|_| Waiting::in_cgroup(&from, "exec sleep 60")).collect();
    let mut all: Vec<_> = processes.iter().map(Waiting::pid).collect();
    all.sort_unstable();
    assert_eq!(from.move_processes(&to).unwrap(), 5);
    let mut moved = to.processes().unwrap();
    moved.sort_unstable();
    assert_eq!((from.processes().unwrap(), moved), (vec![], all.clone()));
    let mut threads = to.threads().unwrap();
    threads.sort_unstable();
    assert_eq!(threads, all);
    // A thread: v1 takes it anywhere, v2 below its domain only.
    let attached = from.attach_thread(all[0]);
    if hierarchy.layout() == Layout::V1 {
        attached.unwrap();
        assert_eq!(from.threads().unwrap(), [all[0]]);
    } else {
        assert!(attached.is_err());
        let threaded = to.child("threaded");
        if hierarchy.layout() == Layout::Hybrid {
            let threaded = threaded.unwrap();
            threaded.make_threaded().unwrap();
            threaded.attach_thread(all[0]).unwrap();
            assert_eq!(threaded.threads().unwrap(), [all[0]]);
        } else {
            assert_eq!(kind(threaded), ErrorKind::Occupied);
        }
    }
    assert_eq!(kind(from.attach_thread(0)), ErrorKind::InvalidInput);
    job.kill(LONG).unwrap();
    job.close().unwrap();
}

pub(crate) fn files_are_found_or_not(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    assert!(job.has_file("pids.max").unwrap() && job.has_file("cgroup.procs").unwrap());
    assert!(!job.has_file("pids.no_such").unwrap());
    assert_eq!(kind(job.has_file("../pids.max")), ErrorKind::InvalidInput);
    assert_eq!(kind(job.has_file("/etc/passwd")), ErrorKind::InvalidInput);
    job.close().unwrap();
    assert_eq!(kind(job.has_file("pids.max")), ErrorKind::Gone);
}

pub(crate) fn capabilities_are_what_works(hierarchy: &Hierarchy) {
    let found = hierarchy.capabilities().unwrap();
    assert_eq!((found.layout, found.birth), (hierarchy.layout(), hierarchy.layout() == Layout::V2));
    assert!(found.usable().contains(BOTH), "{found:?}");
    assert_eq!(found.controllers.iter().map(|one| one.controller).collect::<Controllers>(), hierarchy.controllers());
    let cpu = found.controller(Controllers::CPU).unwrap();
    assert_eq!(cpu.is_v1, hierarchy.layout() != Layout::V2);
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let kills = job.has_file("cgroup.kill").unwrap();
    assert!(found.kill.is_none_or(|kill| kill == kills));
    assert_eq!(hierarchy.capabilities().unwrap().kill, Some(kills));
    job.close().unwrap();
}

pub(crate) fn a_user_is_given_a_cgroup(hierarchy: &Hierarchy) {
    const USER: u32 = 65_534;
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    // Who is in it makes a cgroup of his own there, and goes there.
    let go = job.paths().map(|path| format!("mkdir {0}/own && echo 0 >{0}/own/cgroup.procs", path.display()));
    let go = go.collect::<Vec<_>>().join(" && ");
    let as_user = format!("exec setpriv --reuid {USER} --regid {USER} --clear-groups sh -c '{go}' 2>/dev/null");
    let is_allowed = || Waiting::in_cgroup(&job, &as_user).ended().success();
    assert!(!is_allowed());
    job.delegate(USER, USER).unwrap();
    assert!(is_allowed());
    for path in job.paths() {
        let owner = |file: &str| fs::metadata(path.join(file)).unwrap().uid();
        assert_eq!((owner("."), owner("cgroup.procs")), (USER, USER));
        for kept in ["pids.max", "cpu.max", "cpu.shares", "cgroup.kill"] {
            assert!(!path.join(kept).exists() || owner(kept) == 0, "{kept}");
        }
    }
    job.close().unwrap();
}

fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

/// What the program does that the next test kills.
pub(crate) fn leaves_a_tree(layout: &str) {
    let found = crate::support::detect();
    let hierarchy = if found.layout().to_string() == layout { found } else { v1_only() };
    let job = hierarchy.create_owned(&owner("dead"), "job", BOTH).unwrap().into_guard();
    let child = job.create_below("a/b").unwrap();
    let _process = Waiting::in_cgroup(&child, "exec sleep 600");
    println!("ready");
    std::thread::sleep(LONG * 30);
}

/// A program that is killed drops nothing. The next one finds what is left of it, and nothing else.
pub(crate) fn what_a_killed_program_left_is_found(hierarchy: &Hierarchy) {
    let mine = hierarchy.create_owned(&owner("alive"), "job", BOTH).unwrap().into_guard();
    let plain = hierarchy.create("job", BOTH).unwrap().into_guard();
    let lookalike = hierarchy.create("cofferdam-dead", BOTH).unwrap().into_guard();
    let mut survivor = Waiting::in_cgroup(&mine, "exec sleep 600");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([crate::LEAVES_A_TREE, &hierarchy.layout().to_string()]);
    let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    program.kill().unwrap();
    program.wait().unwrap();
    let left = hierarchy.open_owned(&owner("dead"), "job", BOTH).unwrap();
    let left_paths = paths(&left);
    let processes = left.open_below("a/b").unwrap().processes().unwrap();
    assert_eq!(processes.len(), 1);

    // Nothing is done to who is alive.
    assert!(hierarchy.gc(|_| true).unwrap().is_empty());
    assert!(left_paths.iter().all(|path| path.exists()));
    let mut asked = Vec::new();
    let collected = hierarchy.gc(|one| {
        asked.push(one.clone());
        *one == owner("alive")
    });
    let collected = collected.unwrap();
    assert!(asked.contains(&owner("alive")) && asked.contains(&owner("dead")));
    let [one] = &collected[..] else { panic!("{collected:?}") };
    assert_eq!((&one.owner, one.name.to_str()), (&owner("dead"), Some("cofferdam-dead+job")));
    assert!(one.result.is_ok(), "{one:?}");
    assert!(is_gone(&left_paths));
    until("its process has ended", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", processes[0]));
        stat.is_err() || stat.unwrap().contains(") Z ")
    });
    assert!(!survivor.has_ended());
    for kept in [&mine, &plain, &lookalike] {
        assert!(kept.paths().all(std::path::Path::exists));
        kept.close().unwrap();
    }
    assert!(hierarchy.gc(|_| false).unwrap().is_empty());
    // It was the child of a program that is gone, and is now ours to wait for, where we are who waits for orphans.
    let _ = rustix::process::waitpid(
        rustix::process::Pid::from_raw(processes[0].cast_signed()),
        rustix::process::WaitOptions::NOHANG,
    );
}

/// On v2 a place is often one of systemd's, where units are called as they like.
pub(crate) fn what_is_called_alike_is_nobodys(hierarchy: &Hierarchy) {
    let names = ["cofferdam-exporter.service", "cofferdam-a.scope", "cofferdam-a.b"];
    let mut units = names.map(|name| {
        let unit = hierarchy.create(name, BOTH).unwrap().into_guard();
        let process = Waiting::in_cgroup(&unit, "exec sleep 600");
        (unit, process)
    });
    let left = paths(&hierarchy.create_owned(&owner("dead"), "job.service", BOTH).unwrap());
    let mut asked = Vec::new();
    let collected = hierarchy.gc(|one| {
        asked.push(one.clone());
        false
    });
    let collected = collected.unwrap();
    for (unit, process) in &mut units {
        assert!(!process.has_ended());
        assert_eq!(unit.processes().unwrap(), [process.pid()]);
    }
    assert_eq!(collected.iter().map(|one| &one.owner).collect::<Vec<_>>(), [&owner("dead")]);
    assert!(asked.iter().all(|one| *one == owner("dead")) && is_gone(&left), "{asked:?}");
    // Nor can who makes one without an owner hit upon such a name.
    let (unit, _) = &units[0];
    let made =
        [hierarchy.create("cofferdam-a+b", BOTH), unit.child("cofferdam-a+b"), unit.create_below("x/cofferdam-a+b")];
    for made in made {
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("create_owned"), "{error}");
    }
    assert!(unit.children().unwrap().is_empty());
    for (unit, _) in &units {
        unit.close().unwrap();
    }
}

/// On v1 a process that is frozen in one tree does not die of a signal that another one brings.
pub(crate) fn what_was_left_frozen_is_found(hierarchy: &Hierarchy) {
    let job = hierarchy.create_owned(&owner("dead"), "job", BOTH).unwrap();
    let mut process = Waiting::in_cgroup(&job, "exec sleep 600");
    job.freeze(LONG).unwrap();
    let left = paths(&job);
    drop(job);
    let start = std::time::Instant::now();
    let collected = hierarchy.gc(|_| false).unwrap();
    let [one] = &collected[..] else { panic!("{collected:?}") };
    assert!(one.result.is_ok(), "{one:?}");
    assert!(start.elapsed() < cofferdam_cgroups::Guard::TIMEOUT * cofferdam_testkit::patience());
    assert!(is_gone(&left));
    process.ended();
}

/// What a helper is handed that sees no mounts: its own part of each tree.
pub(crate) fn given_directories_are_trees(hierarchy: &Hierarchy) {
    let place = hierarchy.create("place", BOTH).unwrap().into_guard();
    let open = |path: &std::path::Path| {
        let has = |file: &str| path.join(file).exists();
        let mut controllers = Controllers::empty();
        controllers.set(Controllers::CPU, has("cpu.shares") || has("cpuacct.usage"));
        controllers.set(Controllers::PIDS, has("pids.max"));
        controllers.set(Controllers::FREEZER, has("freezer.state"));
        (fs::File::open(path).unwrap().into(), controllers)
    };
    let inside = Hierarchy::from_roots(place.paths().map(open)).unwrap();
    assert_eq!(inside.layout(), hierarchy.layout());
    let job = inside.create("job", BOTH).unwrap();
    assert_eq!(paths(&job), paths(&place).iter().map(|path| path.join("job")).collect::<Vec<_>>());
    job.apply(&Limits::new().pids(3), Enforcement::Strict).unwrap();
    let mut process = Waiting::in_cgroup(&job, "exec sleep 60");
    until("it is counted", || job.pids_stats().unwrap().current == 1);
    assert!(job.cpu_stats().is_ok());
    // There is nothing above, and the top is neither killed nor deleted.
    let own = inside.own(BOTH).unwrap();
    assert_eq!(paths(&own), paths(&place));
    assert_eq!(kind(own.delete()), ErrorKind::InvalidInput);
    job.kill(LONG).unwrap();
    process.ended();
    job.delete().unwrap();
    place.close().unwrap();
    assert_eq!(kind(inside.create("job", BOTH)), ErrorKind::Gone);

    let other = || (fs::File::open("/proc").unwrap().into(), Controllers::all());
    assert_eq!(kind(Hierarchy::from_roots([other()])), ErrorKind::NoCgroups);
    assert_eq!(kind(Hierarchy::from_roots([])), ErrorKind::NoCgroups);
}

/// What runs in a container's cgroup namespace, where the trees are mounted anew at `top`, one for each word.
pub(crate) fn in_a_container() {
    let hierarchy = crate::support::detect();
    let own = hierarchy.own(Controllers::PIDS).unwrap();
    // What is above cannot be seen, and it has no end as long as we are in it.
    assert!(!own.events().unwrap().tells_of_the_end());
    let job = match hierarchy.create("job", Controllers::PIDS) {
        // One's own cgroup is all that can be seen, and it has processes.
        Err(error) if hierarchy.layout() == Layout::V2 => {
            assert_eq!(error.kind(), ErrorKind::Occupied, "{error}");
            let leaf = hierarchy.own(Controllers::empty()).unwrap().child("self").unwrap();
            own.move_processes(&leaf).unwrap();
            own.child("job").unwrap()
        }
        job => job.unwrap(),
    };
    job.apply(&Limits::new().pids(5), Enforcement::Strict).unwrap();
    println!("{}", std::process::id());
    assert!(job.events().unwrap().tells_of_the_end());
    for (own, job) in own.paths().zip(job.paths()) {
        assert_eq!(job, own.join("job"));
    }
    job.delete().unwrap();
}

/// In a container's view of its cgroups: a namespace of its own, and mounts whose root is deep in the tree.
pub(crate) fn a_container_finds_its_own_trees(hierarchy: &Hierarchy) {
    let place = hierarchy.create("place", Controllers::PIDS).unwrap().into_guard();
    let program = std::env::current_exe().unwrap();
    // The host's mounts are what a container does not see.
    let script = match hierarchy.layout() {
        Layout::V2 => "mkdir $TMPDIR/u; mount -t cgroup2 x $TMPDIR/u",
        Layout::V1 => {
            "mkdir $TMPDIR/p $TMPDIR/f; mount -t cgroup -o pids x $TMPDIR/p; mount -t cgroup -o freezer x $TMPDIR/f"
        }
        Layout::Hybrid => {
            "mkdir $TMPDIR/p $TMPDIR/u; mount -t cgroup -o pids x $TMPDIR/p; mount -t cgroup2 x $TMPDIR/u"
        }
    };
    let script = format!("{script}; exec {} {}", program.display(), crate::IN_A_CONTAINER);
    let mut shell = Waiting::in_cgroup(&place, &format!("exec unshare --cgroup --mount /bin/sh -ec '{script}'"));
    assert!(shell.ended().success());
    place.close().unwrap();
    let _ = ["p", "f", "u"].map(|folder| fs::remove_dir(std::env::temp_dir().join(folder)));
}
