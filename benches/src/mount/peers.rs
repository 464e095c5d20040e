//! What people use today: `mount(8)` and `umount(8)` as programs, and `mount(2)` with all layers in one string.

use super::Place;
use crate::Result;
use crate::area::{Contender, Role, Sample};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// What mount(2) takes of a string of options; it drops the rest without a word.
const MOST: usize = 4095;

pub(super) fn of(place: &Arc<Place>) -> Vec<Contender> {
    let (target, lowers) = (place.target(), place.lowers());
    let mut contenders = vec![program(place)];
    let absolute = options(&lowers, place.upper_and_work());
    // A path of usual length for each of many lowers does not fit.
    if absolute.len() <= MOST {
        let writable = place.upper_and_work().is_some();
        let bound = lowers.into_iter().next().unwrap_or_default();
        let work = move |target: &Path| if writable { overlay(target, &absolute) } else { bind(target, &bound) };
        contenders.push(contender("mount(2)", place, target, work, |target| Ok(umount2(target, MntFlags::empty())?)));
    }
    contenders
}

fn overlay(target: &Path, options: &str) -> Result<()> {
    Ok(mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options))?)
}

fn bind(target: &Path, lower: &Path) -> Result<()> {
    mount(Some(lower), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    Ok(mount(None::<&str>, target, None::<&str>, read_only, None::<&str>)?)
}

/// It is started in the folder of the layers, so that their names are short enough for 500 of them.
fn program(place: &Arc<Place>) -> Contender {
    let lowers = place.lowers();
    let folder = lowers.first().and_then(|lower| lower.parent()).map(Path::to_owned).unwrap_or_default();
    let names: Vec<PathBuf> = lowers.iter().filter_map(|lower| lower.file_name()).map(PathBuf::from).collect();
    let writable = place.upper_and_work();
    let arguments = match &writable {
        Some(_) => ["-t".into(), "overlay".into(), "-o".into(), options(&names, writable), "overlay".into()].to_vec(),
        None => ["--bind".into(), "-o".into(), "ro".into(), lowers[0].display().to_string()].to_vec(),
    };
    let mount = move |target: &Path| run(Command::new("mount").args(&arguments).arg(target).current_dir(&folder));
    contender("mount(8)", place, place.target(), mount, |target| run(Command::new("umount").arg(target)))
}

fn options(lowers: &[PathBuf], writable: Option<(PathBuf, PathBuf)>) -> String {
    let lowers: Vec<String> = lowers.iter().map(|lower| lower.display().to_string()).collect();
    let lowers = format!("lowerdir={}", lowers.join(":"));
    match writable {
        Some((upper, work)) => format!("{lowers},upperdir={},workdir={}", upper.display(), work.display()),
        None => lowers,
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// Mounts at the target, looks, unmounts. The look is not timed: it would be the same for all.
fn contender(
    name: &str,
    place: &Arc<Place>,
    target: PathBuf,
    mount: impl Fn(&Path) -> Result<()> + Send + Sync + 'static,
    unmount: fn(&Path) -> Result<()>,
) -> Contender {
    let (place, mount) = (Arc::clone(place), Arc::new(mount));
    Contender::new(name, Role::Peer, move || {
        let (place, mount, target) = (Arc::clone(&place), Arc::clone(&mount), target.clone());
        move || {
            let start = Instant::now();
            mount(&target)?;
            let returned = start.elapsed();
            let seen = File::open(&target).map_err(Into::into).and_then(|root| place.check(&root));
            let start = Instant::now();
            unmount(&target)?;
            let whole = returned + start.elapsed();
            seen.map(|()| Sample { whole, returned })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_mount_takes_them() {
        let lowers = ["0".into(), "1".into()];
        assert_eq!(options(&lowers, None), "lowerdir=0:1");
        let writable = Some(("/w/upper".into(), "/w/work".into()));
        assert_eq!(options(&lowers, writable), "lowerdir=0:1,upperdir=/w/upper,workdir=/w/work");
    }
}
