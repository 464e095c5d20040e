//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, `pax(1)`.

use super::sparse::{self, Map, Segment, wrong_map};
use super::{Entry, Time, acl, malformed};
use crate::{Error, Limits, Operation};
use std::collections::BTreeMap;

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

const SPARSE: &[u8] = b"GNU.sparse.";

/// No entry needs so many records. (The names of a file's attributes have 64 KiB at most, `xattr(7)`.)
const MOST: usize = 2000;

/// Records by their keys. Of several with one key the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The one exception: a map of a sparse file in encoding 0.0, as alternating offsets and lengths.
    pairs: Vec<(bool, u64)>,
}

/// What records say about a sparse file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SparseHints {
    pub(super) length: u64,
    pub(super) map: Map,
}

impl Records {
    /// Takes what is for us: of what else there is nothing is kept.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let mut all = Records::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| malformed("has a damaged PAX record"))?;
            match key {
                b"GNU.sparse.offset" => all.pairs.push((true, decimal(value).ok_or_else(wrong_map)?)),
                b"GNU.sparse.numbytes" => all.pairs.push((false, decimal(value).ok_or_else(wrong_map)?)),
                key if is_placing(key) || is_heeded(key) => drop(all.records.insert(key.to_vec(), value.to_vec())),
                _ => {}
            }
            all.check_number()?;
            bytes = rest;
        }
        Ok(all)
    }

    /// Lets later records of a global header replace these.
    pub(super) fn update(&mut self, later: Records) -> Result<(), Error> {
        self.records.extend(later.records);
        if !later.pairs.is_empty() {
            self.pairs = later.pairs;
        }
        self.check_number()
    }

    /// Each takes much more in memory than the few bytes that it has.
    fn check_number(&self) -> Result<(), Error> {
        if self.records.len() > MOST {
            return Err(Error::limit(Operation::Unpack, "PAX records of an entry", MOST as u64));
        }
        Ok(())
    }

    /// Whether they say what or where an entry is. As global records, some readers heed them, some in part, some not at all.
    pub(super) fn place_entries(&self) -> bool {
        !self.pairs.is_empty() || self.records.keys().any(|key| is_placing(key))
    }

    /// What all records take, roughly as in the archive.
    pub(super) fn length(&self) -> u64 {
        self.records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// These global records with an entry's own above them.
    pub(super) fn merged(&self, local: Option<Records>) -> Result<Records, Error> {
        let mut all = self.clone();
        if let Some(local) = local {
            all.update(local)?;
        }
        Ok(all)
    }

    /// Which of the three encodings of a sparse file these are, if one, and where its map is.
    pub(super) fn sparse(&self, limits: &Limits) -> Result<Option<SparseHints>, Error> {
        let get = |key: &str| self.records.get([SPARSE, key.as_bytes()].concat().as_slice());
        let number = |text: &Vec<u8>| decimal(text).ok_or_else(wrong_map);
        if self.pairs.is_empty() && !self.records.keys().any(|key| key.starts_with(SPARSE)) {
            return Ok(None);
        }
        let version = (get("major").map(Vec::as_slice), get("minor").map(Vec::as_slice));
        let (length, map) = match (version, get("map")) {
            ((Some(b"1"), Some(b"0")), None) => (get("realsize"), Map::InData),
            ((None, None), Some(map)) => (get("size"), Map::Known(sparse::of_record(map, limits)?)),
            ((None, None), None) => (get("size"), Map::Known(self.pairs()?)),
            _ => return Err(malformed("has a sparse file in an encoding that is not known")),
        };
        Ok(Some(SparseHints { length: number(length.ok_or_else(wrong_map)?)?, map }))
    }

    fn pairs(&self) -> Result<Vec<Segment>, Error> {
        let pair = |pair: &[(bool, u64)]| match pair {
            [(true, offset), (false, count)] => Ok((*offset, *count)),
            _ => Err(wrong_map()),
        };
        self.pairs.chunks(2).map(pair).collect()
    }

    /// Puts what the records say in place of what the entry's header says.
    pub(super) fn apply(mut self, entry: &mut Entry, limits: &Limits) -> Result<(), Error> {
        // The name of a sparse file; its path is for readers that do not know such files.
        if let Some(name) = self.records.remove(&b"GNU.sparse.name"[..]) {
            self.records.insert(b"path".to_vec(), name);
        }
        let mut xattrs = BTreeMap::new();
        let mut encoded = BTreeMap::new();
        let mut lists = BTreeMap::new();
        for (key, value) in self.records {
            if let Some(name) = key.strip_prefix(SCHILY) {
                xattrs.insert(name.to_vec(), value);
            } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                encoded.insert(name.to_vec(), value);
            } else if let (true, Some(name)) = (!value.is_empty(), acl_attribute(&key)) {
                match acl::of_text(&value) {
                    Some(list) => drop(lists.insert(name.to_vec(), list)),
                    None => entry.unreadable.push(name.to_vec()),
                }
            } else if !value.is_empty() {
                // An empty value takes back what a global header said.
                apply_one(&key, value, entry)?;
            }
        }
        for (name, value) in encoded {
            let decoded = percent(&name).zip(base_64(&value));
            let (name, value) = decoded.ok_or_else(|| malformed("has a damaged LIBARCHIVE.xattr record"))?;
            // bsdtar writes both; the other one is not encoded.
            xattrs.entry(name).or_insert(value);
        }
        for (name, list) in lists {
            xattrs.entry(name).or_insert(list);
        }
        let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > limits.xattr_bytes {
            let limit = limits.xattr_bytes as u64;
            return Err(Error::limit(Operation::Unpack, "bytes of extended attributes of an entry", limit));
        }
        entry.xattrs = xattrs.into_iter().collect();
        Ok(())
    }
}

