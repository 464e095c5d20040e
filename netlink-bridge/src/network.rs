//! A network as a bridge in a host.

use crate::firewall::{Set, of_network};
use crate::netlink::{Answers, Batch, Link, MESSAGES_PER_SEND, PortFlags};
use crate::rules::{self, ElementChanges, Scope};
use crate::{
    AddressPool, Change, Endpoint, EndpointSpec, Error, ErrorKind, Host, NetNs, NetworkSpec, Operation, Subnet,
};
use crate::{attach, sysctl};

/// The MTU of Ethernet.
const USUAL_MTU: u32 = 1500;

/// A network as made: a bridge in a host.
///
/// Dropping it deletes nothing.
#[derive(Debug, Clone)]
#[doc(alias("bridge", "brctl"))]
pub struct Network {
    host: Host,
    spec: NetworkSpec,
    index: u32,
    mtu: u32,
    settings: Vec<Change>,
}

impl Network {
    /// Makes the network's bridge with its rules, or takes the bridge that is there, if it is the same owner's.
    ///
    /// A bridge that was there is brought to the spec: addresses are added, none is removed; the rules become the spec's. A subnet that the host
    /// reaches in another way is refused before anything is changed, unless the bridge has its address already: then the route came later.
    /// What was changed of the host's settings, [`host_settings`](Self::host_settings) tells.
    ///
    /// # Errors
    /// [`InvalidConfig`](ErrorKind::InvalidConfig); [`Foreign`](ErrorKind::Foreign) if the name is another link's, or the table `cofferdam` somebody
    /// else's; [`AlreadyExists`](ErrorKind::AlreadyExists) if the host has a route into a subnet that the bridge has no address of yet; [`Refused`](ErrorKind::Refused) by the kernel, [`Unsupported`](ErrorKind::Unsupported) if it has no `nf_tables`. A bridge that was
    /// made is gone again; one that was there may have become what the spec says in part, which [`reapply`](Self::reapply) with the earlier spec undoes.
    pub fn create(host: &Host, spec: &NetworkSpec) -> Result<Self, Error> {
        spec.check()?;
        let mtu = match spec.mtu {
            Some(mtu) => mtu,
            None => way_out_mtu(host)?.filter(|mtu| spec.clone().mtu(*mtu).check().is_ok()).unwrap_or(USUAL_MTU),
        };
        let mut batch = Batch::new();
        batch.create_bridge(&spec.name, spec.mac());
        batch.find_link(Operation::CreateBridge, &spec.name);
        let answers = host.session().run(batch).map_err(|error| undo(host, spec, error))?;
        let (created, link) = answers.done_and_link();
        let is_new = match created {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => false,
            // Whether it was made, a look tells.
            Err(error) => return Err(undo(host, spec, error)),
        };
        let link = link.map_err(|error| if is_new { undo(host, spec, error) } else { error })?;
        let mut network = Network::found(host, spec, link, Operation::CreateBridge)?;
        network.mtu = mtu;
        let ready = network.refuse_routes(is_new).and_then(|()| if is_new { Ok(()) } else { network.set_up_ports() });
        match ready.and_then(|()| network.set_up()) {
            Ok(settings) => network.settings = settings,
            Err(error) => return Err(if is_new { network.undo(error) } else { error }),
        }
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
    /// endpoint has the id; [`NotFound`](ErrorKind::NotFound) if the bridge is gone, or, for one that publishes ports, the table of rules
    /// ([`reapply`](Self::reapply) brings it back); [`Refused`](ErrorKind::Refused) by the kernel. Nothing is left of what was made, but loopback may be up.
    #[doc(alias("connect", "veth"))]
    pub fn attach(&self, netns: &NetNs, endpoint: &EndpointSpec) -> Result<Endpoint, Error> {
        attach::attach(self, netns, endpoint)
    }

    /// As [`attach`](Self::attach), with an address of a pool in each subnet that the spec has none of. Those that it has are taken from the pool
    /// too, so that nobody else gets them. It needs an [`id`](EndpointSpec::id), by which the pool knows who has them.
    ///
    /// # Errors
    /// As [`attach`](Self::attach) and [`AddressPool::take`]. No address is kept.
    #[doc(alias = "IPAM")]
    pub fn attach_from(
        &self,
        pool: &impl AddressPool,
        netns: &NetNs,
        endpoint: &EndpointSpec,
    ) -> Result<Endpoint, Error> {
        let holder = endpoint.holder(&self.spec)?;
        // One that the network cannot have is not given up for another of the pool's.
        endpoint.placed(&self.spec)?;
        let taken = pool.take(&self.spec.wanted_addresses(endpoint), &holder)?;
        let addresses = taken.addresses.iter().copied();
        let spec = addresses.fold(endpoint.clone().no_addresses(), EndpointSpec::address);
        match self.attach(netns, &spec) {
            Ok(endpoint) => Ok(endpoint.of_claim(taken.claim)),
            // Whatever is left still has the addresses.
            Err(error) if error.left_behind().is_some() => Err(error),
            // What it had before is an endpoint's that is still there, or was not detached with the pool.
            Err(error) => Err(match pool.undo(&taken, &holder) {
                Ok(()) => error,
                Err(_) => error.leaving(format!("addresses of {}", holder.id)),
            }),
        }
    }

    /// What [`create`](Self::create) has changed of the host's settings: values below `/proc/sys/net`. Nothing for one that was opened.
    #[must_use]
    pub fn host_settings(&self) -> &[Change] {
        &self.settings
    }

    /// Detaches all endpoints at once, whoever has their records: for a hundred that is a tenth of the time of one after the other.
    ///
    /// # Errors
    /// What the kernel says against it; [`PermissionDenied`](ErrorKind::PermissionDenied).
    #[doc(alias = "group")]
    pub fn detach_all(&self) -> Result<(), Error> {
        let ports = self.forget_ports(|| Ok(()), |(), _| true);
        let mut batch = Batch::new();
        for group in [self.spec.group(), self.spec.condemned_group()] {
            batch.delete_group((Operation::Detach, &self.spec.name), group);
        }
        // What fails keeps nothing else from being done.
        self.host.session().run(batch)?.all_gone().and(ports.map(drop))
    }

    /// Deletes the bridge and what the rules have of the network. It is no error if it is gone; if somebody has made it anew, that one stays. Who has only the spec, and does not know whether there
    /// is a bridge, calls [`remove`](Self::remove).
    ///
    /// # Errors
    /// [`InUse`](ErrorKind::InUse) while it has ports; [`Foreign`](ErrorKind::Foreign) if somebody has given it another owner's tag.
    pub fn delete(&self) -> Result<(), Error> {
        let about = (Operation::DeleteBridge, self.spec.name.as_str());
        let failed = |kind, words| Error::words(kind, Operation::DeleteBridge, words).about(&self.spec.name);
        let mut batch = Batch::new();
        batch.get_link(about, self.index);
        let Some(link) = self.host.session().run(batch)?.link()? else {
            return self.forget_rules().map(drop);
        };
        if !self.spec.is(&link) {
            return Err(failed(ErrorKind::Foreign, "this is no longer a bridge of this owner"));
        }
        let mut batch = Batch::new();
        batch.list_ports(about, self.index);
        if !self.host.session().run(batch)?.links()?.is_empty() {
            return Err(failed(ErrorKind::InUse, "the bridge still has ports"));
        }
        self.delete_bridge()?;
        self.forget_rules().map(drop)
    }

    /// As [`delete`](Self::delete), for a network of which only the spec is known: deletes whatever there is of it. If somebody has deleted the bridge, that
    /// is what the rules have. One that somebody makes meanwhile is deleted too, or stays, but never in part. What another owner's network of the same name
    /// has in the rules stays.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    #[doc(alias("forget", "prune"))]
    pub fn remove(host: &Host, spec: &NetworkSpec) -> Result<(), Error> {
        loop {
            match Network::open(host, spec) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                network => return network?.delete(),
            }
            // If not, somebody has made it meanwhile: then it is there whole, and is deleted whole.
            if Network::found_at(host, spec).forget_rules()? {
                return Ok(());
            }
        }
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

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Whether the bridge is there.
    pub(crate) fn exists(&self) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.get_link((Operation::OpenBridge, &self.spec.name), self.index);
        Ok(self.host.session().run(batch)?.link()?.is_some())
    }

