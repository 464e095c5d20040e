use super::*;
use crate::limits::{Access, CpuQuota, CpuWeight, Device, IoDeviceLimits, IoWeight};
use proptest::prelude::*;

const DRIVERS: &[u8] = b"Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  1 ramdisk\n  8 sd\n";

fn limits(limits: &Limits) -> Properties {
    let mut properties = Properties::default();
    of_limits(limits, CpuPeriod::DEFAULT, DRIVERS, &mut properties).unwrap();
    properties
}

fn names(properties: &Properties) -> Vec<&'static str> {
    properties.list.iter().map(|(name, _)| *name).collect()
}

#[test]
fn a_scope_a_service_and_a_slice() {
    let scope = of_unit(&Unit::scope("a.scope", [7, 8]).description("x").in_slice("b.slice"), DRIVERS).unwrap();
    let expected = [
        ("Description", Value::Text("x".to_owned())),
        ("Slice", Value::Text("b.slice".to_owned())),
        ("PIDs", Value::Processes(vec![7, 8])),
        ("Delegate", Value::Bool(true)),
    ];
    assert_eq!(scope.list, expected);
    let service = of_unit(&Unit::service("a.service", "/bin/echo", ["y"]), DRIVERS).unwrap();
    let arguments = vec!["/bin/echo".to_owned(), "y".to_owned()];
    assert_eq!(service.list[0], ("ExecStart", Value::Program("/bin/echo".to_owned(), arguments)));
    assert_eq!(service.list[1], ("Delegate", Value::Bool(true)));
    let slice = of_unit(&Unit::slice("a.slice").limits(Limits::new().pids(5)), DRIVERS).unwrap();
    assert_eq!(names(&slice), ["TasksMax"]);
    let mut short = Unit::scope("a.scope", [7]);
    short.runtime_max = Some(Duration::from_secs(1));
    let short = of_unit(&short, DRIVERS).unwrap();
    assert_eq!(short.list.last(), Some(&("RuntimeMaxUSec", Value::Number(1_000_000))));
}

/// systemd rounds up to 10 ms in a second.
#[test]
fn quotas_are_those_of_a_second() {
    let table = [
        (CpuQuota::cores(0.2), None, 200_000),
        (CpuQuota::cores(1.5), Some(10), 1_500_000),
        (CpuQuota::cores(0.333), None, 340_000),
        (CpuQuota::time(Duration::from_millis(1)), Some(1000), 10_000),
        (CpuQuota::time(Duration::from_micros(1_001)), Some(100), 20_000),
    ];
    for (quota, period, expected) in table {
        let mut wanted = Limits::new().cpu_quota(quota.unwrap());
        wanted.cpu.period = period.map(|ms| CpuPeriod::new(Duration::from_millis(ms)).unwrap());
        assert_eq!(limits(&wanted).list.last().unwrap(), &("CPUQuotaPerSecUSec", Value::Number(expected)));
    }
    assert_eq!(limits(&Limits::new().cpu_quota(Max::Max)).list, [("CPUQuotaPerSecUSec", Value::Number(u64::MAX))]);
}

#[test]
fn a_time_is_one_of_the_period_in_force() {
    let ms = |ms| CpuPeriod::new(Duration::from_millis(ms)).unwrap();
    let time = CpuQuota::time(Duration::from_millis(5)).unwrap();
    let table = [
        (time, None, 500_000, true),
        (time, Some(20), 250_000, false),
        (CpuQuota::cores(0.3).unwrap(), None, 300_000, false),
    ];
    for (quota, given, expected, needs) in table {
        let mut wanted = Limits::new().cpu_quota(quota);
        wanted.cpu.period = given.map(ms);
        let mut found = Properties::default();
        of_limits(&wanted, ms(10), DRIVERS, &mut found).unwrap();
        assert_eq!(found.list.last().unwrap(), &("CPUQuotaPerSecUSec", Value::Number(expected)));
        assert_eq!(needs_period(&wanted.cpu), needs, "{quota:?} {given:?}");
    }
    assert!(!needs_period(&Limits::new().cpu_quota(Max::Max).cpu) && !needs_period(&Limits::new().cpu));
    let told = [None, Some(u64::MAX), Some(10_000), Some(0), Some(2_000_000)].map(period);
    assert_eq!(told, [ms(100), ms(100), ms(10), ms(1), ms(1000)]);
}

