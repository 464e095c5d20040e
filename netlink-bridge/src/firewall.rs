//! What is filtered and translated, as data: one table with fixed chains and rules, and maps and sets whose elements are all that
//! ever changes. Pure; the messages are in [`crate::netlink`].

mod element;
mod ruleset;
mod wanted;

pub(crate) use element::{Element, Set, Stored};
pub(crate) use ruleset::{CHAINS, Chain, Data, Expression, RULES, Rule, TABLE, TABLE_COMMENT, Verdict};
pub(crate) use wanted::{all_of_endpoint, is_wanted, of_endpoint, of_network, targets};
