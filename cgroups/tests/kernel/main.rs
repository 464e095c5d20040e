//! Tests on the real kernel: the same calls and the same observable results on every layout.
//!
//! Each test of the conformance list takes the hierarchy as a parameter. It runs with the layout that the machine has
//! and, on a hybrid machine, also with the unified tree left out, which is v1 alone.

mod actions;
mod allocator;
mod conformance;
mod controllers;
mod devices;
mod io;
mod limits;
mod memory;
mod mended;
mod network;
mod stats;
mod support;
mod traps;
mod trees;
mod v2;
mod view;

use std::process::ExitCode;

use cofferdam_testkit::{Layout, Need, Test};
use support::{detect, v1_only};

/// What v1 alone needs on a hybrid machine.
const NEEDS_V1: [Need; 5] = [
    Need::CgroupLayout(Layout::Hybrid),
    Need::CgroupV1("cpu"),
    Need::CgroupV1("cpuacct"),
    Need::CgroupV1("pids"),
    Need::CgroupV1("freezer"),
];

/// The same, with memory.
const NEEDS_V1_MEMORY: [Need; 6] = {
    let [layout, cpu, cpuacct, pids, freezer] = NEEDS_V1;
    [layout, cpu, cpuacct, pids, freezer, Need::CgroupV1("memory")]
};

/// What the limits of all controllers need: a cgroup of its own in every tree.
fn needs_all() -> Vec<Need> {
    let mut needs = needs_memory();
    needs.push(Need::Cgroup("cpuset"));
    needs.push(Need::Cgroup(limits::io_controller()));
    needs
}

/// The same, with v1 alone on a hybrid machine.
const NEEDS_V1_ALL: [Need; 8] = {
    let [layout, cpu, cpuacct, pids, freezer, memory] = NEEDS_V1_MEMORY;
    [layout, cpu, cpuacct, pids, freezer, memory, Need::CgroupV1("cpuset"), Need::CgroupV1("blkio")]
};

/// Starts a process that makes cgroups and waits to be killed: followed by the layout.
const LEAVES_A_TREE: &str = "--leaves-a-tree";

/// Starts a process with threads, that waits.
const WAITING_THREADS: &str = "--waiting-threads";

/// Starts a process for the threads of one test: followed by the layout.
const THREADS: &str = "--many-threads";

/// Starts what runs in a container, for the test that makes one.
const IN_A_CONTAINER: &str = "--in-a-container";

/// What the conformance list needs on this machine: a cgroup of its own in every tree that is used.
fn needs() -> Vec<Need> {
    let mut needs = vec![Need::Cgroup("cpu"), Need::Cgroup("pids")];
    match Layout::of_this_machine() {
        Ok(Layout::V1) => needs.extend([Need::CgroupV1("cpuacct"), Need::CgroupV1("freezer")]),
        Ok(Layout::Hybrid) => needs.extend([Need::CgroupV1("cpuacct"), Need::CgroupV2Tree]),
        Ok(Layout::V2) | Err(_) => {}
    }
    needs
}

/// The same, with memory.
fn needs_memory() -> Vec<Need> {
    let mut needs = needs();
    needs.push(Need::Cgroup("memory"));
    needs
}

/// Two tests of each function: with what the machine has, and with v1 alone on a hybrid machine.
macro_rules! on_every_layout {
    ($module:ident, $needs:expr, $needs_v1:expr, [$($name:ident),* $(,)?]) => {
        vec![$(
            Test::new(stringify!($name), || $module::$name(&detect())).needs($needs),
            Test::new(concat!(stringify!($name), "_v1"), || $module::$name(&v1_only())).needs($needs_v1),
        )*]
    };
}

/// They take longer than others.
fn threads_list() -> Vec<Test> {
    let tests = on_every_layout!(conformance, &needs(), &NEEDS_V1, [made_and_deleted_by_many_threads]);
    tests.into_iter().map(|test| test.time(std::time::Duration::from_secs(180))).collect()
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let [THREADS, layout] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        let found = detect();
        let is_whole = found.layout().to_string() == layout;
        conformance::many_threads(&if is_whole { found } else { v1_only() });
        return ExitCode::SUCCESS;
    }
    if let [LEAVES_A_TREE, layout] = args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        trees::leaves_a_tree(layout);
        return ExitCode::SUCCESS;
    }
    if args == [IN_A_CONTAINER] {
        trees::in_a_container();
        return ExitCode::SUCCESS;
    }
    if args == [WAITING_THREADS] {
        mended::waiting_threads();
        return ExitCode::SUCCESS;
    }
    let mut tests = conformance_list();
    tests.extend(threads_list());
    tests.extend(memory_list());
    tests.extend(mended_list());
    tests.extend(limits_list());
    tests.extend(stats_list());
    tests.push(view_list());
    tests.extend(controllers_list());
    tests.extend(devices_list());
    tests.extend(traps_list());
    tests.extend(trees_list());
    tests.extend(actions_list());
    tests.extend(v2_list());
    cofferdam_testkit::run(&tests)
}

