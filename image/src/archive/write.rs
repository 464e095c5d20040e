//! Writes a tar archive: ustar headers, and PAX records for what does not fit. The same entries give the same bytes.

use super::header::BLOCK;
use super::{Entry, Kind, Time};
use std::io::{self, Write};

/// The largest number of eleven octal digits.
const OCTAL_11: u64 = 0o777_7777_7777;
const OCTAL_7: u64 = 0o777_7777;

/// Writes the headers of an entry. Its data follow, then [`pad`].
pub(crate) fn write_entry(entry: &Entry, to: &mut impl Write) -> io::Result<()> {
    let mut records = Vec::new();
    let fits = |name: &[u8]| name.len() <= 100 && name.is_ascii();
    if !fits(&entry.name) {
        record(&mut records, b"path", &entry.name);
    }
    if !fits(&entry.link) {
        record(&mut records, b"linkpath", &entry.link);
    }
    let too_large = [("uid", entry.uid, OCTAL_7), ("gid", entry.gid, OCTAL_7), ("size", entry.size, OCTAL_11)];
    for (key, number, most) in too_large {
        if number > most {
            record(&mut records, key.as_bytes(), number.to_string().as_bytes());
        }
    }
    if entry.mtime.nanos != 0 || octal_seconds(entry.mtime).is_none() {
        record(&mut records, b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if !records.is_empty() {
        let size = records.len() as u64;
        let header = Entry { name: b"PaxHeaders/entry".to_vec(), size, mode: 0o644, ..Entry::empty(Kind::Other(b'x')) };
        to.write_all(&header_of(&header))?;
        to.write_all(&records)?;
        pad(size, to)?;
    }
    to.write_all(&header_of(entry))
}

/// Fills the last block of so many bytes of data.
pub(crate) fn pad(size: u64, to: &mut impl Write) -> io::Result<()> {
    let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
    to.write_all([0; BLOCK].get(..padding).unwrap_or_default())
}

/// Two zero blocks.
pub(crate) fn write_end(to: &mut impl Write) -> io::Result<()> {
    to.write_all(&[0; 2 * BLOCK])
}

impl Entry {
    /// Of this type, without anything.
    pub(crate) fn empty(kind: Kind) -> Self {
        Entry {
            name: Vec::new(),
            kind,
            link: Vec::new(),
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            atime: None,
            xattrs: Vec::new(),
            unreadable: Vec::new(),
            sparse: None,
            device: (0, 0),
        }
    }
}

fn octal_seconds(time: Time) -> Option<u64> {
    u64::try_from(time.secs).ok().filter(|secs| *secs <= OCTAL_11)
}

/// As PAX has it: before 1970 the fraction counts backwards.
fn decimal(time: Time) -> String {
    let Time { secs, nanos } = time;
    match (secs, nanos) {
        (secs, 0) => secs.to_string(),
        (0.., nanos) => with_fraction(&secs.to_string(), nanos),
        (_, nanos) => with_fraction(&format!("-{}", (secs + 1).unsigned_abs()), 1_000_000_000 - nanos),
    }
}

fn with_fraction(secs: &str, nanos: u32) -> String {
    let digits = format!("{nanos:09}");
    format!("{secs}.{}", digits.trim_end_matches('0'))
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn header_of(entry: &Entry) -> Vec<u8> {
    let flag = match entry.kind {
        Kind::File { .. } => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
        Kind::Other(flag) => flag,
    };
    let octal = |number: u64, digits: usize| format!("{number:0digits$o}\0").into_bytes();
    let clipped = |number: u64| if number > OCTAL_7 { 0 } else { number };
    let size = if entry.size > OCTAL_11 { 0 } else { entry.size };
    let before = [
        text(&entry.name, 100),
        octal(u64::from(entry.mode), 7),
        octal(clipped(entry.uid), 7),
        octal(clipped(entry.gid), 7),
        octal(size, 11),
        octal(octal_seconds(entry.mtime).unwrap_or(0), 11),
    ]
    .concat();
    let after = [
        vec![flag],
        text(&entry.link, 100),
        b"ustar\x0000".to_vec(),
        vec![0; 64],
        octal(u64::from(entry.device.0), 7),
        octal(u64::from(entry.device.1), 7),
    ]
    .concat();
    let sum: u64 = before.iter().chain(b"        ").chain(&after).map(|b| u64::from(*b)).sum();
    let mut header = [before, format!("{sum:06o}\0 ").into_bytes(), after].concat();
    header.resize(BLOCK, 0);
    header
}

/// What is too long, or not for everybody, has a record; here is what is left for those who do not read it.
fn text(name: &[u8], length: usize) -> Vec<u8> {
    let mut field: Vec<u8> = name.iter().take(length).map(|b| if b.is_ascii() { *b } else { b'_' }).collect();
    field.resize(length, 0);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::archive::Archive;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in proptest::collection::vec(1_u8..=255, 1..150).prop_filter("not a directory's", |n| !n.ends_with(b"/")),
            link in proptest::collection::vec(1_u8..=255, 0..150),
            uid in prop_oneof![0_u64..5_000_000, Just(u64::from(u32::MAX) - 1)],
            secs in prop_oneof![-5_i64..5, any::<i32>().prop_map(i64::from), Just(1 << 40)],
            nanos in prop_oneof![Just(0), 0_u32..1_000_000_000],
            value in proptest::collection::vec(any::<u8>(), 0..40),
            data in proptest::collection::vec(any::<u8>(), 0..1200),
        ) {
            let xattrs = vec![(b"user.a=b".to_vec(), value.clone()), (b"user.c".to_vec(), value)];
            let xattrs = xattrs.into_iter().filter(|(name, _)| !name.contains(&b'=')).collect();
            let entry = Entry {
                name, link, uid, gid: 7, mode: 0o4755, size: data.len() as u64, xattrs,
                mtime: Time { secs, nanos }, ..Entry::empty(Kind::File { old: false })
            };
            let mut bytes = Vec::new();
            write_entry(&entry, &mut bytes).unwrap();
            bytes.extend_from_slice(&data);
            pad(entry.size, &mut bytes).unwrap();
            write_end(&mut bytes).unwrap();
            prop_assert_eq!(bytes.len() % 512, 0);
            let mut archive = Archive::new(&bytes[..], Limits::default());
            let read = archive.next().unwrap().unwrap();
            prop_assert_eq!(&read, &entry);
            prop_assert!(archive.next().unwrap().is_none());
        }
    }
}
