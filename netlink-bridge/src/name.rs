//! Names of links, ids of endpoints, tags of owners: which are allowed, and how one follows from another.

use crate::{Error, Mac};
use std::fmt;

/// The most bytes that a link's name can have, `IFNAMSIZ` without the NUL.
const LONGEST_NAME: usize = 15;
/// The most bytes of an owner or an id. With its prefix an owner fits into `IFALIASZ`.
const LONGEST_TAG: usize = 200;
/// Before the owner in a link's alias.
const ALIAS: &str = "cofferdam:";

/// Checks the name of a link, as the kernel would, and that it can be a folder below `/proc/sys/net/ipv4/conf`.
pub(crate) fn check_link(what: &'static str, name: &str) -> Result<(), Error> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST_NAME {
        "is longer than 15 bytes"
    } else if !name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%')) {
        "has other characters than letters, digits and punctuation without / : %"
    } else if matches!(name, "." | ".." | "all" | "default" | "lo") {
        "is reserved"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("{what} {name}"), why))
}

/// Checks an owner or an id: it is to be read by people, and compared.
pub(crate) fn check_tag(what: &'static str, tag: &str) -> Result<(), Error> {
    let why = if tag.is_empty() {
        "is empty"
    } else if tag.len() > LONGEST_TAG {
        "is longer than 200 bytes"
    } else if tag.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(Error::config(format!("{what} {tag}"), why))
}

/// The owner that an alias tells; nothing if it is none of ours.
pub(crate) fn owner(alias: &str) -> Option<&str> {
    alias.strip_prefix(ALIAS)
}

/// The alias that says whose a link is.
pub(crate) fn alias(owner: &str) -> String {
    format!("{ALIAS}{owner}")
}

/// What the kernel keeps beside each published port: whose it is. At most 251 bytes, of 254 that there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointTag<'a> {
    /// The name of the host's end.
    pub(crate) port: &'a str,
    /// Its random MAC address, by which two of the same name are told apart.
    pub(crate) mac: Mac,
    /// The name of the network.
    pub(crate) network: &'a str,
    /// Last, because it may have spaces.
    pub(crate) owner: &'a str,
}

impl<'a> EndpointTag<'a> {
    pub(crate) fn parse(tag: &'a str) -> Option<Self> {
        let mut parts = tag.splitn(4, ' ');
        let (port, mac) = (parts.next()?, parts.next()?.parse().ok()?);
        Some(EndpointTag { port, mac, network: parts.next()?, owner: parts.next()? })
    }
}

impl fmt::Display for EndpointTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.port, self.mac, self.network, self.owner)
    }
}

/// The name of the host's end of the endpoint with this id.
///
/// A short and simple id is readable in it; of any other it has a hash, which cannot look like a short one.
pub(crate) fn port(id: &str) -> String {
    let simple = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if simple && id.len() <= 12 { format!("cd-{id}") } else { format!("cd{}", base32(hash64(&[id.as_bytes()]))) }
}

/// An id out of a number's last 48 bits.
pub(crate) fn id(random: u64) -> String {
    format!("{:012x}", random & 0xffff_ffff_ffff)
}

/// FNV-1a over the parts, each with its length, so that `ab c` and `a bc` differ. It must never change: links on the machine carry it.
pub(crate) fn hash64(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| (part.len() as u64).to_le_bytes().into_iter().chain(part.iter().copied()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The same in 32 bits.
pub(crate) fn hash32(parts: &[&[u8]]) -> u32 {
    let hash = hash64(parts);
    u32::try_from((hash >> 32) ^ (hash & 0xffff_ffff)).unwrap_or(0)
}

/// 64 bits as 13 small letters and digits.
fn base32(number: u64) -> String {
    let digit = |shift: u32| char::from_digit(u32::try_from(number >> shift & 31).unwrap_or(0), 32).unwrap_or('0');
    (0..13).map(|n| digit(n * 5)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_links() {
        for name in ["br0", "a", "br-ci_1.x@y", "abcdefghijklmno"] {
            check_link("network", name).unwrap();
        }
        for (name, why) in [
            ("", "is empty"),
            ("abcdefghijklmnop", "15"),
            ("a b", "characters"),
            ("a/b", "characters"),
            ("a:b", "characters"),
            ("br%d", "characters"),
            ("a\0", "characters"),
            ("ä", "characters"),
            ("..", "reserved"),
            ("lo", "reserved"),
            ("all", "reserved"),
        ] {
            let error = check_link("network", name).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn names_of_ports() {
        assert_eq!(port("web"), "cd-web");
        assert_eq!(port("a1b2c3d4e5f6"), "cd-a1b2c3d4e5f6");
        assert_eq!(id(0x0bad_a1b2_c3d4_e5f6), "a1b2c3d4e5f6");
        // They are on machines: a release that changes them cannot detach what an older one attached.
        assert_eq!(port("a1b2c3d4e5f60"), "cdmc9d2u8qbr1b2");
        assert_eq!(port("a b"), "cd7o6v499q7fr3c");
    }

    #[test]
    fn tags() {
        check_tag("owner", "my-ci/job 7 ä").unwrap();
        for tag in ["", "a\nb", "\u{7f}", &"x".repeat(201)] {
            check_tag("owner", tag).unwrap_err();
        }
        assert_eq!(alias("me"), "cofferdam:me");
        assert!(alias(&"x".repeat(LONGEST_TAG)).len() < 256);
    }

    #[test]
    fn tags_of_endpoints() {
        let tag = EndpointTag { port: "cd-web", mac: Mac::new([2; 6]), network: "br0", owner: "my ci  7" };
        assert_eq!(EndpointTag::parse(&tag.to_string()), Some(tag));
        assert_eq!(EndpointTag::parse("cd-web 02:02:02:02:02:02 br0"), None);
        let (name, owner) = ("x".repeat(LONGEST_NAME), "x".repeat(LONGEST_TAG));
        let longest = EndpointTag { port: &name, mac: Mac::new([2; 6]), network: &name, owner: &owner };
        assert!(longest.to_string().len() <= 251);
    }

    proptest! {
        #[test]
        fn every_id_has_a_valid_name(id in ".{1,80}") {
            prop_assert!(check_link("port", &port(&id)).is_ok());
        }

        #[test]
        fn different_ids_have_different_names(a in "[a-c. ]{1,14}", b in "[a-c. ]{1,14}") {
            prop_assert_eq!(port(&a) == port(&b), a == b);
        }

        #[test]
        fn parts_do_not_run_together(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_ne!(hash64(&[&a, &b]), hash64(&[&[&a[..], &b[..]].concat()]));
        }
    }
}
