//! What a child tells: words in memory that its caller reads, which no seccomp filter can forbid.

use super::last_errno;
use crate::Fallbacks;
use std::ops::Deref;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicUsize};

/// Room for what the kernel says about a file system's option.
pub(super) const SAID: usize = 256;

/// Written by the child, read by the caller: each thinks the worst of the other's values.
#[derive(Debug)]
pub(crate) struct Telling {
    /// Index of the system call that the child is in.
    pub(super) at: AtomicUsize,
    /// Its errno, once it has failed.
    pub(super) errno: AtomicI32,
    /// What the kernel says about that, if it says anything.
    pub(super) said: [AtomicU8; SAID],
    /// The bits of the fallbacks that were used.
    pub(super) used: AtomicU32,
}

/// Where a child came to.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The system call that it came to last.
    pub(crate) at: usize,
    /// Its errno if it failed.
    pub(crate) errno: Option<i32>,
    /// What the kernel said about the failure, as it wrote it; mostly nothing.
    pub(crate) said: Vec<u8>,
    /// What was done instead of system calls that are missing.
    pub(crate) used: Fallbacks,
}

impl Telling {
    pub(crate) fn new() -> Self {
        Telling {
            at: AtomicUsize::new(0),
            errno: AtomicI32::new(0),
            said: [const { AtomicU8::new(0) }; SAID],
            used: AtomicU32::new(0),
        }
    }

    /// As new.
    pub(crate) fn clear(&self) {
        self.at.store(0, Relaxed);
        self.errno.store(0, Relaxed);
        self.used.store(0, Relaxed);
        for byte in &self.said {
            byte.store(0, Relaxed);
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let errno = self.errno.load(Relaxed);
        let said = self.said.iter().map(|byte| byte.load(Relaxed)).take_while(|byte| *byte != 0).collect();
        let used = Fallbacks::from_bits_truncate(self.used.load(Relaxed));
        Outcome { at: self.at.load(Relaxed), errno: (errno != 0).then_some(errno), said, used }
    }
}

/// One that a child shares which otherwise has a copy of the caller's memory.
#[derive(Debug)]
pub(crate) struct SharedTelling(NonNull<Telling>);

// SAFETY: it owns its mapping, and what is in it is atomic.
unsafe impl Send for SharedTelling {}
// SAFETY: as above.
unsafe impl Sync for SharedTelling {}

impl SharedTelling {
    pub(crate) fn map() -> Result<Self, (&'static str, i32)> {
        let (flags, access) = (libc::MAP_SHARED | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice changes nothing that exists.
        let page = unsafe { libc::mmap(null_mut(), size_of::<Telling>(), access, flags, -1, 0) };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(SharedTelling(page.cast())),
            _ => Err(("mmap", last_errno())),
        }
    }
}

impl Deref for SharedTelling {
    type Target = Telling;

    fn deref(&self) -> &Telling {
        // SAFETY: the mapping is as long as this, aligned to a page, and began as zeros, which is what a new one has.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for SharedTelling {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives this; a child has its own.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Telling>()) };
    }
}
