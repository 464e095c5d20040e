//! An image that is being made: from nothing or from another one, with more layers and another config.

use crate::image::{DOCKER_LAYER, Layer};
use crate::writer::descriptor;
use crate::{Digest, Error, ErrorKind, Image, LayoutWriter, NewLayer, Operation};
use serde_json::{Map, Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const FOREIGN: [&str; 2] = ["nondistributable", "foreign"];

/// An image that is being made.
///
/// ```no_run
/// use cofferdam_image::{Draft, Image, LayerBuilder, LayoutWriter, Selection};
/// use std::fs::File;
///
/// let layout = LayoutWriter::open(File::open("layout")?)?;
/// let base = Image::open("layout", &Selection::new().reference("debian"))?;
/// let (before, after) = (File::open("before")?, File::open("after")?);
/// let changes = layout.layer(|to| LayerBuilder::new().changes(before, after, to))?;
/// let digest = Draft::of(&base)?
///     .layer(&changes, "install the tools")
///     .cmd(["/usr/bin/tool"])
///     .write(&layout, "debian-with-tools")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What it does not change is as in the base: unknown fields, health check, onbuild, history. No time is written that was not given.
#[derive(Debug)]
#[must_use]
pub struct Draft<'a> {
    base: Option<&'a Image>,
    config: Map<String, Value>,
    /// Its field `config`: what a process is started with.
    process: Map<String, Value>,
    layers: Vec<NewLayer>,
    created: Option<String>,
}

impl<'a> Draft<'a> {
    /// An image of nothing, for Linux and this architecture, in Go's words: `amd64`, `arm64`.
    #[doc(alias = "scratch")]
    pub fn empty(architecture: &str) -> Self {
        let config = json!({ "architecture": architecture, "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
        Self::with(None, config.as_object().cloned().unwrap_or_default())
    }

    /// An image on top of another one.
    ///
    /// # Errors
    /// [`Malformed`](ErrorKind::Malformed) if its config is not an object.
    pub fn of(base: &'a Image) -> Result<Self, Error> {
        let config = crate::document::parse(base.config().json(), Operation::ReadConfig)?;
        Ok(Self::with(Some(base), config))
    }

    /// As the base in all but the layers: to put one in the place of all.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    #[doc(alias = "squash")]
    pub fn squashed(base: &Image) -> Result<Draft<'static>, Error> {
        let mut config: Map<String, Value> = crate::document::parse(base.config().json(), Operation::ReadConfig)?;
        config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": [] }));
        config.remove("history");
        Ok(Draft::with(None, config))
    }

    fn with(base: Option<&'a Image>, mut config: Map<String, Value>) -> Self {
        let process = match config.remove("config") {
            Some(Value::Object(process)) => process,
            _ => Map::new(),
        };
        Draft { base, config, process, layers: Vec::new(), created: None }
    }

    /// Adds a layer on top, and to the history how it came about.
    pub fn layer(mut self, layer: &NewLayer, created_by: &str) -> Self {
        let history = self.config.entry("history").or_insert_with(|| json!([]));
        if history.is_null() {
            *history = json!([]);
        }
        let step = match &self.created {
            Some(time) => json!({ "created": time, "created_by": created_by }),
            None => json!({ "created_by": created_by }),
        };
        history.as_array_mut().into_iter().for_each(|history| history.push(step.clone()));
        let ids = self.config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
        if let Some(ids) = ids {
            let id = Value::from(layer.summary.diff_id.to_string());
            match ids.as_array_mut() {
                Some(ids) => ids.push(id),
                None => *ids = json!([id]),
            }
        }
        self.layers.push(layer.clone());
        self
    }

    /// When it was made, as RFC 3339 has it, for layers that are added after this and the image itself. By default nothing says so.
    pub fn created(mut self, time: &str) -> Self {
        self.config.insert("created".into(), time.into());
        self.created = Some(time.to_owned());
        self
    }

    /// What always comes first in the command line.
    pub fn entrypoint<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.set("Entrypoint", words.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    /// What follows the entrypoint.
    pub fn cmd<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.set("Cmd", words.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    /// Sets a variable of the environment, in place of one of that name.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let prefix = format!("{name}=");
        if let Some(env) = self.list("Env") {
            env.retain(|var| !var.as_str().is_some_and(|var| var.starts_with(&prefix)));
            env.push(format!("{prefix}{value}").into());
        }
        self
    }

    /// The working directory.
    pub fn working_directory(self, path: &str) -> Self {
        self.set("WorkingDir", path)
    }

    /// The user, `user[:group]`, as names or numbers.
    pub fn user(self, user: &str) -> Self {
        self.set("User", user)
    }

    /// The signal that asks the process to end.
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", signal)
    }

    /// A label, in place of one of that name.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let labels = self.process.entry("Labels").or_insert_with(|| json!({}));
        if labels.is_null() {
            *labels = json!({});
        }
        labels.as_object_mut().into_iter().for_each(|labels| drop(labels.insert(name.to_owned(), value.into())));
        self
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.process.insert(name.to_owned(), value.into());
        self
    }

