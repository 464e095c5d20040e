//! The messages of `rtnetlink(7)` that this crate sends, and the one that it reads.

use super::decode::{Malformed, attributes, string, take_u32};
use super::encode::{Attribute, Batch, Kind, Message, flag};
use super::socket::Answers;
use crate::{Error, Mac, Operation, Subnet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Attributes by name and number, `linux/rtnetlink.h` and others.
macro_rules! define_attributes {
    ($($name:ident = $number:literal)*) => {
        $(const $name: Attribute = Attribute { number: $number, name: stringify!($name) };)*
    };
}
pub(super) use define_attributes;

define_attributes! {
    IFLA_ADDRESS = 1 IFLA_IFNAME = 3 IFLA_MTU = 4 IFLA_LINK = 5 IFLA_MASTER = 10 IFLA_LINKINFO = 18
    IFLA_IFALIAS = 20 IFLA_GROUP = 27 IFLA_NET_NS_FD = 28 IFLA_EXT_MASK = 29
    IFLA_INFO_KIND = 1 IFLA_INFO_DATA = 2 IFLA_INFO_SLAVE_KIND = 4 IFLA_INFO_SLAVE_DATA = 5 VETH_INFO_PEER = 1
    IFLA_BRPORT_MODE = 4 IFLA_BRPORT_ISOLATED = 33
    IFA_ADDRESS = 1 IFA_LOCAL = 2 IFA_BROADCAST = 4
    RTA_DST = 1 RTA_OIF = 4 RTA_GATEWAY = 5
}

const fn kind(number: u16, name: &'static str, flags: u16) -> Kind {
    Kind { number, name, flags, reply: 0 }
}

const fn ask(number: u16, name: &'static str, flags: u16, reply: u16) -> Kind {
    Kind { number, name, flags, reply }
}

const CREATE: u16 = flag::CREATE | flag::EXCL;
const NEW_LINK: Kind = kind(16, "RTM_NEWLINK", CREATE);
const DELETE_LINK: Kind = kind(17, "RTM_DELLINK", 0);
const CHANGE_LINK: Kind = kind(16, "RTM_NEWLINK", 0);
const GET_LINK: Kind = ask(18, "RTM_GETLINK", 0, 16);
const LIST_LINKS: Kind = ask(18, "RTM_GETLINK", flag::DUMP, 16);
const GET_ROUTE: Kind = ask(26, "RTM_GETROUTE", 0, 24);
const LIST_ROUTES: Kind = ask(26, "RTM_GETROUTE", flag::DUMP, 24);
const LIST_ADDRESSES: Kind = ask(22, "RTM_GETADDR", flag::DUMP, 20);
const SET_LINK: Kind = kind(19, "RTM_SETLINK", 0);
const NEW_ADDRESS: Kind = kind(20, "RTM_NEWADDR", CREATE);
const NEW_ROUTE: Kind = kind(24, "RTM_NEWROUTE", CREATE);

/// Leaves the counters out of a reply, which makes it half as long.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;
/// No duplicate address detection: a second or two in which the address cannot be used. The caller says whose it is.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
/// Loopback has it in every network namespace.
const LOOPBACK: u32 = 1;

/// What a message is for, for errors: the operation and its object.
type About<'a> = (Operation, &'a str);

/// The two ends of an endpoint, before there are indices.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) port: &'a str,
    pub(crate) port_mac: Mac,
    pub(crate) bridge: u32,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) interface: &'a str,
    pub(crate) mac: Mac,
}

/// Settings of a bridge's port, `bridge(8)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PortFlags {
    pub(crate) isolated: bool,
    pub(crate) hairpin: bool,
}

