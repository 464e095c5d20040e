//! Real packets through the rules, of both families: what must not get through does not, and with the rule off it does.

use crate::support::{
    PATIENCE, addresses, at, container, ip, nft, outside, outside_v4, outside_v6, run_ip, spec, v4, v6,
    wait_for_link_local, within,
};
use crate::traffic::{connect, say};
use crate::with_rules::{
    A_WHILE, bridged_packets_are_seen, connect_at_last, create, finish, forwarding, listen, publishing, source,
    try_connect,
};
use cofferdam_netlink_bridge::{Change, EndpointSpec, Finding, NetNs, Network, NetworkSpec};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};

pub(crate) fn out_under_the_hosts_address() {
    let internet = outside();
    let (host, network) = create(&forwarding());
    let settings: Vec<_> = network.host_settings().iter().map(ToString::to_string).collect();
    assert_eq!(
        settings,
        [
            "set ipv6/conf/br-test/accept_ra from 1 to 0",
            "set ipv6/conf/br-test/accept_dad from 1 to 0",
            "set ipv4/ip_forward from 0 to 1",
            "set ipv6/conf/all/forwarding from 0 to 1"
        ]
    );
    let (netns, endpoint) = container(&network, 2);
    let listeners = [outside_v4(2), outside_v6(2)].map(|address| listen(&internet, address, 80));
    let to = |n: usize| listeners[n].local_addr().unwrap();
    let from = |n: usize| within(&netns, || source(|| connect(to(n)), &listeners[n]));
    assert_eq!([from(0), from(1)], [Some(outside_v4(1)), Some(outside_v6(1))]);
    // With the rule off the container's own address arrives, and answers find no way back; unless they have a route.
    let network = Network::create(&host, &forwarding().masquerade(false)).unwrap();
    for n in [0, 1] {
        within(&netns, || try_connect(to(n))).unwrap_err();
    }
    within(&internet, routes_to_the_containers);
    assert_eq!([from(0), from(1)], [Some(v4(2)), Some(v6(2))]);
    finish(&host, &network, &[endpoint]);
}

/// What a machine beside the host can give itself.
fn routes_to_the_containers() {
    run_ip("route add 10.88.0.0/16 via 192.0.2.1");
    run_ip("route add fd00:88::/64 via 2001:db8::1");
}

