//! A layer's blob on its way to the archive inside: decompressed, counted and hashed as it goes.

use crate::blob::{BUFFER, BlobReader, Tap};
use crate::chunk::Chunk;
use crate::digest::Hasher;
use crate::pipeline::Piece;
use crate::{Algorithm, Digest, Error, ErrorKind, Operation};
use flate2::bufread::MultiGzDecoder;
use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Past so many bytes the ratio to the blob is looked at: a short archive of zeros does no harm.
const RATIO_FROM: u64 = 256 << 20;
/// Frames may ask for so much memory, 128 MiB, as every decoder grants; not for more.
#[cfg(feature = "zstd")]
const ZSTD_WINDOW_LOG: u32 = 27;
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How a layer's blob is compressed, found by its first bytes: the media type may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one or several members.
    Gzip,
    /// zstd, of one or several frames, perhaps with skippable ones. Reading it takes the feature `zstd`.
    Zstd,
}

/// What went through a [`LayerReader`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerSummary {
    /// How the blob is compressed.
    pub compression: Compression,
    /// The digest of the blob, compressed as it is.
    pub blob_digest: Digest,
    /// The length of the blob in bytes.
    pub blob_size: u64,
    /// The digest of what is inside, which the config of an image lists.
    pub diff_id: Digest,
    /// The length of what is inside in bytes.
    pub size: u64,
}

/// Reads a layer: gives the tar archive inside, and counts and hashes the blob and the archive as they go by.
///
/// Nothing is verified before [`finish`](LayerReader::finish): whoever reads bytes of the archive before that must be ready for hostile ones.
///
/// ```
/// use cofferdam_image::{Digest, LayerReader};
/// use std::io::Read;
///
/// let mut layer = LayerReader::new(&b"a blob that is not compressed"[..])?;
/// let mut archive = Vec::new();
/// layer.read_to_end(&mut archive)?;
/// assert_eq!(layer.finish()?.diff_id, Digest::of(&archive));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LayerReader<R: Read> {
    inflater: Inflater<R>,
    hasher: Hasher,
}

impl<R: Read> LayerReader<R> {
    /// Looks at the first bytes of the blob. Digests will be SHA-256.
    ///
    /// # Errors
    /// What the reader says; [`Unsupported`](ErrorKind::Unsupported) for zstd without the feature `zstd`.
    pub fn new(blob: R) -> Result<Self, Error> {
        Self::with_algorithms(blob, Algorithm::Sha256, Algorithm::Sha256)
    }

    /// As [`new`](Self::new), with these algorithms for the digest of the blob and for the `DiffID`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_algorithms(mut blob: R, of_blob: Algorithm, of_diff_id: Algorithm) -> Result<Self, Error> {
        let start = read_start(&mut blob).map_err(|e| Error::from_io(Operation::ReadLayer, e))?;
        let compression = sniff(&start);
        // Of a plain layer, blob and archive are the same: hash once if the algorithm is the same too.
        let tap = if compression != Compression::None || of_blob != of_diff_id {
            Tap::Hasher(Box::new(Hasher::new(of_blob)))
        } else {
            Tap::None
        };
        let inflater = Inflater::new(BlobReader::new(start, blob, tap), compression)?;
        Ok(LayerReader { inflater, hasher: Hasher::new(of_diff_id) })
    }

    /// Makes it an error if there are more bytes than this inside, padding included.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.inflater.limit = bytes;
        self
    }

    /// Makes it an error if, once 256 MiB have come out, there are more bytes inside than this for each byte of the blob.
    #[must_use]
    #[doc(alias = "bomb")]
    pub fn ratio(mut self, most: u64) -> Self {
        self.inflater.ratio = most;
        self
    }

    /// Reads what is left, to the end of the blob, and says what it was.
    ///
    /// # Errors
    /// As reading: what the reader says, [`Corrupt`](ErrorKind::Corrupt), [`LimitExceeded`](ErrorKind::LimitExceeded).
    pub fn finish(mut self) -> Result<LayerSummary, Error> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::from_io(Operation::ReadLayer, e)),
            }
        }
        let (sizes, tap) = (self.inflater.sizes(), self.inflater.stream.into_blob().tap);
        let diff_id = self.hasher.finish();
        let blob_digest = match tap {
            Tap::Hasher(hasher) => hasher.finish(),
            Tap::None | Tap::Elsewhere(..) => diff_id.clone(),
        };
        Ok(sizes.with_digests(diff_id, blob_digest))
    }

    /// For a pipeline: what decompresses, and what hashes. The blob's bytes go from the one to the other as pieces, whose buffers come back.
    pub(crate) fn split(mut self, pieces: SyncSender<Piece>, returned: Receiver<Chunk>) -> (Inflater<R>, Hashers) {
        let tap = &mut self.inflater.stream.blob_mut().tap;
        let blob = match std::mem::replace(tap, Tap::None) {
            Tap::Hasher(hasher) => {
                *tap = Tap::Elsewhere(pieces, returned);
                Some(*hasher)
            }
            Tap::None | Tap::Elsewhere(..) => None,
        };
        (self.inflater, Hashers { diff_id: self.hasher, blob })
    }
}

