//! The operations of this crate, by which errors say where it stopped.

use std::fmt;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident $words:literal,)*) => {
        /// What was being done when an [`Error`](crate::Error) arose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            fn words(self) -> &'static str {
                match self {
                    $(Operation::$name => $words,)*
                }
            }
        }
    };
}

operations! {
    /// Checking a spec. Nothing has been done yet.
    Configure "check the configuration",
    /// Making a network namespace.
    NewNamespace "make a network namespace",
    /// Finding and entering a network namespace.
    OpenNamespace "open the network namespace",
    /// Keeping a network namespace by a file, or no longer.
    PinNamespace "pin the network namespace",
    /// Opening and setting up a netlink socket.
    OpenSocket "open a netlink socket",
    /// Getting random bytes for an id and a MAC address.
    Identify "make an id",
    /// Creating a network's bridge.
    CreateBridge "create the bridge",
    /// Looking for a network's bridge.
    OpenBridge "find the bridge",
    /// Tagging a bridge, bringing it up, giving it addresses.
    SetUpBridge "set up the bridge",
    /// Deleting a network's bridge.
    DeleteBridge "delete the bridge",
    /// Creating the two ends of an endpoint.
    CreatePair "create the pair of interfaces",
    /// Tagging the host's end of an endpoint and bringing it up.
    SetUpPort "set up the bridge's port",
    /// Bringing up loopback in a container.
    LoopbackUp "bring up loopback",
    /// Giving an interface of a container an address.
    AddAddress "add an address",
    /// Tagging an interface of a container and bringing it up.
    SetUpInterface "set up the interface",
    /// Setting a container's default route, or another.
    AddRoute "add a route",
    /// Looking by which link the host reaches the outside.
    FindWayOut "find the way out",
    /// Writing the rules of all networks, and what this one has in them.
    WriteRules "write the rules",
    /// Publishing ports of a container.
    Publish "publish a port",
    /// Taking back published ports.
    Unpublish "take back a port",
    /// Reading or writing a setting of the host, below `/proc/sys/net`.
    SetSysctl "set up the host",
    /// Taking or giving back an address of a pool.
    TakeAddress "keep the addresses",
    /// Writing a file of names for a container.
    WriteNames "write the names",
    /// Comparing what there is with what should be.
    Inspect "look at the network",
    /// Deleting the two ends of an endpoint.
    Detach "delete the pair of interfaces",
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
