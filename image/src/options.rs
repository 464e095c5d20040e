//! How a layer is to be unpacked: plain data.

use cofferdam_unionfs::Form;

/// To whom the unpacked files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[doc(alias("chown", "uid", "rootless"))]
pub enum Ownership {
    /// To the users and groups in the archive. Needs `CAP_CHOWN` and `CAP_FOWNER`.
    #[default]
    Archive,
    /// All to the caller, `squashed`: what an ordinary user can do. Attributes that only root may set (`trusted.*`, `security.*`) are skipped
    /// and [listed](crate::Report::skipped).
    Caller,
}

/// What to do with block and character devices. (Fifos need no privilege and are always made.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[doc(alias = "mknod")]
pub enum Devices {
    /// Make them. Needs `CAP_MKNOD` in the initial user namespace.
    #[default]
    Make,
    /// Leave them out and [list](crate::Report::skipped) them.
    Skip,
}

/// The most that a layer may have before unpacking stops with an error of kind [`LimitExceeded`](crate::ErrorKind::LimitExceeded).
///
/// ```
/// # use cofferdam_image::Limits;
/// let mut limits = Limits::default();
/// limits.bytes = 1 << 30;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Entries: 2,000,000. The unpacker needs a few hundred bytes of memory for each *directory* and each whiteout.
    pub entries: u64,
    /// Bytes of the archive, decompressed, headers and padding included: 64 GiB.
    pub bytes: u64,
    /// Components in the name of an entry: 128.
    pub depth: usize,
    /// Bytes in the name of an entry or in the target of a link: 4095, the kernel's own limit.
    pub name_bytes: usize,
    /// Bytes of names and values of an entry's extended attributes: 256 KiB.
    pub xattr_bytes: usize,
    /// Bytes of a PAX header, and of all global ones together: 1 MiB.
    pub pax_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 2_000_000,
            bytes: 64 << 30,
            depth: 128,
            name_bytes: 4095,
            xattr_bytes: 256 << 10,
            pax_bytes: 1 << 20,
        }
    }
}

/// How a layer is unpacked.
///
/// ```
/// # use cofferdam_image::{Devices, Options};
/// let as_root = Options::new();
/// let as_root_of_a_user_namespace = Options::rootless();
/// let careful = Options::new().devices(Devices::Skip);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    pub(crate) ownership: Ownership,
    pub(crate) devices: Devices,
    pub(crate) form: Form,
    pub(crate) limits: Limits,
}

impl Options {
    /// As root: ownership and devices as in the archive, `trusted.overlay.*`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As an ordinary user: [`Ownership::Caller`], [`Devices::Skip`], [`Form::User`].
    #[must_use]
    pub fn rootless() -> Self {
        Options { ownership: Ownership::Caller, devices: Devices::Skip, form: Form::User, limits: Limits::default() }
    }

    /// To whom the files belong.
    #[must_use]
    pub fn ownership(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    /// What to do with devices.
    #[must_use]
    pub fn devices(mut self, devices: Devices) -> Self {
        self.devices = devices;
        self
    }

    /// Whose extended attributes carry opaque directories: the form in which the layer will be *mounted*.
    #[must_use]
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// The limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
