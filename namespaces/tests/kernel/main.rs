//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.

mod asked;
mod attacks;
mod attributes;
mod callers;
mod cgroup;
mod closures;
mod cores;
mod crowd;
mod engines;
mod errors;
mod escape;
mod escapes;
mod failing;
mod fallbacks;
mod faults;
mod flags;
mod hints;
mod hold;
mod hooks;
mod hostile;
mod identity;
mod init;
mod init_faults;
mod isolation;
mod joins;
mod labels;
mod life;
mod links;
mod listeners;
mod listing;
mod mounts;
mod orphans;
mod parent_death;
mod passing;
mod privilege;
mod programs;
mod real;
mod release;
mod remounts;
mod roots;
mod scopes;
mod seccomp;
mod specs;
mod spies;
mod streams;
mod support;
mod terminals;
mod walks;

use cofferdam_testkit::{Need, Test, run};
use std::process::ExitCode;
use std::time::Duration;

const BUSYBOX: &str = "/bin/busybox";
/// For a race that is run often, or ten times as often.
fn long() -> Duration {
    Duration::from_secs(if support::asked_for_long() { 9000 } else { 900 })
}

fn main() -> ExitCode {
    // In a sandbox this is another program.
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("escape") => {
            escape::main(arguments);
            return ExitCode::SUCCESS;
        }
        Some("mute") => {
            failing::main(&arguments.next().unwrap());
            return ExitCode::SUCCESS;
        }
        Some(name) if spies::is_one(name) => {
            spies::main(name, arguments);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let tests = tests();
    // Every test on both engines: a name alone is what is used by default, `_copy` asks for a copy.
    let copies: Vec<Test> = tests.iter().map(|test| test.variant("_copy", support::make_copies)).collect();
    run(&[tests, copies].concat())
}

/// All but their twins.
fn tests() -> Vec<Test> {
    [
        errors(),
        isolation(),
        identity(),
        attributes(),
        privilege(),
        seccomp(),
        listeners(),
        escapes(),
        specs(),
        roots(),
        mounts(),
        attacks(),
        streams(),
        life(),
        engines(),
        closures(),
        fallbacks(),
        hold(),
        release(),
        init(),
        hooks(),
        scopes(),
        joins(),
        passing(),
        terminals(),
        cgroups(),
        listing(),
        faults(),
        callers(),
        orphans(),
    ]
    .concat()
}

/// Needs nothing.
fn test(name: &'static str, run: fn()) -> Test {
    Test::new(name, run)
}

fn user(name: &'static str, run: fn()) -> Test {
    test(name, run).needs(&[Need::Userns])
}

fn root(name: &'static str, run: fn()) -> Test {
    test(name, run).needs(&[Need::Root])
}

fn rooted(name: &'static str, run: fn()) -> Test {
    test(name, run).needs(&[Need::Root, Need::StaticProgram(BUSYBOX)])
}

fn v2(name: &'static str, run: fn()) -> Test {
    test(name, run).needs(&[Need::CgroupV2Tree])
}

fn group(name: &'static str, run: fn()) -> Test {
    test(name, run).needs(&[Need::Userns, Need::Cgroup("pids")])
}

fn errors() -> Vec<Test> {
    vec![
        test("missing_program", errors::missing_program),
        test("program_not_executable", errors::program_not_executable),
        test("missing_working_directory", errors::missing_working_directory),
        root("working_directory_out_of_reach", errors::working_directory_out_of_reach),
        test("invalid_configuration", errors::invalid_configuration),
        test("invalid_descriptors", errors::invalid_descriptors),
        test("path_is_searched_as_execvp_does", errors::path_is_searched_as_execvp_does),
        test("clone_refused", errors::clone_refused).needs(&[Need::OrdinaryUser]),
        user("mount_point_missing", errors::mount_point_missing),
        user("user_namespaces_switched_off", errors::user_namespaces_switched_off),
        user("a_program_without_execution", hints::a_program_without_execution),
        root("a_tmpfs_without_execution", hints::a_tmpfs_without_execution),
        root("a_helper_without_its_rights", hints::a_helper_without_its_rights)
            .needs(&[Need::Program("/usr/bin/newuidmap")]),
    ]
}

fn isolation() -> Vec<Test> {
    vec![
        root("each_namespace_is_new_and_no_other", isolation::each_namespace_is_new_and_no_other),
        user("each_namespace_is_new_in_a_user_namespace", isolation::each_namespace_is_new_in_a_user_namespace),
        user("pid_1_sees_itself_alone", isolation::pid_1_sees_itself_alone),
        user("hostname_is_set_inside_only", isolation::hostname_is_set_inside_only),
        user("ids_are_mapped", isolation::ids_are_mapped),
        user("mounts_do_not_propagate", isolation::mounts_do_not_propagate),
        root("mounts_do_not_propagate_from_root", isolation::mounts_do_not_propagate_from_root),
        user("network_is_empty", isolation::network_is_empty),
        test("environment_is_what_was_asked_for", isolation::environment_is_what_was_asked_for),
        test("working_directory_is_entered", isolation::working_directory_is_entered),
        test("signals_are_reset", isolation::signals_are_reset),
    ]
}

fn identity() -> Vec<Test> {
    let helped = &[Need::OrdinaryUser, Need::Userns, Need::Program("/usr/bin/newuidmap")];
    vec![
        root("several_ranges", identity::several_ranges),
        root("ranges_with_all_namespaces", identity::ranges_with_all_namespaces),
        root("credentials_are_the_programs", identity::credentials_are_the_programs),
        root("other_credentials_die_with_the_parent", identity::other_credentials_die_with_the_parent),
        root("asked_once_it_outlives_the_parent", identity::asked_once_it_outlives_the_parent),
        user("what_a_start_would_forget_is_refused", parent_death::what_a_start_would_forget_is_refused),
        root("root_with_less_than_it_could_have", parent_death::root_with_less_than_it_could_have),
        root("other_ids_of_the_caller_stay_outside", identity::other_ids_of_the_caller_stay_outside),
        root("closed_streams_of_the_caller", identity::closed_streams_of_the_caller),
        test("umask_is_the_programs", identity::umask_is_the_programs),
        user("credentials_that_cannot_be", identity::credentials_that_cannot_be),
        test("credentials_of_others_are_refused", identity::credentials_of_others_are_refused)
            .needs(&[Need::OrdinaryUser]),
        root("a_file_that_denies_a_group_is_denied", identity::a_file_that_denies_a_group_is_denied),
        test("subordinate_ids", identity::subordinate_ids).needs(helped).needs(&[Need::SubordinateIds]),
        test("subordinate_ids_where_children_are_ignored", identity::subordinate_ids_where_children_are_ignored)
            .needs(helped)
            .needs(&[Need::SubordinateIds]),
        test("ranges_that_are_not_ours", identity::ranges_that_are_not_ours).needs(helped),
        root("every_call_for_the_maps_can_fail", identity::every_call_for_the_maps_can_fail),
        user("a_user_namespace_is_joined", identity::a_user_namespace_is_joined),
        root("credentials_in_a_joined_namespace", identity::credentials_in_a_joined_namespace),
        user("every_call_of_a_join_can_fail", identity::every_call_of_a_join_can_fail),
        user("who_joins_cannot_be_traced", identity::who_joins_cannot_be_traced),
    ]
}

fn attributes() -> Vec<Test> {
    vec![
        user("names_are_the_sandboxs", attributes::names_are_the_sandboxs),
        test("a_session_of_its_own", attributes::a_session_of_its_own),
        test("limits_are_the_programs", attributes::limits_are_the_programs),
        test("few_descriptors_are_enough", attributes::few_descriptors_are_enough),
        test("limits_that_cannot_be", attributes::limits_that_cannot_be),
        root("limits_are_raised_by_root", attributes::limits_are_raised_by_root).needs(&[Need::RaiseLimits]),
        user("oom_score_is_the_programs", attributes::oom_score_is_the_programs),
        test("scheduling_is_the_programs", attributes::scheduling_is_the_programs),
        root("real_time_is_for_root", attributes::real_time_is_for_root),
        test("priority_is_not_for_everybody", attributes::priority_is_not_for_everybody).needs(&[Need::OrdinaryUser]),
        test("personality_is_the_programs", attributes::personality_is_the_programs),
        user("sysctls_are_the_namespaces", attributes::sysctls_are_the_namespaces),
        root("sysctls_of_root", attributes::sysctls_of_root),
        user("sysctls_that_cannot_be", attributes::sysctls_that_cannot_be),
        root("sysctls_go_to_a_proc_of_their_own", attributes::sysctls_go_to_a_proc_of_their_own),
    ]
}

fn privilege() -> Vec<Test> {
    vec![
        user("the_five_sets_are_the_programs", privilege::the_five_sets_are_the_programs),
        root("capabilities_outlive_a_change_of_user", privilege::capabilities_outlive_a_change_of_user),
        root("nothing_is_inherited_unasked", privilege::nothing_is_inherited_unasked),
        user("securebits_are_the_programs", privilege::securebits_are_the_programs),
        test("no_new_privileges", privilege::no_new_privileges),
        test("privileges_that_cannot_be", privilege::privileges_that_cannot_be),
        test("capabilities_are_dropped_by_those_who_may", privilege::capabilities_are_dropped_by_those_who_may)
            .needs(&[Need::OrdinaryUser]),
        root("capabilities_that_the_kernel_does_not_know", privilege::capabilities_that_the_kernel_does_not_know),
        user("a_ruleset_restricts", privilege::a_ruleset_restricts),
        test("what_the_kernel_lacks_is_told", privilege::what_the_kernel_lacks_is_told),
        root("rights_that_are_lost_with_the_user", privilege::rights_that_are_lost_with_the_user),
        user("keys_of_the_host_are_out_of_sight", privilege::keys_of_the_host_are_out_of_sight),
        root("the_profile_is_the_programs", labels::the_profile_is_the_programs).needs(&[Need::AppArmor]),
        user("the_host_program_keeps_its_privileges", privilege::the_host_program_keeps_its_privileges),
    ]
}

fn seccomp() -> Vec<Test> {
    let engines = &[Need::Program("/usr/bin/python3"), Need::File(seccomp::PROFILE)];
    vec![
        test("the_default_is_that_of_container_engines", seccomp::the_default_is_that_of_container_engines)
            .needs(engines),
        test("arguments_are_read_as_the_kernel_does", seccomp::arguments_are_read_as_the_kernel_does).needs(engines),
        test("our_own_filters_refuse_what_they_say", seccomp::our_own_filters_refuse_what_they_say),
        user("a_filter_is_the_programs", seccomp::a_filter_is_the_programs),
        user("a_filter_that_forbids_the_start", seccomp::a_filter_that_forbids_the_start),
        test("filters_that_cannot_be", seccomp::filters_that_cannot_be),
        user("the_default_lets_programs_work", seccomp::the_default_lets_programs_work),
        root("nothing_is_typed_into_the_terminal", seccomp::nothing_is_typed_into_the_terminal),
        test("a_closure_is_under_the_filter", seccomp::a_closure_is_under_the_filter),
        user("a_filter_from_a_file", seccomp::a_filter_from_a_file),
    ]
}

fn listeners() -> Vec<Test> {
    let python = Need::Program("/usr/bin/python3");
    vec![
        user("a_supervisor_answers", listeners::a_supervisor_answers),
        test("a_descriptor_is_the_answer", listeners::a_descriptor_is_the_answer),
        user("asked_from_the_first_call_on", listeners::asked_from_the_first_call_on),
        test("a_start_that_fails_asks_nobody", listeners::a_start_that_fails_asks_nobody),
        test("a_supervisor_that_is_gone", listeners::a_supervisor_that_is_gone),
        test("no_listener_in_the_program", listeners::no_listener_in_the_program),
        test("many_listeners_at_once", listeners::many_listeners_at_once),
        test("many_threads_on_one_listener", listeners::many_threads_on_one_listener),
        test("listeners_that_cannot_be", listeners::listeners_that_cannot_be),
        test("the_exception_is_the_childs_alone", listeners::the_exception_is_the_childs_alone).needs(&[python]),
    ]
}

fn escapes() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::Userns, Need::StaticProgram(BUSYBOX)]);
    vec![
        rooted("root_does_not_get_out", escapes::root_does_not_get_out),
        busy("root_of_a_user_namespace_does_not_get_out", escapes::root_of_a_user_namespace_does_not_get_out),
        rooted("without_defences_they_get_out", escapes::without_defences_they_get_out),
        test("a_descriptor_left_open", escapes::a_descriptor_left_open),
    ]
}

