//! What is done, or would be done, to a host.

use std::fmt;

/// One change: what [`Network::plan`](crate::Network::plan) says would be done, [`Network::reapply`](crate::Network::reapply) and
/// [`Network::gc`](crate::Network::gc) have done, and [`Network::check`](crate::Network::check) finds missing.
///
/// Displayed as a line of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Change {
    /// A bridge is made.
    CreateBridge {
        /// Its name.
        bridge: String,
    },
    /// A link is tagged, brought up, given its MTU.
    SetUpLink {
        /// Its name.
        link: String,
    },
    /// A bridge gets an address.
    AddAddress {
        /// The bridge's name.
        link: String,
        /// The address with its prefix.
        address: crate::Subnet,
    },
    /// A setting below `/proc/sys/net` is changed.
    SetSysctl {
        /// Which.
        path: String,
        /// What it is.
        from: String,
        /// What it becomes.
        to: String,
    },
    /// The table with its chains and rules is written.
    WriteRules {
        /// Why: what of it is missing or different.
        missing: String,
    },
    /// A set of the table gets an element.
    AddElement {
        /// Which set.
        set: String,
        /// The element as `nft(8)` writes it.
        element: String,
    },
    /// A set of the table loses an element.
    RemoveElement {
        /// Which set.
        set: String,
        /// The element as `nft(8)` writes it.
        element: String,
    },
    /// A container's interface is removed, with the host's end.
    RemoveLink {
        /// The host's end.
        link: String,
    },
    /// A container's interface is gone, which nothing here brings back: it must be attached again.
    LostEndpoint {
        /// The endpoint's id.
        id: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateBridge { bridge } => write!(f, "create bridge {bridge}"),
            Change::SetUpLink { link } => write!(f, "set up link {link}"),
            Change::AddAddress { link, address } => write!(f, "add address {address} to {link}"),
            Change::SetSysctl { path, from, to } => write!(f, "set {path} from {from} to {to}"),
            Change::WriteRules { missing } => write!(f, "write table inet cofferdam: {missing}"),
            Change::AddElement { set, element } => write!(f, "add to {set}: {element}"),
            Change::RemoveElement { set, element } => write!(f, "remove from {set}: {element}"),
            Change::RemoveLink { link } => write!(f, "remove link {link}"),
            Change::LostEndpoint { id } => write!(f, "endpoint {id} is gone: attach it again"),
        }
    }
}

/// One thing that [`Network::check`](crate::Network::check) finds wrong.
///
/// Displayed as a line of text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Finding {
    /// Something is missing or different; [`Network::reapply`](crate::Network::reapply) brings it back.
    Missing(Change),
    /// A setting of the host is not as the network needs it, and nobody asked to have it changed.
    Setting(Change),
    /// A chain of somebody else stops what is forwarded.
    Blocked {
        /// The table's family: `ip`, `ip6` or `inet`.
        family: String,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Missing(change) => write!(f, "missing: {change}"),
            Finding::Setting(change) => write!(f, "needed: {change}"),
            Finding::Blocked { family, table, chain } => {
                write!(f, "blocked: chain {chain} of table {family} {table} stops what is forwarded")
            }
        }
    }
}
