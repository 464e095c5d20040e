//! What the rules have of a network is taken out of them.

use crate::firewall::{Element, Set};
use crate::netlink::Batch;
use crate::rules::{self, ElementChanges, Scope};
use crate::{Error, ErrorKind, Network, Operation, name};

impl Network {
    /// Takes the network's elements out of the sets, and the table with the last network. Tells whether it has: not if somebody has made the bridge anew,
    /// whose they then are.
    pub(crate) fn forget_rules(&self) -> Result<bool, Error> {
        if !self.has_table()? {
            return Ok(true);
        }
        let stay = std::cell::Cell::new(false);
        let look = || {
            stay.set(self.is_made_anew()?);
            Ok(stay.get())
        };
        self.forget_ports(look, |stay, _| !stay)?;
        rules::unchanged(self.host(), Operation::WriteRules, Scope::Elements, || {
            let mut ours = if look()? { Vec::new() } else { self.found_elements()? };
            ours.retain(|(_, element)| element.tag.as_deref() == Some(&self.spec().tag()));
            Ok(ElementChanges::between(&ours, &[]))
        })?;
        rules::remove_table_unless_used(self.host(), Operation::WriteRules)?;
        Ok(!stay.get())
    }

    /// Whether there is a table in which something of this network may be: one without rules may have had some. Such a one is wanted where the kernel
    /// has none at all, and beside a table that is not ours.
    fn has_table(&self) -> Result<bool, Error> {
        match rules::has_table(self.host(), Operation::WriteRules) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) if error.kind() == ErrorKind::Foreign && !self.spec().rules => Ok(false),
            result => result,
        }
    }

    /// Whether there is another bridge of this network than this one. Whoever makes one does so before it writes rules: as long as there is none, and
    /// the rules are those of before the look, nothing in them is of a new one.
    pub(crate) fn is_made_anew(&self) -> Result<bool, Error> {
        let mut batch = Batch::new();
        batch.find_link(Operation::OpenBridge, &self.spec().name);
        let link = self.host().session().run(batch)?.link()?;
        Ok(link.is_some_and(|link| link.index != self.index() && self.spec().is(&link)))
    }

    /// Takes published ports of this network out of the maps: those whose tag is as `which` says, by what `look` sees after the ports were looked at.
    /// None if the network of this name is another owner's: by their tags ports are of a name, and of the owners of endpoints.
    pub(crate) fn forget_ports<L>(
        &self,
        look: impl Fn() -> Result<L, Error>,
        which: impl Fn(&L, &name::EndpointTag<'_>) -> bool,
    ) -> Result<ElementChanges, Error> {
        if !self.spec().rules && !self.has_table()? {
            return Ok(ElementChanges::default());
        }
        let changes = rules::unchanged(self.host(), Operation::Unpublish, Scope::Elements, || {
            if self.is_anothers()? {
                return Ok(ElementChanges::default());
            }
            let mut found = rules::list(self.host(), Operation::Unpublish, &Set::OF_PORTS)?;
            let seen = look()?;
            found.retain(|(_, element)| {
                let tag = element.tag.as_deref().and_then(name::EndpointTag::parse);
                tag.is_some_and(|tag| tag.network == self.spec().name && which(&seen, &tag))
            });
            Ok(ElementChanges::between(&found, &[]))
        })?;
        let udp = changes.remove.iter().filter_map(Element::udp).map(|(port, _)| port).collect();
        rules::forget_connections(self.host(), Operation::Unpublish, &udp, |_| false)?;
        Ok(changes)
    }

    /// What the rules have of a network that is to have none.
    pub(crate) fn leftovers(&self) -> Result<ElementChanges, Error> {
        if !self.has_table()? || self.is_anothers()? {
            return Ok(ElementChanges::default());
        }
        let mut found = self.found_elements()?;
        found.extend(rules::list(self.host(), Operation::Inspect, &Set::OF_PORTS)?);
        found.retain(|(set, element)| match element.tag.as_deref() {
            Some(tag) if Set::OF_NETWORKS.contains(set) => tag == self.spec().tag(),
            Some(tag) => name::EndpointTag::parse(tag).is_some_and(|tag| tag.network == self.spec().name),
            None => false,
        });
        Ok(ElementChanges::between(&found, &[]))
    }

    /// Whether the rules have a network of this name that is another owner's.
    fn is_anothers(&self) -> Result<bool, Error> {
        let ours = Element::of_bridge(Set::Networks, &self.spec().name, self.spec().tag());
        let found = rules::find(self.host(), Operation::Unpublish, std::slice::from_ref(&ours))?;
        Ok(found.into_iter().flatten().any(|found| found.tag.is_some_and(|tag| tag != ours.tag)))
    }
}