fn specs() -> Vec<Test> {
    vec![
        test("every_spec_comes_back", specs::every_spec_comes_back),
        user("a_spec_is_written_by_hand", specs::a_spec_is_written_by_hand),
        user("random_sandboxes_are_as_asked", asked::random_sandboxes_are_as_asked),
        root("random_sandboxes_of_root", asked::random_sandboxes_of_root),
        user("every_field_is_looked_at", asked::every_field_is_looked_at),
    ]
}

fn roots() -> Vec<Test> {
    vec![
        rooted("the_root_is_all_there_is", roots::the_root_is_all_there_is),
        rooted("it_is_pid_1_of_its_own_proc", roots::it_is_pid_1_of_its_own_proc),
        rooted("devices_work", roots::devices_work),
        user("devices_work_on_the_hosts_root", roots::devices_work_on_the_hosts_root),
        rooted("devices_of_the_host_are_kept", roots::devices_of_the_host_are_kept),
        rooted("devices_are_its_own", roots::devices_are_its_own),
        rooted("renames_elsewhere_do_not_matter", roots::renames_elsewhere_do_not_matter),
        rooted("mounts_inside_do_not_propagate", roots::mounts_inside_do_not_propagate),
        rooted("links_out_of_the_root_stay_inside", roots::links_out_of_the_root_stay_inside),
        rooted("no_working_directory_outside", roots::no_working_directory_outside),
        rooted("roots_that_cannot_be", roots::roots_that_cannot_be),
        rooted("a_busybox_root", real::a_busybox_root),
        root("a_debian_root", real::a_debian_root).needs(&[Need::Debian]),
    ]
}

