//! Memory that a child shares which otherwise has a copy of the caller's.

use super::clone::Birth;
use super::last_errno;
use super::telling::Telling;
use std::ops::Deref;
use std::ptr::{NonNull, null_mut};

/// What may lie in memory that two processes share and that begins as zeros.
///
/// # Safety
/// Zeros are a value of it, it has nothing but atomics, and nothing to drop.
pub(crate) unsafe trait Plain: Sync {}

// SAFETY: numbers and bytes, all of them atomic.
unsafe impl Plain for Telling {}
// SAFETY: three atomic numbers.
unsafe impl Plain for Birth {}

/// A value in a mapping of its own.
#[derive(Debug)]
pub(crate) struct SharedPage<T: Plain>(NonNull<T>);

// SAFETY: it owns its mapping, and what is in it is atomic.
unsafe impl<T: Plain> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for SharedPage<T> {}

impl<T: Plain> SharedPage<T> {
    pub(crate) fn map() -> Result<Self, (&'static str, i32)> {
        let (flags, access) = (libc::MAP_SHARED | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice changes nothing that exists.
        let page = unsafe { libc::mmap(null_mut(), size_of::<T>(), access, flags, -1, 0) };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(SharedPage(page.cast())),
            _ => Err(("mmap", last_errno())),
        }
    }
}

impl<T: Plain> Deref for SharedPage<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as this, aligned to a page, and began as zeros, which are a value.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Plain> Drop for SharedPage<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives this; a child has its own.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}
