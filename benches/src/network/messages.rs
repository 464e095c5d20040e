//! The messages of the floor, byte by byte; and what is read of the kernel's answers.

use std::net::Ipv4Addr;

/// A link that is to be made, and its other end.
#[derive(Debug, Clone)]
pub(super) struct Pair<'a> {
    pub(super) port: &'a str,
    pub(super) port_mac: [u8; 6],
    pub(super) bridge: u32,
    pub(super) group: u32,
    /// A descriptor of the container's namespace.
    pub(super) namespace: i32,
    pub(super) mac: [u8; 6],
}

/// What is published: each port of the host leads to the same of the container.
#[derive(Debug, Clone)]
pub(super) struct Ports {
    pub(super) at: Vec<u16>,
    pub(super) to: Ipv4Addr,
    pub(super) tag: String,
}

const REQUEST_ACK: u16 = 1 | 4;
const CREATE_EXCL: u16 = REQUEST_ACK | 0x400 | 0x200;
const NESTED: u16 = 0x8000;
const IFF_UP: u32 = 1;
/// Loopback's, in every network namespace.
const LOOPBACK: u32 = 1;

fn message(kind: u16, flags: u16, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &body].concat()
}

fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &number.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(number: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(number, &parts.concat())
}

fn string(number: u16, value: &str) -> Vec<u8> {
    attribute(number, &[value.as_bytes(), &[0]].concat())
}

fn number(attribute_number: u16, value: u32) -> Vec<u8> {
    attribute(attribute_number, &value.to_ne_bytes())
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let [i, f] = [index, flags].map(u32::to_ne_bytes);
    [0, 0, 0, 0, i[0], i[1], i[2], i[3], f[0], f[1], f[2], f[3], f[0], f[1], f[2], f[3]]
}

/// Creates both ends, and asks for their indices: two messages.
pub(super) fn create_and_find(pair: &Pair<'_>) -> Vec<u8> {
    let mtu = number(4, 1500);
    let peer = [
        link(0, 0).to_vec(),
        string(3, "eth0"),
        attribute(1, &pair.mac),
        mtu.clone(),
        number(28, pair.namespace.cast_unsigned()),
    ];
    let of_veth = nest(18, &[string(1, "veth"), nest(2, &[nest(1, &peer)])]);
    let attributes = [
        string(3, pair.port),
        attribute(1, &pair.port_mac),
        mtu,
        number(27, pair.group),
        number(10, pair.bridge),
        of_veth,
    ];
    let create = message(16, CREATE_EXCL, &[&link(0, 0), &attributes.concat()]);
    [create, find(pair.port)].concat()
}

/// Asks for a link, without its counters.
pub(super) fn find(name: &str) -> Vec<u8> {
    message(18, REQUEST_ACK, &[&link(0, 0), &string(3, name), &number(29, 8)])
}

/// Brings a link up or down.
pub(super) fn set_up(index: u32, up: bool) -> Vec<u8> {
    let mut header = link(index, IFF_UP);
    // The flags; what follows says which of them are meant.
    header[8..12].copy_from_slice(&u32::from(up).to_ne_bytes());
    message(19, REQUEST_ACK, &[&header])
}

/// Tags a port and brings it up; `hairpin` is what one that publishes ports has.
pub(super) fn port_up(index: u32, alias: &str, hairpin: bool) -> Vec<u8> {
    let (up, alias) = (link(index, IFF_UP), attribute(20, alias.as_bytes()));
    if !hairpin {
        return message(19, REQUEST_ACK, &[&up, &alias]);
    }
    let settings = nest(5, &[attribute(33, &[0]), attribute(4, &[1])]);
    message(16, REQUEST_ACK, &[&up, &alias, &nest(18, &[string(4, "bridge"), settings])])
}

