//! An image in an OCI layout: found, verified, ready to be unpacked.

use crate::document::{Descriptor, Index, Manifest, Media};
use crate::layout::Layout;
use crate::{Config, Digest, Error, ErrorKind, LayerReader, Operation, Options, Report, Selection, Unpacker};
use std::fs::File;
use std::io::{Read, Take};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Indexes in indexes: no image needs more.
const MAX_INDEXES: usize = 4;

/// An image in an OCI layout directory: its config, and its layers, which can be unpacked one by one.
///
/// All documents are verified when it is opened; a layer's blob is verified while it is read. The files are opened beneath the layout's directory,
/// whose descriptor the image owns, without following any symlink.
#[derive(Debug)]
#[doc(alias("oci-layout", "manifest"))]
pub struct Image {
    layout: Layout,
    digest: Digest,
    manifest_json: Vec<u8>,
    config: Config,
    layers: Vec<Layer>,
}

/// A layer of an image, as its manifest and config describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The digest of the blob.
    pub digest: Digest,
    /// The length of the blob in bytes.
    pub size: u64,
    /// What the manifest says the blob is. How it is compressed is found by looking at it.
    pub media_type: String,
    /// The digest of the archive inside.
    pub diff_id: Digest,
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

    fn read(layout: Layout, selection: &Selection) -> Result<Self, Error> {
        let descriptor = find_manifest(&layout, selection)?;
        let digest = descriptor.digest()?;
        let manifest_json = layout.document(&descriptor, Operation::ReadManifest)?;
        let manifest = Manifest::parse(&manifest_json, &descriptor.media_type)?;
        let config = Config::parse(layout.document(&manifest.config, Operation::ReadConfig)?)?;
        let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids().len());
        if layers != diff_ids {
            let (expected, found) = (format!("{layers} DiffIDs, one for each layer"), diff_ids.to_string());
            return Err(Error::differs(Operation::ReadConfig, &expected, &found));
        }
        let layer = |(number, (descriptor, diff_id)): (usize, (&Descriptor, &Digest))| {
            Ok(Layer {
                digest: descriptor.digest().map_err(|e| e.in_layer(number))?,
                size: descriptor.size,
                media_type: descriptor.media_type.clone(),
                diff_id: diff_id.clone(),
            })
        };
        let layers =
            manifest.layers.iter().zip(config.diff_ids()).enumerate().map(layer).collect::<Result<_, Error>>()?;
        Ok(Image { layout, digest, manifest_json, config, layers })
    }

    /// The digest of the manifest, which names the image.
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

    /// The manifest itself, with all that has no accessor here.
    #[must_use]
    pub fn manifest_json(&self) -> &[u8] {
        &self.manifest_json
    }

    /// Reads a layer. It is verified only when all of it has been read and the digests have been compared.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no layer of that number; [`NotFound`](ErrorKind::NotFound) if its blob is missing;
    /// [`Mismatch`](ErrorKind::Mismatch) if it has another size; [`Unsupported`](ErrorKind::Unsupported) for zstd.
    pub fn read_layer(&self, number: usize) -> Result<LayerReader<Take<File>>, Error> {
        let layer = self.layer(number)?;
        let reader = || {
            let blob = self.layout.blob(&layer.digest, layer.size, Operation::ReadLayer)?;
            // If the file grows meanwhile, one byte more is enough to see it.
            let blob = blob.take(layer.size.saturating_add(1));
            LayerReader::with_algorithms(blob, layer.digest.algorithm(), layer.diff_id.algorithm())
        };
        reader().map_err(|e| e.in_layer(number))
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
            let (report, summary) = unpacker.unpack_with_summary(reader)?;
            let in_words = |digest: &Digest, size: u64| format!("{digest} of {size} bytes");
            if (summary.blob_size, &summary.blob_digest) != (layer.size, &layer.digest) {
                let promised = in_words(&layer.digest, layer.size);
                let found = in_words(&summary.blob_digest, summary.blob_size);
                return Err(Error::differs(Operation::ReadLayer, &promised, &found));
            }
            if summary.diff_id != layer.diff_id {
                let error = Error::differs(Operation::ReadLayer, &layer.diff_id, &summary.diff_id);
                return Err(error.about("DiffID"));
            }
            Ok(report)
        };
        unpack().map_err(|e| e.in_layer(number))
    }

    fn layer(&self, number: usize) -> Result<&Layer, Error> {
        self.layers.get(number).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, Operation::ReadLayer, "is no layer of this image").in_layer(number)
        })
    }
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
