//! The examples against the real kernel: that they do what they say, and leave nothing behind.

mod bridge_net;
mod bridge_net_options;
mod cgroups;
mod commit;
mod containers;
mod endings;
mod figures;
mod image;
mod inside;
mod killed_containers;
mod overlay_tour;
mod refusals;
mod rootfs;
mod support;
mod unpack;

use cofferdam_testkit::{Need, Test, patience, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    run(&[
        busyloop_limit(),
        overlay_tour(),
        run_image(),
        unpack_image(),
        run_in_rootfs(),
        bridge_net(),
        namespaces(),
        small_programs(),
    ]
    .concat())
}

fn run_in_rootfs() -> Vec<Test> {
    let needs = [Need::Program(rootfs::PROGRAM), Need::StaticProgram("/bin/busybox"), Need::Userns];
    let rootfs = |name, run| Test::new(name, run).needs(&needs);
    vec![
        rootfs("a_root_of_busybox", rootfs::a_root_of_busybox),
        rootfs("the_hosts_debian", rootfs::the_hosts_debian).needs(&[
            Need::Program("/usr/bin/apt-get"),
            Need::Program("/usr/bin/python3"),
            Need::Program("/usr/bin/ps"),
            Need::Program("/usr/bin/top"),
        ]),
        rootfs("what_bwrap_has", rootfs::what_bwrap_has),
        rootfs("an_empty_root_and_refusals", rootfs::an_empty_root_and_refusals),
    ]
}

fn bridge_net() -> Vec<Test> {
    let needs = [Need::Program(bridge_net::PROGRAM), Need::Root, Need::Veth, Need::Program("nft")];
    let test = |name, run| Test::new(name, run).needs(&needs);
    vec![
        test("every_command", bridge_net::every_command),
        test("on_another_host", bridge_net_options::on_another_host),
        test("apart_and_internal", bridge_net_options::apart_and_internal),
        test("an_up_that_fails", bridge_net_options::an_up_that_fails),
        test("what_is_remembered", bridge_net_options::what_is_remembered),
        test("stored_by_a_later_version", bridge_net_options::stored_by_a_later_version),
    ]
}

fn namespaces() -> Vec<Test> {
    let inside = |name, program, run| Test::new(name, run).needs(&[Need::Userns, Need::Program(program)]);
    vec![
        inside("exec_into_as_nsenter_does", inside::EXEC_INTO, inside::exec_into_as_nsenter_does)
            .needs(&[Need::Program(inside::NSENTER), Need::Root]),
        inside("lsns_as_the_other_one_does", inside::LSNS, inside::lsns_as_the_other_one_does)
            .needs(&[Need::Program(inside::THEIR_LSNS)]),
        inside("pty_shell_is_a_terminal", inside::PTY_SHELL, inside::pty_shell_is_a_terminal)
            .needs(&[Need::StaticProgram("/bin/busybox")]),
        inside("pty_shell_is_left_and_joins", inside::PTY_SHELL, inside::pty_shell_is_left_and_joins),
    ]
}

fn busyloop_limit() -> Vec<Test> {
    // A user may be unable to reach the folder that it was built in.
    let program = Need::Program(support::PROGRAM);
    // They take turns, since each takes all the CPUs.
    let cpu = |name, run| Test::new(name, run).needs(&[program, Need::Cgroup("cpu")]).time(Duration::from_secs(300));
    let mut tests = vec![
        cpu("holds_10_20_and_50_percent", figures::holds_10_20_and_50_percent),
        cpu("a_limit_above_the_machine", figures::a_limit_above_the_machine),
        cpu("a_limit_above_that_of_the_cgroup_above", figures::a_limit_above_that_of_the_cgroup_above),
        cpu("a_limit_that_is_not_held", figures::a_limit_that_is_not_held),
        cpu("signals_end_it_and_leave_nothing", endings::signals_end_it_and_leave_nothing),
        cpu("sigkill_leaves_no_busy_process", endings::sigkill_leaves_no_busy_process),
        cpu("the_busy_process_dies_early", endings::the_busy_process_dies_early),
        cpu("closed_pipe", endings::closed_pipe),
        cpu("full_disk", endings::full_disk),
        Test::new("bad_use", refusals::bad_use).needs(&[program]),
        Test::new("help", refusals::help).needs(&[program]),
        Test::new("an_ordinary_user_may_not", refusals::an_ordinary_user_may_not).needs(&[program, Need::Root]),
    ];
    // A virtual machine that has to wait for CPUs itself cannot measure this finely.
    if patience() == 1 {
        tests.extend([
            cpu("holds_150_percent", figures::holds_150_percent),
            cpu("holds_in_other_periods", figures::holds_in_other_periods),
            cpu("one_thread_is_one_core_at_most", figures::one_thread_is_one_core_at_most),
            cpu("plain_lines_for_a_pipe", figures::plain_lines_for_a_pipe),
            cpu("bars_for_a_terminal", figures::bars_for_a_terminal).needs(&[Need::Program(unpack::SCRIPT)]),
        ]);
    }
    tests
}