fn conformance_list() -> Vec<Test> {
    on_every_layout!(
        conformance,
        &needs(),
        &NEEDS_V1,
        [
            made_where_it_belongs,
            deleting_is_idempotent,
            bad_names_change_nothing,
            nothing_is_left_of_a_failed_creation,
            attached_processes_are_in_every_tree,
            entry_is_a_way_in,
            limits_are_read_back,
            settings_that_are_none_are_left_alone,
            invalid_limits_write_nothing,
            a_quota_can_change_in_any_order_below_a_limited_parent,
            busy_loops_are_held_to_the_quota,
            pids_limit_stops_forks,
            kill_ends_a_fork_bomb,
            kill_ends_what_was_frozen,
            kill_reaches_what_is_below,
            kill_of_an_empty_cgroup_does_nothing,
            kill_spares_the_caller,
            kills_and_deletes_however_deep,
            populated_is_not_deleted,
            deletes_everything_below,
            anothers_cgroup_of_the_same_name_is_left_alone,
            a_guard_kills_and_deletes,
            own_is_neither_killed_nor_deleted,
            missing_controllers_are_named,
        ]
    )
}

fn memory_list() -> Vec<Test> {
    on_every_layout!(
        memory,
        &needs_memory(),
        &NEEDS_V1_MEMORY,
        [
            an_allocator_is_killed_at_the_limit,
            without_a_limit_nothing_is_killed,
            memory_in_use_is_told,
            memory_limits_are_read_back,
            memory_limits_change_in_any_order,
            swap_without_a_limit_of_memory,
            swap_that_is_not_counted,
            refused_limits_of_memory_change_nothing,
            a_limit_below_what_is_in_use,
            every_call_of_a_memory_limit_can_fail,
            a_peak_is_reset,
            a_peak_that_may_only_be_read_is_read,
        ]
    )
}

fn mended_list() -> Vec<Test> {
    let mut tests = on_every_layout!(
        mended,
        &needs(),
        &NEEDS_V1,
        [
            a_guard_can_be_closed_again,
            a_refused_quota_changes_nothing,
            best_effort_tells_what_was_skipped,
            what_a_caller_names_stays_in_the_cgroup,
        ]
    );
    let v1 = |name, run| Test::new(name, run).needs(&NEEDS_V1);
    tests.extend([
        v1("kills_many_with_few_descriptors", mended::kills_many_with_few_descriptors),
        v1("kill_reaches_who_is_in_one_tree_only", mended::kill_reaches_who_is_in_one_tree_only)
            .needs(&[Need::CgroupV2Tree]),
        v1("a_hybrid_does_without_its_unified_tree", mended::a_hybrid_does_without_its_unified_tree),
        v1("a_renamed_cgroup_is_not_taken_for_deleted", mended::a_renamed_cgroup_is_not_taken_for_deleted),
        Test::new("an_empty_cpuset_above_is_filled", mended::an_empty_cpuset_above_is_filled)
            .needs(&[Need::CgroupV1("cpuset"), Need::CgroupV1("freezer")]),
        Test::new("threads_of_others_cannot_be_killed", mended::threads_of_others_cannot_be_killed)
            .needs(&[Need::CgroupV2Tree]),
        Test::new("who_cannot_enter_is_told_why", mended::who_cannot_enter_is_told_why)
            .needs(&[Need::CgroupV2("cpu"), Need::CgroupV2("pids")]),
    ]);
    tests
}

fn limits_list() -> Vec<Test> {
    let mut tests = on_every_layout!(
        limits,
        &needs_all(),
        &NEEDS_V1_ALL,
        [every_limit_is_read_back, cpuset_is_seen_in_the_affinity, limits_of_a_device_are_read_back]
    );
    let disk = [Need::Root, Need::Program("losetup"), Need::Cgroup(limits::io_controller())];
    tests.push(
        Test::new("reading_is_held_to_the_limit", || io::reading_is_held_to_the_limit(&detect()))
            .needs(&needs())
            .needs(&disk),
    );
    tests.push(
        Test::new("weights_are_those_of_bfq", || io::weights_are_those_of_bfq(&detect()))
            .needs(&needs())
            .needs(&disk)
            .needs(&[Need::File("/sys/fs/cgroup/blkio/blkio.bfq.io_serviced")]),
    );
    tests.push(Test::new("a_classifier_sees_the_class", || network::a_classifier_sees_the_class(&detect())).needs(&[
        Need::Root,
        Need::Program("tc"),
        Need::Program("ip"),
        Need::CgroupV1("net_cls"),
        Need::CgroupV1("freezer"),
    ]));
    tests
}