fn mounts() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::Userns, Need::StaticProgram(BUSYBOX)]);
    vec![
        busy("a_directory_as_root", mounts::a_directory_as_root),
        busy("an_empty_root", mounts::an_empty_root),
        busy("many_directories_and_links", links::many_directories_and_links),
        busy("links_of_one_name", links::links_of_one_name),
        busy("directories_and_links_are_made", links::directories_and_links_are_made),
        busy("a_tmpfs_is_as_asked", mounts::a_tmpfs_is_as_asked),
        busy("file_systems_of_its_own", mounts::file_systems_of_its_own),
        busy("control_groups_are_in_sight", mounts::control_groups_are_in_sight),
        busy("binds_are_as_asked", mounts::binds_are_as_asked),
        rooted("binds_take_along_what_is_mounted_below", mounts::binds_take_along_what_is_mounted_below),
        rooted("binds_with_other_owners", mounts::binds_with_other_owners),
        rooted("detached_mounts_are_attached", mounts::detached_mounts_are_attached),
        rooted("detached_mounts_are_nobodys_peers", mounts::detached_mounts_are_nobodys_peers),
        busy("masks_hide", mounts::masks_hide),
        busy("mount_points_are_made", mounts::mount_points_are_made),
        busy("many_mounts", mounts::many_mounts),
        busy("many_masks", mounts::many_masks),
        busy("a_read_only_root", mounts::a_read_only_root),
        rooted("later_mounts_of_the_host", mounts::later_mounts_of_the_host),
        rooted("mounts_for_the_host", mounts::mounts_for_the_host),
        busy("where_the_root_cannot_be_pivoted", mounts::where_the_root_cannot_be_pivoted),
        busy("the_kernel_says_what_is_wrong", mounts::the_kernel_says_what_is_wrong),
        rooted("flags_of_the_host_are_kept", flags::flags_of_the_host_are_kept),
        rooted("devices_and_programs_of_a_bind", flags::devices_and_programs_of_a_bind),
        rooted("reading_and_following", flags::reading_and_following),
        rooted("an_overlay_by_its_name", flags::an_overlay_by_its_name),
        rooted("a_read_only_root_of_the_caller", flags::a_read_only_root_of_the_caller),
        rooted("a_mask_cannot_be_changed", flags::a_mask_cannot_be_changed),
        rooted("nothing_is_made_in_a_bind", flags::nothing_is_made_in_a_bind),
        user("mounts_that_make_no_sense", mounts::mounts_that_make_no_sense),
    ]
}

