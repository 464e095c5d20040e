//! How a child came to be.

use crate::{CapabilitySet, Engine, Fallbacks};

/// How a child came to be, see [`Child::report`](crate::Child::report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub(crate) engine: Engine,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) left_out: CapabilitySet,
    pub(crate) chrooted: bool,
    pub(crate) kept_groups: bool,
}

// What a child notes beside the fallbacks that it uses, in the same word.

/// Its root is one by `chroot(2)`.
pub(crate) const CHROOTED: Fallbacks = Fallbacks::from_bits_retain(1 << 30);
/// It was not allowed to drop the caller's groups outside of the user namespace that it joins.
pub(crate) const KEPT_OUTSIDE: Fallbacks = Fallbacks::from_bits_retain(1 << 29);
/// Nor inside of it.
pub(crate) const KEPT_INSIDE: Fallbacks = Fallbacks::from_bits_retain(1 << 28);
/// A program that it may not start is on a file system without programs.
pub(crate) const NOEXEC: Fallbacks = Fallbacks::from_bits_retain(1 << 27);

impl Report {
    /// Of a child that was made by this engine, and noted this.
    pub(crate) fn new(engine: Engine, noted: Fallbacks, skipped: Fallbacks, left_out: CapabilitySet) -> Self {
        Report {
            engine,
            fallbacks: noted & Fallbacks::all() | skipped,
            left_out,
            chrooted: noted.contains(CHROOTED),
            kept_groups: noted.contains(KEPT_OUTSIDE | KEPT_INSIDE),
        }
    }

    /// Whether it had the caller's memory until its program started, or a copy.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// What was done instead of system calls that are missing; without need nothing.
    #[must_use]
    pub fn fallbacks(&self) -> Fallbacks {
        self.fallbacks
    }

    /// Capabilities that were asked for and that the running kernel does not know: nobody has them there.
    #[must_use]
    pub fn left_out(&self) -> CapabilitySet {
        self.left_out
    }

    /// Whether its root is one by `chroot(2)`, because `pivot_root(2)` is impossible here and [`Sandbox::allow_chroot`](crate::Sandbox::allow_chroot) lets that do.
    #[must_use]
    pub fn chrooted(&self) -> bool {
        self.chrooted
    }

    /// Whether it still has the caller's supplementary groups in a user namespace that it has joined: the caller may not drop them (`EPERM` of `setgroups(2)`), outside
    /// nor inside. Of an ordinary user that joins a namespace in which `setgroups` is denied; to nobody inside do they mean anything, but files outside that
    /// they open stay open to it.
    #[must_use]
    pub fn kept_groups(&self) -> bool {
        self.kept_groups
    }
}
