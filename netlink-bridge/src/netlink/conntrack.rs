//! The messages by which the kernel is made to forget connections, `nf_conntrack_netlink`.

use super::decode::{Malformed, attributes};
use super::encode::{Attribute, Batch, Kind, flag};
use super::route::{address, define_attributes};
use super::socket::Answers;
use crate::{Error, Operation};
use std::collections::BTreeSet;
use std::net::IpAddr;

define_attributes! {
    CTA_TUPLE_ORIG = 1 CTA_TUPLE_REPLY = 2 CTA_STATUS = 3 CTA_ID = 12 CTA_ZONE = 18 CTA_FILTER = 25
    CTA_TUPLE_IP = 1 CTA_TUPLE_PROTO = 2 CTA_PROTO_NUM = 1 CTA_PROTO_SRC_PORT = 2 CTA_PROTO_DST_PORT = 3
    CTA_IP_V4_SRC = 1 CTA_IP_V6_SRC = 3
    CTA_FILTER_ORIG_FLAGS = 1
}

const LIST: Kind = Kind { number: 1 << 8 | 1, name: "IPCTNL_MSG_CT_GET", flags: flag::DUMP, reply: 1 << 8 };
const DELETE: Kind = Kind { number: 1 << 8 | 2, name: "IPCTNL_MSG_CT_DELETE", flags: 0, reply: 0 };
/// Of the filter: compare the protocol's number, the destination's port.
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_TO_PORT: u32 = 1 << 5;
const IPS_SRC_NAT: u32 = 1 << 4;
const IPS_DST_NAT: u32 = 1 << 5;

/// A connection that the kernel remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    family: u8,
    pub(crate) protocol: u8,
    pub(crate) to_port: u16,
    /// From where its answers come, which is where its packets lead, whatever they are sent to.
    pub(crate) answered_by: Option<(IpAddr, u16)>,
    status: u32,
    /// The bytes of what identifies it, which are sent back as they came.
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

impl Connection {
    /// Whether it only goes through here under the host's address: such a one has nothing to do with a port of the host.
    pub(crate) fn goes_out(&self) -> bool {
        self.status & IPS_SRC_NAT != 0 && self.status & IPS_DST_NAT == 0
    }
}

impl Batch {
    /// Those to one port, or to any. The kernel looks at all that it has, but sends no others.
    pub(crate) fn list_connections(&mut self, operation: Operation, family: u8, protocol: u8, to_port: Option<u16>) {
        self.message(LIST, (operation, "connections"), &[family, 0, 0, 0], |m| {
            m.nested(CTA_TUPLE_ORIG, |m| {
                m.nested(CTA_TUPLE_PROTO, |m| {
                    m.bytes(CTA_PROTO_NUM, &[protocol]);
                    if let Some(port) = to_port {
                        m.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                    }
                });
            });
            let flags = FILTER_PROTOCOL | if to_port.is_some() { FILTER_TO_PORT } else { 0 };
            m.nested(CTA_FILTER, |m| m.u32(CTA_FILTER_ORIG_FLAGS, flags));
        });
    }

    pub(crate) fn forget(&mut self, operation: Operation, connection: &Connection) {
        let object = format!("connection to port {}", connection.to_port);
        self.message(DELETE, (operation, &object), &[connection.family, 0, 0, 0], |m| {
            let marked = Attribute { number: CTA_TUPLE_ORIG.number | 0x8000, ..CTA_TUPLE_ORIG };
            m.bytes(marked, &connection.tuple);
            m.bytes(CTA_ID, &connection.id);
            if let Some(zone) = &connection.zone {
                m.bytes(CTA_ZONE, zone);
            }
        });
    }
}

impl Answers {
    pub(crate) fn connections(self) -> Result<Vec<Connection>, Error> {
        self.list(connection)
    }
}

/// Whether this is one to these ports: of a list of very many, few are kept. What makes no sense is, and is told later.
pub(crate) fn is_to(payload: &[u8], ports: &BTreeSet<u16>) -> bool {
    connection(payload).map_or(true, |found| ports.contains(&found.to_port))
}

fn connection(payload: &[u8]) -> Result<Connection, Malformed> {
    let (head, rest) = payload.split_first_chunk::<4>().ok_or(Malformed)?;
    let [family, ..] = *head;
    let mut found = Connection { family, ..Connection::default() };
    for attribute in attributes(rest) {
        let (number, value) = attribute?;
        if number == CTA_TUPLE_ORIG.number {
            found.tuple = value.to_vec();
            ports(value, &mut found)?;
        } else if number == CTA_TUPLE_REPLY.number {
            found.answered_by = source(value)?;
        } else if number == CTA_STATUS.number {
            found.status = value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        } else if number == CTA_ID.number {
            found.id = value.to_vec();
        } else if number == CTA_ZONE.number {
            found.zone = Some(value.to_vec());
        }
    }
    Ok(found)
}

fn ports(tuple: &[u8], found: &mut Connection) -> Result<(), Malformed> {
    for part in attributes(tuple) {
        let (number, value) = part?;
        if number != CTA_TUPLE_PROTO.number {
            continue;
        }
        for attribute in attributes(value) {
            let (number, value) = attribute?;
            if number == CTA_PROTO_NUM.number {
                found.protocol = value.first().copied().unwrap_or(0);
            } else if number == CTA_PROTO_DST_PORT.number {
                found.to_port = value.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            }
        }
    }
    Ok(())
}

/// The source of a tuple.
fn source(tuple: &[u8]) -> Result<Option<(IpAddr, u16)>, Malformed> {
    let (mut from, mut port) = (None, None);
    for nest in attributes(tuple) {
        let (nest, value) = nest?;
        for attribute in attributes(value) {
            let (number, value) = attribute?;
            if nest == CTA_TUPLE_IP.number && [CTA_IP_V4_SRC.number, CTA_IP_V6_SRC.number].contains(&number) {
                from = address(value);
            } else if nest == CTA_TUPLE_PROTO.number && number == CTA_PROTO_SRC_PORT.number {
                port = value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            }
        }
    }
    Ok(from.zip(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = connection(&bytes);
        }
    }

    #[test]
    fn read_and_sent_back() {
        let mut batch = Batch::new();
        let tuple = [8, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 3, 0, 0, 53, 0, 0];
        let mut tuple = tuple.to_vec();
        tuple[0] = 20;
        let id = vec![1, 2, 3, 4];
        let sent = Connection { family: 2, protocol: 17, to_port: 53, tuple, id, ..Connection::default() };
        batch.forget(Operation::Publish, &sent);
        let mut bytes = batch.number(1).to_vec();
        assert_eq!(connection(&bytes[16..]).unwrap(), sent);
        // As the kernel describes it, with where its answers come from: 10.0.0.2, port 5353.
        bytes.extend([36, 0, 2, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 10, 0, 0, 2]);
        bytes.extend([20, 0, 2, 0x80, 5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0x14, 0xe9, 0, 0]);
        let answered_by = Some(([10, 0, 0, 2].into(), 5353));
        assert_eq!(connection(&bytes[16..]).unwrap(), Connection { answered_by, ..sent });
    }
}
