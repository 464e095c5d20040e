//! An image, in an OCI layout or an archive: found, verified, ready to be unpacked.

use crate::docker::{DockerArchive, Saved};
use crate::document::{Descriptor, Index, Manifest, Media};
use crate::layers::Layers;
use crate::layout::Layout;
use crate::section::{Blob, Section};
use crate::{
    Config, Digest, Error, ErrorKind, LayerReader, LayerSummary, Operation, Options, Report, Selection, Unpacker,
};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

/// Indexes in indexes: no image needs more.
const MAX_INDEXES: usize = 4;

/// What the layers of a `docker save` archive are.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An image, in an OCI layout directory or an archive as `docker save` writes it: its config, and its layers, which can be unpacked one by one.
///
/// All documents are verified when it is opened; a layer's blob is verified while it is read. The files are opened beneath the layout's directory,
/// whose descriptor the image owns, without following any symlink.
#[derive(Debug)]
#[doc(alias("oci-layout", "docker-archive", "manifest"))]
pub struct Image {
    blobs: Blobs,
    digest: Digest,
    manifest_json: Vec<u8>,
    config: Config,
    layers: Vec<Layer>,
}

/// Where the blobs of the layers are.
#[derive(Debug)]
enum Blobs {
    Layout(Layout),
    /// In a part of the archive each.
    Archive(Vec<Section>),
}

/// A layer of an image, as its manifest and config describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The digest of the blob. `None` in a `docker save` archive, which does not tell it.
    pub digest: Option<Digest>,
    /// The length of the blob in bytes.
    pub size: u64,
    /// What the manifest says the blob is. How it is compressed is found by looking at it.
    pub media_type: String,
    /// The digest of the archive inside.
    pub diff_id: Digest,
}

impl Layer {
    pub(crate) fn verify(&self, found: &LayerSummary) -> Result<(), Error> {
        let digest = self.digest.as_ref().unwrap_or(&found.blob_digest);
        let in_words = |digest: &Digest, size: u64| format!("{digest} of {size} bytes");
        if (found.blob_size, &found.blob_digest) != (self.size, digest) {
            let found = in_words(&found.blob_digest, found.blob_size);
            return Err(Error::differs(Operation::ReadLayer, &in_words(digest, self.size), &found));
        }
        if found.diff_id != self.diff_id {
            return Err(Error::differs(Operation::ReadLayer, &self.diff_id, &found.diff_id).about("DiffID"));
        }
        Ok(())
    }
}

impl Image {
    /// Opens an image in the layout directory at `path`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for the layout or a document of it, or if no image is selected,
    /// [`Ambiguous`](ErrorKind::Ambiguous) if several are; [`Malformed`](ErrorKind::Malformed),
    /// [`MediaType`](ErrorKind::MediaType), [`Mismatch`](ErrorKind::Mismatch) and [`LimitExceeded`](ErrorKind::LimitExceeded) for documents that are not what they should be.
    pub fn open(path: impl AsRef<Path>, selection: &Selection) -> Result<Self, Error> {
        Self::read(Layout::open(path.as_ref())?, selection)
    }

