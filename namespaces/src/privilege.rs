//! What the program may do: capabilities, securebits, new privileges, keys, labels, filters.
//!
//! All of it belongs to a process's credentials or to its task, none of it to its memory: the host program, whose memory the child may have, stays as
//! it is. The dumpable flag, which is the memory's, changes only when a process gains permitted capabilities, and this one only loses some.

use crate::bind::Names;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::sys::Rights;
use crate::{Capabilities, Capability, CapabilitySet, Error, Fallbacks, Sandbox, SecureBits, Step, sys};

/// The child's end of what hands over a filter's listener.
pub(crate) const LISTENER: Slot = Slot(16);

/// What is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields, default))]
pub(crate) struct Privilege {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) securebits: Option<SecureBits>,
    pub(crate) no_new_privs: bool,
    pub(crate) new_session_keyring: bool,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) selinux_label: Option<String>,
    #[cfg(feature = "landlock")]
    pub(crate) landlock: Vec<String>,
    #[cfg(feature = "seccomp")]
    pub(crate) seccomp: Vec<crate::Seccomp>,
}

impl Sandbox {
    /// The capabilities that it has. By default the caller's, or in a new user namespace all, until the program starts.
    ///
    /// To drop from the bounding set takes `CAP_SETPCAP`, which an ordinary user has in a user namespace.
    #[must_use]
    #[doc(alias("capset", "cap-add", "cap-drop", "setpriv"))]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.privilege.capabilities = Some(capabilities);
        self
    }

    /// What being user 0 means for capabilities. By default as for the caller; in a new user namespace nothing is set. Takes `CAP_SETPCAP`, and
    /// with [`credentials`](Sandbox::credentials) of another user than root [`capabilities`](Sandbox::capabilities) that are said.
    #[must_use]
    pub fn securebits(mut self, bits: SecureBits) -> Self {
        self.privilege.securebits = Some(bits);
        self
    }

    /// Neither it nor anything that it starts gets privileges from a file: set-user-id bits and capabilities of files have no effect,
    /// `PR_SET_NO_NEW_PRIVS(2const)`. Cannot be undone.
    ///
    /// With it, filters and rulesets need no privileges.
    #[must_use]
    #[doc(alias("PR_SET_NO_NEW_PRIVS", "NoNewPrivileges"))]
    pub fn no_new_privs(mut self) -> Self {
        self.privilege.no_new_privs = true;
        self
    }

    /// An empty session keyring of its own, `KEYCTL_JOIN_SESSION_KEYRING(2const)`: by default it is the caller's, with all keys that are in it.
    ///
    /// The keyring counts among its user's keys, of which an ordinary user may have 200 (`kernel.keys.maxkeys`). Where the kernel lacks keys, this is an error of
    /// kind [`Unsupported`](crate::ErrorKind::Unsupported), unless [`Fallbacks::SESSION_KEYRING`](crate::Fallbacks::SESSION_KEYRING) is allowed.
    #[must_use]
    #[doc(alias("keyctl", "keyrings"))]
    pub fn new_session_keyring(mut self) -> Self {
        self.privilege.new_session_keyring = true;
        self
    }

    /// The `AppArmor` profile that the program starts in, which must have been loaded. On a machine without `AppArmor` an error of kind
    /// [`Unsupported`](crate::ErrorKind::Unsupported) of the plan.
    #[must_use]
    #[doc(alias("aa-exec", "aa_change_onexec"))]
    pub fn apparmor_profile(mut self, profile: impl Into<String>) -> Self {
        self.privilege.apparmor_profile = Some(profile.into());
        self
    }

    /// The `SELinux` context that the program starts in. On a machine without `SELinux` an error of kind [`Unsupported`](crate::ErrorKind::Unsupported) of the plan.
    #[must_use]
    #[doc(alias("runcon", "setexeccon"))]
    pub fn selinux_label(mut self, label: impl Into<String>) -> Self {
        self.privilege.selinux_label = Some(label.into());
        self
    }
}

