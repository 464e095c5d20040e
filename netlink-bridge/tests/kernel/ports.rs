//! Real packets through the rules: what must get through does, what must not does not, and with the rule off it does.

use crate::support::{
    PATIENCE, addresses, at, clean_up, container, nft, outside, outside_v4, outside_v6, run_ip, spec, v4, v6, within,
};
use crate::traffic::{connect, say};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, ErrorKind, Host, NetNs, Network, NetworkSpec, PublishedPort};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// So long is waited for what must not come.
pub(crate) const A_WHILE: Duration = Duration::from_millis(400);

pub(crate) fn forwarding() -> NetworkSpec {
    spec().enable_forwarding(true)
}

pub(crate) fn create(spec: &NetworkSpec) -> (Host, Network) {
    let host = Host::current().unwrap();
    let network = Network::create(&host, spec).unwrap();
    (host, network)
}

fn port(text: &str) -> PublishedPort {
    text.parse().unwrap()
}

pub(crate) fn publishing(network: &Network, number: u8, ports: &[&str]) -> (NetNs, Endpoint) {
    let netns = NetNs::new().unwrap();
    let spec = ports.iter().fold(addresses(number), |spec, text| spec.publish(port(text)));
    let endpoint = network.attach(&netns, &spec).unwrap();
    (netns, endpoint)
}

/// Ends: everything is gone, the table too, and with the last link to the outside its other end.
pub(crate) fn finish(host: &Host, network: &Network, endpoints: &[Endpoint]) {
    if crate::support::links().contains(&"up0".into()) {
        run_ip("link del up0");
    }
    clean_up(host, network, endpoints);
    assert_eq!(nft("list tables"), "");
}

/// Whether rules see bridged packets, where `br_netfilter` is there at all: it changes the way of what comes back into its network.
pub(crate) fn bridged_packets_are_seen(seen: bool) {
    for file in ["iptables", "ip6tables"] {
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{file}"), if seen { "1" } else { "0" });
    }
}

pub(crate) fn listen(netns: &NetNs, address: IpAddr, port: u16) -> TcpListener {
    within(netns, || TcpListener::bind((address, port)).unwrap())
}

/// From where the connection comes, as the listener sees it; nothing if it does not get there.
fn source(client: impl FnOnce() -> std::io::Result<TcpStream>, listener: &TcpListener) -> Option<IpAddr> {
    let client = client().ok()?;
    let (_, from) = listener.accept().unwrap();
    drop(client);
    Some(from.ip())
}

pub(crate) fn try_connect(to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.into(), A_WHILE)
}

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
    within(&internet, || {
        run_ip("route add 10.88.0.0/16 via 192.0.2.1");
        run_ip("route add fd00:88::/64 via 2001:db8::1");
    });
    assert_eq!([from(0), from(1)], [Some(v4(2)), Some(v6(2))]);
    finish(&host, &network, &[endpoint]);
}

/// TCP and UDP, both families, from another machine.
pub(crate) fn published_to_the_outside() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80", "5353:53/udp"]);
    for (container, public, client) in [(v4(2), outside_v4(1), outside_v4(2)), (v6(2), outside_v6(1), outside_v6(2))] {
        let listener = listen(&netns, container, 80);
        within(&machine, || say(|| connect((public, 8080).into()), &listener)).unwrap();
        let socket = within(&netns, || UdpSocket::bind((container, 53)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let remote = within(&machine, || UdpSocket::bind(at(client)).unwrap());
        remote.set_read_timeout(Some(PATIENCE)).unwrap();
        remote.send_to(b"hello", (public, 5353)).unwrap();
        let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), client, "the container sees who it is");
        socket.send_to(b"hello", from).unwrap();
        assert_eq!(remote.recv_from(&mut [0; 8]).unwrap().1, (public, 5353).into());
    }
    endpoint.detach(&host).unwrap();
    within(&machine, || try_connect((outside_v4(1), 8080))).unwrap_err();
    endpoint.detach(&host).unwrap();
    // Whoever has the port now keeps it when the old record is used again.
    let (again, second) = publishing(&network, 3, &["8080:80"]);
    endpoint.detach(&host).unwrap();
    let listener = listen(&again, v4(3), 80);
    within(&machine, || say(|| connect((outside_v4(1), 8080).into()), &listener)).unwrap();
    finish(&host, &network, &[second]);
}

