//! The chains and rules: always the same, whatever networks and ports there are.
//!
//! A packet to a published port has its destination changed on the way in (`prerouting`; `output` for the host's own),
//! is let through because of that (`forward`), and gets the host as its source where the answer would otherwise not come
//! back by the host (`postrouting`). Everything else that would enter a network is dropped in `forward`: other networks, other
//! machines that have made themselves a route here; and in `input` what an internal network sends to other addresses of the host. Inside a network is what does not leave its bridge, and what the set `together` allows.

use super::Set;

/// The table, of the family `inet`.
pub(crate) const TABLE: &str = "cofferdam";
/// By it the table is known as ours, in this version.
pub(crate) const TABLE_COMMENT: &str = "cofferdam-netlink-bridge 1";

/// A chain.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<Hook>,
}

/// Where the kernel comes to a chain.
#[derive(Debug)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

const fn hooked(name: &'static str, kind: &'static str, number: u32, priority: i32) -> Chain {
    Chain { name, hook: Some(Hook { kind, number, priority }) }
}

pub(crate) const CHAINS: &[Chain] = &[
    hooked("loopback", "filter", 0, -300),
    // Before the chains that jump to it.
    Chain { name: "publish", hook: None },
    hooked("prerouting", "nat", 0, -100),
    hooked("output", "nat", 3, -100),
    hooked("input", "filter", 1, 0),
    hooked("forward", "filter", 2, 0),
    hooked("postrouting", "nat", 4, 100),
];

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) chain: &'static str,
    /// What it is for; by it a rule is found again.
    pub(crate) comment: &'static str,
    pub(crate) expressions: &'static [Expression],
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Jump(&'static str),
}

impl Verdict {
    pub(crate) fn code(self) -> u32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Jump(_) => (-3i32).cast_unsigned(),
        }
    }
}