/// What it comes to on this machine.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    capabilities: Option<Sets>,
    /// Asked for, but not known to the kernel.
    pub(crate) left_out: CapabilitySet,
    /// Best effort: what is not there.
    pub(crate) skipped: Fallbacks,
    #[cfg(feature = "landlock")]
    rulesets: Vec<(String, i32)>,
    #[cfg(feature = "seccomp")]
    filters: Vec<crate::seccomp::Bound>,
}

/// The sets on the way: what setting up still takes is kept that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sets {
    first: Capabilities,
    last: Capabilities,
    /// How many the kernel knows.
    known: u8,
    /// Until after the filters, or only until the securebits are set.
    late: bool,
}

impl Sets {
    fn new(wanted: Capabilities, securebits: bool, filters_by_right: bool, known: u8) -> Self {
        let mut needed = CapabilitySet::EMPTY;
        if securebits {
            needed = needed | Capability::Setpcap.into();
        }
        if filters_by_right {
            needed = needed | Capability::SysAdmin.into();
        }
        let first =
            Capabilities { permitted: wanted.permitted | needed, effective: wanted.effective | needed, ..wanted };
        Sets { first, last: wanted, known, late: filters_by_right }
    }
}

#[cfg_attr(not(all(feature = "landlock", feature = "seccomp")), allow(clippy::unused_self, reason = "for features"))]
impl Privilege {
    /// `leaves_root`: whether its user changes from root to another, with which the capabilities are lost that are not asked for.
    pub(crate) fn bind(
        &self,
        names: &mut Names,
        highest: i32,
        allowed: Fallbacks,
        leaves_root: bool,
    ) -> Result<Bound, Error> {
        self.check()?;
        if leaves_root && self.capabilities.is_none() {
            self.check_without_capabilities()?;
        }
        let mut bound = Bound::default();
        if let Some(wanted) = self.capabilities {
            let (known, bits) = sys::known_capabilities()
                .map_err(|errno| Error::os(Step::Prepare, "prctl", errno).about("PR_CAPBSET_READ"))?;
            bound.left_out = wanted.asked() - bits;
            let by_right = !self.no_new_privs && self.filters();
            bound.capabilities = Some(Sets::new(wanted.masked(bits), self.securebits.is_some(), by_right, known));
        }
        #[cfg(feature = "landlock")]
        for name in &self.landlock {
            match names.number(name) {
                Ok(number) => bound.rulesets.push((name.clone(), number)),
                // Nothing to bind where there is no Landlock; anything else is a name that is wrong.
                Err(_) if allowed.contains(Fallbacks::LANDLOCK) && lacks_landlock() => {
                    bound.skipped |= Fallbacks::LANDLOCK;
                }
                Err(error) => return Err(error),
            }
        }
        #[cfg(feature = "seccomp")]
        {
            bound.filters = crate::seccomp::bind(&self.seccomp, highest)?;
        }
        let _ = (names, allowed, highest);
        Ok(bound)
    }

    fn check(&self) -> Result<(), Error> {
        if let Some(capabilities) = &self.capabilities {
            capabilities.check()?;
        }
        if self.securebits.is_some_and(|bits| !SecureBits::all().contains(bits)) {
            return Err(Error::config("securebits", "have a flag that is none"));
        }
        self.check_labels()
    }

    fn check_without_capabilities(&self) -> Result<(), Error> {
        if self.securebits.is_some() {
            let words = "of a program that is not root take capabilities that are said, or the right to set them is lost with the user";
            return Err(Error::config("securebits", words));
        }
        if self.filters() && !self.no_new_privs {
            let words = "of a program that is not root take no_new_privs, or capabilities that are said";
            return Err(Error::config("filters and rulesets", words));
        }
        Ok(())
    }

    /// Whether this is the name of a ruleset.
    pub(crate) fn has_ruleset(&self, name: &str) -> bool {
        #[cfg(feature = "landlock")]
        if self.landlock.iter().any(|one| one == name) {
            return true;
        }
        let _ = name;
        false
    }

