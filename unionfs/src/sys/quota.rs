//! Project quotas: `quotactl_fd(2)`, and the attributes that say to which project a directory belongs, `ioctl_xfs_fsgetxattr(2)`.

use super::checked;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const PROJECT: u32 = 2;
const GET_STATE: u32 = (b'X' as u32) << 8 | 8;
const GET: u32 = 0x0080_0007;
const SET: u32 = 0x0080_0008;
/// `FS_QUOTA_PDQ_ENFD`.
const PROJECT_LIMITS_HOLD: u16 = 1 << 5;
/// `QIF_BLIMITS` and `QIF_ILIMITS`.
const LIMITS: u32 = 1 | 4;

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
/// What is made in the directory belongs to its project, too.
const PROJINHERIT: u32 = 0x200;

/// `struct fs_quota_statv`, of which only this much is of interest.
#[repr(C)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    rest: [u32; 39],
}

/// `struct if_dqblk`: limits of space in units of 1024 bytes, what is used in bytes.
#[repr(C)]
#[derive(Default)]
struct Quota {
    space_hard: u64,
    space_soft: u64,
    space: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    space_time: u64,
    inodes_time: u64,
    valid: u32,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// What is known of a project. A limit of zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Project {
    /// In units of 1024 bytes.
    pub(crate) space_limit: u64,
    pub(crate) inode_limit: u64,
    /// In bytes.
    pub(crate) space: u64,
    pub(crate) inodes: u64,
}

/// Whether limits of projects hold on a file system.
pub(crate) fn limits_hold(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut state = State { version: 1, pad: 0, flags: 0, rest: [0; 39] };
    match call(file, GET_STATE, 0, &raw mut state) {
        Ok(()) => Ok(state.flags & PROJECT_LIMITS_HOLD != 0),
        // No quotas are on, or this file system or this kernel knows none.
        Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::SRCH | Errno::NOTBLK | Errno::NODEV) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What is known of a project on a file system. Of one that was never used, nothing.
pub(crate) fn project(file: BorrowedFd<'_>, id: u32) -> Result<Project, Errno> {
    let mut quota = Quota::default();
    match call(file, GET, id, &raw mut quota) {
        // XFS keeps no record of what has neither files nor limits.
        Err(Errno::NOENT) => Ok(Project::default()),
        result => result.map(|()| Project {
            space_limit: quota.space_hard,
            inode_limit: quota.inodes_hard,
            space: quota.space,
            inodes: quota.inodes,
        }),
    }
}

/// Sets the limits of a project, the space in units of 1024 bytes. Zero is none.
pub(crate) fn set_limits(file: BorrowedFd<'_>, id: u32, space: u64, inodes: u64) -> Result<(), Errno> {
    let mut quota = Quota { space_hard: space, inodes_hard: inodes, valid: LIMITS, ..Quota::default() };
    call(file, SET, id, &raw mut quota)
}

/// Puts a directory into a project, and what will be made in it.
pub(crate) fn join(directory: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    let mut attributes = Attributes::default();
    // SAFETY: of a descriptor, a struct that the kernel fills.
    checked(unsafe { libc::syscall(libc::SYS_ioctl, directory.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) })?;
    attributes.project = id;
    attributes.xflags |= PROJINHERIT;
    // SAFETY: of a descriptor, a struct that the kernel reads.
    checked(unsafe { libc::syscall(libc::SYS_ioctl, directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const attributes) })
        .map(drop)
}

fn call<T>(file: BorrowedFd<'_>, command: u32, id: u32, about: *mut T) -> Result<(), Errno> {
    // SAFETY: `about` is the struct of that command, which is the caller's until this returns.
    let result = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), command << 8 | PROJECT, libc::c_long::from(id), about)
    };
    checked(result).map(drop)
}
