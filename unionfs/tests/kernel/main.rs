//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.
//!
//! Most run twice: as root with `trusted.*` attributes, and as root of a user namespace with `user.*` attributes.

mod container_faults;
mod containers;
mod crash;
mod diff;
mod errors;
mod faults;
mod limits;
mod many;
mod merged;
mod model;
mod mounts;
mod older;
mod power;
mod prepared;
mod projects;
mod root;
mod settled;
mod store;
mod support;
mod together;
mod tree;
mod writable;

use cofferdam_testkit::{Need, Test, run};
use cofferdam_unionfs::Form;
use std::process::ExitCode;
use std::time::Duration;

macro_rules! in_both_forms {
    ($($module:ident::$name:ident,)*) => {
        /// The tests that take a form, for the child that enters a user namespace.
        const BODIES: &[support::Body] = &[$((stringify!($name), $module::$name),)*];

        fn in_both_forms() -> Vec<Test> {
            vec![$(
                Test::new(stringify!($name), || $module::$name(Form::Trusted)).needs(&[Need::Root, Need::Overlay])
                    .needs(more_needs(stringify!($name)))
                    .time(time_of(stringify!($name))),
                Test::new(concat!(stringify!($name), "_in_userns"), || support::in_userns(stringify!($name)))
                    .needs(&[Need::Userns, Need::Overlay])
                    .needs(more_needs(stringify!($name)))
                    .time(time_of(stringify!($name))),
            )*]
        }
    };
}

in_both_forms! {
    merged::the_classic_demonstration,
    merged::deleting_leaves_a_whiteout,
    merged::whiteouts_of_ours_hide,
    merged::attribute_whiteouts_of_ours_hide,
    merged::opaque_directories_of_ours_hide,
    merged::opaque_directories_of_the_kernel_are_seen,
    merged::an_opaque_root_cuts_the_stack,
    merged::a_hostile_layer_points_to_nothing,
    many::any_number_of_lowers,
    many::mount_2_loses_lowers,
    many::five_hundred_and_one,
    many::names_of_any_bytes,
    many::a_lower_given_twice,
    mounts::one_lower_is_bound_read_only,
    mounts::attributes_are_in_force,
    mounts::options_are_taken,
    mounts::nothing_is_attached_until_asked_for,
    mounts::mounted_again_and_again,
    mounts::descriptors_as_layers,
    mounts::overlays_in_each_other,
    errors::a_layer_that_is_not_there,
    errors::the_kernel_says_why,
    errors::layers_that_overlap,
    errors::refused_before_anything_is_done,
    writable::made_for_the_caller,
    writable::nothing_is_left_of_a_failure,
    writable::removed_with_all_that_is_in_it,
    writable::removal_is_not_led_astray,
    writable::a_volatile_layer_is_refused_until_accepted,
    faults::every_call_of_a_mount,
    faults::every_call_of_a_second_attempt,
    faults::every_call_of_a_bind,
    faults::every_call_of_a_writable_layer,
    faults::layers_as_links,
    faults::every_call_of_a_store,
    faults::a_full_disk_at_every_step,
    faults::a_full_disk_at_every_step_of_a_container,
    container_faults::every_call_of_a_container,
    container_faults::every_call_of_a_limit,
    store::a_stack_is_published_and_mounted,
    store::nothing_is_seen_before_it_is_published,
    store::one_name_is_published_once,
    store::layers_stay_while_they_are_needed,
    store::what_had_not_reached_the_disk_is_not_believed,
    store::a_folder_that_is_no_store_of_ours,
    store::a_damaged_store_is_found_out_and_repaired,
    store::usage_is_what_du_says,
    settled::what_was_not_published_is_not_there,
    settled::a_closed_root_is_no_wedge,
    settled::trash_that_cannot_be_deleted_is_told,
    settled::what_is_taken_over_lasts_as_well,
    settled::files_that_their_owner_may_not_read,
    crash::killed_anywhere_in_publishing_without_a_sync,
    crash::killed_anywhere_in_publishing_with_syncfs,
    crash::killed_anywhere_in_publishing_with_fsync,
    crash::killed_anywhere_in_collecting,
    crash::killed_anywhere_in_the_life_of_a_container,
    crash::killed_anywhere_in_the_very_first_opening,
    crash::killed_at_random_moments,
    crash::two_processes_and_eight_threads,
    containers::a_container_lives,
    containers::a_container_on_nothing,
    containers::an_init_layer_is_never_committed,
    containers::a_container_is_found_again,
    containers::containers_keep_what_they_stand_on,
    containers::a_commit_is_what_was_there,
    containers::a_commit_loses_nothing,
    prepared::closed_directories_are_filled_by_their_owner,
    prepared::an_init_layer_is_found_whole_or_not_at_all,
    prepared::an_init_layer_hides_what_is_in_its_directories,
    prepared::a_container_on_as_many_layers_as_can_be,
    prepared::links_lead_to_what_is_told,
    prepared::an_empty_init_layer_is_no_lower,
    prepared::a_container_keeps_its_fallbacks,
    together::a_container_is_not_prepared_on_what_is_gone,
    together::a_note_goes_with_its_container,
    together::a_copy_of_a_descriptor_keeps_nothing_in_use,
    together::a_discard_tells_only_its_own,
    together::containers_go_before_their_layers,
    older::what_is_known_of_this_kernel,
    older::an_older_kernel_mounts_all_the_same,
    limits::what_a_container_writes_is_limited,
    limits::how_many_files_a_container_makes_is_limited,
    limits::what_was_written_within_a_limit_is_found_again,
    limits::a_method_that_is_not_possible_here,
    root::links_lead_back_inside,
    root::links_of_proc_are_refused,
    root::only_files_are_opened,
    root::what_is_made_is_made_inside,
    root::what_races_is_tried_again,
    root::a_race_is_not_lost,
    model::random_stacks_show_what_the_model_says,
    diff::every_sort_of_change,
    diff::random_changes_can_be_applied,
    diff::random_changes_with_an_index_can_be_applied,
    diff::what_changed_can_be_read_whole,
}