fn actions_list() -> Vec<Test> {
    let mut tests = on_every_layout!(
        actions,
        &needs_memory(),
        &NEEDS_V1_MEMORY,
        [
            what_is_frozen_does_not_run,
            what_forks_is_frozen_too,
            the_caller_is_not_frozen,
            an_oom_kill_is_an_event,
            refused_forks_and_freezing_are_events,
            the_end_of_a_cgroup_is_an_event,
            the_end_of_a_cgroup_ends_a_wait,
            memory_is_reclaimed,
        ]
    );
    tests.push(
        Test::new("pressure_wakes_a_waiter", actions::pressure_wakes_a_waiter)
            .needs(&[Need::CgroupV2Tree, Need::File("/proc/pressure/cpu")]),
    );
    tests.push(
        Test::new("memory_beyond_high_is_an_event", actions::memory_beyond_high_is_an_event)
            .needs(&needs_memory())
            .needs(&[Need::CgroupV2("memory")]),
    );
    tests
}

fn trees_list() -> Vec<Test> {
    let mut tests = on_every_layout!(
        trees,
        &needs(),
        &NEEDS_V1,
        [
            a_tree_is_walked,
            processes_and_threads_are_moved,
            files_are_found_or_not,
            capabilities_are_what_works,
            what_a_killed_program_left_is_found,
            what_is_called_alike_is_nobodys,
            what_was_left_frozen_is_found,
            given_directories_are_trees,
        ]
    );
    tests.push(
        Test::new("a_container_finds_its_own_trees", || trees::a_container_finds_its_own_trees(&detect()))
            .needs(&needs())
            .needs(&[Need::Root]),
    );
    tests.push(
        Test::new("a_user_is_given_a_cgroup", || trees::a_user_is_given_a_cgroup(&detect()))
            .needs(&needs())
            .needs(&[Need::Root]),
    );
    tests
}

fn traps_list() -> Vec<Test> {
    let mut tests = on_every_layout!(
        traps,
        &needs(),
        &NEEDS_V1,
        [
            a_process_that_is_still_being_made_is_tried_again,
            a_failed_freeze_leaves_nothing_frozen,
            a_read_only_tree_is_no_reason_for_what_is_gone,
        ]
    );
    let with = |name, run, controller| {
        let freezer =
            if Layout::of_this_machine() == Ok(Layout::V1) { Need::CgroupV1("freezer") } else { Need::CgroupV2Tree };
        Test::new(name, run).needs(&[Need::Cgroup(controller), freezer])
    };
    tests.extend([
        Test::new("statistics_do_without_pressure", traps::statistics_do_without_pressure).needs(&[Need::CgroupV2Tree]),
        Test::new("an_affinity_is_reset_if_asked_for", || traps::an_affinity_is_reset_if_asked_for(&detect()))
            .needs(&needs_all()),
        with(
            "huge_pages_are_refused_when_they_are_mapped",
            || {
                traps::huge_pages_are_refused_when_they_are_mapped(&detect());
            },
            "hugetlb",
        )
        .needs(&[Need::Root]),
        Test::new("the_root_of_v2_does_not_tell_of_memory", traps::the_root_of_v2_does_not_tell_of_memory)
            .needs(&[Need::CgroupV2("memory")]),
        with(
            "the_oom_killer_is_disabled_only_if_asked_for",
            || {
                traps::the_oom_killer_is_disabled_only_if_asked_for(&detect());
            },
            "memory",
        )
        .needs(&[Need::CgroupV1("memory")]),
        Test::new("real_time_changes_in_any_order_below_a_limited_parent", || {
            traps::real_time_changes_in_any_order_below_a_limited_parent(&detect());
        })
        .needs(&needs())
        .needs(&[Need::File("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")]),
    ]);
    tests
}

/// A machine of the tests' own, whose settings they may change.
const VIRTUAL_MACHINE: Need = Need::File("/run/vm/init");

