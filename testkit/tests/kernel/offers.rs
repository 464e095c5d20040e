//! What each place offers: one test for each need, which must be met inside the test too, where the
//! namespaces and cgroups are the test's own. `places.txt` says what must be offered where.

use cofferdam_testkit::{Layout, Need, Test};

macro_rules! offer {
    ($name:literal, $need:expr) => {
        Test::new($name, || $need.check().unwrap()).needs(&[$need])
    };
}

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        offer!("offers_root", Need::Root),
        offer!("offers_an_ordinary_user", Need::OrdinaryUser),
        offer!("offers_user_namespaces", Need::Userns),
        offer!("offers_overlay", Need::Overlay),
        offer!("offers_veth", Need::Veth),
        offer!("offers_vxlan", Need::Vxlan),
        offer!("offers_a_gib_of_memory", Need::Memory(1 << 30)),
        offer!("offers_layout_v1", Need::CgroupLayout(Layout::V1)),
        offer!("offers_layout_v2", Need::CgroupLayout(Layout::V2)),
        offer!("offers_layout_hybrid", Need::CgroupLayout(Layout::Hybrid)),
        offer!("offers_cgroup_cpu", Need::Cgroup("cpu")),
        offer!("offers_cgroup_v2", Need::CgroupV2Tree),
        offer!("offers_v1_cpu", Need::CgroupV1("cpu")),
        offer!("offers_v1_cpuacct", Need::CgroupV1("cpuacct")),
        offer!("offers_v1_cpuset", Need::CgroupV1("cpuset")),
        offer!("offers_v1_memory", Need::CgroupV1("memory")),
        offer!("offers_v1_devices", Need::CgroupV1("devices")),
        offer!("offers_v1_freezer", Need::CgroupV1("freezer")),
        offer!("offers_v1_blkio", Need::CgroupV1("blkio")),
        offer!("offers_v1_pids", Need::CgroupV1("pids")),
        offer!("offers_v1_net_cls", Need::CgroupV1("net_cls")),
        offer!("offers_v1_net_prio", Need::CgroupV1("net_prio")),
        offer!("offers_v1_hugetlb", Need::CgroupV1("hugetlb")),
        offer!("offers_v1_perf_event", Need::CgroupV1("perf_event")),
        offer!("offers_v1_rdma", Need::CgroupV1("rdma")),
        offer!("offers_v1_misc", Need::CgroupV1("misc")),
        offer!("offers_v2_cpu", Need::CgroupV2("cpu")),
        offer!("offers_v2_cpuset", Need::CgroupV2("cpuset")),
        offer!("offers_v2_io", Need::CgroupV2("io")),
        offer!("offers_v2_memory", Need::CgroupV2("memory")),
        offer!("offers_v2_pids", Need::CgroupV2("pids")),
        offer!("offers_v2_hugetlb", Need::CgroupV2("hugetlb")),
        offer!("offers_v2_rdma", Need::CgroupV2("rdma")),
        offer!("offers_v2_misc", Need::CgroupV2("misc")),
    ];
    tests.push(Test::new("is_alone", is_alone).needs(&[Need::Root]));
    tests.push(Test::new("is_in_its_own_cgroup", is_in_its_own_cgroup).needs(&[Need::Cgroup("cpu")]));
    tests
}

/// What each test has as root: a pid namespace in which little else lives, no link but lo.
fn is_alone() {
    assert!(std::process::id() < 10, "{}", std::process::id());
    assert_eq!(nix::unistd::getppid().as_raw(), 1);
    let dev = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let links: Vec<&str> = dev.lines().filter_map(|l| Some(l.split_once(':')?.0.trim())).collect();
    assert_eq!(links, ["lo"]);
}

/// The test's own cgroup in the hierarchy that it asked for.
fn is_in_its_own_cgroup() {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    assert!(own.lines().any(|l| l.contains("/cofferdam-test-")), "{own}");
}
