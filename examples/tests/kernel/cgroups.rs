//! The three small programs about cgroups: that they show what they say.

use std::process::{Command, Output};

pub(crate) const MEMORY_LIMIT: &str = env!("CARGO_BIN_EXE_memory-limit");
pub(crate) const FREEZE: &str = env!("CARGO_BIN_EXE_freeze");
pub(crate) const CGTOP: &str = env!("CARGO_BIN_EXE_cgtop");

fn run(program: &str, args: &[&str]) -> (Output, String) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output, text)
}

pub(crate) fn memory_limit_shows_the_kill() {
    let (output, text) = run(MEMORY_LIMIT, &["16", "sh", "-c", "ulimit -v 1000000; exec tail /dev/zero"]);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("OomKill(1)") && text.contains("1 killed"), "{text}");
    let (output, text) = run(MEMORY_LIMIT, &["16", "true"]);
    assert!(output.status.success() && text.contains("0 killed"), "{text}");
    assert_eq!(run(MEMORY_LIMIT, &["16"]).0.status.code(), Some(1));
}

pub(crate) fn freeze_shows_a_counter_that_stands_still() {
    let (output, text) = run(FREEZE, &["1"]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("CPU time used while it was frozen: 0 ticks"), "{text}");
}

pub(crate) fn cgtop_shows_our_own_cgroup() {
    let (output, text) = run(CGTOP, &["--rounds", "2", "--delay", "0.1"]);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("tasks").count(), 2, "{text}");
    assert!(text.contains("cofferdam-test-"), "{text}");
}

pub(crate) fn small_programs_help() {
    for program in [MEMORY_LIMIT, FREEZE, CGTOP] {
        let (output, text) = run(program, &["--help"]);
        assert!(output.status.success() && text.starts_with("Usage: "), "{text}");
    }
}
