//! A layer on its way through three threads: one decompresses, one hashes, and the caller's own writes.
//!
//! A fixed number of buffers goes round: from the decompressor to both others, and back from whoever is done with it last. So the memory
//! is bounded, and whoever is ahead waits.

use crate::chunk::{Chunk, give_back};
use crate::digest::Hasher;
use crate::reader::{Hashers, Inflater, LayerReader};
use crate::{Error, ErrorKind, LayerSummary, Observer, Operation, Progress};
use std::io::{self, BufRead, Read};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

/// The length of a buffer: with smaller ones the decompressor is slower.
const CHUNK: usize = 512 << 10;
/// As many go round for one layer.
const CHUNKS: usize = 6;
/// Pieces of a blob, each as long as what is read at a time, that wait for the hasher.
const PIECES: usize = 16;

/// What is to be hashed.
pub(crate) enum Piece {
    Blob(Arc<Chunk>),
    Archive(Arc<Chunk>),
}

/// The archive, as the writing thread sees it.
pub(crate) struct Chunks {
    from: Option<Receiver<Result<Arc<Chunk>, Error>>>,
    free: Sender<Chunk>,
    current: Option<Arc<Chunk>>,
    used: usize,
}

/// Lets `consume` read the archive while it is being decompressed and hashed, reads what it leaves, and says what it was.
pub(crate) fn run<R: Read + Send, T>(
    layer: LayerReader<R>,
    observer: Option<&dyn Observer>,
    consume: impl FnOnce(&mut Chunks) -> Result<T, Error>,
) -> Result<(T, LayerSummary), Error> {
    let (to_hasher, pieces) = sync_channel(PIECES);
    let (to_writer, from) = sync_channel(CHUNKS);
    let (free, returned) = channel();
    for _ in 0..CHUNKS {
        // Its memory is taken when it is first used: most layers are small.
        let _ = free.send(Chunk::default());
    }
    let (free_of_blob, returned_of_blob) = channel();
    let (inflater, hashers) = layer.split(to_hasher.clone(), returned_of_blob);
    thread::scope(|scope| {
        let back = free.clone();
        let hashing = start(scope, "cofferdam-hash", move || hash(hashers, &pieces, &back, &free_of_blob))?;
        let source = Source { inflater, observer, to_hasher, to_writer, returned };
        let reading = start(scope, "cofferdam-inflate", move || source.run())?;
        let mut chunks = Chunks { from: Some(from), free, current: None, used: 0 };
        let consumed = consume(&mut chunks).and_then(|value| chunks.skip_rest().map(|()| value));
        // Whoever waits for this thread now sees that it is gone.
        drop(chunks);
        let summary = join(reading);
        let (diff_id, blob_digest) = join(hashing);
        let value = consumed?;
        let summary = summary.ok_or_else(|| Error::new(ErrorKind::Os, Operation::ReadLayer, "ended too early"))?;
        let diff_id = diff_id.finish();
        let blob_digest = blob_digest.map_or_else(|| diff_id.clone(), Hasher::finish);
        Ok((value, summary.with_digests(diff_id, blob_digest)))
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Error> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, run);
    thread.map_err(|e| Error::from_io(Operation::ReadLayer, e))
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The thread that decompresses.
struct Source<'a, R: Read> {
    inflater: Inflater<R>,
    observer: Option<&'a dyn Observer>,
    to_hasher: SyncSender<Piece>,
    to_writer: SyncSender<Result<Arc<Chunk>, Error>>,
    returned: Receiver<Chunk>,
}

impl<R: Read> Source<'_, R> {
    /// `None` if there was an error, which the writer has been told of, or if the writer is gone.
    fn run(mut self) -> Option<crate::reader::Sizes> {
        loop {
            let next = self.tell_observer().and_then(|()| {
                // Both others are gone only if they have failed.
                let Ok(mut chunk) = self.returned.recv() else { return Ok(None) };
                chunk.fill(CHUNK, |buffer| self.fill(buffer))?;
                Ok(Some(chunk))
            });
            let chunk = match next {
                Ok(chunk) => Arc::new(chunk?),
                Err(error) => {
                    let _ = self.to_writer.send(Err(error));
                    return None;
                }
            };
            let last = chunk.bytes().len() < CHUNK;
            self.to_hasher.send(Piece::Archive(Arc::clone(&chunk))).ok()?;
            self.to_writer.send(Ok(chunk)).ok()?;
            if last {
                // Too late to be cancelled: all of it is on its way.
                let _ = self.tell_observer();
                return Some(self.inflater.sizes());
            }
        }
    }

    fn tell_observer(&self) -> Result<(), Error> {
        let Some(observer) = self.observer else { return Ok(()) };
        let sizes = self.inflater.sizes();
        let progress = Progress { layer: 0, blob: sizes.blob, archive: sizes.archive };
        if observer.progress(progress).is_break() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Less than a whole buffer only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inflater.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::from_io(Operation::ReadLayer, e)),
            }
        }
        Ok(filled)
    }
}

