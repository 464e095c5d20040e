//! Subnets and MAC addresses: values, text, and the rules about them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP address with the length of its network's prefix: `10.88.0.0/16`, `fd00:88::/64`.
///
/// As a subnet of a [`NetworkSpec`](crate::NetworkSpec) the bits after the prefix must be zero; as an address of an
/// [`Endpoint`](crate::Endpoint) they say which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
#[doc(alias("CIDR", "IpNet", "prefix"))]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// This address and this many leading bits; `None` if there are not so many.
    #[must_use]
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Option<Self> {
        let address = address.into();
        (prefix <= bits(address)).then_some(Subnet { address, prefix })
    }

    /// The address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix, in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, other: impl Into<IpAddr>) -> bool {
        let other = other.into();
        bits(other) == bits(self.address) && self.first_bits(other) == self.first_bits(self.address)
    }

    /// Whether an address is in both.
    pub(crate) fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The address with every bit after the prefix cleared, which names the subnet.
    pub(crate) fn network(self) -> IpAddr {
        from_number(self.address, self.first_bits(self.address))
    }

    /// The address that all hosts of an IPv4 subnet listen to; a subnet of one or two addresses has none, nor has IPv6.
    pub(crate) fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) if self.prefix <= 30 => {
                Some(Ipv4Addr::from_bits(address.to_bits() | u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0)))
            }
            _ => None,
        }
    }

    /// The last address that is in it.
    pub(crate) fn last(self) -> IpAddr {
        let after = bits(self.address) - self.prefix;
        let rest = u128::MAX.checked_shl(after.into()).map_or(u128::MAX, |mask| !mask);
        from_number(self.address, self.first_bits(self.address) | rest)
    }

    /// The address after this one, and after the last one the first.
    pub(crate) fn next(self, address: IpAddr) -> IpAddr {
        let next = from_number(self.address, number(address).wrapping_add(1));
        if address != self.last() && self.contains(next) { next } else { self.network() }
    }

    /// The first address after the subnet's own, which the gateway has if nobody says otherwise.
    pub(crate) fn first_host(self) -> IpAddr {
        from_number(self.address, self.first_bits(self.address) | 1)
    }

    /// Whether a host can have this address: it is inside, and no address of the subnet itself.
    pub(crate) fn can_be_host(self, address: IpAddr) -> bool {
        let apart = bits(self.address) - self.prefix >= 2;
        let reserved = address == self.network() || Some(address) == self.broadcast().map(IpAddr::V4);
        self.contains(address) && !(apart && reserved)
    }

    fn first_bits(self, address: IpAddr) -> u128 {
        let after = bits(self.address) - self.prefix;
        let mask = u128::MAX.checked_shl(after.into()).unwrap_or(0);
        number(address) & mask
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address with this number, of the same family as `like`.
fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        // An IPv4 address' number has 32 bits, and no operation here makes it longer.
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let (address, prefix) = text.split_once('/').ok_or(ParseAddressError("subnet"))?;
        let parsed = address.parse().ok().zip(decimal(prefix));
        parsed
            .and_then(|(address, prefix): (IpAddr, u8)| Subnet::new(address, prefix))
            .ok_or(ParseAddressError("subnet"))
    }
}

/// A number as `Display` writes it: neither `+8` nor `08`.
fn decimal(text: &str) -> Option<u8> {
    text.parse().ok().filter(|n: &u8| n.to_string() == text)
}

/// The hardware address of a link, `IFLA_ADDRESS`: `02:cd:0a:58:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct Mac([u8; 6]);

impl Mac {
    /// These six bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Mac(bytes)
    }

    /// Its six bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// Whether it can be the address of one link: neither a group's address nor zero.
    pub(crate) fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }

    /// A locally administered address of one link, out of a number's last 46 bits.
    pub(crate) fn local(number: u64) -> Self {
        let [_, _, first, rest @ ..] = number.to_be_bytes();
        let mut bytes = [(first | 2) & !1, 0, 0, 0, 0, 0];
        for (byte, random) in bytes.iter_mut().skip(1).zip(rest) {
            *byte = random;
        }
        Mac(bytes)
    }

    /// The MAC address that an interface with this IP address gets if none is asked for.
    ///
    /// The same address always has the same one, so that neighbours that remember it from an earlier container are right.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        let [a, b, c, d] = match address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => crate::name::hash32(&[&address.octets()]).to_be_bytes(),
        };
        Mac([0x02, 0xcd, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

impl FromStr for Mac {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
            *byte = value.ok_or(ParseAddressError("MAC address"))?;
        }
        if parts.next().is_some() { Err(ParseAddressError("MAC address")) } else { Ok(Mac(bytes)) }
    }
}

