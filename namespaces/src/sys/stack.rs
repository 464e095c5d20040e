//! Memory for a child that runs code of the caller's.

use super::last_errno;
use std::ptr::{NonNull, null_mut};

/// A stack for a child, with a guard page below it.
#[derive(Debug)]
pub(crate) struct Stack {
    base: NonNull<libc::c_void>,
    pub(super) size: usize,
}

// SAFETY: a stack is plain memory, used by one spawn at a time.
unsafe impl Send for Stack {}

impl Stack {
    /// As much as a thread of a program usually has, for code that is not ours. Only what is used takes memory.
    pub(crate) const LARGE: usize = 8 << 20;
    /// At least one page on every architecture.
    const GUARD: usize = 64 << 10;

    /// Maps a new stack.
    pub(crate) fn map(size: usize) -> Result<Self, (&'static str, i32)> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice changes nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), Self::GUARD + size, libc::PROT_NONE, flags, -1, 0) };
        let stack = match NonNull::new(base) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED => Stack { base, size },
            _ => return Err(("mmap", last_errno())),
        };
        let usable = stack.base.as_ptr().wrapping_byte_add(Self::GUARD);
        // SAFETY: the range is the upper part of the mapping just made, which nobody uses yet.
        let result = unsafe { libc::mprotect(usable, size, libc::PROT_READ | libc::PROT_WRITE) };
        if result == 0 { Ok(stack) } else { Err(("mprotect", last_errno())) }
    }

    pub(super) fn bottom(&self) -> usize {
        self.base.as_ptr().wrapping_byte_add(Self::GUARD).expose_provenance()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no child runs on it: a clone returns only when its child has left.
        unsafe { libc::munmap(self.base.as_ptr(), Self::GUARD + self.size) };
    }
}
