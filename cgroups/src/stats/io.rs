//! Block devices.

use std::collections::BTreeMap;

use crate::limits::Device;
use crate::policy::io::devices;
use crate::stats::{Other, Stats};
use crate::text::{first_word, number, pairs};

/// What was read from and written to block devices, by the cgroup and everything below it: `io.stat` (v2),
/// `blkio.throttle.io_service_bytes_recursive` and `io_serviced_recursive` (v1, which on some kernels counts only what there is
/// a limit for).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct IoStats {
    /// By device. One that was not used yet is not here.
    pub devices: BTreeMap<Device, IoDeviceStats>,
}

/// What was read from and written to one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct IoDeviceStats {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes discarded.
    pub discarded_bytes: u64,
    /// How often something was read.
    pub reads: u64,
    /// How often something was written.
    pub writes: u64,
    /// How often something was discarded.
    pub discards: u64,
    /// What this crate does not know, for example `cost.usage` (v2).
    pub other: Other,
}

impl IoStats {
    /// All devices together.
    #[must_use]
    pub fn total(&self) -> IoDeviceStats {
        self.devices.values().fold(IoDeviceStats::default(), |sum, one| IoDeviceStats {
            read_bytes: sum.read_bytes.saturating_add(one.read_bytes),
            written_bytes: sum.written_bytes.saturating_add(one.written_bytes),
            discarded_bytes: sum.discarded_bytes.saturating_add(one.discarded_bytes),
            reads: sum.reads.saturating_add(one.reads),
            writes: sum.writes.saturating_add(one.writes),
            discards: sum.discards.saturating_add(one.discards),
            other: Other::default(),
        })
    }
}

pub(super) fn v2_stat(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let io = stats.io.get_or_insert_default();
    for (device, values) in devices(text) {
        let one = io.devices.entry(device).or_default();
        for (key, value) in pairs(values) {
            let Some(value) = number(value) else { continue };
            match key {
                b"rbytes" => one.read_bytes = value,
                b"wbytes" => one.written_bytes = value,
                b"dbytes" => one.discarded_bytes = value,
                b"rios" => one.reads = value,
                b"wios" => one.writes = value,
                b"dios" => one.discards = value,
                key => one.other.set(key, value),
            }
        }
    }
    Some(())
}

/// v1's lines `MAJOR:MINOR Read N`. Sync, Async and Total are other sums of the same.
fn v1(stats: &mut Stats, text: &[u8], mut set: impl FnMut(&mut IoDeviceStats, &[u8], u64)) -> Option<()> {
    let io = stats.io.get_or_insert_default();
    for (device, rest) in devices(text) {
        if let Some((what, value)) = first_word(rest) {
            set(io.devices.entry(device).or_default(), what, number(value)?);
        }
    }
    Some(())
}

pub(super) fn v1_bytes(stats: &mut Stats, text: &[u8]) -> Option<()> {
    v1(stats, text, |one, what, value| match what {
        b"Read" => one.read_bytes = value,
        b"Write" => one.written_bytes = value,
        b"Discard" => one.discarded_bytes = value,
        _ => {}
    })
}

pub(super) fn v1_operations(stats: &mut Stats, text: &[u8]) -> Option<()> {
    v1(stats, text, |one, what, value| match what {
        b"Read" => one.reads = value,
        b"Write" => one.writes = value,
        b"Discard" => one.discards = value,
        _ => {}
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_versions_tell_the_same() {
        let mut v2 = Stats::default();
        v2_stat(&mut v2, b"8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=30 dios=3\n259:1 rbytes=5\n").unwrap();
        let mut v1 = Stats::default();
        let bytes = b"8:0 Read 10\n8:0 Write 20\n8:0 Sync 1\n8:0 Async 29\n8:0 Discard 30\n8:0 Total 60\n259:1 Read 5\nTotal 65\n";
        v1_bytes(&mut v1, bytes).unwrap();
        v1_operations(&mut v1, b"8:0 Read 1\n8:0 Write 2\n8:0 Discard 3\n8:0 Total 6\nTotal 6\n").unwrap();
        assert_eq!(v1, v2);
        let total = v2.io.unwrap().total();
        assert_eq!((total.read_bytes, total.writes), (15, 2));
    }

    #[test]
    fn what_io_cost_adds_is_kept() {
        let mut stats = Stats::default();
        v2_stat(&mut stats, b"8:16 rbytes=1 cost.vrate=100.00 cost.usage=42\n8:32 \n").unwrap();
        let io = stats.io.unwrap();
        assert_eq!(io.devices[&Device::new(8, 16)].other.get("cost.usage"), Some(42));
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let mut stats = Stats::default();
            let _ = (v2_stat(&mut stats, &a), v1_bytes(&mut stats, &a), v1_operations(&mut stats, &a));
            let _ = stats.io.unwrap_or_default().total();
        }
    }
}
