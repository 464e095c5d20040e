//! Memory and swap.
//!
//! Both versions are told the same two limits. v1's encoding of the second is the sum of both, so that what is written
//! depends on what is in force, and so does the order: the sum may never be less than memory alone.

use crate::controllers::Subsystems;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::layout::Version;
use crate::limits::{Max, MemoryLimits};
use crate::policy::{ONLY_V1, ONLY_V2, Plan, Write, encode, parse_max, switch};
use crate::text;

pub(crate) const V2_MAX: &str = "memory.max";
pub(crate) const V2_SWAP: &str = "memory.swap.max";
pub(crate) const V1_MAX: &str = "memory.limit_in_bytes";
pub(crate) const V1_SUM: &str = "memory.memsw.limit_in_bytes";
pub(crate) const V2_HIGH: &str = "memory.high";
pub(crate) const V2_LOW: &str = "memory.low";
pub(crate) const V2_MIN: &str = "memory.min";
pub(crate) const V2_OOM_GROUP: &str = "memory.oom.group";
pub(crate) const V1_SOFT: &str = "memory.soft_limit_in_bytes";
pub(crate) const V1_SWAPPINESS: &str = "memory.swappiness";
pub(crate) const V1_OOM: &str = "memory.oom_control";

/// The files of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) max: &'static str,
    /// Of swap alone on v2, of the sum on v1.
    pub(crate) swap: &'static str,
    pub(crate) current: &'static str,
    pub(crate) peak: &'static str,
}

pub(crate) fn files(version: Version) -> Files {
    match version {
        Version::V1 => {
            Files { max: V1_MAX, swap: V1_SUM, current: "memory.usage_in_bytes", peak: "memory.max_usage_in_bytes" }
        }
        Version::V2 => Files { max: V2_MAX, swap: V2_SWAP, current: "memory.current", peak: "memory.peak" },
    }
}

/// Whether [`writes`] must be told what is in force: v1's sum changes with either of its parts.
pub(crate) fn needs_in_force(limits: &MemoryLimits, version: Version) -> bool {
    version == Version::V1 && (limits.max.is_some() || limits.swap.is_some())
}

/// What to write where, for all of the settings.
pub(crate) fn plan(
    limits: &MemoryLimits,
    version: Version,
    in_force: &MemoryLimits,
    page: u64,
    plan: &mut Plan,
) -> Result<()> {
    check(limits)?;
    let memory_alone = || MemoryLimits { swap: None, ..limits.clone() };
    let list = match writes(limits, version, in_force, page) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            plan.cannot.push(error);
            writes(&memory_alone(), version, in_force, page)?
        }
        list => list?,
    };
    match version {
        Version::V1 => plan.together(list),
        Version::V2 => list.into_iter().for_each(|write| plan.write(write)),
    }
    others(limits, version, page, plan);
    Ok(())
}

fn check(limits: &MemoryLimits) -> Result<()> {
    match limits.swappiness {
        Some(swappiness) if swappiness > 200 => {
            Err(Error::invalid(swappiness.to_string(), V1_SWAPPINESS, "the kernel takes 0 to 200"))
        }
        _ => Ok(()),
    }
}

/// Each for itself, in either version or in one.
fn others(limits: &MemoryLimits, version: Version, page: u64, plan: &mut Plan) {
    let none = if version == Version::V1 { "-1" } else { "max" };
    let bytes = |limit: Option<Max<u64>>| limit.map(|limit| encode(in_pages(limit, page), none));
    let low = if version == Version::V1 { V1_SOFT } else { V2_LOW };
    let settings = [
        (V2_HIGH, bytes(limits.high), Some(Version::V2)),
        (low, bytes(limits.low), None),
        (V2_MIN, bytes(limits.min), Some(Version::V2)),
        (V1_SWAPPINESS, limits.swappiness.map(|value| value.to_string()), Some(Version::V1)),
        (V2_OOM_GROUP, limits.oom_group.map(|on| switch(on).to_owned()), Some(Version::V2)),
        // The kernel asks whether to *disable* it. On v2 it is always there.
        (V1_OOM, limits.oom_killer.map(|on| switch(!on).to_owned()), Some(Version::V1)),
    ];
    for (file, text, only) in settings {
        let Some(text) = text else { continue };
        match only {
            Some(Version::V1) if version == Version::V2 => {
                if file != V1_OOM || limits.oom_killer == Some(false) {
                    plan.cannot(file, text, ONLY_V1);
                }
            }
            Some(Version::V2) if version == Version::V1 => plan.cannot(file, text, ONLY_V2),
            _ => plan.write(Write::new(Subsystems::MEMORY, file, text)),
        }
    }
}

/// What to write where, in an order that the kernel accepts. `in_force` is what the cgroup has; no swap in it means
/// that the kernel does not count swap. `page` is the size of a page.
pub(crate) fn writes(
    limits: &MemoryLimits,
    version: Version,
    in_force: &MemoryLimits,
    page: u64,
) -> Result<Vec<Write>> {
    let in_pages = |limit: Option<Max<u64>>| limit.map(|limit| in_pages(limit, page));
    let limits = MemoryLimits { max: in_pages(limits.max), swap: in_pages(limits.swap), ..MemoryLimits::default() };
    match version {
        Version::V1 => v1_writes(&limits, in_force, page),
        Version::V2 => Ok(v2_writes(&limits)),
    }
}