    fn list(&mut self, name: &str) -> Option<&mut Vec<Value>> {
        let list = self.process.entry(name).or_insert_with(|| json!([]));
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut()
    }

    /// Writes the image into a layout, under this name, in place of one that has it. Layers of the base that are not there are copied, and verified.
    /// Returns the digest of the manifest. The same draft gives the same digest.
    ///
    /// # Errors
    /// What reading the base's layers says, or writing. [`InvalidInput`](ErrorKind::InvalidInput) if a new layer is not in this layout.
    pub fn write(&self, layout: &LayoutWriter, reference: &str) -> Result<Digest, Error> {
        let mut layers = Vec::new();
        for number in 0..self.base.map_or(0, |base| base.layers().len()) {
            layers.extend(self.base.map(|base| copy_layer(base, number, layout)).transpose()?);
        }
        for layer in &self.layers {
            if !layout.has_blob(&layer.summary.blob_digest)? {
                let error = Error::new(ErrorKind::InvalidInput, Operation::Write, "is a layer of another layout");
                return Err(error.about(layer.summary.blob_digest.to_string()));
            }
            layers.push(layer.descriptor());
        }
        let mut config = self.config.clone();
        config.insert("config".into(), self.process.clone().into());
        write_manifest(layout, Value::from(config).to_string().as_bytes(), &layers, reference)
    }
}

impl Image {
    /// Copies the image into a layout, under this name: from another layout, or from an archive. The manifest is written anew in OCI's form; the
    /// config and the layers stay what they are, to the byte. Returns the digest of the manifest.
    ///
    /// # Errors
    /// As [`Draft::write`].
    #[doc(alias("copy", "docker load"))]
    pub fn copy_to(&self, layout: &LayoutWriter, reference: &str) -> Result<Digest, Error> {
        let layers =
            (0..self.layers().len()).map(|number| copy_layer(self, number, layout)).collect::<Result<Vec<_>, _>>()?;
        write_manifest(layout, self.config().json(), &layers, reference)
    }
}

fn write_manifest(layout: &LayoutWriter, config: &[u8], layers: &[Value], reference: &str) -> Result<Digest, Error> {
    let config = descriptor(CONFIG, &layout.document(config)?, config.len() as u64);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }).to_string();
    let digest = layout.document(manifest.as_bytes())?;
    layout.name(descriptor(MANIFEST, &digest, manifest.len() as u64), reference)?;
    Ok(digest)
}

/// Not what an image only refers to because others may not pass it on.
pub(crate) fn may_be_written(layer: &Layer) -> Result<(), Error> {
    if FOREIGN.iter().any(|word| layer.media_type.contains(word)) {
        let error = Error::new(ErrorKind::Unsupported, Operation::Write, "must not be distributed");
        return Err(error.about(layer.media_type.clone()));
    }
    Ok(())
}

/// Copies a layer's blob if it is not there, and describes it.
fn copy_layer(base: &Image, number: usize, layout: &LayoutWriter) -> Result<Value, Error> {
    let layer = base.layers().get(number).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, Operation::Write, "is no layer of this image").in_layer(number)
    })?;
    may_be_written(layer).map_err(|e| e.in_layer(number))?;
    if let Some(digest) = &layer.digest
        && layout.has_blob(digest)?
    {
        return Ok(descriptor(media_type(&layer.media_type), digest, layer.size));
    }
    let copied = layout.import(base.blob(number)?).and_then(|copied| layer.verify(&copied.summary).map(|()| copied));
    let copied = copied.map_err(|e| e.in_layer(number))?;
    Ok(match layer.digest {
        Some(_) => descriptor(media_type(&layer.media_type), &copied.summary.blob_digest, layer.size),
        None => copied.descriptor(),
    })
}

/// OCI's word for one of Docker's.
fn media_type(of: &str) -> &str {
    match of {
        DOCKER_LAYER => LAYER,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        other => other,
    }
}
