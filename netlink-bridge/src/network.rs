//! A network: as wanted, and as a bridge in a host.

use crate::netlink::{Batch, Link};
use crate::{Endpoint, EndpointSpec, Error, ErrorKind, Host, Mac, NetNs, Operation, Subnet, attach, name};
use std::net::IpAddr;

/// The MTU of Ethernet.
const USUAL_MTU: u32 = 1500;

/// A network as wanted: plain data, nothing checked before it is used.
///
/// The methods take and return the spec, so that they chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct NetworkSpec {
    pub(crate) name: String,
    pub(crate) owner: String,
    subnets: Vec<Subnet>,
    gateways: Vec<IpAddr>,
    pub(crate) mtu: u32,
}

impl NetworkSpec {
    /// A network whose bridge has this name: at most 15 bytes, as every link's.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        NetworkSpec {
            name: name.into(),
            owner: "anonymous".into(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            mtu: USUAL_MTU,
        }
    }

    /// Whose it is: a name for the program that makes it, at most 200 bytes. Who opens, changes or deletes the network must have the same.
    /// By default `anonymous`.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// Adds a subnet, IPv4 or IPv6. Its first address is the gateway's, unless [`gateway`](NetworkSpec::gateway) says otherwise.
    #[must_use]
    pub fn subnet(mut self, subnet: Subnet) -> Self {
        self.subnets.push(subnet);
        self
    }

    /// The bridge's address in the subnet that contains it, and so the gateway of that subnet's containers.
    #[must_use]
    pub fn gateway(mut self, address: impl Into<IpAddr>) -> Self {
        self.gateways.push(address.into());
        self
    }

    /// The largest packet, in bytes: 1500 if not said. It should not be larger than that of the link that leads to the outside.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// The subnet that an address is in.
    pub(crate) fn subnet_of(&self, address: IpAddr) -> Option<Subnet> {
        self.subnets.iter().copied().find(|subnet| subnet.contains(address))
    }

    /// The bridge's address in this subnet.
    pub(crate) fn gateway_in(&self, subnet: Subnet) -> IpAddr {
        let wanted = self.gateways.iter().copied().find(|gateway| subnet.contains(*gateway));
        wanted.unwrap_or_else(|| subnet.first_host())
    }

    /// The bridge's MAC address: always the same for the same owner and name, so that neighbours that remember it are right.
    fn mac(&self) -> Mac {
        Mac::local(name::hash64(&[self.owner.as_bytes(), self.name.as_bytes()]))
    }

    /// The group of all links of this network; never 0, which is everybody's.
    pub(crate) fn group(&self) -> u32 {
        name::hash32(&[self.owner.as_bytes(), self.name.as_bytes()]).max(1)
    }

    fn alias(&self) -> String {
        name::alias(&self.owner)
    }

    /// Whether this link is this network's bridge. One that its maker has not yet come to tag has the MAC address.
    fn is(&self, link: &Link) -> bool {
        let tagged = match &link.alias {
            Some(alias) => *alias == self.alias(),
            None => link.mac == Some(self.mac()),
        };
        link.kind.as_deref() == Some("bridge") && tagged
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        name::check_link("network", &self.name)?;
        name::check_tag("owner", &self.owner)?;
        let v6 = self.subnets.iter().any(|subnet| subnet.address().is_ipv6());
        if !(if v6 { 1280..=65535 } else { 68..=65535 }).contains(&self.mtu) {
            return Err(Error::config("mtu", "is not between 68 (with IPv6 1280) and 65535"));
        }
        let mut rest = self.subnets.as_slice();
        while let Some((subnet, others)) = rest.split_first() {
            let why = if subnet.network() != subnet.address() {
                "has bits after its prefix"
            } else if others.iter().any(|o| o.contains(subnet.address()) || subnet.contains(o.address())) {
                "overlaps with another subnet"
            } else if !subnet.can_be_host(self.gateway_in(*subnet)) {
                "has no such gateway"
            } else {
                rest = others;
                continue;
            };
            return Err(Error::config(format!("subnet {subnet}"), why));
        }
        for gateway in &self.gateways {
            if self.subnet_of(*gateway).is_none_or(|subnet| self.gateway_in(subnet) != *gateway) {
                return Err(Error::config(format!("gateway {gateway}"), "is in no subnet, or not the only one in it"));
            }
        }
        Ok(())
    }
}

