//! What only the unified tree has: controllers to be enabled, and cgroups that cannot be entered.

use std::fs;
use std::path::Path;

use cofferdam_cgroups::{Cgroup, Controllers, Enforcement, ErrorKind, Layout, Limits};

use crate::support::{BOTH, LONG, Waiting, detect, directories, kind, paths, until};

/// The directory in the unified tree, which is the last one.
fn unified(cgroup: &Cgroup) -> &Path {
    cgroup.paths().last().unwrap()
}

fn read(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file)).unwrap()
}

pub(crate) fn controllers_are_enabled_above_never_in_the_leaf() {
    let job = detect().create("job", BOTH).unwrap().into_guard();
    assert_eq!(read(unified(&job), "cgroup.subtree_control").trim(), "");
    let child = job.child("a").unwrap().child("b").unwrap();
    let middle = unified(&child).parent().unwrap();
    for above in [unified(&job), middle] {
        assert_eq!(read(above, "cgroup.subtree_control").trim(), "cpu pids");
        assert_eq!(read(above, "cgroup.type").trim(), "domain");
    }
    assert_eq!(read(unified(&child), "cgroup.subtree_control").trim(), "");
    child.apply(&Limits::new().pids(7), Enforcement::Strict).unwrap();
    // Nothing runs in the middle, and the leaf can be entered.
    drop(Waiting::in_cgroup(&child, "exit"));
    job.close().unwrap();
}

pub(crate) fn an_occupied_cgroup_is_not_made_threaded() {
    let hierarchy = detect();
    let job = hierarchy.create("job", BOTH).unwrap().into_guard();
    let process = Waiting::new("exit");
    job.attach(process.pid()).unwrap();
    for place in [&*job, &hierarchy.own(BOTH).unwrap()] {
        let error = place.child("child").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Occupied, "{error}");
        assert_eq!(error.path(), unified(place));
        assert_eq!(read(unified(place), "cgroup.type").trim(), "domain");
        assert_eq!(read(unified(place), "cgroup.subtree_control").trim(), "");
        assert!(directories(unified(place)).is_empty());
    }
    drop(process);
    job.close().unwrap();
}

pub(crate) fn one_can_move_into_a_leaf_first() {
    let hierarchy = detect();
    let leaf = hierarchy.own(Controllers::empty()).unwrap().child("self").unwrap();
    let here = hierarchy.own(BOTH).unwrap();
    let processes = || here.processes().unwrap();
    for pid in processes() {
        leaf.attach(pid).unwrap();
    }
    assert!(processes().is_empty());
    let job = here.child("job").unwrap();
    job.apply(&Limits::new().pids(5), Enforcement::Strict).unwrap();
    job.delete().unwrap();
    // And back, for the harness.
    fs::write(unified(&here).join("cgroup.subtree_control"), "-cpu -pids").unwrap();
    for pid in leaf.processes().unwrap() {
        here.attach(pid).unwrap();
    }
    leaf.delete().unwrap();
}

pub(crate) fn no_cgroup_is_made_that_nothing_can_enter() {
    let hierarchy = detect();
    let job = hierarchy.create("job", Controllers::empty()).unwrap().into_guard();
    let threaded = job.child("threaded").unwrap();
    fs::write(unified(&threaded).join("cgroup.type"), "threaded").unwrap();
    let before = paths(&job).iter().map(|path| directories(path)).collect::<Vec<_>>();
    assert_eq!(kind(job.child("child")), ErrorKind::Unsupported);
    let after = paths(&job).iter().map(|path| directories(path)).collect::<Vec<_>>();
    assert_eq!(before, after);
    job.close().unwrap();
}

/// Why a new cgroup's type is not looked at where memory is on above it: there can be no other than a domain.
pub(crate) fn where_memory_is_counted_nothing_is_threaded() {
    let hierarchy = detect();
    let job = hierarchy.create("job", Controllers::MEMORY).unwrap().into_guard();
    let child = job.child("child").unwrap();
    assert_eq!(kind(child.make_threaded()), ErrorKind::Unsupported);
    assert_eq!(read(unified(&child), "cgroup.type").trim(), "domain");
    // And the other way round: where something is threaded already, memory cannot be turned on.
    let other = hierarchy.create("other", Controllers::empty()).unwrap().into_guard();
    other.child("threaded").unwrap().make_threaded().unwrap();
    let other_with_memory = hierarchy.open("other", Controllers::MEMORY).unwrap();
    assert_eq!(kind(other_with_memory.child("child")), ErrorKind::Unsupported);
    assert_eq!(directories(unified(&other)).len(), 1);
    other.close().unwrap();
    job.close().unwrap();
}

/// `cgroup.kill` refuses in a threaded cgroup, so that this takes the way by freezer and pidfds.
pub(crate) fn kill_without_cgroup_kill() {
    let hierarchy = detect();
    let job = hierarchy.create("job", Controllers::empty()).unwrap().into_guard();
    let threaded = job.child("threaded").unwrap();
    fs::write(unified(&threaded).join("cgroup.type"), "threaded").unwrap();
    let mut processes = [(); 3].map(|()| Waiting::in_cgroup(&job, "exec sleep 60"));
    for process in &processes {
        threaded.attach(process.pid()).unwrap();
    }
    let refused = fs::write(unified(&threaded).join("cgroup.kill"), "1").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(95));
    threaded.kill(LONG).unwrap();
    for process in &mut processes {
        until("it has ended", || process.has_ended());
    }
    assert_eq!(read(unified(&threaded), "cgroup.freeze").trim(), "0");
    job.close().unwrap();
}

/// On a machine where root owns all cgroups.
pub(crate) fn without_rights_it_says_so() {
    let error = detect().create("job", BOTH).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(error.operation(), "create cgroup");
    assert!(error.path().ends_with("job"), "{error}");
    assert_eq!(error.raw_os_error(), Some(13));
    assert!(error.to_string().contains("Delegate=yes"), "{error}");
}

pub(crate) fn hybrid_joins_the_unified_tree() {
    let hierarchy = detect();
    assert_eq!(hierarchy.layout(), Layout::Hybrid);
    let job = hierarchy.create("job", Controllers::PIDS).unwrap().into_guard();
    assert_eq!(job.paths().count(), 2);
    assert!(unified(&job).join("cgroup.kill").exists());
    let own = hierarchy.own(Controllers::PIDS).unwrap();
    assert_eq!(unified(&job), unified(&own).join("job"));
    job.close().unwrap();
}
