//! What unpacking a layer came to.

use crate::Digest;
use std::ffi::OsString;
use std::fmt;

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The number of entries in the archive.
    pub entries: u64,
    /// The bytes of data written into files.
    pub bytes: u64,
    /// What the policy left out. Nothing else was.
    pub skipped: Vec<Skipped>,
    /// The digest of the archive.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub blob_digest: Digest,
    /// The root of the layer is opaque: it hides all layers below. The kernel ignores that on the root of a lower, so
    /// leave those out of the mount; `cofferdam-unionfs` sees the mark and does. (Flattened, nothing of them is left.)
    pub opaque_root: bool,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The entry's name as it stands in the archive. Do not print it as it is.
    pub entry: OsString,
    /// What of it, and why.
    pub what: SkippedPart,
}

/// What of an entry was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkippedPart {
    /// All of it: a device, by [`Devices::Skip`](crate::Devices::Skip) or [`Policy::Lenient`](crate::Policy::Lenient).
    Device,
    /// All of it: a name beginning with `.wh..wh.`, which AUFS kept for itself.
    AufsMetadata,
    /// All of it: its type flag is not known, by [`Policy::Lenient`](crate::Policy::Lenient).
    UnknownType(u8),
    /// This extended attribute, by [`Ownership::Caller`](crate::Ownership::Caller) or [`Policy::Lenient`](crate::Policy::Lenient), or because it is a
    /// label that the machine gives (`security.*` but `security.capability`).
    Xattr(OsString),
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            SkippedPart::Device => write!(f, "{:?}: a device", self.entry),
            SkippedPart::AufsMetadata => write!(f, "{:?}: metadata of AUFS", self.entry),
            SkippedPart::UnknownType(flag) => write!(f, "{:?}: of unknown type {flag}", self.entry),
            SkippedPart::Xattr(name) => write!(f, "{:?}: the extended attribute {name:?}", self.entry),
        }
    }
}
