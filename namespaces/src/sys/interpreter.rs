//! What the child does: it makes the system calls of its list, one after the other.
#![allow(clippy::many_single_char_names, reason = "the six arguments of a system call have no better names here")]

use super::raw::{errno_of, syscall6};
use crate::program::{Arg, Op, SLOTS, Then};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicUsize};

/// Everything that the child reads and all that it tells.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    ops: &'a [Op],
    slots: [i64; SLOTS],
    /// Whether the calls that hold the child are made too.
    held: bool,
    /// Index of the system call that the child is in.
    at: AtomicUsize,
    /// Its errno, once it has failed.
    errno: AtomicI32,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(ops: &'a [Op], slots: [i64; SLOTS], held: bool) -> Self {
        Frame { ops, slots, held, at: AtomicUsize::new(0), errno: AtomicI32::new(0) }
    }

    /// The system call that the child came to last, and its errno if it failed.
    pub(crate) fn outcome(&self) -> (usize, Option<i32>) {
        let errno = self.errno.load(Relaxed);
        (self.at.load(Relaxed), (errno != 0).then_some(errno))
    }
}

/// The child. No panic, no allocation, no libc: see the top of this file.
pub(super) extern "C" fn child(frame: *mut libc::c_void) -> ! {
    // SAFETY: `clone_and_run` passes a frame, and keeps it until the clone returns to it, which is after this function's last use.
    let frame = unsafe { &*frame.cast::<Frame<'_>>() };
    let mut slots = frame.slots;
    let mut denied = false;
    for (at, op) in frame.ops.iter().enumerate() {
        if op.held && !frame.held {
            continue;
        }
        frame.at.store(at, Relaxed);
        let [a, b, c, d, e, f] = op.args.map(|arg| match arg {
            Arg::Value(value) => value,
            Arg::Slot(slot) => slots.get(slot.0 as usize).map_or(u64::MAX, |value| value.cast_unsigned()),
        });
        let mut tries = 0;
        let result = loop {
            // SAFETY: the program was made from system calls and arguments that are valid in any process; pointers are to memory that it owns.
            let result = unsafe { syscall6(op.number, [a, b, c, d, e, f]) };
            // A rename anywhere on the machine may have come between its steps.
            if op.number != libc::SYS_openat2 || errno_of(result) != libc::EAGAIN || tries == OPENAT2_TRIES {
                break result;
            }
            tries += 1;
        };
        let errno = if result < 0 { errno_of(result) } else { 0 };
        let failure = match op.then {
            Then::Keep(slot) if errno == 0 => {
                if let Some(kept) = slots.get_mut(slot.0 as usize) {
                    *kept = result;
                }
                0
            }
            Then::Unless(expected) if errno == expected => 0,
            Then::Exactly(wanted, otherwise) if errno == 0 && result != wanted => otherwise,
            // As execvp(3): go on looking, but remember that there was one that may not be started.
            Then::TryNext if errno == libc::EACCES => {
                denied = true;
                0
            }
            Then::TryNext if is_elsewhere(errno) => 0,
            _ if denied && is_elsewhere(errno) => libc::EACCES,
            _ => errno,
        };
        if failure != 0 {
            frame.errno.store(failure, Relaxed);
            break;
        }
    }
    exit()
}

/// How often an `openat2(2)` is tried that has been interfered with.
const OPENAT2_TRIES: u32 = 64;

/// A program that is not there, as `execvp(3)` sees it: it may be in the next place.
fn is_elsewhere(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT)
}

pub(super) fn exit() -> ! {
    loop {
        // SAFETY: exit_group takes a number and ends this process only: it is no thread of the caller.
        unsafe { syscall6(libc::SYS_exit_group, [127, 0, 0, 0, 0, 0]) };
    }
}