fn attacks() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::Userns, Need::StaticProgram(BUSYBOX)]);
    vec![
        busy("a_mount_point_swapped_for_a_link", attacks::a_mount_point_swapped_for_a_link).time(long()),
        busy("a_mask_whose_way_is_swapped", attacks::a_mask_whose_way_is_swapped).time(long()),
        busy("a_terminal_whose_way_is_swapped", attacks::a_terminal_whose_way_is_swapped).time(long()),
        busy("nothing_is_made_outside", attacks::nothing_is_made_outside),
        busy("a_program_behind_a_descriptor", attacks::a_program_behind_a_descriptor),
        busy("a_program_that_is_the_hosts", programs::a_program_that_is_the_hosts),
        busy("scripts_of_a_root", programs::scripts_of_a_root),
        busy("a_mask_is_the_hosts_null_device", attacks::a_mask_is_the_hosts_null_device),
        rooted("a_null_device_that_is_none", attacks::a_null_device_that_is_none),
        root("a_terminal_by_a_path", attacks::a_terminal_by_a_path),
        busy("a_proc_in_the_root_is_not_written", attacks::a_proc_in_the_root_is_not_written),
    ]
}

fn streams() -> Vec<Test> {
    vec![
        test("pipes_carry_data_both_ways", streams::pipes_carry_data_both_ways),
        test("null_swallows_and_gives_nothing", streams::null_swallows_and_gives_nothing),
        root("a_null_device_that_is_a_file", streams::a_null_device_that_is_a_file),
        test("a_descriptor_can_serve_two_streams", streams::a_descriptor_can_serve_two_streams),
        test("streams_can_be_crossed", streams::streams_can_be_crossed),
        test("inherited_streams_are_there", streams::inherited_streams_are_there),
        test("no_other_descriptor_gets_in", streams::no_other_descriptor_gets_in),
    ]
}

