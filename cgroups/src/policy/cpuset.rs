//! CPUs and memory nodes.

use crate::controllers::Subsystems;
use crate::layout::Version;
use crate::limits::{CpusetLimits, IdList, Partition};
use crate::policy::{ONLY_V2, Plan, Write};

pub(crate) const CPUS: &str = "cpuset.cpus";
pub(crate) const MEMS: &str = "cpuset.mems";
pub(crate) const PARTITION: &str = "cpuset.cpus.partition";

/// The same files in both versions, v1 mounted with `noprefix` aside.
pub(crate) fn plan(limits: &CpusetLimits, version: Version, plan: &mut Plan) {
    for (file, list) in [(CPUS, &limits.cpus), (MEMS, &limits.mems)] {
        if let Some(list) = list {
            // A write of no bytes does nothing; a line break is an empty list.
            let text = if list.is_empty() { "\n".to_owned() } else { list.to_string() };
            let unprefixed = Write::new(Subsystems::CPUSET, file.trim_start_matches("cpuset."), text.clone());
            let instead = (version == Version::V1).then(|| Box::new(unprefixed));
            plan.write(Write { instead, ..Write::new(Subsystems::CPUSET, file, text) });
        }
    }
    if let Some(partition) = limits.partition {
        match version {
            Version::V1 if partition == Partition::Member => {}
            Version::V1 => plan.cannot(PARTITION, partition.text(), ONLY_V2),
            Version::V2 => plan.write(Write::new(Subsystems::CPUSET, PARTITION, partition.text())),
        }
    }
}

/// Why a partition has no effect, in the kernel's words: `root invalid (Cpu list in cpuset.cpus not exclusive)`.
pub(crate) fn why_not(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text.trim_ascii());
    let (_, reason) = text.split_once(" invalid")?;
    let reason = reason.trim().trim_start_matches('(').trim_end_matches(')');
    Some(if reason.is_empty() { "the kernel does not say why".to_owned() } else { reason.to_owned() })
}

pub(crate) fn parse(text: &[u8]) -> Option<IdList> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{owned, texts};

    #[test]
    fn what_is_written() {
        let plan = |limits: &CpusetLimits, version| {
            texts(|into| {
                plan(limits, version, into);
                Ok(())
            })
        };
        let cpus = Some("2-3".parse().unwrap());
        let limits = CpusetLimits { cpus, mems: Some(IdList::default()), partition: Some(Partition::Root) };
        let both = [(CPUS, "2-3"), (MEMS, "\n")];
        assert_eq!(plan(&limits, Version::V1), (owned(&both), 1));
        assert_eq!(plan(&limits, Version::V2), (owned(&[both[0], both[1], (PARTITION, "root")]), 0));
        assert_eq!(parse(b"0-1\n").unwrap().len(), 2);
        assert_eq!(parse(b"\n").unwrap().len(), 0);
        assert_eq!(parse(b"x\n"), None);
        assert_eq!(why_not(b"root\n"), None);
        assert_eq!(
            why_not(b"root invalid (Parent is not a partition root)\n").unwrap(),
            "Parent is not a partition root"
        );
        assert_eq!(why_not(b"isolated invalid\n").unwrap(), "the kernel does not say why");
    }
}
