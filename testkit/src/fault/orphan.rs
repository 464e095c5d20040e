//! A program that dies in the middle of starting a child: what becomes of the child?
//!
//! The supervisor must outlive the program: it is the test itself, and the program is a fork of it, whose listener comes over
//! a socket. The test is the subreaper meanwhile, so that it is told how each process ends that the program leaves.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid};

use super::supervisor::{Desk, Shared, settle};
use super::{Call, Who, filter};
use crate::process;
use crate::sys::{self, Answer};

/// How long all that is left may take to end, before it counts as left.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at who has ended, if nobody makes a system call.
const LOOK: u8 = 5;

/// What a program that was killed has left.
#[derive(Debug)]
pub struct Orphans {
    /// Before which call it was killed; `None` if that one was never made.
    pub call: Option<Call>,
    /// How those have ended that descend from it.
    pub ended: Vec<WaitStatus>,
    /// Those that did not end by themselves, and had to be killed: `pid (name)`.
    pub left: Vec<String>,
}

/// Runs `f` in a fork of this program, and kills that program just before it, or a child that it starts, makes its `nth` system call (from 0). The
/// call itself is made, if it was the child's. Returns when nothing is left.
///
/// The calling process must have one thread.
///
/// # Panics
/// If the machine does not let it do that.
pub fn kill_parent_at(who: Who, nth: usize, f: impl FnOnce()) -> Orphans {
    settle();
    let before = get_child_subreaper().expect("it can be asked");
    set_child_subreaper(true).expect("it can be set");
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .expect("a pair of sockets can be made");
    let Some(parent) = sys::fork().expect("a program with one thread can fork") else {
        drop(ours);
        run_watched(theirs, f);
    };
    drop(theirs);
    let listener = receive(&ours);
    sys::seccomp_take_turns(&listener);
    let watch = Watch { listener, desk: Desk::of(parent), parent, target: (who, nth), call: None, ended: Vec::new() };
    let orphans = watch.run();
    set_child_subreaper(before).expect("it can be set");
    orphans
}

/// The program that is going to die.
fn run_watched(socket: OwnedFd, f: impl FnOnce()) -> ! {
    let shared = Arc::new(Shared::new());
    // This thread has no filter, and so can send what the other one has got.
    let others = Arc::clone(&shared);
    drop(thread::spawn(move || {
        if let Some(listener) = others.wait_for_listener() {
            send(&socket, &listener);
        }
    }));
    if !geteuid().is_root() {
        nix::sys::prctl::set_no_new_privs().expect("no_new_privs takes no right");
    }
    let filter = filter::build(None, shared.bell_number());
    let listener = sys::seccomp_listen(&filter).expect("a filter with a listener can be installed");
    shared.hand_over(Some(listener));
    let result = catch_unwind(AssertUnwindSafe(f));
    std::process::exit(i32::from(result.is_err()));
}

fn send(socket: &OwnedFd, listener: &OwnedFd) {
    let fds = [listener.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(b"l")], &message, MsgFlags::empty(), None)
        .expect("a descriptor can be sent");
}

fn receive(socket: &OwnedFd) -> OwnedFd {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut vectors = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut vectors, Some(&mut space), flags)
        .expect("a descriptor can be received");
    let mut fds = message.cmsgs().expect("a message").filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    sys::received(fds.next().expect("the program could install its filter"))
}

struct Watch {
    listener: OwnedFd,
    desk: Desk,
    parent: Pid,
    target: (Who, usize),
    call: Option<Call>,
    ended: Vec<WaitStatus>,
}

impl Watch {
    fn run(mut self) -> Orphans {
        let until = Instant::now() + PATIENCE * crate::patience();
        let mut left = Vec::new();
        while self.reap() {
            if Instant::now() > until {
                left.extend(kill_children());
            }
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::from(LOOK));
            if ready.is_ok() && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                self.answer();
            }
        }
        left.dedup();
        Orphans { call: self.call, ended: self.ended, left }
    }

    fn answer(&mut self) {
        // ENOENT: the caller was killed before its call was looked at.
        let Ok(call) = sys::seccomp_receive(&self.listener) else { return };
        if self.call.is_none()
            && let Some((who, nth)) = self.desk.count(&call)
            && (who, nth) == self.target
        {
            self.call = Some(Call { who, pid: call.pid, number: call.number, args: call.args, fault: None });
            kill(self.parent, Signal::SIGKILL).expect("a child can be killed");
            // When it has ended, the kernel has sent what it sends to its children.
            let ended = waitpid(self.parent, Some(WaitPidFlag::__WALL));
            assert_eq!(ended, Ok(WaitStatus::Signaled(self.parent, Signal::SIGKILL, false)));
        }
        let _ = sys::seccomp_answer(&self.listener, call.id, Answer::GoOn);
    }

    /// Notes who has ended; false once nobody is left.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::StillAlive) => return true,
                Ok(status) if status.pid() == Some(self.parent) => {}
                Ok(status) => self.ended.push(status),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// All of them are of the program, or descend from it.
fn kill_children() -> Vec<String> {
    let me = Pid::this();
    let running = process::all().into_iter().filter(|one| one.parent == me && !one.zombie);
    running
        .map(|one| {
            let _ = kill(one.pid, Signal::SIGKILL);
            format!("{} ({})", one.pid, one.name)
        })
        .collect()
}
