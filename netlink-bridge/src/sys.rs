//! System calls that rustix does not wrap, or not safely: the only file with `unsafe`.
#![allow(unsafe_code, reason = "the one file for it; every block says why it is sound")]

use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The network namespace that a socket was opened in, `SIOCGSKNS` of linux/sockios.h.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// The kind of a namespace, linux/nsfs.h.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Switches on an option of a netlink socket, `setsockopt(2)` at `SOL_NETLINK`.
pub(crate) fn set_netlink_option(socket: BorrowedFd<'_>, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    // SAFETY: the pointer is to an int that lives during the call, and the size is an int's.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Opens the network namespace that a socket belongs to, without any need of `/proc`.
pub(crate) fn namespace_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: SIOCGSKNS takes no argument and touches no memory of ours.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which kind of namespace a descriptor of one is of: its `CLONE_NEW…` flag, `NS_GET_NSTYPE` of `ioctl_ns(2)`.
pub(crate) fn kind_of_namespace(namespace: BorrowedFd<'_>) -> Result<libc::c_int, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(last_error()) } else { Ok(kind) }
}

/// Gives the calling thread a network namespace of its own.
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: unsharing the network namespace changes no memory and no descriptors, only what later sockets of this thread see.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
