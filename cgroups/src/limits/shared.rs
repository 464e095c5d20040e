//! Huge pages, RDMA, network: what needs no more than a few lines each.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits::Max;

/// The size of huge pages, as the kernel has it in file names: `64KB`, `2MB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct PageSize(u64);

const UNITS: [(&str, u32); 3] = [("GB", 30), ("MB", 20), ("KB", 10)];

impl PageSize {
    /// Pages of that many bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) unless it is a power of two, 1 KiB or more.
    pub fn new(bytes: u64) -> Result<Self> {
        if bytes.is_power_of_two() && bytes >= 1024 {
            Ok(PageSize(bytes))
        } else {
            Err(Error::invalid(bytes.to_string(), "page size", "a power of two from 1024 on is needed"))
        }
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS.iter().find(|(_, shift)| self.0 >> shift != 0).unwrap_or(&("KB", 10));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl FromStr for PageSize {
    type Err = Error;

    /// The kernel's form: `2MB`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(text, "page size", "the form is 2MB");
        let (digits, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| text.strip_suffix(unit).map(|digits| (digits, *shift)))
            .ok_or_else(bad)?;
        let number = crate::text::number(digits.as_bytes()).filter(|_| !digits.starts_with(char::is_whitespace));
        let bytes = number.and_then(|number| number.checked_mul(1 << shift)).ok_or_else(bad)?;
        // Only the kernel's own spelling of it names a file.
        Self::new(bytes).ok().filter(|size| size.to_string() == text).ok_or_else(bad)
    }
}

impl From<PageSize> for String {
    fn from(size: PageSize) -> String {
        size.to_string()
    }
}

impl TryFrom<String> for PageSize {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// What may be had of one RDMA device: a line of `rdma.max`. Kernel documentation: `admin-guide/cgroup-v2.rst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct RdmaLimits {
    /// Handles: `hca_handle`.
    pub handles: Option<Max<u64>>,
    /// Objects: `hca_object`.
    pub objects: Option<Max<u64>>,
}

impl RdmaLimits {
    /// That many handles and objects.
    #[must_use]
    pub fn new(handles: impl Into<Max<u64>>, objects: impl Into<Max<u64>>) -> Self {
        RdmaLimits { handles: Some(handles.into()), objects: Some(objects.into()) }
    }
}

/// How packets are marked that this cgroup's sockets send: v1's `net_cls` and `net_prio`. Kernel documentation:
/// `admin-guide/cgroup-v1/net_cls.rst`, `net_prio.rst`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct NetworkLimits {
    /// The class, `0xAAAABBBB` for `tc(8)`'s `AAAA:BBBB`: `net_cls.classid`.
    pub class: Option<u32>,
    /// The priority of packets, by the name of the interface: `net_prio.ifpriomap`.
    pub priorities: BTreeMap<String, u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_spelled_like_the_kernel() {
        for (bytes, text) in [(2 << 20, "2MB"), (1 << 30, "1GB"), (64 << 10, "64KB"), (16 << 30, "16GB"), (1024, "1KB")]
        {
            let size = PageSize::new(bytes).unwrap();
            assert_eq!(size.to_string(), text);
            assert_eq!(text.parse::<PageSize>().unwrap(), size);
        }
        for bad in ["", "MB", "2", "2048KB", "3MB", "2mb", "../2MB", " 2MB", "+2MB", "0KB", "99999999999999999999GB"] {
            assert!(bad.parse::<PageSize>().is_err(), "{bad:?}");
        }
        assert!(PageSize::new(0).is_err() && PageSize::new(3 << 20).is_err() && PageSize::new(512).is_err());
    }
}
