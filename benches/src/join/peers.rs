//! What people use today: nsenter(1) on the same target, and a container engine on a container of its own of the same shape.

use super::check;
use super::target::Target;
use crate::Result;
use crate::area::{Contender, Role};
use crate::spawn::run::of_command;
use crate::spawn::{Bundle, Program, Shape, container_id, found};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// They, and what is to be kept meanwhile.
pub(super) fn of(shape: Shape, program: &Arc<Program>, target: &Arc<Target>) -> (Vec<Contender>, Option<Container>) {
    let mut contenders = Vec::new();
    if found("nsenter") {
        let (pid, path) = (target.pid().to_string(), program.path(shape));
        let keep = !nix::unistd::geteuid().is_root();
        contenders.push(contender("nsenter(1)", move || {
            let mut command = Command::new("nsenter");
            if keep {
                command.arg("--preserve-credentials");
            }
            command.args(["-a", "-t", &pid, "--"]).arg(&path);
            command
        }));
    }
    // Where a container cannot be had, it does without.
    let container = if shape.root && found("runc") { Container::start(shape, program).ok() } else { None };
    if let Some(container) = &container {
        let (state, name) = (container.bundle.state(), container.name.clone());
        contenders.push(contender("runc exec", move || {
            let mut command = runc(&state);
            command.args(["exec", &name, "/bin/probe"]);
            command
        }));
    }
    (contenders, container)
}

fn runc(state: &PathBuf) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(state).arg("--rootless=true");
    command
}

/// A container that sleeps.
#[derive(Debug)]
pub(super) struct Container {
    bundle: Bundle,
    name: String,
}

impl Container {
    fn start(shape: Shape, program: &Program) -> Result<Self> {
        let container = Container { bundle: Bundle::make(shape, program)?, name: container_id(0) };
        let file = container.bundle.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
        config["process"]["args"] = serde_json::json!(["/bin/busybox", "sleep", "1000000"]);
        fs::write(&file, serde_json::to_vec(&config)?)?;
        let mut command = runc(&container.bundle.state());
        command.args(["run", "--detach", "--bundle"]).arg(container.bundle.path()).arg(&container.name);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if status.success() { Ok(container) } else { Err(status.to_string().into()) }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = runc(&self.bundle.state()).args(["delete", "--force", &self.name]).status();
    }
}

fn contender(name: &str, make: impl Fn() -> Command + Send + Sync + 'static) -> Contender {
    let make = Arc::new(make);
    Contender::new(name, Role::Peer, move || {
        let make = Arc::clone(&make);
        move || of_command(make(), |said, _| check(said))
    })
}
