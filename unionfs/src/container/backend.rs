//! How a container's files are kept: by overlayfs, or as a copy.

use crate::{Error, ErrorKind, Operation};
use std::fmt;
use std::str::FromStr;

/// How a container's files are kept. All do the same; the tests are the same for each.
///
/// It is read from the names that container engines use for their storage drivers:
///
/// ```
/// use cofferdam_unionfs::Backend;
///
/// assert_eq!("overlay2".parse::<Backend>()?, Backend::Overlay);
/// let error = "aufs".parse::<Backend>().unwrap_err();
/// assert_eq!(error.to_string(), "prepare a container: \"aufs\": is no back-end; it never was in the kernel: use overlay");
/// # Ok::<(), cofferdam_unionfs::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[doc(alias("graphdriver", "storage driver", "snapshotter"))]
pub enum Backend {
    /// The kernel's overlayfs: nothing is copied until it is written to.
    #[default]
    Overlay,
    /// A copy of all that the layers show, for places where no overlay can be: an upper on a file system that the kernel does not take, a caller who may not
    /// mount. Data is shared where the file system can (`FICLONE`: btrfs, xfs).
    #[doc(alias("vfs", "reflink"))]
    Copy,
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Overlay => "overlay",
            Backend::Copy => "copy",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// [`Unsupported`](ErrorKind::Unsupported), with words on what to use, for those of which there is none here.
impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let words = match name {
            "overlay" | "overlay2" | "overlayfs" => return Ok(Backend::Overlay),
            "copy" | "vfs" | "native" => return Ok(Backend::Copy),
            "aufs" => "is no back-end; it never was in the kernel: use overlay",
            "devicemapper" => "is no back-end; container engines have given it up: use overlay",
            "zfs" => "is no back-end; use overlay on a zfs of 2.2 or later, or copy",
            "btrfs" => "is no back-end yet; use overlay on btrfs, or copy, which shares data there",
            "fuse-overlayfs" => "is no back-end yet; use overlay, which users may mount since Linux 5.11, or copy",
            _ => return Err(Error::invalid(Operation::PrepareContainer, name, "is no back-end that is known")),
        };
        Err(Error::explained(ErrorKind::Unsupported, Operation::PrepareContainer, words).about(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_answer() {
        for backend in [Backend::Overlay, Backend::Copy] {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
        }
        for name in ["aufs", "devicemapper", "zfs", "btrfs", "fuse-overlayfs"] {
            let error = name.parse::<Backend>().unwrap_err();
            assert_eq!((error.kind(), error.object()), (ErrorKind::Unsupported, Some(name.as_ref())));
            assert!(error.to_string().contains("use overlay"), "{error}");
        }
        assert_eq!("".parse::<Backend>().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
