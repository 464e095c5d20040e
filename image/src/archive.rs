//! Reads a tar archive: ustar, PAX and GNU headers, as one list of entries on which all readers agree.
//!
//! Archives that GNU tar, Go's and Python's libraries read differently are how entries are smuggled past a check (CVE-2025-62518 and its
//! kin), so what they do not agree about is an error here: two extended headers for one entry, PAX beside GNU long names,
//! a directory with data, a lone zero block. Everything that has a size has a limit *before* it is read.

mod header;
mod pax;

use crate::{Error, ErrorKind, Limits, Operation};
use header::{BLOCK, Header};
use pax::Records;
use std::io::{self, Read};

pub(crate) use header::{Kind, Time};

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

impl<R: Read> Archive<R> {
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
                    self.global.update(records);
                    // All global headers together are bounded as one.
                    if self.global.length() > self.limits.pax_bytes {
                        return Err(Error::limit(Operation::Unpack, "bytes of PAX headers", self.limits.pax_bytes));
                    }
                }
                b'x' | b'L' | b'K' | b'g' => return Err(understood_differently()),
                b'S' => return Err(sparse()),
                _ => return self.entry(header, extended).map(Some),
            }
        }
        if extended == Extended::default() { Ok(None) } else { Err(malformed("ends after an extended header")) }
    }

    /// Reads data of the current entry; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..wanted).filter(|part| !part.is_empty()) else { return Ok(0) };
        let count = read_some(&mut self.reader, part)?;
        if count == 0 {
            return Err(malformed("ends within the data of an entry"));
        }
        self.data -= count as u64;
        Ok(count)
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    fn entry(&mut self, header: Header, extended: Extended) -> Result<Entry, Error> {
        let mixed = extended.local.is_some() && (extended.name.is_some() || extended.link.is_some());
        if mixed {
            return Err(understood_differently());
        }
        let mut entry = header.into_entry()?;
        entry.name = extended.name.unwrap_or(entry.name);
        entry.link = extended.link.unwrap_or(entry.link);
        self.global.merged(extended.local).apply(&mut entry, &self.limits)?;
        entry.settle()?;
        if entry.name.len() > self.limits.name_bytes || entry.link.len() > self.limits.name_bytes {
            return Err(Error::limit(Operation::Unpack, "bytes in a name", self.limits.name_bytes as u64));
        }
        self.expect(entry.size);
        Ok(entry)
    }

    fn expect(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 16 * 1024];
        while self.read_data(&mut buffer)? > 0 {}
        self.data = std::mem::take(&mut self.padding);
        while self.read_data(&mut buffer)? > 0 {}
        Ok(())
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
            match read_some(&mut self.reader, rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("ends within a header")),
                count => filled += count,
            }
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
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        Ok(name)
    }

    /// The data of an extended header.
    fn content(&mut self, size: u64, what: &'static str, limit: u64) -> Result<Vec<u8>, Error> {
        if size > limit {
            return Err(Error::limit(Operation::Unpack, what, limit));
        }
        self.expect(size);
        let mut content = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = self.read_data(&mut buffer)?;
            if count == 0 {
                return Ok(content);
            }
            content.extend_from_slice(buffer.get(..count).unwrap_or_default());
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
        match self.kind {
            Kind::File { .. } | Kind::Other(_) => {}
            Kind::Directory if self.size != 0 => return Err(malformed("has a directory with data")),
            // Some writers give links the size of their target; no reader expects data.
            _ => self.size = 0,
        }
        if [&self.name, &self.link].into_iter().any(|name| name.contains(&0)) {
            return Err(malformed("has a name with a zero byte"));
        }
        Ok(())
    }
}

fn malformed(words: &'static str) -> Error {
    Error::new(ErrorKind::Malformed, Operation::Unpack, words).about("archive")
}

fn understood_differently() -> Error {
    malformed("has extended headers that tar readers understand differently")
}

fn sparse() -> Error {
    Error::new(ErrorKind::Unsupported, Operation::Unpack, "is a sparse file, which this version does not unpack")
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match reader.read(buffer) {
            Ok(count) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::from_io(Operation::Unpack, e)),
        }
    }
}
