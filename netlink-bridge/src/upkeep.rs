//! Comparing a network with what is there, bringing it back, and removing what dead owners have left.

use crate::attach::port_flags;
use crate::firewall::{CHAINS, Element, RULES, TABLE, all_of_endpoint, is_wanted, of_endpoint, of_network};
use crate::netlink::{Batch, Connection, FoundRule, HookedChain, Link, MESSAGES_PER_SEND};
use crate::rules::{self, ElementChanges, Scope};
use crate::{Change, Endpoint, Error, Finding, Host, Network, NetworkSpec, Operation, name, sysctl};
use std::collections::{BTreeSet, HashSet};

/// The families of netfilter whose `forward` hook sees packets of containers.
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// The number of that hook.
const FORWARD: u32 = 2;

impl Network {
    /// What [`reapply`](Self::reapply) would do, without doing it. Nothing if the network and these endpoints are as they should be.
    ///
    /// Settings of the host that nobody asked to have changed are not in it; [`check`](Self::check) has them.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    #[doc(alias("dry run", "diff"))]
    pub fn plan(host: &Host, spec: &NetworkSpec, endpoints: &[Endpoint]) -> Result<Vec<Change>, Error> {
        spec.check()?;
        let (mut changes, bridge) = link_changes(host, spec)?;
        let settings = sysctl::of_network(spec);
        let asked_for: Vec<_> = settings.into_iter().filter(|setting| setting.asked_for).collect();
        let different = if bridge.is_some() { sysctl::different(host, &asked_for)? } else { Vec::new() };
        changes.extend(different.into_iter().map(|(_, change)| change));
        if spec.rules {
            changes.extend(rule_changes(host)?);
            changes.extend(described(&element_changes(host, spec, endpoints)?));
        } else {
            changes.extend(described(&Network::found_at(host, spec).leftovers()?));
        }
        changes.extend(port_changes(host, spec, bridge.as_ref(), endpoints)?.into_iter().map(|port| port.change));
        Ok(changes)
    }

