//! Names that callers give: of layers, and of those who need them. Both become names of files.

use crate::{Error, Operation};
use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

/// So long that what the store adds still fits into the name of a file, and that a digest of 512 bits fits in hexadecimal.
const LONGEST: usize = 160;

macro_rules! tag {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(try_from = "String", into = "String")
        )]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("Checks the name of ", $what, ".\n\n# Errors\n[`InvalidInput`](crate::ErrorKind::InvalidInput) for any other text.")]
            pub fn new(name: impl Into<String>) -> Result<Self, Error> {
                let name = name.into();
                match check(&name) {
                    Ok(()) => Ok($name(name)),
                    Err(words) => Err(Error::invalid(Operation::ParseName, name, words)),
                }
            }

            /// The name as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(name: &str) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(name: String) -> Result<Self, Error> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<OsStr> for $name {
            fn as_ref(&self) -> &OsStr {
                self.0.as_ref()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

tag! {
    /// The name of a layer in a [`LayerStore`](crate::LayerStore), chosen by who publishes it. The store reads nothing into it.
    ///
    /// For what is unpacked from an image it must stand for the content *and for all that is below*, as OCI's `ChainID` does: what a layer's
    /// directory holds can depend on the layers below it (a hard link to a file of theirs is a copy of the file).
    ///
    /// 1 to 160 bytes: ASCII letters, digits and `.` `_` `-` `:` `+` `=` `@`, a letter or digit first.
    ///
    /// ```
    /// use cofferdam_unionfs::LayerId;
    /// let id: LayerId = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".parse()?;
    /// assert!(LayerId::new("../../etc").is_err());
    /// # Ok::<(), cofferdam_unionfs::Error>(())
    /// ```
    #[doc(alias = "ChainID")]
    LayerId, "a layer"
}

tag! {
    /// Who needs a layer or has it in hand: an image, a container, a build. Chosen by the caller, who must be able to tell later on
    /// which owners are still alive: see [`LayerStore::gc`](crate::LayerStore::gc).
    ///
    /// Spelled as a [`LayerId`].
    #[doc(alias("lease", "reference"))]
    Owner, "an owner"
}

impl From<&Owner> for LayerId {
    fn from(owner: &Owner) -> Self {
        LayerId(owner.0.clone())
    }
}

impl From<&LayerId> for Owner {
    fn from(id: &LayerId) -> Self {
        Owner(id.0.clone())
    }
}

fn check(name: &str) -> Result<(), &'static str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-:+=@".contains(&b);
    match name.as_bytes() {
        [] => Err("is empty"),
        name if name.len() > LONGEST => Err("is longer than 160 bytes"),
        [first, ..] if !first.is_ascii_alphanumeric() => Err("does not begin with a letter or digit"),
        name if !name.iter().all(|b| fine(*b)) => Err("has something else than letters, digits and . _ - : + = @"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_name_cannot_lead_anywhere_or_look_like_another() {
        let longest = "x".repeat(LONGEST);
        for name in ["a", "0", "sha256:00ff", "A.b_c-d:e+f=g@h", "a..b", longest.as_str()] {
            assert_eq!(LayerId::new(name).unwrap().as_str(), name);
            assert_eq!(name.parse::<Owner>().unwrap().to_string(), name);
        }
        let too_long = "x".repeat(LONGEST + 1);
        for name in
            ["", ".", "..", ".hidden", "-rf", ":", "a/b", "/a", "a\0", "a\n", "a b", "a~b", "ä", "a\u{202e}", &too_long]
        {
            let error = LayerId::new(name).unwrap_err();
            assert_eq!((error.kind(), error.object()), (ErrorKind::InvalidInput, Some(OsStr::new(name))));
        }
    }
}
