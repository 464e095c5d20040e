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

/// What bwrap's users are used to beside mounts: each option, by what the program sees of it.
pub(crate) fn what_bwrap_has() {
    let busy = "--ro-bind /bin/busybox /usr/bin/busybox --symlink busybox /usr/bin/sh --symlink usr/bin /bin --proc /proc --clearenv";
    let script = [
        "/bin/sh",
        "-c",
        "echo $0; busybox readlink /bin; busybox readlink /bin/sh; busybox stat -c %a /var/empty; echo /nothing*",
    ];
    let line = format!(
        "{busy} --setenv PATH /bin --dir /var/empty --bind-try /nowhere /nothing --ro-bind-try /nowhere /nothing2 --dev-bind-try /nowhere /nothing3"
    );
    assert_eq!(said(&line, &script), "/bin/sh\nusr/bin\nbusybox\n755\n/nothing*\n");
    let there =
        format!("{line} --bind-try /etc/hostname /a --ro-bind-try /etc/hostname /b --dev-bind-try /dev/null /c");
    let name = fs::read_to_string("/etc/hostname").unwrap();
    let read = ["/bin/sh", "-c", "busybox cat /a /b; echo x >/c && echo written"];
    assert_eq!(said(&there, &read), format!("{name}{name}written\n"));
    // The name it is called by; that it is process 1.
    let name = format!("{line} --argv0 cat --as-pid-1");
    assert_eq!(said(&name, &["/bin/busybox", "/proc/self/cmdline"]), "cat\0/proc/self/cmdline\0");
    assert_eq!(said(&format!("{line} --as-pid-1"), &["/bin/sh", "-c", "echo $$"]), "1\n");
    // Capabilities of a user that has none by itself.
    let has = |options: &str| {
        let line = format!("{line} --uid 7 --gid 7 {options}");
        let text = said(&line, &["/bin/sh", "-c", "busybox grep Cap /proc/self/status"]);
        let bits = |set: &str| text.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim().to_owned();
        (bits("CapEff:"), bits("CapBnd:") == bits("CapEff:"))
    };
    let (kill, none) = (format!("{:016x}", 1 << 5), format!("{:016x}", 0));
    assert_eq!(has("--cap-drop ALL --cap-add CAP_KILL"), (kill.clone(), true));
    assert_eq!(has("--cap-add ALL --cap-drop ALL --cap-add kill"), (kill, true));
    assert_eq!(has("--cap-drop ALL"), (none.clone(), true));
    assert_eq!(has(""), (none, false));
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
