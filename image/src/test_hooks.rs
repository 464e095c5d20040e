//! For this crate's own tests, behind a feature that nobody else needs: a defence is switched off, so that a test can show that it would notice.

use std::sync::atomic::{AtomicU32, Ordering};

/// What keeps an archive, or who changes directories meanwhile, from reaching outside.
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
