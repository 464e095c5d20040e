//! Ways in, and ways around: each is closed, and with what closes it taken away it is open.

use crate::support::{
    PATIENCE, clean_up, container, ip, links, network, nft, outside, outside_v6, run_ip, v4, v6, within,
};
use crate::traffic::{connect, say};
use crate::with_rules::{A_WHILE, create, finish, forwarding, listen, publishing, try_connect};
use cofferdam_netlink_bridge::{Change, Finding, Host, NetNs, Network, NetworkSpec};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};

/// Lets a namespace send to and from 127.0.0.0/8 by a link.
fn loopback_by(link: &str, gateway: &str) {
    for conf in ["all", link] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
    }
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").unwrap();
    run_ip("link set lo up");
    run_ip("address del 127.0.0.1/8 dev lo");
    run_ip(&format!("route add 127.0.0.1/32 via {gateway}"));
}

/// A port that is published at 127.0.0.1 is the host's alone: a neighbour that sends there by the host's MAC address does not get in.
pub(crate) fn a_port_at_loopback() {
    let neighbour = outside();
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    let (netns, endpoint) = publishing(&network, 2, &["127.0.0.1:8080:80"]);
    let listener = listen(&netns, v4(2), 80);
    within(&neighbour, || loopback_by("up0", "192.0.2.1"));
    let get_in = || within(&neighbour, || try_connect(([127, 0, 0, 1], 8080)));
    get_in().unwrap_err();
    say(|| connect(([127, 0, 0, 1], 8080).into()), &listener).unwrap();
    nft("flush chain inet cofferdam loopback");
    within(&neighbour, || connect(([127, 0, 0, 1], 8080).into())).unwrap();
    finish(&host, &network, &[endpoint]);
}

/// A container that sends to 127.0.0.1 by its gateway. With the rule off it arrives: the bridge routes loopback addresses.
pub(crate) fn the_hosts_loopback_is_closed() {
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    let (netns, endpoint) = container(&network, 2);
    let secret = UdpSocket::bind("127.0.0.1:7777").unwrap();
    secret.set_read_timeout(Some(A_WHILE)).unwrap();
    let socket = within(&netns, || {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        run_ip("address del 127.0.0.1/8 dev lo");
        run_ip("route add 127.0.0.1/32 via 10.88.0.1");
        UdpSocket::bind((v4(2), 0)).unwrap()
    });
    let knock = || {
        socket.send_to(b"x", "127.0.0.1:7777").unwrap();
        secret.recv_from(&mut [0; 8])
    };
    knock().unwrap_err();
    nft("flush chain inet cofferdam loopback");
    secret.set_read_timeout(Some(PATIENCE)).unwrap();
    knock().unwrap();
    finish(&host, &network, &[endpoint]);
}

/// A container that says that it is at the host's loopback, to a program that trusts those.
pub(crate) fn a_source_at_loopback() {
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    for conf in ["all", "br-test"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
    }
    let (netns, endpoint) = container(&network, 2);
    let trusting = UdpSocket::bind((v4(1), 7777)).unwrap();
    trusting.set_read_timeout(Some(A_WHILE)).unwrap();
    let socket = within(&netns, || {
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        UdpSocket::bind("127.0.0.5:0").unwrap()
    });
    let knock = || {
        socket.send_to(b"x", (v4(1), 7777)).unwrap();
        trusting.recv_from(&mut [0; 8]).map(|(_, from)| from.ip().is_loopback())
    };
    knock().unwrap_err();
    nft("flush chain inet cofferdam loopback");
    trusting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(knock().unwrap());
    finish(&host, &network, &[endpoint]);
}

/// A port that is published everywhere is not published at the host's other loopback addresses, where resolvers are; at 127.0.0.1 if
/// that was asked for.
pub(crate) fn a_resolver_at_loopback() {
    run_ip("link set lo up");
    let host = Host::current().unwrap();
    let [resolver, local] = ["127.0.0.53:53", "127.0.0.1:53"].map(|at| UdpSocket::bind(at).unwrap());
    for published in [false, true] {
        let network = Network::create(&host, &forwarding().host_loopback(published)).unwrap();
        let (netns, endpoint) = publishing(&network, 2, &["53:53/udp"]);
        let inside = within(&netns, || UdpSocket::bind((v4(2), 53)).unwrap());
        for (to, arrives_at) in [(&resolver, &resolver), (&local, if published { &inside } else { &local })] {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"x", to.local_addr().unwrap()).unwrap();
            arrives_at.set_read_timeout(Some(PATIENCE)).unwrap();
            arrives_at.recv_from(&mut [0; 8]).unwrap_or_else(|e| panic!("{published} {to:?}: {e}"));
        }
        endpoint.detach(&host).unwrap();
    }
    // What it once had is taken from it.
    let localnet = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/br-test/route_localnet").unwrap();
    assert_eq!(localnet(), "1\n");
    let network = Network::create(&host, &forwarding()).unwrap();
    assert_eq!(localnet(), "0\n");
    finish(&host, &network, &[]);
}

