//! Capabilities by name, and sets of them.

use std::fmt;
use std::ops::{BitAnd, BitOr, Sub};
use std::str::FromStr;

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// A part of root's power, see `capabilities(7)`.
        ///
        /// Displayed, parsed and written by feature `serde` as the manual has it, `CAP_NET_BIND_SERVICE`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Capability {
            $($(#[$doc])* #[doc(alias = $text)] $name,)*
        }

        impl Capability {
            /// All that this crate knows, in the kernel's order. The running kernel may know fewer.
            pub const ALL: &'static [Capability] = &[$(Capability::$name,)*];

            /// The name as in the manual.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Capability::$name => $text,)* }
            }
        }
    };
}

capabilities! {
    /// Changing who owns a file.
    Chown "CAP_CHOWN",
    /// Reading, writing and executing files whatever their permissions.
    DacOverride "CAP_DAC_OVERRIDE",
    /// Reading files and folders whatever their permissions, and opening them by handle: with it a mount is no boundary.
    DacReadSearch "CAP_DAC_READ_SEARCH",
    /// What only a file's owner may do to it.
    Fowner "CAP_FOWNER",
    /// Keeping set-user-id and set-group-id bits.
    Fsetid "CAP_FSETID",
    /// Signals to anybody's processes.
    Kill "CAP_KILL",
    /// Any group, and supplementary groups.
    Setgid "CAP_SETGID",
    /// Any user.
    Setuid "CAP_SETUID",
    /// Dropping from the bounding set, adding to the inheritable one, securebits.
    Setpcap "CAP_SETPCAP",
    /// Immutable and append-only flags of files.
    LinuxImmutable "CAP_LINUX_IMMUTABLE",
    /// Ports below 1024.
    NetBindService "CAP_NET_BIND_SERVICE",
    /// Broadcasts and multicasts.
    NetBroadcast "CAP_NET_BROADCAST",
    /// Interfaces, addresses, routes, firewall.
    NetAdmin "CAP_NET_ADMIN",
    /// Raw and packet sockets.
    NetRaw "CAP_NET_RAW",
    /// Locking memory.
    IpcLock "CAP_IPC_LOCK",
    /// Anybody's System V objects.
    IpcOwner "CAP_IPC_OWNER",
    /// Loading code into the kernel.
    SysModule "CAP_SYS_MODULE",
    /// Ports, memory and disks by hand.
    SysRawio "CAP_SYS_RAWIO",
    /// Changing the root, joining mount namespaces.
    SysChroot "CAP_SYS_CHROOT",
    /// Tracing anybody's processes.
    SysPtrace "CAP_SYS_PTRACE",
    /// Process accounting.
    SysPacct "CAP_SYS_PACCT",
    /// Mounting, and most of what has no capability of its own.
    SysAdmin "CAP_SYS_ADMIN",
    /// Rebooting, `kexec_load(2)`.
    SysBoot "CAP_SYS_BOOT",
    /// Priorities, real-time scheduling, processors of anybody.
    SysNice "CAP_SYS_NICE",
    /// Raising limits.
    SysResource "CAP_SYS_RESOURCE",
    /// Setting the clock.
    SysTime "CAP_SYS_TIME",
    /// Configuring terminals, `vhangup(2)`.
    SysTtyConfig "CAP_SYS_TTY_CONFIG",
    /// Making devices.
    Mknod "CAP_MKNOD",
    /// Leases on files.
    Lease "CAP_LEASE",
    /// Writing to the kernel's audit log.
    AuditWrite "CAP_AUDIT_WRITE",
    /// Configuring the audit log.
    AuditControl "CAP_AUDIT_CONTROL",
    /// Giving capabilities to files.
    Setfcap "CAP_SETFCAP",
    /// Overriding mandatory access control.
    MacOverride "CAP_MAC_OVERRIDE",
    /// Configuring mandatory access control.
    MacAdmin "CAP_MAC_ADMIN",
    /// The kernel's log.
    Syslog "CAP_SYSLOG",
    /// Timers that wake the machine.
    WakeAlarm "CAP_WAKE_ALARM",
    /// Keeping the machine awake.
    BlockSuspend "CAP_BLOCK_SUSPEND",
    /// Reading the audit log.
    AuditRead "CAP_AUDIT_READ",
    /// Watching performance. Linux 5.8.
    Perfmon "CAP_PERFMON",
    /// `bpf(2)`. Linux 5.8.
    Bpf "CAP_BPF",
    /// Checkpoints of processes. Linux 5.9.
    CheckpointRestore "CAP_CHECKPOINT_RESTORE",
}

