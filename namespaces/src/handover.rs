//! What a child opens itself, and hands to its caller over a pair of sockets, `SCM_RIGHTS`.

use crate::bind::above;
use crate::program::{Program, Slot, Sys, Then};
use crate::{Error, Step, sys};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, socketpair,
};
use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

/// The caller's end and the child's, whose number is above `highest`.
pub(crate) fn pair(step: Step, highest: i32) -> Result<(OwnedFd, OwnedFd), Error> {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags)
        .map_err(|errno| Error::os(step, "socketpair", errno as i32))?;
    let theirs = above(theirs, highest).map_err(|errno| Error::os(step, "fcntl", errno))?;
    Ok((ours, theirs))
}

/// The child hands over what it has at this number.
pub(crate) fn send(program: &mut Program, step: Step, object: impl AsRef<OsStr>, socket: Slot, number: i32) {
    let byte = program.string(c"t".to_owned());
    let vector = program.words([byte, 1]);
    // A struct cmsghdr with one descriptor.
    let kind = u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
    let control = program.words([20, kind, u64::from(number.cast_unsigned())]);
    // A struct msghdr: no address, one vector, the control message.
    let message = program.words([0, 0, vector, 1, control, 24, 0]);
    let send = [socket.into(), message.into(), libc::MSG_NOSIGNAL.into()];
    program.call_then(step, object, Sys::sendmsg, send, Then::Exactly(1, libc::EPIPE));
}

/// Does not wait: the child has come past the point where it hands over.
pub(crate) fn receive(socket: &OwnedFd, step: Step) -> Result<OwnedFd, Error> {
    let (mut byte, mut control) = ([0], nix::cmsg_space!([std::os::fd::RawFd; 1]));
    let mut vectors = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let failed = |errno: Errno| Error::os(step, "recvmsg", errno as i32);
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut vectors, Some(&mut control), flags).map_err(failed)?;
    for control in message.cmsgs().map_err(failed)? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let [fd] = fds[..]
        {
            return Ok(sys::received(fd));
        }
    }
    Err(failed(Errno::EBADMSG))
}