    /// How many descriptors hand over the listener of a filter.
    pub(crate) fn reserved(&self) -> i32 {
        #[cfg(feature = "seccomp")]
        if self.seccomp.iter().any(crate::Seccomp::has_listener) {
            return crate::seccomp::RESERVED;
        }
        0
    }

    /// Whether something is installed that takes `CAP_SYS_ADMIN` or no new privileges.
    fn filters(&self) -> bool {
        #[cfg(feature = "landlock")]
        if !self.landlock.is_empty() {
            return true;
        }
        #[cfg(feature = "seccomp")]
        if !self.seccomp.is_empty() {
            return true;
        }
        false
    }

    /// After the last change of ids.
    pub(crate) fn keyring(&self, program: &mut Program, allowed: Fallbacks) {
        if self.new_session_keyring {
            let then = if allowed.contains(Fallbacks::SESSION_KEYRING) {
                Then::Or(Fallbacks::SESSION_KEYRING, [libc::ENOSYS; 2])
            } else {
                Then::Go
            };
            let join = [libc::KEYCTL_JOIN_SESSION_KEYRING.into(), 0_u64.into()];
            program.call_then(Step::Keyring, "", Sys::keyctl, join, then);
        }
    }
}

/// As `landlock_restrict_self(2)` would say it too.
#[cfg(feature = "landlock")]
fn lacks_landlock() -> bool {
    matches!(sys::landlock_abi(), Err(libc::ENOSYS | libc::EOPNOTSUPP))
}

impl Capabilities {
    fn masked(self, known: CapabilitySet) -> Self {
        Capabilities {
            effective: self.effective & known,
            permitted: self.permitted & known,
            inheritable: self.inheritable & known,
            bounding: self.bounding & known,
            ambient: self.ambient & known,
        }
    }
}

#[cfg_attr(not(all(feature = "landlock", feature = "seccomp")), allow(clippy::unused_self, reason = "for features"))]
impl Bound {
    /// The sets with which `execve(2)` is called, of who had these before.
    pub(crate) fn at_start(&self, before: Rights) -> Rights {
        self.capabilities.as_ref().map_or(before, |Sets { last, .. }| Rights {
            permitted: last.permitted.bits(),
            bounding: last.bounding.bits() & before.bounding,
            inheritable: last.inheritable.bits(),
            ..before
        })
    }

