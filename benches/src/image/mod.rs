//! Unpacking the layers of a real image, with full verification, on a file system of one's choice.
//!
//! The image is a layout that `COFFERDAM_BENCH_LAYOUT` names, made by `examples/debian-image` (and `examples/debian-layers`): image `debian` of one
//! layer, `debian-layers` of several. Files go below `COFFERDAM_BENCH_DIR`, or `/dev/shm`: what they are on decides much.

mod by_hand;
#[cfg(feature = "peers")]
mod containerd;
mod cpu;
mod floors;
mod ours;
#[cfg(feature = "peers")]
mod peers;

use crate::Result;
use crate::area::{Area, Case, Contender, Ready, Role, Sample};
use cofferdam_image::{Image, Selection};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::syncfs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tempfile::TempDir;

/// The area.
pub const AREA: Area = Area { name: "image", cases, plots: &[], counted: false };

/// The image, and where its files go.
pub(crate) struct Place {
    layout: PathBuf,
    tag: &'static str,
    folder: TempDir,
    /// How many files there are in the end: every contender makes as many.
    files: std::sync::OnceLock<usize>,
    processors: cpu::Times,
    /// How much has been put away.
    put_away: AtomicUsize,
}

impl Place {
    fn new(tag: &'static str) -> Result<Self> {
        let layout = std::env::var_os("COFFERDAM_BENCH_LAYOUT").ok_or("COFFERDAM_BENCH_LAYOUT is not set")?;
        let dir = std::env::var_os("COFFERDAM_BENCH_DIR").unwrap_or_else(|| "/dev/shm".into());
        let folder = TempDir::new_in(dir)?;
        let place = Place {
            layout: layout.into(),
            tag,
            folder,
            files: std::sync::OnceLock::new(),
            processors: cpu::Times::new(tag),
            put_away: AtomicUsize::new(0),
        };
        place.image()?;
        Ok(place)
    }

    fn image(&self) -> Result<Image> {
        Ok(Image::open(&self.layout, &Selection::new().reference(self.tag))?)
    }

    /// The blob of an image of one layer.
    fn only_layer(&self) -> Option<PathBuf> {
        let image = self.image().ok()?;
        let [layer] = image.layers() else { return None };
        let digest = layer.digest.as_ref()?;
        Some(self.layout.join("blobs").join(digest.algorithm().name()).join(digest.hex()))
    }

    /// Checks what a contender has made, and removes it.
    fn clear(&self, made: &Path) -> Result<()> {
        let count = count(made)?;
        let expected = *self.files.get_or_init(|| count);
        self.put_away(made)?;
        if count == expected { Ok(()) } else { Err(format!("{count} files instead of {expected}").into()) }
    }

    /// Removes what a run has made: from memory at once, from a disk when all has been measured. For minutes ext4 does not take again an inode that was deleted, and
    /// looks at each of them for every new file: whoever came next would pay for that, and for what is still to be written.
    fn put_away(&self, made: &Path) -> Result<()> {
        if statfs(made)?.filesystem_type() == TMPFS_MAGIC {
            return Ok(std::fs::remove_dir_all(made)?);
        }
        let away = self.folder.path().join(format!("away-{}", self.put_away.fetch_add(1, Ordering::Relaxed)));
        std::fs::rename(made, &away)?;
        Ok(syncfs(std::fs::File::open(away)?)?)
    }
}

fn count(dir: &Path) -> Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        found += 1 + if entry.file_type()?.is_dir() { count(&entry.path())? } else { 0 };
    }
    Ok(found)
}

#[expect(clippy::unnecessary_wraps, reason = "as other areas")]
fn cases(quick: bool) -> Result<Vec<Case>> {
    let tags: &[&'static str] = if quick { &["debian"] } else { &["debian", "debian-layers"] };
    Ok(tags.iter().map(|tag| case(tag)).collect())
}

fn case(tag: &'static str) -> Case {
    Case {
        name: tag.to_owned(),
        threads: 1,
        point: None,
        ready: Box::new(move || {
            let place = Arc::new(Place::new(tag)?);
            let mut contenders = vec![ours::flatten(&place)];
            contenders.extend(floors::of(&place));
            #[cfg(feature = "peers")]
            contenders.extend(peers::of(&place));
            Ok(Ready { contenders, held: Box::new(place) })
        }),
    }
}

/// One way: `work` makes files below the folder that it is given, if it makes any.
fn contender(
    name: &str,
    role: Role,
    place: &Arc<Place>,
    work: impl Fn(&Place, &Path) -> Result<()> + Send + Sync + 'static,
) -> Contender {
    cleaned(name, role, place, work, |_, _| Ok(()))
}

/// The same, with what is to be removed elsewhere after each run, which is not measured.
fn cleaned(
    name: &str,
    role: Role,
    place: &Arc<Place>,
    work: impl Fn(&Place, &Path) -> Result<()> + Send + Sync + 'static,
    clean: impl Fn(&Place, &Path) -> Result<()> + Send + Sync + 'static,
) -> Contender {
    let (place, both, label) = (Arc::clone(place), Arc::new((work, clean)), name.to_owned());
    Contender::new(name, role, move || {
        let (place, both, label) = (Arc::clone(&place), Arc::clone(&both), label.clone());
        move || {
            let (work, clean) = &*both;
            let made = place.folder.path().join("made");
            let (before, start) = (cpu::used()?, Instant::now());
            work(&place, &made)?;
            let whole = start.elapsed();
            place.processors.add(&label, cpu::used()? - before);
            clean(&place, &made)?;
            if made.exists() {
                place.clear(&made)?;
            }
            Ok(Sample { whole, returned: whole })
        }
    })
}
