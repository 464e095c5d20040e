//! run-in-rootfs, with a root of busybox alone and with the machine's own Debian.

use crate::support::outcome;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_run-in-rootfs");

fn run(line: &str, script: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace()).args(script).stdin(Stdio::null());
    command.output().unwrap()
}

/// What it prints, if it prints no complaint.
fn said(line: &str, script: &[&str]) -> String {
    let output = run(line, script);
    let (code, out, err) = outcome(&output);
    assert_eq!((code, err), (Some(0), ""), "{line} {script:?}: {out}");
    out.to_owned()
}

/// A root with one program, as a directory.
pub(crate) fn a_root_of_busybox() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in ["sh", "ps", "top", "hostname", "id", "ls", "cat"] {
        symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    let line = format!(
        "--root {} --proc /proc --dev /dev --tmpfs /tmp --ro-bind /etc/hostname /etc/deep/hostname \
         --unshare-all --uid 0 --gid 0 --hostname box --clearenv --setenv PATH /bin --chdir /tmp --die-with-parent",
        root.path().display()
    );
    assert_eq!(
        said(&line, &["sh", "-c", "pwd; hostname; id -u; echo /*"]),
        "/tmp\nbox\n0\n/bin /dev /etc /proc /tmp\n"
    );
    assert_eq!(said(&line, &["cat", "/etc/deep/hostname"]), fs::read_to_string("/etc/hostname").unwrap());
    assert_eq!(said(&line, &["ps", "-o", "pid,comm"]), "PID   COMMAND\n    1 ps\n");
    assert!(said(&line, &["top", "-b", "-n", "1"]).contains("1     0 0"), "top shows itself");
    let output = run(&line, &["sh", "-c", "exit 7"]);
    assert_eq!(outcome(&output), (Some(7), "", ""));
    assert_eq!(run(&line, &["sh", "-c", "kill -9 $$"]).status.code(), Some(0), "process 1 is not killed by its own");
}

/// The machine's own Debian, read-only, as bwrap's users do it.
pub(crate) fn the_hosts_debian() {
    let line =
        "--ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --tmpfs /run --unshare-all --uid 0 --gid 0 --hostname box";
    assert_eq!(
        said(
            line,
            &["sh", "-c", "hostname; id -u; echo x >/tmp/x && cat /tmp/x; echo x 2>/dev/null >/usr/x || echo refused"]
        ),
        "box\n0\nx\nrefused\n"
    );
    assert_eq!(said(line, &["ps", "-e", "-o", "pid=,comm="]).trim(), "1 ps");
    assert!(said(line, &["top", "-b", "-n", "1"]).contains(" 1 root "));
    assert_eq!(
        said(line, &["python3", "-c", "import os, socket; print(os.getpid(), socket.gethostname())"]),
        "1 box\n"
    );
    // No network is asked: it prints what it would fetch.
    let uris = run(line, &["apt-get", "--print-uris", "update"]);
    let (code, out, err) = outcome(&uris);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("InRelease"), "{out}{err}");
}

/// An empty root with what is bound there, and what it says when that does not do.
pub(crate) fn an_empty_root_and_refusals() {
    let line = "--ro-bind /bin/busybox /bin/sh --proc /proc --mask /proc/version --clearenv";
    assert_eq!(
        said(line, &["/bin/sh", "-c", "echo /* /bin/*; read -r line </proc/version; echo \"$line\""]),
        "/bin /proc /bin/sh\n\n"
    );
    let refused = |line: &str, code: i32, says: &str| {
        let output = run(line, &[]);
        let (found, out, err) = outcome(&output);
        assert_eq!((found, out, err.lines().count()), (Some(code), "", 1), "{err}");
        assert!(err.starts_with("run-in-rootfs: ") && err.contains(says), "{err}");
    };
    refused("--ro-bind /bin/busybox /bin/sh /bin/missing", 127, "/bin/missing");
    refused("--bind /nowhere /x /bin/sh", 125, "/nowhere");
    refused("--tmpfs relative /bin/sh", 125, "relative");
    refused("--ro-bind", 2, "--ro-bind");
    let help = run("--help", &[]);
    assert!(outcome(&help).1.contains("--die-with-parent"));
    let explained = said(&format!("{line} --explain"), &["/bin/sh"]);
    assert!(
        explained.contains("mount: move_mount(/bin/sh)\n") && explained.ends_with("execve(/bin/sh)\n"),
        "{explained}"
    );
}
