//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.

mod advisories;
mod attributes;
mod differences;
mod entries;
mod faults;
mod hostile;
mod layout;
mod links;
mod marks;
mod memory;
mod properties;
mod python;
mod race;
mod semantics;
mod stacks;
mod store;
mod support;
mod traps;
mod writing;

use cofferdam_testkit::{Need, Test, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let test = Test::new;
    let root = |name, run| Test::new(name, run).needs(&[Need::Root]);
    let overlay = |name, run| Test::new(name, run).needs(&[Need::Root, Need::Overlay]).time(Duration::from_secs(180));
    let entries = [
        overlay("layers_mean_what_they_should_in_any_order", semantics::layers_mean_what_they_should_in_any_order),
        overlay("of_several_with_one_name_the_last_counts", semantics::of_several_with_one_name_the_last_counts),
        test("flattened_layers_mean_the_same", semantics::flattened_layers_mean_the_same),
        test("sparse_files_in_four_encodings", entries::sparse_files_in_four_encodings),
        test("sparse_files_that_lie", entries::sparse_files_that_lie),
        Test::new("sparse_files_of_gnu_tar", entries::sparse_files_of_gnu_tar).needs(&[Need::Program("/bin/tar")]),
        test("links_to_a_lower_sparse_file", entries::links_to_a_lower_sparse_file),
        test("directories_that_keep_their_owner_out", entries::directories_that_keep_their_owner_out),
        test("directories_that_nobody_may_enter", entries::directories_that_nobody_may_enter),
        root("access_control_lists", entries::access_control_lists),
        root("owners_by_a_map", entries::owners_by_a_map),
        test("what_cannot_be_had", entries::what_cannot_be_had),
        test("attributes_of_what_may_only_be_read", entries::attributes_of_what_may_only_be_read),
        test("a_merged_directory_has_only_the_new_attributes", entries::a_merged_directory_has_only_the_new_attributes),
        test("the_whole_group_of_links_is_copied", entries::the_whole_group_of_links_is_copied),
        test("bytes_of_copied_files_are_limited", links::bytes_of_copied_files_are_limited),
        test("names_of_copied_files_are_limited", links::names_of_copied_files_are_limited),
        test("a_lower_layer_is_walked_once", links::a_lower_layer_is_walked_once),
        test("contradictions_are_refused", semantics::contradictions_are_refused),
        test("a_link_to_a_lower_file", semantics::a_link_to_a_lower_file_is_of_one_file_with_all_its_attributes),
        test(
            "a_directory_that_is_passed_through_is_as_below",
            semantics::a_directory_that_is_passed_through_is_as_below,
        ),
        test("attributes_are_as_in_the_archive", semantics::attributes_are_as_in_the_archive),
        root("owners_devices_and_capabilities_as_root", semantics::owners_devices_and_capabilities_as_root),
        test("squashed_to_the_caller", semantics::squashed_to_the_caller),
        test("without_lowers", semantics::without_lowers),
        test("whiteouts_of_every_type", semantics::whiteouts_of_every_type),
        test("nothing_outside_changes", hostile::nothing_outside_changes),
        test("absolute_symlinks_stay_inside", hostile::absolute_symlinks_stay_inside),
        test("symlinks_of_lower_layers_stay_inside", hostile::symlinks_of_lower_layers_stay_inside),
        test("what_is_refused", hostile::what_is_refused),
        test("limits_hold", hostile::limits_hold),
        test("what_is_kept_has_a_bound", hostile::what_is_kept_has_a_bound),
        test("a_stage_that_is_not_empty", hostile::a_stage_that_is_not_empty),
        test("no_file_is_written_through_a_link", hostile::no_file_is_written_through_a_link),
        test("a_directory_that_is_swapped_for_a_symlink", race::a_directory_that_is_swapped_for_a_symlink),
        test("two_layers", layout::two_layers),
        test("layers_that_are_not_what_they_should_be", layout::layers_that_are_not_what_they_should_be),
        test("blobs_that_are_exchanged", layout::blobs_that_are_exchanged),
        test("documents_that_are_not_what_they_should_be", layout::documents_that_are_not_what_they_should_be),
        test("layouts_that_are_none", layout::layouts_that_are_none),
        test("by_name_and_platform", layout::by_name_and_platform_through_an_inner_index),
        test("the_order_of_entries_does_not_matter", properties::the_order_of_entries_does_not_matter)
            .time(Duration::from_secs(180)),
        overlay("the_union_of_layers_is_their_flattened_tree", properties::the_union_of_layers_is_their_flattened_tree),
        overlay("stacks_show_what_the_model_says", stacks::stacks_show_what_the_model_says),
        test("no_bytes_lead_outside", properties::no_bytes_lead_outside).time(Duration::from_secs(180)),
        root("every_failure_is_told", faults::every_failure_is_told).time(Duration::from_secs(180)),
        test("what_races_is_tried_again", faults::what_races_is_tried_again),
        test("every_failure_leaves_no_stage", faults::every_failure_leaves_no_stage).time(Duration::from_secs(180)),
    ];
    run(&[&entries[..], &images(), &traps(), &readers()].concat())
}