fn life() -> Vec<Test> {
    vec![
        test("status_is_kept", life::status_is_kept),
        test("exit_codes_and_signals_are_told", life::exit_codes_and_signals_are_told),
        test("waiting_can_be_bounded", life::waiting_can_be_bounded),
        test("signals_after_the_end", life::signals_after_the_end),
        test("status_taken_by_others", life::status_taken_by_others),
        test("status_lost_to_ignored_sigchld", life::status_lost_to_ignored_sigchld),
        test("drop_neither_kills_nor_reaps", life::drop_neither_kills_nor_reaps),
        user("dies_with_the_spawning_thread", life::dies_with_the_spawning_thread),
        test("outlives_the_spawning_thread", life::outlives_the_spawning_thread),
        test("traced_by_its_own_child", life::traced_by_its_own_child).needs(&[Need::Program("/usr/bin/python3")]),
        test("a_plan_can_be_used_again", life::a_plan_can_be_used_again),
        test("two_thousand_from_eight_threads", crowd::two_thousand_from_eight_threads).needs(&[
            Need::Memory(2 << 30),
            Need::Userns,
            Need::CgroupV2Tree,
        ]),
    ]
}

fn engines() -> Vec<Test> {
    let cores = |name, run| test(name, run).needs(&[Need::CoreFiles]);
    vec![
        test("the_engine_is_reported", engines::the_engine_is_reported),
        user("the_host_program_is_unchanged", engines::the_host_program_is_unchanged),
        root("ids_change_in_a_copy_alone", engines::ids_change_in_a_copy_alone),
        cores("no_core_of_a_child_that_its_filter_kills", cores::no_core_of_a_child_that_its_filter_kills),
        cores("no_core_of_a_child_that_was_told_to_quit", cores::no_core_of_a_child_that_was_told_to_quit),
        test("filters_that_let_it_start_are_no_reason", cores::filters_that_let_it_start_are_no_reason),
    ]
}

/// Always in a copy.
fn closures() -> Vec<Test> {
    vec![
        user("a_closure_runs_inside", closures::a_closure_runs_inside),
        test("a_closure_has_three_descriptors", closures::a_closure_has_three_descriptors),
        test("a_closure_changes_nothing_here", closures::a_closure_changes_nothing_here),
        test("a_panic_is_an_exit_code", closures::a_panic_is_an_exit_code),
        test("the_caller_goes_on_beside_a_closure", closures::the_caller_goes_on_beside_a_closure),
        user("every_call_before_a_closure_can_fail", closures::every_call_before_a_closure_can_fail),
        root("a_closure_with_ranges_of_ids", closures::a_closure_with_ranges_of_ids),
    ]
}

fn fallbacks() -> Vec<Test> {
    vec![
        user("without_clone3", fallbacks::without_clone3),
        test("without_clone3_held", fallbacks::without_clone3_held),
        v2("without_a_clone_into_a_cgroup", fallbacks::without_a_clone_into_a_cgroup).needs(&[Need::Userns]),
        user("without_the_calls_of_mounts", fallbacks::without_the_calls_of_mounts)
            .needs(&[Need::StaticProgram(BUSYBOX)]),
        user("without_close_range", fallbacks::without_close_range),
        user("without_mount_setattr", remounts::without_mount_setattr).needs(&[Need::StaticProgram(BUSYBOX)]),
        rooted("binds_alone_without_mount_setattr", remounts::binds_alone_without_mount_setattr),
        user("what_only_mount_setattr_does", remounts::what_only_mount_setattr_does)
            .needs(&[Need::StaticProgram(BUSYBOX)]),
        user("a_remount_that_goes_elsewhere", remounts::a_remount_that_goes_elsewhere),
    ]
}

fn hold() -> Vec<Test> {
    vec![
        user("namespaces_before_the_program", hold::namespaces_before_the_program),
        root("filled_from_outside", hold::filled_from_outside),
        test("dropped_without_release", hold::dropped_without_release),
        test("keeps_no_pipe_of_others_open", hold::keeps_no_pipe_of_others_open),
        test("errors_come_when_they_happen", hold::errors_come_when_they_happen),
        user("every_call_of_a_held_child_can_fail", hold::every_call_of_a_held_child_can_fail),
        test("outlives_the_holding_thread_and_not_the_process", hold::outlives_the_holding_thread_and_not_the_process),
        test("killed_and_released_at_once", hold::killed_and_released_at_once),
        test("nothing_lingers_after_release", hold::nothing_lingers_after_release),
        test("ends_with_the_caller", hold::ends_with_the_caller),
        test("ends_with_the_caller_whatever_it_forked", hold::ends_with_the_caller_whatever_it_forked),
        user("many_at_once", hold::many_at_once),
    ]
}