/// The thread that hashes.
fn hash(
    hashers: Hashers,
    pieces: &Receiver<Piece>,
    free: &Sender<Chunk>,
    free_of_blob: &Sender<Chunk>,
) -> (Hasher, Option<Hasher>) {
    let Hashers { mut diff_id, mut blob } = hashers;
    for piece in pieces {
        match piece {
            Piece::Blob(chunk) => {
                if let Some(hasher) = &mut blob {
                    hasher.update(chunk.bytes());
                }
                give_back(chunk, free_of_blob);
            }
            Piece::Archive(chunk) => {
                diff_id.update(chunk.bytes());
                give_back(chunk, free);
            }
        }
    }
    (diff_id, blob)
}

impl Chunks {
    fn skip_rest(&mut self) -> Result<(), Error> {
        loop {
            match self.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(rest) => {
                    let count = rest.len();
                    self.consume(count);
                }
                Err(e) => return Err(Error::from_io(Operation::ReadLayer, e)),
            }
        }
    }
}

/// The inflater may be waiting for one of the buffers that go with the queue: it gets another, finds nobody to give it to, and ends.
impl Drop for Chunks {
    fn drop(&mut self) {
        self.from = None;
        let _ = self.free.send(Chunk::default());
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let is_used = |chunk: &Arc<Chunk>| self.used >= chunk.bytes().len() && chunk.bytes().len() == CHUNK;
        if self.current.as_ref().is_none_or(is_used) {
            if let Some(chunk) = self.current.take() {
                give_back(chunk, &self.free);
            }
            self.used = 0;
            // The last one is never a whole one, so that another is always to be had here.
            let gone = || Error::new(ErrorKind::Os, Operation::ReadLayer, "ended too early");
            let from = self.from.as_ref().ok_or_else(gone)?;
            self.current = Some(from.recv().unwrap_or_else(|_| Err(gone()))?);
        }
        let chunk = self.current.as_ref().map_or(&[][..], |chunk| chunk.bytes());
        Ok(chunk.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;
    use std::sync::Mutex;
    use std::time::Duration;

    /// The writer fails while it has all buffers: one in its hands, the others waiting for it. Whoever decompresses gets none back.
    #[test]
    fn a_writer_that_fails_with_all_buffers_ends_all() {
        let (ended, end) = channel();
        thread::spawn(move || {
            let (full, wait) = channel();
            let full = Mutex::new(full);
            let observer = move |progress: Progress| {
                if progress.archive == (CHUNK * CHUNKS) as u64 {
                    // The last buffer is on its way; the next thing is to wait for another.
                    let _ = full.lock().unwrap().send(());
                }
                ControlFlow::Continue(())
            };
            let layer = LayerReader::new(io::repeat(7).take((CHUNK * CHUNKS * 2) as u64)).unwrap();
            let result = run(layer, Some(&observer), |chunks| {
                let _ = chunks.fill_buf();
                wait.recv().unwrap();
                Err::<(), _>(Error::refused("as it should be"))
            });
            let _ = ended.send(result.map(|_| ()));
        });
        let result = end.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Refused);
    }
}
