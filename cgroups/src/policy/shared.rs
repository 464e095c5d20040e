//! Huge pages, RDMA, other resources, network.

use std::collections::BTreeMap;

use crate::controllers::Subsystems;
use crate::error::{Error, Result};
use crate::layout::Version;
use crate::limits::{Max, NetworkLimits, PageSize, RdmaLimits};
use crate::policy::{Plan, Write, check_word, encode, parse_max};
use crate::text;

pub(crate) const RDMA_MAX: &str = "rdma.max";
pub(crate) const MISC_MAX: &str = "misc.max";
pub(crate) const CLASS: &str = "net_cls.classid";
pub(crate) const PRIORITIES: &str = "net_prio.ifpriomap";

/// The file of a limit of huge pages, and that of reservations.
pub(crate) fn hugetlb_files(size: PageSize, version: Version) -> [String; 2] {
    let name = if version == Version::V1 { "limit_in_bytes" } else { "max" };
    [format!("hugetlb.{size}.{name}"), format!("hugetlb.{size}.rsvd.{name}")]
}

/// The size in the name of a file of limits, to find out which there are.
pub(crate) fn hugetlb_size(file: &str, version: Version) -> Option<PageSize> {
    let name = if version == Version::V1 { ".limit_in_bytes" } else { ".max" };
    file.strip_prefix("hugetlb.")?.strip_suffix(name)?.parse().ok()
}

pub(crate) fn hugetlb(limits: &BTreeMap<PageSize, Max<u64>>, version: Version, plan: &mut Plan) {
    let none = if version == Version::V1 { "-1" } else { "max" };
    for (size, limit) in limits {
        let [pages, reserved] = hugetlb_files(*size, version);
        let text = encode(*limit, none);
        // Before Linux 5.7 there are no reservations to be limited.
        let reserved = Write::new(Subsystems::HUGETLB, reserved, text.clone());
        plan.write(Write { missing_is_fine: true, ..reserved });
        plan.write(Write::new(Subsystems::HUGETLB, pages, text));
    }
}

pub(crate) fn rdma(limits: &BTreeMap<String, RdmaLimits>, plan: &mut Plan) -> Result<()> {
    for (device, limits) in limits {
        check_word(device, RDMA_MAX)?;
        let mut line = device.clone();
        for (key, limit) in [("hca_handle", limits.handles), ("hca_object", limits.objects)] {
            if let Some(limit) = limit {
                line.extend([" ", key, "=", &encode(limit, "max")]);
            }
        }
        if line != *device {
            plan.write(Write::new(Subsystems::RDMA, RDMA_MAX, line));
        }
    }
    Ok(())
}

