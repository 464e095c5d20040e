use super::*;
use proptest::prelude::*;

/// A hybrid without systemd, with one tree per controller; the process has a memory cgroup of its own.
const SPLIT_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const SPLIT_CGROUP: &str = "\
9:name=systemd:/
8:pids:/
6:freezer:/
4:memory:/api/d767af28
3:cpuset:/
2:cpuacct:/
1:cpu:/
0::/
";

/// systemd's hybrid, as Debian 10 has it: cpu and cpuacct are co-mounted.
const SYSTEMD_MOUNTS: &str = "\
25 18 0:22 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:24 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,xattr,name=systemd
30 25 0:27 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,pids
33 25 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,cpu,cpuacct
36 25 0:33 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:20 - cgroup cgroup rw,freezer
";
const SYSTEMD_CGROUP: &str = "\
7:pids:/user.slice/user-1000.slice/session-2.scope
5:freezer:/
3:cpu,cpuacct:/user.slice
1:name=systemd:/user.slice/user-1000.slice/session-2.scope
0::/user.slice/user-1000.slice/session-2.scope
";

fn tree_with(trees: &[Mounted], subsystem: Subsystems) -> &Mounted {
    trees.iter().find(|tree| tree.subsystems.contains(subsystem)).unwrap()
}

fn only_view(tree: &Mounted) -> (&str, &str) {
    assert_eq!(tree.views.len(), 1);
    let view = &tree.views[0];
    (view.point.to_str().unwrap(), view.own.to_str().unwrap())
}

fn found(mounts: &str, cgroup: &str) -> (Layout, Vec<Mounted>) {
    find(mounts.as_bytes(), cgroup.as_bytes()).unwrap()
}

#[test]
fn hybrid_with_one_tree_per_controller() {
    let (layout, trees) = found(SPLIT_MOUNTS, SPLIT_CGROUP);
    assert_eq!(layout, Layout::Hybrid);
    // cpu, cpuacct, cpuset, memory, freezer, pids, unified: not the named one.
    assert_eq!(trees.len(), 7);
    let cpu = tree_with(&trees, Subsystems::CPU);
    assert_eq!(only_view(cpu), ("/sys/fs/cgroup/cpu", ""));
    assert_eq!(cpu.device, (0, 29));
    assert_eq!(only_view(tree_with(&trees, Subsystems::MEMORY)), ("/sys/fs/cgroup/memory", "api/d767af28"));
    let unified = trees.iter().find(|t| t.version == Version::V2).unwrap();
    assert_eq!(only_view(unified), ("/sys/fs/cgroup/unified", ""));
}

#[test]
fn co_mounted_controllers_are_one_tree() {
    let (layout, trees) = found(SYSTEMD_MOUNTS, SYSTEMD_CGROUP);
    assert_eq!(layout, Layout::Hybrid);
    let cpu = tree_with(&trees, Subsystems::CPU);
    assert_eq!(cpu.subsystems, Subsystems::CPU | Subsystems::CPUACCT);
    assert_eq!(only_view(cpu), ("/sys/fs/cgroup/cpu,cpuacct", "user.slice"));
    // The paths differ from tree to tree.
    let pids = tree_with(&trees, Subsystems::PIDS);
    assert_eq!(only_view(pids).1, "user.slice/user-1000.slice/session-2.scope");
}

#[test]
fn v1_in_a_container_whose_mounts_show_its_own_part() {
    let mounts = "\
700 690 0:27 /docker/4f0e/sub /sys/fs/cgroup/pids ro,nosuid,nodev,noexec,relatime master:14 - cgroup cgroup rw,pids
701 690 0:30 /docker/4f0e /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,cpu,cpuacct
";
    let cgroup = "7:pids:/docker/4f0e\n3:cpu,cpuacct:/docker/4f0e/docker/77\n";
    let (layout, trees) = found(mounts, cgroup);
    assert_eq!(layout, Layout::V1);
    let cpu = tree_with(&trees, Subsystems::CPU);
    assert_eq!(only_view(cpu), ("/sys/fs/cgroup/cpu,cpuacct", "docker/77"));
    // The mount shows something below one's own cgroup only: there is no place for us.
    assert!(tree_with(&trees, Subsystems::PIDS).views.is_empty());
}

