//! What it measures.

use crate::support::{all_cpus, outcome, program};
use cofferdam_cgroups::{Controllers, CpuQuota, Hierarchy, Limits};
use cofferdam_testkit::Layout;
use serde_json::Value;
use std::fs;
use std::thread::available_parallelism;

/// One run, and that it says what it should: the values of its JSON object.
struct Figures {
    limit: f64,
    expected: f64,
    unlimited: f64,
    limited: f64,
    throttled: u64,
    remarks: String,
}

fn run(args: &[&str]) -> Figures {
    let output = program(&["--json", "--seconds", "2"]).args(args).output().unwrap();
    let (code, out, err) = outcome(&output);
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    assert!(out.ends_with("}\n") && out.lines().count() == 1, "one line: {out}");
    let json: Value = serde_json::from_str(out).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 6, "{out}");
    let layout = match Layout::of_this_machine().unwrap() {
        Layout::V1 => "v1",
        Layout::V2 => "v2",
        Layout::Hybrid => "hybrid",
    };
    assert_eq!(json["layout"], layout);
    let number = |name: &str| json[name].as_f64().unwrap_or_else(|| panic!("{name}: {out}"));
    Figures {
        limit: number("limit_percent"),
        expected: number("expected_percent"),
        unlimited: number("unlimited_percent"),
        limited: number("limited_percent"),
        throttled: json["nr_throttled"].as_u64().unwrap(),
        remarks: err.to_owned(),
    }
}

/// It is what was asked for, and only the limit kept it there.
fn assert_held(percent: f64, more: &[&str]) -> Figures {
    let cpu = format!("{percent}%");
    let figures = run(&[&["--cpu", &cpu], more].concat());
    let Figures { limit, expected, unlimited, limited, .. } = figures;
    assert!(is(limit, percent) && is(expected, percent), "{limit} {expected}");
    assert!((limited - percent).abs() <= (percent * 0.1).max(3.0), "{limited}");
    assert!(unlimited > limited, "{unlimited} {limited}");
    assert_eq!(figures.remarks, "");
    figures
}

fn is(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.01
}

fn cpus() -> f64 {
    f64::from(u32::try_from(available_parallelism().unwrap().get()).unwrap())
}

pub(crate) fn holds_10_20_and_50_percent() {
    let _turn = all_cpus();
    for percent in [10.0, 20.0, 50.0] {
        let throttled = assert_held(percent, &[]).throttled;
        // Of 20 periods.
        assert!((15..=21).contains(&throttled), "{throttled}");
    }
}

pub(crate) fn holds_150_percent() {
    let _turn = all_cpus();
    assert!(cpus() >= 2.0, "this place must have two CPUs");
    assert!(assert_held(150.0, &[]).throttled >= 10);
}

pub(crate) fn holds_in_other_periods() {
    let _turn = all_cpus();
    assert!(assert_held(20.0, &["--period", "20ms"]).throttled >= 50);
    assert!((2..=4).contains(&assert_held(20.0, &["--period", "700ms"]).throttled));
}

pub(crate) fn a_limit_above_the_machine() {
    let _turn = all_cpus();
    let figures = run(&["--cpu", "4000"]);
    assert!(is(figures.limit, 400_000.0) && is(figures.expected, cpus() * 100.0), "{}", figures.expected);
    assert!(figures.remarks.contains("without effect") && figures.remarks.lines().count() == 1, "{}", figures.remarks);
    assert_eq!(figures.throttled, 0);
}

pub(crate) fn a_limit_above_that_of_the_cgroup_above() {
    let _turn = all_cpus();
    // On v2 the test is in a leaf beside which the program makes its own; on v1 that is below the test's.
    let mounts = fs::read("/proc/self/mountinfo").unwrap();
    let above = fs::read_to_string("/proc/self/cgroup").unwrap().replace("/leaf\n", "\n");
    let above = Hierarchy::from_proc(&mounts, above.as_bytes()).unwrap().own(Controllers::CPU).unwrap();
    above.apply(&Limits::new().cpu_quota(CpuQuota::cores(0.5).unwrap())).unwrap();
    let figures = run(&["--cpu", "80%"]);
    assert!(is(figures.limit, 80.0) && is(figures.expected, 50.0), "{}", figures.expected);
    assert!(figures.remarks.contains("without effect"), "{}", figures.remarks);
    assert!((figures.limited - 50.0).abs() <= 5.0, "{}", figures.limited);
}

pub(crate) fn one_thread_is_one_core_at_most() {
    let _turn = all_cpus();
    let figures = run(&["--cpu", "150%", "--threads", "1"]);
    assert!(is(figures.expected, 100.0), "{}", figures.expected);
    assert!(figures.remarks.contains("without effect"), "{}", figures.remarks);
    assert!(figures.unlimited < 105.0 && figures.limited < 105.0, "{} {}", figures.unlimited, figures.limited);
}

pub(crate) fn plain_lines_for_a_pipe() {
    let _turn = all_cpus();
    let output = program(&["--seconds", "2"]).output().unwrap();
    let (code, out, err) = outcome(&output);
    assert_eq!((code, err), (Some(0), ""), "{out}");
    for word in ["without a limit\n", "limited to 20.0 %", "unlimited ", "asked ", "deviation ", "throttled "] {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert!(!out.contains(['#', '[', '\r', '\x1b']), "{out}");
    assert_eq!(out.lines().filter(|line| line.contains(" s ") && line.ends_with(" %")).count(), 3, "{out}");
}
