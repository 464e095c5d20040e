//! The spec of an overlay.

use crate::layer::Layer;
use crate::options::Options;
use crate::{Diff, Error, Fallbacks, Form, RedirectDir, Support, WritableLayer, Xino, mount};
use rustix::mount::MountAttrFlags;
use std::os::fd::OwnedFd;

/// How many lowers the kernel takes in one overlay, equal ones not counted.
pub const MAX_LOWERS: usize = 500;

/// A stack of layers to be mounted: what is wanted, nothing checked or opened yet.
///
/// The methods take and return it, so that they chain. [`mount`](Self::mount) can be called many times, from any thread; with an
/// upper, one mount at a time.
///
/// Of lowers that are the same directory only the topmost is mounted. Under different names, or as different descriptors, they are found when the
/// kernel refuses them (which it notes in its log), and mounted at a second attempt: give each layer in one way. A lower whose root is [opaque](crate::make_opaque) is the last
/// that is mounted; those after it are not even opened.
///
/// # A lower alone
///
/// Without an upper, one lower that remains alone is not an overlay (the kernel makes none of it) but a read-only bind mount of its directory,
/// without what may be mounted below it. The only difference that can be seen: whiteouts, which have nothing to hide there, show up as
/// devices 0:0 or empty files.
#[derive(Debug, Clone, Default)]
#[doc(alias("overlayfs", "mount", "union"))]
#[must_use]
pub struct Overlay {
    pub(crate) lowers: Vec<Layer>,
    pub(crate) writable: Option<Writable>,
    pub(crate) options: Options,
    pub(crate) attributes: Attributes,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) support: Option<Support>,
}

#[derive(Debug, Clone)]
pub(crate) struct Writable {
    pub(crate) upper: Layer,
    pub(crate) work: Layer,
}

/// What is asked of the mount, whatever is mounted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes(pub(crate) u32);

impl Attributes {
    fn add(&mut self, flag: MountAttrFlags) {
        self.0 |= flag.bits();
    }

    pub(crate) fn flags(self) -> MountAttrFlags {
        MountAttrFlags::from_bits_truncate(self.0)
    }
}

impl Overlay {
    /// No layers yet, and the options that this page calls defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a lower below those that are there already.
    pub fn lower(mut self, lower: impl Into<Layer>) -> Self {
        self.lowers.push(lower.into());
        self
    }

    /// Adds lowers, topmost first, below those that are there already.
    pub fn lowers<L: Into<Layer>>(mut self, lowers: impl IntoIterator<Item = L>) -> Self {
        self.lowers.extend(lowers.into_iter().map(Into::into));
        self
    }

    /// What is written goes to this layer.
    #[doc(alias("upperdir", "workdir"))]
    pub fn writable(self, layer: &WritableLayer) -> Self {
        self.upper(Layer::ready(layer.upper()), Layer::ready(layer.work()))
    }

    /// What is written goes to the directory `upper`. `work` is another one, empty, on the same mount, and neither lies in the other.
    pub fn upper(mut self, upper: impl Into<Layer>, work: impl Into<Layer>) -> Self {
        self.writable = Some(Writable { upper: upper.into(), work: work.into() });
        self
    }

    /// Whose attributes the layers carry, the caller's choice by who it is: [`Form::Trusted`], the default, for real root; [`Form::User`]
    /// for root of a user namespace.
    ///
    /// [`Form::Trusted`] in a user namespace mounts, but shows what opaque directories should hide and cannot make any.
    #[doc(alias = "userxattr")]
    pub fn form(mut self, form: Form) -> Self {
        self.options.form = form;
        self
    }

    /// Keeps an index of the upper, so that hard links survive a copy up. By default off: upper and work are then bound to
    /// these very lowers.
    pub fn index(mut self, on: bool) -> Self {
        self.options.index = on;
        self
    }

    /// What becomes of renamed directories.
    pub fn redirect_dir(mut self, redirect_dir: RedirectDir) -> Self {
        self.options.redirect_dir = redirect_dir;
        self
    }

    /// Copies only a file's attributes up when only those change. By default off: an upper then has references to data
    /// elsewhere, which a hostile layer can bring as well.
    pub fn metacopy(mut self, on: bool) -> Self {
        self.options.metacopy = on;
        self
    }