impl Batch {
    pub(crate) fn create_bridge(&mut self, name: &str, mac: Mac) {
        self.message(NEW_LINK, (Operation::CreateBridge, name), &header(0, 0), |m| {
            m.string(IFLA_IFNAME, name);
            m.bytes(IFLA_ADDRESS, &mac.bytes());
            m.nest(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "bridge"));
        });
    }

    pub(crate) fn create_pair(&mut self, pair: &Pair<'_>) {
        self.message(NEW_LINK, (Operation::CreatePair, pair.port), &header(0, 0), |m| {
            m.string(IFLA_IFNAME, pair.port);
            m.bytes(IFLA_ADDRESS, &pair.port_mac.bytes());
            m.u32(IFLA_MTU, pair.mtu);
            m.u32(IFLA_GROUP, pair.group);
            m.u32(IFLA_MASTER, pair.bridge);
            m.nest(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, "veth");
                m.nest(IFLA_INFO_DATA, |m| m.nest(VETH_INFO_PEER, |m| peer(m, pair)));
            });
        });
    }

    pub(crate) fn find_link(&mut self, operation: Operation, name: &str) {
        self.message(GET_LINK, (operation, name), &header(0, 0), |m| {
            m.string(IFLA_IFNAME, name);
            m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
    }

    pub(crate) fn get_link(&mut self, about: About<'_>, index: u32) {
        self.message(GET_LINK, about, &header(index, 0), |m| m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS));
    }

    /// Asks for all ports of a bridge. A list must be alone in its batch.
    pub(crate) fn list_ports(&mut self, about: About<'_>, bridge: u32) {
        self.message(LIST_LINKS, about, &header(0, 0), |m| {
            m.u32(IFLA_MASTER, bridge);
            m.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        });
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn set_bridge(&mut self, about: About<'_>, index: u32, bridge: u32) {
        self.message(SET_LINK, about, &header(index, 0), |m| m.u32(IFLA_MASTER, bridge));
    }

    /// Tags a link with its owner and brings it up; gives it an MTU if there is one to give.
    pub(crate) fn tag_and_up(&mut self, about: About<'_>, index: u32, alias: &str, mtu: Option<u32>) {
        self.message(SET_LINK, about, &header(index, IFF_UP), |m| {
            // Without its NUL, which would count as a character.
            m.bytes(IFLA_IFALIAS, alias.as_bytes());
            if let Some(mtu) = mtu {
                m.u32(IFLA_MTU, mtu);
            }
        });
    }

    /// As [`tag_and_up`](Self::tag_and_up), for a port of a bridge: isolated, it exchanges nothing with other such ports; with hairpin, it
    /// gets back what it has sent, if that is where it belongs.
    pub(crate) fn tag_and_up_port(&mut self, about: About<'_>, index: u32, alias: &str, port: PortFlags) {
        // Only this message takes a port's settings together with the link's.
        self.message(CHANGE_LINK, about, &header(index, IFF_UP), |m| {
            m.bytes(IFLA_IFALIAS, alias.as_bytes());
            port_info(m, port);
        });
    }

    /// Changes the settings of a bridge's port.
    pub(crate) fn set_port_flags(&mut self, about: About<'_>, index: u32, port: PortFlags) {
        self.message(CHANGE_LINK, about, &header(index, 0), |m| port_info(m, port));
    }

    pub(crate) fn set_group(&mut self, about: About<'_>, index: u32, group: u32) {
        self.message(SET_LINK, about, &header(index, 0), |m| m.u32(IFLA_GROUP, group));
    }

    pub(crate) fn delete_group(&mut self, about: About<'_>, group: u32) {
        self.message(DELETE_LINK, about, &header(0, 0), |m| m.u32(IFLA_GROUP, group));
    }

    pub(crate) fn loopback_up(&mut self) {
        self.message(SET_LINK, (Operation::LoopbackUp, "lo"), &header(LOOPBACK, IFF_UP), |_| {});
    }

    pub(crate) fn delete_link(&mut self, about: About<'_>, index: u32) {
        self.message(DELETE_LINK, about, &header(index, 0), |_| {});
    }

    pub(crate) fn add_address(&mut self, operation: Operation, index: u32, address: Subnet) {
        let [a, b, c, d] = index.to_ne_bytes();
        let body = [family(address.address()), address.prefix(), IFA_F_NODAD, 0, a, b, c, d];
        self.message(NEW_ADDRESS, (operation, &address.to_string()), &body, |m| {
            ip(m, IFA_LOCAL, address.address());
            ip(m, IFA_ADDRESS, address.address());
            if let Some(broadcast) = address.broadcast() {
                ip(m, IFA_BROADCAST, broadcast.into());
            }
        });
    }

    pub(crate) fn default_route(&mut self, index: u32, gateway: IpAddr) {
        self.route(&format!("default via {gateway}"), index, None, gateway);
    }

    pub(crate) fn route_to(&mut self, index: u32, to: Subnet, gateway: IpAddr) {
        self.route(&format!("{to} via {gateway}"), index, Some(to), gateway);
    }

    fn route(&mut self, object: &str, index: u32, to: Option<Subnet>, gateway: IpAddr) {
        let mut body =
            [family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0];
        body[1] = to.map_or(0, Subnet::prefix);
        self.message(NEW_ROUTE, (Operation::AddRoute, object), &body, |m| {
            if let Some(to) = to {
                ip(m, RTA_DST, to.address());
            }
            ip(m, RTA_GATEWAY, gateway);
            m.u32(RTA_OIF, index);
        });
    }

    /// Asks by which way an address is reached.
    pub(crate) fn find_route(&mut self, operation: Operation, to: IpAddr) {
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let body = [family(to), bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.message(GET_ROUTE, (operation, &to.to_string()), &body, |m| ip(m, RTA_DST, to));
    }

    /// Asks for all routes of a family. A list must be alone in its batch.
    pub(crate) fn list_routes(&mut self, operation: Operation, v4: bool) {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        let body = [u8::try_from(family).unwrap_or(0), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        self.message(LIST_ROUTES, (operation, "all routes"), &body, |_| {});
    }

    /// Asks for the addresses of a link. A list must be alone in its batch.
    pub(crate) fn list_addresses(&mut self, about: About<'_>, index: u32) {
        let [a, b, c, d] = index.to_ne_bytes();
        self.message(LIST_ADDRESSES, about, &[0, 0, 0, 0, a, b, c, d], |_| {});
    }
}

/// A route as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Subnet,
    /// The index of the link.
    pub(crate) link: Option<u32>,
    table: u8,
    kind: u8,
}

impl Route {
    /// Whether it leads somewhere, and is neither the default route nor one to the host itself.
    pub(crate) fn leads_to_a_subnet(&self) -> bool {
        self.table == RT_TABLE_MAIN && self.kind == RTN_UNICAST && self.to.prefix() > 0
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let (head, rest) = payload.split_first_chunk::<12>().ok_or(Malformed)?;
        let [family, prefix, _, _, table, _, _, kind, ..] = *head;
        let v4 = i32::from(family) == libc::AF_INET;
        let mut to = if v4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let mut link = None;
        for attribute in attributes(rest) {
            let (number, value) = attribute?;
            if number == RTA_DST.number {
                to = address(value).ok_or(Malformed)?;
            } else if number == RTA_OIF.number {
                link = take_u32(value).map(|(index, _)| index);
            }
        }
        Ok(Route { to: Subnet::new(to, prefix).ok_or(Malformed)?, link, table, kind })
    }
}

pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// The address of a link in the payload of an `RTM_NEWADDR`.
fn link_address(payload: &[u8]) -> Result<(u32, Option<Subnet>), Malformed> {
    let (head, rest) = payload.split_first_chunk::<8>().ok_or(Malformed)?;
    let [_, prefix, _, _, index @ ..] = *head;
    let mut found = None;
    for attribute in attributes(rest) {
        let (number, value) = attribute?;
        // IPv4 has both, and they differ on links with two ends only; IPv6 has the first.
        if number == IFA_LOCAL.number || (number == IFA_ADDRESS.number && found.is_none()) {
            found = address(value).and_then(|address| Subnet::new(address, prefix));
        }
    }
    Ok((u32::from_ne_bytes(index), found))
}

impl Answers {
    /// The index of the link by which an address is reached; nothing if it is not.
    pub(crate) fn way_out(self) -> Result<Option<u32>, Error> {
        let none = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];
        Ok(self.one(&none, Route::parse)?.and_then(|route| route.link))
    }

    pub(crate) fn routes(self) -> Result<Vec<Route>, Error> {
        self.list(Route::parse)
    }

    /// The addresses of a link.
    pub(crate) fn addresses_of(self, index: u32) -> Result<Vec<Subnet>, Error> {
        let all = self.list(link_address)?;
        Ok(all.into_iter().filter(|(of, _)| *of == index).filter_map(|(_, address)| address).collect())
    }
}

/// The container's end. It cannot be brought up here: the kernel wants both ends for that.
fn peer(m: &mut Message<'_>, pair: &Pair<'_>) {
    m.raw(&header(0, 0));
    m.string(IFLA_IFNAME, pair.interface);
    m.bytes(IFLA_ADDRESS, &pair.mac.bytes());
    m.u32(IFLA_MTU, pair.mtu);
    m.u32(IFLA_NET_NS_FD, pair.netns.as_raw_fd().cast_unsigned());
}

fn port_info(m: &mut Message<'_>, port: PortFlags) {
    m.nest(IFLA_LINKINFO, |m| {
        m.string(IFLA_INFO_SLAVE_KIND, "bridge");
        m.nest(IFLA_INFO_SLAVE_DATA, |m| {
            m.bytes(IFLA_BRPORT_ISOLATED, &[port.isolated.into()]);
            m.bytes(IFLA_BRPORT_MODE, &[port.hairpin.into()]);
        });
    });
}

/// `struct ifinfomsg`, with flags to be set.
fn header(index: u32, flags: u32) -> [u8; 16] {
    let [i, f] = [index, flags].map(u32::to_ne_bytes);
    [0, 0, 0, 0, i[0], i[1], i[2], i[3], f[0], f[1], f[2], f[3], f[0], f[1], f[2], f[3]]
}

fn family(address: IpAddr) -> u8 {
    // Both numbers are small.
    u8::try_from(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }).unwrap_or(0)
}

