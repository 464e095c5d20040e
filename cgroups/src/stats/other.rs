//! Fields that a later kernel has added.

use std::fmt;

/// Fields of a file that this crate does not know, under the kernel's names, as newer kernels have them. No field is
/// dropped for being new.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Other(Vec<(String, u64)>);

/// A file of the kernel's has some dozens. More would be no statistics but something that grows.
const MOST: usize = 512;

impl Other {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// All of them, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Allocates only when it sees a name for the first time.
    pub(crate) fn set(&mut self, name: &[u8], value: u64) {
        let has_room = self.0.len() < MOST;
        match self.0.iter_mut().find(|(known, _)| known.as_bytes() == name) {
            Some((_, known)) => *known = value,
            None if has_room => self.0.push((String::from_utf8_lossy(name).into_owned(), value)),
            None => {}
        }
    }
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A struct of the fields of a flat-keyed file, each `None` until the kernel tells it.
macro_rules! flat_keyed {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $key:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(default))]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: Option<u64>,)*
            /// What this crate does not know.
            pub other: $crate::stats::Other,
        }

        impl $name {
            /// The value of a field by the kernel's name (v2's, where the versions differ), also of one that this crate does
            /// not know.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u64> {
                match name.as_bytes() {
                    $($key => self.$field,)*
                    _ => self.other.get(name),
                }
            }

            pub(crate) fn set(&mut self, key: &[u8], value: u64) {
                match key {
                    $($key => self.$field = Some(value),)*
                    key => self.other.set(key, value),
                }
            }
        }
    };
}

pub(crate) use flat_keyed;
