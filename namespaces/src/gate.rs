//! What a held child waits at: one end of a pair of sockets, and the descriptors on both sides of it.
//!
//! Packets, because a program can tell one from the end of the file without reading it into memory: `MSG_TRUNC` gives its length.

use crate::deadline::Deadline;
use crate::program::{Arg, Program, SLOTS, Slot, Sys, Then};
use crate::{Error, Step};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The child's end.
pub(crate) const GATE: Slot = Slot(8);
/// The first and the last of the descriptors below the gate, and of those above it.
pub(crate) const OTHERS: [[Slot; 2]; 2] = [[Slot(9), Slot(10)], [Slot(11), Slot(12)]];

/// The child says that it is there, and waits. The end of the file, when the caller is gone, lets it not go on.
pub(crate) fn compile(program: &mut Program, step: Step) {
    let (gate, none): (Arg, Arg) = (GATE.into(), 0_u64.into());
    let text = program.string(c"r".to_owned());
    let tell = [gate, text.into(), 1_u64.into(), libc::MSG_NOSIGNAL.into(), none, none];
    program.call_then(step, "", Sys::sendto, tell, Then::Exactly(1, libc::EPIPE));
    let wait = [gate, none, none, libc::MSG_TRUNC.into(), none, none];
    program.call_then(step, "", Sys::recvfrom, wait, Then::Exactly(1, libc::ECANCELED));
}

/// One end.
#[derive(Debug)]
pub(crate) struct Gate(OwnedFd);

impl Gate {
    /// The caller's end and the child's.
    /// The child's number is above `highest`.
    pub(crate) fn pair(highest: i32) -> Result<(Gate, Gate), Error> {
        let failed = |errno: Errno| Error::os(Step::Pipe, "socketpair", errno as i32).about("gate");
        let pair =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(failed)?;
        let theirs =
            crate::bind::above(pair.1, highest).map_err(|e| Error::os(Step::Pipe, "fcntl", e).about("gate"))?;
        Ok((Gate(pair.0), Gate(theirs)))
    }

    /// Lets the other side go on. If it is gone, it does not matter.
    pub(crate) fn open(&self) {
        let _ = send(self.0.as_raw_fd(), b"o", MsgFlags::MSG_NOSIGNAL);
    }

    /// Waits until the other side lets us go on, or is gone: with something unread, that is a reset.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        loop {
            match recv(self.0.as_raw_fd(), &mut [0], MsgFlags::empty()) {
                Ok(_) | Err(Errno::ECONNRESET) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os(Step::Hold, "recvfrom", errno as i32)),
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, but not longer than that: returns whether it has come to something.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> Result<bool, Error> {
        loop {
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], deadline.left()) {
                Ok(0) if deadline.is_over() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.wait().map(|()| true),
                Err(errno) => return Err(Error::os(Step::Hold, "poll", errno as i32)),
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, but also for the end of a process: somebody else may have the other side.
    pub(crate) fn wait_for(&self, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        let mut both = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd, PollFlags::POLLIN)];
        loop {
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os(Step::Hold, "poll", errno as i32)),
            }
        }
        // What it has said counts, even if it has ended since.
        if both.first().and_then(PollFd::any) == Some(true) { self.wait() } else { Ok(()) }
    }

    pub(crate) fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Fills in what the child needs to know.
    pub(crate) fn fill(&self, slots: &mut [i64; SLOTS], highest: i32) {
        let gate = i64::from(self.0.as_raw_fd());
        let above = [gate + 1, u32::MAX.into()];
        // What the program gets stays. Where nothing is between, what is above is closed twice.
        let first = i64::from(highest) + 1;
        let below = if gate == first { above } else { [first, gate - 1] };
        let values = [[(GATE, gate), (GATE, gate)], zip(OTHERS[0], below), zip(OTHERS[1], above)];
        for (slot, value) in values.into_iter().flatten() {
            if let Some(place) = slots.get_mut(slot.0) {
                *place = value;
            }
        }
    }
}

fn zip([a, b]: [Slot; 2], [x, y]: [i64; 2]) -> [(Slot, i64); 2] {
    [(a, x), (b, y)]
}
