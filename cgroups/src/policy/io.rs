//! Block devices.

use crate::controllers::Subsystems;
use crate::error::{Error, Result};
use crate::layout::Version;
use crate::limits::{Device, IoDeviceLimits, IoLimits, IoWeight, Max};
use crate::policy::{ONLY_V2, Plan, Write, encode, parse_max};
use crate::text;

pub(crate) const V2_MAX: &str = "io.max";
pub(crate) const V2_LATENCY: &str = "io.latency";

/// Where weights are: BFQ's file first. The last one is that of v2's `io.cost`, and of the old CFQ on v1.
pub(crate) fn weight_files(version: Version) -> [&'static str; 2] {
    match version {
        Version::V1 => ["blkio.bfq.weight", "blkio.weight"],
        Version::V2 => ["io.bfq.weight", "io.weight"],
    }
}

/// The four rates: v2's key, v1's file.
pub(crate) const RATES: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

fn rates(limits: &IoDeviceLimits) -> [Option<Max<u64>>; 4] {
    [limits.read_bytes, limits.write_bytes, limits.read_operations, limits.write_operations]
}

/// The four rates, to be set.
pub(crate) fn rates_mut(limits: &mut IoDeviceLimits) -> [&mut Option<Max<u64>>; 4] {
    [&mut limits.read_bytes, &mut limits.write_bytes, &mut limits.read_operations, &mut limits.write_operations]
}

/// What to write where: one device at a time, or the kernel takes the first line only.
pub(crate) fn plan(limits: &IoLimits, version: Version, plan: &mut Plan) -> Result<()> {
    if let Some(weight) = limits.weight {
        let text = |file: usize| match (version, file) {
            (_, 0) => weight.bfq().to_string(),
            (Version::V1, _) => weight.blkio().to_string(),
            (Version::V2, _) => format!("default {}", weight.get()),
        };
        plan.write(either(version, text, ""));
    }
    for (device, limits) in &limits.devices {
        if let Some(weight) = limits.weight {
            let text = |file: usize| match (version, file) {
                (_, 0) => format!("{device} {}", weight.bfq()),
                (Version::V1, _) => format!("{device} {}", weight.blkio()),
                (Version::V2, _) => format!("{device} {}", weight.get()),
            };
            let suffix = if version == Version::V1 { "_device" } else { "" };
            plan.write(either(version, text, suffix));
        }
        rate_limits(*device, limits, version, plan)?;
        if let Some(latency) = limits.latency {
            let text = format!("{device} target={}", latency.as_micros());
            match version {
                Version::V1 => plan.cannot(V2_LATENCY, text, ONLY_V2),
                Version::V2 => plan.write(Write::new(Subsystems::IO, V2_LATENCY, text)),
            }
        }
    }
    Ok(())
}

/// Before any use: the numbers of devices can be set to anything.
pub(crate) fn check(limits: &IoLimits) -> Result<()> {
    limits.devices.keys().try_for_each(|device| device.check("io device"))
}

/// Into the first of the files of weights that is there.
fn either(version: Version, text: impl Fn(usize) -> String, suffix: &str) -> Write {
    let [first, second] = weight_files(version);
    let write = |file: &str, at| Write::new(Subsystems::IO, [file, suffix].concat(), text(at));
    Write { instead: Some(Box::new(write(second, 1))), ..write(first, 0) }
}

fn rate_limits(device: Device, limits: &IoDeviceLimits, version: Version, plan: &mut Plan) -> Result<()> {
    let set = RATES.iter().zip(rates(limits)).filter_map(|(names, limit)| Some((names, limit?)));
    let mut line = device.to_string();
    for ((key, file), limit) in set {
        let least = if version == Version::V2 { 2 } else { 1 };
        if let Max::Limit(rate) = limit
            && rate < least
        {
            let note = "v1 takes 1 or more, v2 takes 2 or more, or no limit";
            return Err(Error::invalid(format!("{device} {key}={rate}"), V2_MAX, note));
        }
        match version {
            // v1 says 0 for no limit.
            Version::V1 => {
                plan.write(Write::new(Subsystems::IO, *file, format!("{device} {}", encode(limit, "0"))));
            }
            Version::V2 => line.extend([" ", key, "=", &encode(limit, "max")]),
        }
    }
    if line.contains(' ') {
        plan.write(Write::new(Subsystems::IO, V2_MAX, line));
    }
    Ok(())
}