impl<R: Read> Read for LayerReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inflater.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// What hashes, taken out of a reader. No hasher for a blob that is its archive.
pub(crate) struct Hashers {
    pub(crate) diff_id: Hasher,
    pub(crate) blob: Option<Hasher>,
}

/// Lengths, as far as has been read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    compression: Compression,
    pub(crate) blob: u64,
    pub(crate) archive: u64,
}

impl Sizes {
    pub(crate) fn with_digests(self, diff_id: Digest, blob_digest: Digest) -> LayerSummary {
        let Sizes { compression, blob, archive } = self;
        LayerSummary { compression, blob_digest, blob_size: blob, diff_id, size: archive }
    }
}

/// Decompresses and counts, within limits.
pub(crate) struct Inflater<R: Read> {
    stream: Stream<R>,
    compression: Compression,
    size: u64,
    limit: u64,
    ratio: u64,
    /// An error has been returned: what a decoder says after one means nothing.
    broken: bool,
}

enum Stream<R: Read> {
    // Boxed for their size.
    Plain(Box<BlobReader<R>>),
    Gzip(Box<MultiGzDecoder<BlobReader<R>>>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::stream::read::Decoder<'static, BlobReader<R>>>),
}

impl<R: Read> Inflater<R> {
    fn new(blob: BlobReader<R>, compression: Compression) -> Result<Self, Error> {
        let stream = match compression {
            Compression::None => Stream::Plain(Box::new(blob)),
            Compression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(blob))),
            Compression::Zstd => Self::zstd(blob)?,
        };
        Ok(Inflater { stream, compression, size: 0, limit: u64::MAX, ratio: u64::MAX, broken: false })
    }

    #[cfg(feature = "zstd")]
    fn zstd(blob: BlobReader<R>) -> Result<Stream<R>, Error> {
        let decoder = || {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Ok(Stream::Zstd(Box::new(decoder)))
        };
        decoder().map_err(|e| Error::from_io(Operation::ReadLayer, e))
    }

    #[cfg(not(feature = "zstd"))]
    fn zstd(_blob: BlobReader<R>) -> Result<Stream<R>, Error> {
        let words = "is compressed with zstd, for which the feature `zstd` must be on";
        Err(Error::new(ErrorKind::Unsupported, Operation::ReadLayer, words))
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { compression: self.compression, blob: self.stream.blob().size, archive: self.size }
    }

    fn read_more(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.stream {
            Stream::Plain(blob) => blob.read(buffer)?,
            Stream::Gzip(decoder) => decoder.read(buffer).map_err(corrupt)?,
            #[cfg(feature = "zstd")]
            Stream::Zstd(decoder) => decoder.read(buffer).map_err(corrupt)?,
        };
        self.size = self.size.saturating_add(count as u64);
        if self.size > self.limit {
            return Err(Error::limit(Operation::ReadLayer, "bytes in the archive", self.limit).into());
        }
        if self.size > RATIO_FROM && self.size > self.stream.blob().size.saturating_mul(self.ratio) {
            return Err(Error::limit(Operation::ReadLayer, "bytes for each byte of the blob", self.ratio).into());
        }
        Ok(count)
    }
}

impl<R: Read> Read for Inflater<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(Error::new(ErrorKind::Corrupt, Operation::ReadLayer, "could not be read before").into());
        }
        let result = self.read_more(buffer);
        self.broken = result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl<R: Read> Stream<R> {
    fn blob(&self) -> &BlobReader<R> {
        match self {
            Stream::Plain(blob) => blob,
            Stream::Gzip(decoder) => decoder.get_ref(),
            #[cfg(feature = "zstd")]
            Stream::Zstd(decoder) => decoder.get_ref(),
        }
    }

    fn blob_mut(&mut self) -> &mut BlobReader<R> {
        match self {
            Stream::Plain(blob) => blob,
            Stream::Gzip(decoder) => decoder.get_mut(),
            #[cfg(feature = "zstd")]
            Stream::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn into_blob(self) -> BlobReader<R> {
        match self {
            Stream::Plain(blob) => *blob,
            Stream::Gzip(decoder) => decoder.into_inner(),
            #[cfg(feature = "zstd")]
            Stream::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: Read> fmt::Debug for LayerReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerReader").field("sizes", &self.inflater.sizes()).finish_non_exhaustive()
    }
}

/// The decoder's own errors are about the stream. Those of the reader below have been made ours by [`BlobReader`].
fn corrupt(error: io::Error) -> io::Error {
    if matches!(error.get_ref(), Some(inner) if inner.is::<Error>()) || error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    let words = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed stream is cut off".to_owned(),
        _ => error.to_string(),
    };
    Error::message(ErrorKind::Corrupt, Operation::ReadLayer, words).into()
}

/// The first four bytes, or as many as there are.
fn read_start(blob: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    blob.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start)
}

fn sniff(start: &[u8]) -> Compression {
    // A skippable frame, which can come before a zstd stream: 0x184D2A50 to 0x184D2A5F, little endian.
    let skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
    if start.starts_with(ZSTD_MAGIC) || skippable {
        Compression::Zstd
    } else if start.starts_with(GZIP_MAGIC) {
        Compression::Gzip
    } else {
        Compression::None
    }
}

#[cfg(test)]
mod tests;
