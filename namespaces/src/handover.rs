//! How a child gives the caller a descriptor that it has opened itself: by a pair of sockets, `SCM_RIGHTS` of `unix(7)`.

use crate::bind::above;
use crate::program::{Arg, Program, Sys, Then};
use crate::{Error, Step, sys};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, socketpair,
};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The caller's end, and the child's, whose number is above `highest`.
pub(crate) fn pair(step: Step, highest: i32) -> Result<(OwnedFd, OwnedFd), Error> {
    let failed = |errno: Errno| Error::os(step, "socketpair", errno as i32);
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags).map_err(failed)?;
    Ok((ours, above(theirs, highest).map_err(|errno| Error::os(step, "fcntl", errno))?))
}

/// The child sends what it has open as this number. Nobody need receive it meanwhile.
pub(crate) fn send(program: &mut Program, (step, object): (Step, &str), socket: Arg, number: i32) {
    let byte = program.string(c"h".to_owned());
    let vector = program.words([byte, 1]);
    // A struct cmsghdr with one descriptor.
    let kind = u64::from(libc::SOL_SOCKET.cast_unsigned()) | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
    let control = program.words([20, kind, u64::from(number.cast_unsigned())]);
    // A struct msghdr: no address, one vector, the control message.
    let message = program.words([0, 0, vector, 1, control, 24, 0]);
    let send = [socket, message.into(), libc::MSG_NOSIGNAL.into()];
    program.call_then(step, object, Sys::sendmsg, send, Then::Exactly(1, libc::EPIPE));
}

/// What the child has sent.
pub(crate) fn receive(step: Step, socket: &OwnedFd) -> Result<OwnedFd, Error> {
    let (mut byte, mut control) = ([0], nix::cmsg_space!([RawFd; 1]));
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