/// The host itself: by an outer address, by the bridge's, by loopback.
pub(crate) fn published_to_the_host() {
    let _machine = outside();
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    let (netns, endpoint) = publishing(&network, 2, &["8080:80"]);
    let listener = listen(&netns, v4(2), 80);
    for address in [outside_v4(1), v4(1), [127, 0, 0, 1].into()] {
        say(|| connect((address, 8080).into()), &listener).unwrap_or_else(|e| panic!("{address}: {e}"));
    }
    let listener = listen(&netns, v6(2), 80);
    for address in [outside_v6(1), v6(1)] {
        say(|| connect((address, 8080).into()), &listener).unwrap_or_else(|e| panic!("{address}: {e}"));
    }
    finish(&host, &network, &[endpoint]);
}

/// By the host's address from the network itself: another container, and the container itself. With hairpin off the latter is not reached.
pub(crate) fn published_to_the_network_itself() {
    let _machine = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80"]);
    let other = container(&network, 3);
    let ways = [
        (v4(2), outside_v4(1), true),
        (v6(2), outside_v6(1), true),
        (v4(2), outside_v4(1), false),
        (v6(2), outside_v6(1), false),
    ];
    for (container, public, seen) in ways {
        bridged_packets_are_seen(seen);
        let listener = listen(&netns, container, 80);
        for client in [&other.0, &netns] {
            let said = within(client, || say(|| connect((public, 8080).into()), &listener));
            said.unwrap_or_else(|e| panic!("{public}: {e}: {}", nft("list ruleset")));
        }
        Network::create(&host, &forwarding().hairpin(false)).unwrap();
        within(&netns, || try_connect((public, 8080))).unwrap_err();
        Network::create(&host, &forwarding()).unwrap();
    }
    finish(&host, &network, &[endpoint, other.1]);
}

pub(crate) fn published_at_one_address() {
    let machine = outside();
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    run_ip("address add 192.0.2.9/24 dev up0");
    // The more exact one wins, whoever came first.
    let (everywhere, first) = publishing(&network, 2, &["8080:80"]);
    let (one, second) = publishing(&network, 3, &["192.0.2.9:8080:80", "[2001:db8::1]:8081:80", "127.0.0.1:8082:80"]);
    for (netns, container, public) in [
        (&everywhere, v4(2), (outside_v4(1), 8080)),
        (&one, v4(3), (outside_v4(9), 8080)),
        (&one, v6(3), (outside_v6(1), 8081)),
    ] {
        let listener = listen(netns, container, 80);
        within(&machine, || say(|| connect(public.into()), &listener)).unwrap();
    }
    let listener = listen(&one, v4(3), 80);
    say(|| connect(([127, 0, 0, 1], 8082).into()), &listener).unwrap();
    within(&machine, || try_connect((outside_v4(1), 8082))).unwrap_err();
    finish(&host, &network, &[first, second]);
}

/// A port of a range is taken: nothing of the second endpoint stays, and the error names it.
pub(crate) fn a_range_and_a_taken_port() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["9000-9899:100-999"]);
    let listener = listen(&netns, v4(2), 999);
    within(&machine, || say(|| connect((outside_v4(1), 9899).into()), &listener)).unwrap();
    let (before, second) = (nft("-s list table inet cofferdam"), NetNs::new().unwrap());
    for taken in ["8000-8999:8000-8999", "9500:80"] {
        let before = if taken.starts_with('8') { None } else { Some(&before) };
        let wanted = addresses(3).publish(port(taken));
        match (network.attach(&second, &wanted), before) {
            (Ok(endpoint), None) => endpoint.detach(&host).unwrap(),
            (Err(error), Some(before)) => {
                assert_eq!(
                    (error.kind(), error.raw_os_error()),
                    (ErrorKind::AlreadyExists, Some(libc::EEXIST)),
                    "{error}"
                );
                assert_eq!(error.object(), Some("tcp . 9500 : 10.88.0.3 . 80"), "{error}");
                assert_eq!(&nft("-s list table inet cofferdam"), before);
                assert_eq!(within(&second, crate::support::links), ["lo"]);
            }
            (result, _) => panic!("{taken}: {result:?}"),
        }
    }
    finish(&host, &network, &[endpoint]);
}

/// As [`connect`], as soon as the kernel has forgotten that nobody answered before.
pub(crate) fn connect_at_last(to: SocketAddr) -> TcpStream {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match connect(to) {
            Ok(stream) => return stream,
            Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
        }
    }
}