fn controllers_list() -> Vec<Test> {
    let mut tests = on_every_layout!(controllers, &needs(), &NEEDS_V1, [threads_have_cgroups_of_their_own]);
    let v2_of_our_own = [Need::Root, Need::CgroupV2("cpuset"), VIRTUAL_MACHINE];
    let freezer =
        if Layout::of_this_machine() == Ok(Layout::V1) { Need::CgroupV1("freezer") } else { Need::CgroupV2Tree };
    tests.extend([
        Test::new("every_controller_is_joined", || controllers::every_controller_is_joined(&detect()))
            .needs(&needs())
            .needs(&controllers::needs_every()),
        Test::new("what_a_machine_lacks_is_named", || controllers::what_a_machine_lacks_is_named(&detect())).needs(&[
            Need::Cgroup("rdma"),
            Need::Cgroup("misc"),
            freezer,
        ]),
        Test::new("a_partition_has_its_cpus_alone", controllers::a_partition_has_its_cpus_alone).needs(&v2_of_our_own),
        Test::new("a_tree_for_fast_moves_is_seen", controllers::a_tree_for_fast_moves_is_seen).needs(&v2_of_our_own),
        Test::new("a_cgroup_with_controllers_for_its_children_takes_no_processes", || {
            controllers::a_cgroup_with_controllers_for_its_children_takes_no_processes();
        })
        .needs(&[Need::CgroupV2("hugetlb")]),
    ]);
    tests
}

fn view_list() -> Test {
    Test::new("programs_see_the_limit", || view::programs_see_the_limit(&detect())).needs(&needs_all()).needs(&[
        Need::Root,
        Need::Program("free"),
        Need::Program("top"),
    ])
}

fn devices_list() -> [Test; 5] {
    let mut needs = vec![Need::Root];
    needs.push(match Layout::of_this_machine() {
        Ok(Layout::V2) => Need::CgroupV2Tree,
        _ => Need::CgroupV1("devices"),
    });
    if Layout::of_this_machine() == Ok(Layout::Hybrid) {
        needs.push(Need::CgroupV2Tree);
    }
    if Layout::of_this_machine() == Ok(Layout::V1) {
        needs.push(Need::CgroupV1("freezer"));
    }
    let unified = [Need::Root, Need::CgroupLayout(Layout::Hybrid), Need::CgroupV2Tree, Need::CgroupV1("pids")];
    let with_pids = Need::Cgroup("pids");
    [
        Test::new("devices_are_refused_and_allowed", || devices::devices_are_refused_and_allowed(&detect()))
            .needs(&needs),
        Test::new("the_unified_tree_can_refuse_devices", devices::the_unified_tree_can_refuse_devices).needs(&unified),
        Test::new("without_the_right_rules_and_limits_stay", || {
            devices::without_the_right_rules_and_limits_stay(&detect());
        })
        .needs(&needs)
        .needs(&[with_pids]),
        Test::new("without_the_right_the_program_stays", || {
            devices::without_the_right_rules_and_limits_stay(&support::without(",devices"));
        })
        .needs(&unified),
        Test::new("a_user_has_no_rules_of_devices", devices::a_user_has_no_rules_of_devices)
            .needs(&[Need::OrdinaryUser, Need::CgroupV2("pids")]),
    ]
}

fn stats_list() -> Vec<Test> {
    on_every_layout!(stats, &needs_all(), &NEEDS_V1_ALL, [statistics_are_told_alike, a_sample_allocates_nothing])
}

fn v2_list() -> [Test; 8] {
    let v2 = |name, run| Test::new(name, run).needs(&[Need::CgroupV2("cpu")]);
    [
        v2("controllers_are_enabled_above_never_in_the_leaf", v2::controllers_are_enabled_above_never_in_the_leaf),
        v2("an_occupied_cgroup_is_not_made_threaded", v2::an_occupied_cgroup_is_not_made_threaded),
        v2("one_can_move_into_a_leaf_first", v2::one_can_move_into_a_leaf_first),
        Test::new("no_cgroup_is_made_that_nothing_can_enter", v2::no_cgroup_is_made_that_nothing_can_enter)
            .needs(&[Need::CgroupV2Tree]),
        Test::new("where_memory_is_counted_nothing_is_threaded", v2::where_memory_is_counted_nothing_is_threaded)
            .needs(&[Need::CgroupV2("memory")]),
        Test::new("kill_without_cgroup_kill", v2::kill_without_cgroup_kill).needs(&[Need::CgroupV2Tree]),
        Test::new("without_rights_it_says_so", v2::without_rights_it_says_so)
            .needs(&[Need::OrdinaryUser, Need::CgroupLayout(Layout::Hybrid)]),
        Test::new("hybrid_joins_the_unified_tree", v2::hybrid_joins_the_unified_tree).needs(&[
            Need::CgroupLayout(Layout::Hybrid),
            Need::CgroupV2Tree,
            Need::Cgroup("pids"),
        ]),
    ]
}
