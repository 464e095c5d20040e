//! The container's network: an address on a bridge that all containers of this program share, loopback alone, the host's own, or another container's.

use crate::Result;
use crate::neighbours::{self, Lease, address};
use crate::options::{self, Options};
use cofferdam_namespaces::{Held, Namespaces};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, ErrorKind, Host, NetNs, Network, NetworkSpec, Subnet};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;
use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;

const BRIDGE: &str = "cofferdam0";
/// Here is a file for each address in use. It is locked by those who change the bridge.
pub(crate) const FOLDER: &str = "/run/run-image";

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
        if matches!(options.network, options::Network::Host | options::Network::Container(_)) {
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
        // All share the bridge: what one has at the host's loopback must not go when another comes that has nothing there.
        let made = Network::create(&host, &spec.enable_forwarding(publishes).host_loopback(true));
        let network = made.inspect_err(|_| lease.give_back())?;
        // The bridge's own settings are nobody else's concern.
        for change in network.host_settings().iter().map(ToString::to_string).filter(|change| !change.contains(BRIDGE))
        {
            eprintln!("run-image: {change}");
        }
        let endpoint = EndpointSpec::new().owner(owner(&options.name, lease.address)).address(lease.address);
        let endpoint = options.ports.iter().fold(endpoint, |endpoint, port| endpoint.publish(*port));
        let attached = forget_the_dead(&network).and_then(|()| Ok(network.attach(&netns, &endpoint)?));
        let attached = attached.inspect_err(|_| {
            // The error that is told is the first one.
            let _ = delete_unless_used(&network);
            lease.give_back();
        });
        let mut connection = Connection { endpoint: attached?, host, network, lease, closed: false };
        let told = connection.lease.sign(held.id(), &options.name).and_then(|()| neighbours::tell(Some(held.id())));
        if told.is_err() {
            // Here, because it is our turn.
            connection.closed = true;
            let _ = connection.disconnect();
        }
        told.map(|()| Some(connection))
    }

    pub(crate) fn close(mut self) -> Result<()> {
        self.closed = true;
        let _turn = turn()?;
        self.disconnect()
    }

    /// The caller has the turn.
    fn disconnect(&self) -> Result<()> {
        self.endpoint.detach(&self.host)?;
        self.lease.give_back();
        neighbours::tell(None)?;
        delete_unless_used(&self.network)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.closed {
            // On the way out of an error, which is told instead.
            let _ = turn().and_then(|_turn| self.disconnect());
        }
    }
}

/// Goes into another container's network namespace, if that was asked for: what is started from here on is in it too.
pub(crate) fn enter(options: &Options) -> Result<()> {
    if let options::Network::Container(name) = &options.network {
        // While it is our turn, no container on the bridge is put away.
        let _turn = turn()?;
        let found = neighbours::all()?.into_iter().find(|neighbour| neighbour.name == *name);
        let found = found.ok_or_else(|| format!("there is no container {name:?} on the bridge"))?;
        let netns = NetNs::from_pid(found.process)?;
        if !found.is(fstat(&netns)?.st_ino) {
            return Err(format!("the container {name:?} has just ended").into());
        }
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| format!("enter its network: {e}"))?;
    }
    Ok(())
}

/// Nobody else who lives has the address, and so the same owner.
fn owner(name: &str, address: Ipv4Addr) -> String {
    format!("{name} at {address}")
}

/// Takes away what those have left who were killed: their published ports would lead to whoever has the address next. For one's turn: nobody else is
/// about to attach, so that what has no owner yet never gets one.
fn forget_the_dead(network: &Network) -> Result<()> {
    let living: HashSet<_> = neighbours::all()?.iter().map(|one| owner(&one.name, one.address)).collect();
    network.gc(|owner| owner.is_some_and(|owner| living.contains(owner)))?;
    Ok(())
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
