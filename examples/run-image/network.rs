//! The container's network: an address on a bridge that all containers of this program share, loopback alone, or the host's own.

use crate::Result;
use crate::options::{Network, Options};
use cofferdam_netlink_bridge::{self as bridge, Endpoint, EndpointSpec, Host, NetNs, NetworkSpec, Subnet};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, create_dir_all};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

const BRIDGE: &str = "cofferdam0";
const SUBNET: &str = "10.88.0.0/16";
/// Where the files are that stand for addresses.
const LEASES: &str = "/run/run-image";

/// What there is to put away afterwards.
pub(crate) struct Connection(Option<Attached>);

struct Attached {
    host: Host,
    network: bridge::Network,
    endpoint: Endpoint,
    _lease: Flock<File>,
}

impl Connection {
    /// Connects the namespace, if it is to be connected.
    pub(crate) fn make(
        options: &Options,
        namespace: impl FnOnce() -> std::result::Result<OwnedFd, cofferdam_namespaces::Error>,
    ) -> Result<Self> {
        match options.network {
            Network::Host => Ok(Connection(None)),
            Network::None => {
                NetNs::from_fd(namespace()?)?.loopback_up()?;
                Ok(Connection(None))
            }
            Network::Bridge => {
                let netns = NetNs::from_fd(namespace()?)?;
                let host = Host::current()?;
                let (address, lease) = lease()?;
                let spec = NetworkSpec::new(BRIDGE).owner("run-image").subnet(SUBNET.parse::<Subnet>()?);
                let endpoint = EndpointSpec::new().owner(&options.name).address(address);
                let (network, endpoint) = attach(&host, &spec, &netns, &endpoint)?;
                Ok(Connection(Some(Attached { host, network, endpoint, _lease: lease })))
            }
        }
    }

    /// Disconnects. The bridge goes with its last container.
    pub(crate) fn close(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), |attached| attached.close())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(attached) = self.0.take() {
            // On the way out of an error, which is told instead.
            let _ = attached.close();
        }
    }
}

impl Attached {
    fn close(self) -> Result<()> {
        self.endpoint.detach(&self.host)?;
        match self.network.delete() {
            Err(error) if error.kind() == bridge::ErrorKind::InUse => Ok(()),
            deleted => Ok(deleted?),
        }
    }
}

/// The last container of another run may take the bridge away between the two: then it is made again.
fn attach(host: &Host, spec: &NetworkSpec, netns: &NetNs, endpoint: &EndpointSpec) -> Result<(bridge::Network, Endpoint)> {
    let mut tries = 0..3;
    loop {
        let network = bridge::Network::create(host, spec)?;
        match network.attach(netns, endpoint) {
            Err(error) if error.kind() == bridge::ErrorKind::NotFound && tries.next().is_some() => {}
            attached => return Ok((network, attached?)),
        }
    }
}

/// An address that nobody else has: each is a file, and who has the lock has the address, for as long as they live.
fn lease() -> Result<(Ipv4Addr, Flock<File>)> {
    create_dir_all(LEASES).map_err(|e| format!("{LEASES}: {e}"))?;
    for last in 2..=254 {
        let address = Ipv4Addr::new(10, 88, 0, last);
        let file = File::options().create(true).truncate(false).write(true).open(format!("{LEASES}/{address}"))?;
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            return Ok((address, lock));
        }
    }
    Err(format!("all addresses of {LEASES} are in use").into())
}