impl Capability {
    /// As the kernel numbers it.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`Capability::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no capability")]
pub struct UnknownCapability(String);

/// In the manual's spelling, with or without `CAP_`, in capitals or not.
impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        let is = |known: &&Capability| {
            let full = known.name();
            full.eq_ignore_ascii_case(name) || full.strip_prefix("CAP_").is_some_and(|s| s.eq_ignore_ascii_case(name))
        };
        Capability::ALL.iter().find(is).copied().ok_or_else(|| UnknownCapability(name.to_owned()))
    }
}

/// Some capabilities.
///
/// ```
/// # use cofferdam_namespaces::{Capability, CapabilitySet};
/// let set = CapabilitySet::from([Capability::Kill, Capability::Chown]);
/// assert_eq!(set.to_string(), "CAP_CHOWN,CAP_KILL");
/// assert!((set - Capability::Kill.into()).contains(Capability::Chown));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// None.
    pub const EMPTY: CapabilitySet = CapabilitySet(0);

    /// All that this crate knows.
    #[must_use]
    pub fn all() -> Self {
        Capability::ALL.iter().copied().collect()
    }

    /// Whether it is among them.
    #[must_use]
    pub fn contains(self, capability: Capability) -> bool {
        self.0 >> capability.number() & 1 == 1
    }

    /// Whether all of the others are among them.
    #[must_use]
    pub fn is_superset(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, in the kernel's order.
    #[must_use]
    pub fn iter(self) -> CapabilityIter {
        CapabilityIter(self.0)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl From<Capability> for CapabilitySet {
    fn from(one: Capability) -> Self {
        CapabilitySet(1 << one.number())
    }
}

impl<const N: usize> From<[Capability; N]> for CapabilitySet {
    fn from(all: [Capability; N]) -> Self {
        all.into_iter().collect()
    }
}

/// Each of a [`CapabilitySet`], in the kernel's order.
#[derive(Debug, Clone)]
pub struct CapabilityIter(u64);

impl Iterator for CapabilityIter {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let next = Capability::ALL.get(self.0.trailing_zeros() as usize).copied()?;
        self.0 &= self.0 - 1;
        Some(next)
    }
}

impl IntoIterator for CapabilitySet {
    type Item = Capability;
    type IntoIter = CapabilityIter;

    fn into_iter(self) -> CapabilityIter {
        self.iter()
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        all.into_iter().fold(Self::EMPTY, |set, one| set | one.into())
    }
}

impl BitOr for CapabilitySet {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        CapabilitySet(self.0 | others.0)
    }
}

impl BitAnd for CapabilitySet {
    type Output = Self;

    fn bitand(self, others: Self) -> Self {
        CapabilitySet(self.0 & others.0)
    }
}

/// Those that are not among the others.
impl Sub for CapabilitySet {
    type Output = Self;

    fn sub(self, others: Self) -> Self {
        CapabilitySet(self.0 & !others.0)
    }
}

/// Their names, with commas.
impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.iter().enumerate() {
            write!(f, "{}{one}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_as_they_are_printed() {
        for (at, one) in Capability::ALL.iter().enumerate() {
            assert_eq!(usize::from(one.number()), at);
            assert_eq!(one.to_string().parse(), Ok(*one));
            assert_eq!(one.name()[4..].to_ascii_lowercase().parse(), Ok(*one));
        }
        for wrong in ["", "CAP_", "CAP_NOTHING", "CAP_CHOWN ", "CAP_CAP_CHOWN"] {
            assert!(wrong.parse::<Capability>().is_err(), "{wrong:?}");
        }
        assert_eq!(Capability::Chown.number(), 0);
        assert_eq!(Capability::SysAdmin.number(), 21);
        assert_eq!(Capability::CheckpointRestore.number(), 40);
    }

    #[test]
    fn sets_are_sets() {
        let (a, b) = (CapabilitySet::from_iter([Capability::Chown, Capability::Bpf]), Capability::Bpf.into());
        assert_eq!((a & b, a - b, (a - b) | b), (b, Capability::Chown.into(), a));
        assert!(a.is_superset(b) && !b.is_superset(a) && a.is_superset(CapabilitySet::EMPTY));
        assert_eq!(a.into_iter().collect::<Vec<_>>(), [Capability::Chown, Capability::Bpf]);
        assert_eq!(a.iter().collect::<CapabilitySet>(), a);
        assert_eq!(CapabilitySet::all().into_iter().collect::<Vec<_>>(), Capability::ALL);
        assert_eq!(CapabilitySet::EMPTY.iter().count(), 0);
        assert_eq!(CapabilitySet::EMPTY.to_string(), "");
    }
}
