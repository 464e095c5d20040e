//! What several of these tests share.

use cofferdam_cgroups::{Controllers, CpuWeight, Enforcement, Hierarchy, Limits};
use nix::fcntl::{Flock, FlockArg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_busyloop-limit");

/// The CPUs, which the tests of this program share by taking turns. What else the machine does weighs little then.
pub(crate) fn all_cpus() -> Flock<File> {
    let program = File::open(PROGRAM).unwrap();
    let turn = Flock::lock(program, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let own = Hierarchy::detect().unwrap().own(Controllers::CPU).unwrap();
    own.apply(&Limits::new().cpu_weight(CpuWeight::new(10_000).unwrap()), Enforcement::Strict).unwrap();
    turn
}

pub(crate) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    command
}

/// Exit status, standard output and standard error.
pub(crate) fn outcome(output: &Output) -> (Option<i32>, &str, &str) {
    let text = |bytes| str::from_utf8(bytes).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A demonstration that runs, as it has introduced itself.
pub(crate) struct Running {
    pub(crate) demo: Child,
    pub(crate) demo_pid: Pid,
    pub(crate) busy_pid: Pid,
    busy: OwnedFd,
    /// The name of its cgroup, in all trees.
    pub(crate) cgroup: String,
}

impl Running {
    pub(crate) fn start() -> Self {
        let mut command = program(&["--seconds", "600"]);
        let mut demo = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(demo.stdout.as_mut().unwrap());
        // The next lines stay in the pipe, which is large enough.
        output.read_line(&mut line).unwrap();
        let number = line.strip_prefix("process ").and_then(|rest| rest.split(',').next()).expect(&line);
        let busy_pid = Pid::from_raw(number.parse().unwrap()).unwrap();
        let cgroup = line.trim_end().rsplit('/').next().unwrap().to_owned();
        assert!(!left_of(&cgroup).is_empty(), "{line}");
        let busy = pidfd_open(busy_pid, PidfdFlags::empty()).unwrap();
        Running { demo_pid: Pid::from_child(&demo), demo, busy_pid, busy, cgroup }
    }

    /// Whether the busy process ends in that time.
    pub(crate) fn busy_ends_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap();
        poll(&mut [PollFd::new(&self.busy, PollFlags::IN)], Some(&time)).unwrap() == 1
    }
}

/// The cgroups whose name begins like that, in any tree.
pub(crate) fn left_of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    find(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn find(dir: &Path, name: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(entry.path().display().to_string());
            }
            find(&entry.path(), name, found);
        }
    }
}