/// Somebody on the same wire gives themselves a route to the containers. Without our rules they get in.
pub(crate) fn a_neighbour_with_a_route() {
    let neighbour = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80"]);
    within(&neighbour, || {
        run_ip("route add 10.88.0.0/16 via 192.0.2.1");
        run_ip("route add fd00:88::/64 via 2001:db8::1");
    });
    let listeners = [v4(2), v6(2)].map(|address| listen(&netns, address, 22));
    let get_in = |n: usize| within(&neighbour, || try_connect(listeners[n].local_addr().unwrap()));
    // Neither a port that is not published, nor one that is by its inner address.
    let inner = listen(&netns, v4(2), 80);
    for result in [get_in(0), get_in(1), within(&neighbour, || try_connect(inner.local_addr().unwrap()))] {
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }
    nft("flush chain inet cofferdam forward");
    for listener in &listeners {
        within(&neighbour, || connect(listener.local_addr().unwrap())).unwrap();
    }
    finish(&host, &network, &[endpoint]);
}

pub(crate) fn two_networks_are_apart() {
    let (host, network) = create(&forwarding());
    let other = NetworkSpec::new("br-other").owner("kernel tests").subnet("10.99.0.0/24".parse().unwrap());
    let other = Network::create(&host, &other).unwrap();
    let (first, second) = (publishing(&network, 2, &["8080:80"]), NetNs::new().unwrap());
    let in_other = other.attach(&second, &EndpointSpec::new().address([10, 99, 0, 2])).unwrap();
    let listeners = [listen(&first.0, v4(2), 22), listen(&second, [10, 99, 0, 2].into(), 22)];
    let ways = [(&second, &listeners[0]), (&first.0, &listeners[1])];
    for (from, to) in ways {
        within(from, || try_connect(to.local_addr().unwrap())).unwrap_err();
    }
    // A published port is open to everybody.
    let listener = listen(&first.0, v4(2), 80);
    let from = within(&second, || source(|| connect((IpAddr::from([10, 99, 0, 1]), 8080).into()), &listener));
    assert_eq!(from, Some([10, 99, 0, 2].into()));
    nft("flush chain inet cofferdam forward");
    for (from, to) in ways {
        within(from, || connect(to.local_addr().unwrap())).unwrap();
    }
    in_other.detach(&host).unwrap();
    other.delete().unwrap();
    finish(&host, &network, &[first.1]);
}

