//! A layer's blob as it is stored: read, counted, and seen by whoever hashes it.

use crate::chunk::Chunk;
use crate::digest::Hasher;
use crate::pipeline::Piece;
use crate::{Error, Operation};
use std::io::{self, BufRead, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

/// What is read from the blob at a time; the reader below sees no smaller reads than this.
pub(crate) const BUFFER: usize = 64 * 1024;

/// A blob, read piece by piece. What has been read of it goes to the tap before anybody else sees it.
pub(crate) struct BlobReader<R> {
    reader: Chain<Cursor<Vec<u8>>, R>,
    pub(crate) tap: Tap,
    /// The bytes that have been read.
    pub(crate) size: u64,
    current: Option<Arc<Chunk>>,
    used: usize,
}

/// Where a blob's bytes go beside the decompressor.
pub(crate) enum Tap {
    None,
    // Boxed for its size.
    Hasher(Box<Hasher>),
    /// To another thread, which gives the buffers back.
    Elsewhere(SyncSender<Piece>, Receiver<Chunk>),
}

impl<R: Read> BlobReader<R> {
    /// `start` has been read already.
    pub(crate) fn new(start: Vec<u8>, rest: R, tap: Tap) -> Self {
        BlobReader { reader: Cursor::new(start).chain(rest), tap, size: 0, current: None, used: 0 }
    }

    /// Reads more of it, when all of the current piece has been used.
    fn next(&mut self) -> io::Result<()> {
        self.used = 0;
        let mut chunk = self.free();
        let count = chunk.fill(BUFFER, |buffer| self.reader.read(buffer)).map_err(own)?;
        self.size = self.size.saturating_add(count as u64);
        let chunk = Arc::new(chunk);
        match &mut self.tap {
            Tap::Hasher(hasher) => hasher.update(chunk.bytes()),
            // Nobody takes it any more if the other threads have ended, and so will this one.
            Tap::Elsewhere(pieces, _) if count > 0 => drop(pieces.send(Piece::Blob(Arc::clone(&chunk)))),
            Tap::None | Tap::Elsewhere(..) => {}
        }
        self.current = Some(chunk);
        Ok(())
    }

    /// A chunk that nobody uses. (Whoever hashes can have some: not more than there is room for on the way to them.)
    fn free(&mut self) -> Chunk {
        let returned = |tap: &Tap| match tap {
            Tap::Elsewhere(_, returned) => returned.try_recv().ok(),
            Tap::None | Tap::Hasher(_) => None,
        };
        let current = self.current.take().and_then(Arc::into_inner);
        current.or_else(|| returned(&self.tap)).unwrap_or_default()
    }

    fn rest(&self) -> &[u8] {
        self.current.as_ref().and_then(|chunk| chunk.bytes().get(self.used..)).unwrap_or_default()
    }
}

/// An error of the reader below is not one of the decompressor's.
fn own(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        _ => Error::from_io(Operation::ReadLayer, error).into(),
    }
}

impl<R: Read> BufRead for BlobReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            self.next()?;
        }
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

impl<R: Read> Read for BlobReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What nobody else wants to see need not be copied.
        if matches!(self.tap, Tap::None) && self.rest().is_empty() && buffer.len() >= BUFFER {
            let count = self.reader.read(buffer).map_err(own)?;
            self.size = self.size.saturating_add(count as u64);
            return Ok(count);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
