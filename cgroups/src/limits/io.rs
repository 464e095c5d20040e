//! Limits of block devices.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::Max;

/// Limits of reading from and writing to block devices: `io.*` (v2), `blkio.*` (v1). Kernel documentation:
/// `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/blkio-controller.rst`, `block/bfq-iosched.rst`.
///
/// On v1 writes through the page cache are not held to a limit: they happen in the kernel's own threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct IoLimits {
    /// The share of a busy device, relative to the cgroup's siblings. The kernel's default is 100. It takes a
    /// scheduler that knows weights: BFQ (`io.bfq.weight`, `blkio.bfq.weight`), or v2's `io.cost` (`io.weight`).
    pub weight: Option<IoWeight>,
    /// Limits by device. Devices that are not named are left alone.
    pub devices: BTreeMap<Device, IoDeviceLimits>,
}

/// The limits of one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct IoDeviceLimits {
    /// Bytes read in a second: `io.max` (v2), `blkio.throttle.read_bps_device` (v1). 0 is not a limit that the kernel
    /// takes, nor is 1 on v2.
    pub read_bytes: Option<Max<u64>>,
    /// Bytes written in a second.
    pub write_bytes: Option<Max<u64>>,
    /// Read operations in a second.
    pub read_operations: Option<Max<u64>>,
    /// Write operations in a second.
    pub write_operations: Option<Max<u64>>,
    /// The weight with this device, instead of [`IoLimits::weight`].
    pub weight: Option<IoWeight>,
    /// The latency that others are slowed down for, in whole microseconds: `io.latency`. v2 only.
    pub latency: Option<Duration>,
}

impl IoDeviceLimits {
    /// Leaves everything alone.
    #[must_use]
    pub fn new() -> Self {
        IoDeviceLimits::default()
    }

    /// Sets [`read_bytes`](Self::read_bytes), in a second.
    #[must_use]
    pub fn read_bytes(mut self, limit: impl Into<Max<u64>>) -> Self {
        self.read_bytes = Some(limit.into());
        self
    }

    /// Sets [`write_bytes`](Self::write_bytes), in a second.
    #[must_use]
    pub fn write_bytes(mut self, limit: impl Into<Max<u64>>) -> Self {
        self.write_bytes = Some(limit.into());
        self
    }

    /// Sets [`read_operations`](Self::read_operations), in a second.
    #[must_use]
    pub fn read_operations(mut self, limit: impl Into<Max<u64>>) -> Self {
        self.read_operations = Some(limit.into());
        self
    }

    /// Sets [`write_operations`](Self::write_operations), in a second.
    #[must_use]
    pub fn write_operations(mut self, limit: impl Into<Max<u64>>) -> Self {
        self.write_operations = Some(limit.into());
        self
    }
}

/// A block or character device by its numbers, `MAJOR:MINOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

impl Device {
    /// What the kernel has bits for: `MINORBITS`.
    pub(crate) const MAX_MAJOR: u32 = (1 << 12) - 1;
    pub(crate) const MAX_MINOR: u32 = (1 << 20) - 1;
    pub(crate) const BITS: &str = "a major has 12 bits, and a minor 20";

    /// The device with these numbers. Where it is used, they must be ones that the kernel can have: a major of 12 bits, and
    /// a minor of 20.
    #[must_use]
    pub fn new(major: u32, minor: u32) -> Self {
        Device { major, minor }
    }

