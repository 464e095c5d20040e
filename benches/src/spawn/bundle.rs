//! What container engines want before they start a program.

use super::{HOSTNAME, Program};
use crate::Result;
use nix::unistd::{getegid, geteuid};
use serde_json::json;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// The least that they accept: a root file system with the program in it, and a configuration.
#[derive(Debug)]
pub(super) struct Bundle {
    folder: tempfile::TempDir,
}

impl Bundle {
    pub(super) fn make(program: &Program) -> Result<Self> {
        let bundle = Bundle { folder: tempfile::Builder::new().prefix("cofferdam-bundle-").tempdir()? };
        let root = bundle.path().join("rootfs");
        let folders = [root.join("proc"), root.join("dev"), bundle.state()];
        for folder in folders {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        fs::copy(program.path(), root.join("probe"))?;
        let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        let namespaces = ["user", "pid", "mount", "uts", "ipc", "network"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            // An engine may look the program up.
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/probe"], "cwd": "/", "env": ["PATH=/"]},
            "root": {"path": "rootfs"},
            "hostname": HOSTNAME.to_string_lossy(),
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
                // All of them put devices there.
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            ],
            "linux": {
                "namespaces": namespaces,
                "uidMappings": map(geteuid().as_raw()),
                "gidMappings": map(getegid().as_raw()),
            },
        });
        fs::write(bundle.path().join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(bundle)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Where an engine keeps what it knows.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }
}

/// A name that no container on this machine has.
pub(super) fn container_id(nth: u64) -> String {
    format!("cofferdam-bench-{}-{nth}", std::process::id())
}
