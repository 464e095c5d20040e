//! How a child came to be.

use crate::{CapabilitySet, Engine, Fallbacks};

/// How a child came to be, see [`Child::report`](crate::Child::report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub(crate) engine: Engine,
    pub(crate) fallbacks: Fallbacks,
    pub(crate) left_out: CapabilitySet,
}

impl Report {
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
}
