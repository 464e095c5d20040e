//! Reads a tar archive: ustar, PAX and GNU headers, as one list of entries on which all readers agree.
//!
//! Archives that GNU tar, Go's and Python's libraries read differently are how entries are smuggled past a check (CVE-2025-62518 and its
//! kin), so what they do not agree about is an error here: two extended headers for one entry, PAX beside GNU long names,
//! a lone zero block. There is one exception, which real archives need: what can have no data has none, whatever its size
//! says; that is what the libraries of all engines do. Everything that has a size has a limit *before* it is read.

mod acl;
mod header;
mod pax;
mod sparse;
mod write;

use crate::{Error, ErrorKind, Limits, Operation};
use header::{BLOCK, Header};
use pax::{Records, SparseHints};
use sparse::{Lines, Map, wrong_map};
use std::io::{self, BufRead};

pub(crate) use acl::map_ids;
pub(crate) use header::{Kind, Time};
pub(crate) use sparse::Sparse;
pub(crate) use write::{pad, write_end, write_entry};

/// One entry of the archive. Names are as they stand there: nothing is checked but that they have no zero byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    /// The target of a hard or symbolic link.
    pub(crate) link: Vec<u8>,
    /// The length of the data that follow.
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: Time,
    pub(crate) atime: Option<Time>,
    /// Sorted by name.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Attributes that are there in a form which only the image itself could read.
    pub(crate) unreadable: Vec<Vec<u8>>,
    /// Where the data belong, if there are holes between them.
    pub(crate) sparse: Option<Sparse>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
}

/// An archive that is being read.
pub(crate) struct Archive<R> {
    reader: R,
    limits: Limits,
    /// Data of the current entry that has not been read.
    data: u64,
    /// What fills its last block.
    padding: u64,
    global: Records,
    ended: bool,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(reader: R, limits: Limits) -> Self {
        Archive { reader, limits, data: 0, padding: 0, global: Records::default(), ended: false }
    }

    /// The next entry; what was not read of the last one's data is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extended = Extended::default();
        while !self.ended {
            self.skip()?;
            let Some(header) = self.header()? else {
                self.ended = true;
                break;
            };
            match header.flag {
                b'x' if extended.local.is_none() => extended.local = Some(self.records(header.size)?),
                b'L' if extended.name.is_none() => extended.name = Some(self.long_name(header.size)?),
                b'K' if extended.link.is_none() => extended.link = Some(self.long_name(header.size)?),
                b'g' if extended == Extended::default() => {
                    let records = self.records(header.size)?;
                    if records.place_entries() {
                        return Err(understood_differently());
                    }
                    self.global.update(records)?;
                    // All global headers together are bounded as one.
                    if self.global.length() > self.limits.pax_bytes {
                        return Err(Error::limit(Operation::Unpack, "bytes of PAX headers", self.limits.pax_bytes));
                    }
                }
                b'x' | b'L' | b'K' | b'g' => return Err(understood_differently()),
                _ => return self.entry(header, extended).map(Some),
            }
        }
        if extended == Extended::default() { Ok(None) } else { Err(malformed("ends after an extended header")) }
    }

    /// Data of the current entry, as far as they are there; nothing at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8], Error> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let there = fill(&mut self.reader)?;
        if there.is_empty() {
            return Err(malformed("ends within the data of an entry"));
        }
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX).min(there.len());
        Ok(there.get(..wanted).unwrap_or_default())
    }

    /// Goes on by as many bytes of what [`data`](Self::data) gave.
    pub(crate) fn advance(&mut self, count: usize) {
        self.reader.consume(count);
        self.data = self.data.saturating_sub(count as u64);
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    fn entry(&mut self, header: Header, extended: Extended) -> Result<Entry, Error> {
        let mixed = extended.local.is_some() && (extended.name.is_some() || extended.link.is_some());
        if mixed {
            return Err(understood_differently());
        }
        let mut map = match header.flag {
            b'S' => Some(self.gnu_map(&header)?),
            _ => None,
        };
        let mut entry = header.into_entry()?;
        entry.name = extended.name.unwrap_or(entry.name);
        entry.link = extended.link.unwrap_or(entry.link);
        let records = self.global.merged(extended.local)?;
        if let Some(hints) = records.sparse(&self.limits)?
            && (map.replace(hints).is_some() || !matches!(entry.kind, Kind::File { .. }))
        {
            return Err(understood_differently());
        }
        records.apply(&mut entry, &self.limits)?;
        entry.settle()?;
        if entry.name.len() > self.limits.name_bytes || entry.link.len() > self.limits.name_bytes {
            return Err(Error::limit(Operation::Unpack, "bytes in a name", self.limits.name_bytes as u64));
        }
        self.expect(entry.size);
        if let Some(SparseHints { length, map }) = map {
            let segments = match map {
                Map::Known(segments) => segments,
                Map::InData => self.map_in_data()?,
            };
            entry.sparse = Some(Sparse::new(length, segments, self.data, &self.limits)?);
        }
        Ok(entry)
    }

    /// GNU's map begins in the header and goes on in blocks of its own.
    fn gnu_map(&mut self, header: &Header) -> Result<SparseHints, Error> {
        let (length, mut segments, mut more) = header.sparse()?;
        for _ in 0..sparse::most_blocks(&self.limits) {
            if !more {
                return Ok(SparseHints { length, map: Map::Known(segments) });
            }
            let block = self.block()?.ok_or_else(wrong_map)?;
            more = sparse::of_block(block.get(..504).unwrap_or_default(), block.get(504), &mut segments)?;
        }
        Err(Error::limit(Operation::Unpack, "bytes in a map of a sparse file", self.limits.sparse_bytes))
    }

    /// The map of encoding 1.0: whole blocks in front of the data.
    fn map_in_data(&mut self) -> Result<Vec<sparse::Segment>, Error> {
        let mut lines = Lines::new(&self.limits);
        for _ in 0..sparse::most_blocks(&self.limits) {
            self.data = self.data.checked_sub(BLOCK as u64).ok_or_else(wrong_map)?;
            let block = self.block()?.ok_or_else(wrong_map)?;
            if lines.block(&block)? {
                return Ok(lines.segments());
            }
        }
        Err(Error::limit(Operation::Unpack, "bytes in a map of a sparse file", self.limits.sparse_bytes))
    }

    fn expect(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), Error> {
        self.skip_data()?;
        self.data = std::mem::take(&mut self.padding);
        self.skip_data()
    }

    fn skip_data(&mut self) -> Result<(), Error> {
        loop {
            match self.data()?.len() {
                0 => return Ok(()),
                count => self.advance(count),
            }
        }
    }

    /// The next header; `None` at the end, which is two zero blocks or the end of the stream between entries.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|b| *b != 0) {
            return Header::parse(&block).map(Some);
        }
        match self.block()? {
            None => Ok(None),
            Some(second) if second.iter().all(|b| *b == 0) => Ok(None),
            Some(_) => Err(malformed("goes on after a zero block")),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let there = fill(&mut self.reader)?;
            let count = there.len().min(rest.len());
            match count {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("ends within a header")),
                _ => {}
            }
            for (to, from) in rest.iter_mut().zip(there) {
                *to = *from;
            }
            self.reader.consume(count);
            filled += count;
        }
        Ok(Some(block))
    }

    fn records(&mut self, size: u64) -> Result<Records, Error> {
        Records::parse(&self.content(size, "bytes of PAX headers", self.limits.pax_bytes)?)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        // One more for the zero byte at the end.
        let limit = self.limits.name_bytes as u64;
        let mut name = self.content(size, "bytes in a name", limit.saturating_add(1))?;
        // Some read the whole block, to a zero byte beyond what the header says.
        if self.padding > 0 && !name.contains(&0) && fill(&mut self.reader)?.first().is_some_and(|b| *b != 0) {
            return Err(understood_differently());
        }
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        Ok(name)
    }

    /// The data of an extended header.
    fn content(&mut self, size: u64, what: &'static str, limit: u64) -> Result<Vec<u8>, Error> {
        if size > limit {
            return Err(Error::limit(Operation::Unpack, what, limit));
        }
        self.expect(size);
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        loop {
            let data = self.data()?;
            content.extend_from_slice(data);
            match data.len() {
                0 => return Ok(content),
                count => self.advance(count),
            }
        }
    }
}