/// Somebody on the same wire gives themselves a route to the containers. Without our rules they get in.
pub(crate) fn a_neighbour_with_a_route() {
    let neighbour = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80"]);
    within(&neighbour, routes_to_the_containers);
    for (inner, public) in [(v4(2), outside_v4(1)), (v6(2), outside_v6(1))] {
        let (closed, published) = (listen(&netns, inner, 22), listen(&netns, inner, 80));
        within(&neighbour, || say(|| connect((public, 8080).into()), &published)).unwrap();
        // Neither a port that is not published, nor one that is by its inner address.
        for listener in [&closed, &published] {
            let error = within(&neighbour, || try_connect(listener.local_addr().unwrap())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{listener:?}");
        }
        nft("flush chain inet cofferdam forward");
        for listener in [&closed, &published] {
            within(&neighbour, || connect(listener.local_addr().unwrap())).unwrap();
        }
        Network::create(&host, &forwarding()).unwrap();
    }
    finish(&host, &network, &[endpoint]);
}

/// Another network beside the usual one.
fn other_spec() -> NetworkSpec {
    let subnets = ["10.99.0.0/24", "fd00:99::/64"].map(|subnet| subnet.parse().unwrap());
    NetworkSpec::new("br-other").owner("kernel tests").subnet(subnets[0]).subnet(subnets[1])
}

pub(crate) fn two_networks_are_apart() {
    let (host, network) = create(&forwarding());
    let other = Network::create(&host, &other_spec()).unwrap();
    let (first, second) = (publishing(&network, 2, &["8080:80"]), NetNs::new().unwrap());
    let of_other =
        |last: u8| -> [IpAddr; 2] { [[10, 99, 0, last].into(), [0xfd00, 0x99, 0, 0, 0, 0, 0, u16::from(last)].into()] };
    let [in_v4, in_v6] = of_other(2);
    let in_other = other.attach(&second, &EndpointSpec::new().address(in_v4).address(in_v6)).unwrap();
    let [gateway_v4, gateway_v6] = of_other(1);
    for (in_first, in_second, gateway) in [(v4(2), in_v4, gateway_v4), (v6(2), in_v6, gateway_v6)] {
        // A published port is open to everybody.
        let published = listen(&first.0, in_first, 80);
        let from = within(&second, || source(|| connect((gateway, 8080).into()), &published));
        assert_eq!(from, Some(in_second));
        let listeners = [listen(&first.0, in_first, 22), listen(&second, in_second, 22)];
        let ways = [(&second, &published), (&second, &listeners[0]), (&first.0, &listeners[1])];
        for (from, to) in ways {
            within(from, || try_connect(to.local_addr().unwrap())).unwrap_err();
        }
        nft("flush chain inet cofferdam forward");
        for (from, to) in ways {
            within(from, || connect(to.local_addr().unwrap())).unwrap();
        }
        Network::create(&host, &forwarding()).unwrap();
    }
    in_other.detach(&host).unwrap();
    other.delete().unwrap();
    finish(&host, &network, &[first.1]);
}

/// Neither directly nor by way of the host, which is asked to route inside the network.
pub(crate) fn containers_that_are_apart() {
    let spec = forwarding().between_containers(false);
    let (host, network) = create(&spec);
    let (first, second) = (publishing(&network, 2, &["8080:80"]), container(&network, 3));
    // The host would tell them that they are neighbours, and they would go back to the direct way.
    for netns in [&first.0, &second.0] {
        for conf in ["ipv4/conf/all", "ipv4/conf/eth0", "ipv6/conf/all", "ipv6/conf/eth0"] {
            within(netns, || std::fs::write(format!("/proc/sys/net/{conf}/accept_redirects"), "0")).unwrap();
        }
    }
    let by_the_host = |what: &str, address: fn(u8) -> IpAddr| {
        for (netns, to) in [(&first.0, 3), (&second.0, 2)] {
            within(netns, || run_ip(&format!("route {what} {} via {}", address(to), address(1))));
        }
    };
    for address in [v4, v6] {
        let listener = listen(&first.0, address(2), 22);
        let reach = || within(&second.0, || try_connect((address(2), 22)));
        // The host, and what is published, are reached; the latter not where bridged packets are translated already.
        bridged_packets_are_seen(false);
        say(|| connect((address(2), 22).into()), &listener).unwrap();
        let published = listen(&first.0, address(2), 80);
        within(&second.0, || say(|| connect((address(1), 8080).into()), &published)).unwrap();
        for seen in [true, false] {
            bridged_packets_are_seen(seen);
            reach().unwrap_err();
            by_the_host("add", address);
            reach().unwrap_err();
            if seen {
                by_the_host("del", address);
            }
        }
        // With the rule off the way by the host is open.
        nft("flush chain inet cofferdam forward");
        within(&second.0, || connect_at_last((address(2), 22).into()));
        by_the_host("del", address);
        reach().unwrap_err();
        // And with the ports' flag off the direct one.
        for port in [first.1.port(), second.1.port()] {
            run_ip(&format!("link set {port} type bridge_slave isolated off"));
        }
        within(&second.0, || connect_at_last((address(2), 22).into()));
        // Both are as they were, for the other family.
        Network::create(&host, &spec).unwrap();
    }
    finish(&host, &network, &[first.1, second.1]);
}

/// Its containers reach each other and the bridge, and nobody else, even if they make themselves a route; nor does anybody reach them.
pub(crate) fn an_internal_network() {
    let internet = outside();
    // Another network has switched forwarding on.
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
    let spec = spec().internal(true);
    let (host, network) = create(&spec);
    assert_eq!(network.check(&[]).unwrap(), []);
    let (first, second) = (container(&network, 2), container(&network, 3));
    assert_eq!(first.1.gateways(), [] as [IpAddr; 0]);
    within(&internet, routes_to_the_containers);
    for (address, outer) in [(v4 as fn(u8) -> IpAddr, outside_v4(2)), (v6, outside_v6(2))] {
        let listener = listen(&second.0, address(3), 22);
        within(&first.0, || say(|| connect((address(3), 22).into()), &listener)).unwrap();
        let on_host = TcpListener::bind(at(address(1))).unwrap();
        within(&first.0, || say(|| connect(on_host.local_addr().unwrap()), &on_host)).unwrap();
        let outer = listen(&internet, outer, 80);
        let reach = || within(&first.0, || try_connect(outer.local_addr().unwrap()));
        let get_in = || within(&internet, || try_connect(listener.local_addr().unwrap()));
        assert_eq!(reach().unwrap_err().kind(), ErrorKind::NetworkUnreachable);
        for netns in [&first.0, &second.0] {
            within(netns, || run_ip(&format!("route add default via {}", address(1))));
        }
        reach().unwrap_err();
        get_in().unwrap_err();
        nft("flush chain inet cofferdam forward");
        within(&first.0, || connect(outer.local_addr().unwrap())).unwrap();
        within(&internet, || connect(listener.local_addr().unwrap())).unwrap();
        Network::create(&host, &spec).unwrap();
    }
    finish(&host, &network, &[first.1, second.1]);
}

/// Of the host an internal network reaches the bridge's own addresses, but none that it has elsewhere, where its programs listen too.
pub(crate) fn the_host_of_an_internal_network() {
    let _machine = outside();
    let spec = spec().internal(true);
    let (host, network) = create(&spec);
    let other = Network::create(&host, &other_spec()).unwrap();
    let netns = NetNs::new().unwrap();
    // Its link-local address can be used at once.
    within(&netns, || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).unwrap();
    let endpoint = network.attach(&netns, &addresses(2)).unwrap();
    within(&netns, || wait_for_link_local("eth0"));
    wait_for_link_local("br-test");
    let bridge = ip("-6 address show dev br-test scope link")[0]["addr_info"].take();
    let link_local = bridge.as_array().unwrap().iter().find_map(|one| one["local"].as_str()).unwrap();
    let link_local: Ipv6Addr = link_local.parse().unwrap();
    for (own, elsewhere) in [
        (v4(1), [outside_v4(1), [10, 99, 0, 1].into()]),
        (v6(1), [outside_v6(1), [0xfd00, 0x99, 0, 0, 0, 0, 0, 1].into()]),
    ] {
        within(&netns, || run_ip(&format!("route add default via {own}")));
        let any: IpAddr = if own.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let (listener, socket) = (TcpListener::bind((any, 22)).unwrap(), UdpSocket::bind((any, 53)).unwrap());
        let knock = |to: IpAddr, patience| {
            socket.set_read_timeout(Some(patience))?;
            within(&netns, || UdpSocket::bind(at(any))?.send_to(b"x", (to, 53)))?;
            socket.recv_from(&mut [0; 8])?;
            let client = within(&netns, || TcpStream::connect_timeout(&(to, 22).into(), patience));
            say(|| client, &listener)
        };
        knock(own, PATIENCE).unwrap();
        for to in elsewhere {
            assert_eq!(knock(to, A_WHILE).unwrap_err().kind(), ErrorKind::WouldBlock, "UDP at {to}");
            let error = within(&netns, || try_connect((to, 22))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}");
        }
        // What the host itself begins from such an address is answered.
        let inside = within(&netns, || UdpSocket::bind((if own.is_ipv4() { v4(2) } else { v6(2) }, 53)).unwrap());
        let asking = UdpSocket::bind(at(elsewhere[0])).unwrap();
        for socket in [&asking, &inside] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        asking.send_to(b"?", inside.local_addr().unwrap()).unwrap();
        let (_, from) = inside.recv_from(&mut [0; 8]).unwrap();
        inside.send_to(b"!", from).unwrap();
        asking.recv_from(&mut [0; 8]).unwrap();
        if own.is_ipv6() {
            // The bridge's link-local address is its own too, and neighbours are found anew.
            within(&netns, || run_ip("neighbour flush dev eth0"));
            run_ip("neighbour flush dev br-test");
            let index = within(&netns, || ip("link show eth0"))[0]["ifindex"].as_u64().unwrap().try_into().unwrap();
            let to = SocketAddrV6::new(link_local, 22, 0, index);
            within(&netns, || say(|| connect(to.into()), &listener)).unwrap();
            knock(own, PATIENCE).unwrap();
        }
        nft("flush chain inet cofferdam input");
        for to in elsewhere {
            knock(to, PATIENCE).unwrap_or_else(|e| panic!("{to}: {e}"));
        }
        Network::create(&host, &spec).unwrap();
    }
    other.delete().unwrap();
    finish(&host, &network, &[endpoint]);
}

/// A network that is no longer to have rules has none any more: not when it is created so, nor when it is deleted; and another's stay.
pub(crate) fn without_rules_from_now_on() {
    let neighbour = outside();
    let (host, network) = create(&forwarding());
    let other = Network::create(&host, &other_spec()).unwrap();
    let (netns, endpoint) = publishing(&network, 2, &["8080:80", "5353:53/udp"]);
    within(&neighbour, routes_to_the_containers);
    let closed = listen(&netns, v4(2), 22);
    let get_in = || within(&neighbour, || try_connect(closed.local_addr().unwrap()));
    get_in().unwrap_err();
    let open = forwarding().without_rules();
    let told = Network::plan(&host, &open, &[]).unwrap();
    let removed = told.iter().filter(|change| matches!(change, Change::RemoveElement { .. })).count();
    // Networks, outward, together, two of hairpin; two ports of two families.
    assert_eq!(removed, 9, "{told:?}");
    let network = Network::create(&host, &open).unwrap();
    let shown = nft("list table inet cofferdam");
    assert!(!shown.contains("br-test") && shown.contains("br-other"), "{shown}");
    get_in().unwrap();
    assert_eq!(network.check(&[]).unwrap(), []);
    endpoint.detach(&host).unwrap();
    // And by the spec alone, of one that has rules; with it the table goes.
    other.delete().unwrap();
    Network::create(&host, &forwarding()).unwrap();
    Network::open(&host, &open).unwrap().delete().unwrap();
    assert_eq!(nft("list tables"), "");
    // A table that is another's is in nobody's way, and stays.
    nft("add table inet cofferdam");
    let network = Network::create(&host, &open).unwrap();
    assert_eq!(network.check(&[]).unwrap(), []);
    network.detach_all().unwrap();
    network.delete().unwrap();
    nft("delete table inet cofferdam");
    finish(&host, &network, &[]);
}

/// A network that is told to keep its containers apart does so with those that it has already.
pub(crate) fn apart_from_now_on() {
    let (host, network) = create(&forwarding());
    // Where rules see bridged packets, they keep them apart too.
    bridged_packets_are_seen(false);
    let (a, b) = (container(&network, 2), container(&network, 3));
    let listeners = [v4(3), v6(3)].map(|address| listen(&b.0, address, 80));
    let reach = |listener: &TcpListener| within(&a.0, || try_connect(listener.local_addr().unwrap()));
    let together = || {
        for listener in &listeners {
            within(&a.0, || connect_at_last(listener.local_addr().unwrap()));
        }
    };
    let are_apart = || listeners.iter().all(|listener| reach(listener).is_err_and(|e| e.kind() == ErrorKind::TimedOut));
    together();
    let apart = forwarding().between_containers(false);
    let network = Network::create(&host, &apart).unwrap();
    assert!(are_apart());
    let endpoints = [a.1.clone(), b.1.clone()];
    assert_eq!(network.check(&endpoints).unwrap(), []);
    // Somebody takes the setting from the ports: it is found, and brought back.
    for endpoint in &endpoints {
        run_ip(&format!("link set {} type bridge_slave isolated off", endpoint.port()));
    }
    together();
    let change = |n: usize| Change::SetUpLink { link: endpoints[n].port().into() };
    assert_eq!(network.check(&endpoints).unwrap(), [0, 1].map(|n| Finding::Missing(change(n))));
    let (_, done) = Network::reapply(&host, &apart, &endpoints).unwrap();
    assert_eq!(done, [0, 1].map(change));
    assert!(are_apart());
    let network = Network::create(&host, &forwarding()).unwrap();
    together();
    finish(&host, &network, &endpoints);
}
