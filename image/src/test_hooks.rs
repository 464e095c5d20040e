//! For this crate's own tests, behind a feature that nobody else needs: a defence is switched off, so that a test can show that it would notice.

use std::sync::atomic::{AtomicU32, Ordering};

/// What keeps an image, or who changes directories meanwhile, from reaching outside or being something else to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Defence {
    /// Directories are opened without following any symlink, and beneath the root.
    Beneath = 1,
    /// Names with `..`, and whiteouts of `..`, are refused.
    Names = 2,
    /// Symlinks on the way of a name are followed by this crate, not by the kernel.
    Resolution = 4,
    /// The last component is made anew and never followed.
    Leaves = 8,
    /// The target of a hard link is looked for in the layer.
    Links = 16,
    /// The root stays a directory.
    Root = 32,
    /// A size in an extended header counts, not the one in the header after it.
    Sizes = 64,
    /// Attributes and devices by which a layer would steer overlayfs are not made.
    Steering = 128,
    /// A digest is digits.
    Digests = 256,
    /// A document is read only as what it says it is.
    MediaTypes = 512,
    /// Files of the image that a process of the host reads are looked for in the image.
    InRoot = 1024,
    /// Layers that are unpacked at the same time have one bound for what they keep in memory.
    Budget = 2048,
    /// Attributes that belong to the machine's security modules are not made.
    Labels = 4096,
}

static OFF: AtomicU32 = AtomicU32::new(0);

/// Runs `f`, in all threads of the program, without these defences.
pub fn without<T>(defences: &[Defence], f: impl FnOnce() -> T) -> T {
    OFF.store(defences.iter().fold(0, |all, defence| all | *defence as u32), Ordering::SeqCst);
    let result = f();
    OFF.store(0, Ordering::SeqCst);
    result
}

pub(crate) fn is_off(defence: Defence) -> bool {
    OFF.load(Ordering::SeqCst) & defence as u32 != 0
}
