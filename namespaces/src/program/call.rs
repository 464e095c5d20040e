//! One system call of the child, as the caller sees it.

use super::{Op, Program, Then};
use crate::Step;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// One system call that the child will make, see [`Plan::explain`](crate::Plan::explain).
///
/// Displays as `mount: fsopen(/proc)`.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub(super) program: &'a Program,
    pub(super) op: &'a Op,
}

impl<'a> Call<'a> {
    /// The step that it belongs to.
    #[must_use]
    pub fn step(&self) -> Step {
        self.op.step
    }

    /// Its name, as in the manual's section 2.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.op.name
    }

    /// Its number on this architecture.
    #[must_use]
    pub fn number(&self) -> i64 {
        self.op.number
    }

    /// What it is about: a path, a name, a stream.
    #[must_use]
    pub fn object(&self) -> &'a OsStr {
        self.program.objects.get(self.op.object).map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// Whether an error of it may be overcome: `execve(2)` of a program that may also lie elsewhere in `PATH`, `openat2(2)` of
    /// a mount point that is made if it is missing.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        matches!(self.op.then, Then::TryNext | Then::Look { .. } | Then::Branch { .. })
    }

    pub(crate) fn starts_program(&self) -> bool {
        self.op.is_the_start()
    }

    /// Whether it depends on the outcome of a call before it that [may fail](Self::may_fail): it is not made in each spawn.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.op.sometimes
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}({})", self.step(), self.name(), self.object().display())
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({self})")
    }
}
