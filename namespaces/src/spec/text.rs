//! Strings of the system as text, for `#[serde(with)]`.
//!
//! What is not UTF-8 is kept: each such byte is a zero character and two hexadecimal digits, `"\u0000ff"` in JSON. No path and no argument can
//! have a zero byte in it, so that nothing else is meant by that.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_plain().serialize(serializer)
}

pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::Plain::deserialize(deserializer).and_then(|plain| {
        T::from_plain(plain).ok_or_else(|| D::Error::custom("a zero character without the byte that it stands for"))
    })
}

/// Strings of the system, alone or several.
pub(crate) trait Text: Sized {
    type Plain: Serialize + DeserializeOwned;
    fn to_plain(&self) -> Self::Plain;
    fn from_plain(plain: Self::Plain) -> Option<Self>;
}

impl Text for OsString {
    type Plain = String;

    fn to_plain(&self) -> String {
        escape(self)
    }

    fn from_plain(plain: String) -> Option<Self> {
        unescape(&plain)
    }
}

impl Text for PathBuf {
    type Plain = String;

    fn to_plain(&self) -> String {
        escape(self.as_os_str())
    }

    fn from_plain(plain: String) -> Option<Self> {
        unescape(&plain).map(PathBuf::from)
    }
}

impl<T: Text> Text for Option<T> {
    type Plain = Option<T::Plain>;

    fn to_plain(&self) -> Self::Plain {
        self.as_ref().map(T::to_plain)
    }

    fn from_plain(plain: Self::Plain) -> Option<Self> {
        plain.map_or(Some(None), |plain| T::from_plain(plain).map(Some))
    }
}

impl<T: Text> Text for Vec<T> {
    type Plain = Vec<T::Plain>;

    fn to_plain(&self) -> Self::Plain {
        self.iter().map(T::to_plain).collect()
    }

    fn from_plain(plain: Self::Plain) -> Option<Self> {
        plain.into_iter().map(T::from_plain).collect()
    }
}

impl Text for BTreeMap<OsString, OsString> {
    type Plain = BTreeMap<String, String>;

    fn to_plain(&self) -> Self::Plain {
        self.iter().map(|(name, value)| (escape(name), escape(value))).collect()
    }

    fn from_plain(plain: Self::Plain) -> Option<Self> {
        plain.into_iter().map(|(name, value)| Some((unescape(&name)?, unescape(&value)?))).collect()
    }
}

fn escape(string: &OsStr) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let byte = |text: &mut String, byte: u8| _ = write!(text, "\0{byte:02x}");
    for chunk in string.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\0' { byte(&mut text, 0) } else { text.push(character) }
        }
        for invalid in chunk.invalid() {
            byte(&mut text, *invalid);
        }
    }
    text
}

fn unescape(text: &str) -> Option<OsString> {
    let mut parts = text.split('\0');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..20), name in "[a-z\\\\ü]{0,9}") {
            let string = OsString::from_vec(bytes);
            prop_assert_eq!(unescape(&escape(&string)), Some(string));
            // Text is itself.
            prop_assert_eq!(escape(OsStr::new(&name)), name);
        }

        #[test]
        fn any_text_is_bytes_or_refused(text in "[\\x00a-f0-2é]{0,9}") {
            // There is more than one way to write a byte, but one meaning.
            if let Some(string) = unescape(&text) {
                prop_assert_eq!(unescape(&escape(&string)), Some(string));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(escape(OsStr::from_bytes(b"a\xffb\0")), "a\0ffb\x0000");
        for wrong in ["\0", "\0f", "\0zz", "\0\0ff", "\0é"] {
            assert_eq!(unescape(wrong), None, "{wrong:?}");
        }
    }
}