    /// Lets files be found by handle, `name_to_handle_at(2)`, as an NFS server does. By default off; with an upper it needs [`index`](Self::index).
    pub fn nfs_export(mut self, on: bool) -> Self {
        self.options.nfs_export = on;
        self
    }

    /// Whether inode numbers are made unique across file systems. By default off.
    pub fn xino(mut self, xino: Xino) -> Self {
        self.options.xino = xino;
        self
    }

    /// Never waits for the disk: `fsync(2)` inside does nothing. Fast, for what is thrown away after a crash.
    ///
    /// The kernel leaves a mark that makes it refuse the same upper later on; [`WritableLayer::open`] deals with it.
    pub fn volatile(mut self) -> Self {
        self.options.volatile = true;
        self
    }

    /// Makes the mount read-only, also if it has an upper.
    #[doc(alias = "ro")]
    pub fn read_only(mut self) -> Self {
        self.attributes.add(MountAttrFlags::MOUNT_ATTR_RDONLY);
        self
    }

    /// Set-user-id bits and file capabilities have no effect inside.
    pub fn nosuid(mut self) -> Self {
        self.attributes.add(MountAttrFlags::MOUNT_ATTR_NOSUID);
        self
    }

    /// Device nodes cannot be opened inside.
    pub fn nodev(mut self) -> Self {
        self.attributes.add(MountAttrFlags::MOUNT_ATTR_NODEV);
        self
    }

    /// Programs cannot be executed inside.
    pub fn noexec(mut self) -> Self {
        self.attributes.add(MountAttrFlags::MOUNT_ATTR_NOEXEC);
        self
    }

    /// What may be done instead where the kernel is older. By default nothing.
    pub fn fallbacks(mut self, fallbacks: Fallbacks) -> Self {
        self.fallbacks = fallbacks;
        self
    }

    /// What the kernel is known to take, so that it need not be tried: a failing system call less for each mount on an older kernel.
    pub fn support(mut self, support: Support) -> Self {
        self.support = Some(support);
        self
    }

    /// Mounts it, attached nowhere. What is returned is an `O_PATH` descriptor of the root, closed at `execve(2)`.
    ///
    /// When it is closed and nobody uses the mount otherwise, the mount is gone. Blocks while directories are opened and the
    /// kernel looks at them: a fraction of a millisecond for a few lowers, some milliseconds for 500.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) without a lower, with more than [`MAX_LOWERS`], with options that exclude each other, or
    /// with an upper whose root is opaque or that is [idmapped](Layer::idmapped); [`Volatile`](crate::ErrorKind::Volatile);
    /// [`LimitReached`](crate::ErrorKind::LimitReached) also if the kernel could mount it only read-only, because there is no room for its own files in `work`
    /// (unless that is [asked for](Self::read_only));
    /// [`Unsupported`](crate::ErrorKind::Unsupported) by the kernel or the file system of a layer; otherwise what the system call said,
    /// with the layer or option that it was about and [the kernel's words](Error::kernel_message). Nothing is left mounted.
    pub fn mount(&self) -> Result<OwnedFd, Error> {
        Ok(self.mount_and_report()?.0)
    }

    /// As [`mount`](Self::mount); says, too, which of the [fallbacks](Self::fallbacks) that were allowed were used.
    ///
    /// # Errors
    /// As `mount`. [`Unsupported`](crate::ErrorKind::Unsupported) also for a layer that is not at its path any more, and
    /// [`LimitReached`](crate::ErrorKind::LimitReached) for more layers than `mount(2)` takes.
    pub fn mount_and_report(&self) -> Result<(OwnedFd, Fallbacks), Error> {
        mount::mount(self)
    }

    /// Finds what the writable layer changes about the lowers.
    ///
    /// Nothing may write to it meanwhile. It may be mounted (unless with [`index`](Self::index)); what a mount with [`volatile`](Self::volatile) or a file that is open for
    /// writing has not written yet is seen all the same. The lowers are mounted for a while, for nobody else to see.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) without a writable layer; as [`mount`](Self::mount); what the system calls say.
    #[doc(alias("changes", "commit"))]
    pub fn diff(&self) -> Result<Diff, Error> {
        Diff::of_overlay(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_used_from_any_thread() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Overlay>();
        check::<WritableLayer>();
        check::<Error>();
    }
}
