//! An endpoint as wanted.

#[cfg(feature = "serde")]
use crate::version::Version;
use crate::{Error, Holder, Mac, NetworkSpec, PublishedPort, Subnet};
use std::net::IpAddr;

/// An endpoint as wanted: plain data, nothing checked before it is used. With the feature `serde` it can be stored, as [`NetworkSpec`] can.
///
/// The methods take and return the spec, so that they chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct EndpointSpec {
    #[cfg(feature = "serde")]
    #[serde(default)]
    version: Version<1>,
    pub(crate) id: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) interface: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) default_route: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) routes: Vec<(Subnet, IpAddr)>,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) ports: Vec<PublishedPort>,
}

impl EndpointSpec {
    /// `eth0`, without an address yet.
    #[must_use]
    pub fn new() -> Self {
        EndpointSpec {
            #[cfg(feature = "serde")]
            version: Version,
            id: None,
            owner: None,
            interface: "eth0".into(),
            addresses: Vec::new(),
            mac: None,
            default_route: true,
            routes: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// The endpoint's id, of which there can be one in a host: for example a container's. By default a random one.
    /// The host's end of a container `web` is called `cd-web`.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Whose it is, at most 200 bytes. By default the network's owner.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// What the interface is called in the container: `eth0` if not said.
    #[must_use]
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interface = name.into();
        self
    }

    /// Adds an address, which must be in one of the network's subnets. That nobody else has it is the caller's business.
    #[must_use]
    #[doc(alias = "ip")]
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// The interface's MAC address. By default it follows from the first address, so that neighbours that knew an earlier
    /// container with it are right.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Without a default route: for the second network of a container, or for one that should not get any further.
    #[must_use]
    pub fn no_default_route(mut self) -> Self {
        self.default_route = false;
        self
    }

    /// Adds a route: what is sent to this subnet goes to this address of the network, another container's or the gateway's.
    #[must_use]
    pub fn route(mut self, to: Subnet, via: impl Into<IpAddr>) -> Self {
        self.routes.push((to, via.into()));
        self
    }

    /// Publishes a port, or a range of them, at the host. It leads to the endpoint's first address of each family.
    ///
    /// A program of the host that listens to the same port is not seen by others any more, and not asked.
    #[must_use]
    #[doc(alias("expose", "port mapping"))]
    pub fn publish(mut self, port: PublishedPort) -> Self {
        self.ports.push(port);
        self
    }

    pub(crate) fn holder(&self, network: &NetworkSpec) -> Result<Holder, Error> {
        let id = self.id.clone().ok_or_else(|| Error::config("id", "is needed with a pool of addresses"))?;
        Ok(Holder { id, owner: self.owner.clone().unwrap_or_else(|| network.owner.clone()) })
    }

    pub(crate) fn no_addresses(mut self) -> Self {
        self.addresses.clear();
        self
    }

    /// The addresses that were asked for, each with its subnet's prefix, if a container of the network can have all of them.
    pub(crate) fn placed(&self, network: &NetworkSpec) -> Result<Vec<Subnet>, Error> {
        self.addresses.iter().try_fold(Vec::new(), |mut placed, address| {
            placed.push(place(network, *address, &placed)?);
            Ok(placed)
        })
    }

    /// The addresses that were asked for.
    pub(crate) fn given_addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl Default for EndpointSpec {
    fn default() -> Self {
        Self::new()
    }
}

/// The address with its subnet's prefix, if a container can have it.
fn place(network: &NetworkSpec, address: IpAddr, others: &[Subnet]) -> Result<Subnet, Error> {
    let refuse = |why| Error::config(format!("address {address}"), why);
    let subnet = network.subnet_of(address).ok_or_else(|| refuse("is in no subnet of the network"))?;
    if !subnet.can_be_host(address) {
        return Err(refuse("is the subnet's own"));
    }
    if network.gateway_in(subnet) == address {
        return Err(refuse("is the gateway's"));
    }
    if others.iter().any(|other| other.address() == address) {
        return Err(refuse("is there twice"));
    }
    Subnet::new(address, subnet.prefix()).ok_or_else(|| refuse("does not fit into its subnet"))
}
