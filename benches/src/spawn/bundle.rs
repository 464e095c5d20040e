//! What container engines want before they start a program.

use super::shape::{HOSTNAME, Shape};
use super::{Program, program};
use crate::Result;
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// The least that they accept: a root file system with the program in it, and a configuration.
#[derive(Debug)]
pub(crate) struct Bundle {
    folder: tempfile::TempDir,
}

impl Bundle {
    pub(crate) fn make(shape: Shape, program: &Program) -> Result<Self> {
        let bundle = Bundle { folder: tempfile::Builder::new().prefix("cofferdam-bundle-").tempdir()? };
        fs::create_dir(bundle.state())?;
        fs::write(bundle.path().join("config.json"), serde_json::to_vec(&config(shape, program))?)?;
        Ok(bundle)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Where an engine keeps what it knows.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

fn config(shape: Shape, program: &Program) -> Value {
    let namespaces = shape.namespaces.iter_names().map(|(name, _)| {
        let kind = if name == "NET" { "network".to_owned() } else { name.to_lowercase() };
        json!({"type": kind})
    });
    let mut linux = json!({"namespaces": namespaces.collect::<Vec<_>>()});
    if shape.namespaces.contains(cofferdam_namespaces::Namespaces::USER) {
        let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        linux["uidMappings"] = map(geteuid().as_raw());
        linux["gidMappings"] = map(getegid().as_raw());
    }
    json!({
        "ociVersion": "1.0.2",
        // An engine looks the program up.
        "process": {"user": {"uid": 0, "gid": 0}, "args": [program::INSIDE], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": program.folder()},
        "hostname": HOSTNAME.to_string_lossy(),
        "mounts": [
            mount("/proc", "proc", &["nosuid", "nodev", "noexec"]),
            mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        ],
        "linux": linux,
    })
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

/// A name that no container on this machine has.
pub(crate) fn container_id(nth: u64) -> String {
    format!("cofferdam-bench-{}-{nth}", std::process::id())
}
