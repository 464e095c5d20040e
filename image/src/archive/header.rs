//! A header block of 512 bytes, `tar(5)`.

use super::sparse::{self, Segment};
use super::{Entry, malformed};
use crate::Error;
use std::ops::Range;

pub(crate) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// star's mark, and what it leaves of the prefix.
const STAR: Range<usize> = 508..512;
const STAR_PREFIX: usize = 131;
// GNU's, in place of the prefix.
const GNU_ATIME: Range<usize> = 345..357;
const GNU_CTIME: Range<usize> = 357..369;
const SPARSE: Range<usize> = 386..482;
const SPARSE_MORE: usize = 482;
const SPARSE_LENGTH: Range<usize> = 483..495;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File {
        /// Marked as archives before POSIX did, where it can be a directory as well.
        old: bool,
    },
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// This type flag is not known.
    Other(u8),
}

/// A point in time, `nanos` always counting forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// A header whose checksum is right. Its numbers are read when they are needed.
pub(super) struct Header {
    block: [u8; BLOCK],
    pub(super) flag: u8,
    pub(super) size: u64,
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, Error> {
        let header = Header { block: *block, flag: block.get(FLAG).copied().unwrap_or(0), size: 0 };
        let stored = header.number(CHECKSUM)?;
        // Once some wrote the sum of signed bytes.
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stored != unsigned && stored != signed {
            return Err(malformed("has a header with a wrong checksum"));
        }
        let size = header.unsigned(SIZE)?;
        Ok(Header { size, ..header })
    }

    pub(super) fn into_entry(self) -> Result<Entry, Error> {
        let kind = match self.flag {
            b'0' | b'7' | b'S' => Kind::File { old: false },
            0 => Kind::File { old: true },
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (self.device(MAJOR)?, self.device(MINOR)?),
            _ => (0, 0),
        };
        Ok(Entry {
            name: self.name()?,
            kind,
            link: self.text(LINK).to_vec(),
            size: self.size,
            // All but the permissions is told by the type; some writers put S_IFMT here.
            mode: u32::try_from(self.unsigned(MODE)? & 0o7777).unwrap_or(0),
            uid: self.unsigned(UID)?,
            gid: self.unsigned(GID)?,
            mtime: Time { secs: self.number(MTIME)?, nanos: 0 },
            atime: None,
            xattrs: Vec::new(),
            unreadable: Vec::new(),
            sparse: None,
            device,
        })
    }

    fn name(&self) -> Result<Vec<u8>, Error> {
        let name = self.text(NAME);
        let prefix = self.prefix()?;
        Ok(if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() })
    }

    /// Only POSIX has one, whatever version it says; star has a shorter one, and GNU times in its place. Go and Python see a prefix in some of
    /// those too.
    fn prefix(&self) -> Result<&[u8], Error> {
        let starts = |field: Range<usize>| self.block.get(field.start).is_some_and(|b| *b != 0);
        let posix = self.bytes(MAGIC).starts_with(b"ustar\0");
        let prefix = self.text(PREFIX);
        let differs = if posix {
            self.bytes(STAR) == b"tar\0" && prefix.len() >= STAR_PREFIX
        } else if self.flag == b'S' {
            let is_time = |field: Range<usize>| !starts(field.clone()) || self.number(field).is_ok();
            !is_time(GNU_ATIME) || !is_time(GNU_CTIME)
        } else {
            starts(PREFIX)
        };
        if differs {
            return Err(malformed("has a prefix that tar readers understand differently"));
        }
        Ok(if posix { prefix } else { b"" })
    }

    fn device(&self, field: Range<usize>) -> Result<u32, Error> {
        u32::try_from(self.unsigned(field)?).map_err(|_| malformed("has a device number that is too large"))
    }

    fn bytes(&self, field: Range<usize>) -> &[u8] {
        self.block.get(field).unwrap_or_default()
    }

    fn text(&self, field: Range<usize>) -> &[u8] {
        until_zero(self.bytes(field))
    }

    fn unsigned(&self, field: Range<usize>) -> Result<u64, Error> {
        u64::try_from(self.number(field)?).map_err(|_| malformed("has a negative number where none can be"))
    }

    fn number(&self, field: Range<usize>) -> Result<i64, Error> {
        number(self.bytes(field))
    }

    /// GNU's map of a sparse file: the length of the file, its first pairs, and whether there are more.
    pub(super) fn sparse(&self) -> Result<(u64, Vec<Segment>, bool), Error> {
        let mut segments = Vec::new();
        let more = sparse::of_block(self.bytes(SPARSE), self.block.get(SPARSE_MORE), &mut segments)?;
        Ok((self.unsigned(SPARSE_LENGTH)?, segments, more))
    }
}

/// A number as headers have it.
pub(super) fn number(field: &[u8]) -> Result<i64, Error> {
    match field.first() {
        Some(0x80..) => base_256(field),
        _ => octal(until_zero(field)),
    }
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// Octal digits, with spaces around them. Nothing at all is 0.
fn octal(field: &[u8]) -> Result<i64, Error> {
    let digits = field.trim_ascii();
    digits.iter().try_fold(0_i64, |number, digit| match digit {
        b'0'..=b'7' => number
            .checked_mul(8)
            .and_then(|n| n.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| malformed("has a number that is too large")),
        _ => Err(malformed("has a number that is not octal")),
    })
}

/// GNU's numbers: the highest bit set, then a big-endian two's complement.
fn base_256(field: &[u8]) -> Result<i64, Error> {
    let Some((first, rest)) = field.split_first() else { return Ok(0) };
    // Bit 6 is the sign.
    let start = i64::from((first << 1).cast_signed() >> 1);
    rest.iter().try_fold(start, |number, byte| {
        number
            .checked_mul(256)
            .and_then(|n| n.checked_add(i64::from(*byte)))
            .ok_or_else(|| malformed("has a number that is too large"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers() {
        for (field, number) in [
            (&b"0000644"[..], Some(0o644)),
            (b"   644 ", Some(0o644)),
            (b"", Some(0)),
            (b"  ", Some(0)),
            (b"77777777777", Some(0o77_777_777_777)),
            (b"8", None),
            (b"-1", None),
            (b"6 4", None),
            (b"0x1", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(octal(field).ok(), number, "{field:?}");
        }
    }

    #[test]
    fn base_256_numbers() {
        for (field, number) in [
            (&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], Some(256)),
            (&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], None),
            (&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some(i64::MAX)),
            (&[0xff; 12], Some(-1)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Some(-2)),
            (&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None),
            (&[0x81, 0], Some(256)),
        ] {
            assert_eq!(base_256(field).ok(), number, "{field:x?}");
        }
    }
}
