//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.

mod anew;
mod answers;
mod defence;
mod errors;
mod fault;
mod isolation;
mod killed;
mod life;
mod pool;
mod published;
mod rootless;
mod sctp;
mod shown;
mod support;
mod traffic;
mod upkeep;
mod with_rules;

use cofferdam_testkit::{Need, Test, run};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(rootless::INSIDE) {
        return rootless::inside();
    }
    match std::env::args().nth(1).as_deref() {
        Some(pool::CROWD) => return pool::crowd(),
        Some(killed::KILLED) => return killed::killed(),
        _ => {}
    }
    run(&[links(), rules(), rootless::tests()].concat())
}

fn root(name: &'static str, run: fn()) -> Test {
    Test::new(name, run).needs(&[Need::Root, Need::Veth])
}

/// One that takes seconds, and on a busy machine minutes.
fn slow(name: &'static str, run: fn()) -> Test {
    root(name, run).time(Duration::from_secs(300))
}

/// Bridges, and containers connected to them.
fn links() -> Vec<Test> {
    vec![
        root("tcp_between_containers", traffic::tcp_between_containers),
        root("udp_between_containers", traffic::udp_between_containers),
        root("container_and_gateway", traffic::container_and_gateway),
        root("loopback_alone", traffic::loopback_alone),
        root("loopback_of_an_attached_container", traffic::loopback_of_an_attached_container),
        root("an_address_used_again", traffic::an_address_used_again),
        root("a_crowd", traffic::a_crowd),
        root("the_bridge", shown::the_bridge),
        root("the_two_ends", shown::the_two_ends),
        root("two_networks", shown::two_networks),
        root("another_host", shown::another_host),
        root("detached_twice", life::detached_twice),
        root("detached_after_the_namespace", life::detached_after_the_namespace),
        root("created_twice_deleted_twice", life::created_twice_deleted_twice),
        root("created_by_eight_threads", life::created_by_eight_threads),
        root("every_way_to_a_namespace", life::every_way_to_a_namespace),
        root("pinned", life::pinned),
        root("pinned_by_others", life::pinned_by_others),
        root("unpinned_whatever_is_left", life::unpinned_whatever_is_left),
        root("shared_with_another", life::shared_with_another),
        root("a_name_that_is_taken", errors::a_name_that_is_taken),
        root("no_namespace", errors::no_namespace),
        root("an_interface_that_is_there", errors::an_interface_that_is_there),
        root("an_id_that_is_taken", errors::an_id_that_is_taken),
        root("a_bridge_that_is_gone", errors::a_bridge_that_is_gone),
        root("an_address_that_the_kernel_refuses", errors::an_address_that_the_kernel_refuses),
        root("a_route_that_is_there", errors::a_route_that_is_there),
        root("ipv6_switched_off", errors::ipv6_switched_off),
        root("ports_without_a_table", errors::ports_without_a_table),
        root("a_thousand_routes", errors::a_thousand_routes),
        root("invalid_configuration", errors::invalid_configuration),
        slow("creating_a_network", fault::creating_a_network),
        root("opening_namespaces", fault::opening_namespaces),
        slow("attaching", fault::attaching),
        root("removing", fault::removing),
        root("messages_of_an_attach", fault::messages_of_an_attach),
    ]
}

/// What gets through; what is kept, compared and brought back.
fn rules() -> Vec<Test> {
    vec![
        root("out_under_the_hosts_address", isolation::out_under_the_hosts_address),
        root("published_to_the_outside", published::published_to_the_outside),
        root("published_to_the_host", published::published_to_the_host),
        root("published_to_the_network_itself", published::published_to_the_network_itself),
        root("published_over_sctp", sctp::published_over_sctp),
        root("published_at_one_address", published::published_at_one_address),
        root("a_range_and_a_taken_port", published::a_range_and_a_taken_port),
        root("a_neighbour_with_a_route", isolation::a_neighbour_with_a_route),
        root("two_networks_are_apart", isolation::two_networks_are_apart),
        root("containers_that_are_apart", isolation::containers_that_are_apart),
        root("an_internal_network", isolation::an_internal_network),
        root("the_hosts_loopback_is_closed", defence::the_hosts_loopback_is_closed),
        root("udp_from_before", published::udp_from_before),
        root("udp_after_a_flush", published::udp_after_a_flush),
        root("a_port_at_loopback", defence::a_port_at_loopback),
        root("a_source_at_loopback", defence::a_source_at_loopback),
        root("a_resolver_at_loopback", defence::a_resolver_at_loopback),
        root("at_loopback_from_now_on", defence::at_loopback_from_now_on),
        root("alone_at_loopback_from_now_on", defence::alone_at_loopback_from_now_on),
        root("apart_from_now_on", isolation::apart_from_now_on),
        root("loopback_without_rules", defence::loopback_without_rules),
        root("a_router_in_a_container", defence::a_router_in_a_container),
        slow("thousands_of_ports", defence::thousands_of_ports),
        slow("answers_to_creating", answers::answers_to_creating),
        slow("answers_to_attaching", answers::answers_to_attaching),
        slow("answers_to_mending", answers::answers_to_mending),
        slow("answers_to_upkeep", answers::answers_to_upkeep),
        root("as_much_for_the_last_as_for_the_first", fault::as_much_for_the_last_as_for_the_first),
        slow("killed_while_attaching", killed::killed_while_attaching),
        slow("killed_between_system_calls", killed::killed_between_system_calls),
        slow("killed_at_anything_else", killed::killed_at_anything_else),
        slow("golden_rulesets", upkeep::golden_rulesets),
        root("mended", upkeep::mended),
        root("others_in_the_way", upkeep::others_in_the_way),
        root("left_by_the_dead", upkeep::left_by_the_dead),
        root("all_at_once", upkeep::all_at_once),
        root("a_subnet_that_is_taken", upkeep::a_subnet_that_is_taken),
        root("a_subnet_that_is_taken_later", upkeep::a_subnet_that_is_taken_later),
        root("routes_and_mtu", upkeep::routes_and_mtu),
        slow("a_crowd_with_addresses", pool::a_crowd_with_addresses),
        root("whose_addresses", pool::whose_addresses),
        root("whose_addresses_of_two_owners", pool::whose_addresses_of_two_owners),
        root("addresses_of_a_later_version", pool::addresses_of_a_later_version),
        root("addresses_that_are_given", pool::addresses_that_are_given),
        root("addresses_after_a_reboot", pool::addresses_after_a_reboot),
        slow("made_anew_while_it_is_removed", anew::made_anew_while_it_is_removed),
        root("made_anew_before_it_is_removed", anew::made_anew_before_it_is_removed),
        root("removed_by_another_owner", anew::removed_by_another_owner),
        root("looked_for_while_attaching", upkeep::looked_for_while_attaching),
        root("undone_as_far_as_possible", answers::undone_as_far_as_possible),
        root("a_pool_that_is_full", pool::a_pool_that_is_full),
    ]
}
