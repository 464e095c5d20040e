//! What a cgroup can use at most, whatever the limits above it are.

use crate::cgroup::Cgroup;
use crate::controllers::Subsystems;
use crate::dir::buffer;
use crate::error::Result;
use crate::layout::Version;
use crate::limits::{IdList, Max};
use crate::member::Member;
use crate::policy::cpuset;

/// What a cgroup can use at most: the least of its own limits and of those of all cgroups above it that can be seen.
/// `None` is no limit but the machine's.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Ceiling {
    /// Memory, in bytes.
    pub memory: Option<u64>,
    /// Swap, in bytes.
    pub swap: Option<u64>,
    /// CPU time, in cores.
    pub cores: Option<f64>,
    /// The CPUs on which it may run.
    pub cpus: Option<IdList>,
}

/// Whether a quota hides CPUs. Both are wrong in a way: with half of the time on each of four CPUs, a program that
/// starts a thread for each CPU is throttled; one that is shown two may leave time unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaView {
    /// As many CPUs as the quota amounts to, rounded up.
    HidesCpus,
    /// All CPUs that the cgroup may run on.
    HidesNothing,
}

impl Ceiling {
    /// How many CPUs to show, of a machine that has `host`; at least one.
    #[must_use]
    pub fn cpus_shown(&self, host: usize, quota: QuotaView) -> usize {
        let allowed = self.cpus.as_ref().map_or(host, IdList::len).min(host);
        let cores = self.cores.filter(|_| quota == QuotaView::HidesCpus);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a number of CPUs")]
        let by_quota = cores.map_or(allowed, |cores| cores.ceil().clamp(1.0, 65_536.0) as usize);
        allowed.min(by_quota).max(1)
    }
}

fn least<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b < a { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn limit(max: Option<Max<u64>>) -> Option<u64> {
    match max {
        Some(Max::Limit(limit)) => Some(limit),
        _ => None,
    }
}

impl Cgroup {
    /// What this cgroup can use at most, with the limits of the cgroups above it, as far as they can be seen.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`](crate::ErrorKind::Gone).
    pub fn ceiling(&self) -> Result<Ceiling> {
        let mut ceiling = Ceiling::default();
        for member in self.members() {
            for above in member.relative.ancestors() {
                let one = Member::open(&member.tree, above.to_owned(), member.subsystems)?;
                let limits = Cgroup::new(vec![one], true).limits()?;
                ceiling.memory = least(ceiling.memory, limit(limits.memory.max));
                ceiling.swap = least(ceiling.swap, limit(limits.memory.swap));
                ceiling.cores = least(ceiling.cores, limits.cpu.cores());
            }
            if member.subsystems.contains(Subsystems::CPUSET) {
                ceiling.cpus = effective_cpus(member)?;
            }
        }
        Ok(ceiling)
    }
}

/// The kernel has done this one already.
fn effective_cpus(member: &Member) -> Result<Option<IdList>> {
    let files: &[&str] = match member.version() {
        Version::V1 => &["cpuset.effective_cpus", "cpuset.cpus", "cpus"],
        Version::V2 => &["cpuset.cpus.effective"],
    };
    for file in files {
        let mut buffer = buffer();
        if let Some(text) = member.dir.read_if_there(file, &mut buffer)? {
            return Ok(cpuset::parse(text).filter(|list| !list.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_those_of_quota_set_and_machine() {
        let shown = |cores: Option<f64>, cpus: Option<&str>, quota| {
            let cpus = cpus.map(|cpus| cpus.parse().unwrap());
            Ceiling { cores, cpus, ..Ceiling::default() }.cpus_shown(8, quota)
        };
        let table = [
            (None, None, 8, 8),
            (Some(0.2), None, 1, 8),
            (Some(1.5), None, 2, 8),
            (Some(2.0), Some("0-2"), 2, 3),
            (Some(64.0), Some("0,4"), 2, 2),
            (Some(1e300), None, 8, 8),
        ];
        for (cores, cpus, hiding, not_hiding) in table {
            assert_eq!(shown(cores, cpus, QuotaView::HidesCpus), hiding, "{cores:?} {cpus:?}");
            assert_eq!(shown(cores, cpus, QuotaView::HidesNothing), not_hiding, "{cores:?} {cpus:?}");
        }
    }
}
