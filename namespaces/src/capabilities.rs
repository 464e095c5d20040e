//! The five sets of capabilities of a process, and its securebits.

use crate::{Capability, CapabilitySet, Error};
use bitflags::bitflags;

/// The five sets of capabilities that the child has when it starts the program, `capabilities(7)`.
///
/// What the program then *has* follows from them by the kernel's rules for `execve(2)`:
///
/// | the program's user is | it has |
/// |---|---|
/// | 0, in its user namespace | the bounding and the inheritable set, whatever the permitted one was (unless [`SecureBits::NOROOT`] is set) |
/// | another | the ambient set |
///
/// and what capabilities of the program's file add, as far as the bounding set allows, unless it has [no new privileges](crate::Sandbox::no_new_privs).
///
/// So a set for root is [`only`](Capabilities::only), and one for another user takes [`with_ambient`](Capabilities::with_ambient) too. A capability that
/// the running kernel does not know is left out, since nobody has it there: [`Report::left_out`](crate::Report::left_out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields, default))]
#[doc(alias("capset", "cap-add", "cap-drop"))]
pub struct Capabilities {
    pub(crate) effective: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    pub(crate) inheritable: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) ambient: CapabilitySet,
}

impl Capabilities {
    /// None in any set: no program can get one.
    #[must_use]
    #[doc(alias = "cap-drop=all")]
    pub fn none() -> Self {
        Self::default()
    }

    /// These in the effective, permitted and bounding set; the inheritable and the ambient set are empty.
    #[must_use]
    pub fn only(set: impl Into<CapabilitySet>) -> Self {
        let set = set.into();
        Capabilities { effective: set, permitted: set, bounding: set, ..Self::default() }
    }

    /// What container engines leave to root in a container: enough to install packages and change users, nothing that is about the machine.
    ///
    /// The inheritable set is empty (CVE-2022-27650). Raw sockets and devices are not among them.
    #[must_use]
    pub fn container_default() -> Self {
        use Capability as C;
        Self::only([
            C::Chown,
            C::DacOverride,
            C::Fowner,
            C::Fsetid,
            C::Kill,
            C::NetBindService,
            C::Setfcap,
            C::Setgid,
            C::Setpcap,
            C::Setuid,
            C::SysChroot,
        ])
    }

    /// Adds these to all five sets, so that a program of any user has them.
    #[must_use]
    pub fn with_ambient(mut self, set: impl Into<CapabilitySet>) -> Self {
        let set = set.into();
        for which in
            [&mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.bounding, &mut self.ambient]
        {
            *which = *which | set;
        }
        self
    }

    /// Sets the effective set: what the kernel looks at. Must be part of the permitted one.
    #[must_use]
    pub fn effective(mut self, set: impl Into<CapabilitySet>) -> Self {
        self.effective = set.into();
        self
    }

    /// Sets the permitted set: what the process may make effective.
    #[must_use]
    pub fn permitted(mut self, set: impl Into<CapabilitySet>) -> Self {
        self.permitted = set.into();
        self
    }

    /// Sets the inheritable set: what a program keeps whose file says so, and any program of user 0. Must be part of the bounding one.
    #[must_use]
    pub fn inheritable(mut self, set: impl Into<CapabilitySet>) -> Self {
        self.inheritable = set.into();
        self
    }

    /// Sets the bounding set: what any program can get at most.
    #[must_use]
    pub fn bounding(mut self, set: impl Into<CapabilitySet>) -> Self {
        self.bounding = set.into();
        self
    }

    /// Sets the ambient set: what a program without capabilities of its own keeps. Must be part of the permitted and of the inheritable one.
    #[must_use]
    pub fn ambient(mut self, set: impl Into<CapabilitySet>) -> Self {
        self.ambient = set.into();
        self
    }

    /// The bounding set.
    #[must_use]
    pub fn bounding_set(&self) -> CapabilitySet {
        self.bounding
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |words| Err(Error::config("capabilities", words));
        if !self.permitted.is_superset(self.effective) {
            return refuse("have an effective set that is not part of the permitted one");
        }
        if !(self.permitted & self.inheritable).is_superset(self.ambient) {
            return refuse("have an ambient set that is not part of the permitted and of the inheritable one");
        }
        if !self.bounding.is_superset(self.inheritable) {
            return refuse("have an inheritable set that is not part of the bounding one");
        }
        Ok(())
    }

    /// All that is asked for anywhere.
    pub(crate) fn asked(&self) -> CapabilitySet {
        self.effective | self.permitted | self.inheritable | self.bounding | self.ambient
    }
}

bitflags! {
    /// What being user 0 means for capabilities, `capabilities(7)`, "The securebits flags". Each can be locked, so that nothing inside can change it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct SecureBits: u32 {
        /// A program gets no capability for being user 0's.
        const NOROOT = 1;
        /// Locks [`NOROOT`](Self::NOROOT).
        const NOROOT_LOCKED = 1 << 1;
        /// Changing users changes no capabilities.
        const NO_SETUID_FIXUP = 1 << 2;
        /// Locks [`NO_SETUID_FIXUP`](Self::NO_SETUID_FIXUP).
        const NO_SETUID_FIXUP_LOCKED = 1 << 3;
        /// The permitted set outlives a change from user 0; gone when a program starts.
        const KEEP_CAPS = 1 << 4;
        /// Locks [`KEEP_CAPS`](Self::KEEP_CAPS).
        const KEEP_CAPS_LOCKED = 1 << 5;
        /// Nothing is added to the ambient set.
        const NO_CAP_AMBIENT_RAISE = 1 << 6;
        /// Locks [`NO_CAP_AMBIENT_RAISE`](Self::NO_CAP_AMBIENT_RAISE).
        const NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_must_fit_together() {
        let (kill, none) = (CapabilitySet::from(Capability::Kill), CapabilitySet::EMPTY);
        let words = |sets: Capabilities| sets.check().map_err(|error| error.to_string());
        assert_eq!(words(Capabilities::none()), Ok(()));
        assert_eq!(words(Capabilities::container_default().with_ambient([Capability::SysTime])), Ok(()));
        assert_eq!(words(Capabilities::only([Capability::Kill]).permitted(none).effective(none)), Ok(()));
        for (sets, says) in [
            (Capabilities::none().effective(kill), "an effective set"),
            (Capabilities::only([Capability::Kill]).ambient(kill), "an ambient set"),
            (Capabilities::none().inheritable(kill).bounding(kill).ambient(kill), "an ambient set"),
            (Capabilities::none().inheritable(kill), "an inheritable set"),
        ] {
            assert!(words(sets).unwrap_err().contains(says), "{sets:?}");
        }
    }

    #[test]
    fn the_default_says_nothing_about_the_machine() {
        let sets = Capabilities::container_default();
        assert_eq!(sets.asked(), sets.bounding);
        assert!(sets.inheritable.is_empty() && sets.ambient.is_empty());
        for machine in [Capability::SysAdmin, Capability::Mknod, Capability::NetRaw, Capability::DacReadSearch] {
            assert!(!sets.bounding.contains(machine), "{machine}");
        }
    }
}
