//! The command lines of other people's programs, for what a shape asks.

use super::bundle::container_id;
use super::shape::{HOSTNAME, Shape};
use super::{Program, program};
use cofferdam_namespaces::Namespaces;
use nix::unistd::{getegid, geteuid};
use std::path::Path;
use std::process::Command;

/// The root of its own, by a shell.
const PIVOT: &str = include_str!("pivot.sh");

fn hostname() -> String {
    HOSTNAME.to_string_lossy().into_owned()
}

/// The options of a tool for those namespaces of the shape that it does not make anyway.
fn options(shape: Shape, known: &[(Namespaces, &'static str)]) -> Vec<&'static str> {
    known.iter().filter(|(namespace, _)| shape.has(*namespace)).map(|(_, option)| *option).collect()
}

/// On the host's root it mounts `/proc`, but cannot set a host name; a root of its own is left to a script.
pub(super) fn unshare(shape: Shape, program: &Program) -> Command {
    let mut command = Command::new("unshare");
    let known = [
        (Namespaces::USER, "--map-root-user"),
        (Namespaces::PID, "--pid"),
        (Namespaces::MOUNT, "--mount"),
        (Namespaces::UTS, "--uts"),
        (Namespaces::IPC, "--ipc"),
        (Namespaces::NET, "--net"),
    ];
    command.arg("--fork").args(options(shape, &known));
    if shape.root {
        let devices = if shape.has(Namespaces::USER) { "host-devices" } else { "own-devices" };
        command.args(["busybox", "sh", "-c", PIVOT, "pivot.sh"]).arg(program.folder());
        command.args([&hostname(), program::INSIDE, devices]);
    } else {
        command.arg("--mount-proc").arg(program.path(shape));
    }
    command
}

pub(super) fn bwrap(shape: Shape, program: &Program) -> Command {
    let mut command = Command::new("bwrap");
    if shape.has(Namespaces::USER) {
        command.args(["--unshare-user", "--uid", "0", "--gid", "0"]);
    }
    let known = [
        (Namespaces::PID, "--unshare-pid"),
        (Namespaces::UTS, "--unshare-uts"),
        (Namespaces::IPC, "--unshare-ipc"),
        (Namespaces::NET, "--unshare-net"),
    ];
    command.args(options(shape, &known)).args(["--as-pid-1", "--hostname", &hostname()]);
    if shape.root {
        command.arg("--bind").arg(program.folder()).args(["/", "--proc", "/proc", "--dev", "/dev"]);
        command.args(["--perms", "1777", "--size", "67108864", "--tmpfs", "/dev/shm"]);
    } else {
        command.args(["--dev-bind", "/", "/", "--proc", "/proc"]);
    }
    command.arg("--").arg(program.path(shape));
    command
}

/// Always in user, pid and mount namespaces, always in a new root of some folders of another one.
pub(super) fn hakoniwa(shape: Shape, program: &Program) -> Command {
    let mut command = Command::new("hakoniwa");
    let known = [
        (Namespaces::UTS, "--unshare-uts"),
        (Namespaces::IPC, "--unshare-ipc"),
        (Namespaces::NET, "--unshare-network"),
    ];
    command.arg("run").args(options(shape, &known)).args(["--hostname", &hostname(), "--seccomp", "unconfined"]);
    command.args(["--uidmap", &format!("0:{}:1", geteuid()), "--gidmap", &format!("0:{}:1", getegid())]);
    command.arg("--rootfs").arg(program.folder());
    if shape.root {
        command.args(["--devfs", "/dev", "--tmpfs", "/dev/shm"]);
    }
    command.args(["--", program::INSIDE]);
    command
}

/// Those that may not be able to make control groups are not told of it: it is no error then.
pub(super) fn runc(bundle: &Path, state: &Path, nth: u64) -> Command {
    engine("runc", &["--rootless=true"], bundle, state, nth)
}

pub(super) fn crun(bundle: &Path, state: &Path, nth: u64) -> Command {
    engine("crun", &["--cgroup-manager=disabled"], bundle, state, nth)
}

fn engine(name: &str, options: &[&str], bundle: &Path, state: &Path, nth: u64) -> Command {
    let mut command = Command::new(name);
    command.arg("--root").arg(state).args(options);
    command.args(["run", "--bundle"]).arg(bundle).arg(container_id(nth));
    command
}
