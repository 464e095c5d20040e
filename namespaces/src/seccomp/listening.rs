//! A filter as the child installs it, and how the listener that comes with it gets to the caller.
//!
//! Once a filter is in place, it may want to ask about any call, also about those that the child still makes: the one that hands over the
//! listener, and the start of the program, for which the caller waits and so cannot answer. Neither `pidfd_getfd(2)` (it takes the right to trace the child, which an ordinary
//! caller may not have, and the child would have to wait without a call) nor a process between (which would be in sight) helps. But a filter sees all six
//! arguments of a call, also where the kernel uses three. So the filter lets pass what has a secret in the last two; the child's calls have it, and
//! nobody else knows it: a program cannot read the filters that it is under, `PTRACE_SECCOMP_GET_FILTER(2const)`, and nothing of the child's memory or registers
//! is left when it starts.

use super::bpf::{self, BpfInstruction};
use super::foresight::{self, Fate};
use crate::handover;
use crate::privilege::LISTENER;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::{Error, Step, sys};

/// How many numbers of descriptors it takes.
pub(crate) const RESERVED: i32 = 2;
/// What the kernel opens.
const OPENED: Slot = Slot(17);

/// The calls that the child makes under the filter.
const CALLS: [libc::c_long; 7] = [
    libc::SYS_dup3,
    libc::SYS_sendmsg,
    libc::SYS_seccomp,
    libc::SYS_capset,
    libc::SYS_execve,
    libc::SYS_exit_group,
    libc::SYS_exit,
];

/// What a filter with a listener has besides.
#[derive(Debug)]
pub(super) struct Listening {
    secret: [u64; 2],
    /// Where the child has its end of the sockets, and where what it hands over.
    socket: i32,
    number: i32,
}

impl Listening {
    /// The last of the descriptors up to the highest are for this.
    pub(super) fn new(highest: i32) -> Result<Self, Error> {
        let secret = sys::random().map_err(|errno| Error::os(Step::Prepare, "getrandom", errno))?;
        Ok(Listening { secret, socket: highest - 1, number: highest })
    }

    pub(super) fn excepted(&self, program: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
        bpf::excepting(self.secret, &CALLS, program)
    }
}

/// A filter, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Bound {
    name: &'static str,
    flags: libc::c_ulong,
    program: Vec<BpfInstruction>,
    listening: Option<Listening>,
}

impl Bound {
    pub(super) fn new(
        name: &'static str,
        flags: libc::c_ulong,
        program: Vec<BpfInstruction>,
        listening: Option<Listening>,
    ) -> Self {
        Bound { name, flags, program, listening }
    }

    /// What it will do to a call of the child's.
    pub(super) fn foresee(&self, call: libc::c_long) -> Fate {
        if self.listening.is_some() && CALLS.contains(&call) {
            Fate::Passes
        } else {
            foresight::of(&self.program, call)
        }
    }

    /// Both numbers are taken: what the kernel opens is another.
    pub(crate) fn prepare_listener(&self, program: &mut Program) {
        if let Some(Listening { socket, number, .. }) = self.listening {
            for place in [socket, number] {
                let copy = [LISTENER.into(), place.into(), libc::O_CLOEXEC.into()];
                program.call(Step::Stdio, "listener", Sys::dup3, copy);
            }
        }
    }

    pub(crate) fn compile(&self, program: &mut Program) {
        let instructions = program.words(self.program.iter().map(|instruction| instruction.word()));
        // A struct sock_fprog: how many, and where.
        let list = program.words([self.program.len() as u64, instructions]);
        let install = [libc::SECCOMP_SET_MODE_FILTER.into(), self.flags.into(), list.into()];
        let Some(Listening { secret, socket, number }) = self.listening else {
            return program.call(Step::Seccomp, self.name, Sys::seccomp, install);
        };
        program.call_then(Step::Seccomp, self.name, Sys::seccomp, install, Then::Keep(OPENED));
        program.sign(secret);
        let copy = [OPENED.into(), number.into(), libc::O_CLOEXEC.into()];
        program.call(Step::Seccomp, "listener", Sys::dup3, copy);
        handover::send(program, (Step::Seccomp, "listener"), Arg::from(socket), number);
    }
}
