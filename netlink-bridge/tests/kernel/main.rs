//! Tests against the real kernel: see the test kit for how they are run and what they may not leave behind.

mod support;
mod traffic;

use cofferdam_testkit::{Need, Test, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = |name, run| Test::new(name, run).needs(&[Need::Root, Need::Veth]);
    run(&[
        root("tcp_between_containers", traffic::tcp_between_containers),
        root("udp_between_containers", traffic::udp_between_containers),
        root("container_and_gateway", traffic::container_and_gateway),
        root("loopback_alone", traffic::loopback_alone),
        root("loopback_of_an_attached_container", traffic::loopback_of_an_attached_container),
        root("an_address_used_again", traffic::an_address_used_again),
        root("a_crowd", traffic::a_crowd),
    ])
}
