//! Whiteouts and opaque directories in a layer's directory, as overlayfs reads and writes them.

use crate::{Error, Operation};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, mknodat, openat, statat};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Whose extended attributes carry what a layer says to overlayfs.
///
/// Choose by who *mounts*: real root uses [`Trusted`](Form::Trusted), root of a user namespace cannot and uses
/// [`User`](Form::User). A layer in one form, mounted in the other, shows what it meant to hide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Form {
    /// `trusted.overlay.*`: needs `CAP_SYS_ADMIN` in the initial user namespace. Ordinary users cannot forge it.
    #[default]
    Trusted,
    /// `user.overlay.*`, with the mount option `userxattr`: for user namespaces.
    #[doc(alias = "userxattr")]
    User,
}

/// Values of the attribute `overlay.opaque`.
const OPAQUE: &[u8] = b"y";
const HAS_XATTR_WHITEOUTS: &[u8] = b"x";

impl Form {
    pub(crate) fn opaque(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.opaque",
            Form::User => c"user.overlay.opaque",
        }
    }

    pub(crate) fn redirect(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.redirect",
            Form::User => c"user.overlay.redirect",
        }
    }

    pub(crate) fn nlink(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.nlink",
            Form::User => c"user.overlay.nlink",
        }
    }

    pub(crate) fn metacopy(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.metacopy",
            Form::User => c"user.overlay.metacopy",
        }
    }

    pub(crate) fn whiteout(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.whiteout",
            Form::User => c"user.overlay.whiteout",
        }
    }
}

/// Whether an extended attribute is one by which a layer steers overlayfs, in either [`Form`].
///
/// What an archive brings under such a name must not reach a layer's directory: refuse it, or drop it and say so.
///
/// ```
/// # use cofferdam_unionfs::is_overlay_xattr;
/// assert!(is_overlay_xattr("trusted.overlay.redirect"));
/// assert!(!is_overlay_xattr("user.mime_type"));
/// ```
#[must_use]
pub fn is_overlay_xattr(name: impl AsRef<OsStr>) -> bool {
    let name = name.as_ref().as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Makes a whiteout of `name` in a layer's directory: a character device 0:0, `mknodat(2)`.
///
/// It is the same in both [`Form`]s, needs no privilege (Linux 5.8), and is what overlayfs makes itself. Nothing may
/// be there under that name. In an [opaque](make_opaque) directory there is nothing to hide; leave it out.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `name` is not a single component;
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists); what `mknodat` says.
#[doc(alias("mknod", ".wh."))]
pub fn make_whiteout(dir: impl AsFd, name: impl AsRef<OsStr>) -> Result<(), Error> {
    let name = single_component(name.as_ref())?;
    mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(|e| Error::os(Operation::Whiteout, "mknodat", e).about(name))
}

