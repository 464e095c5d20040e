//! A limit as a number, or as the word `unlimited`, which no number of TOML is large enough for.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

const NONE: u64 = libc::RLIM_INFINITY;
const WORD: &str = "unlimited";

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(crate) fn serialize<S: Serializer>(limit: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() && *limit == NONE {
        serializer.serialize_str(WORD)
    } else {
        serializer.serialize_u64(*limit)
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(Limit)
    } else {
        deserializer.deserialize_u64(Limit)
    }
}

struct Limit;

impl Visitor<'_> for Limit {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number, or {WORD:?}")
    }

    fn visit_u64<E: Error>(self, limit: u64) -> Result<u64, E> {
        Ok(limit)
    }

    fn visit_i64<E: Error>(self, limit: i64) -> Result<u64, E> {
        limit.try_into().map_err(|_| E::invalid_value(Unexpected::Signed(limit), &self))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<u64, E> {
        if word == WORD { Ok(NONE) } else { Err(E::invalid_value(Unexpected::Str(word), &self)) }
    }
}
