//! Connect containers by a Linux bridge, in about a millisecond and without any helper program.
//!
//! ```no_run
//! use cofferdam_netlink_bridge::{EndpointSpec, Host, NetNs, Network, NetworkSpec};
//! use std::net::Ipv4Addr;
//!
//! # let container = 1234;
//! let host = Host::current()?;
//! let network = Network::create(&host, &NetworkSpec::new("br-ci").owner("my-ci").subnet("10.88.0.0/16".parse()?))?;
//!
//! let netns = NetNs::from_pid(container)?; // or NetNs::new()?, from a pidfd, a path, any descriptor
//! let endpoint = network.attach(&netns, &EndpointSpec::new().address(Ipv4Addr::new(10, 88, 0, 2)))?;
//! // The container now has lo, eth0 with 10.88.0.2/16, and a default route by 10.88.0.1, which is the bridge.
//!
//! endpoint.detach(&host)?; // any process with the endpoint's state can do this, at any time, any number of times
//! network.delete()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Everything is synchronous, and each call returns within milliseconds: the kernel answers netlink requests before
//! `sendto(2)` returns. A call that fails leaves nothing behind, and its [`Error`] names the [operation](Error::operation),
//! the [object](Error::object), the [errno](Error::raw_os_error), and [what the kernel said about it](Error::kernel_message).
//!
//! # Terms
//!
//! | type | what it is |
//! |---|---|
//! | [`Host`] | a network namespace that plays the host: the current one, or any other by descriptor |
//! | [`NetworkSpec`], [`Network`] | a network as wanted: name, subnets, gateways, MTU; and as made: a bridge in a host |
//! | [`NetNs`] | a container's network namespace |
//! | [`EndpointSpec`], [`Endpoint`] | an interface of a container in a network, as wanted; and the record of what was made |
//!
//! An [`Endpoint`] is plain data (with the feature `serde` it can be stored), so that detaching works from another process,
//! also when the container and its namespace are gone. Containers *without* a network get [`NetNs::loopback_up`];
//! those that share one are given the same [`NetNs`].
//!
//! # What an attach does
//!
//! 1. In the host: one message creates a pair of `veth(4)` interfaces with names, MAC addresses and MTU. One end is a port of
//!    the bridge; the other is *born in the container's namespace as `eth0`*, which is forty times as fast as moving it there.
//!    A second message asks for the indices that the kernel gave them.
//! 2. In the host: the port gets its owner's tag and is brought up.
//! 3. In the container: loopback up, addresses, `eth0` up and tagged, default routes.
//!
//! These are three sends. The tag needs a send of its own because the kernel ignores an alias at creation, and a message that sets it
//! by name in the same send would tag somebody else's link if the creation found the name taken:
//! messages of one send do not wait for each other's success. Nothing is ever dumped on this way: what is
//! sent and received is the same for the first container and the thousandth (the kernel's own work for a port grows a little with the others).
//!
//! # What is left to others
//!
//! There is no way from the bridge to the outside world yet: no forwarding, address translation, published ports or address
//! allocation. It does not run a daemon, keep state on disk, log, or change any sysctl. Rootless containers that need
//! the outside world want `pasta(1)` or `slirp4netns(1)`.
//!
//! # Owners
//!
//! Every link carries the alias `cofferdam:<owner>`, which `ip link` shows; it is given directly after the link's creation.
//! Until then its owner shows in what it is created with: a bridge's MAC address, which is derived from owner and name, a port's
//! place in the bridge and its group number, which is derived from the same.
//! This crate never changes or deletes a link that it did not make: bridges are compared by owner, ports by their random MAC address.
//!
//! # Netlink
//!
//! The eight kinds of messages needed are encoded and decoded here, in a few hundred lines whose reader is tested with arbitrary and with damaged bytes. The
//! netlink-packet crates would bring more code than they replace, types whose breaking releases must be kept out of this
//! crate's interface, and no way to tell *which* attribute the kernel objects to.
//!
//! A socket in another namespace is opened by a throw-away thread, which enters the namespace, opens it and ends. No thread of the
//! caller ever changes its namespace. Sockets ask for extended acknowledgements and strict checks; every message
//! is acknowledged, every acknowledgement must come from the kernel and match a message, and waiting for one is bounded.
//!
//! # Kernel versions
//!
//! | needed for | feature | Linux |
//! |---|---|---|
//! | everything | strict checks of netlink requests | 4.20 |
//! | [`NetNs::new`] | `SIOCGSKNS` | 4.9 |
//! | [`NetNs::from_pid`], [`NetNs::from_pidfd`] | `pidfd_open(2)`; `setns(2)` with a pidfd | 5.3; 5.8 |
//! | the whole crate | `CONFIG_BRIDGE`, `CONFIG_VETH` | |
//!
//! There are no silent fallbacks: what is missing is an error of kind [`Unsupported`](ErrorKind::Unsupported).
//!
//! # Privileges
//!
//! `CAP_NET_ADMIN` over the host's and the container's network namespace, and `CAP_SYS_ADMIN` to enter a namespace that is not the
//! current one (also over the caller's own user namespace). Root of a user namespace has all of these over
//! network namespaces that were made in it: among them everything here works for an ordinary user. A [`Host`], a [`Network`] and a [`NetNs`] that were
//! opened inside (in a program with threads by `Scope::run` of `cofferdam-namespaces`) can be used from outside by the user who made it.
//!
//! # Threats that are met here
//!
//! - Names, owners and addresses may come from outside: they are checked before anything is done, and quoted in errors.
//! - Another program's link under a name that we want is left as it is; the error says whose name it is.
//! - Replies are parsed without trust in their lengths; a datagram that does not come from the kernel is ignored.
//!
//! Not met here:
//!
//! - Containers of one network can reach each other and the bridge's address, and can send what they like on their interface
//!   (also with others' addresses): separation inside a network is not offered yet.
//! - A container can send IPv6 router advertisements to the bridge. A host that does not forward IPv6 believes them
//!   unless `net.ipv6.conf.<bridge>.accept_ra` is 0; sysctls are left to the caller.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test may fail"
    )
)]

#[cfg(not(target_os = "linux"))]
compile_error!("cofferdam-netlink-bridge is for Linux");

mod address;
mod attach;
mod change;
mod endpoint;
mod error;
mod firewall;
mod host;
mod name;
mod names;
mod netlink;
mod netns;
mod network;
mod network_spec;
mod operation;
mod pool;
mod port;
mod rules;
mod sys;
mod sysctl;
mod upkeep;

pub use address::{Mac, ParseAddressError, Subnet};
pub use change::{Change, Finding};
pub use endpoint::{Endpoint, EndpointSpec};
pub use error::{Error, ErrorKind};
pub use host::Host;
pub use names::{Hosts, ResolvConf, write_hostname};
pub use netns::NetNs;
pub use network::Network;
pub use network_spec::NetworkSpec;
pub use operation::Operation;
pub use pool::{AddressPool, FilePool, Holder, TakenAddresses, WantedAddress};
pub use port::{ParsePortError, Protocol, PublishedPort};
