//! Flags as a list of their names, in small letters.

use crate::mount::MountFlags;
use crate::{Fallbacks, Namespaces, Personality, SecureBits};
use bitflags::Flags;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! flags {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if !Self::all().contains(*self) {
                    return Err(serde::ser::Error::custom("a flag that is none has no name"));
                }
                serializer.collect_seq(self.iter_names().map(|(name, _)| name.to_ascii_lowercase()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let names = Vec::<String>::deserialize(deserializer)?;
                flags_of(&names).map_err(D::Error::custom)
            }
        }
    )*};
}

flags!(Namespaces, Personality, MountFlags, Fallbacks, SecureBits);

fn flags_of<F: Flags>(names: &[String]) -> Result<F, String> {
    let mut flags = F::empty();
    for name in names {
        let found = F::FLAGS.iter().find(|flag| flag.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<_> = F::FLAGS.iter().map(|flag| flag.name().to_ascii_lowercase()).collect();
            format!("{name:?} is none of {}", known.join(", "))
        })?;
        flags.insert(F::from_bits_retain(found.value().bits()));
    }
    Ok(flags)
}
