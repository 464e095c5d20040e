//! The system calls that neither rustix nor nix wraps, and one that they call unsafe.

pub(crate) mod block;
mod mounts;
pub(crate) mod quota;
pub(crate) mod xattr;

pub(crate) use mounts::{idmap, mount_setattr, unshare_mounts};

use rustix::io::Errno;
use std::io;

/// What a call that answers with a number says, or why it failed.
fn checked(result: i64) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