pub(crate) fn parse_rdma(text: &[u8]) -> BTreeMap<String, RdmaLimits> {
    let line = |line: &[u8]| {
        let (name, values) = text::first_word(line)?;
        let mut limits = RdmaLimits::default();
        for (key, value) in text::pairs(values) {
            match key {
                b"hca_handle" => limits.handles = parse_max(value),
                b"hca_object" => limits.objects = parse_max(value),
                _ => {}
            }
        }
        Some((String::from_utf8_lossy(name).into_owned(), limits))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

pub(crate) fn misc(limits: &BTreeMap<String, Max<u64>>, plan: &mut Plan) -> Result<()> {
    for (name, limit) in limits {
        check_word(name, MISC_MAX)?;
        plan.write(Write::new(Subsystems::MISC, MISC_MAX, format!("{name} {}", encode(*limit, "max"))));
    }
    Ok(())
}

pub(crate) fn parse_misc(text: &[u8]) -> BTreeMap<String, Max<u64>> {
    let line = |line: &[u8]| {
        let (name, value) = text::first_word(line)?;
        Some((String::from_utf8_lossy(name).into_owned(), parse_max(value)?))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Both are v1's own: a tree that has the controller has the file.
pub(crate) fn network(limits: &NetworkLimits, plan: &mut Plan) -> Result<()> {
    if let Some(class) = limits.class {
        plan.write(Write::new(Subsystems::NET_CLS, CLASS, class.to_string()));
    }
    for (interface, priority) in &limits.priorities {
        check_word(interface, PRIORITIES)?;
        plan.write(Write::new(Subsystems::NET_PRIO, PRIORITIES, format!("{interface} {priority}")));
    }
    Ok(())
}

pub(crate) fn parse_priorities(text: &[u8]) -> BTreeMap<String, u32> {
    let line = |line: &[u8]| {
        let (name, value) = text::first_word(line)?;
        let value = text::number(value).and_then(|value| u32::try_from(value).ok())?;
        Some((String::from_utf8_lossy(name).into_owned(), value))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// What a line of this file begins with, where the kernel says ENODEV if there is no such one.
pub(crate) fn named_by_line(file: &str) -> Option<&'static str> {
    match file {
        RDMA_MAX => Some("there is no such RDMA device"),
        PRIORITIES => Some("there is no such network interface"),
        _ => None,
    }
}

/// Files that a caller names: plain names, of a controller, and not those by which a cgroup itself is governed.
pub(crate) fn files(files: &BTreeMap<String, String>, plan: &mut Plan) -> Result<()> {
    for (file, text) in files {
        let refused = |note| Error::invalid(file, "file of a cgroup", note);
        if !file.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(refused("a plain file name is needed"));
        }
        let prefix = file.split('.').next().unwrap_or_default();
        let subsystem = Subsystems::named(std::iter::once(prefix.as_bytes()));
        if subsystem.is_empty() || !file.contains('.') {
            return Err(refused("the name of a controller and a dot must come first"));
        }
        if text.trim_ascii().is_empty() || text.len() > 4000 {
            return Err(Error::invalid(text, file, "1 to 4000 bytes can be written"));
        }
        // Where there is a line for each device, the kernel takes one at a time.
        for line in text.lines().filter(|line| !line.is_empty()) {
            plan.write(Write::new(subsystem, file.clone(), line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{owned, texts};
    use proptest::prelude::*;

    #[test]
    fn reservations_are_limited_too() {
        let size: PageSize = "2MB".parse().unwrap();
        let limits = BTreeMap::from([(size, Max::Limit(4 << 20))]);
        let found = |version| {
            texts(|into| {
                hugetlb(&limits, version, into);
                Ok(())
            })
        };
        let v1 = [("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"), ("hugetlb.2MB.limit_in_bytes", "4194304")];
        assert_eq!(found(Version::V1).0, owned(&v1));
        assert_eq!(found(Version::V2).0, owned(&[("hugetlb.2MB.rsvd.max", "4194304"), ("hugetlb.2MB.max", "4194304")]));
        assert_eq!(hugetlb_size("hugetlb.2MB.max", Version::V2), Some(size));
        assert_eq!(hugetlb_size("hugetlb.2MB.rsvd.max", Version::V2), None);
        assert_eq!(hugetlb_size("hugetlb.1GB.limit_in_bytes", Version::V1).unwrap().bytes(), 1 << 30);
    }

    #[test]
    fn keyed_limits_come_back() {
        let wanted = BTreeMap::from([("mlx4_0".to_owned(), RdmaLimits::new(2, Max::Max))]);
        let (list, _) = texts(|into| rdma(&wanted, into));
        assert_eq!(list, owned(&[(RDMA_MAX, "mlx4_0 hca_handle=2 hca_object=max")]));
        assert_eq!(parse_rdma(b"mlx4_0 hca_handle=2 hca_object=max\n"), wanted);
        let wanted = BTreeMap::from([("sev".to_owned(), Max::Limit(3)), ("tdx".to_owned(), Max::Max)]);
        assert_eq!(texts(|into| misc(&wanted, into)).0, owned(&[(MISC_MAX, "sev 3"), (MISC_MAX, "tdx max")]));
        assert_eq!(parse_misc(b"sev 3\ntdx max\n"), wanted);
        let wanted = NetworkLimits { class: Some(0x10_0001), priorities: [("eth0".to_owned(), 5)].into() };
        let (list, _) = texts(|into| network(&wanted, into));
        assert_eq!(list, owned(&[(CLASS, "1048577"), (PRIORITIES, "eth0 5")]));
        assert_eq!(parse_priorities(b"lo 0\neth0 5\n")["eth0"], 5);
        for bad in ["", "a b", "a\nsev max"] {
            assert!(misc(&[(bad.to_owned(), Max::Max)].into(), &mut Plan::default()).is_err(), "{bad:?}");
            assert!(rdma(&[(bad.to_owned(), RdmaLimits::new(1, 1))].into(), &mut Plan::default()).is_err());
        }
    }

    #[test]
    fn only_files_of_controllers_are_written() {
        let plan = |file: &str, text: &str| files(&[(file.to_owned(), text.to_owned())].into(), &mut Plan::default());
        for good in ["memory.zswap.max", "cpu.uclamp.min", "io.prio.class", "pids.max"] {
            assert!(plan(good, "1").is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "../memory.max",
            "memory.max/../x",
            "memory./x",
            "cgroup.procs",
            "cgroup.kill",
            "memory",
            "tasks",
            "release_agent",
            "x.max",
            "memory.max\0",
            "memory.\n",
        ] {
            assert!(plan(bad, "1").is_err(), "{bad:?}");
        }
        assert!(plan("memory.max", "").is_err());
    }

    /// `io.max` has a line for each device, and takes one at a time.
    #[test]
    fn lines_are_written_one_by_one() {
        let limits = BTreeMap::from([("io.max".to_owned(), "259:0 rbps=1\n253:0 rbps=2\n".to_owned())]);
        let found = texts(|into| files(&limits, into));
        assert_eq!(found, (owned(&[("io.max", "259:0 rbps=1"), ("io.max", "253:0 rbps=2")]), 0));
        let nothing = BTreeMap::from([("io.max".to_owned(), "\n \n".to_owned())]);
        assert!(files(&nothing, &mut Plan::default()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>, name: String) {
            let _ = (parse_rdma(&a), parse_misc(&a), parse_priorities(&a));
            let _ = files(&[(name, "1".to_owned())].into(), &mut Plan::default());
        }
    }
}
