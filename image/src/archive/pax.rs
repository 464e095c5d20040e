//! PAX extended headers: records of `LENGTH KEY=VALUE\n`, `pax(1)`.

use super::{Entry, Time, malformed, sparse};
use crate::{Error, Limits, Operation};
use std::collections::BTreeMap;

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

/// Records by their keys. Of several with one key the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Error> {
        let mut records = BTreeMap::new();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or_else(|| malformed("has a damaged PAX record"))?;
            records.insert(key.to_vec(), value.to_vec());
            bytes = rest;
        }
        Ok(Records(records))
    }

    /// Lets later records of a global header replace these.
    pub(super) fn update(&mut self, later: Records) {
        self.0.extend(later.0);
    }

    /// Whether they say what or where an entry is. As global records, some readers heed them, some in part, some not at all.
    pub(super) fn place_entries(&self) -> bool {
        [&b"path"[..], b"linkpath", b"size"].into_iter().any(|key| self.0.contains_key(key))
    }

    /// What all records take, roughly as in the archive.
    pub(super) fn length(&self) -> u64 {
        self.0.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// These global records with an entry's own above them.
    pub(super) fn merged(&self, local: Option<Records>) -> Records {
        let mut all = self.clone();
        if let Some(local) = local {
            all.update(local);
        }
        all
    }

    /// Puts what the records say in place of what the entry's header says.
    pub(super) fn apply(self, entry: &mut Entry, limits: &Limits) -> Result<(), Error> {
        let mut xattrs = BTreeMap::new();
        let mut encoded = BTreeMap::new();
        for (key, value) in self.0 {
            if let Some(name) = key.strip_prefix(SCHILY) {
                xattrs.insert(name.to_vec(), value);
            } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
                encoded.insert(name.to_vec(), value);
            } else if key.starts_with(b"GNU.sparse.") {
                return Err(sparse());
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

fn decimal(digits: &[u8]) -> Option<u64> {
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
        let records = Records::parse(b"6 a=b\n12 long==\n\0\n5 c=\n").unwrap();
        let expected = [(&b"a"[..], &b"b"[..]), (b"c", b""), (b"long", b"=\n\0")];
        assert!(records.0.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected));
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
        fn what_is_written_is_read(key in "[a-zA-Z.]{1,20}", value in proptest::collection::vec(any::<u8>(), 0..120)) {
            let content = [b" ", key.as_bytes(), b"=", &value, b"\n"].concat();
            let mut length = content.len() + 1;
            while length != content.len() + length.to_string().len() {
                length += 1;
            }
            let bytes = [length.to_string().as_bytes(), &content].concat();
            let records = Records::parse(&bytes).unwrap();
            prop_assert_eq!(records.0.get(key.as_bytes()), Some(&value));
        }
    }
}