    /// One whose bridge is not known: for what needs only names.
    pub(crate) fn found_at(host: &Host, spec: &NetworkSpec) -> Self {
        Network { host: host.clone(), spec: spec.clone(), index: 0, mtu: 0, settings: Vec::new() }
    }

    pub(crate) fn found(
        host: &Host,
        spec: &NetworkSpec,
        link: Option<Link>,
        operation: Operation,
    ) -> Result<Self, Error> {
        let failed = |kind, words| Error::words(kind, operation, words).about(&spec.name);
        let link = link.ok_or_else(|| failed(ErrorKind::NotFound, "there is no such link"))?;
        if !spec.is(&link) {
            return Err(failed(ErrorKind::Foreign, "the name belongs to a link that is no bridge of this owner"));
        }
        let (host, spec) = (host.clone(), spec.clone());
        Ok(Network { host, mtu: spec.mtu.unwrap_or(link.mtu), spec, index: link.index, settings: Vec::new() })
    }

    /// Writes the rules, tags the bridge, brings it up and gives it its addresses. The rules are there before any packet can be.
    pub(crate) fn set_up(&self) -> Result<Vec<Change>, Error> {
        self.write_rules()?;
        let mut batch = Batch::new();
        let about = (Operation::SetUpBridge, self.spec.name.as_str());
        // Only an MTU that is set after creation stays when the last port leaves.
        batch.tag_and_up(about, self.index, &self.spec.alias(), Some(self.mtu));
        for gateway in self.spec.bridge_addresses() {
            batch.add_address(Operation::SetUpBridge, self.index, gateway);
        }
        batch.pieces().into_iter().try_for_each(|piece| self.host.session().run(piece)?.all_there())?;
        sysctl::set(&self.host, &sysctl::of_network(&self.spec))
    }