fn ip(m: &mut Message<'_>, attribute: Attribute, address: IpAddr) {
    match address {
        IpAddr::V4(address) => m.bytes(attribute, &address.octets()),
        IpAddr::V6(address) => m.bytes(attribute, &address.octets()),
    }
}

/// What is of interest in a link that the kernel describes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Option<String>,
    /// `bridge`, `veth`, …; nothing for hardware.
    pub(crate) kind: Option<String>,
    /// The index of the other end, in its own namespace.
    pub(crate) peer: Option<u32>,
    /// The index of the bridge that it is a port of.
    pub(crate) bridge: Option<u32>,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) is_up: bool,
    /// Its settings as a bridge's port.
    pub(crate) flags: PortFlags,
}

impl Link {
    /// Reads the payload of an `RTM_NEWLINK`.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let (_, rest) = payload.split_first_chunk::<4>().ok_or(Malformed)?;
        let (index, rest) = take_u32(rest).ok_or(Malformed)?;
        let (flags, rest) = take_u32(rest).ok_or(Malformed)?;
        let (_, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
        let mut link = Link { index, is_up: flags & IFF_UP != 0, ..Link::default() };
        let number_in = |value| take_u32(value).map_or(0, |(number, _)| number);
        for attribute in attributes(rest) {
            let (number, value) = attribute?;
            if number == IFLA_IFNAME.number {
                link.name = string(value);
            } else if number == IFLA_ADDRESS.number {
                link.mac = value.try_into().ok().map(Mac::new);
            } else if number == IFLA_IFALIAS.number {
                link.alias = Some(string(value));
            } else if number == IFLA_LINK.number {
                link.peer = take_u32(value).map(|(index, _)| index);
            } else if number == IFLA_MASTER.number {
                link.bridge = take_u32(value).map(|(index, _)| index);
            } else if number == IFLA_GROUP.number {
                link.group = number_in(value);
            } else if number == IFLA_MTU.number {
                link.mtu = number_in(value);
            } else if number == IFLA_LINKINFO.number {
                link.parse_info(value)?;
            }
        }
        Ok(link)
    }

