//! An interface of a container in a network: the record of what was made.

#[cfg(feature = "serde")]
use crate::version::Version;
use crate::{
    AddressPool, EndpointSpec, Error, Holder, Host, Mac, NetworkSpec, PublishedPort, Subnet, attach, firewall, name,
};
use std::net::IpAddr;

/// The record of what an attach made: all that detaching needs.
///
/// Plain data: dropping it detaches nothing, and any process that has it can detach. With the feature `serde` it can be stored; what a later version
/// stored with more fields can be read, a later format cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Endpoint {
    #[cfg(feature = "serde")]
    version: Version<1>,
    id: String,
    owner: String,
    network: String,
    port: String,
    port_mac: Mac,
    interface: String,
    mac: Mac,
    addresses: Vec<Subnet>,
    gateways: Vec<IpAddr>,
    #[cfg_attr(feature = "serde", serde(default))]
    routes: Vec<(Subnet, IpAddr)>,
    #[cfg_attr(feature = "serde", serde(default))]
    ports: Vec<PublishedPort>,
    /// By which a pool knows these addresses from those of a later endpoint with the same id.
    #[cfg_attr(feature = "serde", serde(default))]
    claim: Option<u64>,
}

impl Endpoint {
    /// Removes the interface from container and host. It is no error if it is gone, alone or with the container's namespace.
    ///
    /// # Errors
    /// What the kernel says against it; [`PermissionDenied`](crate::ErrorKind::PermissionDenied). What could be removed is removed all the same.
    pub fn detach(&self, host: &Host) -> Result<(), Error> {
        name::check_link("port", &self.port)?;
        attach::detach(host, self)
    }

    /// As [`detach`](Self::detach), and gives its addresses back to the pool that they are from.
    ///
    /// # Errors
    /// As [`detach`](Self::detach) and [`AddressPool::give_back`].
    pub fn detach_to(&self, pool: &impl AddressPool, host: &Host) -> Result<(), Error> {
        self.detach(host)?;
        // Only now: nobody else may get an address that somebody still uses.
        pool.give_back(&Holder { id: self.id.clone(), owner: self.owner.clone() }, self.claim)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The name of the network.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The name of the host's end, which is a port of the bridge.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The name of the container's end.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The MAC address of the container's end.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its addresses, each with the prefix of its subnet.
    #[must_use]
    pub fn addresses(&self) -> &[Subnet] {
        &self.addresses
    }

    /// Where its default routes lead.
    #[must_use]
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// Its other routes: to where, by which address.
    #[must_use]
    pub fn routes(&self) -> &[(Subnet, IpAddr)] {
        &self.routes
    }

    /// Its published ports.
    #[must_use]
    pub fn ports(&self) -> &[PublishedPort] {
        &self.ports
    }

    /// By which the kernel keeps whose a published port is.
    pub(crate) fn tag(&self) -> String {
        let (port, network, owner) = (&self.port, &self.network, &self.owner);
        name::EndpointTag { port, mac: self.port_mac, network, owner }.to_string()
    }

    pub(crate) fn of_claim(self, claim: u64) -> Self {
        Endpoint { claim: Some(claim), ..self }
    }

    pub(crate) fn port_mac(&self) -> Mac {
        self.port_mac
    }

    pub(crate) fn alias(&self) -> String {
        name::alias(&self.owner)
    }

    /// What is to be made, with some random bytes for what nobody asked for. The network's spec has been checked.
    pub(crate) fn plan(
        network: &NetworkSpec,
        spec: &EndpointSpec,
        [for_port, for_rest]: [u64; 2],
    ) -> Result<Self, Error> {
        let id = spec.id.clone().unwrap_or_else(|| name::id(for_rest));
        let owner = spec.owner.as_deref().unwrap_or(&network.owner);
        name::check_tag("id", &id)?;
        name::check_tag("owner", owner)?;
        name::check_link("interface", &spec.interface)?;
        let addresses = spec.placed(network)?;
        let first = spec.addresses.first().copied();
        // The host's end is known by this one: it must be nobody else's.
        let port_mac = Mac::local(for_port);
        let mac = spec.mac.or(first.map(Mac::of_address)).unwrap_or_else(|| Mac::local(for_rest));
        if !mac.is_unicast() || mac == port_mac {
            return Err(Error::config(format!("MAC address {mac}"), "cannot be an interface's"));
        }
        let endpoint = Endpoint {
            #[cfg(feature = "serde")]
            version: Version,
            port: name::port(&id),
            id,
            owner: owner.into(),
            network: network.name.clone(),
            port_mac,
            interface: spec.interface.clone(),
            mac,
            gateways: if spec.default_route && !network.internal {
                gateways(network, &spec.addresses)
            } else {
                Vec::new()
            },
            addresses,
            routes: spec.routes.clone(),
            ports: spec.ports.clone(),
            claim: None,
        };
        spec.routes.iter().try_for_each(|route| check_route(network, *route))?;
        check_ports(network, &endpoint)?;
        Ok(endpoint)
    }
}

fn check_route(network: &NetworkSpec, (to, via): (Subnet, IpAddr)) -> Result<(), Error> {
    let why = if to.network() != to.address() {
        "has bits after its prefix"
    } else if to.address().is_ipv4() != via.is_ipv4() {
        "goes by an address of another family"
    } else if network.subnet_of(via).is_none() {
        "goes by an address that is in no subnet of the network"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("route {to} via {via}"), why))
}