    /// All endpoints' ports that are on the bridge, also those that somebody has begun to remove and not come to delete.
    pub(crate) fn ports(&self, operation: Operation) -> Result<Vec<Link>, Error> {
        let mut batch = Batch::new();
        batch.list_ports((operation, &self.spec.name), self.index);
        let mut ports = self.host.session().run(batch)?.links()?;
        let groups = [self.spec.group(), self.spec.condemned_group()];
        ports.retain(|port| groups.contains(&port.group) && port.kind.as_deref() == Some("veth"));
        Ok(ports)
    }

    /// The addresses that the bridge has.
    pub(crate) fn addresses(&self, operation: Operation) -> Result<Vec<Subnet>, Error> {
        let mut batch = Batch::new();
        batch.list_addresses((operation, &self.spec.name), self.index);
        self.host.session().run(batch)?.addresses_of(self.index)
    }

    /// Brings the ports of a bridge that was there to what the spec says: who may reach whom is a setting of each.
    fn set_up_ports(&self) -> Result<(), Error> {
        // Which of them want hairpin, their records say: see `reapply`.
        let wanted = |port: &Link| PortFlags { isolated: !self.spec.icc, ..port.flags };
        let mut ports = self.ports(Operation::SetUpPort)?;
        ports.retain(|port| port.flags != wanted(port));
        for some in ports.chunks(MESSAGES_PER_SEND) {
            let mut batch = Batch::new();
            for port in some {
                batch.set_port_flags((Operation::SetUpPort, &port.name), port.index, wanted(port));
            }
            self.host.session().run(batch)?.all_gone()?;
        }
        Ok(())
    }

