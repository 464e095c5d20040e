//! The sets and maps of the table, and their elements.

use crate::{Protocol, Subnet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The type of a set's keys or data, in the numbers by which `nft(8)` knows how to show them, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) kind: u32,
    pub(crate) length: u32,
}

const fn types(parts: &[(u32, u32)]) -> Type {
    let (mut kind, mut length, mut n) = (0, 0, 0);
    #[allow(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
    while n < parts.len() {
        kind = kind << 6 | parts[n].0;
        length += parts[n].1;
        n += 1;
    }
    Type { kind, length }
}

const IPV4: (u32, u32) = (7, 4);
const IPV6: (u32, u32) = (8, 16);
const PROTOCOL: (u32, u32) = (12, 4);
const PORT: (u32, u32) = (13, 4);
const IFNAME: (u32, u32) = (41, 16);

/// The sets (of bridges, or of pairs of them) and the maps (from what is published to where it leads).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Set {
    /// The bridges of all networks.
    Networks,
    /// Those whose containers reach nothing else.
    Internal,
    /// Those whose containers reach the outside under the host's address.
    Outward,
    /// Each with itself, if the containers on it may reach each other.
    Together,
    /// Each with a subnet, if its containers reach each other's published ports by the host's address.
    Hairpin4,
    /// As `Hairpin4`, IPv6.
    Hairpin6,
    /// Ports published at any address.
    Ports4,
    /// Those of them that are reached at the host's 127.0.0.1 too.
    Ports4Loopback,
    /// Ports published at one address.
    Ports4At,
    /// As `Ports4`, IPv6.
    Ports6,
    /// As `Ports4At`, IPv6.
    Ports6At,
}

impl Set {
    pub(crate) const OF_NETWORKS: [Set; 6] =
        [Set::Networks, Set::Internal, Set::Outward, Set::Together, Set::Hairpin4, Set::Hairpin6];
    pub(crate) const OF_PORTS: [Set; 5] = [Set::Ports4, Set::Ports4Loopback, Set::Ports4At, Set::Ports6, Set::Ports6At];

    pub(crate) fn all() -> impl Iterator<Item = Set> {
        Self::OF_NETWORKS.into_iter().chain(Self::OF_PORTS)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Set::Networks => "networks",
            Set::Internal => "internal",
            Set::Outward => "outward",
            Set::Together => "together",
            Set::Hairpin4 => "hairpin4",
            Set::Hairpin6 => "hairpin6",
            Set::Ports4 => "ports4",
            Set::Ports4Loopback => "ports4lo",
            Set::Ports4At => "ports4at",
            Set::Ports6 => "ports6",
            Set::Ports6At => "ports6at",
        }
    }

    pub(crate) const fn key(self) -> Type {
        match self {
            Set::Networks | Set::Internal | Set::Outward => types(&[IFNAME]),
            Set::Together => types(&[IFNAME, IFNAME]),
            Set::Hairpin4 => types(&[IFNAME, IPV4]),
            Set::Hairpin6 => types(&[IFNAME, IPV6]),
            Set::Ports4 | Set::Ports4Loopback | Set::Ports6 => types(&[PROTOCOL, PORT]),
            Set::Ports4At => types(&[IPV4, PROTOCOL, PORT]),
            Set::Ports6At => types(&[IPV6, PROTOCOL, PORT]),
        }
    }

    pub(crate) const fn data(self) -> Option<Type> {
        match self {
            Set::Ports4 | Set::Ports4Loopback | Set::Ports4At => Some(types(&[IPV4, PORT])),
            Set::Ports6 | Set::Ports6At => Some(types(&[IPV6, PORT])),
            _ => None,
        }
    }

    /// The lengths of a key's parts, if it is a set of ranges. Those are slow to change, and change with networks only.
    pub(crate) const fn ranges(self) -> Option<[u32; 2]> {
        match self {
            Set::Hairpin4 => Some([16, 4]),
            Set::Hairpin6 => Some([16, 16]),
            _ => None,
        }
    }
}

