//! What the child does: it makes the system calls of its list, one after the other.

use super::each::{self, for_each};
use super::raw::{errno_of, syscall6, trap};
use super::relay::{Relay, pass_on};
use super::script;
use super::telling::{SAID, Telling};
use crate::Fallbacks;
use crate::program::{Arg, Finding, Op, Program, SCRATCH, SLOTS, STATFS_FLAGS, Slot, Stops, Then};
use crate::report::NOEXEC;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};

/// Everything that the child reads, and where it tells how it goes.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    ops: &'a [Op],
    slots: Box<[AtomicI64]>,
    scratch: Box<[AtomicU64; SCRATCH]>,
    /// Descriptors that outlive the creation.
    kept: &'a [Arg],
    /// Where it waits.
    stops: Stops,
    /// What a filter knows its calls by.
    secret: [u64; 2],
    /// Whether a program is started.
    program: bool,
    /// Fallbacks that the clone has needed.
    used: Fallbacks,
    pub(super) telling: &'a Telling,
    /// For a program in which another process clones the child, and where the child goes on then.
    pub(super) relay: Option<Relay<'a>>,
    pub(super) born_at: AtomicUsize,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(program: &'a Program, slots: [i64; SLOTS], stops: Stops, telling: &'a Telling) -> Self {
        let values = slots.into_iter().chain(std::iter::repeat(-1)).take(program.slots());
        Frame {
            ops: program.ops(),
            slots: values.map(AtomicI64::new).collect(),
            scratch: Box::new([const { AtomicU64::new(0) }; SCRATCH]),
            kept: program.kept(),
            stops,
            secret: program.secret().unwrap_or_default(),
            program: true,
            used: Fallbacks::empty(),
            telling,
            relay: None,
            born_at: AtomicUsize::new(0),
        }
    }

    /// Makes also the calls that these fallbacks take.
    pub(crate) fn falls_back(&mut self, used: Fallbacks) {
        self.used = used;
        self.telling.used.store(used.bits(), Relaxed);
    }

    /// Tells something beside how far it has come. The process between may have told something before.
    fn notes(&self, what: Fallbacks) -> i32 {
        self.telling.used.fetch_or(what.bits(), Relaxed);
        0
    }

    /// All but what only the start of a program needs.
    pub(crate) fn without_program(mut self) -> Self {
        self.program = false;
        self
    }

    /// All calls have been made.
    pub(super) fn arrived(&self) {
        self.telling.at.store(usize::MAX, Relaxed);
    }
}

