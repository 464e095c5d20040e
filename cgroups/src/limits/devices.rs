//! Which device nodes may be used.

use std::fmt;

use bitflags::bitflags;

use crate::error::{Error, ErrorKind, Op, Result};
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
    /// Of this driver, or of all. The kernel's numbers have 12 bits.
    pub major: Option<u32>,
    /// This one, or all. The kernel's numbers have 20 bits.
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

    pub(crate) fn covers(&self, other: &Self) -> bool {
        let of = |wide: Option<u32>, narrow| wide.is_none() || wide == narrow;
        self.kind == other.kind && of(self.major, other.major) && of(self.minor, other.minor)
    }

    /// Whether there are devices that both mean.
    fn meets(&self, other: &Self) -> bool {
        let of = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && of(self.major, other.major) && of(self.minor, other.minor)
    }

    /// A number beyond those of devices stands for all of them on v1: its kernel has 4294967295 for `*`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.major.is_none_or(|major| major <= Device::MAX_MAJOR)
            && self.minor.is_none_or(|minor| minor <= Device::MAX_MINOR)
        {
            return Ok(());
        }
        Err(Error::invalid(self.to_string(), "devices", Device::BITS))
    }

    /// Whether both mean the same devices.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

impl fmt::Display for DeviceRule {
    /// As v1's files have it: `c 1:3 rw`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let letters = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
        let access: String =
            letters.iter().filter(|(one, _)| self.access.contains(*one)).map(|(_, letter)| letter).collect();
        write!(f, "{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// Which device nodes may be used: none but some, or all but some. Kernel documentation:
/// `admin-guide/cgroup-v1/devices.rst`; on v2 an eBPF program asks (`BPF_PROG_TYPE_CGROUP_DEVICE`), which takes
/// `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`, on the host; the last one in any case where rules are in force that are
/// to be replaced, and on v1. An ordinary user cannot have rules of devices, not in a delegated cgroup either.
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
    /// The exceptions. Several for the same devices are one with all of their accesses.
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
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if a rule takes a part out of a wider one before it, as `c 1:3` out of `c *:*`: there
    /// are no exceptions to exceptions. v1's kernel takes such a rule, and does nothing about it.
    /// [`ErrorKind::InvalidInput`]: a number that no device has.
    pub fn from_rules(rules: impl IntoIterator<Item = (bool, Option<DeviceRule>)>) -> Result<Self> {
        let mut devices = Devices::all();
        for (allow, rule) in rules {
            rule.iter().try_for_each(DeviceRule::check)?;
            match rule {
                None => devices = Devices { allow, exceptions: Vec::new() },
                Some(rule) if allow != devices.allow => devices.add(rule),
                // Back to what it is otherwise.
                Some(rule) => devices.remove(&rule)?,
            }
        }
        Ok(devices)
    }

    /// Before any use: the numbers can be set to anything.
    pub(crate) fn check(&self) -> Result<()> {
        self.exceptions.iter().try_for_each(DeviceRule::check)
    }

    fn add(&mut self, rule: DeviceRule) {
        match self.exceptions.iter_mut().find(|known| known.is_of(&rule)) {
            Some(known) => known.access |= rule.access,
            None => self.exceptions.push(rule),
        }
    }

    fn remove(&mut self, rule: &DeviceRule) -> Result<()> {
        let concerned = |known: &&mut DeviceRule| known.access.intersects(rule.access) && known.meets(rule);
        for known in self.exceptions.iter_mut().filter(concerned) {
            if !rule.covers(known) {
                return Err(Error::new(ErrorKind::Unsupported, Op::Check, "devices")
                    .with_value(rule.to_string())
                    .with_note(format!("it would take a part out of \"{known}\"")));
            }
            known.access -= rule.access;
        }
        self.exceptions.retain(|known| !known.access.is_empty());
        Ok(())
    }

    /// The exceptions, one for the same devices: so v1's kernel has them, in which who may read by one rule and write by
    /// another may do both at once.
    pub(crate) fn merged(&self) -> Vec<DeviceRule> {
        let mut merged = Devices { allow: self.allow, exceptions: Vec::with_capacity(self.exceptions.len()) };
        self.exceptions.iter().for_each(|rule| merged.add(*rule));
        merged.exceptions.retain(|rule| !rule.access.is_empty());
        merged.exceptions
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
        self.allow != self.merged().iter().any(applies)
    }
}
