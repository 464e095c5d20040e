//! A network whose bridge somebody has deleted, and another makes anew, while a third removes what is left of the first.

use crate::support::{addresses, clean_up, network, nft, run_ip, spec};
use cofferdam_netlink_bridge::test_hooks::{with_answer, with_meanwhile};
use cofferdam_netlink_bridge::{Endpoint, ErrorKind, Finding, Host, NetNs, Network};
use std::sync::mpsc;

/// The network, and a container that publishes a port.
fn made(port: &str) -> (NetNs, Network, Endpoint) {
    let (netns, (_, network)) = (NetNs::new().unwrap(), network());
    let endpoint = network.attach(&netns, &addresses(2).owner("job").publish(port.parse().unwrap())).unwrap();
    (netns, network, endpoint)
}

/// What a network leaves in the rules if links alone are deleted.
fn left_over() -> Network {
    let (_netns, network, endpoint) = made("81:81");
    run_ip(&format!("link del {}", endpoint.port()));
    run_ip("link del br-test");
    network
}

fn is_whole(network: &Network, endpoint: &Endpoint, after: &str) {
    let wrong = network.check(std::slice::from_ref(endpoint)).unwrap();
    assert!(wrong.iter().all(|one| matches!(one, Finding::Setting(_))), "{after}: {wrong:?}");
}

/// Whatever is removed meanwhile, and from whatever moment on it is there: nothing of it is taken.
pub(crate) fn made_anew_while_it_is_removed() {
    let host = Host::current().unwrap();
    left_over();
    let (count, removed) = with_answer(None, || Network::remove(&host, &spec()));
    removed.unwrap();
    assert_eq!(nft("list tables"), "");
    assert!(count > 8, "{count}");
    for nth in 0..count {
        left_over();
        let (tell, told) = mpsc::channel();
        let anew = move || {
            std::thread::spawn(move || tell.send(made("80:80")).unwrap()).join().unwrap();
        };
        let removed = with_meanwhile(nth, anew, || Network::remove(&host, &spec()));
        let (_netns, network, endpoint) = told.try_recv().unwrap();
        is_whole(&network, &endpoint, &format!("at answer {nth}"));
        if let Err(error) = removed {
            assert_eq!(error.kind(), ErrorKind::InUse, "at answer {nth}: {error}");
        }
        clean_up(&host, &network, &[endpoint]);
        assert_eq!(nft("list tables"), "");
    }
}

/// Who still has the network of before has nothing of the new one.
pub(crate) fn made_anew_before_it_is_removed() {
    let old = left_over();
    let (_netns, network, endpoint) = made("80:80");
    old.delete().unwrap();
    is_whole(&network, &endpoint, "deleted");
    let removed = old.gc(|_| true).unwrap();
    is_whole(&network, &endpoint, &format!("collected: {removed:?}"));
    clean_up(&Host::current().unwrap(), &network, &[endpoint]);
    assert_eq!(nft("list tables"), "");
}

/// Somebody else's spec with the same name takes nothing of a network whose bridge is to be brought back.
pub(crate) fn removed_by_another_owner() {
    let host = Host::current().unwrap();
    let (_netns, _, endpoint) = made("80:80");
    run_ip("link del br-test");
    let before = nft("list ruleset");
    Network::remove(&host, &spec().owner("another")).unwrap();
    assert_eq!(nft("list ruleset"), before);
    let (network, _) = Network::reapply(&host, &spec(), std::slice::from_ref(&endpoint)).unwrap();
    is_whole(&network, &endpoint, "brought back");
    clean_up(&host, &network, &[endpoint]);
    assert_eq!(nft("list tables"), "");
}
