//! Pressure stall information: `accounting/psi.rst`.

use std::time::Duration;

use crate::stats::Stats;
use crate::text::{first_word, micros, pairs};

/// How much time is lost by waiting for a resource: `cpu.pressure`, `memory.pressure`, `io.pressure`. Wherever there
/// is a unified tree, unless the kernel was started without (`psi=0`) or the cgroup's `cgroup.pressure` is 0.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Pressure {
    /// At least one waits.
    pub some: Stall,
    /// All wait, so that nothing gets done. `None` before Linux 5.13 for CPUs.
    pub full: Option<Stall>,
}

/// How much time is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stall {
    /// In percent of the last 10 seconds.
    pub average_10: f32,
    /// In percent of the last minute.
    pub average_60: f32,
    /// In percent of the last 5 minutes.
    pub average_300: f32,
    /// Since the cgroup was made.
    pub total: Duration,
}

fn stall(values: &[u8]) -> Option<Stall> {
    let mut stall = Stall::default();
    for (key, value) in pairs(values) {
        let percent = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            b"avg10" => stall.average_10 = percent()?,
            b"avg60" => stall.average_60 = percent()?,
            b"avg300" => stall.average_300 = percent()?,
            b"total" => stall.total = micros(value)?,
            _ => {}
        }
    }
    Some(stall)
}

pub(super) fn parse(text: &[u8]) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for (kind, values) in text.split(|byte| *byte == b'\n').filter_map(first_word) {
        match kind {
            b"some" => pressure.some = stall(values)?,
            b"full" => pressure.full = Some(stall(values)?),
            _ => {}
        }
    }
    Some(pressure)
}

pub(super) fn cpu(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.cpu_pressure = Some(parse(text)?);
    Some(())
}

pub(super) fn memory(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.memory_pressure = Some(parse(text)?);
    Some(())
}

pub(super) fn io(stats: &mut Stats, text: &[u8]) -> Option<()> {
    stats.io_pressure = Some(parse(text)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_lines() {
        let text = b"some avg10=1.50 avg60=0.66 avg300=7.69 total=4386026381\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let found = parse(text).unwrap();
        assert!((found.some.average_10 - 1.5).abs() < 1e-6 && (found.some.average_300 - 7.69).abs() < 1e-5);
        assert_eq!(found.some.total, Duration::from_micros(4_386_026_381));
        assert_eq!(found.full.unwrap().total, Duration::from_micros(3));
        assert_eq!(parse(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").unwrap().full, None);
        assert_eq!(parse(b"some avg10=x\n"), None);
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let _ = parse(&a);
        }
    }
}
