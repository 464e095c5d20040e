//! The container's network: an address on a bridge that all containers of this program share, loopback alone, or the host's own.

use crate::Result;
use crate::options::{self, Options};
use cofferdam_namespaces::{Held, Namespaces};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, ErrorKind, Host, NetNs, Network, NetworkSpec, Subnet};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, remove_file};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const BRIDGE: &str = "cofferdam0";
const SUBNET: [u8; 3] = [10, 107, 77];
/// Here is a file for each address in use, and a lock for those who change the bridge.
const FOLDER: &str = "/run/run-image";

/// What there is to put away afterwards. It is when this is dropped.
pub(crate) struct Connection(Option<Attached>);

struct Attached {
    host: Host,
    network: Network,
    endpoint: Endpoint,
    lease: Lease,
}

impl Connection {
    /// Connects a container that waits for it.
    pub(crate) fn make(options: &Options, held: &Held) -> Result<Self> {
        let netns = || -> Result<_> { Ok(NetNs::from_fd(held.namespace(Namespaces::NET)?)?) };
        match options.network {
            options::Network::Host => Ok(Connection(None)),
            options::Network::None => {
                netns()?.loopback_up()?;
                Ok(Connection(None))
            }
            options::Network::Bridge => Ok(Connection(Some(Attached::make(&netns()?, &options.name)?))),
        }
    }

    /// Disconnects it. The bridge goes with its last container.
    pub(crate) fn close(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), Attached::close)
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
    fn make(netns: &NetNs, owner: &str) -> Result<Self> {
        let host = Host::current()?;
        let subnet = Subnet::new(address(0), 24).ok_or("no subnet")?;
        let _turn = turn()?;
        let lease = Lease::take()?;
        let network = Network::create(&host, &NetworkSpec::new(BRIDGE).owner("run-image").subnet(subnet))?;
        match network.attach(netns, &EndpointSpec::new().owner(owner).address(lease.address)) {
            Ok(endpoint) => Ok(Attached { host, network, endpoint, lease }),
            Err(error) => {
                let _ = delete_unless_used(&network);
                Err(error.into())
            }
        }
    }

    fn close(self) -> Result<()> {
        let _turn = turn()?;
        // Moved here to be given back before the turn ends.
        let _lease = self.lease;
        self.endpoint.detach(&self.host)?;
        delete_unless_used(&self.network)
    }
}

fn delete_unless_used(network: &Network) -> Result<()> {
    match network.delete() {
        Err(error) if error.kind() == ErrorKind::InUse => Ok(()),
        deleted => Ok(deleted?),
    }
}

/// One at a time: between somebody's look whether the bridge is in use and its removal, nobody may begin to use it.
fn turn() -> Result<Flock<File>> {
    let folder = || {
        // Closed to others, who could keep the lock.
        DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
        Flock::lock(File::open(FOLDER)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    };
    folder().map_err(|e: std::io::Error| format!("lock {FOLDER}: {e}").into())
}

/// An address that nobody else has: who has the lock on its file has it, for as long as they live. Taken and given back in [`turn`].
struct Lease {
    address: Ipv4Addr,
    path: PathBuf,
    _file: Flock<File>,
}

impl Lease {
    fn take() -> Result<Self> {
        for last in 2..=254 {
            let address = address(last);
            let path = Path::new(FOLDER).join(address.to_string());
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| format!("open {path:?}: {e}"))?;
            if let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Lease { address, path, _file: file });
            }
        }
        Err("all addresses of the bridge are in use".into())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is one that nobody has locked.
        let _ = remove_file(&self.path);
    }
}

fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last)
}
