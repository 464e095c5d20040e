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

pub(crate) const NFT: Need = Need::Program("nft");

/// For what takes seconds, and on a busy machine minutes.
const LONG: Duration = Duration::from_secs(300);

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

/// One that looks at the rules, or changes them, by nft(8).
fn ruled(name: &'static str, run: fn()) -> Test {
    root(name, run).needs(&[NFT])
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
        ruled("ipv6_switched_off", errors::ipv6_switched_off),
        ruled("ports_without_a_table", errors::ports_without_a_table),
        root("a_thousand_routes", errors::a_thousand_routes),
        root("invalid_configuration", errors::invalid_configuration),
        ruled("creating_a_network", fault::creating_a_network).time(LONG),
        root("opening_namespaces", fault::opening_namespaces),
        root("attaching", fault::attaching).time(LONG),
        root("removing", fault::removing),
        root("messages_of_an_attach", fault::messages_of_an_attach),
    ]
}

/// What gets through; what is kept, compared and brought back.
fn rules() -> Vec<Test> {
    vec![
        ruled("out_under_the_hosts_address", isolation::out_under_the_hosts_address),
        ruled("published_to_the_outside", published::published_to_the_outside),
        ruled("published_to_the_host", published::published_to_the_host),
        ruled("published_to_the_network_itself", published::published_to_the_network_itself),
        ruled("published_over_sctp", sctp::published_over_sctp),
        ruled("published_at_one_address", published::published_at_one_address),
        ruled("a_range_and_a_taken_port", published::a_range_and_a_taken_port),
        ruled("a_neighbour_with_a_route", isolation::a_neighbour_with_a_route),
        ruled("two_networks_are_apart", isolation::two_networks_are_apart),
        ruled("containers_that_are_apart", isolation::containers_that_are_apart),
        ruled("an_internal_network", isolation::an_internal_network),
        ruled("the_host_of_an_internal_network", isolation::the_host_of_an_internal_network),
        ruled("the_hosts_loopback_is_closed", defence::the_hosts_loopback_is_closed),
        ruled("udp_from_before", published::udp_from_before),
        ruled("udp_after_a_flush", published::udp_after_a_flush),
        ruled("a_port_at_loopback", defence::a_port_at_loopback),
        ruled("a_source_at_loopback", defence::a_source_at_loopback),
        ruled("a_resolver_at_loopback", defence::a_resolver_at_loopback),
        ruled("a_listener_at_ipv6_loopback", defence::a_listener_at_ipv6_loopback),
        ruled("at_loopback_from_now_on", defence::at_loopback_from_now_on),
        ruled("alone_at_loopback_from_now_on", defence::alone_at_loopback_from_now_on),
        ruled("apart_from_now_on", isolation::apart_from_now_on),
        ruled("without_rules_from_now_on", isolation::without_rules_from_now_on),
        ruled("loopback_without_rules", defence::loopback_without_rules),
        root("a_router_in_a_container", defence::a_router_in_a_container),
        ruled("thousands_of_ports", defence::thousands_of_ports).time(LONG),
        ruled("answers_to_creating", answers::answers_to_creating).time(LONG),
        ruled("answers_to_attaching", answers::answers_to_attaching).time(LONG),
        ruled("answers_to_mending", answers::answers_to_mending).time(LONG),
        ruled("answers_to_upkeep", answers::answers_to_upkeep).time(LONG),
        root("as_much_for_the_last_as_for_the_first", fault::as_much_for_the_last_as_for_the_first),
        ruled("killed_while_attaching", killed::killed_while_attaching).time(LONG),
        ruled("killed_between_system_calls", killed::killed_between_system_calls).time(LONG),
        ruled("killed_at_anything_else", killed::killed_at_anything_else).time(LONG),
        ruled("golden_rulesets", upkeep::golden_rulesets).time(LONG),
        ruled("mended", upkeep::mended),
        ruled("others_in_the_way", upkeep::others_in_the_way),
        ruled("left_by_the_dead", upkeep::left_by_the_dead),
        ruled("all_at_once", upkeep::all_at_once),
        ruled("a_subnet_that_is_taken", upkeep::a_subnet_that_is_taken),
        ruled("a_subnet_that_is_taken_later", upkeep::a_subnet_that_is_taken_later),
        root("routes_and_mtu", upkeep::routes_and_mtu),
        ruled("a_crowd_with_addresses", pool::a_crowd_with_addresses).time(LONG),
        root("whose_addresses", pool::whose_addresses),
        root("whose_addresses_of_two_owners", pool::whose_addresses_of_two_owners),
        root("addresses_of_a_later_version", pool::addresses_of_a_later_version),
        root("addresses_that_are_given", pool::addresses_that_are_given),
        root("addresses_after_a_reboot", pool::addresses_after_a_reboot),
        ruled("made_anew_while_it_is_removed", anew::made_anew_while_it_is_removed).time(LONG),
        ruled("made_anew_before_it_is_removed", anew::made_anew_before_it_is_removed),
        ruled("removed_by_another_owner", anew::removed_by_another_owner),
        root("looked_for_while_attaching", upkeep::looked_for_while_attaching),
        root("undone_as_far_as_possible", answers::undone_as_far_as_possible),
        root("a_pool_that_is_full", pool::a_pool_that_is_full),
    ]
}