/// Neither directly nor by way of the host, which is asked to route inside the network.
pub(crate) fn containers_that_are_apart() {
    let (host, network) = create(&forwarding().between_containers(false));
    let (first, second) = (publishing(&network, 2, &["8080:80"]), container(&network, 3));
    let listener = listen(&first.0, v4(2), 22);
    // The host would tell them that they are neighbours, and they would go back to the direct way.
    for (netns, conf) in [(&first.0, "all"), (&first.0, "eth0"), (&second.0, "all"), (&second.0, "eth0")] {
        within(netns, || std::fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/accept_redirects"), "0")).unwrap();
    }
    let reach = || within(&second.0, || try_connect((v4(2), 22)));
    reach().unwrap_err();
    within(&second.0, || run_ip("route add 10.88.0.2/32 via 10.88.0.1"));
    within(&first.0, || run_ip("route add 10.88.0.3/32 via 10.88.0.1"));
    reach().unwrap_err();
    // The host, and what is published, are reached; the latter not where bridged packets are translated already.
    bridged_packets_are_seen(false);
    say(|| connect((v4(2), 22).into()), &listener).unwrap();
    let published = listen(&first.0, v4(2), 80);
    within(&second.0, || say(|| connect((v4(1), 8080).into()), &published)).unwrap();
    // With the rule off the way by the host is open.
    nft("flush chain inet cofferdam forward");
    within(&second.0, || connect((v4(2), 22).into())).unwrap();
    within(&second.0, || run_ip("route del 10.88.0.2/32 via 10.88.0.1"));
    within(&first.0, || run_ip("route del 10.88.0.3/32 via 10.88.0.1"));
    reach().unwrap_err();
    // And with the ports' flag off the direct one.
    for port in [first.1.port(), second.1.port()] {
        run_ip(&format!("link set {port} type bridge_slave isolated off"));
    }
    within(&second.0, || connect_at_last((v4(2), 22).into()));
    finish(&host, &network, &[first.1, second.1]);
}

/// Its containers reach each other and the bridge, and nobody else, even if they make themselves a route.
pub(crate) fn an_internal_network() {
    let internet = outside();
    // Another network has switched forwarding on.
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let (host, network) = create(&spec().internal(true));
    assert_eq!(network.check(&[]).unwrap(), []);
    let (first, second) = (container(&network, 2), container(&network, 3));
    assert_eq!(first.1.gateways(), [] as [IpAddr; 0]);
    let listener = listen(&second.0, v4(3), 22);
    within(&first.0, || say(|| connect((v4(3), 22).into()), &listener)).unwrap();
    let outer = within(&internet, || {
        run_ip("route add 10.88.0.0/16 via 192.0.2.1");
        TcpListener::bind((outside_v4(2), 80)).unwrap()
    });
    let to = outer.local_addr().unwrap();
    let reach = || within(&first.0, || try_connect(to));
    assert_eq!(reach().unwrap_err().kind(), std::io::ErrorKind::NetworkUnreachable);
    within(&first.0, || run_ip("route add default via 10.88.0.1"));
    reach().unwrap_err();
    nft("flush chain inet cofferdam forward");
    within(&first.0, || connect(to)).unwrap();
    finish(&host, &network, &[first.1, second.1]);
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

/// The host's address for the outside, that of the other machine, and containers' by their numbers: of each family.
type Family = (IpAddr, IpAddr, fn(u8) -> IpAddr, &'static str);

fn families() -> [Family; 2] {
    [(outside_v4(1), outside_v4(2), v4, "ports4"), (outside_v6(1), outside_v6(2), v6, "ports6")]
}

fn udp(address: impl std::net::ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What this client sends to the published port arrives at this socket.
fn arrives(client: &UdpSocket, public: IpAddr, at: &UdpSocket) {
    client.send_to(b"x", (public, 5353)).unwrap();
    assert_eq!(at.recv_from(&mut [0; 8]).expect("it has not gone astray").0, 1);
}

/// A client that sends to the port from before it is published, and goes on after it has ended: no packet goes astray.
pub(crate) fn udp_from_before() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    for (public, remote, inner, map) in families() {
        let on_host = udp((public, 5353));
        let client = within(&machine, || udp((remote, 0)));
        arrives(&client, public, &on_host);
        for number in [2, 3] {
            let (netns, endpoint) = publishing(&network, number, &["5353:53/udp"]);
            arrives(&client, public, &within(&netns, || udp((inner(number), 53))));
            endpoint.detach(&host).unwrap();
            arrives(&client, public, &on_host);
        }
        // The kernel itself would have gone on with what it remembers.
        let (netns, endpoint) = publishing(&network, 4, &["6000:53/udp"]);
        let inside = within(&netns, || udp((inner(4), 53)));
        nft(&format!("add element inet cofferdam {map} {{ udp . 5353 : {} . 53 }}", inner(4)));
        arrives(&client, public, &on_host);
        drop(inside);
        nft(&format!("delete element inet cofferdam {map} {{ udp . 5353 }}"));
        endpoint.detach(&host).unwrap();
    }
    finish(&host, &network, &[]);
}

/// The same when the port comes back after the rules were flushed, and when it goes with others. What led to the container all the while still does.
pub(crate) fn udp_after_a_flush() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    for (public, remote, inner, _) in families() {
        let on_host = udp((public, 5353));
        let [before, meanwhile] = [(); 2].map(|()| within(&machine, || udp((remote, 0))));
        let (netns, endpoint) = publishing(&network, 2, &["5353:53/udp"]);
        let inside = within(&netns, || udp((inner(2), 53)));
        arrives(&before, public, &inside);
        nft("flush table inet cofferdam");
        arrives(&meanwhile, public, &on_host);
        Network::reapply(&host, &forwarding(), &[endpoint]).unwrap();
        arrives(&meanwhile, public, &inside);
        // Were it forgotten, this would be a new connection, from another port.
        inside.send_to(b"x", before.local_addr().unwrap()).unwrap();
        assert_eq!(before.recv_from(&mut [0; 8]).unwrap().1, (public, 5353).into());
        network.gc(|_| false).unwrap();
        arrives(&before, public, &on_host);
        let (netns, _) = publishing(&network, 3, &["5353:53/udp"]);
        arrives(&before, public, &within(&netns, || udp((inner(3), 53))));
        network.detach_all().unwrap();
        arrives(&before, public, &on_host);
    }
    finish(&host, &network, &[]);
}
