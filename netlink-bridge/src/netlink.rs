//! Netlink: as little of it as this crate speaks. `rtnetlink(7)` for links, addresses and routes; netfilter's for rules and connections.

mod conntrack;
mod decode;
mod encode;
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) mod fuzz;
mod nft;
mod route;
mod socket;
mod thread;

pub(crate) use conntrack::{Connection, is_to};
pub(crate) use encode::{Batch, MESSAGES_PER_SEND};
pub(crate) use nft::{FoundRule, HookedChain, Transaction, by_bytes};
pub(crate) use route::{Link, Pair, PortFlags};
pub(crate) use socket::{Answers, Protocol, Session};
pub(crate) use thread::{Opened, current, enter_fd, enter_pidfd, netfilter_beside, unshared, within_same};
