//! Rulesets of the caller's, `landlock(7)`.

use crate::program::{Program, Sys, Then};
use crate::{Error, Fallbacks, Sandbox, Step, sys};

impl Sandbox {
    /// Restricts it by the ruleset that [`Fds::bind`](crate::Fds::bind) gives this name, `landlock_restrict_self(2)`; more than one restrict it more.
    ///
    /// The caller makes the ruleset, by the crate `landlock` (`Option<OwnedFd>::from(RulesetCreated)`) or by hand; [`landlock_abi`] says what the kernel knows. It holds
    /// for the start of the program too: its file must be executable by the rules and, in a [`Root`](crate::Root) of its own, readable, where it is looked at before. Takes [`no_new_privs`](Sandbox::no_new_privs) or `CAP_SYS_ADMIN`.
    ///
    /// A rule is about a file or folder as the caller has opened it, wherever it is mounted. What the sandbox mounts for itself (a tmpfs, its `/proc`) no rule can
    /// be about: what the ruleset handles is denied there. With a [`Root`](crate::Root) of its own the rules must name folders in that, not the host's `/`.
    ///
    /// A kernel without Landlock gives an error of kind [`Unsupported`](crate::ErrorKind::Unsupported). With [`Fallbacks::LANDLOCK`] it goes without, also
    /// where the name is not bound there, because there was nothing to bind.
    ///
    /// ```no_run
    /// # use cofferdam_namespaces::{Fds, Sandbox};
    /// # fn ruleset() -> std::os::fd::OwnedFd { unimplemented!() }
    /// let child = Sandbox::new("/usr/bin/convert")
    ///     .no_new_privs()
    ///     .landlock("pictures only")
    ///     .spawn_with(Fds::new().bind("pictures only", ruleset()))?;
    /// # Ok::<(), cofferdam_namespaces::Error>(())
    /// ```
    #[must_use]
    #[doc(alias("landlock_restrict_self", "LSM"))]
    pub fn landlock(mut self, ruleset: impl Into<String>) -> Self {
        self.privilege.landlock.push(ruleset.into());
        self
    }
}

/// The version of Landlock that the kernel has, `landlock_create_ruleset(2)`: each one knows more kinds of access.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported): the kernel lacks Landlock (before Linux 5.13), or has it switched off.
pub fn landlock_abi() -> Result<u32, Error> {
    sys::landlock_abi().map_err(|errno| Error::os(Step::Landlock, "landlock_create_ruleset", errno))
}

pub(crate) fn compile(program: &mut Program, rulesets: &[(String, i32)], allowed: Fallbacks) {
    let then = if allowed.contains(Fallbacks::LANDLOCK) {
        Then::Or(Fallbacks::LANDLOCK, [libc::ENOSYS, libc::EOPNOTSUPP])
    } else {
        Then::Go
    };
    for (name, ruleset) in rulesets {
        let restrict = [(*ruleset).into(), 0_u64.into()];
        program.call_then(Step::Landlock, name, Sys::landlock_restrict_self, restrict, then);
    }
}
