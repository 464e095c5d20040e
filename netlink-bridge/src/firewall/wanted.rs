//! Which elements a network and an endpoint need.

use super::{Element, Set};
use crate::port::OnePort;
use crate::{Endpoint, NetworkSpec};
use std::net::IpAddr;

/// The elements of a network.
pub(crate) fn of_network(spec: &NetworkSpec) -> Vec<Element> {
    let wanted = |set: &Set| match set {
        Set::Networks => true,
        Set::Internal => spec.internal,
        Set::Outward => spec.masquerade && !spec.internal,
        Set::Together => spec.icc,
        _ => false,
    };
    let element = |set| Element::of_bridge(set, &spec.name, spec.tag());
    let hairpin = spec.subnets.iter().filter(|_| spec.hairpin && !spec.internal);
    let hairpin = hairpin.map(|subnet| Element::of_subnet(&spec.name, *subnet, spec.tag()));
    Set::OF_NETWORKS.into_iter().filter(wanted).map(element).chain(hairpin).collect()
}

/// The elements that an endpoint needs in a network.
pub(crate) fn of_endpoint(network: &NetworkSpec, endpoint: &Endpoint) -> Vec<Element> {
    let mut elements = all_of_endpoint(endpoint);
    elements.retain(|element| is_wanted(network, element));
    elements
}

/// Whether a network as it is now has this element of an endpoint. What it was when the endpoint was attached does not matter.
pub(crate) fn is_wanted(network: &NetworkSpec, element: &Element) -> bool {
    network.host_loopback || !element.is_at_loopback()
}

/// The elements that an endpoint can have: one for each port and family, and one for the host's loopback if the port is at any address; sorted
/// by their sets.
pub(crate) fn all_of_endpoint(endpoint: &Endpoint) -> Vec<Element> {
    let mut elements = Vec::new();
    for ports in endpoint.ports() {
        // The unspecified address means any.
        let at = ports.host_address().filter(|address| !address.is_unspecified());
        for to in targets(endpoint, ports.host_address()) {
            let element =
                |port: OnePort| Element::of_port(at, (port.protocol, port.host), (to, port.container), endpoint.tag());
            elements.extend(ports.each().map(element));
        }
    }
    let there: Vec<_> = elements.iter().filter_map(Element::at_loopback).collect();
    elements.extend(there);
    elements.sort();
    elements
}

/// The container's addresses to which a port leads: the first of each family, or of the family of the host's address.
pub(crate) fn targets(endpoint: &Endpoint, at: Option<IpAddr>) -> Vec<IpAddr> {
    let first = |v4: bool| endpoint.addresses().iter().map(|a| a.address()).find(|address| address.is_ipv4() == v4);
    [true, false].into_iter().filter(|v4| at.is_none_or(|at| at.is_ipv4() == *v4)).filter_map(first).collect()
}
