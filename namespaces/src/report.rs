//! How a child came to be.

use crate::Engine;

/// How a child came to be, see [`Child::report`](crate::Child::report).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub(crate) engine: Engine,
}

impl Report {
    /// Whether it had the caller's memory until its program started, or a copy.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }
}