fn apply_one(key: &[u8], value: Vec<u8>, entry: &mut Entry) -> Result<(), Error> {
    #[cfg(feature = "test-hooks")]
    if key == b"size" && crate::test_hooks::is_off(crate::test_hooks::Defence::Sizes) {
        return Ok(());
    }
    let number = |value: &[u8]| decimal(value).ok_or_else(|| malformed("has a PAX number that is none"));
    match key {
        b"path" => entry.name = value,
        b"linkpath" => entry.link = value,
        b"size" => entry.size = number(&value)?,
        b"uid" => entry.uid = number(&value)?,
        b"gid" => entry.gid = number(&value)?,
        b"mtime" => entry.mtime = time(&value).ok_or_else(|| malformed("has a PAX time that is none"))?,
        b"atime" => entry.atime = Some(time(&value).ok_or_else(|| malformed("has a PAX time that is none"))?),
        // Names of users and groups, ctime, comments, whatever else there is: not for us.
        _ => {}
    }
    Ok(())
}

/// What or where an entry is.
fn is_placing(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(SPARSE)
}

/// What it is like.
fn is_heeded(key: &[u8]) -> bool {
    let ours = matches!(key, b"uid" | b"gid" | b"mtime" | b"atime") || acl_attribute(key).is_some();
    ours || key.starts_with(SCHILY) || key.starts_with(LIBARCHIVE)
}

/// The attribute that a list in text becomes.
fn acl_attribute(key: &[u8]) -> Option<&'static [u8]> {
    match key {
        b"SCHILY.acl.access" => Some(b"system.posix_acl_access"),
        b"SCHILY.acl.default" => Some(b"system.posix_acl_default"),
        _ => None,
    }
}

/// Takes one record off: its key, its value and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = bytes.iter().position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..digits)?)?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let content = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = content.iter().position(|b| *b == b'=')?;
    let (key, value) = content.split_at_checked(equals)?;
    (!key.is_empty()).then_some((key, value.get(1..)?, rest))
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds since 1970, perhaps negative, perhaps with a fraction, of which nine digits count.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = fraction.iter().chain([b'0'; 9].iter()).take(9).fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, nanos) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos: 0 },
        (true, nanos) => Time { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Undoes `%41`.
fn percent(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = text.iter();
    let mut out = Vec::with_capacity(text.len());
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            other => *other,
        });
    }
    Some(out)
}

/// Base64 with or without padding at the end.
fn base_64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for byte in text.iter().take_while(|b| **b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xfff;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_taken_off_one_by_one() {
        let records = Records::parse(b"8 uid=b\n13 mtime==\n\0\n7 gid=\n6 a=b\n").unwrap();
        let expected = [(&b"gid"[..], &b""[..]), (b"mtime", b"=\n\0"), (b"uid", b"b")];
        assert!(records.records.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected), "what is not for us is left out");
        for damaged in [
            &b"6 a=b"[..],
            b"7 a=b\n",
            b"5 a=b\n",
            b"a=b\n",
            b"4 =\n",
            b"4 a\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"6 a=b\n\0",
            b" ",
            b"2 ",
            b"3 \n",
        ] {
            assert!(Records::parse(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn more_records_than_anybody_needs() {
        let records = |count: usize| -> Vec<u8> {
            (0..count).flat_map(|n| format!("32 SCHILY.xattr.user.{n:08}=x\n").into_bytes()).collect()
        };
        let most = Records::parse(&records(MOST)).unwrap();
        assert!(Records::parse(&records(MOST + 1)).is_err());
        assert!(most.merged(Some(Records::parse(b"8 uid=1\n").unwrap())).is_err());
    }

    #[test]
    fn times_to_the_nanosecond() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.000000001", Some((1, 1))),
            ("1.0000000019", Some((1, 1))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("1.", Some((1, 0))),
            ("", None),
            (".5", None),
            ("1.5e3", None),
            ("+1", None),
            ("1.-5", None),
            ("9223372036854775808", None),
        ] {
            let expected = expected.map(|(secs, nanos)| Time { secs, nanos });
            assert_eq!(time(text.as_bytes()), expected, "{text:?}");
        }
        assert!(time(b"-9223372036854775807.5").is_some());
    }

    #[test]
    fn names_and_values_of_libarchive() {
        assert_eq!(percent(b"user.a%3db%20").unwrap(), b"user.a=b ");
        assert_eq!(percent(b"%4"), None);
        for (text, bytes) in [("", &b""[..]), ("Zg==", b"f"), ("Zm8", b"fo"), ("Zm9v", b"foo"), ("/+8=", &[0xff, 0xef])]
        {
            assert_eq!(base_64(text.as_bytes()).as_deref(), Some(bytes));
        }
        assert_eq!(base_64(b"Z g"), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::parse(&bytes);
            let _ = time(&bytes);
            let _ = percent(&bytes);
            let _ = base_64(&bytes);
        }

        #[test]
        fn what_is_written_is_read(key in "SCHILY\\.xattr\\.[a-zA-Z.]{0,20}", value in proptest::collection::vec(any::<u8>(), 0..120)) {
            let content = [b" ", key.as_bytes(), b"=", &value, b"\n"].concat();
            let mut length = content.len() + 1;
            while length != content.len() + length.to_string().len() {
                length += 1;
            }
            let bytes = [length.to_string().as_bytes(), &content].concat();
            let records = Records::parse(&bytes).unwrap();
            prop_assert_eq!(records.records.get(key.as_bytes()), Some(&value));
        }
    }
}