/// Tests without an overlay of several layers, for which older kernels are good enough.
const ON_ANY_KERNEL: &[&str] = &[
    "one_lower_is_bound_read_only",
    "a_layer_that_is_not_there",
    "nothing_is_left_of_a_failure",
    "removal_is_not_led_astray",
    "nothing_is_seen_before_it_is_published",
    "one_name_is_published_once",
    "layers_stay_while_they_are_needed",
    "what_had_not_reached_the_disk_is_not_believed",
    "a_folder_that_is_no_store_of_ours",
    "a_damaged_store_is_found_out_and_repaired",
    "usage_is_what_du_says",
    "what_was_not_published_is_not_there",
    "a_closed_root_is_no_wedge",
    "trash_that_cannot_be_deleted_is_told",
    "what_is_taken_over_lasts_as_well",
    "files_that_their_owner_may_not_read",
    "two_processes_and_eight_threads",
    "links_lead_back_inside",
    "links_of_proc_are_refused",
    "only_files_are_opened",
    "what_is_made_is_made_inside",
    "what_races_is_tried_again",
    "a_race_is_not_lost",
    "what_is_known_of_this_kernel",
    "every_call_of_a_bind",
    "every_call_of_a_writable_layer",
    "every_call_of_a_store",
    "a_full_disk_at_every_step",
];

/// Tests of many processes, which the virtual machine takes minutes for.
#[expect(dead_code, reason = "the list of places is made from it")]
const ON_THE_HOST: &[&str] = &[
    "killed_anywhere_in_publishing_without_a_sync",
    "killed_anywhere_in_publishing_with_syncfs",
    "killed_anywhere_in_publishing_with_fsync",
    "killed_anywhere_in_collecting",
    "killed_anywhere_in_the_life_of_a_container",
    "killed_at_random_moments",
];

/// Tests of file systems that are mounted nowhere as what an overlay is on.
const ON_DETACHED_MOUNTS: &[&str] = &[
    "what_a_container_writes_is_limited",
    "how_many_files_a_container_makes_is_limited",
    "what_was_written_within_a_limit_is_found_again",
    "a_method_that_is_not_possible_here",
    "every_call_of_a_limit",
];

