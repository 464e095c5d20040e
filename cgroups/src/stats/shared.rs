//! Huge pages, RDMA, other resources.

use std::collections::BTreeMap;

use crate::limits::PageSize;
use crate::stats::Stats;
use crate::text::{field, first_word, number, pairs};

/// The huge pages of one size, in bytes: `hugetlb.SIZE.*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HugetlbStats {
    /// In use.
    pub current: u64,
    /// Reserved. `None` before Linux 5.7.
    pub reserved: Option<u64>,
    /// The most that was in use. v1 only.
    pub peak: Option<u64>,
    /// How often the limit was hit.
    pub events_max: Option<u64>,
}

/// What is in use of one RDMA device: a line of `rdma.current`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct RdmaStats {
    /// Handles.
    pub handles: u64,
    /// Objects.
    pub objects: u64,
}

/// What is in use of one of the other resources: `misc.current`, `misc.events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MiscStats {
    /// In use.
    pub current: u64,
    /// How often the limit was hit. `None` before Linux 5.16.
    pub events_max: Option<u64>,
}

/// The entry of a name, allocated only when it is new.
fn named<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &[u8]) -> Option<&'a mut T> {
    let name = std::str::from_utf8(name).ok()?;
    if !map.contains_key(name) {
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name)
}

pub(super) fn pages(stats: &mut Stats, text: &[u8], size: PageSize) -> Option<()> {
    stats.hugetlb.entry(size).or_default().current = number(text)?;
    Some(())
}

pub(super) fn reserved(stats: &mut Stats, text: &[u8], size: PageSize) -> Option<()> {
    stats.hugetlb.entry(size).or_default().reserved = number(text);
    Some(())
}

pub(super) fn v1_peak(stats: &mut Stats, text: &[u8], size: PageSize) -> Option<()> {
    stats.hugetlb.entry(size).or_default().peak = number(text);
    Some(())
}

/// v1's is a number, v2's the line `max N`.
pub(super) fn failures(stats: &mut Stats, text: &[u8], size: PageSize) -> Option<()> {
    stats.hugetlb.entry(size).or_default().events_max = number(text).or_else(|| field(text, "max"));
    Some(())
}

pub(super) fn rdma(stats: &mut Stats, text: &[u8]) -> Option<()> {
    for (device, values) in text.split(|byte| *byte == b'\n').filter_map(first_word) {
        let one = named(&mut stats.rdma, device)?;
        for (key, value) in pairs(values) {
            match key {
                b"hca_handle" => one.handles = number(value)?,
                b"hca_object" => one.objects = number(value)?,
                _ => {}
            }
        }
    }
    Some(())
}

pub(super) fn misc(stats: &mut Stats, text: &[u8]) -> Option<()> {
    for (name, value) in text.split(|byte| *byte == b'\n').filter_map(first_word) {
        named(&mut stats.misc, name)?.current = number(value)?;
    }
    Some(())
}

/// Lines `NAME.max N`.
pub(super) fn misc_events(stats: &mut Stats, text: &[u8]) -> Option<()> {
    for (name, value) in text.split(|byte| *byte == b'\n').filter_map(first_word) {
        if let Some(name) = name.strip_suffix(b".max") {
            named(&mut stats.misc, name)?.events_max = number(value);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_of_it() {
        let mut stats = Stats::default();
        let size: PageSize = "2MB".parse().unwrap();
        pages(&mut stats, b"2097152\n", size).and(reserved(&mut stats, b"0\n", size)).unwrap();
        v1_peak(&mut stats, b"4194304\n", size).and(failures(&mut stats, b"max 3\n", size)).unwrap();
        let expected = HugetlbStats { current: 2 << 20, reserved: Some(0), peak: Some(4 << 20), events_max: Some(3) };
        assert_eq!(stats.hugetlb[&size], expected);
        rdma(&mut stats, b"mlx4_0 hca_handle=2 hca_object=20\n").unwrap();
        assert_eq!(stats.rdma["mlx4_0"], RdmaStats { handles: 2, objects: 20 });
        misc(&mut stats, b"res_a 3\nres_b 0\n").and(misc_events(&mut stats, b"res_a.max 7\n")).unwrap();
        assert_eq!(stats.misc["res_a"], MiscStats { current: 3, events_max: Some(7) });
        assert_eq!(stats.misc["res_b"].events_max, None);
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let mut stats = Stats::default();
            let _ = (rdma(&mut stats, &a), misc(&mut stats, &a), misc_events(&mut stats, &a));
        }
    }
}