/// A text is no subnet or no MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no {0}")]
pub struct ParseAddressError(&'static str);

macro_rules! text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = ParseAddressError;

            fn try_from(text: String) -> Result<Self, ParseAddressError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

text!(Subnet);
text!(Mac);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets() {
        for (text, network, broadcast, first) in [
            ("10.88.3.4/16", "10.88.0.0", Some("10.88.255.255"), "10.88.0.1"),
            ("10.0.0.5/30", "10.0.0.4", Some("10.0.0.7"), "10.0.0.5"),
            ("10.0.0.5/31", "10.0.0.4", None, "10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4", None, "10.0.0.5"),
            ("1.2.3.4/0", "0.0.0.0", Some("255.255.255.255"), "0.0.0.1"),
            ("fd00::1:2/64", "fd00::", None, "fd00::1"),
            ("::/0", "::", None, "::1"),
        ] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!(subnet.network(), network.parse::<IpAddr>().unwrap(), "{text}");
            assert_eq!(subnet.broadcast(), broadcast.map(|b| b.parse().unwrap()), "{text}");
            assert_eq!(subnet.first_host(), first.parse::<IpAddr>().unwrap(), "{text}");
            assert_eq!(subnet.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_subnet() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "a/8",
            "/",
            "1.1.1.1/ 8",
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(ParseAddressError("subnet")), "{text}");
        }
    }

    #[test]
    fn hosts_of_a_subnet() {
        let is = |subnet: &str, address: &str| subnet.parse::<Subnet>().unwrap().can_be_host(address.parse().unwrap());
        assert!(is("10.0.0.0/24", "10.0.0.1") && is("10.0.0.0/31", "10.0.0.0") && is("10.0.0.1/32", "10.0.0.1"));
        assert!(!is("10.0.0.0/24", "10.0.0.0") && !is("10.0.0.0/24", "10.0.0.255") && !is("10.0.0.0/24", "10.0.1.1"));
        assert!(is("fd00::/64", "fd00::ffff:ffff:ffff:ffff") && !is("fd00::/64", "fd00::"));
        assert!(!is("0.0.0.0/0", "fd00::1") && !is("::/0", "10.0.0.1"));
    }

    #[test]
    fn mac_addresses() {
        let mac: Mac = "02:cd:0a:58:00:02".parse().unwrap();
        assert_eq!(mac, Mac::of_address(Ipv4Addr::new(10, 88, 0, 2).into()));
        assert_eq!(mac.to_string(), "02:cd:0a:58:00:02");
        for text in
            ["", "02:cd:0a:58:00", "02:cd:0a:58:00:02:01", "2:cd:0a:58:00:02", "0g:cd:0a:58:00:02", "+2:cd:0a:58:00:02"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        assert!(!Mac([0; 6]).is_unicast() && !Mac([1, 0, 0, 0, 0, 1]).is_unicast() && mac.is_unicast());
    }

    proptest! {
        #[test]
        fn text_and_back(address: u128, v4: bool, prefix in 0u8..=128, mac: [u8; 6], number: u64) {
            let like: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let address = from_number(like, if v4 { address & 0xffff_ffff } else { address });
            if let Some(subnet) = Subnet::new(address, prefix) {
                prop_assert_eq!(subnet.to_string().parse::<Subnet>(), Ok(subnet));
                prop_assert!(subnet.contains(address) && subnet.contains(subnet.network()));
                prop_assert!(subnet.broadcast().is_none_or(|b| subnet.contains(b)));
            } else {
                prop_assert!(v4 && prefix > 32);
            }
            prop_assert_eq!(Mac(mac).to_string().parse::<Mac>(), Ok(Mac(mac)));
            prop_assert!(Mac::local(number).is_unicast());
        }

        #[test]
        fn any_text(text in ".{0,40}") {
            let _ = text.parse::<Subnet>();
            let _ = text.parse::<Mac>();
        }
    }
}