    /// What is wrong with the network and these endpoints of it: what is missing or different, settings of the host that are in the way, and
    /// rules of others that stop what is forwarded. Nothing if all is well.
    ///
    /// Others' rules are recognised if they stop *everything* at the end of a chain at the `forward` hook, as Docker, ufw and firewalld do; what their
    /// exceptions let through is not weighed. An `accept` of ours does not overrule them. Those of `iptables-legacy` are not among the kernel's `nf_tables`
    /// and not seen. Our own rules are known by their comments: one that somebody has replaced by another with the same comment is not noticed, but
    /// [`reapply`](Self::reapply) writes all of them anew.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn check(&self, endpoints: &[Endpoint]) -> Result<Vec<Finding>, Error> {
        let spec = self.spec();
        let mut findings: Vec<_> =
            Network::plan(self.host(), spec, endpoints)?.into_iter().map(Finding::Missing).collect();
        let different = sysctl::different(self.host(), &sysctl::of_network(spec))?;
        let not_ours = different.into_iter().filter(|(setting, _)| !setting.asked_for);
        findings.extend(not_ours.map(|(_, change)| Finding::Setting(change)));
        if spec.rules && !spec.internal {
            findings.extend(blocked(spec, &all_chains(self.host())?, &all_rules(self.host())?));
        }
        Ok(findings)
    }

    /// Makes everything as it should be again, after somebody has flushed the rules, deleted the bridge, or changed either: for the network and
    /// these endpoints, which should be all that it has. Tells what it did.
    ///
    /// An endpoint whose interface is gone stays so, and is told as [`Change::LostEndpoint`].
    ///
    /// # Errors
    /// As [`create`](Self::create); [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if somebody else has published a port meanwhile.
    #[doc(alias("reload", "repair", "firewalld"))]
    pub fn reapply(host: &Host, spec: &NetworkSpec, endpoints: &[Endpoint]) -> Result<(Self, Vec<Change>), Error> {
        let changes = Network::plan(host, spec, endpoints)?;
        let network = Network::create(host, spec)?;
        let bridge = link(host, &spec.name)?;
        for (endpoint, index) in
            port_changes(host, spec, bridge.as_ref(), endpoints)?.into_iter().filter_map(|port| port.to_set_up)
        {
            network.set_up_port(endpoint, index, true)?;
        }
        if spec.rules {
            let wanted = || element_changes(host, spec, endpoints);
            let done = rules::unchanged(host, Operation::Publish, Scope::Elements, wanted)?;
            forget_strays(host, spec, endpoints, &done)?;
        }
        Ok((network, changes))
    }

    /// Removes endpoints and published ports whose owner is not to be kept, and published ports whose interface is gone. Tells what it removed.
    ///
    /// `keep` is asked for each owner. It is asked for `None` too: that is an interface which has not got its owner's tag; whoever
    /// attaches it is still at it, or has died within a millisecond. Say `false` to that only while nobody attaches.
    ///
    /// # Errors
    /// What the kernel says against it.
    #[doc(alias("garbage collection", "prune"))]
    pub fn gc(&self, keep: impl Fn(Option<&str>) -> bool) -> Result<Vec<Change>, Error> {
        let mut go = self.ports(Operation::Inspect)?;
        go.retain(|port| {
            // One with somebody else's words on it is no longer ours.
            let stays = port
                .alias
                .as_deref()
                .map_or_else(|| keep(None), |alias| name::owner(alias).is_none_or(|owner| keep(Some(owner))));
            // Who began to remove one has died, or is still at it.
            !stays || port.group == self.spec().condemned_group()
        });
        self.delete_ports(&go)?;
        // What is published is looked at before the links are: whoever attaches meanwhile makes the link first.
        let links = || {
            let ports = self.ports(Operation::Inspect)?.into_iter();
            Ok((self.is_made_anew()?, ports.map(|port| (port.name, port.mac)).collect::<HashSet<_>>()))
        };
        let ports = self.forget_ports(links, |(anew, links), tag| {
            !keep(Some(tag.owner)) || !anew && !links.contains(&(tag.port.to_owned(), Some(tag.mac)))
        })?;
        let links = go.into_iter().map(|port| Change::RemoveLink { link: port.name });
        Ok(links.chain(described(&ports)).collect())
    }

    /// Many at once: they are gathered in a group, and the group is deleted.
    fn delete_ports(&self, ports: &[Link]) -> Result<(), Error> {
        let group = self.spec().condemned_group();
        for some in ports.chunks(MESSAGES_PER_SEND) {
            let mut batch = Batch::new();
            for port in some {
                batch.set_group((Operation::Detach, &port.name), port.index, group);
            }
            self.host().session().run(batch)?.all_gone()?;
        }
        if ports.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete_group((Operation::Detach, &self.spec().name), group);
        self.host().session().run(batch)?.gone()
    }
}

/// Forgets UDP connections to published ports that were made while the rules were not there, and lead elsewhere. Those that lead to the containers go on.
fn forget_strays(host: &Host, spec: &NetworkSpec, endpoints: &[Endpoint], done: &ElementChanges) -> Result<(), Error> {
    let elements: Vec<_> = endpoints.iter().flat_map(|endpoint| of_endpoint(spec, endpoint)).collect();
    let wanted: BTreeSet<_> = elements.iter().filter_map(Element::udp).collect();
    let removed = done.remove.iter().filter_map(Element::udp);
    let ports = wanted.iter().copied().chain(removed).map(|(port, _)| port).collect();
    let leads_there = |to: &Connection| to.answered_by.is_some_and(|by| wanted.contains(&(to.to_port, by)));
    rules::forget_connections(host, Operation::Publish, &ports, leads_there)
}

