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

/// PAX 0.1: all numbers in one record, between commas.
pub(super) fn of_record(text: &[u8]) -> Result<Vec<Segment>, Error> {
    let numbers: Option<Vec<u64>> = text.split(|b| *b == b',').map(decimal).collect();
    let numbers = numbers.ok_or_else(wrong_map)?;
    if numbers.len() % 2 != 0 {
        return Err(wrong_map());
    }
    Ok(numbers.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect())
}

/// PAX 1.0: a map that is being read, block by block.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The first of them says how many pairs follow.
    numbers: Vec<u64>,
    /// Digits of one that is not complete.
    digits: Vec<u8>,
}

impl Lines {
    /// Whether that was the last block of the map.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, Error> {
        for byte in block {
            if self.complete() {
                break;
            }
            if *byte != b'\n' {
                self.digits.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&self.digits).ok_or_else(wrong_map)?);
            self.digits.clear();
        }
        Ok(self.complete())
    }

    fn complete(&self) -> bool {
        let read = self.numbers.len() as u64;
        self.numbers.first().is_some_and(|pairs| read > pairs.saturating_mul(2))
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        let pairs = self.numbers.get(1..).unwrap_or_default();
        pairs.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect()
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
        assert_eq!(of_record(b"0,2,5,1").unwrap(), [(0, 2), (5, 1)]);
        for wrong in [&b""[..], b"0", b"0,1,2", b"0,-1", b"0,1,", b"a,b"] {
            assert!(of_record(wrong).is_err(), "{wrong:?}");
        }
        let mut lines = Lines::default();
        assert!(!lines.block(b"2\n0\n2\n5").unwrap());
        assert!(lines.block(b"12\n1\n\0\0garbage").unwrap());
        assert_eq!(lines.segments(), [(0, 2), (512, 1)]);
        assert!(Lines::default().block(b"0\n").unwrap());
        assert!(!Lines::default().block(b"18446744073709551615\n1\n").unwrap(), "the reader's limit ends that");
        assert!(Lines::default().block(b"-1\n").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = of_record(&bytes);
            let _ = Lines::default().block(&bytes);
            let _ = of_block(&bytes, bytes.first(), &mut Vec::new());
        }
    }
}
