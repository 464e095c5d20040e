//! A network as wanted.

use crate::netlink::Link;
#[cfg(feature = "serde")]
use crate::version::Version;
use crate::{Error, Mac, Subnet, name};
use std::net::IpAddr;

/// A network as wanted: plain data, nothing checked before it is used.
///
/// With the feature `serde` it can be stored. Its form has a version, 1 if not said; one that is not known here is refused.
///
/// The methods take and return the spec, so that they chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[expect(clippy::struct_excessive_bools, reason = "they are set by name, and each is a question of its own")]
pub struct NetworkSpec {
    #[cfg(feature = "serde")]
    #[serde(default)]
    version: Version<1>,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) subnets: Vec<Subnet>,
    gateways: Vec<IpAddr>,
    pub(crate) mtu: Option<u32>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) internal: bool,
    #[cfg_attr(feature = "serde", serde(default = "yes"))]
    pub(crate) icc: bool,
    #[cfg_attr(feature = "serde", serde(default = "yes"))]
    pub(crate) masquerade: bool,
    #[cfg_attr(feature = "serde", serde(default = "yes"))]
    pub(crate) hairpin: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) host_loopback: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) forwarding: bool,
    #[cfg_attr(feature = "serde", serde(default = "yes"))]
    pub(crate) rules: bool,
}

#[cfg(feature = "serde")]
fn yes() -> bool {
    true
}

impl NetworkSpec {
    /// A network whose bridge has this name: at most 15 bytes, as every link's.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        NetworkSpec {
            #[cfg(feature = "serde")]
            version: Version,
            name: name.into(),
            owner: "anonymous".into(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            internal: false,
            icc: true,
            masquerade: true,
            hairpin: true,
            host_loopback: false,
            forwarding: false,
            rules: true,
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

    /// The largest packet, in bytes. If not said, that of the link by which the host's default route goes when the bridge is made, or 1500.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Containers reach each other and the bridge's address, but nothing else: they get no default route, what they send further, or to other
    /// addresses of the host, is dropped, and no port can be published. Broadcasts and multicasts on the bridge reach the host, as neighbours are found by them.
    #[must_use]
    pub fn internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Whether containers reach each other directly: on unless said otherwise. Off, their ports are isolated on the bridge, `bridge(8)`, and the host does
    /// not route from one to the other; published ports are still reached.
    #[must_use]
    #[doc(alias("icc", "isolated", "isolation"))]
    pub fn between_containers(mut self, allowed: bool) -> Self {
        self.icc = allowed;
        self
    }

    /// Whether what containers send to the outside gets the host's address as its source: on unless said otherwise. Off, somebody must route the subnet here.
    #[must_use]
    #[doc(alias("snat", "NAT"))]
    pub fn masquerade(mut self, masquerade: bool) -> Self {
        self.masquerade = masquerade;
        self
    }

    /// Whether containers reach the published ports of their own network (also their own) by the host's addresses: on unless said otherwise.
    /// The container sees the bridge as the source of such connections. Endpoints that publish ports get the bridge port's flag of the same
    /// name: where `br_netfilter` is loaded, a container's connection to itself is sent back by the port that it came by.
    #[must_use]
    pub fn hairpin(mut self, hairpin: bool) -> Self {
        self.hairpin = hairpin;
        self
    }

    /// Whether published ports are reached at the host's `127.0.0.1` too. It sets `route_localnet` on the bridge; containers are
    /// kept from the host's loopback by a rule. A network [without rules](Self::without_rules) cannot have it. Ports of endpoints that are there follow
    /// by [`Network::reapply`](crate::Network::reapply).
    #[must_use]
    #[doc(alias = "route_localnet")]
    pub fn host_loopback(mut self, allowed: bool) -> Self {
        self.host_loopback = allowed;
        self
    }

    /// Switches on the host's forwarding of the subnets' families, if it is off: `net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`. Nothing
    /// switches it off again. Without this it is left as it is, and [`Network::check`](crate::Network::check) tells if it is off.
    ///
    /// With it the host forwards between *all* of its links; and one that forwards IPv6 ignores router advertisements unless its `accept_ra` is 2.
    #[must_use]
    #[doc(alias("ip_forward", "sysctl"))]
    pub fn enable_forwarding(mut self, enable: bool) -> Self {
        self.forwarding = enable;
        self
    }

    /// Without any filter or translation: a bridge with addresses, for those who bring rules of their own, or whose kernel has no `nf_tables`.
    /// Nothing but the bridge itself then separates networks, no port can be published, and `internal` only leaves out the default route. What a network
    /// of before has in the rules is taken out of them when it is created so, and when it is deleted.
    #[must_use]
    pub fn without_rules(mut self) -> Self {
        self.rules = false;
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
    pub(crate) fn mac(&self) -> Mac {
        Mac::local(name::hash64(&[self.owner.as_bytes(), self.name.as_bytes()]))
    }

    /// The group of all ports of this network: a number that no person would choose.
    pub(crate) fn group(&self) -> u32 {
        name::hash32(&[self.owner.as_bytes(), self.name.as_bytes()]) >> 1 | 1 << 30
    }

    /// The group of those of them that are about to be deleted: never that of those that stay.
    pub(crate) fn condemned_group(&self) -> u32 {
        self.group() ^ 1 << 29
    }

    pub(crate) fn alias(&self) -> String {
        name::alias(&self.owner)
    }

    /// By which the kernel keeps whose an element of a set is.
    pub(crate) fn tag(&self) -> String {
        format!("{} {}", self.name, self.owner)
    }

    /// The bridge's addresses, each with its subnet's prefix.
    pub(crate) fn bridge_addresses(&self) -> impl Iterator<Item = Subnet> {
        self.subnets.iter().map(|subnet| Subnet::new(self.gateway_in(*subnet), subnet.prefix()).unwrap_or(*subnet))
    }

    /// Whether the bridge has addresses of this family.
    pub(crate) fn has_family(&self, v4: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.address().is_ipv4() == v4)
    }

    /// Whether this link is this network's bridge. One that its maker has not yet come to tag has the MAC address.
    pub(crate) fn is(&self, link: &Link) -> bool {
        let tagged = match &link.alias {
            Some(alias) => *alias == self.alias(),
            None => link.mac == Some(self.mac()),
        };
        link.kind.as_deref() == Some("bridge") && tagged
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        name::check_link("network", &self.name)?;
        name::check_tag("owner", &self.owner)?;
        let least = if self.has_family(false) { 1280 } else { 68 };
        if self.mtu.is_some_and(|mtu| !(least..=65535).contains(&mtu)) {
            return Err(Error::config("mtu", "is not between 68 (with IPv6 1280) and 65535"));
        }
        if self.host_loopback && !self.rules {
            // Nothing would lead there, and nothing would keep containers from it.
            return Err(Error::config("host_loopback", "needs rules"));
        }
        let mut rest = self.subnets.as_slice();
        while let Some((subnet, others)) = rest.split_first() {
            let why = if subnet.network() != subnet.address() {
                "has bits after its prefix"
            } else if others.iter().any(|other| other.overlaps(*subnet)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

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
            (spec().without_rules().host_loopback(true), "host_loopback"),
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
