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
//! | [`NetworkSpec`], [`Network`] | a network as wanted: name, subnets, who may reach whom; and as made: a bridge in a host, with rules |
//! | [`NetNs`] | a container's network namespace: new, of a process, by a path, kept by a file |
//! | [`EndpointSpec`], [`Endpoint`] | an interface of a container in a network, as wanted; and the record of what was made |
//! | [`PublishedPort`] | a port of the host that leads to one of a container |
//! | [`AddressPool`], [`FilePool`] | who has which address |
//! | [`Change`], [`Finding`] | what is done or would be done; what is wrong |
//! | [`Hosts`], [`ResolvConf`], [`write_hostname`] | the files by which a container knows names |
//!
//! An [`Endpoint`] is plain data (with the feature `serde` it can be stored), so that detaching works from another process,
//! also when the container and its namespace are gone. Containers *without* a network get [`NetNs::loopback_up`];
//! those that share one are given the same [`NetNs`]; those with the host's need nothing.
//!
//! # What an attach does
//!
//! 1. In the host: one message creates a pair of `veth(4)` interfaces with names, MAC addresses and MTU. One end is a port of
//!    the bridge; the other is *born in the container's namespace as `eth0`*, which is forty times as fast as moving it there.
//!    A second message asks for the indices that the kernel gave them.
//! 2. In the host: the port gets its owner's tag and is brought up.
//! 3. In the container: loopback up, addresses, `eth0` up and tagged, routes.
//! 4. If ports are published: one transaction adds an element for each to a map. Of UDP ports, the kernel is asked for the connections to them that it
//!    remembers, which are forgotten: their packets would go on to where they went before.
//!
//! These are three or four sends, and two for each UDP port. The tag needs a send of its own because the kernel ignores an alias at creation, and a message that sets it
//! by name in the same send would tag somebody else's link if the creation found the name taken:
//! messages of one send do not wait for each other's success. Nothing else is dumped on this way: what is
//! sent and received is the same for the first container and the thousandth. The kernel's own work for a port grows a little with the others; for a UDP
//! port it looks through all connections that it remembers, but sends those to the port alone. For more than eight UDP ports at once all
//! UDP connections are received instead, and looked through here.
//!
//! # What gets through
//!
//! All networks of a host share one table, `inet cofferdam`, whose chains and rules never change. What changes are elements of hash sets: a
//! bridge in some of them, a published port in a map, whatever the number. `nft list table inet cofferdam` shows it with comments.
//!
//! | from | to | |
//! |---|---|---|
//! | container | container of its network | unless [`between_containers`](NetworkSpec::between_containers) is off |
//! | container | its gateway, which is the host | yes |
//! | container | other addresses of the host | not if [`internal`](NetworkSpec::internal) |
//! | container | outside | under the host's address; not if [`internal`](NetworkSpec::internal) |
//! | container | container of another network | only published ports |
//! | outside, a neighbour with a route too | container | only published ports |
//! | host | container | yes; published ports also at its own addresses, and by [`host_loopback`](NetworkSpec::host_loopback) at 127.0.0.1 |
//! | container | a published port of its own network at the host's address | unless [`hairpin`](NetworkSpec::hairpin) is off |
//! | container, outside | the host's 127.0.0.0/8, or with such a source | never |
//!
//! An `accept` here does not overrule what another table drops (Docker's, ufw's, firewalld's): [`Network::check`] finds chains that do. When somebody
//! flushes all rules, [`Network::reapply`] brings ours back from the specs and records; [`Network::plan`] tells what it would do.
//!
//! Settings of the host below `/proc/sys/net` are changed only if asked for ([`enable_forwarding`](NetworkSpec::enable_forwarding)), and
//! told ([`Network::host_settings`]). Those of the bridge itself are the network's: router advertisements are not believed there, and its own
//! IPv6 addresses are used at once.
//!
//! Where `br_netfilter` is loaded and `bridge-nf-call-iptables` is 1, the kernel translates packets while they are still on the bridge. Then a published port is
//! not reached by the host's address from a container of the same network if `between_containers` is off.
//!
//! # What it does not do
//!
//! It does not run a daemon, log, or choose a subnet. Macvlan, ipvlan, VLANs, bandwidth and overlays between hosts are not there yet.
//! Rootless containers reach each other; for the outside world they want `pasta(1)` or `slirp4netns(1)`.
//!
//! # Owners
//!
//! Every link carries the alias `cofferdam:<owner>`, which `ip link` shows; it is given directly after the link's creation.
//! Until then its owner shows in what it is created with: a bridge's MAC address, which is derived from owner and name, a port's
//! place in the bridge and its group number, which is derived from the same. Every element carries its owner as a comment, every address of a pool its holder.
//! [`Network::gc`] and [`FilePool::gc`] remove what dead owners have left.
//! This crate never changes or deletes a link, table or rule that it did not make: bridges are compared by owner, ports by their random MAC address,
//! published ports by both, and all of that in a transaction that fails if anybody has changed anything since it was looked at.
//!
//! # Netlink
//!
//! The messages needed are encoded and decoded here, in some hundred lines whose reader is tested with arbitrary and with damaged bytes. The
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
//! | [`NetNs::pin`] | `open_tree(2)`, `move_mount(2)` | 5.2 |
//! | [`NetNs::from_pid`], [`NetNs::from_pidfd`] | `pidfd_open(2)`; `setns(2)` with a pidfd | 5.3; 5.8 |
//! | a network with rules | `nf_tables` with NAT in the family `inet`; the incoming interface known at the end; comments of tables | 5.2; 5.7; 5.10 |
//! | published UDP ports | `nf_conntrack_netlink`, which filters by itself since | 5.8 |
//! | published SCTP ports | `CONFIG_NF_CT_PROTO_SCTP`; the host needs no SCTP of its own | |
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
//! - Another program's link, table or published port under a name that we want is left as it is; the error says whose name it is.
//! - A neighbour on the host's wire gives itself a route to the containers: it reaches published ports only.
//! - A container asks the host to route to another network, to a container that it may not reach, or to the host's loopback.
//! - A container of an internal network makes itself a route by the bridge: of the host it reaches the bridge's addresses alone.
//! - Either sends to a port that is published at the host's 127.0.0.1, or says that it comes from there.
//! - A port that is published at every address takes nothing from what listens at the host's loopback, such as a resolver at 127.0.0.53 or
//!   a program at `::1`.
//! - A container sends router advertisements to the bridge.
//! - Replies are parsed without trust in their lengths; a datagram that does not come from the kernel is ignored.
//!
//! Not met here:
//!
//! - Containers can send what they like on their interface, also with others' addresses, and reach what the host listens to on the bridge's address.
//! - A network [without rules](NetworkSpec::without_rules) is open to whatever the host forwards.
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
mod endpoint_spec;
mod error;
mod firewall;
mod forget;
mod host;
mod name;
mod names;
mod netlink;
mod netns;
mod network;
mod network_spec;
mod operation;
mod pinned;
mod pool;
mod port;
mod rules;
mod sys;
mod sysctl;
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub mod test_hooks;
mod upkeep;
#[cfg(feature = "serde")]
mod version;

pub use address::{Mac, ParseAddressError, Subnet};
pub use change::{Change, Finding};
pub use endpoint::Endpoint;
pub use endpoint_spec::EndpointSpec;
pub use error::{Error, ErrorKind};
pub use host::Host;
pub use names::{Hosts, ResolvConf, write_hostname};
pub use netns::NetNs;
pub use network::Network;
pub use network_spec::NetworkSpec;
pub use operation::Operation;
pub use pool::{AddressPool, FilePool, Holder, TakenAddresses, WantedAddress};
pub use port::{ParsePortError, Protocol, PublishedPort};
