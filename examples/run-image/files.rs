//! The container's files: layers in directories, stacked into a mount.

use crate::Result;
use cofferdam_image::{Image, Options};
use cofferdam_unionfs::{Form, Overlay, WritableLayer};
use std::fs::{DirBuilder, File, create_dir, remove_dir_all};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A directory of our own with the layers in it, and one more for what the container writes.
pub(crate) struct Files {
    folder: PathBuf,
    /// Lowest first.
    layers: Vec<Arc<File>>,
    form: Form,
    kept: bool,
}

impl Files {
    pub(crate) fn unpack(image: &Image, rootless: bool) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("run-image-{}", std::process::id()));
        // Closed to others: layers have set-user-id programs.
        DirBuilder::new().mode(0o700).create(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let (form, options) = match rootless {
            true => (Form::User, Options::rootless()),
            false => (Form::Trusted, Options::new()),
        };
        let mut files = Files { folder, layers: Vec::new(), form, kept: true };
        for number in 0..image.layers().len() {
            let path = files.folder.join(number.to_string());
            create_dir(&path)?;
            let stage = File::open(&path)?;
            let below: Vec<_> = files.layers.iter().map(AsFd::as_fd).collect();
            image.unpack_layer(number, stage.as_fd(), &below, &options)?;
            files.layers.push(Arc::new(stage));
        }
        Ok(files)
    }

    /// The layers, and on top of them an empty one to be written to.
    pub(crate) fn mount(&self) -> Result<OwnedFd> {
        let folder = File::open(&self.folder)?;
        let writable = WritableLayer::create(&folder)?;
        if let Some(top) = self.layers.last() {
            writable.set_root_like(top)?;
        }
        let layers = self.layers.iter().rev().map(|layer| layer.as_fd().try_clone_to_owned());
        let layers = layers.collect::<std::io::Result<Vec<_>>>()?;
        Ok(Overlay::new().lowers(layers).writable(&writable).form(self.form).mount()?)
    }

    /// Removes everything.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kept = false;
        self.remove_all()
    }

    fn remove_all(&self) -> Result<()> {
        WritableLayer::remove(File::open(&self.folder)?)?;
        Ok(remove_dir_all(&self.folder)?)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if self.kept {
            // On the way out of an error, which is told instead.
            let _ = self.remove_all();
        }
    }
}