    /// From `st_rdev` of `stat(2)`.
    #[must_use]
    pub fn from_rdev(rdev: u64) -> Self {
        Device { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) }
    }

    /// Before any use: the kernel cuts off what it has no bits for, and so takes 4104:0 for 8:0.
    pub(crate) fn check(self, setting: &str) -> Result<()> {
        if self.major <= Self::MAX_MAJOR && self.minor <= Self::MAX_MINOR {
            return Ok(());
        }
        Err(Error::invalid(self.to_string(), setting, Self::BITS))
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let mut number = || u32::try_from(crate::text::number(parts.next()?)?).ok();
        Some(Device { major: number()?, minor: number()? })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `MAJOR:MINOR`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    fn from_str(text: &str) -> Result<Self> {
        Device::parse(text.as_bytes()).ok_or_else(|| Error::invalid(text, "device", "the form is MAJOR:MINOR"))
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// The share of a busy device relative to the cgroup's siblings: v2's `io.weight`, 1 to 10000. For BFQ, whose weights
/// end at 1000, it is converted such that both ends and the default of 100 meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "u32", try_from = "u32"))]
pub struct IoWeight(u16);

impl IoWeight {
    /// The kernel's default: 100.
    pub const DEFAULT: IoWeight = IoWeight(100);

    /// A weight.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) outside of 1 to 10000.
    pub fn new(weight: u32) -> Result<Self> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=10_000) => Ok(IoWeight(weight)),
            _ => Err(Error::invalid(weight.to_string(), "io weight", "the kernel takes 1 to 10000")),
        }
    }

    /// The weight.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }

    /// From a weight of the old CFQ scheduler, 10 to 1000, which the OCI specification has kept: in a line from the
    /// least to the greatest, as runc and crun do. What is outside counts as the nearest end.
    #[must_use]
    pub fn from_blkio(weight: u64) -> Self {
        let above = u32::try_from(weight.clamp(10, 1000) - 10).unwrap_or(990);
        IoWeight(u16::try_from(1 + above * 9999 / 990).unwrap_or(10_000))
    }

    /// As a weight of CFQ: the least whose weight is not less. [`from_blkio`](Self::from_blkio) of a weight of CFQ leads back to
    /// it.
    #[must_use]
    pub fn blkio(self) -> u64 {
        10 + ((u64::from(self.0) - 1) * 990).div_ceil(9999)
    }

    /// As a weight of BFQ, 1 to 1000.
    #[must_use]
    pub fn bfq(self) -> u64 {
        match u64::from(self.0) {
            low @ ..=100 => low,
            high => 100 + (high - 100) * 900 / 9900,
        }
    }

    /// From a weight of BFQ. [`bfq`](Self::bfq) leads back to the same.
    #[must_use]
    pub fn from_bfq(weight: u64) -> Self {
        let weight = u16::try_from(weight.clamp(1, 1000)).unwrap_or(1000);
        IoWeight(if weight <= 100 { weight } else { 100 + (weight - 100) * 11 })
    }
}

impl From<IoWeight> for u32 {
    fn from(weight: IoWeight) -> u32 {
        weight.get()
    }
}

impl TryFrom<u32> for IoWeight {
    type Error = Error;

    fn try_from(weight: u32) -> Result<Self> {
        IoWeight::new(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_defaults_of_the_weights_meet() {
        for (blkio, weight) in [(0, 1), (10, 1), (1000, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(IoWeight::from_blkio(blkio).get(), weight);
        }
        for (bfq, weight) in [(1, 1), (100, 100), (1000, 10_000)] {
            assert_eq!(IoWeight::from_bfq(bfq).get(), weight);
            assert_eq!(IoWeight::new(weight).unwrap().bfq(), bfq);
        }
        for bad in [0, 10_001, 65_537] {
            assert!(IoWeight::new(bad).is_err());
        }
    }

    #[test]
    fn every_weight_converts_and_the_order_stays() {
        let (mut last_bfq, mut last_blkio) = (1, 10);
        for weight in 1..=10_000 {
            let weight = IoWeight::new(weight).unwrap();
            let (bfq, blkio) = (weight.bfq(), weight.blkio());
            assert!((last_bfq..=1000).contains(&bfq) && (last_blkio..=1000).contains(&blkio));
            (last_bfq, last_blkio) = (bfq, blkio);
            assert!(IoWeight::from_bfq(bfq) <= weight && IoWeight::from_blkio(blkio) >= weight);
        }
        for bfq in 1..=1000 {
            assert_eq!(IoWeight::from_bfq(bfq).bfq(), bfq);
        }
        let mut last = IoWeight(1);
        for blkio in 10..=1000u64 {
            let weight = IoWeight::from_blkio(blkio);
            assert!(weight >= last);
            assert_eq!(u64::from(weight.get()), 1 + (blkio - 10) * 9999 / 990);
            assert_eq!(weight.blkio(), blkio);
            last = weight;
        }
    }

    #[test]
    fn devices() {
        assert_eq!("8:16".parse::<Device>().unwrap(), Device::new(8, 16));
        for bad in ["", "8", "8:", ":1", "8:1:1", "8:-1", "4294967296:0", "a:b"] {
            assert!(bad.parse::<Device>().is_err(), "{bad:?}");
        }
    }
}