#[test]
fn each_limit_has_its_property() {
    let disk = IoDeviceLimits::new().read_bytes(5).write_operations(Max::Max);
    let mut wanted = Limits::new()
        .cpu_weight(CpuWeight::new(7).unwrap())
        .cpus("0-1,9".parse().unwrap())
        .memory(4096)
        .swap(Max::Max)
        .memory_high(2048)
        .pids(3)
        .io_weight(IoWeight::new(50).unwrap())
        .io_device(Device::new(8, 0), disk);
    wanted.cpu.idle = Some(false);
    let rates = |rate| Value::Numbers(vec![("/dev/block/8:0".to_owned(), rate)]);
    let expected = [
        ("CPUWeight", Value::Number(7)),
        ("AllowedCPUs", Value::Bits(vec![3, 2])),
        ("MemoryHigh", Value::Number(2048)),
        ("MemoryMax", Value::Number(4096)),
        ("MemorySwapMax", Value::Number(u64::MAX)),
        ("TasksMax", Value::Number(3)),
        ("IOWeight", Value::Number(50)),
        ("IOReadBandwidthMax", rates(5)),
        ("IOWriteIOPSMax", rates(u64::MAX)),
    ];
    let found = limits(&wanted);
    assert_eq!(found.list, expected);
    assert!(found.skipped.is_empty());
}

/// Idle is a weight to systemd, so that there can be only one of both.
#[test]
fn idle_is_a_weight() {
    let weight = |idle, weight: Option<u32>| {
        let mut wanted = Limits::new();
        wanted.cpu.idle = idle;
        wanted.cpu.weight = weight.map(|weight| CpuWeight::new(weight).unwrap());
        let found = limits(&wanted);
        assert!(names(&found).iter().all(|name| *name == "CPUWeight") && found.list.len() < 2);
        let skipped: Vec<_> = found.skipped.iter().map(|error| error.path().display().to_string()).collect();
        (found.list.first().map(|(_, value)| value.clone()), skipped.concat())
    };
    let table = [
        (None, None, None, ""),
        (None, Some(7), Some(7), ""),
        (Some(false), Some(7), Some(7), ""),
        (Some(false), None, Some(100), ""),
        (Some(true), None, Some(0), ""),
        (Some(true), Some(7), Some(0), "cpu.weight"),
    ];
    for (idle, given, expected, skipped) in table {
        let expected = (expected.map(Value::Number), skipped.to_owned());
        assert_eq!(weight(idle, given), expected, "{idle:?} {given:?}");
    }
}

/// systemd allows every major that has the name, and takes the name for a pattern.
#[test]
fn a_driver_is_named_only_if_the_name_is_its_own() {
    let drivers = b"Character devices:\n  4 /dev/vc/0\n  4 tty\n  5 tty\n  7 vcs\n  9 a*\n 10 a[b]\n 11 a?\n 12 a\\b\n\
        13 two words\n 14\n 15 both\n 16 vc\n\nBlock devices:\n  8 sd\n 15 other\n 16 both\n 65 sd\n";
    let char = |major| driver(drivers, DeviceKind::Char, major);
    assert_eq!(char(4).as_deref(), Some("/dev/vc/0"));
    assert_eq!((char(7).as_deref(), char(16).as_deref()), (Some("vcs"), Some("vc")));
    assert_eq!((char(13).as_deref(), char(15).as_deref()), (Some("two words"), Some("both")));
    for none in [5, 9, 10, 11, 12, 14, 17] {
        assert_eq!(char(none), None, "{none}");
    }
    let block = |major| driver(drivers, DeviceKind::Block, major);
    assert_eq!((block(8), block(65)), (None, None));
    let mut wanted = Limits::new();
    wanted.devices = Some(Devices::none().except([DeviceRule::all(DeviceKind::Block, Some(8), Access::READ)]));
    let mut properties = Properties::default();
    of_limits(&wanted, CpuPeriod::DEFAULT, drivers, &mut properties).unwrap();
    assert_eq!(properties.skipped[0].path().to_str(), Some("devices: b 8:* r"));
    assert_eq!(properties.list[1].1, Value::Text("strict".to_owned()));
}

