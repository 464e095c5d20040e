use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{
    Access, CpuLimits, CpuPeriod, CpuQuota, CpuWeight, Device, DeviceKind, IoDeviceLimits, IoWeight, Max, MemoryLimits,
    RdmaLimits,
};
use crate::{ErrorKind, Partition};

fn parse(json: &str) -> Resources {
    serde_json::from_str(json).unwrap()
}

fn limits(json: &str) -> Limits {
    parse(json).to_limits().unwrap().limits
}

/// What an engine writes for a container with some limits.
const DOCUMENT: &str = r#"{
    "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "b", "access": "m" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "c", "major": 136, "minor": -1, "access": "rwm" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "rw" }
    ],
    "memory": { "limit": 536870912, "swap": 805306368, "reservation": 268435456, "swappiness": 60, "disableOOMKiller": false },
    "cpu": { "shares": 1024, "quota": 150000, "period": 100000, "burst": 5000, "cpus": "0-2", "mems": "0", "idle": 0 },
    "pids": { "limit": 100 },
    "blockIO": { "weight": 500, "weightDevice": [ { "major": 8, "minor": 0, "weight": 300 } ],
        "throttleReadBpsDevice": [ { "major": 8, "minor": 0, "rate": 1048576 } ],
        "throttleWriteIOPSDevice": [ { "major": 8, "minor": 16, "rate": 0 } ] },
    "hugepageLimits": [ { "pageSize": "2MB", "limit": 4194304 } ],
    "network": { "classID": 1048577, "priorities": [ { "name": "eth0", "priority": 5 } ] },
    "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10000 } },
    "unified": { "memory.high": "402653184", "io.max": "259:0 rbps=2097152\n253:0 rbps=2097152" },
    "fromTheFuture": { "x": [1] }
}"#;

#[test]
fn a_whole_document() {
    let converted = parse(DOCUMENT).to_limits().unwrap();
    assert!(converted.ignored.is_empty(), "{:?}", converted.ignored);
    let found = converted.limits;
    let memory = &found.memory;
    assert_eq!((memory.max, memory.swap), (Some(Max::Limit(512 << 20)), Some(Max::Limit(256 << 20))));
    assert_eq!((memory.low, memory.swappiness, memory.oom_killer), (Some(Max::Limit(256 << 20)), Some(60), Some(true)));
    assert_eq!(found.cpu.cores(), Some(1.5));
    assert_eq!((found.cpu.weight, found.cpu.idle), (Some(CpuWeight::DEFAULT), Some(false)));
    assert_eq!(found.cpu.burst, Some(Duration::from_millis(5)));
    assert_eq!(found.cpuset.cpus.as_ref().unwrap().to_string(), "0-2");
    assert_eq!(found.pids, Some(Max::Limit(100)));
    assert_eq!(found.io.weight, Some(IoWeight::from_blkio(500)));
    let disk = found.io.devices[&Device::new(8, 0)];
    assert_eq!((disk.weight, disk.read_bytes), (Some(IoWeight::from_blkio(300)), Some(Max::Limit(1 << 20))));
    assert_eq!(found.io.devices[&Device::new(8, 16)].write_operations, Some(Max::Max));
    assert_eq!(found.hugetlb[&"2MB".parse().unwrap()], Max::Limit(4 << 20));
    assert_eq!((found.network.class, found.network.priorities["eth0"]), (Some(0x10_0001), 5));
    assert_eq!(found.rdma["mlx5_1"].objects, Some(Max::Limit(10_000)));
    assert_eq!(found.files["memory.high"], "402653184");
    let devices = found.devices.unwrap();
    let char = |major, minor, access| devices.grants(DeviceKind::Char, Device::new(major, minor), access);
    assert!(char(1, 3, Access::all()) && char(136, 7, Access::READ) && char(9, 9, Access::MKNOD));
    assert!(!char(9, 9, Access::READ) && !char(10, 229, Access::READ));
}

