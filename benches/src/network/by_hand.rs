//! The floor: the messages that cofferdam sends, known beforehand as far as they can be; and nothing looked at before something is deleted.

use super::messages::{self, Pair, Ports};
use super::place::{ALIAS, BRIDGE, GATEWAY, Place, Target};
use crate::Result;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Floor {
    target: Arc<Target>,
    create: Vec<u8>,
    publish: Option<Vec<u8>>,
}

impl Floor {
    pub(super) fn new(place: &Place, target: &Arc<Target>) -> Self {
        let pair = Pair {
            port: &target.port,
            port_mac: [2, 0xcd, 0xf1, 0, 0, target.address.octets()[3]],
            bridge: place.bridge,
            group: place.group,
            namespace: target.netns.as_fd().as_raw_fd(),
            mac: target.mac(),
        };
        let tag = format!("{} 02:cd:f1:00:00:00 {BRIDGE} bench", target.port);
        let ports = Ports { at: target.ports.clone(), to: target.address, tag };
        let publish = (!target.ports.is_empty()).then(|| messages::publish(&ports));
        Floor { target: Arc::clone(target), create: messages::create_and_find(&pair), publish }
    }

    pub(super) fn attach(&self) -> Result<()> {
        let target = &*self.target;
        let mut found = None;
        target.route.talk(&self.create, 2, |body| found = messages::found_link(body))?;
        let (index, other, _) = found.ok_or("the link is not described")?;
        target.route.talk(&messages::port_up(index, ALIAS, self.publish.is_some()), 1, |_| {})?;
        target.inside.talk(&messages::inside(other, ALIAS, target.address, GATEWAY), 4, |_| {})?;
        match &self.publish {
            Some(publish) => Ok(target.netfilter.talk(publish, 1, |_| {})?),
            None => Ok(()),
        }
    }

    pub(super) fn detach(&self) -> Result<()> {
        let target = &*self.target;
        if !target.ports.is_empty() {
            target.netfilter.talk(&messages::unpublish(&target.ports), 1, |_| {})?;
        }
        Ok(target.route.talk(&messages::delete(&target.port), 1, |_| {})?)
    }
}

/// All ports of the bridge, in one message.
pub(super) fn detach_all(target: &Target, group: u32) -> Result<()> {
    Ok(target.route.talk(&messages::delete_group(group), 1, |_| {})?)
}
