//! What a child tells: words in memory that its caller reads, which no seccomp filter can forbid.

use crate::Fallbacks;
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
    /// The bits of the fallbacks that were used, and what else is noted: see `report`.
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
    /// What was done instead of system calls that are missing, and what else the child has noted.
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
        let used = Fallbacks::from_bits_retain(self.used.load(Relaxed));
        Outcome { at: self.at.load(Relaxed), errno: (errno != 0).then_some(errno), said, used }
    }
}
