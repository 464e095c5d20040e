//! What may be done instead where a kernel does not take layers as newer ones do.

use bitflags::bitflags;

bitflags! {
    /// What may be done instead on an older kernel.
    ///
    /// None is used unless it is asked for ([`Overlay::fallbacks`](crate::Overlay::fallbacks),
    /// [`ContainerSpec::fallbacks`](crate::ContainerSpec::fallbacks)), because each has its price;
    /// [`Overlay::mount_and_report`](crate::Overlay::mount_and_report) tells which were used. Without it the mount is an error of kind
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    ///
    /// All of them work on a thread of their own, in a mount namespace that ends with it: some hundred microseconds more. Layers are opened there again
    /// by the paths that they have at that time, and compared with what was given (`st_dev`, `st_ino`), so each must still be reachable by its path; `/proc` must be mounted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct Fallbacks: u32 {
        /// `mount(2)` before Linux 6.8, which does not know `lowerdir+`. Layers are named by the numbers of their descriptors, so that 500 of them fit into the 4095 bytes
        /// that `mount(2)` takes; more than fits is an error and never cut off. Where a mount fails the kernel says nothing more than an errno.
        const MOUNT = 1;
        /// Attaching [idmapped](crate::Layer::idmapped) lowers in that namespace, before Linux 6.15, which takes them as they are; before 6.8 with [`MOUNT`](Self::MOUNT). What can be idmapped
        /// depends on the file system: tmpfs since Linux 6.3, ext4 and xfs since 5.12, btrfs since 5.15; `mount_setattr` says `EINVAL` to others. Overlayfs itself takes idmapped layers since 5.19.
        const ATTACH = 2;
    }
}
