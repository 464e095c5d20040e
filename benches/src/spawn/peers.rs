//! What people use today: std, and programs where they are found (`install-peers` installs them).
//!
//! Each is given the options that make it do the least that has the effect; where it cannot do less than it does
//! (a container engine needs a root file system and changes into it), it does more than ours.

use super::bundle::{Bundle, container_id};
use super::{HOSTNAME, Program, Shape, Variant, Way, check, own_hostname};
use crate::Result;
use crate::area::{Contender, Role, Sample};
use crate::floor::fork;
use nix::unistd::{getegid, geteuid};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The peers of a variant, and what they need meanwhile.
pub(super) fn of(variant: Variant, program: &Arc<Program>) -> Result<(Vec<Contender>, Option<Bundle>)> {
    if variant.way == Way::OneShot && variant.shape == Shape::Namespaces {
        return Ok((Vec::new(), None));
    }
    match variant.shape {
        Shape::Plain => Ok((std_command(program, variant.threads == 1)?, None)),
        // A container engine takes so long that eight of them at once, round after round, would take hours.
        Shape::Namespaces if variant.threads > 1 => Ok((Vec::new(), None)),
        Shape::Namespaces => {
            let bundle = Bundle::make(program)?;
            Ok((programs(program, &bundle)?, Some(bundle)))
        }
    }
}

/// std shares memory while it can (`posix_spawn`), and forks when it is given a closure to run.
fn std_command(program: &Program, fork_too: bool) -> Result<Vec<Contender>> {
    let path = program.path();
    let hostname = own_hostname()?;
    let mut contenders = Vec::new();
    for (name, fork) in [("std Command", false), ("std Command + pre_exec (fork)", true)] {
        if fork && !fork_too {
            continue;
        }
        let expect = Expect { pid: None, hostname: hostname.clone() };
        contenders.push(contender(name, expect, path.clone(), move |path, _| {
            let mut command = Command::new(path);
            if fork {
                fork::with_pre_exec(&mut command);
            }
            command
        }));
    }
    Ok(contenders)
}

/// Programs for sandboxes and containers.
fn programs(program: &Program, bundle: &Bundle) -> Result<Vec<Contender>> {
    let inside = || Expect { pid: Some(1), hostname: HOSTNAME.to_string_lossy().into_owned() };
    let mut contenders = Vec::new();
    if found("unshare") {
        // It cannot set a host name.
        let expect = Expect { pid: Some(1), hostname: own_hostname()? };
        contenders.push(contender("unshare(1)", expect, program.path(), |path, _| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--pid", "--fork", "--mount-proc", "--uts", "--ipc", "--net"]).arg(path);
            command
        }));
    }
    if found("bwrap") {
        contenders.push(contender("bwrap", inside(), program.path(), |path, _| {
            let mut command = Command::new("bwrap");
            command.args(["--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--as-pid-1"]);
            command.args(["--unshare-ipc", "--unshare-net", "--unshare-uts", "--hostname"]);
            command.arg(&*HOSTNAME.to_string_lossy()).args(["--dev-bind", "/", "/", "--proc", "/proc", "--"]).arg(path);
            command
        }));
    }
    if found("hakoniwa") {
        contenders.push(contender("hakoniwa", inside(), program.path(), |path, _| {
            let mut command = Command::new("hakoniwa");
            command.args(["run", "--unshare-ipc", "--unshare-network", "--unshare-uts", "--hostname"]);
            command.arg(&*HOSTNAME.to_string_lossy());
            command.args(["--uidmap", &format!("0:{}:1", geteuid()), "--gidmap", &format!("0:{}:1", getegid())]);
            // Its root has only some folders of the host's.
            let folder = path.parent().unwrap_or(path).display();
            command.args([
                "--seccomp",
                "unconfined",
                "--bindmount-ro",
                &format!("{folder}:/bench"),
                "--",
                "/bench/probe",
            ]);
            command
        }));
    }
    for (engine, options) in [("runc", &[][..]), ("crun", &["--cgroup-manager=disabled"][..])] {
        if found(engine) {
            let state = bundle.state();
            contenders.push(contender(engine, inside(), bundle.path(), move |bundle, nth| {
                let mut command = Command::new(engine);
                command.arg("--root").arg(&state).args(options);
                command.args(["run", "--bundle"]).arg(bundle).arg(container_id(nth));
                command
            }));
        }
    }
    Ok(contenders)
}

/// What the probe should say; of a process in our pid namespace the id that we know.
#[derive(Debug, Clone)]
struct Expect {
    pid: Option<u32>,
    hostname: String,
}

/// A contender that is a command; `make` gets `path` and the number of the run.
fn contender(
    name: &str,
    expect: Expect,
    path: PathBuf,
    make: impl Fn(&Path, u64) -> Command + Send + Sync + 'static,
) -> Contender {
    let make = Arc::new(make);
    let count = Arc::new(AtomicU64::new(0));
    Contender::new(name, Role::Peer, move || {
        let (make, count, expect, path) = (Arc::clone(&make), Arc::clone(&count), expect.clone(), path.clone());
        move || run(make(&path, count.fetch_add(1, Ordering::Relaxed)), &expect)
    })
}

fn run(mut command: Command, expect: &Expect) -> Result<Sample> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let returned = start.elapsed();
    let mut buffer = [0; 128];
    let len = child.stdout.take().ok_or("no pipe")?.read(&mut buffer)?;
    let status = child.wait()?;
    let whole = start.elapsed();
    if !status.success() {
        return Err(status.to_string().into());
    }
    check(&buffer[..len], expect.pid.unwrap_or(child.id()), &expect.hostname)?;
    Ok(Sample { whole, returned })
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