/// A network as made: a bridge in a host.
///
/// Dropping it deletes nothing.
#[derive(Debug, Clone)]
#[doc(alias("bridge", "brctl"))]
pub struct Network {
    host: Host,
    spec: NetworkSpec,
    index: u32,
}

impl Network {
    /// Makes the network's bridge, or takes the one that is there, if it is the same owner's.
    ///
    /// A bridge that was there is brought to the spec: addresses are added, none is removed.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig); [`Foreign`](ErrorKind::Foreign) if the name is another link's;
    /// [`Refused`](ErrorKind::Refused) by the kernel. A bridge that was made is gone again.
    pub fn create(host: &Host, spec: &NetworkSpec) -> Result<Self, Error> {
        spec.check()?;
        let mut batch = Batch::new();
        batch.create_bridge(&spec.name, spec.mac(), spec.group());
        batch.find_link(Operation::CreateBridge, &spec.name);
        let answers = host.session().run(batch).map_err(|error| undo(host, spec, error))?;
        let (created, link) = answers.done_and_link();
        let is_new = match created {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
            Err(error) => return Err(error),
        };
        let link = link.map_err(|error| if is_new { undo(host, spec, error) } else { error })?;
        let network = Network::found(host, spec, link, Operation::CreateBridge)?;
        network.set_up().map_err(|error| if is_new { network.undo(error) } else { error })?;
        Ok(network)
    }

    /// Finds the network's bridge.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Foreign`](ErrorKind::Foreign) if the name is another link's.
    pub fn open(host: &Host, spec: &NetworkSpec) -> Result<Self, Error> {
        spec.check()?;
        let mut batch = Batch::new();
        batch.find_link(Operation::OpenBridge, &spec.name);
        let link = host.session().run(batch)?.link()?;
        Network::found(host, spec, link, Operation::OpenBridge)
    }

    /// Connects a container: afterwards it has loopback, the interface with its addresses, and default routes.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig); [`AlreadyExists`](ErrorKind::AlreadyExists) if the container has an interface of this name or another
    /// endpoint has the id; [`NotFound`](ErrorKind::NotFound) if the bridge is gone; [`Refused`](ErrorKind::Refused) by the kernel.
    /// Nothing is left of what was made, but loopback may be up.
    #[doc(alias("connect", "veth"))]
    pub fn attach(&self, netns: &NetNs, endpoint: &EndpointSpec) -> Result<Endpoint, Error> {
        attach::attach(self, netns, endpoint)
    }

    /// Deletes the bridge. It is no error if it is gone.
    ///
    /// # Errors
    /// [`InUse`](ErrorKind::InUse) while it has ports; [`Foreign`](ErrorKind::Foreign) if somebody has given it another owner's tag.
    pub fn delete(&self) -> Result<(), Error> {
        let about = (Operation::DeleteBridge, self.spec.name.as_str());
        let failed = |kind, words| Error::words(kind, Operation::DeleteBridge, words).about(&self.spec.name);
        let mut batch = Batch::new();
        batch.get_link(about, self.index);
        let Some(link) = self.host.session().run(batch)?.link()? else {
            return Ok(());
        };
        if !self.spec.is(&link) {
            return Err(failed(ErrorKind::Foreign, "this is no longer a bridge of this owner"));
        }
        let mut batch = Batch::new();
        batch.list_ports(about, self.index);
        if !self.host.session().run(batch)?.links()?.is_empty() {
            return Err(failed(ErrorKind::InUse, "the bridge still has ports"));
        }
        self.remove()
    }