/// Makes a whiteout of `name` as an empty file with the attribute `overlay.whiteout`, and marks the directory as
/// having such whiteouts. Needs Linux 6.8 when mounted; older kernels show an empty file.
///
/// For places where a device cannot be: file systems without device nodes, or a layer that lies in an overlay itself,
/// where the outer overlay would take a device 0:0 for its own. `dir` must be open for reading, not `O_PATH`.
/// In an [opaque](make_opaque) directory there is nothing to hide; leave it out.
///
/// If it fails after the file was made, the file is removed again.
///
/// # Errors
/// As [`make_whiteout`]; [`Unsupported`](crate::ErrorKind::Unsupported) if the file system has no such attributes.
pub fn make_xattr_whiteout(dir: impl AsFd, name: impl AsRef<OsStr>, form: Form) -> Result<(), Error> {
    let (dir, name) = (dir.as_fd(), single_component(name.as_ref())?);
    let fail = |call| move |e| Error::os(Operation::Whiteout, call, e).about(name);
    // First the mark on the directory: without a whiteout it changes nothing, a whiteout without it is a file.
    match fsetxattr(dir, form.opaque(), HAS_XATTR_WHITEOUTS, XattrFlags::CREATE) {
        // Marked already, or opaque, which must stay.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(fail("fsetxattr")(e)),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(fail("openat"))?;
    fsetxattr(&file, form.whiteout(), &[], XattrFlags::empty()).map_err(|e| {
        // The error that is told is the first one.
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        fail("fsetxattr")(e)
    })
}

/// Whether `name` in a layer's directory is a whiteout: a character device 0:0, or an empty file with the attribute
/// `overlay.whiteout` of this form. A name that is not there is none.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if `name` is not a single component; what `fstatat(2)` says, or for an empty file
/// `openat(2)` and `fgetxattr(2)`.
pub fn is_whiteout(dir: impl AsFd, name: impl AsRef<OsStr>, form: Form) -> Result<bool, Error> {
    let (dir, name) = (dir.as_fd(), single_component(name.as_ref())?);
    let fail = |call| move |e| Error::os(Operation::Whiteout, call, e).about(name);
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(fail("newfstatat")(e)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => return Ok(stat.st_rdev == 0),
        FileType::RegularFile if stat.st_size == 0 => {}
        _ => return Ok(false),
    }
    let file = open_file(dir, name).map_err(fail("openat"))?;
    has_xattr(&file, form.whiteout()).map_err(fail("fgetxattr"))
}

/// Marks a layer's directory as opaque: it hides the directories of its name in the layers below instead of merging with them.
///
/// `dir` must be open for reading, not `O_PATH`. On the root of a layer the kernel ignores it; [`Overlay`](crate::Overlay) heeds it.
///
/// # Errors
/// [`PermissionDenied`](crate::ErrorKind::PermissionDenied) for [`Form::Trusted`] without the right;
/// [`Unsupported`](crate::ErrorKind::Unsupported) if the file system has no such attributes.
#[doc(alias = ".wh..wh..opq")]
pub fn make_opaque(dir: impl AsFd, form: Form) -> Result<(), Error> {
    fsetxattr(dir, form.opaque(), OPAQUE, XattrFlags::empty())
        .map_err(|e| Error::os(Operation::Opaque, "fsetxattr", e).about(name_of(form.opaque())))
}

/// Whether a layer's directory is opaque. `dir` must be open for reading, not `O_PATH`.
///
/// Without the right to see `trusted.*` attributes the answer for [`Form::Trusted`] is no, as the kernel gives it.
///
/// # Errors
/// What `fgetxattr(2)` says, except that there is no such attribute.
pub fn is_opaque(dir: impl AsFd, form: Form) -> Result<bool, Error> {
    let mut value = [0; 1];
    match fgetxattr(dir, form.opaque(), &mut value) {
        Ok(length) => Ok(length == OPAQUE.len() && value == OPAQUE),
        // Longer than any value that means something.
        Err(Errno::RANGE | Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(Error::os(Operation::Opaque, "fgetxattr", e).about(name_of(form.opaque()))),
    }
}

/// For errors.
fn name_of(attribute: &CStr) -> &OsStr {
    OsStr::from_bytes(attribute.to_bytes())
}

fn has_xattr(file: impl AsFd, name: &CStr) -> Result<bool, Errno> {
    match fgetxattr(file, name, &mut [0; 0]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Opens what a moment ago was an ordinary file, so that nothing worse happens if it no longer is one.
fn open_file(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | careful, Mode::empty())
}

/// A name that cannot lead out of its directory.
fn single_component(name: &OsStr) -> Result<&OsStr, Error> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(Error::invalid(Operation::Whiteout, name, "is not the name of an entry of a directory"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_that_lead_elsewhere_are_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        for name in ["", ".", "..", "a/b", "/", "/etc", "a\0b", "a/"] {
            for result in [
                make_whiteout(&fd, name),
                make_xattr_whiteout(&fd, name, Form::User),
                is_whiteout(&fd, name, Form::User).map(drop),
            ] {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
            }
        }
        assert!(!is_opaque(&fd, Form::User).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn attributes_of_overlayfs() {
        for name in
            ["trusted.overlay.opaque", "user.overlay.redirect", "trusted.overlay.overlay.opaque", "user.overlay."]
        {
            assert!(is_overlay_xattr(name), "{name}");
        }
        for name in ["", "user.overlay", "security.overlay.x", "user.overlays.x", "xuser.overlay.x"] {
            assert!(!is_overlay_xattr(name), "{name}");
        }
    }
}
