//! rtnetlink, on a runtime of one thread.

use crate::{ALIAS, BRIDGE, Contender, GATEWAY, Result, Target, within};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use tokio::runtime::{Builder, Runtime};

/// How the container's end comes there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Born,
    Moved,
}

/// Loopback's index, in every network namespace.
const LOOPBACK: u32 = 1;

pub(crate) struct Peer<'a> {
    way: Way,
    target: &'a Target,
    runtime: Runtime,
    host: Handle,
    inside: Handle,
    bridge: u32,
    attached: Option<u32>,
}

impl<'a> Peer<'a> {
    pub(crate) fn new(target: &'a Target, way: Way) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let open = || {
            let _entered = runtime.enter();
            let (connection, handle, _) = new_connection()?;
            runtime.spawn(connection);
            Ok(handle)
        };
        let (host, inside) = (open()?, within(&target.netns, open)?);
        let bridge = runtime.block_on(find(&host, BRIDGE))?.header.index;
        Ok(Peer { way, target, runtime, host, inside, bridge, attached: None })
    }

    fn port(&self) -> &'static str {
        if self.way == Way::Born { "cd-born" } else { "cd-moved" }
    }

    /// Both ends, the second in the container; with their indices.
    async fn create(&self) -> Result<(u32, u32)> {
        let namespace = self.target.netns.as_fd().as_raw_fd();
        if self.way == Way::Moved {
            let pair = LinkVeth::new(self.port(), "cd-moved-peer").mtu(1500).controller(self.bridge).build();
            self.host.link().add(pair).execute().await?;
            let port = find(&self.host, self.port()).await?.header.index;
            let peer = find(&self.host, "cd-moved-peer").await?.header.index;
            let to = LinkUnspec::new_with_index(peer).name("eth0").setns_by_fd(namespace).build();
            self.host.link().set(to).execute().await?;
            // It may have got another index.
            return Ok((port, find(&self.inside, "eth0").await?.header.index));
        }
        let peer = LinkUnspec::new_with_name("eth0").mtu(1500).setns_by_fd(namespace).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(self.port())
            .mtu(1500)
            .controller(self.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.host.link().add(pair).execute().await?;
        let port = find(&self.host, self.port()).await?;
        let peer = port.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        });
        Ok((port.header.index, peer.ok_or("no other end")?))
    }

    async fn attach(&self) -> Result<u32> {
        let (port, peer) = self.create().await?;
        let up = |index| LinkUnspec::new_with_index(index).alias(ALIAS).up().build();
        self.host.link().set(up(port)).execute().await?;
        self.inside.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await?;
        self.inside.address().add(peer, self.target.address.into(), 16).execute().await?;
        self.inside.link().set(up(peer)).execute().await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(peer).build();
        self.inside.route().add(route).execute().await?;
        Ok(port)
    }
}

async fn find(handle: &Handle, name: &str) -> Result<LinkMessage> {
    let mut links = handle.link().get().match_name(name).execute();
    let mut found = None;
    // To the end, or the rest would be waited for later.
    while let Some(link) = links.try_next().await? {
        found = Some(link);
    }
    found.ok_or_else(|| format!("no {name}").into())
}

impl Contender for Peer<'_> {
    fn name(&self) -> &'static str {
        if self.way == Way::Born { "rtnetlink 0.24, born there" } else { "rtnetlink 0.24, moved" }
    }

    fn attach(&mut self) -> Result<()> {
        self.attached = Some(self.runtime.block_on(Self::attach(self))?);
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        let port = self.attached.take().ok_or("not attached")?;
        Ok(self.runtime.block_on(self.host.link().del(port).execute())?)
    }
}
