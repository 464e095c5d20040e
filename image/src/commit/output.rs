//! Where a layer goes: hashed, compressed, hashed again.

use crate::digest::Hasher;
use crate::{Algorithm, Compression, Error, LayerSummary, Operation};
use flate2::GzBuilder;
use flate2::write::GzEncoder;
use std::io::{self, Write};

/// Takes the archive.
pub(crate) struct Output<W: Write> {
    encoder: Encoder<W>,
    compression: Compression,
    diff_id: Hasher,
    size: u64,
}

enum Encoder<W: Write> {
    Plain(Box<Counted<W>>),
    Gzip(Box<GzEncoder<Counted<W>>>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::stream::write::Encoder<'static, Counted<W>>>),
}

/// The blob.
struct Counted<W> {
    to: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Output<W> {
    pub(crate) fn new(to: W, compression: Compression) -> Result<Self, Error> {
        let to = Counted { to, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
        let encoder = match compression {
            Compression::None => Encoder::Plain(Box::new(to)),
            // No name, no time.
            Compression::Gzip => Encoder::Gzip(Box::new(GzBuilder::new().write(to, flate2::Compression::default()))),
            Compression::Zstd => Self::zstd(to)?,
        };
        Ok(Output { encoder, compression, diff_id: Hasher::new(Algorithm::Sha256), size: 0 })
    }

    #[cfg(feature = "zstd")]
    fn zstd(to: Counted<W>) -> Result<Encoder<W>, Error> {
        let encoder = zstd::stream::write::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL);
        encoder.map(Box::new).map(Encoder::Zstd).map_err(|e| Error::from_io(Operation::Commit, e))
    }

    #[cfg(not(feature = "zstd"))]
    fn zstd(_to: Counted<W>) -> Result<Encoder<W>, Error> {
        let words = "cannot be compressed with zstd: the feature `zstd` must be on";
        Err(Error::new(crate::ErrorKind::Unsupported, Operation::Commit, words))
    }

    pub(crate) fn finish(self) -> Result<LayerSummary, Error> {
        let counted = match self.encoder {
            Encoder::Plain(counted) => Ok(*counted),
            Encoder::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.finish(),
        };
        let finish = |mut counted: Counted<W>| counted.to.flush().map(|()| counted);
        let counted = counted.and_then(finish).map_err(|e| Error::from_io(Operation::Commit, e))?;
        Ok(LayerSummary {
            compression: self.compression,
            blob_digest: counted.hasher.finish(),
            blob_size: counted.size,
            diff_id: self.diff_id.finish(),
            size: self.size,
        })
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.encoder {
            Encoder::Plain(encoder) => encoder.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }?;
        self.diff_id.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing in the middle would change the stream.
        Ok(())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
