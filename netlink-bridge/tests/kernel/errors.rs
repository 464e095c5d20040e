//! What cannot be done says why, and leaves everything as it was.

use crate::support::{addresses, clean_up, container, ip, links, network, nft, run_ip, spec, v4, within};
use cofferdam_netlink_bridge::{EndpointSpec, ErrorKind, Host, NetNs, Network, NetworkSpec, Operation, Subnet};
use serde_json::Value;
use std::fs::File;
use std::net::IpAddr;

/// What somebody can set on a link; not what follows by itself, sooner or later: carrier, link-local addresses, timers.
fn everything() -> Vec<String> {
    let of_link = |link: &Value| {
        let settings = ["ifindex", "ifname", "address", "ifalias", "mtu", "master", "group", "link"];
        let mut shown: Vec<_> = settings.map(|name| link[name].clone()).into();
        shown.push(link["linkinfo"]["info_kind"].clone());
        shown.push(link["flags"].as_array().unwrap().contains(&"UP".into()).into());
        let addresses = link["addr_info"].as_array().unwrap().iter().filter(|a| a["scope"] == "global");
        shown.extend(addresses.map(|a| a["local"].clone()));
        format!("{shown:?}")
    };
    ip("address show").iter().map(of_link).collect()
}

/// The name is a bridge without owner, another owner's, or no bridge at all: it is left alone.
pub(crate) fn a_name_that_is_taken() {
    let host = Host::current().unwrap();
    for make in ["link add br-test type bridge", "link add br-test type veth peer name other"] {
        run_ip(make);
        let before = everything();
        for error in [Network::create(&host, &spec()).unwrap_err(), Network::open(&host, &spec()).unwrap_err()] {
            assert_eq!((error.kind(), error.object()), (ErrorKind::Foreign, Some("br-test")), "{error}");
        }
        assert_eq!(everything(), before);
        run_ip("link del br-test");
    }
    let network = Network::create(&host, &spec().owner("somebody else")).unwrap();
    let before = everything();
    assert_eq!(Network::create(&host, &spec()).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(everything(), before);
    // A bridge that somebody takes over is theirs.
    run_ip("link set br-test alias theirs");
    let error = network.delete().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Foreign, Operation::DeleteBridge));
    assert_eq!(links(), ["br-test", "lo"]);
    run_ip("link del br-test");
    network.delete().unwrap();
}

pub(crate) fn no_namespace() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let folder = std::env::temp_dir();
    let file = folder.join("netns");
    File::create(&file).unwrap();
    for error in [
        NetNs::from_pid(child.id()).unwrap_err(),
        NetNs::from_path(folder.join("nothing")).unwrap_err(),
        // What is left under /run/netns when the namespace has been unmounted.
        NetNs::from_path(&file).unwrap_err(),
        NetNs::from_path("/proc/self/ns/uts").unwrap_err(),
        NetNs::from_fd(File::open("/dev/null").unwrap()).unwrap_err(),
        Host::from_fd(File::open("/dev/null").unwrap()).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::OpenNamespace), "{error}");
    }
    let error = NetNs::from_pid(child.id()).unwrap_err();
    assert_eq!(error.object(), Some(&*format!("process {}", child.id())));
    assert_eq!(NetNs::from_pid(0).unwrap_err().kind(), ErrorKind::InvalidConfig);
    std::fs::remove_file(file).unwrap();
}

/// Attaches, which must fail and change nothing; says why.
fn refused(network: &Network, netns: &NetNs, spec: &EndpointSpec) -> cofferdam_netlink_bridge::Error {
    let (host, inside) = (links(), within(netns, links));
    let error = network.attach(netns, spec).unwrap_err();
    assert_eq!((links(), within(netns, links)), (host, inside), "{error}");
    assert_eq!(error.left_behind(), None, "{error}");
    error
}

pub(crate) fn an_interface_that_is_there() {
    let (host, network) = network();
    let (netns, endpoint) = container(&network, 2);
    let before = within(&netns, everything);
    let error = refused(&network, &netns, &addresses(3));
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("eth0")), "{error}");
    assert_eq!((error.operation(), error.raw_os_error()), (Operation::CreatePair, Some(libc::EEXIST)));
    assert_eq!(within(&netns, everything), before);
    clean_up(&host, &network, &[endpoint]);
}

/// Another endpoint has the id, or somebody's link has the name: its owner's tag stays as it is.
pub(crate) fn an_id_that_is_taken() {
    let (host, network) = network();
    run_ip("link add cd-web type veth peer name other");
    run_ip("link set cd-web alias theirs");
    let netns = NetNs::new().unwrap();
    let before = everything();
    let error = refused(&network, &netns, &addresses(2).id("web"));
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("cd-web")), "{error}");
    assert_eq!(everything(), before);
    run_ip("link del cd-web");
    let first = network.attach(&netns, &addresses(2).id("web").owner("me")).unwrap();
    let before = everything();
    let error = refused(&network, &NetNs::new().unwrap(), &addresses(3).id("web").owner("you"));
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("cd-web")), "{error}");
    assert_eq!(everything(), before);
    clean_up(&host, &network, &[first]);
}

pub(crate) fn a_bridge_that_is_gone() {
    let (host, network) = network();
    run_ip("link del br-test");
    let netns = NetNs::new().unwrap();
    let error = refused(&network, &netns, &addresses(2));
    assert_eq!((error.kind(), error.object()), (ErrorKind::NotFound, Some("br-test")), "{error}");
    // Under the same name, but another: it is not the network.
    run_ip("link add br-test type bridge");
    assert_eq!(refused(&network, &netns, &addresses(2)).kind(), ErrorKind::NotFound);
    network.delete().unwrap();
    assert_eq!(links(), ["br-test", "lo"]);
    run_ip("link del br-test");
    clean_up(&host, &network, &[]);
}

