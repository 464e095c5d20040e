//! Real packets.

use crate::support::{PATIENCE, addresses, at, clean_up, container, network, v4, v6, within};
use cofferdam_netlink_bridge::{Mac, NetNs};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Sends a line to a listener and gets it back.
pub(crate) fn say(
    client: impl FnOnce() -> std::io::Result<TcpStream> + Send,
    listener: &TcpListener,
) -> std::io::Result<()> {
    let mut client = client()?;
    let (mut server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    client.write_all(b"hello\n")?;
    let mut line = [0; 6];
    server.read_exact(&mut line)?;
    server.write_all(&line)?;
    client.read_exact(&mut line)?;
    assert_eq!(&line, b"hello\n");
    Ok(())
}

pub(crate) fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, PATIENCE)
}

/// From one container to another, which has this number.
pub(crate) fn reach(from: &NetNs, to: &NetNs, number: u8) {
    let listener = within(to, || TcpListener::bind(at(v4(number))).expect("listens"));
    let address = listener.local_addr().expect("an address");
    within(from, || say(|| connect(address), &listener)).expect("talks");
}

pub(crate) fn tcp_between_containers() {
    let (host, network) = network();
    let (a, b) = (container(&network, 2), container(&network, 3));
    for address in [v4(3), v6(3)] {
        let listener = within(&b.0, || TcpListener::bind(at(address)).expect("listens"));
        let to = listener.local_addr().expect("an address");
        within(&a.0, || say(|| connect(to), &listener)).expect("talks");
    }
    clean_up(&host, &network, &[a.1, b.1]);
}

pub(crate) fn udp_between_containers() {
    let (host, network) = network();
    let (a, b) = (container(&network, 2), container(&network, 3));
    for (from, to) in [(v4(2), v4(3)), (v6(2), v6(3))] {
        let [from, to] = [(&a.0, from), (&b.0, to)]
            .map(|(netns, address)| within(netns, || UdpSocket::bind(at(address)).expect("a socket")));
        to.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        from.send_to(b"hello", to.local_addr().expect("an address")).expect("is sent");
        let mut buffer = [0; 16];
        let (length, source) = to.recv_from(&mut buffer).expect("arrives");
        assert_eq!((&buffer[..length], source), (&b"hello"[..], from.local_addr().expect("an address")));
    }
    clean_up(&host, &network, &[a.1, b.1]);
}

pub(crate) fn container_and_gateway() {
    let (host, network) = network();
    let (a, endpoint) = container(&network, 2);
    for (gateway, address) in [(v4(1), v4(2)), (v6(1), v6(2))] {
        let listener = TcpListener::bind(at(gateway)).expect("the bridge has the address");
        let to = listener.local_addr().expect("an address");
        within(&a, || say(|| connect(to), &listener)).expect("talks to the host");
        let listener = within(&a, || TcpListener::bind(at(address)).expect("listens"));
        let to = listener.local_addr().expect("an address");
        say(|| connect(to), &listener).expect("the host talks to it");
    }
    clean_up(&host, &network, &[endpoint]);
}

/// A container without a network has loopback, once it is up.
pub(crate) fn loopback_alone() {
    let netns = NetNs::new().expect("a namespace");
    let talk = || {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let to = listener.local_addr()?;
        say(|| connect(to), &listener)
    };
    let down = within(&netns, talk).expect_err("loopback is down");
    assert!(matches!(down.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable), "{down:?}");
    netns.loopback_up().expect("is up");
    netns.loopback_up().expect("is up already");
    within(&netns, talk).expect("talks to itself");
    assert_eq!(within(&netns, crate::support::links), ["lo"]);
    let outside = within(&netns, || connect(SocketAddr::from((v4(1), 1)))).expect_err("there is no way out");
    assert_eq!(outside.kind(), ErrorKind::NetworkUnreachable);
}

/// Two containers that share a namespace share its loopback: an endpoint gives it one too.
pub(crate) fn loopback_of_an_attached_container() {
    let (host, network) = network();
    let (a, endpoint) = container(&network, 2);
    for address in [IpAddr::from([127, 0, 0, 1]), v4(2)] {
        let listener = within(&a, || TcpListener::bind(at(address)).expect("listens"));
        let to = listener.local_addr().expect("an address");
        within(&a, || say(|| connect(to), &listener)).expect("talks to itself");
    }
    clean_up(&host, &network, &[endpoint]);
}

/// Before a neighbour is asked again for its MAC address, which is after five seconds.
const SOON: Duration = Duration::from_secs(2);

/// Neighbours remember the MAC address of an address: a new container with the address has the same one, and is reached
/// at once. With another MAC address it is not.
pub(crate) fn an_address_used_again() {
    let (host, network) = network();
    let client = container(&network, 2);
    // The kernel lets a bridge's new port forward a moment after it is there: a packet before that is lost.
    let reach = |netns: &NetNs, patience: Duration| {
        let socket = within(netns, || UdpSocket::bind(SocketAddr::from((v4(3), 7))).expect("a socket"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time-out");
        let from = within(&client.0, || UdpSocket::bind(at(v4(2))).expect("a socket"));
        let end = Instant::now() + patience;
        loop {
            from.send_to(b"x", SocketAddr::from((v4(3), 7))).expect("is sent");
            match socket.recv_from(&mut [0; 8]) {
                Err(_) if Instant::now() < end => {}
                result => break result.map(drop),
            }
        }
    };
    let first = container(&network, 3);
    reach(&first.0, PATIENCE).expect("is reached");
    first.1.detach(&host).expect("is detached");
    let second = container(&network, 3);
    reach(&second.0, SOON).expect("is reached at once");
    second.1.detach(&host).expect("is detached");
    let netns = NetNs::new().expect("a namespace");
    let other = network.attach(&netns, &addresses(3).mac(Mac::new([2, 2, 2, 2, 2, 2]))).expect("is attached");
    // The kernel announces no new address of its own accord: the neighbour goes on sending to the old one.
    reach(&netns, SOON).expect_err("is not reached");
    clean_up(&host, &network, &[client.1, other]);
}

/// 64 attaches from 8 threads.
pub(crate) fn a_crowd() {
    let (host, network) = network();
    let attached: Vec<_> = thread::scope(|scope| {
        let attach = |thread: u8| {
            let network = &network;
            let numbers = (0..8).map(move |n| 2 + thread * 8 + n);
            scope.spawn(move || numbers.map(|number| container(network, number)).collect::<Vec<_>>())
        };
        let threads: Vec<_> = (0..8).map(attach).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("attaches")).collect()
    });
    assert_eq!(attached.len(), 64);
    assert_eq!(crate::support::links().len(), 2 + 64);
    for (netns, endpoint) in attached.iter().step_by(9) {
        let address = endpoint.addresses()[0].address();
        let listener = within(netns, || TcpListener::bind(at(address)).expect("listens"));
        let to = listener.local_addr().expect("an address");
        within(&attached[1].0, || say(|| connect(to), &listener)).expect("talks");
    }
    thread::scope(|scope| {
        for chunk in attached.chunks(8) {
            scope.spawn(|| chunk.iter().for_each(|(_, endpoint)| endpoint.detach(&host).expect("is detached")));
        }
    });
    clean_up(&host, &network, &[]);
}
