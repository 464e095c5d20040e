//! Published ports: values and text.

use crate::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protocol {
    /// `tcp(7)`.
    Tcp,
    /// `udp(7)`. Connections that the kernel remembers to the port from before are forgotten when it is published and when it ends.
    Udp,
    /// `sctp(7)`.
    Sctp,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Its number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port of a container, or a range of them, published at the host: `8080:80`, `127.0.0.1:8080:80/tcp`, `[fd00::1]:53:53/udp`,
/// `8000-8010:80-90`.
///
/// Without an address it is reached at every address that the host has, in the families that the endpoint has addresses of;
/// `0.0.0.0` and `::` mean every address of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
#[doc(alias("expose", "portmap", "DNAT", "port forwarding"))]
pub struct PublishedPort {
    address: Option<IpAddr>,
    protocol: Protocol,
    host: u16,
    container: u16,
    count: u16,
}

/// One port of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OnePort {
    pub(crate) protocol: Protocol,
    pub(crate) host: u16,
    pub(crate) container: u16,
}

impl PublishedPort {
    /// This TCP port of the host, at all of its addresses, leads to this port of the container. Neither can be 0.
    #[must_use]
    pub fn new(host: u16, container: u16) -> Self {
        PublishedPort { address: None, protocol: Protocol::Tcp, host, container, count: 1 }
    }

    /// At this address of the host only. A loopback address needs [`NetworkSpec::host_loopback`](crate::NetworkSpec::host_loopback); `::1` cannot be had.
    #[must_use]
    pub fn at(mut self, address: impl Into<IpAddr>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Another protocol than TCP.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// So many ports, one after the other, the first at the host to the first in the container and so on.
    #[must_use]
    pub fn count(mut self, count: u16) -> Self {
        self.count = count;
        self
    }

    /// The address of the host, if it is only one.
    #[must_use]
    pub fn host_address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Each port: the host's and the container's.
    #[must_use = "this only describes them"]
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        self.each().map(|port| (port.host, port.container))
    }

    /// Which protocol.
    #[must_use]
    pub fn transport(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn each(self) -> impl Iterator<Item = OnePort> {
        let one = move |n| OnePort {
            protocol: self.protocol,
            host: self.host.saturating_add(n),
            container: self.container.saturating_add(n),
        };
        (0..self.count).map(one)
    }

    pub(crate) fn check(self, loopback: bool) -> Result<(), Error> {
        let last = |first: u16| u32::from(first) + u32::from(self.count.max(1)) - 1;
        let why = if self.host == 0 || self.container == 0 || self.count == 0 {
            "is port 0, or no port"
        } else if last(self.host).max(last(self.container)) > u16::MAX.into() {
            "goes beyond port 65535"
        } else {
            match self.address {
                Some(IpAddr::V6(address)) if address.is_loopback() => {
                    "cannot be published at ::1: the kernel does not route it"
                }
                Some(IpAddr::V4(address)) if address.is_loopback() && !loopback => {
                    "is at the host's loopback, which the network does not allow"
                }
                Some(address) if address.is_multicast() => "is at an address that is no host's",
                _ => return Ok(()),
            }
        };
        Err(Error::config(format!("port {self}"), why))
    }
}

/// `8080` or `8080-8090`.
struct Range(u16, u16);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        if self.1 > 1 { write!(f, "-{}", u32::from(self.0) + u32::from(self.1) - 1) } else { Ok(()) }
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", Range(self.host, self.count), Range(self.container, self.count), self.protocol)
    }
}

/// A text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no [ADDRESS:]PORT[-LAST]:PORT[-LAST][/tcp|udp|sctp]")]
pub struct ParsePortError(());

impl FromStr for PublishedPort {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        parse(text).ok_or(ParsePortError(()))
    }
}

fn parse(text: &str) -> Option<PublishedPort> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol)?;
    let (rest, container) = ports.rsplit_once(':')?;
    let (address, host) = match rest.rsplit_once(':') {
        // As std reads an address with a port, so that `[::1]` and `1.2.3.4` are what it takes them for.
        Some((address, host)) => (Some(format!("{address}:0").parse::<SocketAddr>().ok()?.ip()), host),
        None => (None, rest),
    };
    let (host, count) = range(host)?;
    let (container, as_many) = range(container)?;
    (count == as_many).then_some(PublishedPort { address, protocol, host, container, count })
}

/// The first of a range, and how many there are.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let [first, last] = [first, last].map(|text| text.parse().ok().filter(|n: &u16| n.to_string() == text && *n > 0));
    let (first, last) = (first?, last?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

impl TryFrom<String> for PublishedPort {
    type Error = ParsePortError;

    fn try_from(text: String) -> Result<Self, ParsePortError> {
        text.parse()
    }
}

impl From<PublishedPort> for String {
    fn from(port: PublishedPort) -> String {
        port.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text() {
        for (text, shown) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"),
            ("[fd00::1]:53:5353/udp", "[fd00::1]:53:5353/udp"),
            ("8000-8010:80-90/sctp", "8000-8010:80-90/sctp"),
            ("0.0.0.0:1:1", "0.0.0.0:1:1/tcp"),
        ] {
            assert_eq!(text.parse::<PublishedPort>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "8080:80/icmp",
            "8080:80/",
            "1-2:3",
            "2-1:2-1",
            "65536:1",
            "+1:1",
            "fd00::1:53:53",
            "host:1:1",
            "1:1:1",
            "1.2.3.4:1:2:3",
            "01:1",
        ] {
            assert!(text.parse::<PublishedPort>().is_err(), "{text}");
        }
        let range: PublishedPort = "8000-8002:80-82".parse().unwrap();
        assert_eq!(range.pairs().collect::<Vec<_>>(), [(8000, 80), (8001, 81), (8002, 82)]);
    }

    #[test]
    fn what_cannot_be_published() {
        let check = |port: PublishedPort, loopback| port.check(loopback).map_err(|error| error.to_string());
        check(PublishedPort::new(1, 65535), false).unwrap();
        check(PublishedPort::new(1, 1).at([127, 0, 0, 1]), true).unwrap();
        for (port, why) in [
            (PublishedPort::new(0, 1), "port 0"),
            (PublishedPort::new(1, 1).count(0), "port 0"),
            (PublishedPort::new(1, 65535).count(2), "beyond"),
            (PublishedPort::new(1, 1).at([127, 0, 0, 1]), "does not allow"),
            (PublishedPort::new(1, 1).at([0, 0, 0, 0, 0, 0, 0, 1]), "::1"),
            (PublishedPort::new(1, 1).at([224, 0, 0, 1]), "no host's"),
        ] {
            assert!(check(port, false).unwrap_err().contains(why), "{port}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(v6: Option<bool>, bits: u128, host in 1u16..=65000, container in 1u16..=65000, count in 1u16..500, n in 0usize..3) {
            let mut port = PublishedPort::new(host, container).count(count).protocol(Protocol::ALL[n]);
            if let Some(v6) = v6 {
                let v4 = u32::try_from(bits & 0xffff_ffff).unwrap();
                port = port.at(if v6 { IpAddr::from(bits.to_be_bytes()) } else { IpAddr::from(v4.to_be_bytes()) });
            }
            prop_assert_eq!(port.to_string().parse::<PublishedPort>(), Ok(port));
        }

        #[test]
        fn any_text(text in "[0-9a-f:./\\[\\]-]{0,30}") {
            let _ = text.parse::<PublishedPort>();
        }
    }
}