    /// Reads what is particular to its kind, and to a bridge's port.
    fn parse_info(&mut self, info: &[u8]) -> Result<(), Malformed> {
        let mut is_port = false;
        for attribute in attributes(info) {
            let (number, value) = attribute?;
            if number == IFLA_INFO_KIND.number {
                self.kind = Some(string(value));
            } else if number == IFLA_INFO_SLAVE_KIND.number {
                is_port = string(value) == "bridge";
            } else if number == IFLA_INFO_SLAVE_DATA.number && is_port {
                for setting in attributes(value) {
                    match setting? {
                        (n, value) if n == IFLA_BRPORT_ISOLATED.number => self.flags.isolated = value != [0],
                        (n, value) if n == IFLA_BRPORT_MODE.number => self.flags.hairpin = value != [0],
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link as the kernel describes it: header and attributes, some of no interest.
    fn veth() -> Vec<u8> {
        let mut batch = Batch::new();
        batch.message(NEW_LINK, (Operation::CreatePair, ""), &header(7, IFF_UP), |m| {
            m.string(IFLA_IFNAME, "cd-x");
            m.bytes(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 9]);
            m.u32(IFLA_LINK, 3);
            m.u32(IFLA_MTU, 1500);
            m.bytes(IFLA_IFALIAS, b"cofferdam:me");
            m.nest(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "veth"));
        });
        batch.number(1)[16..].to_vec()
    }

    #[test]
    fn a_link_is_read() {
        let wanted = Link {
            index: 7,
            name: "cd-x".into(),
            mac: Some(Mac::new([2, 0, 0, 0, 0, 9])),
            alias: Some("cofferdam:me".into()),
            kind: Some("veth".into()),
            peer: Some(3),
            bridge: None,
            group: 0,
            mtu: 1500,
            is_up: true,
            flags: PortFlags::default(),
        };
        assert_eq!(Link::parse(&veth()), Ok(wanted));
    }

    /// Cut anywhere and changed anywhere, it is read or refused.
    #[test]
    fn a_damaged_link_is_no_panic() {
        let link = veth();
        for length in 0..link.len() {
            let _ = Link::parse(&link[..length]);
            for value in [0, 1, 3, 4, 0x7f, 0xff] {
                let mut damaged = link.clone();
                damaged[length] = value;
                let _ = Link::parse(&damaged);
            }
        }
        assert_eq!(Link::parse(&link[..15]), Err(Malformed));
    }
}