/// Of these, each needs a cgroup.
fn small_programs() -> Vec<Test> {
    let mut tree = vec![Need::Cgroup("memory"), Need::Cgroup("pids"), Need::Cgroup("cpu")];
    tree.push(match cofferdam_testkit::Layout::of_this_machine() {
        Ok(cofferdam_testkit::Layout::V1) => Need::CgroupV1("freezer"),
        _ => Need::CgroupV2Tree,
    });
    let test = |name, program, run| Test::new(name, run).needs(&tree).needs(&[Need::Program(program)]);
    vec![
        test("memory_limit_shows_the_kill", cgroups::MEMORY_LIMIT, cgroups::memory_limit_shows_the_kill),
        test(
            "freeze_shows_a_counter_that_stands_still",
            cgroups::FREEZE,
            cgroups::freeze_shows_a_counter_that_stands_still,
        ),
        test("cgtop_shows_our_own_cgroup", cgroups::CGTOP, cgroups::cgtop_shows_our_own_cgroup),
        Test::new("small_programs_help", cgroups::small_programs_help).needs(&[Need::Program(cgroups::CGTOP)]),
    ]
}

fn overlay_tour() -> Vec<Test> {
    let needs = [Need::Program(overlay_tour::PROGRAM), Need::Overlay];
    vec![Test::new("the_classic_tour", overlay_tour::the_classic_tour).needs(&needs)]
}

/// What run-image needs: alone, with limits, and with all that only root can have.
fn run_image() -> Vec<Test> {
    let image = |name, run| Test::new(name, run).needs(&[Need::StaticProgram("/bin/busybox"), Need::Overlay]);
    let limits = |name, run| image(name, run).needs(&[Need::Cgroup("cpu"), Need::Cgroup("memory")]);
    let all = |name, run| limits(name, run).needs(&[Need::Root, Need::Veth]);
    vec![
        image("layers_are_one_root", containers::layers_are_one_root),
        image("what_the_image_says", containers::what_the_image_says),
        image("changes_are_the_containers_own", containers::changes_are_the_containers_own),
        image("layers_are_unpacked_once", containers::layers_are_unpacked_once),
        image("what_a_killed_one_leaves_goes_with_the_next", containers::what_a_killed_one_leaves_goes_with_the_next),
        image("the_size_limit_is_in_force", containers::the_size_limit_is_in_force).needs(&[limited_files()]),
        image("alone_in_its_namespaces", containers::alone_in_its_namespaces),
        image("a_user_namespace_in_a_user_namespace", containers::a_user_namespace_in_a_user_namespace)
            .needs(&[Need::OrdinaryUser]),
        image("loopback_alone_or_the_hosts_network", containers::loopback_alone_or_the_hosts_network),
        image("exit_codes", containers::exit_codes),
        image("what_cannot_be_run", containers::what_cannot_be_run),
        image("a_damaged_image", containers::a_damaged_image),
        image("not_for_an_ordinary_user", containers::not_for_an_ordinary_user).needs(&[Need::Root, Need::Userns]),
        image("signals_end_it_and_leave_nothing_of_it", containers::signals_end_it_and_leave_nothing_of_it),
        image("a_signal_at_any_moment", containers::a_signal_at_any_moment),
        all("signals_end_it_with_cgroup_and_bridge", containers::signals_end_it_with_cgroup_and_bridge),
        all("a_signal_at_any_moment_with_cgroup_and_bridge", containers::a_signal_at_any_moment_with_cgroup_and_bridge),
        all("failures_with_cgroup_and_bridge", containers::failures_with_cgroup_and_bridge),
        image("two_containers_reach_each_other", containers::two_containers_reach_each_other)
            .needs(&[Need::Root, Need::Veth]),
        image("names_and_a_shared_network", containers::names_and_a_shared_network).needs(&[Need::Root, Need::Veth]),
        image("a_crowd_on_the_bridge", containers::a_crowd_on_the_bridge).needs(&[Need::Root, Need::Veth]),
        image("one_at_a_time_at_the_bridge", containers::one_at_a_time_at_the_bridge).needs(&[Need::Root, Need::Veth]),
        image("a_killed_one_publishes_nothing", killed_containers::a_killed_one_publishes_nothing).needs(&[
            Need::Root,
            Need::Veth,
            Need::Program("nft"),
        ]),
        limits("the_memory_limit_kills", containers::the_memory_limit_kills),
        limits("the_cpu_limit_is_in_force", containers::the_cpu_limit_is_in_force),
    ]
}

/// A file system of one's own as the place to write to.
fn limited_files() -> Need {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().ok());
    let is_new = (numbers.next().flatten(), numbers.next().flatten()) >= (Some(6), Some(15));
    if is_new { Need::Overlay } else { Need::Program("overlays on detached mounts, of Linux 6.15") }
}

fn unpack_image() -> Vec<Test> {
    vec![
        Test::new("both_modes_and_json", unpack::both_modes_and_json),
        Test::new("refused_images_leave_nothing", unpack::refused_images_leave_nothing),
        Test::new("an_image_of_a_layout", unpack::an_image_of_a_layout).needs(&[Need::StaticProgram("/bin/busybox")]),
        Test::new("killed_in_the_middle", unpack::killed_in_the_middle),
        Test::new("bars_on_a_terminal", unpack::bars_on_a_terminal).needs(&[Need::Program(unpack::SCRIPT)]),
        Test::new("the_same_changes_give_the_same_image", commit::the_same_changes_give_the_same_image)
            .needs(&[Need::Root]),
        Test::new("what_cannot_be_committed", commit::what_cannot_be_committed).needs(&[Need::Root]),
    ]
}