fn check_ports(network: &NetworkSpec, endpoint: &Endpoint) -> Result<(), Error> {
    for port in &endpoint.ports {
        let refuse = |why| Err(Error::config(format!("port {port}"), why));
        port.check(network.host_loopback)?;
        if !network.rules {
            return refuse("cannot be published: the network is without rules");
        }
        if network.internal {
            return refuse("cannot be published: the network is internal");
        }
        if firewall::targets(endpoint, port.host_address()).is_empty() {
            return refuse("leads to no address of the endpoint");
        }
    }
    let mut elements = firewall::all_of_endpoint(endpoint);
    let keys = elements.len();
    elements.dedup_by(|a, b| (a.set, &a.key) == (b.set, &b.key));
    if elements.len() < keys { Err(Error::config("ports", "are published twice")) } else { Ok(()) }
}

/// For each family the gateway of its first address.
fn gateways(network: &NetworkSpec, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = |v4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == v4);
    let gateway = |address| network.subnet_of(address).map(|subnet| network.gateway_in(subnet));
    [true, false].into_iter().filter_map(first).filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    fn network() -> NetworkSpec {
        NetworkSpec::new("br0").owner("me").subnet("10.88.0.0/16".parse().unwrap()).subnet("fd00::/64".parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_plan() {
        let spec = EndpointSpec::new().id("web").address(ip("10.88.0.2")).address(ip("fd00::2"));
        let endpoint = Endpoint::plan(&network(), &spec, [7, 0x0909_0909_0909]).unwrap();
        assert_eq!((endpoint.port(), endpoint.interface(), endpoint.owner()), ("cd-web", "eth0", "me"));
        assert_eq!(endpoint.addresses(), ["10.88.0.2/16".parse().unwrap(), "fd00::2/64".parse().unwrap()]);
        assert_eq!(endpoint.gateways(), [ip("10.88.0.1"), ip("fd00::1")]);
        assert_eq!(endpoint.mac().to_string(), "02:cd:0a:58:00:02");
        assert_eq!(endpoint.alias(), "cofferdam:me");
        let alone = Endpoint::plan(&network(), &EndpointSpec::new().owner("you"), [7, 0x0909_0909_0909]).unwrap();
        assert_eq!((alone.id(), alone.gateways(), alone.alias().as_str()), ("090909090909", &[][..], "cofferdam:you"));
        let second = Endpoint::plan(&network(), &spec.no_default_route(), [7, 0x0909_0909_0909]).unwrap();
        assert!(second.gateways().is_empty());
    }

    #[test]
    fn specs_that_make_no_sense() {
        let base = EndpointSpec::new;
        for (spec, object, why) in [
            (base().id(""), "id", "empty"),
            (base().id("a\0"), "id", "control"),
            (base().owner(""), "owner", "empty"),
            (base().interface("lo"), "interface lo", "reserved"),
            (base().interface("much-too-long-name"), "interface", "15"),
            (base().mac(Mac::new([1, 0, 0, 0, 0, 0])), "MAC address 01", "cannot"),
            (base().mac(Mac::new([0; 6])), "MAC address 00", "cannot"),
            (base().address(ip("10.89.0.1")), "address 10.89.0.1", "no subnet"),
            (base().address(ip("10.88.0.0")), "address 10.88.0.0", "own"),
            (base().address(ip("10.88.255.255")), "address 10.88.255.255", "own"),
            (base().address(ip("fd00::1")), "address fd00::1", "gateway"),
            (base().address(ip("fd00::2")).address(ip("fd00::2")), "address fd00::2", "twice"),
        ] {
            let error = Endpoint::plan(&network(), &spec, [7, 0x0909_0909_0909]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.object().unwrap().starts_with(object) && error.to_string().contains(why), "{error}");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn stored_and_read() {
        let spec = EndpointSpec::new().id("web").address(ip("10.88.0.2"));
        let endpoint = Endpoint::plan(&network(), &spec, [7, 0x0909_0909_0909]).unwrap();
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        assert!(text.contains(r#""version":1"#) && text.contains(r#""mac":"02:cd:0a:58:00:02""#), "{text}");
        let newer = text.replace(r#""version":1"#, r#""version":1,"colour":[80]"#);
        assert_eq!(serde_json::from_str::<Endpoint>(&newer).unwrap(), endpoint);
        assert!(serde_json::from_str::<Endpoint>(&text.replace(r#""version":1,"#, "")).is_err());
        let (network, wanted) = (serde_json::to_string(&network()).unwrap(), serde_json::to_string(&spec).unwrap());
        assert_eq!(serde_json::from_str::<NetworkSpec>(&network).unwrap(), self::network());
        assert_eq!(serde_json::from_str::<EndpointSpec>(&wanted).unwrap(), spec);
        // Written by hand, a spec need not say it.
        assert_eq!(serde_json::from_str::<EndpointSpec>(&wanted.replace(r#""version":1,"#, "")).unwrap(), spec);
        // Of another version, whatever else is in it.
        let later = |text: &str| text.replace(r#""version":1"#, r#""version":2,"colour":[80]"#);
        for error in [
            serde_json::from_str::<Endpoint>(&later(&text)).unwrap_err(),
            serde_json::from_str::<NetworkSpec>(&later(&network)).unwrap_err(),
            serde_json::from_str::<EndpointSpec>(&later(&wanted)).unwrap_err(),
        ] {
            assert!(error.to_string().contains("version 2 is not known here, only 1"), "{error}");
        }
    }

    #[test]
    fn routes_and_ports_that_make_no_sense() {
        let base = || EndpointSpec::new().address(ip("10.88.0.2"));
        let net = |text: &str| text.parse::<Subnet>().unwrap();
        let port = |text: &str| text.parse::<PublishedPort>().unwrap();
        let plan = |network: &NetworkSpec, spec: &EndpointSpec| Endpoint::plan(network, spec, [7, 8]);
        let good = base().route(net("10.1.0.0/16"), ip("10.88.0.9")).publish(port("80:80")).publish(port("80:80/udp"));
        let endpoint = plan(&network(), &good).unwrap();
        assert_eq!((endpoint.routes().len(), endpoint.ports().len()), (1, 2));
        assert_eq!(endpoint.tag(), format!("{} {} br0 me", endpoint.port(), endpoint.port_mac()));
        for (network, spec, object, why) in [
            (network(), base().route(net("10.1.0.1/16"), ip("10.88.0.9")), "route 10.1.0.1/16", "bits"),
            (network(), base().route(net("10.1.0.0/16"), ip("10.89.0.9")), "route 10.1.0.0/16", "no subnet"),
            (network(), base().route(net("10.1.0.0/16"), ip("fd00::9")), "route 10.1.0.0/16", "family"),
            (network(), base().publish(port("[::]:80:80")), "port [::]:80", "no address"),
            (network(), base().publish(port("127.0.0.1:80:80")), "port 127.0.0.1:80", "loopback"),
            (network().internal(true), base().publish(port("80:80")), "port 80", "internal"),
            (network().without_rules(), base().publish(port("80:80")), "port 80", "without rules"),
            (network(), base().publish(port("80-82:80-82")).publish(port("82:8")), "ports", "twice"),
        ] {
            let error = plan(&network, &spec).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.object().unwrap().starts_with(object) && error.to_string().contains(why), "{error}");
        }
        assert!(plan(&network().internal(true), &base()).unwrap().gateways().is_empty());
    }

    proptest! {
        /// What a plan says can be made: names fit, addresses are hosts of subnets, the two ends differ.
        #[test]
        fn plans_are_sound(id in proptest::option::of(".{1,60}"), host in 2u32..65534, random: [u64; 2]) {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a58_0000 | host));
            let mut spec = EndpointSpec::new().address(address);
            spec.id = id;
            if let Ok(endpoint) = Endpoint::plan(&network(), &spec, random) {
                prop_assert!(name::check_link("port", endpoint.port()).is_ok());
                prop_assert!(endpoint.mac().is_unicast() && endpoint.port_mac().is_unicast());
                prop_assert_ne!(endpoint.mac(), endpoint.port_mac());
                prop_assert!(network().subnet_of(address).unwrap().can_be_host(address));
            }
        }
    }
}