    /// What it was made from, or opened with.
    #[must_use]
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether the bridge is there.
    pub(crate) fn exists(&self) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.get_link((Operation::OpenBridge, &self.spec.name), self.index);
        Ok(self.host.session().run(batch)?.link()?.is_some())
    }

    fn found(host: &Host, spec: &NetworkSpec, link: Option<Link>, operation: Operation) -> Result<Self, Error> {
        let failed = |kind, words| Error::words(kind, operation, words).about(&spec.name);
        let link = link.ok_or_else(|| failed(ErrorKind::NotFound, "there is no such link"))?;
        if !spec.is(&link) {
            return Err(failed(ErrorKind::Foreign, "the name belongs to a link that is no bridge of this owner"));
        }
        Ok(Network { host: host.clone(), spec: spec.clone(), index: link.index })
    }

    /// Tags the bridge, brings it up and gives it its addresses.
    fn set_up(&self) -> Result<(), Error> {
        let mut batch = Batch::new();
        let about = (Operation::SetUpBridge, self.spec.name.as_str());
        // Only an MTU that is set after creation stays when the last port leaves.
        batch.tag_and_up(about, self.index, &self.spec.alias(), Some(self.spec.mtu));
        for subnet in &self.spec.subnets {
            let gateway = Subnet::new(self.spec.gateway_in(*subnet), subnet.prefix()).unwrap_or(*subnet);
            batch.add_address(Operation::SetUpBridge, self.index, gateway);
        }
        self.host.session().run(batch)?.all_there()
    }

    fn remove(&self) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete_link((Operation::DeleteBridge, &self.spec.name), self.index);
        self.host.session().run(batch)?.gone()
    }

    fn undo(&self, error: Error) -> Error {
        match self.remove() {
            Ok(()) => error,
            Err(_) => error.leaving(&self.spec.name),
        }
    }
}

/// Undoes a creation that may or may not have happened: what has the name and the MAC address, but no tag yet, is what was made.
fn undo(host: &Host, spec: &NetworkSpec, error: Error) -> Error {
    let mut batch = Batch::new();
    batch.find_link(Operation::CreateBridge, &spec.name);
    match host.session().run(batch).and_then(crate::netlink::Answers::link) {
        Ok(Some(link)) if spec.is(&link) && link.alias.is_none() => {
            Network { host: host.clone(), spec: spec.clone(), index: link.index }.undo(error)
        }
        Ok(_) => error,
        Err(_) => error.leaving(&spec.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NetworkSpec {
        NetworkSpec::new("br0").owner("me").subnet("10.88.0.0/16".parse().unwrap()).subnet("fd00::/64".parse().unwrap())
    }

    #[test]
    fn specs_that_make_sense() {
        let gateway: IpAddr = "10.88.3.1".parse().unwrap();
        for good in [spec(), spec().gateway(gateway), spec().mtu(9000), NetworkSpec::new("x")] {
            good.check().unwrap();
        }
        let subnet = spec().subnets[0];
        assert_eq!(spec().gateway_in(subnet).to_string(), "10.88.0.1");
        assert_eq!(spec().gateway(gateway).gateway_in(subnet), gateway);
    }

    #[test]
    fn specs_that_make_none() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let net = |text: &str| text.parse::<Subnet>().unwrap();
        for (spec, object) in [
            (NetworkSpec::new(""), "network"),
            (spec().owner("a\nb"), "owner"),
            (spec().mtu(1279), "mtu"),
            (spec().mtu(65536), "mtu"),
            (spec().subnet(net("10.1.0.1/16")), "subnet 10.1.0.1/16"),
            (spec().subnet(net("10.88.1.0/24")), "subnet 10.88.0.0/16"),
            (spec().subnet(net("10.0.0.0/8")), "subnet 10.88.0.0/16"),
            (spec().subnet(net("10.1.0.4/32")), "subnet 10.1.0.4/32"),
            (spec().gateway(ip("10.88.255.255")), "subnet 10.88.0.0/16"),
            (spec().gateway(ip("10.89.0.1")), "gateway 10.89.0.1"),
            (spec().gateway(ip("10.88.0.1")).gateway(ip("10.88.0.2")), "gateway 10.88.0.2"),
        ] {
            let error = spec.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.object().unwrap().starts_with(object), "{error}");
        }
    }

    #[test]
    fn whose_a_bridge_is() {
        let link = |kind: &str, alias: Option<&str>, mac| Link {
            kind: Some(kind.into()),
            alias: alias.map(Into::into),
            mac: Some(mac),
            ..Link::default()
        };
        let (ours, other) = (spec().mac(), Mac::new([2; 6]));
        assert!(spec().is(&link("bridge", Some("cofferdam:me"), other)));
        assert!(spec().is(&link("bridge", None, ours)));
        assert!(!spec().is(&link("bridge", None, other)));
        assert!(!spec().is(&link("bridge", Some("cofferdam:you"), ours)));
        assert!(!spec().is(&link("veth", Some("cofferdam:me"), ours)));
        assert!(!spec().owner("you").is(&link("bridge", None, ours)));
    }
}
