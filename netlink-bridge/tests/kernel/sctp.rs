//! A published SCTP port. Few kernels have sockets of it, but all that track connections change its packets: these are written by hand.

use crate::support::{PATIENCE, outside, within};
use crate::with_rules::{A_WHILE, create, families, finish, forwarding, publishing};
use rustix::net::{AddressFamily, SocketType, ipproto};
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

/// RFC 9260, 3.2: the kinds of the first two messages of an association.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// What is of interest in such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    /// By which the receiver knows the association: 0 in the first message.
    tag: u32,
    kind: u8,
    /// By which the sender will know it.
    own_tag: u32,
}

impl Packet {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = [self.from.to_be_bytes(), self.to.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind, 0, 0, 20]);
        bytes.extend(self.own_tag.to_be_bytes());
        // How much it takes, its streams both ways, and its first number.
        bytes.extend([0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
        let checksum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&checksum);
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        let packet = Packet { from: u16_at(0), to: u16_at(2), tag: u32_at(4), kind: bytes[12], own_tag: u32_at(16) };
        assert_eq!(bytes, packet.bytes(), "nothing else was changed, and the checksum is right");
        packet
    }
}

/// The checksum of SCTP, RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// A raw socket for SCTP; std's type only sends and receives by it.
fn raw(address: IpAddr) -> UdpSocket {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddr::from((address, 0))).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn send(socket: &UdpSocket, to: IpAddr, packet: Packet) {
    socket.send_to(&packet.bytes(), (to, 0)).unwrap();
}

fn receive(socket: &UdpSocket) -> std::io::Result<(IpAddr, Packet)> {
    let mut buffer = [0; 128];
    let (length, from) = socket.recv_from(&mut buffer)?;
    // Of IPv4, the IP header comes with it.
    let header = if from.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
    Ok((from.ip(), Packet::read(&buffer[header..length])))
}

/// A question gets to the container, and its answer comes from where the question was sent to; other ports lead nowhere, and this one not any more
/// when it has been taken back.
pub(crate) fn published_over_sctp() {
    let machine = outside();
    let (host, network) = create(&forwarding());
    let (netns, endpoint) = publishing(&network, 2, &["3868:9899/sctp"]);
    for (public, remote, inner, _) in families() {
        let (client, inside) = (within(&machine, || raw(remote)), within(&netns, || raw(inner(2))));
        let first = Packet { from: 5000, to: 3868, tag: 0, kind: INIT, own_tag: 0x1234_5678 };
        send(&client, public, first);
        assert_eq!(receive(&inside).unwrap(), (remote, Packet { to: 9899, ..first }));
        let answer = Packet { from: 9899, to: 5000, tag: first.own_tag, kind: INIT_ACK, own_tag: 0x9abc_def0 };
        send(&inside, remote, answer);
        assert_eq!(receive(&client).unwrap(), (public, Packet { from: 3868, ..answer }));
        send(&client, public, Packet { from: 5001, to: 9899, ..first });
        inside.set_read_timeout(Some(A_WHILE)).unwrap();
        assert_eq!(receive(&inside).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    endpoint.detach(&host).unwrap();
    let (netns, endpoint) = publishing(&network, 2, &["3869:9899/sctp"]);
    for (public, remote, inner, _) in families() {
        let (client, inside) = (within(&machine, || raw(remote)), within(&netns, || raw(inner(2))));
        let send_both = |first: u16| {
            for (from, to) in [(first, 3868), (first + 1, 3869)] {
                send(&client, public, Packet { from, to, tag: 0, kind: INIT, own_tag: 1 });
            }
        };
        // The kernel lets a bridge's new port forward a moment after it is there: packets before that are lost.
        inside.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let end = Instant::now() + PATIENCE;
        let came = loop {
            send_both(5002);
            match receive(&inside) {
                Err(_) if Instant::now() < end => {}
                came => break came.unwrap().1.from,
            }
        };
        assert_eq!(came, 5003);
        // From now on none is lost: the first of these two never came either.
        inside.set_read_timeout(Some(PATIENCE)).unwrap();
        send_both(5004);
        let mut later = std::iter::repeat_with(|| receive(&inside).unwrap().1.from).skip_while(|from| *from == 5003);
        assert_eq!(later.next(), Some(5005));
    }
    finish(&host, &network, &[endpoint]);
}
