//! What it does not do, and says so in one line.

use crate::support::{PROGRAM, outcome, program};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::{env, fs, io};

/// Nothing on standard output, one line on standard error, and that exit status.
fn assert_refused(output: &Output, code: i32, says: &[&str]) {
    let (found, out, err) = outcome(output);
    assert_eq!((found, out), (Some(code), ""), "{err}");
    assert!(err.starts_with("busyloop-limit: ") && err.ends_with('\n') && err.lines().count() == 1, "{err:?}");
    for word in says {
        assert!(err.contains(word), "{word}: {err}");
    }
}

pub(crate) fn bad_use() {
    for (args, says) in [
        (&["--cpu", "0"][..], "--cpu \"0\""),
        (&["--cpu", "-5"], "--cpu \"-5\""),
        (&["--cpu", "abc"], "--cpu \"abc\""),
        (&["--cpu", "1e9"], "--cpu \"1e9\""),
        (&["--cpu", "NaN"], "--cpu \"NaN\""),
        (&["--cpu", "inf"], "--cpu \"inf\""),
        (&["--cpu", "0.5%"], "longer --period"),
        (&["--cpu"], "--cpu"),
        (&["--period", "999us"], "--period \"999us\""),
        (&["--period", "1001ms"], "--period \"1001ms\""),
        (&["--period", "5"], "--period \"5\""),
        (&["--threads", "0"], "--threads \"0\""),
        (&["--seconds", "-1"], "--seconds \"-1\""),
        (&["--a\nb\x1b[31m"], "--a b"),
        (&["--spin-inside", "2"], "--spin-inside"),
        (&["20%"], "20%"),
    ] {
        assert_refused(&program(args).output().unwrap(), 2, &[says]);
    }
}

pub(crate) fn help() {
    let output = program(&["--help"]).output().unwrap();
    let (code, out, err) = outcome(&output);
    assert_eq!((code, err), (Some(0), ""));
    assert!(out.contains("--cpu") && out.contains("--period"), "{out}");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert_eq!(program(&["--help"]).stdout(writer).status().unwrap().code(), Some(141));
}

/// What is missing, and what would give it. The user is nobody, who has no cgroup even where there are delegated ones.
pub(crate) fn an_ordinary_user_may_not() {
    // A copy: the folder of the program may be closed to others.
    let copy = env::temp_dir().join("busyloop-limit");
    fs::copy(PROGRAM, &copy).unwrap();
    let output = Command::new(&copy).uid(65534).gid(65534).output().unwrap();
    fs::remove_file(&copy).unwrap();
    let advice = ["Permission denied", "as root", "systemd-run --user --scope -p Delegate=yes", "container"];
    assert_refused(&output, 1, &advice);
}
