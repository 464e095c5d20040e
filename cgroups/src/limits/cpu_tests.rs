use super::*;
use crate::ErrorKind;
use proptest::prelude::*;

#[test]
fn ends_and_defaults_of_weight_and_shares_meet() {
    for (shares, weight) in [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(CpuWeight::from_shares(shares).get(), weight, "{shares}");
    }
    for (weight, shares) in [(1, 2), (100, 1024), (10_000, 262_144)] {
        assert_eq!(CpuWeight::new(weight).unwrap().shares(), shares, "{weight}");
    }
}

#[test]
fn every_weight_survives_v1() {
    for weight in 1..=10_000 {
        let weight = CpuWeight::new(weight).unwrap();
        assert_eq!(CpuWeight::from_shares(weight.shares()), weight);
    }
}

#[test]
fn every_share_has_a_weight_and_the_order_stays() {
    let mut last = CpuWeight::new(1).unwrap();
    for shares in 2..=262_144 {
        let weight = CpuWeight::from_shares(shares);
        assert!(weight >= last);
        assert_eq!(weight.shares(), shares);
        last = weight;
    }
}

#[test]
fn ranges() {
    let kind = |error: Error| error.kind();
    assert!(CpuPeriod::new(Duration::from_millis(1)).is_ok());
    assert!(CpuPeriod::new(Duration::from_secs(1)).is_ok());
    for bad in [0, 999, 1_000_001] {
        let error = CpuPeriod::new(Duration::from_micros(bad)).unwrap_err();
        assert_eq!(kind(error), ErrorKind::InvalidInput);
    }
    assert!(CpuPeriod::new(Duration::from_nanos(1_000_000_001)).is_err());
    assert!(CpuPeriod::new(Duration::MAX).is_err());
    assert!(CpuQuota::time(Duration::from_micros(999)).is_err());
    assert!(CpuQuota::time(Duration::MAX).is_err());
    assert!(CpuQuota::time(CpuQuota::MAX).is_ok());
    for bad in [0.0, -5.0, 0.0009, 1e9, f64::NAN, f64::INFINITY] {
        assert_eq!(CpuQuota::cores(bad).map_err(kind), Err(ErrorKind::InvalidInput), "{bad}");
    }
    assert!(CpuWeight::new(0).is_err() && CpuWeight::new(10_001).is_err());
    assert!(CpuWeight::new(65_537).is_err());
}

#[test]
fn cores_become_a_time() {
    let ms = |n| CpuPeriod::new(Duration::from_millis(n)).unwrap();
    let quota = CpuQuota::cores(0.2).unwrap();
    let time = |period| quota.in_period(period).unwrap();
    assert_eq!(time(CpuPeriod::DEFAULT), Duration::from_millis(20));
    assert_eq!(time(ms(10)), Duration::from_millis(2));
    // 0.2 of 1 ms is less than the kernel takes.
    assert!(quota.in_period(ms(1)).is_err());
    assert_eq!(CpuQuota::cores(1.0 / 3.0).unwrap().in_period(ms(100)).unwrap(), Duration::from_micros(33_333));
}

#[test]
fn whole_cores_are_whole() {
    for period in [1_000, 10_000, 33_333, 50_000, 100_000, 300_000, 700_000, 1_000_000u32] {
        for cores in 1..=512u32 {
            let quota = CpuQuota::time(Duration::from_micros(u64::from(period) * u64::from(cores))).unwrap();
            let length = CpuPeriod::new(Duration::from_micros(u64::from(period))).unwrap();
            let limits = CpuLimits { quota: Some(Max::Limit(quota)), period: Some(length), ..CpuLimits::default() };
            assert_eq!(limits.cores(), Some(f64::from(cores)), "{period}");
        }
    }
}

proptest! {
    #[test]
    fn cores_in_any_period_stay_in_range(cores in 0.001f64..=4096.0, micros in 1_000u64..=1_000_000) {
        let period = CpuPeriod::new(Duration::from_micros(micros)).unwrap();
        if let Ok(time) = CpuQuota::cores(cores).unwrap().in_period(period) {
            prop_assert!((CpuQuota::MIN..=CpuQuota::MAX).contains(&time));
            let exact = cores * period.get().as_secs_f64();
            prop_assert!((time.as_secs_f64() - exact).abs() < 2e-6);
        }
    }
}
