//! What the harness makes of tests that fail, leak, hang or cannot run: `src/bin/specimens.rs`.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs one specimen and returns whether its program was content, and what it printed.
fn specimen(name: &str, place: Option<&str>, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_specimens"));
    command.args(["--exact", name]).args(more).env_remove("COFFERDAM_TEST_REQUIRE").env_remove("COFFERDAM_TEST_LOG");
    if let Some(place) = place {
        command.env("COFFERDAM_TEST_REQUIRE", place);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[track_caller]
fn fails_saying(name: &str, words: &[&str]) {
    let (content, text) = specimen(name, None, &[]);
    assert!(!content, "{name} passed:\n{text}");
    assert!(text.contains("0 passed; 1 failed; 0 ignored"), "{text}");
    for word in words {
        assert!(text.contains(word), "{name} does not say {word:?}:\n{text}");
    }
}

#[test]
fn a_test_that_passes_passes() {
    let (content, text) = specimen("passes", None, &[]);
    assert!(content && text.contains("1 passed; 0 failed; 0 ignored"), "{text}");
}

#[test]
fn a_failure_shows_output_message_and_place() {
    fails_saying("fails", &["said on stdout", "said on stderr", "src/bin/specimens.rs:", "arithmetic"]);
    fails_saying("dies", &["killed by SIGKILL"]);
}

#[test]
fn a_test_that_hangs_is_killed_with_its_children() {
    fails_saying("hangs", &["timed out after 1s", "sleep 1000.25"]);
    assert_eq!(running("sleep\u{0}1000.25"), 0);
}

/// Whoever kills the harness, and however: nothing of a test stays.
#[test]
fn a_harness_that_is_killed_leaves_nothing() {
    for (test, signal) in [("waits", Signal::SIGKILL), ("waits_in_a_cgroup", Signal::SIGTERM)] {
        let dir = tempfile::tempdir().unwrap();
        let mut harness = Command::new(env!("CARGO_BIN_EXE_specimens"))
            .args(["--exact", test, "--nocapture"])
            .env("TMPDIR", dir.path())
            .env_remove("COFFERDAM_TEST_REQUIRE")
            .env_remove("COFFERDAM_TEST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(harness.stdout.take().unwrap());
        let mut text = String::new();
        while output.read_line(&mut text).unwrap() > 0 && !text.contains("waiting") {}
        if text.contains("1 ignored") {
            assert!(harness.wait().unwrap().success());
            continue;
        }
        let guard = child_of(harness.id());
        assert_eq!(cgroups_of(&guard).is_empty(), test == "waits");
        kill(Pid::from_raw(harness.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(harness.wait().unwrap().signal(), Some(signal as i32), "{text}");
        // All processes of the test hold the pipe: this waits for the last one.
        output.read_to_string(&mut text).unwrap();
        assert_eq!(running("sleep\u{0}1000.125"), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{text}");
        assert!(cgroups_of(&guard).is_empty());
    }
}

/// The id of a process's only child.
fn child_of(parent: u32) -> String {
    let parent = format!("PPid:\t{parent}\n");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let has = |status: String| status.contains(&parent);
    let mut of = pids.filter(|e| std::fs::read_to_string(e.path().join("status")).is_ok_and(has));
    of.next().expect("a child").file_name().into_string().unwrap()
}

/// The cgroups that a guard made: they carry its id.
fn cgroups_of(guard: &str) -> Vec<String> {
    let find = format!("find /sys/fs/cgroup -name 'cofferdam-test-{guard}-*'");
    let found = Command::new("sh").args(["-c", &find]).output().unwrap().stdout;
    String::from_utf8(found).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_leak_is_named() {
    fails_saying("leaks_fd", &["still open: /dev/null"]);
    // Its arguments may not be there yet: spawn returns a moment before.
    fails_saying("leaks_child", &["child process", "(sleep", ") still runs"]);
    fails_saying("leaks_zombie", &["was never waited for: Exited"]);
    fails_saying("leaks_orphan", &["leaked: process", ") still runs"]);
    fails_saying("leaks_file", &["in TMPDIR, forgotten"]);
    assert_eq!(running("sleep\u{0}1000.5") + running("sleep\u{0}1000.75"), 0);
}

#[test]
fn a_change_to_the_process_is_named() {
    fails_saying("leaks_cwd", &["/proc/self/cwd of the test's process was"]);
    fails_saying("leaks_umask", &["Umask", "now is \"0007\""]);
    fails_saying("leaks_dumpable", &["dumpable", "now is \"Ok(false)\""]);
    fails_saying("leaks_signal_mask", &["SigBlk", "now is \"0000000000000200\""]);
    fails_saying("leaks_no_new_privs", &["NoNewPrivs"]);
    fails_saying("leaks_oom_score_adj", &["oom_score_adj", "now is \"500\""]);
}

/// These need more than every user has; without it they must be ignored, with the reason.
#[test]
fn a_leak_that_takes_rights_is_named_where_there_are_rights() {
    for (name, word) in [
        ("leaks_mount", "mount appeared: "),
        ("leaks_link", "network link appeared: forgotten0"),
        ("leaks_cgroup", "leaked: cgroup /"),
        ("leaks_frozen", ") still runs"),
    ] {
        let (content, text) = specimen(name, None, &[]);
        if content {
            assert!(text.contains("[needs ") && text.contains("0 passed; 0 failed; 1 ignored"), "{text}");
        } else {
            assert!(text.contains(word), "{name} does not say {word:?}:\n{text}");
        }
    }
}

#[test]
fn an_unmet_need_is_ignored_with_the_reason() {
    let (content, text) = specimen("cannot_run", None, &[]);
    assert!(content && text.contains("0 passed; 0 failed; 1 ignored"), "{text}");
    assert!(text.contains("[needs /no/such/program: ENOENT"), "{text}");
    let (content, text) = specimen("cannot_run", None, &["--include-ignored"]);
    assert!(!content && text.contains("1 failed"), "an unmet need passed when asked to run: {text}");
}

/// Only where the test, too, would find it.
#[test]
fn a_program_is_looked_up_in_path() {
    let (content, text) = specimen("needs_a_program_by_name", None, &[]);
    assert!(content && text.contains("[needs a-program: not found]"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a-program");
    let outcome = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_specimens"));
        command.args(["--exact", "needs_a_program_by_name"]).env_remove("COFFERDAM_TEST_LOG");
        let path = format!("/no/such/folder:{}", folder.path().display());
        let output = command.env_remove("COFFERDAM_TEST_REQUIRE").env("PATH", path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    std::fs::create_dir(&program).unwrap();
    assert!(outcome().contains("0 passed; 0 failed; 1 ignored"), "a folder");
    std::fs::remove_dir(&program).unwrap();
    std::fs::write(&program, "").unwrap();
    assert!(outcome().contains("0 passed; 0 failed; 1 ignored"), "a file without the right to be run");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(outcome().contains("1 passed; 0 failed; 0 ignored"), "a program");
}

#[test]
fn an_unmet_need_fails_where_the_test_is_required() {
    let (content, text) = specimen("must_run_on_the_host", Some("host"), &[]);
    assert!(!content && text.contains("listed for host in testkit/places.txt, but needs /no/such/program"), "{text}");
    let (content, text) = specimen("must_run_on_the_host", Some("vm-v1"), &[]);
    assert!(content && text.contains("1 ignored"), "{text}");
}

#[test]
fn a_test_that_is_not_listed_fails() {
    fails_saying("unlisted", &["specimens::unlisted is not in testkit/places.txt"]);
}

#[test]
fn a_place_that_does_not_exist_is_refused() {
    let (content, text) = specimen("passes", Some("moon"), &[]);
    assert!(!content && text.contains("COFFERDAM_TEST_REQUIRE: no place is called \"moon\""), "{text}");
}

/// How many processes have a command line that contains this.
fn running(command: &str) -> usize {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = pids.filter_map(|e| std::fs::read_to_string(e.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(command)).count()
}
