//! The container's files: layers in directories, stacked into a mount.

use crate::signals::Signals;
use crate::{Result, say};
use cofferdam_image::{Image, Options, Policy};
use cofferdam_unionfs::{Form, Overlay, WritableLayer};
use nix::unistd::mkdtemp;
use std::fs::{File, create_dir, remove_dir_all};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// A folder of our own with the layers in it, and beside them what the container writes. It is removed when this is dropped.
pub(crate) struct Files {
    folder: PathBuf,
    /// Lowest first.
    layers: Vec<File>,
    form: Form,
    removed: bool,
}

impl Files {
    pub(crate) fn unpack(image: &Image, signals: &Signals, rootless: bool) -> Result<Self> {
        let (form, options) =
            if rootless { (Form::User, Options::rootless()) } else { (Form::Trusted, Options::new()) };
        // What cannot be had is said below.
        let options = options.policy(Policy::Lenient);
        // Nobody else can enter it: layers have set-user-id programs.
        let folder = std::env::temp_dir().join("run-image-XXXXXX");
        let folder = mkdtemp(&folder).map_err(|errno| format!("make the folder {folder:?}: {errno}"))?;
        let mut files = Files { folder, layers: Vec::new(), form, removed: false };
        for number in 0..image.layers().len() {
            signals.check()?;
            let path = files.folder.join(number.to_string());
            create_dir(&path)?;
            let stage = File::open(&path)?;
            let below: Vec<_> = files.layers.iter().map(AsFd::as_fd).collect();
            let report = image.unpack_layer(number, stage.as_fd(), &below, &options)?;
            if let Some(first) = report.skipped.first() {
                let count = report.skipped.len();
                say(&format!("layer {number}: {count} parts were left out, the first of them {first}"));
            }
            files.layers.push(stage);
        }
        Ok(files)
    }

    /// The layers, and on top of them an empty one to be written to.
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        let writable = WritableLayer::create(File::open(&self.folder)?)?;
        if let Some(top) = self.layers.last() {
            writable.set_root_like(top)?;
        }
        let topmost_first = self.layers.iter().rev().map(|layer| layer.as_fd().try_clone_to_owned());
        let lowers = topmost_first.collect::<io::Result<Vec<_>>>()?;
        Ok(Overlay::new().lowers(lowers).writable(&writable).form(self.form).mount()?)
    }

    pub(crate) fn remove(mut self) -> Result<()> {
        self.removed = true;
        self.remove_all()
    }

    fn remove_all(&self) -> Result<()> {
        // First, and not by std: a container can make a tree so deep that descriptors run out. An image cannot.
        WritableLayer::remove(File::open(&self.folder)?)?;
        Ok(remove_dir_all(&self.folder).map_err(|e| format!("remove {:?}: {e}", self.folder))?)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.removed {
            // On the way out of an error, which is told instead.
            let _ = self.remove_all();
        }
    }
}
