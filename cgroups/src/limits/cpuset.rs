//! Which CPUs and memory nodes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The CPUs and memory nodes of a cgroup: `cpuset.cpus`, `cpuset.mems`. Kernel documentation:
/// `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/cpusets.rst`.
///
/// A process that set its own affinity keeps it as far as the new CPUs allow; one that did not may run on all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CpusetLimits {
    /// The CPUs. An empty list is those of the cgroup above on v2; v1 refuses it.
    pub cpus: Option<IdList>,
    /// The memory nodes. An empty list as with CPUs.
    pub mems: Option<IdList>,
    /// Whether the CPUs are taken away from everybody else: `cpuset.cpus.partition`. v2 only. The kernel takes the word also
    /// where it cannot be so, and says why it has no effect: that is [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported)
    /// with the kernel's reason, and the old one stays. One that has lost its effect later is read back as a member.
    pub partition: Option<Partition>,
}

/// What `cpuset.cpus.partition` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Partition {
    /// Shared as usual.
    Member,
    /// The CPUs are this cgroup's and those below it.
    Root,
    /// The same, and the scheduler does not balance between them. Since Linux 6.0.
    Isolated,
}

impl Partition {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Partition::Member => "member",
            Partition::Root => "root",
            Partition::Isolated => "isolated",
        }
    }

    /// What is not valid at the moment, as `root invalid (…)`, is no more than a member.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let mut words = crate::text::words(text);
        match words.next()? {
            b"member" => Some(Partition::Member),
            b"root" | b"isolated" if words.next() == Some(b"invalid") => Some(Partition::Member),
            b"root" => Some(Partition::Root),
            b"isolated" => Some(Partition::Isolated),
            _ => None,
        }
    }
}

/// A set of CPUs or memory nodes, in the kernel's form `0-3,8`: ascending ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct IdList(Vec<(u32, u32)>);

/// More than any kernel has; a list is never expanded beyond it.
const MOST: u32 = 65_535;

impl IdList {
    /// The set of these numbers.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) above 65535.
    pub fn new(ids: impl IntoIterator<Item = u32>) -> Result<Self> {
        Self::of(ids.into_iter().map(|id| (id, id)).collect())
    }

    fn of(mut ranges: Vec<(u32, u32)>) -> Result<Self> {
        if let Some((first, last)) = ranges.iter().find(|(first, last)| first > last || *last > MOST) {
            let note = "a range is FIRST-LAST, up to 65535";
            return Err(Error::invalid(format!("{first}-{last}"), "list of CPUs or nodes", note));
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ok(IdList(merged))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|(first, last)| (last - first) as usize + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&id))
    }

    /// Each of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl fmt::Display for IdList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for IdList {
    type Err = Error;

    /// The kernel's form: `0-3,8`. Empty text is the empty set.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(text, "list of CPUs or nodes", "the form is 0-3,8");
        let number = |text: &str| -> Result<u32> {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or_else(bad)
        };
        let parts = text.trim().split(',').filter(|_| !text.trim().is_empty());
        let ranges = parts.map(|part| match part.split_once('-') {
            Some((first, last)) => Ok((number(first)?, number(last)?)),
            None => number(part).map(|id| (id, id)),
        });
        Self::of(ranges.collect::<Result<_>>()?)
    }
}

impl From<IdList> for String {
    fn from(list: IdList) -> String {
        list.to_string()
    }
}

impl TryFrom<String> for IdList {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn forms() {
        for (text, normal, len) in
            [("", "", 0), ("0", "0", 1), ("0-3,8\n", "0-3,8", 5), ("8,1,0,2", "0-2,8", 4), ("0-1,2-3", "0-3", 4)]
        {
            let list: IdList = text.parse().unwrap();
            assert_eq!((list.to_string().as_str(), list.len(), list.is_empty()), (normal, len, len == 0));
        }
        for bad in ["-", "3-1", "a", "0-", ",", "0,,1", "+1", "0x1", "65536", "0-4294967295", "1 2"] {
            assert!(bad.parse::<IdList>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn partitions_of_any_state() {
        assert_eq!(Partition::parse(b"root\n"), Some(Partition::Root));
        for invalid in [&b"root invalid (Cpu list in cpuset.cpus not exclusive)\n"[..], b"isolated invalid\n"] {
            assert_eq!(Partition::parse(invalid), Some(Partition::Member));
        }
        for one in [Partition::Member, Partition::Root, Partition::Isolated] {
            assert_eq!(Partition::parse(one.text().as_bytes()), Some(one));
        }
        assert_eq!(Partition::parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_set_comes_back(ids in prop::collection::btree_set(0u32..=MOST, 0..40)) {
            let list = IdList::new(ids.iter().copied()).unwrap();
            prop_assert_eq!(list.iter().collect::<BTreeSet<_>>(), ids);
            prop_assert_eq!(list.to_string().parse::<IdList>().unwrap(), list);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<IdList>();
        }
    }
}