/// A step of a rule. Registers 1 to 4 have 16 bytes; the same memory in fours is 8 to 23.
#[derive(Debug)]
pub(crate) enum Expression {
    /// Loads something about the packet.
    Meta(u32, u32),
    /// Loads bytes of the network's (1) or the transport's (2) header: base, offset, length, register.
    Payload(u32, u32, u32, u32),
    /// Loads something about the connection.
    Connection(u32, u32),
    /// Loads the type of the destination address; the type that it has at the link by which the packet came.
    DestinationType(u32),
    DestinationTypeThere(u32),
    /// Keeps some bits of a number.
    Mask(u32, &'static [u8]),
    /// Goes on if a register has this value, or has not.
    Equal(u32, &'static [u8]),
    NotEqual(u32, &'static [u8]),
    /// Goes on if what begins in register 1 is in the set.
    In(Set),
    /// And loads what it leads to, to the same place.
    To(Set),
    /// Changes the destination: family, register of the port. The address is in register 1.
    Dnat(u32, u32),
    /// Changes the source to the address of the link by which the packet leaves.
    Masquerade,
    Verdict(Verdict),
}

/// The value of an expression's attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data {
    Number(u32),
    Value(&'static [u8]),
    Name(&'static str),
    Verdict(Verdict),
}

impl Expression {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Expression::Meta(..) => "meta",
            Expression::Payload(..) => "payload",
            Expression::Connection(..) => "ct",
            Expression::DestinationType(_) | Expression::DestinationTypeThere(_) => "fib",
            Expression::Mask(..) => "bitwise",
            Expression::Equal(..) | Expression::NotEqual(..) => "cmp",
            Expression::In(_) | Expression::To(_) => "lookup",
            Expression::Dnat(..) => "nat",
            Expression::Masquerade => "masq",
            Expression::Verdict(_) => "immediate",
        }
    }

    /// Its attributes by number, `linux/netfilter/nf_tables.h`.
    pub(crate) fn attributes(&self) -> Vec<(u16, Data)> {
        use Data::{Name, Number, Value};
        match *self {
            Expression::Meta(key, register) | Expression::Connection(key, register) => {
                vec![(1, Number(register)), (2, Number(key))]
            }
            Expression::Payload(base, offset, length, register) => {
                vec![(1, Number(register)), (2, Number(base)), (3, Number(offset)), (4, Number(length))]
            }
            // Its result is the address' type (3), of the destination (flag 2) at the incoming link (flag 8).
            Expression::DestinationType(register) => vec![(1, Number(register)), (2, Number(3)), (3, Number(2))],
            Expression::DestinationTypeThere(register) => vec![(1, Number(register)), (2, Number(3)), (3, Number(10))],
            Expression::Mask(register, mask) => {
                let to = Number(register);
                vec![(1, to), (2, to), (3, Number(4)), (4, Value(mask)), (5, Value(&[0; 4]))]
            }
            Expression::Equal(register, value) => vec![(1, Number(register)), (2, Number(0)), (3, Value(value))],
            Expression::NotEqual(register, value) => vec![(1, Number(register)), (2, Number(1)), (3, Value(value))],
            Expression::In(set) => vec![(1, Name(set.name())), (2, Number(1))],
            Expression::To(set) => vec![(1, Name(set.name())), (2, Number(1)), (3, Number(1))],
            // Of the destination (1).
            Expression::Dnat(family, port) => {
                vec![(1, Number(1)), (2, Number(family)), (3, Number(1)), (5, Number(port))]
            }
            Expression::Masquerade => Vec::new(),
            Expression::Verdict(verdict) => vec![(1, Number(0)), (2, Data::Verdict(verdict))],
        }
    }
}

use Expression::{
    Connection, DestinationType, DestinationTypeThere, Dnat, Equal, In, Mask, Masquerade, Meta, NotEqual, Payload, To,
};

const ACCEPT: Expression = Expression::Verdict(Verdict::Accept);
const DROP: Expression = Expression::Verdict(Verdict::Drop);
const PUBLISH: Expression = Expression::Verdict(Verdict::Jump("publish"));

/// The interface by which the packet came, by which it goes.
const CAME_BY: Expression = Meta(6, 1);
const GOES_BY: Expression = Meta(7, 1);
/// The second in the register behind the first.
const AND_GOES_BY: Expression = Meta(7, 2);
const FAMILY: Expression = Meta(15, 1);
const IS_IPV4: Expression = Equal(1, &[2]);
const IS_IPV6: Expression = Equal(1, &[10]);
const IS_LOOPBACK: Expression = Equal(1, &[127]);
const IS_NOT_LOOPBACK: Expression = NotEqual(1, &[127]);
const IS_LOCALHOST: Expression = Equal(1, &[127, 0, 0, 1]);
const IS_NOT_LOCALHOST6: Expression = NotEqual(1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// The incoming link is not `lo`, which has this index in every namespace.
const CAME_BY_INDEX: Expression = Meta(4, 1);
const IS_NOT_LO: Expression = NotEqual(1, &1u32.to_ne_bytes());
/// The host itself has the destination address (`RTN_LOCAL`).
const IS_LOCAL: Expression = Equal(1, &2u32.to_ne_bytes());
/// Neither is it an address of the host (`RTN_LOCAL`), nor one of all or of several hosts (`RTN_BROADCAST`, `RTN_MULTICAST`).
const IS_NOT_LOCAL: Expression = NotEqual(1, &2u32.to_ne_bytes());
const IS_NOT_BROADCAST: Expression = NotEqual(1, &3u32.to_ne_bytes());
const IS_NOT_MULTICAST: Expression = NotEqual(1, &5u32.to_ne_bytes());
const IS_NOT_MULTICAST6: Expression = NotEqual(1, &[0xff]);
const STATE: Expression = Connection(0, 1);
const STATUS: Expression = Connection(2, 1);
const KNOWN: Expression = Mask(1, &6u32.to_ne_bytes());
const INVALID: Expression = Mask(1, &1u32.to_ne_bytes());
/// The connection's destination has been changed (`IPS_DST_NAT`).
const REDIRECTED: Expression = Mask(1, &0x20u32.to_ne_bytes());
const IS_SET: Expression = NotEqual(1, &[0; 4]);

const fn protocol(register: u32) -> Expression {
    Meta(16, register)
}

const fn port(register: u32) -> Expression {
    Payload(2, 2, 2, register)
}

const fn rule(chain: &'static str, comment: &'static str, expressions: &'static [Expression]) -> Rule {
    Rule { chain, comment, expressions }
}

pub(crate) const RULES: &[Rule] = &[
    // Where a port is published at 127.0.0.1, its translation would otherwise come before the kernel's own look at such addresses.
    rule(
        "loopback",
        "nothing reaches the host's loopback from elsewhere",
        &[CAME_BY_INDEX, IS_NOT_LO, FAMILY, IS_IPV4, Payload(1, 16, 1, 1), IS_LOOPBACK, DROP],
    ),
    rule(
        "loopback",
        "nor says that it comes from there",
        &[CAME_BY_INDEX, IS_NOT_LO, FAMILY, IS_IPV4, Payload(1, 12, 1, 1), IS_LOOPBACK, DROP],
    ),
    rule(
        "publish",
        "ports at one address, IPv4",
        &[FAMILY, IS_IPV4, Payload(1, 16, 4, 1), protocol(9), port(10), To(Set::Ports4At), Dnat(2, 9)],
    ),
    rule(
        "publish",
        "ports at any address, at 127.0.0.1",
        &[
            FAMILY,
            IS_IPV4,
            Payload(1, 16, 4, 1),
            IS_LOCALHOST,
            protocol(1),
            port(9),
            To(Set::Ports4Loopback),
            Dnat(2, 9),
        ],
    ),
    // What else listens at 127.0.0.0/8, such as a resolver at 127.0.0.53, stays what it is.
    rule(
        "publish",
        "ports at any address, IPv4",
        &[FAMILY, IS_IPV4, Payload(1, 16, 1, 1), IS_NOT_LOOPBACK, protocol(1), port(9), To(Set::Ports4), Dnat(2, 9)],
    ),
    rule(
        "publish",
        "ports at one address, IPv6",
        &[FAMILY, IS_IPV6, Payload(1, 24, 16, 1), protocol(2), port(13), To(Set::Ports6At), Dnat(10, 2)],
    ),
    rule(
        "publish",
        "ports at any address but ::1, IPv6",
        &[
            FAMILY,
            IS_IPV6,
            Payload(1, 24, 16, 1),
            IS_NOT_LOCALHOST6,
            protocol(1),
            port(9),
            To(Set::Ports6),
            Dnat(10, 2),
        ],
    ),
    rule("prerouting", "what comes to the host", &[DestinationType(1), IS_LOCAL, PUBLISH]),
    rule("output", "what the host itself sends to itself", &[DestinationType(1), IS_LOCAL, PUBLISH]),
    // The host takes what is for any of its addresses by any link. The answers are to what it has sent from another of them.
    rule("input", "answers", &[CAME_BY, In(Set::Internal), STATE, KNOWN, IS_SET, ACCEPT]),
    rule(
        "input",
        "an internal network reaches the bridge's addresses alone, IPv4",
        &[
            CAME_BY,
            In(Set::Internal),
            FAMILY,
            IS_IPV4,
            DestinationTypeThere(1),
            IS_NOT_LOCAL,
            IS_NOT_BROADCAST,
            IS_NOT_MULTICAST,
            DROP,
        ],
    ),
    // Neighbours ask for each other by multicast.
    rule(
        "input",
        "an internal network reaches the bridge's addresses alone, IPv6",
        &[
            CAME_BY,
            In(Set::Internal),
            FAMILY,
            IS_IPV6,
            Payload(1, 24, 1, 1),
            IS_NOT_MULTICAST6,
            DestinationTypeThere(1),
            IS_NOT_LOCAL,
            DROP,
        ],
    ),
    rule("forward", "answers", &[STATE, KNOWN, IS_SET, ACCEPT]),
    rule("forward", "inside a network", &[CAME_BY, AND_GOES_BY, In(Set::Together), ACCEPT]),
    rule("forward", "nothing gets out of an internal network", &[CAME_BY, In(Set::Internal), DROP]),
    rule("forward", "published ports", &[STATUS, REDIRECTED, IS_SET, ACCEPT]),
    rule("forward", "nothing else gets into a network", &[GOES_BY, In(Set::Networks), DROP]),
    rule(
        "forward",
        "what cannot be translated does not get out",
        &[CAME_BY, In(Set::Outward), STATE, INVALID, IS_SET, DROP],
    ),
    // By the source, and not by where it came from: what br_netfilter shows has not come from anywhere.
    rule(
        "postrouting",
        "a published port that leads back into the network, IPv4",
        &[STATUS, REDIRECTED, IS_SET, FAMILY, IS_IPV4, GOES_BY, Payload(1, 12, 4, 2), In(Set::Hairpin4), Masquerade],
    ),
    rule(
        "postrouting",
        "a published port that leads back into the network, IPv6",
        &[STATUS, REDIRECTED, IS_SET, FAMILY, IS_IPV6, GOES_BY, Payload(1, 8, 16, 2), In(Set::Hairpin6), Masquerade],
    ),
    rule(
        "postrouting",
        "a published port, from the host's loopback",
        &[GOES_BY, In(Set::Networks), FAMILY, IS_IPV4, Payload(1, 12, 1, 1), IS_LOOPBACK, Masquerade],
    ),
    rule("postrouting", "to a network: the source stays", &[GOES_BY, In(Set::Networks), ACCEPT]),
    rule("postrouting", "to the outside under the host's address", &[CAME_BY, In(Set::Outward), Masquerade]),
];