/// Everything hostile, with the defences on and off.
fn traps() -> Vec<Test> {
    let test = Test::new;
    vec![
        test("every_trap_while_directories_are_swapped", traps::every_trap_while_directories_are_swapped)
            .time(Duration::from_secs(180)),
        test("hostile_archives_without_defences", traps::hostile_archives_without_defences),
        test("a_whiteout_of_the_directory_above", traps::a_whiteout_of_the_directory_above),
        test("hard_links_do_not_know_the_working_directory", traps::hard_links_do_not_know_the_working_directory),
        test("what_other_readers_stumble_over", traps::what_other_readers_stumble_over),
        test("sizes_that_lie", advisories::sizes_that_lie),
        test("a_root_that_is_a_symlink", advisories::a_root_that_is_a_symlink),
        test("digests_that_are_paths", advisories::digests_that_are_paths),
        test("documents_that_are_two_things", advisories::documents_that_are_two_things),
        test("users_of_the_host", advisories::users_of_the_host),
        test("metadata_without_a_bound", advisories::metadata_without_a_bound),
        test("marks_of_overlayfs", advisories::marks_of_overlayfs),
        test("the_way_to_marks_is_gone_once", marks::the_way_to_marks_is_gone_once),
        test("marks_can_be_ended", marks::marks_can_be_ended),
        test("bytes_of_attributes_are_limited", hostile::bytes_of_attributes_are_limited),
    ]
}

/// Stores, and images that are made.
fn images() -> Vec<Test> {
    let test = Test::new;
    let root = |name, run| Test::new(name, run).needs(&[Need::Root]);
    let overlay = |name, run| Test::new(name, run).needs(&[Need::Root, Need::Overlay]);
    vec![
        test("a_tree_comes_back_as_it_was", writing::a_tree_comes_back_as_it_was),
        test("the_same_files_give_the_same_layer", writing::the_same_files_give_the_same_layer),
        test("changes_make_one_tree_of_the_other", writing::changes_make_one_tree_of_the_other),
        root("labels_are_the_machines", attributes::labels_are_the_machines),
        root("attributes_that_are_too_large", attributes::attributes_that_are_too_large).needs(&[
            Need::Program(attributes::MKFS),
            Need::Program("/bin/mount"),
            Need::File("/dev/loop-control"),
        ]),
        test("what_a_socket_hides_stays_hidden", differences::what_a_socket_hides_stays_hidden),
        test("what_cannot_be_compared_is_told", differences::what_cannot_be_compared_is_told),
        overlay("an_upper_directory_becomes_a_layer", writing::an_upper_directory_becomes_a_layer),
        test("an_image_on_top_of_another", writing::an_image_on_top_of_another),
        test("archives_of_docker", writing::archives_of_docker),
        root("others_read_what_we_write", writing::others_read_what_we_write)
            .needs(&[Need::Program("/usr/bin/skopeo"), Need::Program("/usr/bin/umoci")]),
        test("layers_that_are_there_are_not_unpacked_again", store::layers_that_are_there_are_not_unpacked_again),
        overlay("an_image_in_a_store_is_mounted", store::an_image_in_a_store_is_mounted),
        test("a_failure_leaves_whole_layers_only", store::a_failure_leaves_whole_layers_only),
        root("a_full_disk", store::a_full_disk).needs(&[Need::Program("/bin/mount")]),
        test("several_writers_of_one_layout", writing::several_writers_of_one_layout),
        test("what_a_killed_writer_has_left_is_removed", writing::what_a_killed_writer_has_left_is_removed),
        test("foreign_layers_are_not_written", writing::foreign_layers_are_not_written),
        test("a_layer_that_changes_while_it_is_saved", writing::a_layer_that_changes_while_it_is_saved),
        test("an_observer_that_panics", store::an_observer_that_panics),
        test("hostile_layers_share_one_bound", memory::hostile_layers_share_one_bound).time(Duration::from_secs(600)),
        test("layers_wait_for_memory", memory::layers_wait_for_memory),
        test("deep_marks_have_a_bound", memory::deep_marks_have_a_bound),
        test("large_layers_take_no_more", memory::large_layers_take_no_more),
        test("killed_at_any_moment", store::killed_at_any_moment).time(Duration::from_secs(180)),
        test("ended_at_any_moment", store::ended_at_any_moment).time(Duration::from_secs(180)),
        test("layers_that_wait_are_removed", store::layers_that_wait_are_removed),
        test("users_are_the_images_own", store::users_are_the_images_own),
    ]
}

/// What others see in the same archives.
fn readers() -> Vec<Test> {
    let python = |name, run| Test::new(name, run).needs(&[Need::Program(python::PYTHON)]);
    vec![
        python("entries_are_those_of_tarfile", python::entries_are_those_of_tarfile),
        Test::new("entries_are_those_of_gnu_tar", python::entries_are_those_of_gnu_tar)
            .needs(&[Need::Program(python::TAR)]),
        Test::new("entries_are_those_of_go", python::entries_are_those_of_go)
            .needs(&[Need::Root, Need::Program(python::UMOCI)]),
        python("entries_are_those_of_tarfile_at_random", python::entries_are_those_of_tarfile_at_random)
            .time(Duration::from_secs(180)),
    ]
}
