//! What the tests share: hierarchies, processes that wait to be told, and waiting for a condition.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cofferdam_cgroups::{Cgroup, Controllers, ErrorKind, Hierarchy, Layout};
use cofferdam_testkit::patience;

/// Both controllers.
pub(crate) const BOTH: Controllers = Controllers::CPU.union(Controllers::PIDS);
/// Far more than anything takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the machine has.
pub(crate) fn detect() -> Hierarchy {
    let hierarchy = Hierarchy::detect().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v2 = mounts.contains(" - cgroup2 ");
    let v1 = mounts.contains(" - cgroup ");
    let expected = match (v1, v2) {
        (true, true) => Layout::Hybrid,
        (true, false) => Layout::V1,
        _ => Layout::V2,
    };
    assert_eq!(hierarchy.layout(), expected);
    hierarchy
}

/// What the machine would have without its unified tree.
pub(crate) fn v1_only() -> Hierarchy {
    let hierarchy = without(" - cgroup2 ");
    assert_eq!(hierarchy.layout(), Layout::V1);
    hierarchy
}

/// What the machine would have without the mounts in whose line this text is.
pub(crate) fn without(text: &str) -> Hierarchy {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kept = mounts.lines().filter(|line| !line.contains(text));
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    Hierarchy::from_proc(kept.as_bytes(), &fs::read("/proc/self/cgroup").unwrap()).unwrap()
}

/// The directories of a cgroup.
pub(crate) fn paths(cgroup: &Cgroup) -> Vec<PathBuf> {
    cgroup.paths().map(Path::to_owned).collect()
}

/// Whether nothing is left of it.
pub(crate) fn is_gone(paths: &[PathBuf]) -> bool {
    paths.iter().all(|path| !path.exists())
}

/// The names of what is in a directory.
pub(crate) fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// The kind of the error that there must be.
#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, cofferdam_cgroups::Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Looks again and again until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG * patience();
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shell that waits to be told before it runs its script. Killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Child);

impl Waiting {
    pub(crate) fn new(script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("read go; {script}")]);
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        Waiting(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn in_cgroup(cgroup: &Cgroup, script: &str) -> Self {
        let mut waiting = Self::new(script);
        cgroup.attach(waiting.pid()).unwrap();
        waiting.go();
        waiting
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the process has ended", || self.has_ended());
        self.0.wait().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