#[test]
fn what_has_no_property_is_told() {
    let mut wanted = Limits::new().hugetlb("2MB".parse().unwrap(), 5);
    wanted.memory.oom_killer = Some(false);
    wanted.cpu.burst = Some(Duration::ZERO);
    wanted.files.insert("memory.zswap.max".to_owned(), "0".to_owned());
    let found = limits(&wanted);
    let skipped: Vec<_> = found.skipped.iter().map(|error| error.path().display().to_string()).collect();
    assert_eq!(skipped, ["cpu.max.burst", "memory.oom_control", "hugetlb", "memory.zswap.max"]);
    assert!(found.list.is_empty());
}

#[test]
fn the_list_of_devices_comes_before_the_policy() {
    let rules = [
        DeviceRule::char(1, 3),
        DeviceRule::all(DeviceKind::Char, Some(136), Access::all()),
        DeviceRule::all(DeviceKind::Block, None, Access::MKNOD),
        DeviceRule::all(DeviceKind::Block, Some(77), Access::READ),
    ];
    let mut wanted = Limits::new();
    wanted.devices = Some(Devices::none().except(rules));
    let found = limits(&wanted);
    assert_eq!(names(&found), ["DeviceAllow", "DeviceAllow", "DevicePolicy"]);
    let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let list = vec![text("/dev/char/1:3", "rw"), text("char-pts", "rwm"), text("block-*", "m")];
    assert_eq!(found.list[1].1, Value::Rules(list));
    assert_eq!(found.list[2].1, Value::Text("strict".to_owned()));
    // A driver without a name, and an exception that forbids.
    assert_eq!(found.skipped[0].path().to_str(), Some("devices: b 77:* r"));
    wanted.devices = Some(Devices::all().except([DeviceRule::char(1, 3)]));
    let found = limits(&wanted);
    assert_eq!(
        (found.list.last().unwrap(), found.skipped.len()),
        (&("DevicePolicy", Value::Text("auto".to_owned())), 1)
    );
}

proptest! {
    #[test]
    fn a_quota_is_never_less_than_asked_for(quota in 1_000u64..1 << 40, period in 1_000u64..=1_000_000) {
        let found = u128::from(per_second(quota, period));
        prop_assert!(found % 10_000 == 0);
        let exact = u128::from(quota) * 1_000_000;
        prop_assert!(found * u128::from(period) >= exact);
        prop_assert!((found - 10_000) * u128::from(period) < exact);
    }

    #[test]
    fn bits_are_those_of_the_list(ids in prop::collection::btree_set(0u32..200, 0..20)) {
        let list = IdList::new(ids.iter().copied()).unwrap();
        let found = bits(&list);
        let set = |id: u32| found.get(id as usize / 8).is_some_and(|byte| byte >> (id % 8) & 1 == 1);
        prop_assert!((0..256).all(|id| set(id) == ids.contains(&id)));
    }

    #[test]
    fn drivers_never_panic(text: Vec<u8>, major: u32) {
        let _ = driver(&text, DeviceKind::Char, major);
    }
}

/// Or the program would be given what systemd's environment has under that name.
#[test]
fn arguments_are_no_variables() {
    let unit = Unit::service("a.service", "/bin/$x", ["$HOME", "a${HOME}", "$$", "plain"]);
    let found = of_unit(&unit, DRIVERS).unwrap();
    let words = ["/bin/$$x", "$$HOME", "a$${HOME}", "$$$$", "plain"].map(str::to_owned);
    assert_eq!(found.list[0], ("ExecStart", Value::Program("/bin/$x".to_owned(), words.into())));
}
