//! The version of what is stored.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number in a stored form, by which one that is not known here is refused, and not taken for what it is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Version<const KNOWN: u32>;

impl<const KNOWN: u32> Serialize for Version<KNOWN> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(KNOWN)
    }
}

impl<'de, const KNOWN: u32> Deserialize<'de> for Version<KNOWN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            known if known == KNOWN => Ok(Version),
            other => Err(D::Error::custom(format_args!("version {other} is not known here, only {KNOWN}"))),
        }
    }
}
