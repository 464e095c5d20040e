//! How a container is attached, what is undone when that fails, and how it is detached.

use crate::netlink::{Batch, Pair, PortFlags};
use crate::{Endpoint, EndpointSpec, Error, ErrorKind, Host, NetNs, Network, NetworkSpec, Operation, firewall, rules};
use std::os::fd::AsFd;

/// The index of each end, in its own namespace.
#[derive(Debug, Clone, Copy)]
struct Ends {
    port: u32,
    interface: u32,
}

pub(crate) fn attach(network: &Network, netns: &NetNs, spec: &EndpointSpec) -> Result<Endpoint, Error> {
    network.spec().check()?;
    let endpoint = Endpoint::plan(network.spec(), spec, [random()?, random()?])?;
    let ends = create(network, netns, &endpoint)?;
    // The port first: a link that is not tagged yet should not be so for long. Published ports last: now there is somebody to reach.
    let set_up = network
        .set_up_port(&endpoint, ends.port, false)
        .and_then(|()| set_up_interface(netns, &endpoint, ends.interface))
        .and_then(|()| publish(network, &endpoint));
    match set_up {
        Ok(()) => Ok(endpoint),
        Err(error) => Err(undo(network.host(), &endpoint, error)),
    }
}

/// The pair of interfaces: one a port of the bridge, the other in the container. Neither is up.
fn create(network: &Network, netns: &NetNs, endpoint: &Endpoint) -> Result<Ends, Error> {
    let pair = Pair {
        port: endpoint.port(),
        port_mac: endpoint.port_mac(),
        bridge: network.index(),
        group: network.spec().group(),
        mtu: network.mtu(),
        netns: netns.as_fd(),
        interface: endpoint.interface(),
        mac: endpoint.mac(),
    };
    let mut batch = Batch::new();
    batch.create_pair(&pair);
    batch.find_link(Operation::CreatePair, endpoint.port());
    let host = network.host();
    // Without an answer it is not known whether the pair was made.
    let answers = host.session().run(batch).map_err(|error| undo(host, endpoint, error))?;
    let (created, link) = answers.done_and_link();
    if let Err(error) = created {
        let name_is_free = matches!(link, Ok(None));
        let error = explain(network, endpoint, error, name_is_free);
        // A link of this name may be there, and it may be another's or, if only the answer went wrong, ours.
        return Err(if name_is_free { error } else { undo(host, endpoint, error) });
    }
    let ends = link.and_then(|link| {
        let ends = link.and_then(|link| Some(Ends { port: link.index, interface: link.peer? }));
        let words = "the kernel made interfaces, but does not tell their indices";
        ends.ok_or_else(|| Error::words(ErrorKind::Protocol, Operation::CreatePair, words).about(endpoint.port()))
    });
    ends.map_err(|error| undo(host, endpoint, error))
}

/// The kernel tells neither whose name was taken nor which link it did not find.
fn explain(network: &Network, endpoint: &Endpoint, error: Error, name_is_free: bool) -> Error {
    match error.raw_os_error() {
        Some(libc::EEXIST) if name_is_free => error.about(endpoint.interface()),
        Some(libc::EINVAL | libc::ENODEV) if matches!(network.exists(), Ok(false)) => {
            error.with_kind(ErrorKind::NotFound).about(&network.spec().name)
        }
        _ => error,
    }
}

impl Network {
    /// Tags the host's end and brings it up; puts it onto the bridge first if it is not on it.
    pub(crate) fn set_up_port(&self, endpoint: &Endpoint, index: u32, put_on: bool) -> Result<(), Error> {
        let mut batch = Batch::new();
        let about = (Operation::SetUpPort, endpoint.port());
        if put_on {
            batch.set_bridge(about, index, self.index());
        }
        let flags = port_flags(self.spec(), endpoint);
        // A port that is new has none.
        if flags == PortFlags::default() && !put_on {
            batch.tag_and_up(about, index, &endpoint.alias(), None);
        } else {
            batch.tag_and_up_port(about, index, &endpoint.alias(), flags);
        }
        self.host().session().run(batch)?.all()
    }
}

/// The settings of an endpoint's port of the bridge.
pub(crate) fn port_flags(network: &NetworkSpec, endpoint: &Endpoint) -> PortFlags {
    PortFlags { isolated: !network.icc, hairpin: network.hairpin && !endpoint.ports().is_empty() }
}

fn set_up_interface(netns: &NetNs, endpoint: &Endpoint, index: u32) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.loopback_up();
    for address in endpoint.addresses() {
        batch.add_address(Operation::AddAddress, index, *address);
    }
    batch.tag_and_up((Operation::SetUpInterface, endpoint.interface()), index, &endpoint.alias(), None);
    for gateway in endpoint.gateways() {
        batch.default_route(index, *gateway);
    }
    for (to, gateway) in endpoint.routes() {
        batch.route_to(index, *to, *gateway);
    }
    batch.pieces().into_iter().try_for_each(|piece| netns.session().run(piece)?.all())
}

fn publish(network: &Network, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.ports().is_empty() {
        return Ok(());
    }
    rules::add(network.host(), Operation::Publish, &firewall::of_endpoint(network.spec(), endpoint))?;
    rules::forget_connections_to(network.host(), Operation::Publish, endpoint)
}

fn undo(host: &Host, endpoint: &Endpoint, error: Error) -> Error {
    match detach(host, endpoint) {
        Ok(()) => error,
        Err(_) => error.leaving(endpoint.port()),
    }
}

/// Takes back published ports and deletes the port, and with it the container's end. What only has its name is left alone. One that fails
/// keeps none of the others from being done.
pub(crate) fn detach(host: &Host, endpoint: &Endpoint) -> Result<(), Error> {
    let ports = unpublish(host, endpoint);
    delete_pair(host, endpoint).and(ports)
}

fn unpublish(host: &Host, endpoint: &Endpoint) -> Result<(), Error> {
    if endpoint.ports().is_empty() {
        return Ok(());
    }
    // All that there can be: what the network is now is not known here.
    rules::remove(host, Operation::Unpublish, &firewall::all_of_endpoint(endpoint))?;
    rules::forget_connections_to(host, Operation::Unpublish, endpoint)
}

fn delete_pair(host: &Host, endpoint: &Endpoint) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.find_link(Operation::Detach, endpoint.port());
    let Some(link) = host.session().run(batch)?.link()? else {
        return Ok(());
    };
    if link.kind.as_deref() != Some("veth") || link.mac != Some(endpoint.port_mac()) {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_link((Operation::Detach, endpoint.port()), link.index);
    // It may have gone in between, with its namespace.
    host.session().run(batch)?.gone()
}

pub(crate) fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    // So few bytes come at once and all together, once the machine has booted.
    let got = rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()));
    match got {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(Error::words(ErrorKind::Os, Operation::Identify, "getrandom gave too few bytes")),
        Err(errno) => Err(Error::os(Operation::Identify, "getrandom", errno.raw_os_error())),
    }
}
