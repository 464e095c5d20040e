//! What people use today. buildah's storage must be on the measured file system too, so it is given one there.

use super::{Place, cleaned, containerd, contender};
use crate::Result;
use crate::area::{Contender, Role};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

pub(super) fn of(place: &Arc<Place>) -> Vec<Contender> {
    let mut contenders = vec![contender("umoci raw unpack", Role::Peer, place, |place, made| {
        run(Command::new("umoci").args(["raw", "unpack", "--image"]).arg(source(place, "")).arg(made))
    })];
    // Into its storage, where the files stay: they are removed, but not counted.
    contenders.push(cleaned(
        "buildah from",
        Role::Peer,
        place,
        |place, made| {
            let mut command = Command::new("buildah");
            command.args(["--storage-driver", "overlay", "--root"]).arg(made.with_file_name("storage"));
            command.arg("--runroot").arg(made.with_file_name("run")).arg("from").arg(source(place, "oci:"));
            run(&mut command)
        },
        |place, made| place.put_away(&made.with_file_name("storage")),
    ));
    contenders.push(containerd::of(place));
    if place.only_layer().is_some() {
        for (name, program) in [("gzip | tar", "gzip"), ("pigz | tar", "pigz")] {
            contenders.push(contender(name, Role::Peer, place, move |place, made| {
                let script =
                    format!("{program} -dc \"$1\" | tar -x --numeric-owner -p --xattrs --xattrs-include='*' -C \"$2\"");
                extract(place, made, &script)
            }));
        }
        contenders.push(contender("bsdtar", Role::Peer, place, |place, made| {
            extract(place, made, "bsdtar -x --numeric-owner -p -f \"$1\" -C \"$2\"")
        }));
    }
    contenders
}

pub(super) fn source(place: &Place, prefix: &str) -> String {
    format!("{prefix}{}:{}", place.layout.display(), place.tag)
}

fn extract(place: &Place, made: &Path, script: &str) -> Result<()> {
    std::fs::create_dir(made)?;
    let blob = place.only_layer().ok_or("not of one layer")?;
    run(Command::new("sh").args(["-c", script, "sh"]).arg(blob).arg(made))
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned().into())
}
