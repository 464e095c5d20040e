//! cofferdam.

use crate::{Contender, Result, Target};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, Host, Network};

pub(crate) struct Ours<'a> {
    host: &'a Host,
    network: &'a Network,
    target: &'a Target,
    spec: EndpointSpec,
    endpoint: Option<Endpoint>,
}

impl<'a> Ours<'a> {
    pub(crate) fn new(host: &'a Host, network: &'a Network, target: &'a Target) -> Self {
        let spec = EndpointSpec::new().id("ours").address(target.address);
        Ours { host, network, target, spec, endpoint: None }
    }
}

impl Contender for Ours<'_> {
    fn name(&self) -> &'static str {
        "cofferdam"
    }

    fn attach(&mut self) -> Result<()> {
        self.endpoint = Some(self.network.attach(&self.target.netns, &self.spec)?);
        Ok(())
    }

    fn detach(&mut self) -> Result<()> {
        Ok(self.endpoint.take().ok_or("not attached")?.detach(self.host)?)
    }
}