/// An element as wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) set: Set,
    pub(crate) key: Vec<u8>,
    /// The end of a range, which is in it.
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) data: Option<Vec<u8>>,
    /// Whose it is, kept by the kernel beside it.
    pub(crate) tag: String,
}

/// An element as found in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Option<Vec<u8>>,
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) tag: Option<String>,
}

impl Element {
    /// A bridge, in a set of bridges or of pairs.
    pub(crate) fn of_bridge(set: Set, bridge: &str, tag: String) -> Self {
        let times = if set == Set::Together { 2 } else { 1 };
        Element { set, key: padded(bridge).repeat(times), end: None, data: None, tag }
    }

    /// A bridge with one of its subnets.
    pub(crate) fn of_subnet(bridge: &str, subnet: Subnet, tag: String) -> Self {
        let set = if subnet.address().is_ipv4() { Set::Hairpin4 } else { Set::Hairpin6 };
        let with = |address| [padded(bridge), octets(address)].concat();
        Element { set, key: with(subnet.network()), end: Some(with(subnet.last())), data: None, tag }
    }

    /// A published port: at this address of the host or at any, and where it leads. The families must be the same.
    pub(crate) fn of_port(
        at: Option<IpAddr>,
        (protocol, port): (Protocol, u16),
        to: (IpAddr, u16),
        tag: String,
    ) -> Self {
        let set = match (to.0, at) {
            (IpAddr::V4(_), None) => Set::Ports4,
            (IpAddr::V4(_), Some(_)) => Set::Ports4At,
            (IpAddr::V6(_), None) => Set::Ports6,
            (IpAddr::V6(_), Some(_)) => Set::Ports6At,
        };
        let mut key = at.map(octets).unwrap_or_default();
        key.extend_from_slice(&[protocol.number(), 0, 0, 0]);
        key.extend_from_slice(&in_four(port));
        let mut data = octets(to.0);
        data.extend_from_slice(&in_four(to.1));
        Element { set, key, end: None, data: Some(data), tag }
    }

    /// A port published at any address, as it is at the host's 127.0.0.1; nothing if it leads to an IPv6 address.
    pub(crate) fn at_loopback(&self) -> Option<Self> {
        (self.set == Set::Ports4).then(|| Element { set: Set::Ports4Loopback, ..self.clone() })
    }

    /// The host's port and where it leads, if it is a published UDP port.
    pub(crate) fn udp(&self) -> Option<(u16, (IpAddr, u16))> {
        let data = self.data.as_deref()?;
        let (_, key) = self.key.split_at_checked(self.key.len().checked_sub(8)?)?;
        let (to, rest) = data.split_at_checked(data.len().checked_sub(4)?)?;
        let is_udp = key.first() == Some(&Protocol::Udp.number());
        is_udp.then(|| (port(key.get(4..).unwrap_or_default()), (address(to), port(rest))))
    }

    /// Whether it is about the host's loopback, 127.0.0.0/8.
    pub(crate) fn is_at_loopback(&self) -> bool {
        self.set == Set::Ports4Loopback || self.set == Set::Ports4At && self.key.first() == Some(&127)
    }

    /// At most so many bytes of a message are about it: its parts, each in up to three nests with padding.
    pub(crate) fn most_bytes(&self) -> usize {
        let parts = [Some(&self.key), self.end.as_ref(), self.data.as_ref()];
        let parts: usize = parts.into_iter().flatten().map(|part| part.len() + 16).sum();
        parts + self.tag.len() + 16
    }

    /// Whether this is what was found, whoever made it.
    pub(crate) fn is(&self, found: &Stored) -> bool {
        self.key == found.key
            && self.end == found.end
            && self.data == found.data
            && found.tag.as_ref() == Some(&self.tag)
    }
}

impl Stored {
    pub(crate) fn into_element(self, set: Set) -> Element {
        Element { set, key: self.key, end: self.end, data: self.data, tag: self.tag.unwrap_or_default() }
    }

    /// Whether it is about this bridge, in a set of networks.
    pub(crate) fn is_of_bridge(&self, bridge: &str) -> bool {
        self.key.starts_with(&padded(bridge))
    }
}

