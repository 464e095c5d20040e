//! Writes an image as `docker save` does: one tar archive, its layers not compressed.

use crate::archive::{Entry, Kind, pad, write_end, write_entry};
use crate::draft::may_be_written;
use crate::{Digest, Error, Image, Operation};
use serde_json::json;
use std::io::{self, Write};

impl Image {
    /// Writes the image as one archive, as `docker load` and `podman load` read it, under these names: `repository:tag`. Every layer is read
    /// twice: its length must be known first. It is verified both times; `manifest.json` comes last, so
    /// that what has been written until an error is no image.
    ///
    /// # Errors
    /// As [`read_layer`](Self::read_layer); [`Mismatch`](crate::ErrorKind::Mismatch) for a layer that is not what the image promises;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for one that must not be distributed; what writing says.
    #[doc(alias = "docker-archive")]
    pub fn save(&self, names: &[&str], mut to: impl Write) -> Result<(), Error> {
        let to = &mut to;
        let failed = |e| Error::from_io(Operation::Write, e);
        for (number, layer) in self.layers().iter().enumerate() {
            may_be_written(layer).map_err(|e| e.in_layer(number))?;
        }
        let config = self.config().json();
        let config_name = format!("{}.json", Digest::of(config).hex());
        let mut layers = Vec::new();
        for (number, layer) in self.layers().iter().enumerate() {
            let in_layer = |e: Error| e.in_layer(number);
            let name = format!("{}.tar", layer.diff_id.hex());
            // A layer that comes twice is in it once.
            if !layers.contains(&name) {
                let summary = self.read_layer(number)?.finish().map_err(in_layer)?;
                layer.verify(&summary).map_err(in_layer)?;
                write_entry(&file(&name, summary.size), to).map_err(failed)?;
                let mut archive = self.read_layer(number)?;
                let copied = io::copy(&mut archive, to).map_err(|e| in_layer(failed(e)))?;
                // It may be another one by now.
                let again = archive.finish().map_err(in_layer)?;
                layer.verify(&again).map_err(in_layer)?;
                if copied != summary.size {
                    return Err(in_layer(Error::differs(Operation::Write, &summary.size, &copied)));
                }
                pad(copied, to).map_err(failed)?;
            }
            layers.push(name);
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": names, "Layers": layers }]).to_string();
        for (name, bytes) in [(config_name.as_str(), config), ("manifest.json", manifest.as_bytes())] {
            write_entry(&file(name, bytes.len() as u64), to).map_err(failed)?;
            to.write_all(bytes).map_err(failed)?;
            pad(bytes.len() as u64, to).map_err(failed)?;
        }
        write_end(to).and_then(|()| to.flush()).map_err(failed)
    }
}

fn file(name: &str, size: u64) -> Entry {
    Entry { name: name.as_bytes().to_vec(), size, mode: 0o644, ..Entry::empty(Kind::File { old: false }) }
}