/// As changes that are told.
fn described(changes: &ElementChanges) -> Vec<Change> {
    let remove =
        changes.remove.iter().map(|e| Change::RemoveElement { set: e.set.name().into(), element: e.to_string() });
    let add = changes.add.iter().map(|e| Change::AddElement { set: e.set.name().into(), element: e.to_string() });
    remove.chain(add).collect()
}

fn link(host: &Host, name: &str) -> Result<Option<Link>, Error> {
    let mut batch = Batch::new();
    batch.find_link(Operation::Inspect, name);
    host.session().run(batch)?.link()
}

/// What is missing of the bridge, and the bridge.
fn link_changes(host: &Host, spec: &NetworkSpec) -> Result<(Vec<Change>, Option<Link>), Error> {
    let name = || spec.name.clone();
    let missing = |addresses: &[crate::Subnet]| {
        let wanted = spec.bridge_addresses().filter(|address| !addresses.contains(address));
        wanted.map(|address| Change::AddAddress { link: name(), address }).collect::<Vec<_>>()
    };
    let Some(bridge) = link(host, &spec.name)? else {
        return Ok(([vec![Change::CreateBridge { bridge: name() }], missing(&[])].concat(), None));
    };
    let network = Network::found(host, spec, Some(bridge.clone()), Operation::Inspect)?;
    let mut changes = missing(&network.addresses(Operation::Inspect)?);
    if !bridge.is_up || bridge.alias.is_none() || spec.mtu.is_some_and(|mtu| mtu != bridge.mtu) {
        changes.insert(0, Change::SetUpLink { link: name() });
    }
    Ok((changes, Some(bridge)))
}

/// What is missing of the table, without its sets' elements.
fn rule_changes(host: &Host) -> Result<Option<Change>, Error> {
    let missing = |missing: String| Ok(Some(Change::WriteRules { missing }));
    if !rules::has_table(host, Operation::Inspect)? {
        return missing("the table".into());
    }
    let ours = |family: u8, table: &str| family == INET && table == TABLE;
    let mut chains = all_chains(host)?;
    chains.retain(|chain| ours(chain.family, &chain.table));
    let mut rules = all_rules(host)?;
    rules.retain(|rule| ours(rule.family, &rule.table));
    for chain in CHAINS {
        let hook = chain.hook.as_ref().map(|hook| hook.number);
        if !chains.iter().any(|found| found.name == chain.name && found.hook == hook && !found.drops) {
            return missing(format!("chain {}", chain.name));
        }
        let found = rules.iter().filter(|rule| rule.chain == chain.name).map(|rule| rule.comment.as_deref());
        let wanted = RULES.iter().filter(|rule| rule.chain == chain.name).map(|rule| Some(rule.comment));
        if !found.eq(wanted) {
            return missing(format!("the rules of chain {}", chain.name));
        }
    }
    Ok(None)
}

fn element_changes(host: &Host, spec: &NetworkSpec, endpoints: &[Endpoint]) -> Result<ElementChanges, Error> {
    let network = Network::found_at(host, spec).found_elements()?;
    let mut changes = ElementChanges::between(&network, &of_network(spec));
    for endpoint in endpoints {
        let all = all_of_endpoint(endpoint);
        let found = rules::find(host, Operation::Inspect, &all)?;
        for (element, found) in all.into_iter().zip(found) {
            match (is_wanted(spec, &element), found.is_some_and(|found| element.is(&found))) {
                (true, false) => changes.add.push(element),
                (false, true) => changes.remove.push(element),
                _ => {}
            }
        }
    }
    Ok(changes)
}

/// What is wrong with a host's end, and the endpoint and the port's index if there is a port.
struct PortChange<'e> {
    change: Change,
    to_set_up: Option<(&'e Endpoint, u32)>,
}