/// A link's name as netfilter compares it.
fn padded(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.resize(16, 0);
    name
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn in_four(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// As `nft(8)` would write it: `tcp . 8080 : 10.88.0.2 . 80`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.data.is_none() {
            let (name, rest) = self.key.split_at_checked(16).unwrap_or_default();
            let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            let end = self.end.as_ref().and_then(|end| end.get(16..));
            return match (rest, end) {
                (&[], _) => f.write_str(&name),
                (first, Some(last)) => write!(f, "{name} . {}-{}", address(first), address(last)),
                _ => write!(f, "{name} . {name}"),
            };
        }
        let (at, rest) = self.key.split_at_checked(self.key.len().saturating_sub(8)).unwrap_or_default();
        if !at.is_empty() {
            write!(f, "{} . ", address(at))?;
        }
        let protocol = rest.first().copied().and_then(Protocol::from_number);
        write!(f, "{} . {}", protocol.map_or("?", Protocol::name), port(rest.get(4..).unwrap_or_default()))?;
        let data = self.data.as_deref().unwrap_or_default();
        let (to, rest) = data.split_at_checked(data.len().saturating_sub(4)).unwrap_or_default();
        write!(f, " : {} . {}", address(to), port(rest))
    }
}

fn address(octets: &[u8]) -> IpAddr {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    v4.unwrap_or_else(|_| Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap_or_default()).into())
}

fn port(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |two| u16::from_be_bytes(*two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_hosts_loopback() {
        let at = |at: Option<&str>| {
            let at = at.map(|at| at.parse().unwrap());
            Element::of_port(at, (Protocol::Tcp, 80), ("127.0.0.1".parse().unwrap(), 80), String::new())
        };
        assert!(!at(None).is_at_loopback() && !at(Some("10.0.0.127")).is_at_loopback());
        assert_eq!(at(None).udp(), None);
        assert!(at(None).at_loopback().unwrap().is_at_loopback());
        assert!(at(Some("127.0.0.1")).is_at_loopback() && at(Some("127.5.0.1")).is_at_loopback());
    }

    #[test]
    fn lengths_and_words() {
        let element = |at: Option<&str>, to: &str| {
            let at = at.map(|at| at.parse().unwrap());
            Element::of_port(at, (Protocol::Udp, 53), (to.parse().unwrap(), 5353), String::new())
        };
        for (element, words) in [
            (element(None, "10.0.0.2"), "udp . 53 : 10.0.0.2 . 5353"),
            (element(Some("192.0.2.1"), "10.0.0.2"), "192.0.2.1 . udp . 53 : 10.0.0.2 . 5353"),
            (element(None, "fd00::2"), "udp . 53 : fd00::2 . 5353"),
            (element(Some("2001:db8::1"), "fd00::2"), "2001:db8::1 . udp . 53 : fd00::2 . 5353"),
            (Element::of_bridge(Set::Networks, "br0", String::new()), "br0"),
            (Element::of_bridge(Set::Together, "abcdefghijklmno", String::new()), "abcdefghijklmno . abcdefghijklmno"),
            (Element::of_subnet("br0", "10.0.0.0/8".parse().unwrap(), String::new()), "br0 . 10.0.0.0-10.255.255.255"),
            (Element::of_subnet("br0", "fd00::/127".parse().unwrap(), String::new()), "br0 . fd00::-fd00::1"),
        ] {
            assert_eq!(element.to_string(), words);
            assert!(!element.is_at_loopback(), "{words}");
            let port = words.contains("udp").then(|| words.rsplit_once(" : ").unwrap().1.split_once(" . ").unwrap());
            assert_eq!(element.udp(), port.map(|(to, _)| (53, (to.parse().unwrap(), 5353))), "{words}");
            assert_eq!(element.key.len(), element.set.key().length as usize, "{words}");
            assert_eq!(element.data.as_ref().map(Vec::len), element.set.data().map(|data| data.length as usize));
        }
    }
}