fn release() -> Vec<Test> {
    vec![
        user("another_process_releases", release::another_process_releases),
        test("it_is_released_once", release::it_is_released_once),
        test("many_race_to_release", release::many_race_to_release),
        user("who_releases_is_told_what_failed", release::who_releases_is_told_what_failed),
        test("the_holder_is_killed", release::the_holder_is_killed),
        test("the_child_is_killed", release::the_child_is_killed),
        test("the_path_goes_with_the_wait", release::the_path_goes_with_the_wait),
        test("hostile_files_at_the_path", release::hostile_files_at_the_path),
        test("a_holder_that_means_no_good", release::a_holder_that_means_no_good),
        root("who_may_not_is_refused", release::who_may_not_is_refused),
        test("paths_that_cannot_be", release::paths_that_cannot_be),
    ]
}

fn init() -> Vec<Test> {
    vec![
        user("a_thousand_zombies_are_reaped", init::a_thousand_zombies_are_reaped).time(Duration::from_secs(300)),
        user("signals_are_forwarded", init::signals_are_forwarded),
        user("codes_and_signals_are_the_programs", init::codes_and_signals_are_the_programs),
        user("errors_are_as_without", init::errors_are_as_without),
        user("nothing_of_the_hosts_is_in_sight", init::nothing_of_the_hosts_is_in_sight),
        user("its_file_cannot_be_changed", init::its_file_cannot_be_changed),
        user("descriptors_are_the_programs", init::descriptors_are_the_programs),
        user("the_end_of_the_program_ends_all", init::the_end_of_the_program_ends_all),
        user("groups_and_sessions_are_as_without", init::groups_and_sessions_are_as_without),
        user("a_group_is_signalled_once", init::a_group_is_signalled_once),
        user("jobs_are_controlled_below_an_init", terminals::jobs_are_controlled_below_an_init),
        user("held_joined_and_orphaned", init::held_joined_and_orphaned),
        user("created_with_an_init", init::created_with_an_init).needs(&[Need::StaticProgram(BUSYBOX)]),
        user("a_fork_of_the_caller_keeps_nobody_waiting", init::a_fork_of_the_caller_keeps_nobody_waiting),
        user("an_init_that_is_stopped_keeps_nobody_waiting", init::an_init_that_is_stopped_keeps_nobody_waiting)
            .needs(&[Need::Program("/usr/bin/python3")]),
        rooted("in_a_root_of_its_own", init::in_a_root_of_its_own),
        user("every_call_up_to_the_init_can_fail", init_faults::every_call_up_to_the_init_can_fail),
        user("every_call_for_an_init_can_fail", init_faults::every_call_of_the_caller_can_fail),
        user("every_call_of_the_init_can_fail", init_faults::every_call_of_the_init_can_fail),
        user("the_init_can_be_killed_at_every_call", init_faults::the_init_can_be_killed_at_every_call),
    ]
}

fn hooks() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::StaticProgram(BUSYBOX)]);
    vec![
        rooted("each_point_is_where_oci_says", hooks::each_point_is_where_oci_says),
        rooted("hooks_inside_are_confined", hooks::hooks_inside_are_confined),
        busy("hooks_inside_see_nothing_of_the_caller", hooks::hooks_inside_see_nothing_of_the_caller),
        busy("a_hook_that_fails_ends_it", hooks::a_hook_that_fails_ends_it),
        busy("a_hook_that_takes_too_long_is_killed", hooks::a_hook_that_takes_too_long_is_killed),
        busy("every_call_of_a_creation_can_fail", hooks::every_call_of_a_creation_can_fail),
        busy("a_creation_lets_go", hooks::a_creation_lets_go),
        rooted("a_creation_with_other_ids", hooks::a_creation_with_other_ids),
        busy("creations_that_cannot_be", hooks::creations_that_cannot_be),
    ]
}

fn scopes() -> Vec<Test> {
    vec![
        user("root_inside_and_nobody_new_outside", scopes::root_inside_and_nobody_new_outside),
        user("what_is_made_inside_is_there_outside", scopes::what_is_made_inside_is_there_outside),
        user("mounts_stay_in_the_scope", scopes::mounts_stay_in_the_scope),
        user("a_root_for_an_ordinary_user", scopes::a_root_for_an_ordinary_user).needs(&[Need::StaticProgram(BUSYBOX)]),
        user("other_namespaces_beside_it", scopes::other_namespaces_beside_it),
        user("our_memory_is_out_of_reach", scopes::our_memory_is_out_of_reach)
            .needs(&[Need::Program("/usr/bin/python3")]),
        user("a_panic_goes_on_outside", scopes::a_panic_goes_on_outside),
        user("its_process_can_be_killed", scopes::its_process_can_be_killed),
        user("among_busy_threads", scopes::among_busy_threads),
    ]
}

