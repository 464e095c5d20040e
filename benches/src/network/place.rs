//! A host that is the bench's own network namespace, a network in it, and containers on it.

use super::messages;
use crate::Result;
use crate::floor::netlink::{NETFILTER, ROUTE, Socket};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, Host, NetNs, Network, NetworkSpec, PublishedPort};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

pub(super) const BRIDGE: &str = "br-bench";
pub(super) const SUBNET: &str = "10.88.0.0/16";
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const OWNER: &str = "bench";
/// Where the ports begin that are there before.
const FIRST_PORT_BEFORE: u16 = 20_000;

/// The host with its network.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) network: Network,
    /// The bridge's index, and the group of its ports.
    pub(super) bridge: u32,
    pub(super) group: u32,
    /// The containers that are there.
    others: Vec<NetNs>,
    _namespace: OwnNamespace,
}

/// The thread is in a network namespace of its own, until this is dropped.
#[derive(Debug)]
struct OwnNamespace {
    was_in: File,
}

impl OwnNamespace {
    fn enter() -> Result<Self> {
        let was_in = File::open("/proc/thread-self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot make a network namespace: {e}"))?;
        Ok(OwnNamespace { was_in })
    }
}

impl Drop for OwnNamespace {
    fn drop(&mut self) {
        let _ = setns(&self.was_in, CloneFlags::CLONE_NEWNET);
    }
}

impl Place {
    /// A host with so many containers, the first of which publishes so many ports. Until it is dropped, this thread is in that namespace.
    pub(super) fn new(containers: usize, ports: u16) -> Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let namespace = OwnNamespace::enter()?;
        let host = Host::current()?;
        let spec = NetworkSpec::new(BRIDGE).owner(OWNER).subnet(SUBNET.parse()?).enable_forwarding(true);
        let network = Network::create(&host, &spec)?;
        let others = (0..containers).map(|_| NetNs::new()).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut place = Place { host, network, bridge: 0, group: 0, others, _namespace: namespace };
        place.bridge = link(BRIDGE)?.0;
        let endpoints = place.fill(ports)?;
        place.group = link(endpoints.first().ok_or("no container")?.port())?.2;
        Ok(place)
    }

    /// Attaches the containers, while the bridge is down: a container that appears sends to all that are there, which makes many a slow matter.
    pub(super) fn fill(&self, ports: u16) -> Result<Vec<Endpoint>> {
        let attach = |(nth, netns): (usize, &NetNs)| -> Result<Endpoint> {
            let [high, low] = u16::try_from(nth + 2)?.to_be_bytes();
            let mut spec = EndpointSpec::new().id(nth.to_string()).address(Ipv4Addr::new(10, 88, high, low));
            if nth == 0 && ports > 0 {
                spec = spec.publish(PublishedPort::new(FIRST_PORT_BEFORE, FIRST_PORT_BEFORE).count(ports));
            }
            Ok(self.network.attach(netns, &spec)?)
        };
        let bridge = Socket::open(ROUTE)?;
        bridge.talk(&messages::set_up(self.bridge, false), 1, |_| {})?;
        let endpoints = self.others.iter().enumerate().map(attach).collect::<Result<_>>()?;
        bridge.talk(&messages::set_up(self.bridge, true), 1, |_| {})?;
        Ok(endpoints)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Deleted together: the kernel would need much longer for the namespaces one after the other, while others are measured.
        let _ = self.network.detach_all();
        let _ = self.network.delete();
    }
}

/// The index, that of the other end, and the group of a link of this namespace.
fn link(name: &str) -> Result<(u32, u32, u32)> {
    let mut found = None;
    Socket::open(ROUTE)?.talk(&messages::find(name), 1, |body| found = messages::found_link(body))?;
    found.ok_or_else(|| format!("{name} is not described").into())
}

/// Where one contender works: a container that it attaches and detaches.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) netns: NetNs,
    /// The host's end.
    pub(super) port: String,
    pub(super) address: Ipv4Addr,
    /// Those of the host that are published.
    pub(super) ports: Vec<u16>,
    pub(super) spec: EndpointSpec,
    pub(super) route: Socket,
    pub(super) netfilter: Socket,
    pub(super) inside: Socket,
}

/// Tags every link.
pub(super) const ALIAS: &str = "cofferdam:bench";

impl Target {
    /// One of its own for each contender, by its number.
    pub(super) fn new(nth: u8, id: &str, ports: u16) -> Result<Self> {
        let netns = NetNs::new()?;
        let address = Ipv4Addr::new(10, 88, 200, nth + 2);
        let ports: Vec<u16> = (0..ports).map(|port| 8000 + u16::from(nth) * 100 + port).collect();
        let spec = EndpointSpec::new().id(id).address(address);
        let spec = ports.iter().fold(spec, |spec, port| spec.publish(PublishedPort::new(*port, *port)));
        let (route, netfilter) = (Socket::open(ROUTE)?, Socket::open(NETFILTER)?);
        let inside = Socket::open_in(netns.as_fd(), ROUTE)?;
        Ok(Target { netns, port: format!("cd-{id}"), address, ports, spec, route, netfilter, inside })
    }

    /// The MAC address that follows from its address.
    pub(super) fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.address.octets();
        [2, 0xcd, a, b, c, d]
    }

    /// Looks into the container: it has an interface that is up, with an address, and by the gateway it reaches what is far away.
    pub(super) fn check(&self) -> Result<()> {
        let mut gateway = None;
        self.inside.talk(&messages::find_route(), 1, |body| gateway = messages::found_gateway(body))?;
        if gateway == Some(GATEWAY) { Ok(()) } else { Err(format!("the default route is {gateway:?}").into()) }
    }

    /// Looks whether its last port is published, in the map of cofferdam.
    pub(super) fn check_ports(&self) -> Result<()> {
        let Some(last) = self.ports.last() else { return Ok(()) };
        Ok(self.netfilter.talk(&messages::find_port(*last), 1, |_| {})?)
    }
}