/// Swap first: what is to be limited without swap must not get there while memory shrinks. And if swap is refused,
/// nothing has been written.
fn v2_writes(limits: &MemoryLimits) -> Vec<Write> {
    let swap = limits.swap.map(|swap| Write {
        missing_is_fine: holds_uncounted(swap),
        ..Write::new(Subsystems::MEMORY, V2_SWAP, encode(swap, "max"))
    });
    let memory = limits.max.map(|max| Write::new(Subsystems::MEMORY, V2_MAX, encode(max, "max")));
    swap.into_iter().chain(memory).collect()
}

fn v1_writes(limits: &MemoryLimits, in_force: &MemoryLimits, page: u64) -> Result<Vec<Write>> {
    let counted = in_force.swap.is_some();
    let wanted = limits.swap.filter(|swap| counted || !holds_uncounted(*swap));
    let max = limits.max.or(in_force.max).unwrap_or(Max::Max);
    let swap = match (wanted, max) {
        (Some(swap @ Max::Limit(_)), Max::Max) => {
            let note = "v1 limits memory and swap together: a limit of swap needs one of memory";
            return Err(Error::new(ErrorKind::Unsupported, Op::Check, V1_SUM)
                .with_value(encode(swap, "max"))
                .with_note(note));
        }
        // The sum of whatever swap and unlimited memory is unlimited.
        (None, Max::Max) => in_force.swap.map(|_| Max::Max),
        (wanted, _) => wanted.or(in_force.swap),
    };
    let old = in_force.max.zip(in_force.swap).map(|(max, swap)| sum(max, swap, page));
    let new = swap.map(|swap| sum(max, swap, page));
    let write = |file, limit, old: Option<Max<u64>>| Write {
        old: old.map(|old| encode(old, "-1")),
        ..Write::new(Subsystems::MEMORY, file, encode(limit, "-1"))
    };
    let memory = limits.max.map(|max| write(V1_MAX, max, in_force.max));
    let both = new.filter(|_| wanted.is_some() || new != old).map(|sum| write(V1_SUM, sum, old));
    // A sum that grows is never less than the old memory, nor the new; one that shrinks is not before memory has.
    let sum_first = new.map(size) >= old.map(size);
    let (first, second) = if sum_first { (both, memory) } else { (memory, both) };
    Ok(first.into_iter().chain(second).collect())
}

/// A limit in the kernel's text.
pub(crate) fn parse_limit(text: &[u8], page: u64) -> Option<Max<u64>> {
    parse_max(text).map(|limit| in_pages(limit, page))
}

/// The limits in the kernel's texts. No text of swap: the kernel does not count it.
pub(crate) fn parse(version: Version, max: &[u8], swap: Option<&[u8]>, page: u64) -> Option<MemoryLimits> {
    let max = parse_limit(max, page)?;
    let swap = match swap {
        Some(text) => Some(parse_limit(text, page)?),
        None => None,
    };
    let swap = match version {
        Version::V1 => swap.map(|sum| difference(sum, max)),
        Version::V2 => swap,
    };
    Some(MemoryLimits { max: Some(max), swap, ..MemoryLimits::default() })
}

/// The file that tells how much of what a v1 file limits is in use: why the kernel says EBUSY.
pub(crate) fn usage_file(limit_file: &str) -> Option<&'static str> {
    match limit_file {
        V1_MAX => Some("memory.usage_in_bytes"),
        V1_SUM => Some("memory.memsw.usage_in_bytes"),
        _ => None,
    }
}

/// What is in use, in words.
pub(crate) fn usage_note(text: &[u8]) -> Option<String> {
    text::number(text).map(|bytes| format!("{bytes} bytes are in use and could not be reclaimed"))
}

/// Without counting, no swap and no limit of it are taken as met: there may be none, and runtimes on kernels without
/// swap have always been asked for both.
fn holds_uncounted(swap: Max<u64>) -> bool {
    matches!(swap, Max::Max | Max::Limit(0))
}

/// As the kernel has it: whole pages, and from its `PAGE_COUNTER_MAX` on no limit, which is what v1 calls that.
fn in_pages(limit: Max<u64>, page: u64) -> Max<u64> {
    let down = |bytes: u64| bytes - bytes.checked_rem(page).unwrap_or(0);
    match limit {
        Max::Limit(bytes) if down(bytes) < down(i64::MAX.unsigned_abs()) => Max::Limit(down(bytes)),
        _ => Max::Max,
    }
}

fn sum(max: Max<u64>, swap: Max<u64>, page: u64) -> Max<u64> {
    match (max, swap) {
        (Max::Limit(max), Max::Limit(swap)) => in_pages(Max::Limit(max.saturating_add(swap)), page),
        _ => Max::Max,
    }
}

fn difference(sum: Max<u64>, max: Max<u64>) -> Max<u64> {
    match (sum, max) {
        (Max::Limit(sum), Max::Limit(max)) => Max::Limit(sum.saturating_sub(max)),
        _ => Max::Max,
    }
}

/// For comparing: no limit is more than any.
fn size(limit: Max<u64>) -> u64 {
    match limit {
        Max::Max => u64::MAX,
        Max::Limit(bytes) => bytes,
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
