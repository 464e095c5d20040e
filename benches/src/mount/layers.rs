//! What comes after a mount: a file copied up, what a writable layer has changed, a layer published.

use super::{Place, Shape};
use crate::Result;
use crate::area::{Case, Contender, Ready, Role, Sample};
use crate::floor::mount::Floor;
use cofferdam_unionfs::{Form, LayerId, LayerStore, Overlay, Owner, Stage, SyncPolicy};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Directories of an upper, and files in each: with the directories some ten thousand.
const DIRECTORIES: usize = 100;
const FILES: usize = 99;
/// Files of a layer that is published, of a block each.
const PUBLISHED: usize = 100;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("copy-up of 1 MiB", || copy_up().map(|(contenders, held)| Ready { contenders, held })),
        case("diff of 10,000 entries", || diff().map(|(contenders, held)| Ready { contenders, held })),
    ];
    for (name, policy) in [
        ("publish 100 files, no sync", SyncPolicy::None),
        ("publish 100 files, syncfs", SyncPolicy::Filesystem),
        ("publish 100 files, fsync of each", SyncPolicy::PerFile),
    ] {
        cases.push(case(name, move || publish(policy).map(|(contenders, held)| Ready { contenders, held })));
    }
    cases
}

fn case(name: &str, ready: impl FnOnce() -> Result<Ready> + 'static) -> Case {
    Case { name: name.to_owned(), threads: 1, point: None, ready: Box::new(ready) }
}

type Contenders = (Vec<Contender>, Box<dyn std::any::Any>);

/// A file of a lower is opened for writing, in our mount and in the floor's: the kernel copies it.
fn copy_up() -> Result<Contenders> {
    let place = Arc::new(Place::new(Shape::Overlay(1))?);
    let lower = place.lowers().into_iter().next().ok_or("no lower")?;
    fs::write(lower.join("large"), vec![7; 1 << 20])?;
    let writable = place.writable().ok_or("nothing to write to")?;
    let overlay = Overlay::new().lower(&lower).writable(writable);
    let floor = Floor {
        lowers: vec![CString::new(lower.into_os_string().into_vec())?],
        writable: Some((Arc::clone(writable.upper()), Arc::clone(writable.work()))),
    };
    let upper = place.upper_and_work().ok_or("no upper")?.0.join("large");
    let contender = |name, role, mount: Arc<dyn Fn() -> Result<OwnedFd> + Send + Sync>| {
        let upper = upper.clone();
        Contender::new(name, role, move || {
            let (mount, upper) = (Arc::clone(&mount), upper.clone());
            move || {
                let root = mount()?;
                let path = format!("/proc/self/fd/{}/large", root.as_raw_fd());
                let start = Instant::now();
                let file = OpenOptions::new().write(true).open(path)?;
                let whole = start.elapsed();
                drop((file, root));
                if fs::metadata(&upper)?.len() != 1 << 20 {
                    return Err("it was not copied".into());
                }
                fs::remove_file(&upper)?;
                Ok(Sample { whole, returned: whole })
            }
        })
    };
    let contenders = vec![
        contender("cofferdam", Role::Cofferdam, Arc::new(move || Ok(overlay.mount()?))),
        contender("floor", Role::Floor, Arc::new(move || Ok(floor.mount()?))),
    ];
    Ok((contenders, Box::new(place)))
}

/// What an upper of ten thousand entries changes; the floor lists and stats them.
fn diff() -> Result<Contenders> {
    let place = Arc::new(Place::new(Shape::Overlay(1))?);
    let (upper, _) = place.upper_and_work().ok_or("no upper")?;
    for directory in 0..DIRECTORIES {
        let directory = upper.join(directory.to_string());
        fs::create_dir(&directory)?;
        (0..FILES).try_for_each(|file| fs::write(directory.join(file.to_string()), "x"))?;
    }
    let expected = DIRECTORIES * (FILES + 1);
    let overlay = Overlay::new().lowers(place.lowers()).writable(place.writable().ok_or("nothing to write to")?);
    let ours = Contender::new("cofferdam", Role::Cofferdam, move || {
        let overlay = overlay.clone();
        move || {
            let start = Instant::now();
            let diff = overlay.diff()?;
            let whole = start.elapsed();
            let found = diff.changes().iter().filter(|change| !change.path.as_os_str().is_empty()).count();
            if found == expected { Ok(Sample { whole, returned: whole }) } else { Err("changes are missing".into()) }
        }
    });
    let floor = Contender::new("plain walk", Role::Floor, move || {
        let upper = upper.clone();
        move || {
            let start = Instant::now();
            let found = walk(&upper)?;
            let whole = start.elapsed();
            if found == expected { Ok(Sample { whole, returned: whole }) } else { Err("entries are missing".into()) }
        }
    });
    Ok((vec![ours, floor], Box::new(place)))
}

fn walk(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += 1;
        if entry.metadata()?.is_dir() {
            count += walk(&entry.path())?;
        }
    }
    Ok(count)
}

/// A layer that has been filled is published; the floor renames a folder after the same waiting. Filling and removing are not timed.
fn publish(policy: SyncPolicy) -> Result<Contenders> {
    let folder = tempfile::Builder::new().prefix("cofferdam-bench-").tempdir()?;
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("floor"));
    for path in [&ours, &theirs.join("new"), &theirs.join("layers")] {
        fs::create_dir_all(path)?;
    }
    let store = LayerStore::open(File::open(ours)?, Form::Trusted)?.sync_policy(policy);
    let (owner, count) = (Owner::new("bench")?, Arc::new(AtomicU64::new(0)));
    let cofferdam = Contender::new("cofferdam", Role::Cofferdam, move || {
        let (store, owner, count) = (store.clone(), owner.clone(), Arc::clone(&count));
        move || {
            let stage: Stage = store.stage(&owner)?;
            fill(&PathBuf::from(format!("/proc/self/fd/{}", stage.as_fd().as_raw_fd())))?;
            let id = LayerId::new(count.fetch_add(1, Ordering::Relaxed).to_string())?;
            let start = Instant::now();
            let layer = stage.publish(&id, None)?;
            let whole = start.elapsed();
            if layer.is_synced() != (policy != SyncPolicy::None) {
                return Err("it was not waited for".into());
            }
            drop(layer);
            store.release(&id, &owner)?;
            if store.remove(&id)? { Ok(Sample { whole, returned: whole }) } else { Err("it was not there".into()) }
        }
    });
    let floor = Contender::new("floor", Role::Floor, move || {
        let theirs = theirs.clone();
        move || {
            let (new, layers) = (theirs.join("new/layer"), theirs.join("layers"));
            fs::create_dir(&new)?;
            fill(&new)?;
            let start = Instant::now();
            match policy {
                SyncPolicy::Filesystem => nix::unistd::syncfs(File::open(&new)?)?,
                SyncPolicy::PerFile => {
                    for entry in fs::read_dir(&new)? {
                        File::open(entry?.path())?.sync_all()?;
                    }
                    File::open(&new)?.sync_all()?;
                }
                SyncPolicy::None => {}
            }
            fs::rename(&new, layers.join("layer"))?;
            if policy != SyncPolicy::None {
                File::open(&layers)?.sync_all()?;
            }
            let whole = start.elapsed();
            fs::remove_dir_all(layers.join("layer"))?;
            Ok(Sample { whole, returned: whole })
        }
    });
    Ok((vec![cofferdam, floor], Box::new(folder)))
}

fn fill(folder: &Path) -> Result<()> {
    (0..PUBLISHED).try_for_each(|file| fs::write(folder.join(file.to_string()), vec![b'x'; 4096]))?;
    Ok(())
}
