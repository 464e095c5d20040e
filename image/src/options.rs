//! How a layer is to be unpacked: plain data.

use crate::Ownership;
use cofferdam_unionfs::Form;

/// What to do with an entry, or a part of one, that cannot be had exactly as it is in the archive.
///
/// What is hostile (names that lead outside, for example) is refused either way. The labels and signatures of security modules (`security.*` but
/// `security.capability`) are the machine's to give: an image's are left out and [listed](crate::Report::skipped) either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// It is an error. So is a name that comes twice (other than as a directory): not all readers agree on which counts.
    #[default]
    Strict,
    /// It is left out and [listed](crate::Report::skipped): entries of unknown types; attributes that the file system or the user cannot have (also because they are too
    /// large: ext4 has one block for all attributes of a file), or by which a layer would steer overlayfs; devices where making them is not allowed. Of several entries with one name the last counts.
    #[doc(alias = "best effort")]
    Lenient,
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
    /// Entries, and names of lower layers' files that are copied because the layer links to them: 2,000,000.
    pub entries: u64,
    /// Bytes of the archive, decompressed, headers and padding included: 64 GiB. The bytes in files, those copied from lower layers because this
    /// one links to them among them, have the same limit, together with the names and values of extended attributes that files, directories and all else are given:
    /// one header in the archive can be for all of them.
    pub bytes: u64,
    /// Components in the name of an entry, also in what it comes to where it goes through symlinks: 128. What these lead to and fro between has eight times as many at most.
    pub depth: usize,
    /// Bytes in the name of an entry or in the target of a link: 4095, the kernel's own limit.
    pub name_bytes: usize,
    /// Bytes of names and values of an entry's extended attributes: 256 KiB.
    pub xattr_bytes: usize,
    /// Bytes of a PAX header, and of all global ones together: 1 MiB.
    pub pax_bytes: u64,
    /// Bytes of the map of a sparse file, also in memory, where each piece of the file takes 16: 1 MiB.
    pub sparse_bytes: u64,
    /// Bytes of names and attributes that have to be kept in memory until the end of a layer, twice their length and about 200 for each: 32 MiB. Those of directories,
    /// whiteouts (where symlinks lead them to longer names, of those), links to what comes later, and of what is left out and listed. If a lower layer's file with several names is linked to, 200 and its length for each
    /// name of any such file of that layer.
    ///
    /// What the reports of lower layers of the same image list counts too. The layers of an image that are unpacked at the same time ([`Layers`](crate::Layers)) have a
    /// quarter more, together: one for which that is not enough waits for those below it.
    pub kept_bytes: u64,
    /// Bytes of the archive for each byte of the blob, once 256 MiB have come out: 200. Archives of programs have 2 to 10.
    #[doc(alias = "bomb")]
    pub ratio: u64,
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
            sparse_bytes: 1 << 20,
            kept_bytes: 32 << 20,
            ratio: 200,
        }
    }
}

/// How a layer is unpacked.
///
/// ```
/// # use cofferdam_image::{Devices, Options, Policy};
/// let as_root = Options::new();
/// let as_root_of_a_user_namespace = Options::rootless();
/// let careful = Options::new().devices(Devices::Skip);
/// let whatever_can_be_had = Options::new().policy(Policy::Lenient);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    pub(crate) policy: Policy,
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

    /// As an ordinary user: [`Ownership::Caller`], [`Devices::Skip`], [`Form::User`]. What this leaves out is listed, and no error for [`Policy::Strict`].
    #[must_use]
    pub fn rootless() -> Self {
        Options { ownership: Ownership::Caller, devices: Devices::Skip, form: Form::User, ..Self::default() }
    }

    /// What to do with what cannot be had exactly.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
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