/// What else a test needs. The test kit has no need of a kernel version; a program that is not there comes close, and says it.
fn more_needs(test: &str) -> &'static [Need] {
    if test == "an_older_kernel_mounts_all_the_same" {
        return an_older_kernel();
    }
    if ON_DETACHED_MOUNTS.contains(&test) {
        return detached_mounts();
    }
    if ON_ANY_KERNEL.contains(&test) || support::takes_lowers_one_by_one() {
        return &[];
    }
    &[Need::Program("an overlay with lowerdir+, of Linux 6.8")]
}

fn an_older_kernel() -> &'static [Need] {
    if support::takes_lowers_one_by_one() { &[Need::Program("a kernel older than Linux 6.8")] } else { &[] }
}

/// Five hundred mounts, each with all that is below it compared, take most of a minute where others work, too. A thorough run has ten times as many.
fn time_of(test: &str) -> Duration {
    let usual = if test == "random_stacks_show_what_the_model_says" { 240 } else { 60 };
    Duration::from_secs(if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { usual * 10 } else { usual })
}

fn detached_mounts() -> &'static [Need] {
    if support::is_linux(6, 15) { &[] } else { &[Need::Program("overlays on detached mounts, of Linux 6.15")] }
}

/// With real root, and a disk of their own.
fn limits() -> Vec<Test> {
    let disk = [Need::Root, Need::Overlay, Need::Program(support::MKFS), Need::File("/dev/loop-control")];
    let quotas: &[Need] =
        if support::has_module("quota_v2") { &[] } else { &[Need::Program("the kernel's module quota_v2")] };
    let image = |name, run| Test::new(name, run).needs(&disk).needs(detached_mounts());
    let project = |name, run| Test::new(name, run).needs(&disk).needs(quotas);
    vec![
        image("an_image_is_what_e2fsck_takes", limits::an_image_is_what_e2fsck_takes)
            .needs(&[Need::Program(limits::E2FSCK)]),
        image("killed_anywhere_in_the_life_of_an_image", limits::killed_anywhere_in_the_life_of_an_image),
        project("a_project_holds_what_a_container_writes", projects::a_project_holds_what_a_container_writes),
        project("a_project_counts_files_and_copies", projects::a_project_counts_files_and_copies),
        project("killed_anywhere_in_the_life_of_a_project", projects::killed_anywhere_in_the_life_of_a_project),
        project("every_call_of_a_project", container_faults::every_call_of_a_project),
    ]
}

fn main() -> ExitCode {
    if let Some(power) = power::asked_for() {
        return power::run(&power);
    }
    if let Some(name) = support::asked_for_userns() {
        return support::run_in_userns(&name, BODIES);
    }
    let mut tests = in_both_forms();
    tests.push(Test::new("an_ordinary_user_may_not", errors::an_ordinary_user_may_not).needs(&[Need::OrdinaryUser]));
    tests.push(
        Test::new("an_old_kernel_is_told_as_such", errors::an_old_kernel_is_told_as_such)
            .needs(&[Need::Root, Need::Overlay])
            .needs(an_older_kernel()),
    );
    let idmapped = "one_layer_for_many_user_namespaces";
    tests.push(
        Test::new(idmapped, older::one_layer_for_many_user_namespaces)
            .needs(&[Need::Root, Need::Overlay, Need::Userns])
            .needs(&[Need::Program(support::MKFS), Need::File("/dev/loop-control")]),
    );
    let redirects = "random_changes_with_redirects_can_be_applied";
    tests.push(
        Test::new(redirects, diff::random_changes_with_redirects_can_be_applied)
            .needs(&[Need::Root, Need::Overlay])
            .needs(more_needs(redirects)),
    );
    tests.push(
        Test::new("a_write_by_a_name_that_is_gone_is_found", diff::a_write_by_a_name_that_is_gone_is_found)
            .needs(&[Need::Root, Need::Overlay]),
    );
    tests.extend(limits());
    run(&tests)
}
