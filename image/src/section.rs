//! A part of a file, read by its own position, so that several can be read at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads a blob of an image: a file of a layout, or a part of an archive. Not verified: [`LayerReader`](crate::LayerReader) hashes what it reads.
#[derive(Debug, Clone)]
pub struct Blob(Section);

impl Blob {
    pub(crate) fn new(section: Section) -> Self {
        Blob(section)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Section {
    pub(crate) fn new(file: Arc<File>, at: u64, length: u64) -> Self {
        Section { file, at, left: length }
    }

    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
