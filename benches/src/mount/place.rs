//! The directories that are mounted, in a mount namespace that is the bench's own.

use super::Shape;
use crate::Result;
use cofferdam_unionfs::WritableLayer;
use nix::fcntl::AtFlags;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::fstatat;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Only the lowest layer has it.
const LOWEST: &str = "lowest";
/// Each layer has it, as long as the layer's number from the top, from 1.
const DEPTH: &str = "depth";

/// Lowers on the file system of `TMPDIR`; upper and work, if there are any, on a tmpfs.
#[derive(Debug)]
pub struct Place {
    shape: Shape,
    writable: Option<WritableLayer>,
    folder: tempfile::TempDir,
}

impl Place {
    /// Makes them. From here on this thread, and those that it starts, have a mount namespace of their own.
    ///
    /// # Errors
    /// Without the right to it, as for ordinary users; those of the file system.
    pub fn new(shape: Shape) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("cannot make a mount namespace: {e}"))?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let folder = tempfile::Builder::new().prefix("cofferdam-bench-").tempdir()?;
        let mut place = Place { shape, writable: None, folder };
        for name in ["layers", "writable", "target"] {
            fs::create_dir(place.path(name))?;
        }
        let lowers = place.lowers();
        for (nth, lower) in lowers.iter().enumerate() {
            fs::create_dir(lower)?;
            fs::write(lower.join(DEPTH), vec![b'.'; nth + 1])?;
        }
        fs::write(lowers.last().ok_or("no lower")?.join(LOWEST), "")?;
        if shape.is_writable() {
            let path = place.path("writable");
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
            place.writable = Some(WritableLayer::create(File::open(&path)?)?);
        }
        Ok(place)
    }

    /// The lowers, topmost first.
    #[must_use]
    pub fn lowers(&self) -> Vec<PathBuf> {
        (0..self.shape.lowers()).map(|nth| self.path("layers").join(nth.to_string())).collect()
    }

    /// Where something can be mounted.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.path("target")
    }

    /// The writable layer, as cofferdam has it.
    #[must_use]
    pub fn writable(&self) -> Option<&WritableLayer> {
        self.writable.as_ref()
    }

    /// Upper and work by their paths.
    #[must_use]
    pub fn upper_and_work(&self) -> Option<(PathBuf, PathBuf)> {
        let folder = self.path("writable");
        self.writable.is_some().then(|| (folder.join("upper"), folder.join("work")))
    }

    /// Looks at a mount: all lowers are in it, in their order, and it can be written to if that was wanted.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, root: impl AsFd) -> Result<()> {
        let lowest = fstatat(&root, LOWEST, AtFlags::AT_SYMLINK_NOFOLLOW);
        lowest.map_err(|e| format!("the lowest layer cannot be seen: {e}"))?;
        if fstatat(&root, DEPTH, AtFlags::AT_SYMLINK_NOFOLLOW)?.st_size != 1 {
            return Err("the topmost layer does not win".into());
        }
        if fstatvfs(&root)?.flags().contains(FsFlags::ST_RDONLY) == self.shape.is_writable() {
            return Err("read-only, or not, against what was wanted".into());
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What a run that failed has left, and then the tmpfs.
        for path in [self.target(), self.path("writable")] {
            while is_mounted(&path) && umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

/// On another device than what it lies in, or a bind mount.
fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}
