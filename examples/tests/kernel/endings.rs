//! How it ends before its time, and what is left then: nothing.

use crate::support::{Running, all_cpus, left_of, outcome, program};
use cofferdam_cgroups::{Controllers, Hierarchy};
use rustix::process::{Signal, kill_process};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

pub(crate) fn signals_end_it_and_leave_nothing() {
    let _turn = all_cpus();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let running = Running::start();
        kill_process(running.demo_pid, signal).unwrap();
        let Running { ref cgroup, .. } = running;
        assert!(running.busy_ends_within(Duration::from_secs(30)), "{signal:?}");
        let cgroup = cgroup.clone();
        let output = running.demo.wait_with_output().unwrap();
        assert_eq!((output.status.code(), outcome(&output).2), (Some(code), ""), "{signal:?}");
        assert_eq!(left_of(&cgroup), [""; 0], "{signal:?}");
    }
}

pub(crate) fn sigkill_leaves_no_busy_process() {
    let _turn = all_cpus();
    let mut running = Running::start();
    kill_process(running.demo_pid, Signal::KILL).unwrap();
    assert_eq!(running.demo.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    assert!(running.busy_ends_within(Duration::from_secs(30)), "it is still busy");
    // Nobody was left to remove it.
    let cgroup = Hierarchy::detect().unwrap().open(&running.cgroup, Controllers::CPU).unwrap();
    assert_eq!(cgroup.processes().unwrap(), [0; 0]);
    cgroup.delete().unwrap();
    assert_eq!(left_of(&running.cgroup), [""; 0]);
}

pub(crate) fn the_busy_process_dies_early() {
    let _turn = all_cpus();
    let running = Running::start();
    kill_process(running.busy_pid, Signal::KILL).unwrap();
    let cgroup = running.cgroup.clone();
    let output = running.demo.wait_with_output().unwrap();
    let (code, _, err) = outcome(&output);
    assert_eq!(code, Some(1));
    assert_eq!(err, "busyloop-limit: the busy process has ended early: signal: 9 (SIGKILL)\n");
    assert_eq!(left_of(&cgroup), [""; 0]);
}

pub(crate) fn closed_pipe() {
    let _turn = all_cpus();
    for args in [&["--seconds", "1"][..], &["--seconds", "1", "--json"]] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let demo = program(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let cgroup = format!("busyloop-limit-{}-", demo.id());
        let output = demo.wait_with_output().unwrap();
        assert_eq!((output.status.code(), outcome(&output).2), (Some(141), ""), "{args:?}");
        assert_eq!(left_of(&cgroup), [""; 0]);
    }
}

pub(crate) fn full_disk() {
    let _turn = all_cpus();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let demo = program(&["--seconds", "1"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let cgroup = format!("busyloop-limit-{}-", demo.id());
    let output = demo.wait_with_output().unwrap();
    assert_eq!(outcome(&output).2, "busyloop-limit: No space left on device (os error 28)\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(left_of(&cgroup), [""; 0]);
}
