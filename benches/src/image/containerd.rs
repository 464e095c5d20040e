//! containerd: a daemon of our own, which has its root, its state and its socket in the measured folder, and unpacks what `ctr` imports.

use super::peers::{run, source};
use super::{Place, cleaned};
use crate::Result;
use crate::area::{Contender, Role};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Whatever takes longer to start does not start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing of it but content, snapshots and images.
const CONFIG: &str = r#"version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
"#;

/// A daemon, and the image as an archive that it can import.
struct Daemon {
    process: Child,
    socket: PathBuf,
    archive: PathBuf,
}

impl Daemon {
    fn start(place: &Place) -> Result<Self> {
        let folder = place.folder.path().join("containerd");
        fs::create_dir(&folder)?;
        let (socket, archive, config) = (folder.join("socket"), folder.join("image.tar"), folder.join("config.toml"));
        fs::write(&config, CONFIG)?;
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet"]).arg(source(place, "oci:"));
        run(copy.arg(format!("oci-archive:{}:{}", archive.display(), place.tag)))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(config).arg("--root").arg(folder.join("root")).arg("--state");
        command.arg(folder.join("state")).arg("--address").arg(&socket).arg("--log-level").arg("error");
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let daemon = Daemon { process, socket, archive };
        let start = Instant::now();
        while UnixStream::connect(&daemon.socket).is_err() {
            if start.elapsed() > PATIENCE {
                return Err("containerd does not start".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", "bench"]).args(args);
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Imported and unpacked, which it does one after the other.
pub(super) fn of(place: &Arc<Place>) -> Contender {
    let daemon: Arc<Mutex<Option<Daemon>>> = Arc::default();
    let of_clean = Arc::clone(&daemon);
    let work = move |place: &Place, _: &Path| {
        let mut daemon = daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = match &mut *daemon {
            Some(daemon) => daemon,
            none => none.insert(Daemon::start(place)?),
        };
        run(daemon.ctr(&["image", "import", "--base-name", "bench", "--snapshotter", "overlayfs"]).arg(&daemon.archive))
    };
    let clean = move |place: &Place, _: &Path| {
        let daemon = of_clean.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(daemon) = &*daemon else { return Ok(()) };
        run(&mut daemon.ctr(&["image", "remove", "--sync", &format!("bench:{}", place.tag)]))
    };
    cleaned("ctr image import", Role::Peer, place, work, clean)
}
