//! How a sandbox is written down: the parts of feature `serde` that derive does not do.

mod capability;
mod flags;
mod mount;
pub(crate) mod streams;
pub(crate) mod text;
pub(crate) mod unlimited;

use crate::Sandbox;
pub(crate) use mount::WrittenMount;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a written sandbox that leaves things out starts from.
pub(crate) fn empty() -> Sandbox {
    Sandbox::new("")
}

/// The version of the form, 1: what does not know a later one must not take half of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Version;

impl Version {
    const NUMBER: u32 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::NUMBER.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            Self::NUMBER => Ok(Version),
            other => {
                Err(D::Error::custom(format_args!("version {other} of a sandbox is not known, only {}", Self::NUMBER)))
            }
        }
    }
}
