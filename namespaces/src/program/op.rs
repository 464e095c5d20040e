//! One system call of the child, as data: which, with which arguments, and what becomes of its result.

use crate::{Fallbacks, Step};

/// Slots with a fixed use, see the modules that name them; [`Program::slot`](super::Program::slot) makes more.
pub(crate) const SLOTS: usize = 24;

/// A value that is known only in the child, or only at the spawn: a result of an earlier call, a descriptor that differs from spawn to spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) usize);

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arg {
    /// As it is: a number, a flag, a descriptor, an address of something that the program keeps.
    Value(u64),
    /// What the slot holds then.
    Slot(Slot),
    /// The address of [`SCRATCH`] words of the child's own, for a call that tells something.
    Scratch,
}

/// Machine words that a call may write to: enough for the longest path.
pub(crate) const SCRATCH: usize = 512;

/// Where a `struct statfs` has the mount's flags, in machine words.
pub(crate) const STATFS_FLAGS: usize = 10;

/// What becomes of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// An error ends the child, anything else is fine.
    Go,
    /// As `Go`, and the result is kept.
    Keep(Slot),
    /// The call has written two descriptors to the scratch words, which are kept.
    #[cfg(feature = "init")]
    KeepPair([Slot; 2]),
    /// As `Go`, but this error is as good as success.
    Unless(i32),
    /// Must be the first of these: anything else is the second, an errno.
    Exactly(i64, i32),
    /// One of several programs to start: when it is not there, the next call is tried.
    TryNext,
    /// As `TryNext`, for a look at a program: when it is not there, so many calls behind it are not made. Success is kept.
    Look { keep: Slot, past: usize },
    /// The call has read how a program begins: if it names one that is to run it, that one is looked at too, by `openat2(2)` with this
    /// `struct open_how`.
    Interpreters(u64),
    /// Success goes on behind the next `done` calls, and the result is kept; this errno goes on behind the next `failed` ones.
    Branch { keep: Option<Slot>, errno: i32, done: usize, failed: usize },
    /// As `Go`, but with one of these errnos the calls follow that are made [`only`](super::Program::only) then.
    Or(Fallbacks, [i32; 2]),
    /// As `Go`, and that it was done is told.
    Notes(Fallbacks),
    /// It was `statfs(2)`: the mount's flags, as `mount(2)` takes them, are kept with these added.
    MountFlags { keep: Slot, more: u64 },
    /// It lists descriptors: each above 2 is closed at the start of a program.
    MarkEach,
    /// It lists descriptors: each above this one is closed, but these.
    CloseEachBut(u64, [Slot; 2]),
    /// A clone: the calls from here on are the new process's, and this one has no others.
    PassOn,
    /// Closes all descriptors above 2 but those that [`Program::keep`](super::Program::keep) names: a call for each gap.
    AllButKept,
    /// The call has written all of this to the scratch words; anything else is this errno.
    Finds([Finding; 2], i32),
}

/// Where a child waits for its caller. Who waits at a place waits also at those before it in this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Stops {
    #[default]
    Nowhere,
    /// In front of its program.
    Release,
    /// With its mounts, but in the host's root.
    Creation,
}

/// What some bits of a scratch word must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) word: usize,
    pub(crate) mask: u64,
    pub(crate) value: u64,
}

/// One system call of the child.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) number: i64,
    pub(crate) args: [Arg; 6],
    pub(crate) then: Then,
    /// Made only by a child that waits there.
    pub(crate) stops: Stops,
    /// Made only where one of these is used.
    pub(crate) only: Fallbacks,
    /// Not made again: the filters are in place.
    pub(crate) seals: bool,
    /// Not made if a branch goes on behind it.
    pub(super) sometimes: bool,
    pub(super) step: Step,
    pub(super) name: &'static str,
    pub(super) object: usize,
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Arg::Value(value)
    }
}

/// A number that the kernel reads as an `unsigned int`.
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Arg::Value(value.into())
    }
}

impl From<Slot> for Arg {
    fn from(slot: Slot) -> Self {
        Arg::Slot(slot)
    }
}

/// A number that the kernel reads as an `int`: sign-extended, as C would pass it.
impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Arg::Value(i64::from(value).cast_unsigned())
    }
}

impl Op {
    /// Whether it belongs to the last steps, after which there is another program.
    pub(crate) fn starts_program(&self) -> bool {
        matches!(self.step, Step::Hide | Step::LetGo | Step::Exec)
    }

    /// Whether there is another program once it has succeeded.
    pub(crate) fn is_the_start(&self) -> bool {
        matches!(self.number, libc::SYS_execve | libc::SYS_execveat)
    }
}