/// The lines `MAJOR:MINOR VALUE…` of a file. One of a device that has nothing to tell is passed over, and so is one of a device
/// without numbers, `(unknown)`. In `io.stat` of Linux 5.15 to 5.18 the former do not end: the values are those of the last
/// of several devices in a line.
pub(crate) fn devices(text: &[u8]) -> impl Iterator<Item = (Device, &[u8])> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let (mut found, mut values) = device(line)?;
        while let Some((next, behind)) = device(values) {
            (found, values) = (next, behind);
        }
        (!values.trim_ascii().is_empty()).then_some((found, values))
    })
}

/// The device at the beginning of a text, and what is behind it.
fn device(text: &[u8]) -> Option<(Device, &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
    Some((Device::parse(text.get(..end)?)?, text.get(end + 1..).unwrap_or_default()))
}

/// Adds what `io.max` says.
pub(crate) fn parse_max_file(text: &[u8], limits: &mut IoLimits) {
    for (device, values) in devices(text) {
        let found = limits.devices.entry(device).or_default();
        for (key, value) in text::pairs(values) {
            let at = RATES.iter().position(|(known, _)| known.as_bytes() == key);
            if let Some(rate) = at.and_then(|at| rates_mut(found).into_iter().nth(at)) {
                *rate = parse_max(value);
            }
        }
    }
}

/// Adds what `io.latency` says.
pub(crate) fn parse_latencies(text: &[u8], limits: &mut IoLimits) {
    for (device, values) in devices(text) {
        let target = text::pairs(values).find(|(key, _)| *key == b"target").and_then(|(_, value)| text::micros(value));
        limits.devices.entry(device).or_default().latency = target;
    }
}

/// Whether what is written into this file begins with the numbers of a device: the kernel says ENODEV if it has none.
pub(crate) fn is_by_device(file: &str) -> bool {
    matches!(file, V2_MAX | V2_LATENCY) || is_weight(file) || file.ends_with("_device")
}

/// Whether it has weights of devices: the kernel says EOPNOTSUPP if nothing looks at weights there.
pub(crate) fn is_weight(file: &str) -> bool {
    matches!(file, "io.weight" | "io.bfq.weight" | "blkio.weight_device" | "blkio.bfq.weight_device")
}

/// Adds what one of v1's files of rates says, the how-manieth of [`RATES`] it is.
pub(crate) fn parse_rate_file(text: &[u8], at: usize, limits: &mut IoLimits) {
    for (device, value) in devices(text) {
        let found = limits.devices.entry(device).or_default();
        if let Some(rate) = rates_mut(found).into_iter().nth(at) {
            *rate = text::number(value).map(Max::Limit);
        }
    }
}

