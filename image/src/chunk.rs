//! Buffers that go round between the threads of a layer.

use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A buffer and what is in it.
#[derive(Default)]
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Fills it anew, with what is read into its buffer of so many bytes; its memory is taken when that is done first.
    pub(crate) fn fill<E>(
        &mut self,
        capacity: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.length = 0;
        self.buffer.resize(capacity, 0);
        self.length = read(&mut self.buffer)?;
        Ok(self.length)
    }
}

/// The last one to be done with a chunk gives it back. If nobody wants it any more, that is fine.
pub(crate) fn give_back(chunk: Arc<Chunk>, free: &Sender<Chunk>) {
    if let Some(chunk) = Arc::into_inner(chunk) {
        let _ = free.send(chunk);
    }
}