    /// Refuses a network if the host already reaches one of its subnets in another way. Of a bridge that was there this concerns those that are added to it.
    fn refuse_routes(&self, is_new: bool) -> Result<(), Error> {
        let there = if is_new { Vec::new() } else { self.addresses(Operation::CreateBridge)? };
        let is_added = |subnet: &&Subnet| !there.iter().any(|one| one.address() == self.spec.gateway_in(**subnet));
        let added: Vec<_> = self.spec.subnets.iter().filter(is_added).collect();
        let has_family = |v4: &bool| added.iter().any(|subnet| subnet.address().is_ipv4() == *v4);
        for v4 in [true, false].into_iter().filter(has_family) {
            let mut batch = Batch::new();
            batch.list_routes(Operation::CreateBridge, v4);
            let routes = self.host.session().run(batch)?.routes()?;
            // By the bridge itself: another thread has set it up in between.
            let others = routes.iter().filter(|route| route.leads_to_a_subnet() && route.link != Some(self.index));
            for route in others {
                if let Some(subnet) = added.iter().find(|subnet| subnet.overlaps(route.to)) {
                    let words = "the host already has a route into this subnet";
                    let error = Error::words(ErrorKind::AlreadyExists, Operation::CreateBridge, words);
                    return Err(error.about(format!("{subnet}, by {}", route.to)));
                }
            }
        }
        Ok(())
    }

    fn write_rules(&self) -> Result<(), Error> {
        if !self.spec.rules {
            // It may have had some.
            return self.forget_rules().map(drop);
        }
        let wanted = of_network(&self.spec);
        rules::has_table(&self.host, Operation::WriteRules)?;
        rules::unchanged(&self.host, Operation::WriteRules, Scope::WholeTable, || {
            Ok(ElementChanges::between(&self.found_elements()?, &wanted))
        })?;
        Ok(())
    }

    /// What the sets have under the bridge's name.
    pub(crate) fn found_elements(&self) -> Result<Vec<(Set, crate::firewall::Stored)>, Error> {
        let mut found = rules::list(&self.host, Operation::WriteRules, &Set::OF_NETWORKS)?;
        found.retain(|(_, element)| element.is_of_bridge(&self.spec.name));
        Ok(found)
    }

    fn delete_bridge(&self) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.delete_link((Operation::DeleteBridge, &self.spec.name), self.index);
        self.host.session().run(batch)?.gone()
    }

    fn undo(&self, error: Error) -> Error {
        let rules = match self.forget_rules() {
            // There is nothing of ours where there are no rules, or somebody else's.
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::Foreign) => Ok(()),
            rules => rules.map(drop),
        };
        match self.delete_bridge().and(rules) {
            Ok(()) => error,
            Err(_) => error.leaving(&self.spec.name),
        }
    }
}

/// Undoes a creation that may or may not have happened: what has the name and the MAC address, but no tag yet, is what was made.
fn undo(host: &Host, spec: &NetworkSpec, error: Error) -> Error {
    let mut batch = Batch::new();
    batch.find_link(Operation::CreateBridge, &spec.name);
    match host.session().run(batch).and_then(Answers::link) {
        Ok(Some(link)) if spec.is(&link) && link.alias.is_none() => {
            match Network::found(host, spec, Some(link), Operation::CreateBridge) {
                Ok(network) => network.undo(error),
                Err(_) => error.leaving(&spec.name),
            }
        }
        Ok(_) => error,
        Err(_) => error.leaving(&spec.name),
    }
}

/// The MTU of the link by which the host reaches what is far away; nothing if it reaches nothing.
fn way_out_mtu(host: &Host) -> Result<Option<u32>, Error> {
    // Addresses that are kept for documentation: whatever route leads there is the default route.
    for far in [std::net::IpAddr::from([203, 0, 113, 1]), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()] {
        let mut batch = Batch::new();
        batch.find_route(Operation::FindWayOut, far);
        if let Some(link) = host.session().run(batch)?.way_out()? {
            let mut batch = Batch::new();
            batch.get_link((Operation::FindWayOut, "the default route's link"), link);
            return Ok(host.session().run(batch)?.link()?.map(|link| link.mtu));
        }
    }
    Ok(None)
}