    /// Opens an image in a layout directory that is open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(layout: impl AsFd, selection: &Selection) -> Result<Self, Error> {
        let dir = layout.as_fd().try_clone_to_owned().map_err(|e| Error::from_io(Operation::OpenLayout, e))?;
        Self::read(Layout::at(dir)?, selection)
    }

    /// Opens an image in an archive, as `docker save` writes it, at `path`. (One that is compressed as a whole must be decompressed before.)
    ///
    /// It has no digests of its layers' blobs, but the config has those of the archives inside.
    ///
    /// # Errors
    /// As [`open`](Self::open). [`Selection::reference`] means one of the image's names, `repository:tag`.
    #[doc(alias = "docker load")]
    pub fn open_archive(path: impl AsRef<Path>, selection: &Selection) -> Result<Self, Error> {
        let archive = DockerArchive::open(path.as_ref())?;
        let (manifest_json, images) = archive.manifest()?;
        let saved: &Saved = selection.choose_saved(&images)?;
        let (config, digest) = archive.config(saved)?;
        let config = Config::parse(config)?;
        same_number(saved.layers.len(), &config)?;
        let mut sections = Vec::new();
        let mut layers = Vec::new();
        for (number, (name, diff_id)) in saved.layers.iter().zip(config.diff_ids()).enumerate() {
            let section = archive.section(name, Operation::ReadLayer).map_err(|e| e.in_layer(number))?;
            let (size, diff_id) = (section.left(), diff_id.clone());
            layers.push(Layer { digest: None, size, media_type: DOCKER_LAYER.to_owned(), diff_id });
            sections.push(section);
        }
        Ok(Image { blobs: Blobs::Archive(sections), digest, manifest_json, config, layers })
    }

    fn read(layout: Layout, selection: &Selection) -> Result<Self, Error> {
        let descriptor = find_manifest(&layout, selection)?;
        let digest = descriptor.digest()?;
        let manifest_json = layout.document(&descriptor, Operation::ReadManifest)?;
        let manifest = Manifest::parse(&manifest_json, &descriptor.media_type)?;
        let config = Config::parse(layout.document(&manifest.config, Operation::ReadConfig)?)?;
        same_number(manifest.layers.len(), &config)?;
        let layer = |(number, (descriptor, diff_id)): (usize, (&Descriptor, &Digest))| {
            Ok(Layer {
                digest: Some(descriptor.digest().map_err(|e| e.in_layer(number))?),
                size: descriptor.size,
                media_type: descriptor.media_type.clone(),
                diff_id: diff_id.clone(),
            })
        };
        let layers =
            manifest.layers.iter().zip(config.diff_ids()).enumerate().map(layer).collect::<Result<_, Error>>()?;
        Ok(Image { blobs: Blobs::Layout(layout), digest, manifest_json, config, layers })
    }

    /// The digest of the manifest, which names the image; for one in a `docker save` archive, which has none, that of its config.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What a process of the image should be started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layers, lowest first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The manifest itself (of an archive `manifest.json`), with all that has no accessor here.
    #[must_use]
    pub fn manifest_json(&self) -> &[u8] {
        &self.manifest_json
    }

    /// Reads a layer. It is verified only when all of it has been read and the digests have been compared.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no layer of that number; [`NotFound`](ErrorKind::NotFound) if its blob is missing;
    /// [`Mismatch`](ErrorKind::Mismatch) if it has another size; [`Unsupported`](ErrorKind::Unsupported) for zstd without the feature `zstd`.
    pub fn read_layer(&self, number: usize) -> Result<LayerReader<Blob>, Error> {
        let layer = self.layer(number)?;
        self.blob(number).and_then(|blob| layer.reader(blob)).map_err(|e| e.in_layer(number))
    }

    /// The blob of a layer, as it is.
    ///
    /// # Errors
    /// As [`read_layer`](Self::read_layer).
    pub fn blob(&self, number: usize) -> Result<Blob, Error> {
        let layer = self.layer(number)?;
        let section = match (&self.blobs, &layer.digest) {
            (Blobs::Layout(layout), Some(digest)) => {
                let file = layout.blob(digest, layer.size, Operation::ReadLayer).map_err(|e| e.in_layer(number))?;
                // If the file grows meanwhile, one byte more is enough to see it.
                Some(Section::new(Arc::new(file), 0, layer.size.saturating_add(1)))
            }
            (Blobs::Layout(_), None) => None,
            (Blobs::Archive(sections), _) => sections.get(number).cloned(),
        };
        section.map(Blob::new).ok_or_else(|| no_layer(number))
    }

    /// All layers, to be unpacked several at a time. Each is verified before it is done.
    ///
    /// # Errors
    /// As [`read_layer`](Self::read_layer).
    pub fn all_layers(&self, options: Options) -> Result<Layers, Error> {
        self.layers.iter().enumerate().try_fold(Layers::new(options), |layers, (number, layer)| {
            Ok(layers.promised(self.blob(number)?, layer.clone()))
        })
    }

    /// Unpacks a layer into `stage`, an empty directory, as a layer for an overlay mount, and verifies it.
    ///
    /// `lowers` are the directories of the layers below, lowest first: either all of them, or none if they are not
    /// there (yet), see [`Unpacker::lowers`]. Blocks until it is done. May run for several layers at the same time.
    ///
    /// The caller publishes the directory if there was no error, and discards it otherwise: verification ends with the last byte, when
    /// everything has been written.
    ///
    /// # Errors
    /// As [`read_layer`](Self::read_layer) and [`Unpacker::unpack`]; [`Mismatch`](ErrorKind::Mismatch) if the blob or the archive inside is
    /// not what the image promises. [`Error::layer`] tells the layer's number.
    pub fn unpack_layer(
        &self,
        number: usize,
        stage: BorrowedFd<'_>,
        lowers: &[BorrowedFd<'_>],
        options: &Options,
    ) -> Result<Report, Error> {
        if !lowers.is_empty() && lowers.len() != number {
            let words = "needs the directories of all layers below, or of none";
            return Err(Error::new(ErrorKind::InvalidInput, Operation::Unpack, words).in_layer(number));
        }
        let layer = self.layer(number)?;
        let reader = self.read_layer(number)?;
        let unpack = || {
            let mut unpacker = Unpacker::new(stage, options.clone())?;
            if lowers.len() == number {
                unpacker = unpacker.lowers(lowers)?;
            }
            unpacker.unpack_checked(reader, |summary| layer.verify(summary))
        };
        unpack().map_err(|e| e.in_layer(number))
    }

    fn layer(&self, number: usize) -> Result<&Layer, Error> {
        self.layers.get(number).ok_or_else(|| no_layer(number))
    }
}

fn no_layer(number: usize) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::ReadLayer, "is no layer of this image").in_layer(number)
}

fn same_number(layers: usize, config: &Config) -> Result<(), Error> {
    if layers == config.diff_ids().len() {
        return Ok(());
    }
    let (expected, found) = (format!("{layers} DiffIDs, one for each layer"), config.diff_ids().len());
    Err(Error::differs(Operation::ReadConfig, &expected, &found))
}

fn find_manifest(layout: &Layout, selection: &Selection) -> Result<Descriptor, Error> {
    let mut index = Index::parse(&layout.index()?, None)?;
    for depth in 0..MAX_INDEXES {
        // Only the outer index has the names of images.
        let chosen = selection.choose(&index.manifests, depth == 0)?.clone();
        if chosen.media() == Media::Manifest {
            return Ok(chosen);
        }
        index = Index::parse(&layout.document(&chosen, Operation::ReadIndex)?, Some(&chosen.media_type))?;
    }
    Err(Error::limit(Operation::ReadIndex, "indexes in each other", MAX_INDEXES as u64))
}