/// An address that only the kernel knows to be none: its words arrive, and what was made by then is gone again.
pub(crate) fn an_address_that_the_kernel_refuses() {
    let (host, network) = network();
    let multicast = spec().subnet("ff00::/8".parse().unwrap());
    let odd = Network::open(&host, &multicast).unwrap();
    let netns = NetNs::new().unwrap();
    let address: IpAddr = "ff02::7".parse().unwrap();
    let error = refused(&odd, &netns, &EndpointSpec::new().address(v4(2)).address(address));
    assert_eq!((error.operation(), error.call()), (Operation::AddAddress, Some("RTM_NEWADDR")), "{error}");
    assert_eq!((error.kind(), error.object()), (ErrorKind::Refused, Some("ff02::7/8")), "{error}");
    assert!(error.kernel_message().is_some_and(|words| !words.is_empty()), "{error}");
    // The bridge itself cannot have such an address either, and is not left half made.
    clean_up(&host, &network, &[]);
    let error = Network::create(&host, &multicast).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Refused, Operation::SetUpBridge), "{error}");
    assert_eq!(links(), ["lo"]);
    // One that was there stays.
    let network = Network::create(&host, &spec()).unwrap();
    Network::create(&host, &multicast).unwrap_err();
    assert_eq!(links(), ["br-test", "lo"]);
    clean_up(&host, &network, &[]);
}

/// A container that has a default route by another way.
pub(crate) fn a_route_that_is_there() {
    let (host, network) = network();
    let (netns, first) = container(&network, 2);
    let before = within(&netns, everything);
    let error = refused(&network, &netns, &addresses(3).interface("eth1"));
    assert_eq!((error.kind(), error.operation()), (ErrorKind::AlreadyExists, Operation::AddRoute), "{error}");
    assert_eq!(error.object(), Some("default via 10.88.0.1"));
    assert_eq!(within(&netns, everything), before);
    clean_up(&host, &network, &[first]);
}

/// IPv6 switched off is named as what it is.
pub(crate) fn ipv6_switched_off() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    within(&netns, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")).unwrap();
    let error = refused(&network, &netns, &addresses(2));
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unsupported, Operation::AddAddress), "{error}");
    assert!(error.kernel_message().is_some_and(|words| words.contains("IPv6")), "{error}");
    let endpoint = network.attach(&netns, &EndpointSpec::new().address(v4(2))).unwrap();
    clean_up(&host, &network, &[endpoint]);
    // On the host itself: a bridge that is made from now on has none.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let error = Network::create(&host, &spec()).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unsupported, Operation::SetUpBridge), "{error}");
    assert_eq!((links(), nft("list tables")), (vec!["lo".to_owned()], String::new()));
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
}

/// Somebody has taken the rules away: who publishes a port is told, and nothing is left of it; who publishes none is not concerned.
pub(crate) fn ports_without_a_table() {
    let (host, network) = network();
    let (netns, wanted) = (NetNs::new().unwrap(), addresses(2).id("web"));
    for port in ["80:80", "53:53/udp"] {
        nft("flush ruleset");
        let error = refused(&network, &netns, &wanted.clone().publish(port.parse().unwrap()));
        assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::Publish), "{error}");
        assert!(error.object().is_some_and(|object| object.starts_with("table cofferdam")), "{error}");
        // The kernel points at it in the message.
        assert_eq!(error.attribute(), Some("NFTA_SET_ELEM_LIST_TABLE"), "{error}");
        network.attach(&netns, &wanted).unwrap().detach(&host).unwrap();
        let (network, _) = Network::reapply(&host, &spec(), &[]).unwrap();
        network.attach(&netns, &wanted.clone().publish(port.parse().unwrap())).unwrap().detach(&host).unwrap();
    }
    clean_up(&host, &network, &[]);
}

/// More routes and addresses than the kernel could answer for at once.
pub(crate) fn a_thousand_routes() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let to = |n: u16| Subnet::new([10, 200, n.to_be_bytes()[0], n.to_be_bytes()[1]], 32).unwrap();
    let wanted = (0..1000).fold(addresses(2), |wanted, n| wanted.route(to(n), v4(9)));
    let wanted = (10..250).fold(wanted, |wanted, n| wanted.address(v4(n)));
    let endpoint = network.attach(&netns, &wanted).unwrap();
    within(&netns, || {
        assert_eq!(ip("-4 route show via 10.88.0.9").len(), 1000);
        assert_eq!(ip("-4 address show dev eth0")[0]["addr_info"].as_array().unwrap().len(), 241);
    });
    endpoint.detach(&host).unwrap();
    // The last of them is there already: nothing is left of the others.
    let last = wanted.clone().route(to(999), v4(9));
    let error = refused(&network, &netns, &last);
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("10.200.3.231/32 via 10.88.0.9")));
    clean_up(&host, &network, &[]);
}

/// What makes no sense is found before anything is sent.
pub(crate) fn invalid_configuration() {
    let host = Host::current().unwrap();
    let error = Network::create(&host, &NetworkSpec::new("a name that is too long")).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidConfig, None));
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    for spec in [addresses(1), addresses(2).interface("a/b"), EndpointSpec::new().address([10, 99, 0, 2])] {
        assert_eq!(refused(&network, &netns, &spec).kind(), ErrorKind::InvalidConfig);
    }
    clean_up(&host, &network, &[]);
}