/// The weight that a file of weights has: a number, or the line `default N`, and lines of devices.
pub(crate) fn parse_weights(text: &[u8], version: Version, bfq: bool, limits: &mut IoLimits) {
    let weight = |number: u64| match (bfq, version) {
        (true, _) => Some(IoWeight::from_bfq(number)),
        (false, Version::V1) => Some(IoWeight::from_blkio(number)),
        (false, Version::V2) => IoWeight::new(u32::try_from(number).ok()?).ok(),
    };
    let own = text::number(text).or_else(|| text::field(text, "default"));
    if let Some(own) = own {
        limits.weight = weight(own);
    }
    for (device, value) in devices(text) {
        limits.devices.entry(device).or_default().weight = text::number(value).and_then(weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{owned, texts};
    use proptest::prelude::*;
    use std::time::Duration;

    fn device() -> Device {
        Device::new(8, 16)
    }

    #[test]
    fn one_device_is_one_write() {
        let mut limits = IoLimits::default();
        let one = IoDeviceLimits::new().read_bytes(1_048_576).write_operations(Max::Max);
        limits.devices.insert(device(), one);
        limits.devices.insert(Device::new(9, 0), IoDeviceLimits { latency: Some(Duration::from_millis(5)), ..one });
        let v2 = [
            ("io.max", "8:16 rbps=1048576 wiops=max"),
            ("io.max", "9:0 rbps=1048576 wiops=max"),
            ("io.latency", "9:0 target=5000"),
        ];
        assert_eq!(texts(|into| plan(&limits, Version::V2, into)), (owned(&v2), 0));
        let v1 =
            [(RATES[0].1, "8:16 1048576"), (RATES[3].1, "8:16 0"), (RATES[0].1, "9:0 1048576"), (RATES[3].1, "9:0 0")];
        assert_eq!(texts(|into| plan(&limits, Version::V1, into)), (owned(&v1), 1));
        for (rate, v1, v2) in [(0, false, false), (1, true, false), (2, true, true)] {
            limits.devices.insert(device(), IoDeviceLimits::new().read_operations(rate));
            let is_taken = |version| plan(&limits, version, &mut Plan::default()).is_ok();
            assert_eq!((is_taken(Version::V1), is_taken(Version::V2)), (v1, v2), "{rate}");
        }
    }

    #[test]
    fn a_device_of_more_bits_is_refused() {
        let most = Device::new(Device::MAX_MAJOR, Device::MAX_MINOR);
        let table = [
            (device(), true),
            (most, true),
            (Device::new(most.major + 1, 0), false),
            (Device::new(8, most.minor + 1), false),
            (Device::new(u32::MAX, u32::MAX), false),
        ];
        for (device, is_taken) in table {
            let limits = IoLimits { devices: [(device, IoDeviceLimits::new())].into(), ..IoLimits::default() };
            assert_eq!(check(&limits).is_ok(), is_taken, "{device}");
        }
    }

    #[test]
    fn weights_go_to_bfq_or_to_what_is_there() {
        let weight = IoWeight::new(1090).unwrap();
        let mut limits = IoLimits { weight: Some(weight), ..IoLimits::default() };
        limits.devices.insert(device(), IoDeviceLimits { weight: Some(weight), ..IoDeviceLimits::new() });
        let expected = [
            (
                Version::V2,
                [("io.bfq.weight", "190"), ("io.weight", "default 1090")],
                [("io.bfq.weight", "8:16 190"), ("io.weight", "8:16 1090")],
            ),
            (
                Version::V1,
                [("blkio.bfq.weight", "190"), ("blkio.weight", "118")],
                [("blkio.bfq.weight_device", "8:16 190"), ("blkio.weight_device", "8:16 118")],
            ),
        ];
        for (version, all, one) in expected {
            let mut into = Plan::default();
            plan(&limits, version, &mut into).unwrap();
            let found = into.steps.iter().map(|step| {
                let second = step[0].instead.as_ref().unwrap();
                [&step[0], &**second].map(|write| (&*write.file, &*write.text))
            });
            assert_eq!(found.collect::<Vec<_>>(), [all, one]);
        }
    }

    #[test]
    fn reads_the_kernels_text() {
        let mut limits = IoLimits::default();
        parse_max_file(b"8:16 rbps=2097152 wbps=max riops=max wiops=120\n259:0 rbps=1\nx\n", &mut limits);
        let found = limits.devices[&device()];
        assert_eq!((found.read_bytes, found.write_bytes), (Some(Max::Limit(2_097_152)), Some(Max::Max)));
        assert_eq!(found.write_operations, Some(Max::Limit(120)));
        assert_eq!(limits.devices.len(), 2);
        parse_latencies(b"8:16 target=5000\n", &mut limits);
        assert_eq!(limits.devices[&device()].latency, Some(Duration::from_millis(5)));
        parse_rate_file(b"8:16 42\n", 2, &mut limits);
        assert_eq!(limits.devices[&device()].read_operations, Some(Max::Limit(42)));
        parse_weights(b"default 100\n8:16 300\n", Version::V2, false, &mut limits);
        assert_eq!(limits.weight, Some(IoWeight::DEFAULT));
        assert_eq!(limits.devices[&device()].weight.unwrap().get(), 300);
        parse_weights(b"1000\n", Version::V1, true, &mut limits);
        assert_eq!(limits.weight.unwrap().get(), 10_000);
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>, at: usize) {
            let mut limits = IoLimits::default();
            parse_max_file(&a, &mut limits);
            parse_rate_file(&a, at, &mut limits);
            parse_weights(&a, Version::V2, false, &mut limits);
        }

        #[test]
        fn rates_come_back(rates in prop::array::uniform4(prop::option::of(2u64..))) {
            let mut wanted = IoDeviceLimits::new();
            for (rate, value) in rates_mut(&mut wanted).into_iter().zip(rates) {
                *rate = value.map(Max::Limit);
            }
            let mut limits = IoLimits::default();
            limits.devices.insert(device(), wanted);
            let (list, _) = texts(|into| plan(&limits, Version::V2, into));
            let mut found = IoLimits::default();
            for (_, text) in &list {
                parse_max_file(text.as_bytes(), &mut found);
            }
            prop_assert_eq!(found.devices.remove(&device()).unwrap_or_default(), wanted);
        }
    }
}