fn joins() -> Vec<Test> {
    vec![
        user("joined_as_nsenter_does", joins::joined_as_nsenter_does).needs(&[Need::Program(joins::NSENTER)]),
        user("as_the_target_is", joins::as_the_target_is),
        root("as_whom_the_target_is", joins::as_whom_the_target_is),
        user("the_targets_root_is_entered", joins::the_targets_root_is_entered).needs(&[Need::StaticProgram(BUSYBOX)]),
        user("new_namespaces_beside_joined_ones", joins::new_namespaces_beside_joined_ones),
        user("namespaces_by_descriptor", joins::namespaces_by_descriptor),
        root("a_namespace_of_another_owner", joins::a_namespace_of_another_owner),
        test("the_end_of_others_is_told", joins::the_end_of_others_is_told),
        user("joins_that_cannot_be", joins::joins_that_cannot_be),
        user("a_target_that_dies", failing::a_target_that_dies),
        user("the_target_dies_while_the_child_is_held", failing::the_target_dies_while_the_child_is_held),
        user("every_call_of_joining_can_fail", joins::every_call_of_joining_can_fail),
        user("nobody_inside_sees_who_joins", joins::nobody_inside_sees_who_joins),
        user("nobody_inside_traces_who_joins", spies::nobody_inside_traces_who_joins),
        user("nobody_inside_writes_to_the_hosts_program", spies::nobody_inside_writes_to_the_hosts_program),
        user("a_joined_program_has_three_descriptors", joins::a_joined_program_has_three_descriptors),
        user("eight_threads_join_a_hundred", joins::eight_threads_join_a_hundred),
        test("joins_of_strangers_are_refused", joins::joins_of_strangers_are_refused).needs(&[Need::OrdinaryUser]),
        user("a_namespace_in_which_the_caller_is_nobody", hostile::a_namespace_in_which_the_caller_is_nobody),
        user("the_namespace_is_exchanged_behind_the_look", hostile::the_namespace_is_exchanged_behind_the_look),
        root("groups_of_the_caller_stay_outside", hostile::groups_of_the_caller_stay_outside),
        user("no_environment_without_its_files", hostile::no_environment_without_its_files),
        root("no_join_where_the_kernel_shows_it", hostile::no_join_where_the_kernel_shows_it),
        user("numbers_of_another_proc", hostile::numbers_of_another_proc),
        user("the_process_between_is_killed", hostile::the_process_between_is_killed),
        user("a_file_system_that_does_not_answer", failing::a_file_system_that_does_not_answer).needs(&[Need::Fuse]),
        user("a_join_by_the_old_clone_that_takes_too_long", failing::a_join_by_the_old_clone_that_takes_too_long)
            .needs(&[Need::Fuse]),
        user("a_file_system_that_does_not_let_go", failing::a_file_system_that_does_not_let_go).needs(&[Need::Fuse]),
        user("an_init_whose_program_does_not_come", failing::an_init_whose_program_does_not_come).needs(&[Need::Fuse]),
        user("a_join_that_is_stopped", failing::a_join_that_is_stopped),
        user("every_call_of_a_join_with_a_timeout_can_fail", failing::every_call_of_a_join_with_a_timeout_can_fail),
        user("a_join_that_is_given_up", failing::a_join_that_is_given_up),
        user("its_own_files_are_roots", hostile::its_own_files_are_roots).needs(&[Need::OrdinaryUser]),
    ]
}

fn passing() -> Vec<Test> {
    vec![
        test("what_was_asked_for_and_no_other", passing::what_was_asked_for_and_no_other),
        test("descriptors_can_be_crossed", passing::descriptors_can_be_crossed),
        test("they_survive_being_held", passing::they_survive_being_held),
        test("without_close_range_they_are_all_there_is", passing::without_close_range_they_are_all_there_is),
        test("numbers_that_cannot_be", passing::numbers_that_cannot_be),
    ]
}

fn terminals() -> Vec<Test> {
    vec![
        user("the_terminal_is_the_programs", terminals::the_terminal_is_the_programs),
        root("the_terminal_belongs_to_the_user", terminals::the_terminal_belongs_to_the_user),
        user("a_new_size_is_told", terminals::a_new_size_is_told),
        user("jobs_are_controlled", terminals::jobs_are_controlled),
        user("full_screen_programs", terminals::full_screen_programs).needs(&[Need::StaticProgram(BUSYBOX)]),
        test("detached_and_hung_up", terminals::detached_and_hung_up),
        user("held_and_joined_with_a_terminal", terminals::held_and_joined_with_a_terminal),
        user("a_terminal_is_three_descriptors", terminals::a_terminal_is_three_descriptors),
        user("every_call_for_a_terminal_can_fail", terminals::every_call_for_a_terminal_can_fail),
    ]
}

