//! Rules of devices.

use crate::error::{Error, Result};
use crate::limits::{Access, Device, DeviceKind, DeviceRule, Devices};
use crate::oci::DeviceCgroup;

const SETTING: &str = "linux.resources.devices";

/// Nothing if there are no rules: then nothing is said about devices.
pub(super) fn to_limits(rules: &[DeviceCgroup]) -> Result<Option<Devices>> {
    if rules.is_empty() {
        return Ok(None);
    }
    let mut all = Vec::with_capacity(rules.len());
    for rule in rules {
        all.extend(one(rule)?.into_iter().map(|found| (rule.allow, found)));
    }
    Devices::from_rules(all).map(Some)
}

/// What one rule of theirs is here: `a` with a part of the accesses is one for each kind.
fn one(rule: &DeviceCgroup) -> Result<Vec<Option<DeviceRule>>> {
    let refused = |value: &str, note| Error::invalid(value, SETTING, note);
    let (major, minor) = (number(rule.major, Device::MAX_MAJOR)?, number(rule.minor, Device::MAX_MINOR)?);
    let access = access(rule.access.as_deref())?;
    let of = |kind| Some(DeviceRule { minor, ..DeviceRule::all(kind, major, access) });
    match rule.kind.as_deref() {
        Some("b") => Ok(vec![of(DeviceKind::Block)]),
        Some("c" | "u") => Ok(vec![of(DeviceKind::Char)]),
        None | Some("a" | "") => match (major, minor, access) {
            (None, None, access) if access == Access::all() => Ok(vec![None]),
            (None, None, _) => Ok(vec![of(DeviceKind::Block), of(DeviceKind::Char)]),
            _ => Err(refused("a", "a rule for all kinds is one for all numbers")),
        },
        Some(kind) => Err(refused(kind, "the types of devices are a, b and c")),
    }
}

fn number(number: Option<i64>, most: u32) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => Err(Error::invalid(number.to_string(), SETTING, "a major has 12 bits, and a minor 20")),
        },
    }
}

fn access(letters: Option<&str>) -> Result<Access> {
    let Some(letters) = letters.filter(|letters| !letters.is_empty()) else { return Ok(Access::all()) };
    let letter = |letter| match letter {
        'r' => Ok(Access::READ),
        'w' => Ok(Access::WRITE),
        'm' => Ok(Access::MKNOD),
        _ => Err(Error::invalid(letters, SETTING, "the accesses are r, w and m")),
    };
    letters.chars().map(letter).collect()
}

pub(super) fn from_limits(devices: &Devices) -> Result<Vec<DeviceCgroup>> {
    devices.check()?;
    let everything = DeviceCgroup { allow: devices.allow, access: Some("rwm".to_owned()), ..DeviceCgroup::default() };
    let exception = |rule: DeviceRule| {
        let letters = [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')];
        DeviceCgroup {
            allow: !devices.allow,
            kind: Some(if rule.kind == DeviceKind::Block { "b" } else { "c" }.to_owned()),
            major: rule.major.map(i64::from),
            minor: rule.minor.map(i64::from),
            access: Some(
                letters.iter().filter(|(one, _)| rule.access.contains(*one)).map(|(_, letter)| letter).collect(),
            ),
            ..DeviceCgroup::default()
        }
    };
    Ok(std::iter::once(everything).chain(devices.merged().into_iter().map(exception)).collect())
}