    /// Those of rulesets.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> {
        #[cfg(feature = "landlock")]
        return self.rulesets.iter().map(|(_, number)| *number);
        #[cfg(not(feature = "landlock"))]
        std::iter::empty()
    }

    /// Before the last change of ids, which takes the right to do it away.
    pub(crate) fn before_ids(&self, program: &mut Program, user_changes: bool) {
        let Some(sets) = &self.capabilities else { return };
        if user_changes {
            program.call(Step::BoundingSet, "", Sys::prctl, [libc::PR_SET_KEEPCAPS.into(), 1_u64.into()]);
        }
        for number in (0..sets.known).filter(|number| sets.last.bounding.bits() >> number & 1 == 0) {
            let name = Capability::ALL.get(usize::from(number)).map_or("", |one| one.name());
            program.call(Step::BoundingSet, name, Sys::prctl, [libc::PR_CAPBSET_DROP.into(), u64::from(number).into()]);
        }
    }

    /// After the last change of ids.
    pub(crate) fn after_ids(&self, program: &mut Program, privilege: &Privilege, user_changes: bool) {
        if let Some(sets) = &self.capabilities {
            set(program, &sets.first);
            let zero = Arg::Value(0);
            if user_changes {
                program.call(Step::Capabilities, "", Sys::prctl, [libc::PR_SET_KEEPCAPS.into(), zero]);
            }
            // Not only added to: what is not asked for is not there.
            let clear = [libc::PR_CAP_AMBIENT.into(), libc::PR_CAP_AMBIENT_CLEAR_ALL.into(), zero, zero, zero];
            program.call(Step::Capabilities, "ambient", Sys::prctl, clear);
            for one in sets.last.ambient {
                let number = u64::from(one.number()).into();
                let raise = [libc::PR_CAP_AMBIENT.into(), libc::PR_CAP_AMBIENT_RAISE.into(), number, zero, zero];
                program.call(Step::Capabilities, one.name(), Sys::prctl, raise);
            }
        }
        if let Some(bits) = privilege.securebits {
            program.call(Step::SecureBits, "", Sys::prctl, [libc::PR_SET_SECUREBITS.into(), bits.bits().into()]);
        }
        match &self.capabilities {
            Some(sets) if !sets.late && sets.first != sets.last => set(program, &sets.last),
            _ => {}
        }
    }

    /// When nothing is left to be opened but the program.
    pub(crate) fn restrict(&self, program: &mut Program, privilege: &Privilege, allowed: Fallbacks) {
        if privilege.no_new_privs {
            let (one, zero) = (Arg::Value(1), Arg::Value(0));
            program.call(Step::NoNewPrivs, "", Sys::prctl, [libc::PR_SET_NO_NEW_PRIVS.into(), one, zero, zero, zero]);
        }
        #[cfg(feature = "landlock")]
        crate::landlock::compile(program, &self.rulesets, allowed);
        let _ = allowed;
    }

    /// Whether the child may die of its filters before its program starts, which it does by these `calls`.
    pub(crate) fn may_kill(&self, calls: &[libc::c_long]) -> bool {
        #[cfg(feature = "seccomp")]
        {
            let late = self.capabilities.is_some_and(|sets| sets.late).then_some(libc::SYS_capset);
            let calls: Vec<_> = calls.iter().copied().chain(late).collect();
            crate::seccomp::may_kill(&self.filters, &calls)
        }
        #[cfg(not(feature = "seccomp"))]
        {
            let _ = calls;
            false
        }
    }

    /// When the descriptors are those of the program.
    pub(crate) fn prepare_listener(&self, program: &mut Program) {
        #[cfg(feature = "seccomp")]
        for filter in &self.filters {
            filter.prepare_listener(program);
        }
        let _ = program;
    }

    /// The very last: what follows is seen by the filters.
    pub(crate) fn seal(&self, program: &mut Program) {
        #[cfg(feature = "seccomp")]
        for filter in &self.filters {
            filter.compile(program);
        }
        match &self.capabilities {
            Some(sets) if sets.late && sets.first != sets.last => set(program, &sets.last),
            _ => {}
        }
    }
}

/// `capset(2)` of this process. Gains nothing, so that the dumpable flag of its memory stays.
fn set(program: &mut Program, sets: &Capabilities) {
    const VERSION_3: u64 = 0x2008_0522;
    let [effective, permitted, inheritable] =
        [sets.effective, sets.permitted, sets.inheritable].map(CapabilitySet::bits);
    let low = |bits: u64| bits & 0xffff_ffff;
    // A version and process 0, which is this one; then three 32-bit numbers of low bits, and three of high ones.
    let header = program.words([VERSION_3]);
    let data = program.words([
        low(effective) | low(permitted) << 32,
        low(inheritable) | effective >> 32 << 32,
        permitted >> 32 | inheritable >> 32 << 32,
    ]);
    program.call(Step::Capabilities, sets.permitted.to_string(), Sys::capset, [header.into(), data.into()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_kept_as_long_as_they_are_needed() {
        let wanted = Capabilities::only([Capability::Kill]);
        let (setpcap, admin) = (Capability::Setpcap.into(), CapabilitySet::from(Capability::SysAdmin));
        for (securebits, by_right, more) in [
            (false, false, CapabilitySet::EMPTY),
            (true, false, setpcap),
            (false, true, admin),
            (true, true, setpcap | admin),
        ] {
            let Sets { first, last, late, .. } = Sets::new(wanted, securebits, by_right, 41);
            assert_eq!((last, late), (wanted, by_right));
            assert_eq!(first.permitted - wanted.permitted, more);
            assert_eq!(first.effective - wanted.effective, more);
            assert_eq!((first.bounding, first.inheritable), (wanted.bounding, wanted.inheritable));
        }
    }
}
