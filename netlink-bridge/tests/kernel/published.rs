//! Published ports: who gets where by them.

use crate::support::{
    PATIENCE, addresses, at, container, nft, outside, outside_v4, outside_v6, run_ip, v4, v6, within,
};
use crate::traffic::{connect, say};
use crate::with_rules::{
    A_WHILE, bridged_packets_are_seen, create, families, finish, forwarding, listen, port, publishing, try_connect,
};
use cofferdam_netlink_bridge::{ErrorKind, NetNs, Network};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Asks at a published UDP port, and gets the answer from there; tells from where the question came.
fn ask(to: SocketAddr, inside: &UdpSocket, patience: Duration) -> std::io::Result<IpAddr> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = UdpSocket::bind(any)?;
    // From now on it hears nobody else.
    client.connect(to)?;
    for socket in [&client, inside] {
        socket.set_read_timeout(Some(patience))?;
    }
    client.send(b"?")?;
    let (_, from) = inside.recv_from(&mut [0; 8])?;
    inside.send_to(b"!", from)?;
    client.recv(&mut [0; 8])?;
    Ok(from.ip())
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
    for public in [outside_v4(1), outside_v6(1)] {
        within(&machine, || try_connect((public, 8080))).unwrap_err();
    }
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
    let (netns, endpoint) = publishing(&network, 2, &["8080:80", "5353:53/udp"]);
    let loopback = IpAddr::from([127, 0, 0, 1]);
    for (inner, publics) in [(v4(2), &[outside_v4(1), v4(1), loopback][..]), (v6(2), &[outside_v6(1), v6(1)])] {
        let (listener, inside) = (listen(&netns, inner, 80), within(&netns, || udp((inner, 53))));
        for public in publics.iter().copied() {
            say(|| connect((public, 8080).into()), &listener).unwrap_or_else(|e| panic!("{public}: {e}"));
            ask((public, 5353).into(), &inside, PATIENCE).unwrap_or_else(|e| panic!("UDP at {public}: {e}"));
        }
    }
    endpoint.detach(&host).unwrap();
    for public in [outside_v4(1), loopback, outside_v6(1)] {
        assert_eq!(try_connect((public, 8080)).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
    finish(&host, &network, &[endpoint]);
}

/// By the host's address from the network itself: another container, and the container itself. With hairpin off the latter is not reached.
pub(crate) fn published_to_the_network_itself() {
    let _machine = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["8080:80", "5353:53/udp"]);
    let other = container(&network, 3);
    for (inner, gateway, public) in [(v4(2), v4(1), outside_v4(1)), (v6(2), v6(1), outside_v6(1))] {
        let (listener, inside) = (listen(&netns, inner, 80), within(&netns, || udp((inner, 53))));
        for seen in [true, false] {
            bridged_packets_are_seen(seen);
            for client in [&other.0, &netns] {
                let said = within(client, || say(|| connect((public, 8080).into()), &listener));
                said.unwrap_or_else(|e| panic!("{public}: {e}: {}", nft("list ruleset")));
                let asked = within(client, || ask((public, 5353).into(), &inside, PATIENCE));
                assert_eq!(asked.unwrap_or_else(|e| panic!("UDP at {public}: {e}")), gateway);
            }
            Network::create(&host, &forwarding().hairpin(false)).unwrap();
            within(&netns, || try_connect((public, 8080))).unwrap_err();
            within(&netns, || ask((public, 5353).into(), &inside, A_WHILE)).unwrap_err();
            Network::create(&host, &forwarding()).unwrap();
        }
    }
    finish(&host, &network, &[endpoint, other.1]);
}

pub(crate) fn published_at_one_address() {
    let machine = outside();
    run_ip("link set lo up");
    let (host, network) = create(&forwarding().host_loopback(true));
    run_ip("address add 192.0.2.9/24 dev up0");
    run_ip("address add 2001:db8::9/64 dev up0 nodad");
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
    // And at no other, where nobody listens.
    for public in [(outside_v4(1), 8082), (outside_v6(9), 8081)] {
        let error = within(&machine, || try_connect(public)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{public:?}");
    }
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
                assert_eq!(error.attribute(), Some("NFTA_LIST_ELEM"), "{error}");
                assert_eq!(&nft("-s list table inet cofferdam"), before);
                assert_eq!(within(&second, crate::support::links), ["lo"]);
            }
            (result, _) => panic!("{taken}: {result:?}"),
        }
    }
    finish(&host, &network, &[endpoint]);
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
        // One port, and more than are asked for one by one.
        for (number, more) in [(2, &[][..]), (3, &["7001-7009:7001-7009/udp"][..])] {
            let (netns, endpoint) = publishing(&network, number, &[&["5353:53/udp"], more].concat());
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
