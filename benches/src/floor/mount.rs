//! The floor of a mount: the fewest system calls that make a detached overlay, or a read-only bind mount, of directories.
//!
//! `cofferdam_unionfs::Overlay::mount` makes these and some more; `BENCHMARKS.md` says what each of those is for.
#![allow(unsafe_code, reason = "the system calls of mounting by descriptor: by hand is the point")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null;
use std::sync::Arc;

/// What a floor mounts.
#[derive(Debug)]
pub struct Floor {
    /// Topmost first.
    pub lowers: Vec<CString>,
    /// Upper and work, open for reading as `cofferdam_unionfs::WritableLayer` has them. Without them there is one lower, and the mount is a read-only bind mount of it.
    pub writable: Option<(Arc<OwnedFd>, Arc<OwnedFd>)>,
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const OPEN_TREE_CLONE: u32 = 1;

impl Floor {
    /// The mount, attached nowhere.
    ///
    /// # Errors
    /// The errno of whatever system call failed.
    pub fn mount(&self) -> io::Result<OwnedFd> {
        match (&self.writable, self.lowers.as_slice()) {
            (Some((upper, work)), lowers) => overlay(lowers, upper, work),
            (None, [only]) => bind(only),
            (None, _) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// What makes it the same mount: the defaults depend on how the kernel was built and its module loaded.
const OPTIONS: [(&CStr, &CStr); 4] =
    [(c"index", c"off"), (c"redirect_dir", c"nofollow"), (c"metacopy", c"off"), (c"xino", c"off")];

/// `openat` of each lower, `fsopen`, `fsconfig` for each option and layer, `fsconfig` to create, `fsmount`, and a `close` of what was opened.
fn overlay(lowers: &[CString], upper: &OwnedFd, work: &OwnedFd) -> io::Result<OwnedFd> {
    let lowers: Vec<OwnedFd> = lowers.iter().map(|path| open(path)).collect::<io::Result<_>>()?;
    // SAFETY: a C string and a flag.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) })?;
    for lower in &lowers {
        add(&context, c"lowerdir+", lower)?;
    }
    add(&context, c"upperdir", upper)?;
    add(&context, c"workdir", work)?;
    for (key, value) in OPTIONS {
        set(&context, key, value)?;
    }
    // SAFETY: of a context, and without further arguments.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null::<u8>(), null::<u8>(), 0)
    };
    check(created)?;
    // SAFETY: of a context; numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// `open_tree`, `mount_setattr`.
fn bind(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: a C string and numbers.
    let mount = owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: an empty C string, and attributes of the size that is given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(set)?;
    Ok(mount)
}

fn open(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a C string and numbers.
    owned(unsafe { libc::openat(libc::AT_FDCWD, path.as_ptr(), flags) }.into())
}

fn add(context: &OwnedFd, key: &CStr, layer: &OwnedFd) -> io::Result<()> {
    let (context, layer) = (context.as_raw_fd(), layer.as_raw_fd());
    // SAFETY: two descriptors and a C string.
    let added =
        unsafe { libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_SET_FD, key.as_ptr(), null::<u8>(), layer) };
    check(added).map(drop)
}

fn set(context: &OwnedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    let context = context.as_raw_fd();
    // SAFETY: a descriptor and two C strings.
    let done =
        unsafe { libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0) };
    check(done).map(drop)
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i64) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
