//! What the harness makes of tests that fail, leak, hang or cannot run: `src/bin/specimens.rs`.

use std::process::{Command, Output};

/// Runs one specimen and returns whether its program was content, and what it printed.
fn specimen(name: &str, place: Option<&str>, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_specimens"));
    command
        .args(["--exact", name])
        .args(more)
        .env_remove("COFFERDAM_TEST_REQUIRE")
        .env_remove("COFFERDAM_TEST_LOG");
    if let Some(place) = place {
        command.env("COFFERDAM_TEST_REQUIRE", place);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (
        status.success(),
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned(),
    )
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
    assert!(
        content && text.contains("1 passed; 0 failed; 0 ignored"),
        "{text}"
    );
}

#[test]
fn a_failure_shows_output_message_and_place() {
    fails_saying(
        "fails",
        &[
            "said on stdout",
            "said on stderr",
            "src/bin/specimens.rs:",
            "arithmetic",
        ],
    );
    fails_saying("dies", &["killed by SIGKILL"]);
}

#[test]
fn a_test_that_hangs_is_killed_with_its_children() {
    fails_saying("hangs", &["timed out after 1s", "sleep 1000.25"]);
    assert_eq!(running("sleep\u{0}1000.25"), 0);
}

#[test]
fn a_leak_is_named() {
    fails_saying("leaks_fd", &["still open: /dev/null"]);
    fails_saying(
        "leaks_child",
        &["child process", "sleep 1000.5) still runs"],
    );
    fails_saying("leaks_zombie", &["was never waited for: Exited"]);
    fails_saying("leaks_orphan", &["process", "sleep 1000.75) still runs"]);
    fails_saying("leaks_file", &["in TMPDIR, forgotten"]);
    assert_eq!(
        running("sleep\u{0}1000.5") + running("sleep\u{0}1000.75"),
        0
    );
}

#[test]
fn a_change_to_the_process_is_named() {
    fails_saying("leaks_cwd", &["/proc/self/cwd of the test's process was"]);
    fails_saying("leaks_umask", &["Umask", "now is \"0007\""]);
    fails_saying("leaks_dumpable", &["dumpable", "now is \"Ok(false)\""]);
    fails_saying(
        "leaks_signal_mask",
        &["SigBlk", "now is \"0000000000000200\""],
    );
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
    ] {
        let (content, text) = specimen(name, None, &[]);
        if content {
            assert!(
                text.contains("[needs ") && text.contains("0 passed; 0 failed; 1 ignored"),
                "{text}"
            );
        } else {
            assert!(text.contains(word), "{name} does not say {word:?}:\n{text}");
        }
    }
    let (content, text) = specimen("is_alone", None, &[]);
    assert!(content, "{text}");
}

#[test]
fn an_unmet_need_is_ignored_with_the_reason() {
    let (content, text) = specimen("cannot_run", None, &[]);
    assert!(
        content && text.contains("0 passed; 0 failed; 1 ignored"),
        "{text}"
    );
    assert!(text.contains("[needs /no/such/program: ENOENT"), "{text}");
    let (content, text) = specimen("cannot_run", None, &["--include-ignored"]);
    assert!(
        !content && text.contains("1 failed"),
        "an unmet need passed when asked to run: {text}"
    );
}

#[test]
fn an_unmet_need_fails_where_the_test_is_required() {
    let (content, text) = specimen("must_run_on_the_host", Some("host"), &[]);
    assert!(
        !content
            && text.contains("listed for host in testkit/places.txt, but needs /no/such/program"),
        "{text}"
    );
    let (content, text) = specimen("must_run_on_the_host", Some("vm-v1"), &[]);
    assert!(content && text.contains("1 ignored"), "{text}");
}

#[test]
fn a_test_that_is_not_listed_fails() {
    fails_saying(
        "unlisted",
        &["specimens::unlisted is not in testkit/places.txt"],
    );
}

#[test]
fn a_place_that_does_not_exist_is_refused() {
    let (content, text) = specimen("passes", Some("moon"), &[]);
    assert!(
        !content && text.contains("COFFERDAM_TEST_REQUIRE: no place is called \"moon\""),
        "{text}"
    );
}

/// How many processes have a command line that contains this.
fn running(command: &str) -> usize {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = pids.filter_map(|e| std::fs::read_to_string(e.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(command)).count()
}