/// What is wrong with the host's ends.
fn port_changes<'e>(
    host: &Host,
    spec: &NetworkSpec,
    bridge: Option<&Link>,
    endpoints: &'e [Endpoint],
) -> Result<Vec<PortChange<'e>>, Error> {
    let mut changes = Vec::new();
    for endpoint in endpoints {
        let port = link(host, endpoint.port())?.filter(|port| port.mac == Some(endpoint.port_mac()));
        let Some(port) = port else {
            changes.push(PortChange { change: Change::LostEndpoint { id: endpoint.id().into() }, to_set_up: None });
            continue;
        };
        let is_on = bridge.is_some_and(|bridge| port.bridge == Some(bridge.index));
        let is_as_wanted =
            port.is_up && port.alias == Some(endpoint.alias()) && port.flags == port_flags(spec, endpoint);
        if !is_on || !is_as_wanted {
            let change = Change::SetUpLink { link: port.name };
            changes.push(PortChange { change, to_set_up: Some((endpoint, port.index)) });
        }
    }
    Ok(changes)
}

fn all_chains(host: &Host) -> Result<Vec<HookedChain>, Error> {
    let mut batch = Batch::new();
    batch.list_chains(Operation::Inspect);
    host.netfilter()?.run(batch)?.chains()
}

fn all_rules(host: &Host) -> Result<Vec<FoundRule>, Error> {
    let mut batch = Batch::new();
    batch.list_rules(Operation::Inspect);
    host.netfilter()?.run(batch)?.rules()
}

/// Others' chains that stop what is forwarded.
fn blocked(spec: &NetworkSpec, chains: &[HookedChain], rules: &[FoundRule]) -> Vec<Finding> {
    let concerns = |family| match family {
        INET => true,
        IPV4 => spec.has_family(true),
        IPV6 => spec.has_family(false),
        _ => false,
    };
    let theirs = chains.iter().filter(|chain| {
        chain.hook == Some(FORWARD) && concerns(chain.family) && (chain.family, &*chain.table) != (INET, TABLE)
    });
    let stops = |chain: &HookedChain| {
        let ends = |rule: &FoundRule| {
            rule.stops_all && (rule.family, &rule.table, &rule.chain) == (chain.family, &chain.table, &chain.name)
        };
        chain.drops || rules.iter().any(ends)
    };
    let family = |family| match family {
        IPV4 => "ip",
        IPV6 => "ip6",
        _ => "inet",
    };
    let finding = |chain: &HookedChain| Finding::Blocked {
        family: family(chain.family).into(),
        table: chain.table.clone(),
        chain: chain.name.clone(),
    };
    theirs.filter(|chain| stops(chain)).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_rules_are_in_the_way() {
        let chain = |family, table: &str, hook, drops| HookedChain {
            family,
            table: table.into(),
            name: "FORWARD".into(),
            hook: Some(hook),
            drops,
        };
        let rule = |table: &str, stops_all| FoundRule {
            family: IPV4,
            table: table.into(),
            chain: "FORWARD".into(),
            comment: None,
            stops_all,
        };
        let v4 = NetworkSpec::new("br0").subnet("10.0.0.0/8".parse().unwrap());
        let count = |chains: &[HookedChain], rules: &[FoundRule]| blocked(&v4, chains, rules).len();
        assert_eq!(count(&[chain(IPV4, "filter", FORWARD, true)], &[]), 1);
        assert_eq!(count(&[chain(INET, "firewalld", FORWARD, true)], &[]), 1);
        assert_eq!(count(&[chain(IPV4, "filter", FORWARD, false)], &[rule("filter", true)]), 1);
        // Another hook, another family, ours, only some packets, another table's rule.
        assert_eq!(count(&[chain(IPV4, "filter", 1, true)], &[]), 0);
        assert_eq!(count(&[chain(IPV6, "filter", FORWARD, true)], &[]), 0);
        assert_eq!(count(&[chain(INET, TABLE, FORWARD, true)], &[]), 0);
        assert_eq!(count(&[chain(IPV4, "filter", FORWARD, false)], &[rule("filter", false), rule("other", true)]), 0);
    }
}