#[test]
fn v2_on_a_host_and_in_a_cgroup_namespace() {
    let host = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    let (layout, trees) = found(host, "0::/user.slice/user-1000.slice/session-3.scope\n");
    assert_eq!(layout, Layout::V2);
    assert_eq!(only_view(&trees[0]).1, "user.slice/user-1000.slice/session-3.scope");

    let container = "1084 1077 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n";
    let (_, trees) = found(container, "0::/\n");
    assert_eq!(only_view(&trees[0]), ("/sys/fs/cgroup", ""));
}

#[test]
fn own_cgroup_outside_of_the_namespace_or_the_mount() {
    let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let (_, trees) = found(mounts, "0::/../other\n");
    assert!(trees[0].views.is_empty());
    // A mount from outside the namespace, and a process two levels below its root, names unknown.
    let outside = "30 23 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let (_, trees) = found(outside, "0::/\n");
    assert!(trees[0].views.is_empty());
    // Here the names are known.
    let (_, trees) = found(outside, "0::/../../other/x\n");
    assert_eq!(only_view(&trees[0]).1, "other/x");
}

#[test]
fn a_prefix_is_a_directory_not_a_text() {
    let mounts = "30 23 0:26 /ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert!(found(mounts, "0::/abc\n").1[0].views.is_empty());
}

#[test]
fn several_mounts_of_one_tree_writable_first() {
    let mounts = "\
30 23 0:26 / /ro ro - cgroup2 cgroup2 rw
31 23 0:26 / /rw rw - cgroup2 cgroup2 rw
32 23 0:26 / /rw2 rw - cgroup2 cgroup2 rw
";
    let (_, trees) = found(mounts, "0::/a\n");
    let points: Vec<_> = trees[0].views.iter().map(|v| v.point.clone()).collect();
    assert_eq!(points, ["/rw", "/rw2", "/ro"].map(PathBuf::from));
}

#[test]
fn colons_escapes_and_deleted() {
    let mounts = "30 23 0:26 / /a\\040b rw - cgroup2 cgroup2 rw\n";
    let (_, trees) = found(mounts, "0::/sys:a:b/x (deleted)\n");
    assert_eq!(only_view(&trees[0]), ("/a b", "sys:a:b/x (deleted)"));
}

#[test]
fn nothing_mounted() {
    assert_eq!(find(b"23 28 0:21 / /sys rw - sysfs sysfs rw\n", b"0::/\n"), None);
    assert_eq!(find(b"", b""), None);
}

#[test]
fn layout_names() {
    let names = [Layout::V1, Layout::V2, Layout::Hybrid].map(|layout| layout.to_string());
    assert_eq!(names, ["v1", "v2", "hybrid"]);
}

proptest! {
    #[test]
    fn never_panics(mounts: Vec<u8>, cgroup: Vec<u8>) {
        let _ = find(&mounts, &cgroup);
    }

    /// Damaged real text: a byte changed, and cut off somewhere.
    #[test]
    fn never_panics_on_damaged_text(at in 0..SYSTEMD_MOUNTS.len(), byte: u8, cut in 0..SYSTEMD_CGROUP.len()) {
        let mut mounts = SYSTEMD_MOUNTS.as_bytes().to_vec();
        mounts[at] = byte;
        let _ = find(&mounts, &SYSTEMD_CGROUP.as_bytes()[..cut]);
    }

    /// Whatever the texts say, a place is below the mount.
    #[test]
    fn a_place_never_leads_up(own in "(/(\\.\\.|\\.|[a-b]{1,2})){0,4}/?", root in "(/(\\.\\.|[a-b]{1,2})){0,3}|/") {
        let mounts = format!("30 23 0:26 {root} /m rw - cgroup2 cgroup2 rw\n");
        if let Some((_, trees)) = find(mounts.as_bytes(), format!("0::{own}\n").as_bytes()) {
            for view in trees.iter().flat_map(|tree| &tree.views) {
                prop_assert!(view.own.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}

/// An option of the tree, of v1 as well as of v2, however it is mounted.
#[test]
fn trees_for_fast_moves_are_known() {
    let is_fast = |mounts: &str| found(mounts, SPLIT_CGROUP).1.iter().map(|tree| tree.favordynmods).collect::<Vec<_>>();
    let mounts = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,favordynmods
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate,favordynmods,memory_recursiveprot
";
    assert_eq!(is_fast(mounts), [true, false, true]);
    assert!(!is_fast(SPLIT_MOUNTS).contains(&true));
}