#[test]
fn what_is_not_known_is_kept() {
    let text = serde_json::to_string(&parse(DOCUMENT)).unwrap();
    assert_eq!(parse(&text), parse(DOCUMENT));
    assert!(text.contains(r#""fromTheFuture":{"x":[1]}"#), "{text}");
    assert_eq!(serde_json::to_string(&Resources::default()).unwrap(), "{}");
}

/// Memory and swap together, or alone; -1, 0 and nothing.
#[test]
fn swap_is_what_is_left_of_the_sum() {
    let table = [
        (r#"{ "limit": 10, "swap": 30 }"#, Some(Max::Limit(20))),
        (r#"{ "limit": 10, "swap": 10 }"#, Some(Max::Limit(0))),
        (r#"{ "limit": 10, "swap": -1 }"#, Some(Max::Max)),
        (r#"{ "limit": -1, "swap": -1 }"#, Some(Max::Max)),
        (r#"{ "limit": 10, "swap": 0 }"#, None),
        (r#"{ "limit": -1 }"#, None),
        (r#"{ "limit": 10 }"#, None),
        (r#"{ "swap": -1 }"#, Some(Max::Max)),
    ];
    for (memory, swap) in table {
        assert_eq!(limits(&format!(r#"{{ "memory": {memory} }}"#)).memory.swap, swap, "{memory}");
    }
    for bad in [r#"{ "limit": 10, "swap": 9 }"#, r#"{ "swap": 9 }"#, r#"{ "limit": -1, "swap": 9 }"#] {
        let error = parse(&format!(r#"{{ "memory": {bad} }}"#)).to_limits().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn unset_zero_and_none_are_three_states_of_pids() {
    let table = [(r"{}", None), (r#"{ "limit": 0 }"#, Some(Max::Limit(0))), (r#"{ "limit": -1 }"#, Some(Max::Max))];
    for (pids, limit) in table {
        assert_eq!(limits(&format!(r#"{{ "pids": {pids} }}"#)).pids, limit, "{pids}");
    }
    // Elsewhere 0 is what older engines write for nothing.
    let zeros = r#"{ "memory": { "limit": 0, "swap": 0 }, "blockIO": { "weight": 0 },
        "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" } }"#;
    assert_eq!(limits(zeros), Limits::new());
}

#[test]
fn what_has_no_effect_is_told() {
    let old = r#"{ "memory": { "kernel": 5, "kernelTCP": 6, "useHierarchy": false, "checkBeforeUpdate": true },
        "blockIO": { "leafWeight": 10 } }"#;
    let converted = parse(old).to_limits().unwrap();
    let settings: Vec<_> = converted.ignored.iter().map(|error| error.path().display().to_string()).collect();
    let expected =
        ["memory.kernel", "memory.kernelTCP", "memory.useHierarchy", "memory.checkBeforeUpdate", "blockIO.leafWeight"];
    assert_eq!(settings, expected);
    let fine = r#"{ "memory": { "kernel": -1, "useHierarchy": true, "checkBeforeUpdate": false } }"#;
    assert!(parse(fine).to_limits().unwrap().ignored.is_empty());
}

#[test]
fn bad_values_are_refused() {
    for bad in [
        r#"{ "cpu": { "quota": 500 } }"#,
        r#"{ "cpu": { "period": 1 } }"#,
        r#"{ "cpu": { "cpus": "3-1" } }"#,
        r#"{ "hugepageLimits": [ { "pageSize": "3MB", "limit": 1 } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "p" } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "a", "major": 1 } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "c", "access": "rx" } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "c", "major": -2 } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "c", "major": 4294967295, "minor": 3 } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "c", "major": 4096 } ] }"#,
        r#"{ "devices": [ { "allow": true, "type": "c", "major": 1, "minor": 1048576 } ] }"#,
        r#"{ "blockIO": { "weightDevice": [ { "major": -8, "minor": 0, "weight": 300 } ] } }"#,
    ] {
        let error = parse(bad).to_limits().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}: {error}");
    }
    // A rule that the kernels would take, and do nothing about.
    let part = r#"{ "devices": [ { "allow": false }, { "allow": true, "type": "c", "access": "rwm" },
        { "allow": false, "type": "c", "major": 1, "minor": 3 } ] }"#;
    assert_eq!(parse(part).to_limits().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn what_only_v2_has_goes_to_unified() {
    let mut from = Limits::new().memory_high(4096).cpu_quota(CpuQuota::cores(0.5).unwrap());
    from.memory.oom_group = Some(true);
    from.cpuset.partition = Some(Partition::Isolated);
    from.misc.insert("sev".to_owned(), Max::Limit(2));
    from.misc.insert("tdx".to_owned(), Max::Max);
    let found = from.to_oci().unwrap();
    assert_eq!(found.unified["memory.high"], "4096");
    assert_eq!((&*found.unified["memory.oom.group"], &*found.unified["cpuset.cpus.partition"]), ("1", "isolated"));
    assert_eq!(found.unified["misc.max"], "sev 2\ntdx max");
    let cpu = found.cpu.unwrap();
    assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
    assert_eq!(Limits::new().to_oci().unwrap(), Resources::default());
    let swap_alone = Limits::new().swap(5).to_oci().unwrap_err();
    assert_eq!((swap_alone.kind(), swap_alone.path().to_str()), (ErrorKind::Unsupported, Some("memory.swap")));
}

/// 0 is "not set" there, and a rate of 0 no limit at all: what is none may not become more.
#[test]
fn a_limit_of_zero_is_refused_where_it_cannot_be_said() {
    let disk = |set: fn(IoDeviceLimits) -> IoDeviceLimits| {
        Limits::new().io_device(Device::new(8, 0), set(IoDeviceLimits::new()))
    };
    let mut low = Limits::new();
    low.memory.low = Some(Max::Limit(0));
    let mut runtime = Limits::new();
    runtime.cpu.realtime_runtime = Some(Max::Limit(Duration::ZERO));
    let mut period = Limits::new();
    period.cpu.realtime_period = Some(Duration::from_nanos(1));
    let table = [
        (Limits::new().memory(0), "memory.limit"),
        (Limits::new().memory(0).swap(0), "memory.limit"),
        (Limits::new().memory(u64::MAX), "memory.limit"),
        (low, "memory.reservation"),
        (Limits::new().memory(5).swap(i64::MAX.cast_unsigned()), "memory.swap"),
        (runtime, "cpu.realtimeRuntime"),
        (period, "cpu.realtimePeriod"),
        (Limits::new().pids(u64::MAX), "pids.limit"),
        (disk(|disk| disk.read_bytes(0)), "blockIO.throttleReadBpsDevice"),
        (disk(|disk| disk.write_bytes(0)), "blockIO.throttleWriteBpsDevice"),
        (disk(|disk| disk.read_operations(0)), "blockIO.throttleReadIOPSDevice"),
        (disk(|disk| disk.write_operations(0)), "blockIO.throttleWriteIOPSDevice"),
    ];
    for (limits, setting) in table {
        let error = limits.to_oci().unwrap_err();
        assert_eq!((error.kind(), error.path().to_str()), (ErrorKind::Unsupported, Some(setting)), "{error}");
    }
    let none = Limits::new().pids(0).hugetlb("2MB".parse().unwrap(), 0);
    assert_eq!(none.to_oci().unwrap().to_limits().unwrap().limits, none);
}

/// As where they are applied: the files are written last.
#[test]
fn files_win_over_settings() {
    let mut from = Limits::new().memory_high(4096);
    from.files.insert("memory.high".to_owned(), "8192".to_owned());
    assert_eq!(from.to_oci().unwrap().unified["memory.high"], "8192");
}

/// The whole range of each.
#[test]
fn every_weight_and_every_share_comes_back() {
    let back = |from: &Resources| from.to_limits().unwrap().limits.to_oci().unwrap();
    for shares in 2..=262_144 {
        let from = Resources { cpu: Some(Cpu { shares: Some(shares), ..Cpu::default() }), ..Resources::default() };
        assert_eq!(back(&from), from);
    }
    for weight in 10..=1000 {
        let block_io = BlockIo { weight: Some(weight), ..BlockIo::default() };
        let from = Resources { block_io: Some(block_io), ..Resources::default() };
        assert_eq!(back(&from), from);
    }
}

fn any_limit() -> impl Strategy<Value = Option<Max<u64>>> {
    let number = prop_oneof![1 => Just(0), 8 => 1..1u64 << 40, 1 => any::<u64>()];
    prop::option::weighted(0.4, prop_oneof![1 => Just(Max::Max), 4 => number.prop_map(Max::Limit)])
}

fn any_time(least: u64, most: u64) -> impl Strategy<Value = Option<Duration>> {
    prop::option::of(prop_oneof![Just(least), least..=most].prop_map(Duration::from_micros))
}

prop_compose! {
    fn any_memory()(max in any_limit(), swap in any_limit(), low in any_limit(), swappiness in prop::option::of(0u64..=100),
        oom_killer: Option<bool>) -> MemoryLimits
    {
        MemoryLimits { max, swap, low, swappiness, oom_killer, ..MemoryLimits::default() }
    }
}

prop_compose! {
    fn any_cpu()(weight in prop::option::of(0u64..=262_144), quota in any_time(1000, 1 << 40), period in any_time(1000, 1_000_000),
        burst in any_time(0, 1 << 40), idle: Option<bool>, runtime in any_time(0, 1 << 40), realtime in any_time(0, 1 << 40),
        no_quota in prop::bool::weighted(0.2)) -> CpuLimits
    {
        CpuLimits {
            weight: weight.map(CpuWeight::from_shares),
            quota: if no_quota { Some(Max::Max) } else { quota.map(|time| Max::Limit(CpuQuota::time(time).unwrap())) },
            period: period.map(|period| CpuPeriod::new(period).unwrap()),
            burst,
            idle,
            realtime_runtime: runtime.map(Max::Limit),
            realtime_period: realtime,
        }
    }
}

prop_compose! {
    fn any_disk()(read_bytes in any_limit(), write_bytes in any_limit(), read_operations in any_limit(),
        write_operations in any_limit(), weight in 10u64..=1000) -> IoDeviceLimits
    {
        let weight = Some(IoWeight::from_blkio(weight));
        IoDeviceLimits { read_bytes, write_bytes, read_operations, write_operations, weight, latency: None }
    }
}

prop_compose! {
    /// Those for which there are settings, and not only files.
    fn any_limits()(memory in any_memory(), cpu in any_cpu(), pids in any_limit(), disk in prop::option::of(any_disk()),
        pages in any_limit(), rdma_limit in any_limit(), class: Option<u32>, weight in prop::option::of(10u64..=1000)) -> Limits
    {
        let mut limits = Limits { cpu, pids, memory, ..Limits::new() };
        limits.io.weight = weight.map(IoWeight::from_blkio);
        limits.io.devices.extend(disk.map(|disk| (Device::new(8, 0), disk)));
        limits.hugetlb.extend(pages.map(|pages| ("2MB".parse().unwrap(), pages)));
        let rdma = |limit| ("mlx5_1".to_owned(), RdmaLimits { handles: Some(limit), objects: None });
        limits.rdma.extend(rdma_limit.map(rdma));
        limits.network.class = class;
        limits
    }
}

proptest! {
    #[test]
    fn a_document_comes_back(
        memory in 1i64.., swap in prop::option::of(0i64..1 << 40), quota in 1000i64..1 << 40, period in 1000u64..=1_000_000,
        pids in -1i64..4_194_304, rate: u64, allow: bool,
    ) {
        let json = format!(
            r#"{{ "memory": {{ "limit": {memory}{} }}, "cpu": {{ "quota": {quota}, "period": {period} }},
            "pids": {{ "limit": {pids} }},
            "blockIO": {{ "throttleReadBpsDevice": [ {{ "major": 8, "minor": 1, "rate": {rate} }} ] }},
            "devices": [ {{ "allow": {allow}, "access": "rwm" }}, {{ "allow": {}, "type": "b", "major": 8, "access": "r" }} ] }}"#,
            swap.map(|swap| format!(r#", "swap": {}"#, memory.saturating_add(swap))).unwrap_or_default(), !allow,
        );
        let from = parse(&json);
        prop_assert_eq!(from.to_limits().unwrap().limits.to_oci().unwrap(), from);
    }

    /// What was converted is the same, or refused; it is never something else.
    #[test]
    fn limits_come_back(from in any_limits()) {
        match from.to_oci() {
            Ok(resources) => prop_assert_eq!(limits(&serde_json::to_string(&resources).unwrap()), from),
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error),
        }
    }

    #[test]
    fn never_panics(number: i64, other: u64, text in "[a-z0-9:,*-]{0,6}") {
        let json = format!(
            r#"{{ "memory": {{ "limit": {number}, "swap": {number} }}, "cpu": {{ "quota": {number}, "period": {other},
            "burst": {other}, "realtimeRuntime": {number}, "cpus": "{text}" }}, "pids": {{ "limit": {number} }},
            "devices": [ {{ "allow": true, "type": "c", "major": {number}, "access": "{text}" }} ],
            "hugepageLimits": [ {{ "pageSize": "{text}", "limit": {other} }} ] }}"#
        );
        if let Ok(converted) = parse(&json).to_limits() {
            let _ = converted.limits.to_oci();
        }
    }
}