/// The child. No panic, no allocation, no libc: see the top of this folder.
pub(super) extern "C" fn child(frame: *mut libc::c_void) -> ! {
    // SAFETY: `clone_and_run` passes a frame, and keeps it until the clone returns to it, which is after this function's last use.
    let frame = unsafe { &*frame.cast::<Frame<'_>>() };
    follow(frame, 0);
    exit(frame, 127)
}

/// Makes the calls of the list from here on; returns whether none of them failed.
pub(super) fn follow(frame: &Frame<'_>, from: usize) -> bool {
    let scratch = &*frame.scratch;
    let told = scratch.as_ptr().expose_provenance() as u64;
    let (mut next, mut denied, mut used, mut sealed) = (from, false, frame.used, Sealed::Not);
    while let Some(op) = frame.ops.get(next) {
        let at = next;
        next += 1;
        sealed = sealed.next(op.seals);
        if sealed == Sealed::Again || is_left_out(frame, op, used) {
            continue;
        }
        frame.telling.at.store(at, Relaxed);
        if op.then == Then::PassOn {
            return pass_on(frame, next);
        }
        let args = op.args.map(|arg| resolve(frame, arg, told));
        let result = if op.then == Then::AllButKept { close_but_kept(frame) } else { make(op.number, args) };
        let errno = if result < 0 { errno_of(result) } else { 0 };
        look_why(frame, op, (errno, sealed), args);
        let failure = match op.then {
            Then::Keep(slot) | Then::Look { keep: slot, .. } if errno == 0 => keep(frame, slot.0, result),
            #[cfg(feature = "init")]
            Then::KeepPair(slots) if errno == 0 => keep_pair(frame, slots),
            Then::Unless(expected) if errno == expected => 0,
            Then::Exactly(wanted, otherwise) if errno == 0 && result != wanted => otherwise,
            Then::Finds(findings, otherwise) if errno == 0 && !finds(scratch, findings) => otherwise,
            Then::Branch { keep: kept, done, .. } if errno == 0 => {
                next = next.saturating_add(done);
                kept.map_or(0, |slot| keep(frame, slot.0, result))
            }
            Then::Branch { errno: expected, failed, .. } if errno == expected => {
                next = next.saturating_add(failed);
                0
            }
            Then::Or(fallback, errnos) if errnos.contains(&errno) => {
                used |= fallback;
                frame.notes(fallback)
            }
            Then::MountFlags { keep: slot, more } if errno == 0 => keep(frame, slot.0, mount_flags(scratch, more)),
            Then::Notes(what) if errno == 0 => frame.notes(what),
            Then::MarkEach if errno == 0 => for_each(scratch, args, result, each::mark),
            Then::CloseEachBut(highest, kept) if errno == 0 => close_each(frame, args, result, (highest, kept)),
            // As execvp(3): go on looking, but remember that there was one that may not be started.
            Then::TryNext | Then::Look { .. } if errno == libc::EACCES || is_elsewhere(errno) => {
                denied |= errno == libc::EACCES;
                if let Then::Look { past, .. } = op.then {
                    next = next.saturating_add(past);
                }
                0
            }
            Then::Interpreters(how) => script::look(scratch, how, result),
            _ if denied && is_elsewhere(errno) => libc::EACCES,
            _ => errno,
        };
        if failure != 0 {
            listen(frame, op.number, args);
            frame.telling.errno.store(failure, Relaxed);
            return false;
        }
    }
    true
}

/// Whether it is for other children: that wait, that start a program, that need a fallback.
fn is_left_out(frame: &Frame<'_>, op: &Op, used: Fallbacks) -> bool {
    let for_others = op.stops > frame.stops || op.starts_program() && !frame.program;
    for_others || !op.only.is_empty() && !op.only.intersects(used)
}

/// `close_range(2)` of what lies between those that are kept.
fn close_but_kept(frame: &Frame<'_>) -> i64 {
    let (mut from, most) = (3, u64::from(u32::MAX));
    while from <= most {
        // What a slot does not have is -1.
        let kept = frame.kept.iter().map(|arg| resolve(frame, *arg, 0)).filter(|fd| (from..most).contains(fd)).min();
        if kept != Some(from) {
            let last = kept.map_or(most, |fd| fd.saturating_sub(1));
            let result = make(libc::SYS_close_range, [from, last, 0, 0, 0, 0]);
            if result < 0 {
                return result;
            }
        }
        from = kept.unwrap_or(most).saturating_add(1);
    }
    0
}

fn resolve(frame: &Frame<'_>, arg: Arg, scratch: u64) -> u64 {
    match arg {
        Arg::Value(value) => value,
        Arg::Slot(slot) => value_of(frame, slot.0),
        Arg::Scratch => scratch,
    }
}

/// Whether the filters are in place. Their calls stand in front of each start that may be tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sealed {
    Not,
    Being,
    Done,
    /// It is, and the next call would do it once more.
    Again,
}

impl Sealed {
    fn next(self, seals: bool) -> Self {
        match (self, seals) {
            (Sealed::Not, false) => Sealed::Not,
            (Sealed::Not | Sealed::Being, true) => Sealed::Being,
            (_, false) => Sealed::Done,
            (_, true) => Sealed::Again,
        }
    }
}

fn slot_of<'a>(frame: &'a Frame<'_>, slot: usize) -> Option<&'a AtomicI64> {
    frame.slots.get(slot)
}

fn value_of(frame: &Frame<'_>, slot: usize) -> u64 {
    slot_of(frame, slot).map_or(u64::MAX, |slot| slot.load(Relaxed).cast_unsigned())
}

fn keep(frame: &Frame<'_>, slot: usize, result: i64) -> i32 {
    if let Some(slot) = slot_of(frame, slot) {
        slot.store(result, Relaxed);
    }
    0
}

/// Of pipe2(2): two numbers of 32 bits.
#[cfg(feature = "init")]
fn keep_pair(frame: &Frame<'_>, [first, second]: [crate::program::Slot; 2]) -> i32 {
    let both = frame.scratch.first().map_or(u64::MAX, |word| word.load(Relaxed)).cast_signed();
    keep(frame, first.0, both & 0xffff_ffff);
    keep(frame, second.0, both >> 32)
}

