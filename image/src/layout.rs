//! An OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/ALGORITHM/DIGITS`.

use crate::document::Descriptor;
use crate::{Digest, Error, ErrorKind, Operation};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The largest JSON document that is read. Real ones have a few kilobytes.
pub(crate) const JSON_LIMIT: u64 = 4 << 20;

/// How often to try again when a rename races with a look-up.
pub(crate) const RETRIES: usize = 128;

/// The directory of a layout.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: OwnedFd,
}

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| Error::os(Operation::OpenLayout, "open", e).about(path))?;
        Self::at(dir)
    }

    pub(crate) fn at(dir: OwnedFd) -> Result<Self, Error> {
        let layout = Layout { dir };
        let version: crate::document::LayoutFile =
            crate::document::parse(&layout.small(Operation::OpenLayout, "oci-layout")?, Operation::OpenLayout)?;
        if !version.image_layout_version.starts_with("1.") {
            let error =
                Error::new(ErrorKind::Unsupported, Operation::OpenLayout, "is not a version of the layout known here");
            return Err(error.about(version.image_layout_version));
        }
        Ok(layout)
    }

    /// The outer index, which nothing vouches for.
    pub(crate) fn index(&self) -> Result<Vec<u8>, Error> {
        self.small(Operation::ReadIndex, "index.json")
    }

    /// A JSON document, whole and verified.
    pub(crate) fn document(&self, of: &Descriptor, operation: Operation) -> Result<Vec<u8>, Error> {
        let digest = of.digest()?;
        let about = |error: Error| error.about(digest.to_string());
        if of.size > JSON_LIMIT {
            return Err(about(Error::limit(operation, "bytes in a JSON document", JSON_LIMIT)));
        }
        let mut file = self.blob(&digest, of.size, operation)?;
        let mut bytes = Vec::new();
        let mut hasher = crate::digest::Hasher::new(digest.algorithm());
        // One more than promised would be seen; the file may grow while it is read.
        file.by_ref().take(of.size + 1).read_to_end(&mut bytes).map_err(|e| about(Error::from_io(operation, e)))?;
        if bytes.len() as u64 != of.size {
            return Err(about(Error::differs(
                operation,
                &format!("{} bytes", of.size),
                &format!("{} bytes", bytes.len()),
            )));
        }
        hasher.update(&bytes);
        let found = hasher.finish();
        if found == digest { Ok(bytes) } else { Err(about(Error::differs(operation, &digest, &found))) }
    }

    /// A blob of the right size, whose content has *not* been verified.
    pub(crate) fn blob(&self, digest: &Digest, size: u64, operation: Operation) -> Result<File, Error> {
        let (file, found) = self.open_file(operation, &format!("blobs/{}/{}", digest.algorithm(), digest.hex()))?;
        if found != size {
            let error = Error::differs(operation, &format!("{size} bytes"), &format!("{found} bytes"));
            return Err(error.about(digest.to_string()));
        }
        Ok(file)
    }

    fn small(&self, operation: Operation, name: &str) -> Result<Vec<u8>, Error> {
        let (mut file, _) = self.open_file(operation, name)?;
        let mut bytes = Vec::new();
        let read = file.by_ref().take(JSON_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::from_io(operation, e).about(name))?;
        if bytes.len() as u64 > JSON_LIMIT {
            return Err(Error::limit(operation, "bytes in a JSON document", JSON_LIMIT).about(name));
        }
        Ok(bytes)
    }

    /// Opens an ordinary file and says its length. No symlink on the way is followed: a layout has none, and one that has been
    /// brought by somebody else could lead anywhere.
    fn open_file(&self, operation: Operation, name: &str) -> Result<(File, u64), Error> {
        // Not blocked by a fifo; not made the controlling terminal by one.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open_beneath(&self.dir, name, flags).map_err(|e| Error::os(operation, "openat2", e).about(name))?;
        let stat = fstat(&file).map_err(|e| Error::os(operation, "fstat", e).about(name))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(ErrorKind::Malformed, operation, "is not an ordinary file").about(name));
        }
        Ok((File::from(file), u64::try_from(stat.st_size).unwrap_or(0)))
    }
}

/// Opens what is beneath a directory, without any symlink or mount on the way.
pub(crate) fn open_beneath(dir: impl AsFd, path: impl rustix::path::Arg, flags: OFlags) -> Result<OwnedFd, Errno> {
    #[cfg(feature = "test-hooks")]
    if crate::test_hooks::is_off(crate::test_hooks::Defence::Beneath) {
        return rustix::fs::openat(dir.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty());
    }
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    path.into_with_c_str(|path| {
        for _ in 0..RETRIES {
            match openat2(dir.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    })
}