/// The same with IPv6, whose loopback is one address: what the host has there stays reached, and the published port is at all its others.
pub(crate) fn a_listener_at_ipv6_loopback() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    let local = (TcpListener::bind("[::1]:8080").unwrap(), UdpSocket::bind("[::1]:53").unwrap());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80", "53:53/udp"]);
    let inside = (listen(&netns, v6(2), 80), within(&netns, || UdpSocket::bind((v6(2), 53)).unwrap()));
    let knock = |public: IpAddr, (listener, socket): &(TcpListener, UdpSocket), patience| {
        let client = UdpSocket::bind("[::]:0")?;
        client.send_to(b"x", (public, 53))?;
        socket.set_read_timeout(Some(patience))?;
        socket.recv_from(&mut [0; 8])?;
        say(|| TcpStream::connect_timeout(&(public, 8080).into(), patience), listener)
    };
    let loopback = IpAddr::from(Ipv6Addr::LOCALHOST);
    knock(loopback, &local, PATIENCE).unwrap();
    for public in [v6(1), outside_v6(1)] {
        knock(public, &inside, PATIENCE).unwrap_or_else(|e| panic!("{public}: {e}"));
    }
    within(&machine, || knock(outside_v6(1), &inside, PATIENCE)).unwrap();
    // Where the rule says nothing of it, what is sent there leads to the container, and so nowhere.
    nft("add rule inet cofferdam publish meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @ports6");
    knock(loopback, &local, A_WHILE).unwrap_err();
    try_connect((loopback, 8080)).unwrap_err();
    assert_ne!(network.check(std::slice::from_ref(&endpoint)).unwrap(), []);
    finish(&host, &network, &[endpoint]);
}

/// A network whose ports are to be at the host's loopback too, or no longer, while it has endpoints: that is found, told and done, and real connections
/// get where they should. The records are those of before.
pub(crate) fn at_loopback_from_now_on() {
    run_ip("link set lo up");
    let [off, on] = [false, true].map(|on| forwarding().host_loopback(on));
    for (first, second) in [(&off, &on), (&on, &off)] {
        let (host, network) = create(first);
        // The host has a program of its own at the port.
        let local = TcpListener::bind("127.0.0.1:8080").unwrap();
        let (netns, endpoint) = publishing(&network, 2, &["8080:80", "53:53/udp"]);
        let inside = listen(&netns, v4(2), 80);
        let endpoints = [endpoint];
        let arrives = |spec: &NetworkSpec| {
            let listener = if spec == &on { &inside } else { &local };
            say(|| connect(([127, 0, 0, 1], 8080).into()), listener).unwrap();
        };
        let elements = || nft("list map inet cofferdam ports4lo").matches("10.88.0.2").count();
        arrives(first);
        let network = Network::open(&host, second).unwrap();
        let found = network.check(&endpoints).unwrap();
        let is_told = |change: &Change| match change {
            Change::AddElement { set, .. } => set == "ports4lo" && second == &on,
            Change::RemoveElement { set, .. } => set == "ports4lo" && second == &off,
            _ => false,
        };
        let told = |finding: &&Finding| matches!(finding, Finding::Missing(change) if is_told(change));
        assert_eq!(found.iter().filter(told).count(), 2, "{found:?}");
        let (network, done) = Network::reapply(&host, second, &endpoints).unwrap();
        assert_eq!(done.iter().filter(|change| is_told(change)).count(), 2, "{done:?}");
        assert_eq!(network.check(&endpoints).unwrap(), []);
        assert_eq!(elements(), if second == &on { 2 } else { 0 });
        arrives(second);
        // Whatever the network was when it was attached.
        endpoints[0].detach(&host).unwrap();
        assert_eq!(elements(), 0);
        say(|| connect(([127, 0, 0, 1], 8080).into()), &local).unwrap();
        finish(&host, &network, &endpoints);
    }
}

/// A port at 127.0.0.1 alone, of a network that no longer has such: the host's own program there is reached again; and back.
pub(crate) fn alone_at_loopback_from_now_on() {
    run_ip("link set lo up");
    let [off, on] = [false, true].map(|on| forwarding().host_loopback(on));
    let (host, network) = create(&on);
    let local = TcpListener::bind("127.0.0.1:8080").unwrap();
    let (netns, endpoint) = publishing(&network, 2, &["127.0.0.1:8080:80"]);
    let inside = listen(&netns, v4(2), 80);
    let endpoints = [endpoint];
    for (spec, listener) in [(&off, &local), (&on, &inside)] {
        let (network, _) = Network::reapply(&host, spec, &endpoints).unwrap();
        say(|| connect(([127, 0, 0, 1], 8080).into()), listener).unwrap();
        assert_eq!(network.check(&endpoints).unwrap(), []);
    }
    finish(&host, &network, &endpoints);
}