pub(super) fn make(number: i64, args: [u64; 6]) -> i64 {
    let mut tries = 0;
    loop {
        // SAFETY: the program was made from system calls and arguments that are valid in any process; pointers are to memory that it owns.
        let result = unsafe { syscall6(number, args) };
        // A rename anywhere on the machine may have come between its steps.
        if number != libc::SYS_openat2 || errno_of(result) != libc::EAGAIN || tries == OPENAT2_TRIES {
            return result;
        }
        tries += 1;
    }
}

fn close_each(frame: &Frame<'_>, args: [u64; 6], result: i64, (highest, kept): (u64, [Slot; 2])) -> i32 {
    for_each(&frame.scratch, args, result, |fd| {
        let keep = fd <= highest || kept.iter().any(|slot| value_of(frame, slot.0) == fd);
        if keep { 0 } else { each::close(fd) }
    })
}

fn finds(scratch: &[AtomicU64; SCRATCH], findings: [Finding; 2]) -> bool {
    findings
        .into_iter()
        .all(|Finding { word, mask, value }| scratch.get(word).is_some_and(|found| found.load(Relaxed) & mask == value))
}

/// A file system's context tells in words what is wrong with an option: one message for each `read(2)`.
fn listen(frame: &Frame<'_>, number: i64, [context, ..]: [u64; 6]) {
    if number == libc::SYS_fsconfig || number == libc::SYS_fsmount {
        let (text, room) = (frame.telling.said.as_ptr().expose_provenance() as u64, SAID as u64);
        // SAFETY: these bytes are for this, atomic, and as many as said. An error means that there is nothing to tell.
        unsafe { syscall6(libc::SYS_read, [context, text, room, 0, 0, 0]) };
    }
}

/// Notes if a program may not be started because its file system has none: the errno alone could also mean the file's mode. Not behind a filter, which could
/// forbid to ask, or ask the caller, who waits.
fn look_why(frame: &Frame<'_>, op: &Op, (errno, sealed): (i32, Sealed), [path, ..]: [u64; 6]) {
    if errno != libc::EACCES || !op.is_the_start() || sealed != Sealed::Not {
        return;
    }
    let found = frame.scratch.as_ptr().expose_provenance() as u64;
    // SAFETY: the path is the one that execve(2) was given; the scratch words are atomic, and more than a struct statfs has.
    let result = unsafe { syscall6(libc::SYS_statfs, [path, found, 0, 0, 0, 0]) };
    let flags = frame.scratch.get(STATFS_FLAGS).map_or(0, |flags| flags.load(Relaxed));
    if result == 0 && flags & libc::ST_NOEXEC != 0 {
        frame.notes(NOEXEC);
    }
}

/// What `statfs(2)` has said of a mount, as `mount(2)` takes it. Times are left as they are if nothing is said of them.
fn mount_flags(scratch: &[AtomicU64; SCRATCH], more: u64) -> i64 {
    const ALIKE: u64 = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let found = scratch.get(STATFS_FLAGS).map_or(0, |flags| flags.load(Relaxed));
    // ST_NOSYMFOLLOW, MS_NOSYMFOLLOW
    let links = if found & 1 << 13 == 0 { 0 } else { 1 << 8 };
    (found & ALIKE | links | more).cast_signed()
}

/// How often an `openat2(2)` is tried that has been interfered with.
const OPENAT2_TRIES: u32 = 64;

/// A program that is not there, as `execvp(3)` sees it: it may be in the next place.
pub(super) fn is_elsewhere(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT)
}

/// Ends this process, whatever its filters say: one may answer `exit_group(2)` with an errno.
pub(super) fn exit(frame: &Frame<'_>, code: u8) -> ! {
    end(code, frame.secret)
}

/// As [`exit`], of a process that has no filters of its own.
pub(super) fn end(code: u8, [last_but_one, last]: [u64; 2]) -> ! {
    for number in [libc::SYS_exit_group, libc::SYS_exit] {
        // SAFETY: these take a number and end this process only: it is no thread of the caller, and has no other.
        unsafe { syscall6(number, [code.into(), 0, 0, 0, last_but_one, last]) };
    }
    trap()
}
