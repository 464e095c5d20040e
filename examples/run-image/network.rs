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
/// Here is a file for each address in use. It is locked by those who change the bridge.
const FOLDER: &str = "/run/run-image";

/// An interface of the container on the bridge. It is removed when this is dropped, and the bridge with the last of them.
pub(crate) struct Connection {
    host: Host,
    network: Network,
    endpoint: Endpoint,
    lease: Lease,
    closed: bool,
}

impl Connection {
    /// Gives a container that waits for it the network that was asked for.
    pub(crate) fn make(options: &Options, held: &Held) -> Result<Option<Self>> {
        if options.network == options::Network::Host {
            return Ok(None);
        }
        let netns = NetNs::from_fd(held.namespace(Namespaces::NET)?)?;
        if options.network == options::Network::None {
            netns.loopback_up()?;
            return Ok(None);
        }
        let host = Host::current()?;
        let subnet = Subnet::new(address(0), 24).ok_or("no subnet")?;
        let _turn = turn()?;
        let lease = Lease::take()?;
        // A bridge alone changes nothing of the host's own settings; who publishes a port wants packets to be forwarded.
        let publishes = !options.ports.is_empty();
        let spec = NetworkSpec::new(BRIDGE).owner("run-image").subnet(subnet);
        let made = Network::create(&host, &spec.enable_forwarding(publishes).host_loopback(publishes));
        let network = made.inspect_err(|_| lease.give_back())?;
        // The bridge's own settings are nobody else's concern.
        for change in network.host_settings().iter().map(ToString::to_string).filter(|change| !change.contains(BRIDGE))
        {
            eprintln!("run-image: {change}");
        }
        let endpoint = EndpointSpec::new().owner(&options.name).address(lease.address);
        let endpoint = options.ports.iter().fold(endpoint, |endpoint, port| endpoint.publish(*port));
        let attached = network.attach(&netns, &endpoint).inspect_err(|_| {
            // The error that is told is the first one.
            let _ = delete_unless_used(&network);
            lease.give_back();
        });
        Ok(Some(Connection { endpoint: attached?, host, network, lease, closed: false }))
    }

    pub(crate) fn close(mut self) -> Result<()> {
        self.closed = true;
        self.disconnect()
    }

    fn disconnect(&self) -> Result<()> {
        let _turn = turn()?;
        self.endpoint.detach(&self.host)?;
        self.lease.give_back();
        delete_unless_used(&self.network)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.closed {
            // On the way out of an error, which is told instead.
            let _ = self.disconnect();
        }
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

/// An address that nobody else has: who has the lock on its file has it, for as long as they live. For one's [`turn`].
struct Lease {
    address: Ipv4Addr,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Lease {
    fn take() -> Result<Self> {
        for last in 2..=254 {
            let address = address(last);
            let path = Path::new(FOLDER).join(address.to_string());
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|e| format!("open {path:?}: {e}"))?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Lease { address, path, _lock: lock });
            }
        }
        Err("all addresses of the bridge are in use".into())
    }

    fn give_back(&self) {
        // If the file stays, nobody has it locked.
        let _ = remove_file(&self.path);
    }
}

fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = SUBNET;
    Ipv4Addr::new(a, b, c, last)
}