/// Without rules nothing keeps a container from the host's loopback but the kernel's own settings, which are as they should be.
pub(crate) fn loopback_without_rules() {
    run_ip("link set lo up");
    let host = Host::current().unwrap();
    let subnet = "10.88.0.0/16".parse().unwrap();
    let spec = NetworkSpec::new("br-test").owner("kernel tests").subnet(subnet);
    // One that had rules, and ports at loopback, before.
    Network::create(&host, &spec.clone().host_loopback(true)).unwrap();
    let network = Network::create(&host, &spec.without_rules()).unwrap();
    let netns = NetNs::new().unwrap();
    let endpoint = network.attach(&netns, &cofferdam_netlink_bridge::EndpointSpec::new().address(v4(2))).unwrap();
    let secret = UdpSocket::bind("127.0.0.1:7777").unwrap();
    secret.set_read_timeout(Some(A_WHILE)).unwrap();
    let socket = within(&netns, || {
        loopback_by("eth0", "10.88.0.1");
        UdpSocket::bind((v4(2), 0)).unwrap()
    });
    let knock = || {
        socket.send_to(b"x", "127.0.0.1:7777").unwrap();
        secret.recv_from(&mut [0; 8])
    };
    assert_eq!(nft("list tables"), "");
    knock().unwrap_err();
    std::fs::write("/proc/sys/net/ipv4/conf/br-test/route_localnet", "1").unwrap();
    secret.set_read_timeout(Some(PATIENCE)).unwrap();
    knock().unwrap();
    clean_up(&host, &network, &[endpoint]);
}

/// A container on a bridge without IPv6 addresses says that it is a router: the host does not believe it.
pub(crate) fn a_router_in_a_container() {
    let host = Host::current().unwrap();
    let spec = NetworkSpec::new("br-test").owner("kernel tests").subnet("10.88.0.0/16".parse().unwrap());
    let network = Network::create(&host, &spec).unwrap();
    let netns = NetNs::new().unwrap();
    // Its link-local address can be used at once.
    within(&netns, || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")).unwrap();
    let endpoint = network.attach(&netns, &cofferdam_netlink_bridge::EndpointSpec::new().address(v4(2))).unwrap();
    within(&netns, || crate::support::wait_for_link_local("eth0"));
    crate::support::wait_for_link_local("br-test");
    let believed = || ip("-6 route show default").iter().any(|route| route["dev"] == "br-test");
    within(&netns, advertise);
    std::thread::sleep(A_WHILE);
    assert!(!believed());
    std::fs::write("/proc/sys/net/ipv6/conf/br-test/accept_ra", "1").unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    while !believed() {
        assert!(std::time::Instant::now() < until, "with the setting on it would be believed");
        within(&netns, advertise);
        std::thread::sleep(A_WHILE / 10);
    }
    assert_eq!(links(), ["br-test", endpoint.port(), "lo"]);
    clean_up(&host, &network, &[endpoint]);
}

/// Sends a router advertisement by eth0: a default router for half an hour, RFC 4861.
fn advertise() {
    let index = ip("link show eth0")[0]["ifindex"].as_u64().unwrap().try_into().unwrap();
    let (family, protocol) = (rustix::net::AddressFamily::INET6, rustix::net::ipproto::ICMPV6);
    let socket = rustix::net::socket(family, rustix::net::SocketType::RAW, Some(protocol)).unwrap();
    rustix::net::sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
    let socket = UdpSocket::from(socket);
    let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
    socket.send_to(&advertisement, all_nodes).unwrap();
}

/// What is on the bridge, and in the rules, when an owner of the longest kind publishes thousands of ports: no send is too long for the kernel.
pub(crate) fn thousands_of_ports() {
    let (host, network) = network();
    let owner = "o".repeat(200);
    let publish = |number: u8, ports: &str| {
        let netns = NetNs::new().unwrap();
        let wanted = cofferdam_netlink_bridge::EndpointSpec::new().address(v4(number)).owner(&owner);
        let endpoint = network.attach(&netns, &wanted.publish(ports.parse().unwrap())).unwrap();
        (netns, endpoint)
    };
    let all = [publish(2, "10000-19999:10000-19999"), publish(3, "10000-14999:10000-14999/udp")];
    let endpoints = [all[0].1.clone(), all[1].1.clone()];
    assert!(network.check(&endpoints).unwrap().iter().all(|finding| matches!(finding, Finding::Setting(_))));
    endpoints[1].detach(&host).unwrap();
    let removed = network.gc(|_| false).unwrap();
    assert_eq!(removed.len(), 10001);
    assert_eq!(nft("list map inet cofferdam ports4").matches("tcp").count(), 0);
    let again = publish(2, "10000-19999:10000-19999");
    Network::reapply(&host, &network.spec().clone(), std::slice::from_ref(&again.1)).unwrap();
    network.detach_all().unwrap();
    assert_eq!(within(&again.0, links), ["lo"]);
    clean_up(&host, &network, &[]);
}
