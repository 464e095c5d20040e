//! What tests of networks with rules share.

use crate::support::{PATIENCE, addresses, clean_up, nft, outside_v4, outside_v6, run_ip, spec, v4, v6, within};
use crate::traffic::connect;
use cofferdam_netlink_bridge::{Endpoint, Host, NetNs, Network, NetworkSpec, PublishedPort};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
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

pub(crate) fn port(text: &str) -> PublishedPort {
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
pub(crate) fn source(client: impl FnOnce() -> std::io::Result<TcpStream>, listener: &TcpListener) -> Option<IpAddr> {
    let client = client().ok()?;
    let (_, from) = listener.accept().unwrap();
    drop(client);
    Some(from.ip())
}

pub(crate) fn try_connect(to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&to.into(), A_WHILE)
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

/// The host's address for the outside, that of the other machine, and containers' by their numbers: of each family.
pub(crate) type Family = (IpAddr, IpAddr, fn(u8) -> IpAddr, &'static str);

pub(crate) fn families() -> [Family; 2] {
    [(outside_v4(1), outside_v4(2), v4, "ports4"), (outside_v6(1), outside_v6(2), v6, "ports6")]
}
