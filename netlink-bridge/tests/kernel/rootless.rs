//! An ordinary user, as root of a user namespace: everything works among its containers, one of which can play the outside.

use crate::{NFT, isolation, life, pool, published, sctp, traffic, upkeep};
use cofferdam_testkit::{Need, Test};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::process::{Command, ExitCode};

/// The argument with which this program starts itself for the inside: then comes the name of a test.
pub(crate) const INSIDE: &str = "--in-a-user-namespace";

pub(crate) fn tests() -> Vec<Test> {
    let test = |name, run| Test::new(name, run).needs(&[Need::Userns, Need::Veth]);
    // Root does all of this without a user namespace: see the tests themselves.
    let ordinary = |name, run| test(name, run).needs(&[Need::OrdinaryUser]);
    vec![
        test("among_its_containers", || among("its containers")),
        ordinary("published_among_its_containers", || among("published")).needs(&[NFT]),
        ordinary("apart_among_its_containers", || among("apart")).needs(&[NFT]),
        ordinary("kept_among_its_containers", || among("kept")).needs(&[NFT]),
    ]
}

/// What works as root, and is done inside.
fn work(what: &str) -> &'static [fn()] {
    match what {
        "its containers" => &[
            traffic::tcp_between_containers,
            traffic::container_and_gateway,
            traffic::loopback_alone,
            life::detached_after_the_namespace,
        ],
        "published" => &[
            published::published_to_the_outside,
            published::published_to_the_host,
            published::published_to_the_network_itself,
            sctp::published_over_sctp,
        ],
        "apart" => &[
            isolation::out_under_the_hosts_address,
            isolation::a_neighbour_with_a_route,
            isolation::two_networks_are_apart,
            isolation::an_internal_network,
        ],
        "kept" => &[upkeep::left_by_the_dead, pool::a_pool_that_is_full],
        _ => &[],
    }
}

/// A threaded program cannot make a user namespace for itself; its child can.
fn among(what: &str) {
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).args([INSIDE, what]).status().unwrap();
    assert!(status.success(), "{status}");
}

/// The child, before it has any other thread.
pub(crate) fn inside() -> ExitCode {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("the need was tried");
    for (file, text) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        fs::write(format!("/proc/self/{file}"), text).expect("maps its own id");
    }
    let work = work(&std::env::args().nth(2).expect("what is to be done"));
    assert!(!work.is_empty());
    for (number, one) in work.iter().enumerate() {
        // Each begins in a namespace as new as a test's.
        if number > 0 {
            unshare(CloneFlags::CLONE_NEWNET).expect("it is root here");
        }
        one();
    }
    ExitCode::SUCCESS
}
