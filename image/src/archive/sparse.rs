//! Sparse files: only their data is in the archive, with a map that says where it belongs. There are four encodings, all of GNU's making:
//! a map in the header itself (`S`), and three of PAX (0.0, 0.1 and 1.0).

use super::header::{BLOCK, number};
use super::malformed;
use super::pax::decimal;
use crate::{Error, Limits, Operation};

/// A piece of data: where in the file, how long.
pub(crate) type Segment = (u64, u64);

/// A file with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Its length, holes included.
    pub(crate) length: u64,
    /// In ascending order, without overlaps; their data follow each other in the archive.
    pub(crate) segments: Vec<Segment>,
}

impl Sparse {
    /// `stored` is the length of the data in the archive, of which not a byte may be left over.
    pub(super) fn new(length: u64, segments: Vec<Segment>, stored: u64, limits: &Limits) -> Result<Self, Error> {
        if length > limits.bytes {
            return Err(Error::limit(Operation::Unpack, "bytes in a file", limits.bytes));
        }
        let (mut end, mut data) = (0, 0_u64);
        for (offset, count) in &segments {
            let next = offset.checked_add(*count).filter(|next| *offset >= end && *next <= length);
            end = next.ok_or_else(wrong_map)?;
            data = data.saturating_add(*count);
        }
        if data != stored {
            return Err(wrong_map());
        }
        Ok(Sparse { length, segments })
    }
}

/// Where the map is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Map {
    /// Read already.
    Known(Vec<Segment>),
    /// The first blocks of the entry's data, as decimal numbers in lines.
    InData,
}

/// Takes a map off a GNU header, or off one of the blocks after it: pairs of numbers. The second result: another block follows.
pub(super) fn of_block(pairs: &[u8], more: Option<&u8>, segments: &mut Vec<Segment>) -> Result<bool, Error> {
    for pair in pairs.chunks_exact(24) {
        let (offset, count) = pair.split_at(12);
        // GNU tar's own mark of the end.
        if count.first() == Some(&0) {
            break;
        }
        let unsigned = |field| u64::try_from(number(field)?).map_err(|_| wrong_map());
        segments.push((unsigned(offset)?, unsigned(count)?));
    }
    Ok(more.is_some_and(|flag| *flag != 0))
}

/// As many blocks can carry a map.
pub(super) fn most_blocks(limits: &Limits) -> usize {
    usize::try_from(limits.sparse_bytes / BLOCK as u64).unwrap_or(usize::MAX)
}

/// As many pieces can a map have: few bytes of text are one, which takes more in memory.
fn most_segments(limits: &Limits) -> usize {
    usize::try_from(limits.sparse_bytes / size_of::<Segment>() as u64).unwrap_or(usize::MAX)
}

fn too_long(limits: &Limits) -> Error {
    Error::limit(Operation::Unpack, "bytes in a map of a sparse file", limits.sparse_bytes)
}

/// PAX 0.1: all numbers in one record, between commas.
pub(super) fn of_record(text: &[u8], limits: &Limits) -> Result<Vec<Segment>, Error> {
    let mut numbers = text.split(|b| *b == b',').map(|text| decimal(text).ok_or_else(wrong_map));
    let mut segments = Vec::new();
    while let Some(offset) = numbers.next() {
        if segments.len() >= most_segments(limits) {
            return Err(too_long(limits));
        }
        segments.push((offset?, numbers.next().ok_or_else(wrong_map)??));
    }
    Ok(segments)
}

/// PAX 1.0: a map that is being read, block by block.
#[derive(Debug)]
pub(super) struct Lines {
    /// How many pairs there are, which the first line says.
    pairs: Option<usize>,
    limits: Limits,
    segments: Vec<Segment>,
    /// The first number of a pair that is not complete.
    offset: Option<u64>,
    /// Digits of a number that is not complete.
    digits: Vec<u8>,
}

impl Lines {
    pub(super) fn new(limits: &Limits) -> Self {
        Lines { pairs: None, limits: limits.clone(), segments: Vec::new(), offset: None, digits: Vec::new() }
    }

    /// Whether that was the last block of the map.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, Error> {
        for byte in block {
            if self.complete() {
                break;
            }
            if *byte == b'\n' {
                let number = decimal(&self.digits).ok_or_else(wrong_map)?;
                self.digits.clear();
                self.number(number)?;
            } else {
                self.digits.push(*byte);
            }
        }
        Ok(self.complete())
    }

    fn number(&mut self, number: u64) -> Result<(), Error> {
        match (self.pairs, self.offset.take()) {
            (None, _) => {
                let pairs = usize::try_from(number).ok().filter(|pairs| *pairs <= most_segments(&self.limits));
                self.pairs = Some(pairs.ok_or_else(|| too_long(&self.limits))?);
            }
            (Some(_), None) => self.offset = Some(number),
            (Some(_), Some(offset)) => self.segments.push((offset, number)),
        }
        Ok(())
    }

    fn complete(&self) -> bool {
        self.pairs == Some(self.segments.len())
    }

    pub(super) fn segments(self) -> Vec<Segment> {
        self.segments
    }
}

pub(super) fn wrong_map() -> Error {
    malformed("has a sparse file whose map is wrong")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn maps_that_are_refused() {
        let check = |length, segments: &[Segment], stored| {
            Sparse::new(length, segments.to_vec(), stored, &Limits::default()).is_ok()
        };
        assert!(check(10, &[(0, 2), (5, 5)], 7));
        assert!(check(10, &[(10, 0)], 0), "GNU tar marks a hole at the end so");
        assert!(check(10, &[], 0));
        for (length, segments, stored) in [
            (10, &[(5, 2), (0, 2)][..], 4),
            (10, &[(0, 6), (5, 1)], 7),
            (10, &[(5, 6)], 6),
            (10, &[(u64::MAX, 2)], 2),
            (10, &[(0, 2)], 3),
            (10, &[(0, 2)], 1),
            (u64::MAX, &[], 0),
        ] {
            assert!(!check(length, segments, stored), "{length} {segments:?} {stored}");
        }
    }

    #[test]
    fn maps_in_text() {
        let limits = Limits { sparse_bytes: 64, ..Limits::default() };
        let lines = || Lines::new(&limits);
        assert_eq!(of_record(b"0,2,5,1", &limits).unwrap(), [(0, 2), (5, 1)]);
        for wrong in [&b""[..], b"0", b"0,1,2", b"0,-1", b"0,1,", b"a,b", b"0,1,0,1,0,1,0,1,0,1"] {
            assert!(of_record(wrong, &limits).is_err(), "{wrong:?}");
        }
        for wrong in [&b"-1\n"[..], b"5\n", b"18446744073709551615\n", b"\n"] {
            assert!(lines().block(wrong).is_err(), "{wrong:?}");
        }
        assert!(lines().block(b"0\n").unwrap());
        let mut lines = lines();
        assert!(!lines.block(b"2\n0\n2\n5").unwrap());
        assert!(lines.block(b"12\n1\n\0\0garbage").unwrap());
        assert_eq!(lines.segments(), [(0, 2), (512, 1)]);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = of_record(&bytes, &Limits::default());
            let _ = Lines::new(&Limits::default()).block(&bytes);
            let _ = of_block(&bytes, bytes.first(), &mut Vec::new());
        }
    }
}