fn cgroups() -> Vec<Test> {
    vec![
        test("born_in_v1_cgroups", cgroup::born_in_v1_cgroups).needs(&[
            Need::Root,
            Need::CgroupV1("cpu"),
            Need::CgroupV1("pids"),
        ]),
        v2("born_in_a_v2_cgroup", cgroup::born_in_a_v2_cgroup),
        v2("what_is_no_cgroup_is_refused", cgroup::what_is_no_cgroup_is_refused),
        v2("a_cgroup_that_is_gone", cgroup::a_cgroup_that_is_gone),
        group("a_clone_that_fails_late", cgroup::a_clone_that_fails_late),
        test("no_room_for_another_process", cgroup::no_room_for_another_process).needs(&[Need::CgroupV2("pids")]),
        test("an_oom_kill_spares_the_caller_v1", cgroup::an_oom_kill_spares_the_caller_v1)
            .needs(&[Need::Root, Need::CgroupV1("memory")]),
        test("an_oom_kill_spares_the_caller_v2", cgroup::an_oom_kill_spares_the_caller_v2)
            .needs(&[Need::CgroupV2("memory")]),
    ]
}

fn listing() -> Vec<Test> {
    let python = Need::Program("/usr/bin/python3");
    vec![
        user("listed_as_lsns_does", listing::listed_as_lsns_does).needs(&[Need::Program("/usr/bin/lsns")]),
        user("who_owns_a_namespace", listing::who_owns_a_namespace),
        user("clocks_are_shifted_inside", listing::clocks_are_shifted_inside).needs(&[python]),
        user("the_wall_clock_cannot_be_set", listing::the_wall_clock_cannot_be_set).needs(&[python]),
        user("clocks_that_cannot_be", listing::clocks_that_cannot_be),
    ]
}

fn faults() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::StaticProgram(BUSYBOX)]);
    vec![
        test("every_step_has_its_fault_case", walks::every_step_has_its_fault_case),
        busy("explained_is_what_happens", faults::explained_is_what_happens),
        busy("every_call_of_the_child_can_fail", faults::every_call_of_the_child_can_fail),
        busy("nothing_is_done_without", faults::nothing_is_done_without).time(Duration::from_secs(300)),
        busy("the_child_can_be_killed_at_every_call", faults::the_child_can_be_killed_at_every_call),
        group("every_call_in_a_cgroup_can_fail", faults::every_call_in_a_cgroup_can_fail),
        root("every_call_of_a_label_can_fail", faults::every_call_of_a_label_can_fail),
        user("every_call_of_the_caller_can_fail", faults::every_call_of_the_caller_can_fail),
        test("a_parent_that_is_dead_already", faults::a_parent_that_is_dead_already),
    ]
}

fn callers() -> Vec<Test> {
    vec![
        test("every_call_around_a_child_can_fail", callers::every_call_around_a_child_can_fail),
        test("every_call_of_holding_can_fail", callers::every_call_of_holding_can_fail),
        user("every_call_for_a_target_can_fail", callers::every_call_for_a_target_can_fail),
        test("every_call_of_the_callers_terminal_can_fail", callers::every_call_of_the_callers_terminal_can_fail),
        test("every_call_of_a_hook_can_fail", callers::every_call_of_a_hook_can_fail),
        test("every_call_of_a_listing_can_fail", callers::every_call_of_a_listing_can_fail),
        user("every_call_of_a_scope_can_fail", callers::every_call_of_a_scope_can_fail),
        test("every_call_of_a_supervisor_can_fail", callers::every_call_of_a_supervisor_can_fail),
    ]
}

fn orphans() -> Vec<Test> {
    let busy = |name, run| user(name, run).needs(&[Need::StaticProgram(BUSYBOX)]).time(Duration::from_secs(300));
    vec![
        busy("the_caller_can_be_killed_at_every_call", orphans::the_caller_can_be_killed_at_every_call),
        busy("who_holds_can_be_killed_at_every_call", orphans::who_holds_can_be_killed_at_every_call),
        group(
            "the_caller_can_be_killed_with_a_child_in_a_cgroup",
            orphans::the_caller_can_be_killed_with_a_child_in_a_cgroup,
        ),
        root(
            "the_caller_can_be_killed_with_a_child_of_other_ids",
            orphans::the_caller_can_be_killed_with_a_child_of_other_ids,
        ),
        user("without_the_signal_the_child_stays", orphans::without_the_signal_the_child_stays),
    ]
}