/// Loopback up, the address, the interface tagged and up, the default route: four messages.
pub(super) fn inside(index: u32, alias: &str, address: Ipv4Addr, gateway: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = index.to_ne_bytes();
    let octets = address.octets();
    let broadcast = [octets[0], octets[1], 255, 255];
    let of_address = [attribute(2, &octets), attribute(1, &octets), attribute(4, &broadcast)].concat();
    let route = [2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    let of_route = [attribute(5, &gateway.octets()), number(4, index)].concat();
    [
        message(19, REQUEST_ACK, &[&link(LOOPBACK, IFF_UP)]),
        message(20, CREATE_EXCL, &[&[2, 16, 2, 0, a, b, c, d], &of_address]),
        message(19, REQUEST_ACK, &[&link(index, IFF_UP), &attribute(20, alias.as_bytes())]),
        message(24, CREATE_EXCL, &[&route, &of_route]),
    ]
    .concat()
}

pub(super) fn delete(port: &str) -> Vec<u8> {
    message(17, REQUEST_ACK, &[&link(0, 0), &string(3, port)])
}

pub(super) fn delete_group(group: u32) -> Vec<u8> {
    message(17, REQUEST_ACK, &[&link(0, 0), &number(27, group)])
}

/// Asks by which way an address far away is reached.
pub(super) fn find_route() -> Vec<u8> {
    message(26, REQUEST_ACK, &[&[2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &attribute(1, &[203, 0, 113, 1])])
}

const INET: [u8; 4] = [1, 0, 0, 0];
/// The subsystem of `nf_tables`, in the type of a message.
const NFT: u16 = 0xa00;

/// A transaction that adds the ports to the map, with one verdict.
pub(super) fn publish(ports: &Ports) -> Vec<u8> {
    let to = |port: u16| [&ports.to.octets()[..], &in_four(port)].concat();
    let length = u8::try_from(ports.tag.len() + 1).unwrap_or(u8::MAX);
    let tag = attribute(6, &[&[0, length][..], ports.tag.as_bytes(), &[0]].concat());
    let elements: Vec<Vec<u8>> = ports
        .at
        .iter()
        .map(|port| nest(1 | NESTED, &[key(*port), nest(2 | NESTED, &[attribute(1, &to(*port))]), tag.clone()]))
        .collect();
    transaction(&message(NFT | 0xc, CREATE_EXCL, &[&INET, &of_map(&elements)]))
}

/// A transaction that takes them out again, with one verdict.
pub(super) fn unpublish(ports: &[u16]) -> Vec<u8> {
    let elements: Vec<Vec<u8>> = ports.iter().map(|port| nest(1 | NESTED, &[key(*port)])).collect();
    transaction(&message(NFT | 0xe, REQUEST_ACK, &[&INET, &of_map(&elements)]))
}

/// Asks for a published port.
pub(super) fn find_port(port: u16) -> Vec<u8> {
    message(NFT | 0xd, REQUEST_ACK, &[&INET, &of_map(&[nest(1 | NESTED, &[key(port)])])])
}

fn transaction(message_of_it: &[u8]) -> Vec<u8> {
    let mark = |kind| message(kind, 1, &[&[0, 0, 0, 10]]);
    [&mark(16), message_of_it, &mark(17)].concat()
}

fn of_map(elements: &[Vec<u8>]) -> Vec<u8> {
    [string(1, "cofferdam"), string(2, "ports4"), nest(3 | NESTED, elements)].concat()
}

/// TCP and a port of the host.
fn key(port: u16) -> Vec<u8> {
    nest(1 | NESTED, &[attribute(1, &[&[6, 0, 0, 0], &in_four(port)[..]].concat())])
}

fn in_four(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The index, that of the other end, and the group in the answer to [`find`].
pub(super) fn found_link(body: &[u8]) -> Option<(u32, u32, u32)> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let of = |number| find_attribute(body.get(16..)?, number)?.first_chunk().copied().map(u32::from_ne_bytes);
    // A link without a peer, such as a bridge, has no such attribute.
    Some((index, of(5).unwrap_or(0), of(27)?))
}

/// The gateway in the answer to [`find_route`].
pub(super) fn found_gateway(body: &[u8]) -> Option<Ipv4Addr> {
    find_attribute(body.get(12..)?, 5)?.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn find_attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let number = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        if number == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_say_where_the_next_one_begins() {
        let pair = Pair { port: "cd-a", port_mac: [2; 6], bridge: 7, group: 9, namespace: 3, mac: [6; 6] };
        let address = Ipv4Addr::new(10, 88, 200, 2);
        let ports = Ports { at: vec![80, 81], to: address, tag: "cd-a".into() };
        let count = |mut bytes: &[u8]| {
            let mut count = 0;
            while let Some(length) = bytes.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
                assert!(length >= 16 && length % 4 == 0, "{length}");
                (bytes, count) = (&bytes[length..], count + 1);
            }
            count
        };
        assert_eq!(count(&create_and_find(&pair)), 2);
        assert_eq!(count(&inside(2, "cofferdam:me", address, Ipv4Addr::new(10, 88, 0, 1))), 4);
        assert_eq!([count(&publish(&ports)), count(&unpublish(&ports.at))], [3, 3]);
        assert_eq!([true, false].map(|hairpin| count(&port_up(2, "x", hairpin))), [1, 1]);
    }

    #[test]
    fn what_is_read() {
        let attributes = [string(3, "cd-a"), number(5, 8), number(27, 9)].concat();
        assert_eq!(found_link(&[&link(7, 0)[..], &attributes].concat()), Some((7, 8, 9)));
        let route = [&[0; 12][..], &attribute(1, &[1; 4]), &attribute(5, &[10, 88, 0, 1])].concat();
        assert_eq!(found_gateway(&route), Some(Ipv4Addr::new(10, 88, 0, 1)));
        assert_eq!((found_link(&[0; 18]), found_gateway(&[])), (None, None));
    }
}
