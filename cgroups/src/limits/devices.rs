//! Which device nodes may be used.

use bitflags::bitflags;

use crate::limits::Device;

bitflags! {
    /// What is done with a device node.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct Access: u32 {
        /// It is made, by `mknod(2)`.
        const MKNOD = 1;
        /// It is read from.
        const READ = 2;
        /// It is written to.
        const WRITE = 4;
    }
}

/// Which kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum DeviceKind {
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// Some devices, and what is done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct DeviceRule {
    /// Of this kind.
    pub kind: DeviceKind,
    /// Of this driver, or of all.
    pub major: Option<u32>,
    /// This one, or all.
    pub minor: Option<u32>,
    /// What is done.
    pub access: Access,
}

impl DeviceRule {
    /// One device.
    #[must_use]
    pub fn new(kind: DeviceKind, device: Device, access: Access) -> Self {
        DeviceRule { kind, major: Some(device.major), minor: Some(device.minor), access }
    }

    /// All devices of a kind, or of one of its drivers.
    #[must_use]
    pub fn all(kind: DeviceKind, major: Option<u32>, access: Access) -> Self {
        DeviceRule { kind, major, minor: None, access }
    }

    /// A character device, to be read and written.
    #[must_use]
    pub fn char(major: u32, minor: u32) -> Self {
        Self::new(DeviceKind::Char, Device::new(major, minor), Access::READ | Access::WRITE)
    }

    fn covers(&self, other: &Self) -> bool {
        let of = |wide: Option<u32>, narrow| wide.is_none() || wide == narrow;
        self.kind == other.kind && of(self.major, other.major) && of(self.minor, other.minor)
    }
}

/// Which device nodes may be used: none but some, or all but some. Kernel documentation:
/// `admin-guide/cgroup-v1/devices.rst`; on v2 an eBPF program asks (`BPF_PROG_TYPE_CGROUP_DEVICE`), which takes
/// `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`, on the host.
///
/// A device that is open already stays so. Cgroups below are held to this too.
///
/// ```
/// use cofferdam_cgroups::{DeviceRule, Devices, Limits};
///
/// let mut limits = Limits::new();
/// // /dev/null, zero, urandom, and nothing else.
/// limits.devices = Some(Devices::none().except([(1, 3), (1, 5), (1, 9)].map(|(a, b)| DeviceRule::char(a, b))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Devices {
    /// Whether what is no exception may be used.
    pub allow: bool,
    /// The exceptions.
    pub exceptions: Vec<DeviceRule>,
}

impl Devices {
    /// None may be used.
    #[must_use]
    pub fn none() -> Self {
        Devices { allow: false, exceptions: Vec::new() }
    }

    /// All may be used: the kernel's default.
    #[must_use]
    pub fn all() -> Self {
        Devices { allow: true, exceptions: Vec::new() }
    }

    /// Except these.
    #[must_use]
    pub fn except(mut self, rules: impl IntoIterator<Item = DeviceRule>) -> Self {
        self.exceptions.extend(rules);
        self
    }

    /// From a list in which a later rule takes precedence, as that of the OCI specification. No rule at all (`None`) is
    /// every device. It begins with all allowed.
    #[must_use]
    pub fn from_rules(rules: impl IntoIterator<Item = (bool, Option<DeviceRule>)>) -> Self {
        let mut devices = Devices::all();
        for (allow, rule) in rules {
            match rule {
                None => devices = Devices { allow, exceptions: Vec::new() },
                Some(rule) if allow != devices.allow => devices.exceptions.push(rule),
                // Back to what it is otherwise.
                Some(rule) => {
                    for known in devices.exceptions.iter_mut().filter(|known| rule.covers(known)) {
                        known.access -= rule.access;
                    }
                    devices.exceptions.retain(|known| !known.access.is_empty());
                }
            }
        }
        devices
    }

    /// Whether a request is granted. What this is in v2's program, and in v1's kernel, is tested against this.
    #[must_use]
    pub fn grants(&self, kind: DeviceKind, device: Device, access: Access) -> bool {
        let one = DeviceRule::new(kind, device, access);
        // An exception that allows must allow all that is asked for; one that denies, any of it.
        let applies = |rule: &DeviceRule| {
            let concerned = if self.allow { rule.access.intersects(access) } else { rule.access.contains(access) };
            concerned && rule.covers(&one)
        };
        self.allow != self.exceptions.iter().any(applies)
    }
}
