//! What iproute2 shows is what was made, and what was there before is as it was.

use crate::support::{addresses, clean_up, container, ip, network, spec, v4, within};
use cofferdam_netlink_bridge::{EndpointSpec, Host, Mac, NetNs, Network, NetworkSpec};
use serde_json::{Value, json};

/// The members of the one object in a list.
fn members(mut list: Vec<Value>, names: &[&str]) -> Value {
    assert_eq!(list.len(), 1, "{list:?}");
    let object = list.remove(0);
    names.iter().map(|name| ((*name).to_owned(), object[name].clone())).collect()
}

/// Address, prefix, scope and broadcast of each global address.
fn global_addresses(device: &str) -> Vec<Value> {
    let list = ip(&format!("address show dev {device} scope global"));
    let all = list.iter().flat_map(|link| link["addr_info"].as_array().expect("addresses").clone());
    // ip(8) prints an empty object for one that it has filtered out.
    let all = all.filter(|address| !address["local"].is_null());
    all.map(|a| json!([a["local"], a["prefixlen"], a["broadcast"], a["tentative"]])).collect()
}

pub(crate) fn the_bridge() {
    let host = Host::current().unwrap();
    let network = Network::create(&host, &spec().mtu(1400)).unwrap();
    let link = ip("link show br-test");
    let flags = link[0]["flags"].as_array().unwrap();
    assert!(flags.contains(&json!("UP")), "{flags:?}");
    assert_eq!(members(link, &["mtu", "ifalias"]), json!({ "mtu": 1400, "ifalias": "cofferdam:kernel tests" }));
    let addresses = [json!(["10.88.0.1", 16, "10.88.255.255", null]), json!(["fd00:88::1", 64, null, null])];
    assert_eq!(global_addresses("br-test"), addresses);
    // Its MAC address and MTU do not follow its ports.
    let mac = || ip("link show br-test")[0]["address"].clone();
    let before = mac();
    let (_netns, endpoint) = container(&network, 2);
    assert_eq!(mac(), before);
    endpoint.detach(&host).unwrap();
    assert_eq!(members(ip("link show br-test"), &["mtu", "address"]), json!({ "mtu": 1400, "address": before }));
    // Nor does it depend on anything but owner and name.
    network.delete().unwrap();
    let network = Network::create(&host, &spec()).unwrap();
    assert_eq!(mac(), before);
    clean_up(&host, &network, &[]);
}

pub(crate) fn the_two_ends() {
    let host = Host::current().unwrap();
    let network = Network::create(&host, &spec().mtu(1400)).unwrap();
    let netns = NetNs::new().unwrap();
    let endpoint = network.attach(&netns, &addresses(2).id("web").owner("somebody")).unwrap();
    let port = ip("link show cd-web");
    assert_eq!(port[0]["linkinfo"]["info_kind"], "veth");
    assert_eq!(
        members(port, &["mtu", "ifalias", "master", "operstate"]),
        json!({ "mtu": 1400, "ifalias": "cofferdam:somebody", "master": "br-test", "operstate": "UP" })
    );
    within(&netns, || {
        assert_eq!(
            members(ip("link show eth0"), &["mtu", "ifalias", "address", "operstate"]),
            json!({ "mtu": 1400, "ifalias": "cofferdam:somebody", "address": "02:cd:0a:58:00:02", "operstate": "UP" })
        );
        let addresses = [json!(["10.88.0.2", 16, "10.88.255.255", null]), json!(["fd00:88::2", 64, null, null])];
        assert_eq!(global_addresses("eth0"), addresses);
        for (family, gateway) in [("-4", "10.88.0.1"), ("-6", "fd00:88::1")] {
            assert_eq!(
                members(ip(&format!("{family} route show default")), &["gateway", "dev", "protocol"]),
                json!({ "gateway": gateway, "dev": "eth0", "protocol": "static" })
            );
        }
        assert!(ip("link show lo")[0]["flags"].as_array().unwrap().contains(&json!("UP")));
    });
    clean_up(&host, &network, &[endpoint]);
}

/// Two networks and a MAC address of the caller's choice.
pub(crate) fn two_networks() {
    let (host, network) = network();
    let other = NetworkSpec::new("br-other").owner("kernel tests").subnet("10.99.0.0/24".parse().unwrap());
    let other = Network::create(&host, &other).unwrap();
    let (netns, first) = container(&network, 2);
    let spec = EndpointSpec::new()
        .interface("eth1")
        .address([10, 99, 0, 7])
        .mac(Mac::new([2, 1, 2, 3, 4, 5]))
        .no_default_route();
    let second = other.attach(&netns, &spec).unwrap();
    assert_eq!((second.network(), second.interface(), second.gateways()), ("br-other", "eth1", &[][..]));
    within(&netns, || {
        assert_eq!(members(ip("link show eth1"), &["address"]), json!({ "address": "02:01:02:03:04:05" }));
        assert_eq!(ip("-4 route show default").len(), 1);
        assert_eq!(ip("-4 route get 10.99.0.9")[0]["dev"], "eth1");
    });
    second.detach(&host).unwrap();
    assert_eq!(within(&netns, crate::support::links), ["eth0", "lo"]);
    other.delete().unwrap();
    clean_up(&host, &network, &[first]);
}

/// A namespace plays the host: nothing appears in the current one.
pub(crate) fn another_host() {
    let machine = NetNs::new().unwrap();
    let host = Host::from_fd(&machine).unwrap();
    let network = Network::create(&host, &spec()).unwrap();
    let (netns, endpoint) = container(&network, 2);
    assert_eq!(crate::support::links(), ["lo"]);
    assert_eq!(within(&machine, crate::support::links), ["br-test", endpoint.port(), "lo"]);
    assert_eq!(endpoint.addresses()[0].address(), v4(2));
    within(&machine, || clean_up(&host, &network, std::slice::from_ref(&endpoint)));
    assert_eq!(within(&netns, crate::support::links), ["lo"]);
}