/// The extended headers before an entry's own.
#[derive(Default, PartialEq, Eq)]
struct Extended {
    local: Option<Records>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Entry {
    /// Decides what the headers leave open, when all of them have been heard.
    fn settle(&mut self) -> Result<(), Error> {
        let directory_name = self.name.ends_with(b"/");
        match self.kind {
            // Before POSIX, a slash at the end was all that told a directory.
            Kind::File { old: true } if directory_name => self.kind = Kind::Directory,
            Kind::File { .. } if directory_name => return Err(malformed("has a file with the name of a directory")),
            _ => {}
        }
        // Some writers give links the size of their target, or directories that of what is in them. No data follow, as Go's library (and so docker, containerd, buildah,
        // umoci) and Python's have it. GNU tar expects some of symlinks, devices and fifos: to it, such a layer would have other entries.
        if !matches!(self.kind, Kind::File { .. } | Kind::Other(_)) {
            self.size = 0;
        }
        if [&self.name, &self.link].into_iter().any(|name| name.contains(&0)) {
            return Err(malformed("has a name with a zero byte"));
        }
        Ok(())
    }
}

/// For a fuzzer: what holds of every entry with so much data.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_header_rules(entry: &Entry, stored: u64) {
    match (&entry.sparse, entry.kind) {
        (Some(sparse), _) => {
            let mut end = 0;
            for (offset, count) in &sparse.segments {
                assert!(*offset >= end && offset + count <= sparse.length, "{sparse:?}");
                end = offset + count;
            }
            assert_eq!(sparse.segments.iter().map(|(_, count)| count).sum::<u64>(), stored);
        }
        (None, Kind::File { .. } | Kind::Other(_)) => assert_eq!(entry.size, stored),
        (None, _) => assert_eq!((entry.size, stored), (0, 0)),
    }
}

fn malformed(words: &'static str) -> Error {
    Error::new(ErrorKind::Malformed, Operation::Unpack, words).about("archive")
}

fn understood_differently() -> Error {
    malformed("has extended headers that tar readers understand differently")
}

/// What the reader has at hand; nothing at its end.
fn fill(reader: &mut impl BufRead) -> Result<&[u8], Error> {
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::from_io(Operation::Unpack, e)),
        }
    }
    // What is at hand is given again.
    reader.fill_buf().map_err(|e| Error::from_io(Operation::Unpack, e))
}
