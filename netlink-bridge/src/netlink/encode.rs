//! Writing netlink messages: lengths, alignment, nests, and what an error must know about each message.

use crate::Operation;

/// Bytes of a message's header, `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// How many messages are in one send at most: an answer to each must fit into the socket's buffer.
pub(crate) const MESSAGES_PER_SEND: usize = 64;

/// A type of attribute, with the name by which errors call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) number: u16,
    pub(super) name: &'static str,
}

/// Messages for one send.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sent: Vec<Sent>,
}

/// What must be known of a message when its answer comes.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) operation: Operation,
    /// The name of its type.
    pub(super) call: &'static str,
    /// What it is about.
    pub(super) object: String,
    /// Where it begins in the batch.
    start: usize,
    /// Where each of its attributes begins, counted from the message's begin, as the kernel does.
    attributes: Vec<(usize, &'static str)>,
    /// Whether it asks for a list, which ends differently.
    pub(super) dump: bool,
    /// Whether it only marks where a transaction begins or ends: it gets no answer, unless all of it fails.
    pub(super) mark: bool,
    /// The type of what it asks for; 0 if it asks for nothing.
    pub(super) reply: u16,
    /// Where each of several objects begins that it is about.
    parts: Vec<(usize, String)>,
}

impl Sent {
    /// The attribute that begins at this offset, or the innermost one before it.
    pub(super) fn attribute_at(&self, offset: u32) -> Option<&'static str> {
        let offset = usize::try_from(offset).ok()?;
        self.attributes.iter().rfind(|(at, _)| *at <= offset).map(|(_, name)| *name)
    }

    /// What it is about: the one of several objects that this offset is in, if it is known.
    pub(super) fn object_at(&self, offset: Option<u32>) -> &str {
        let offset = offset.and_then(|offset| usize::try_from(offset).ok());
        let part = offset.and_then(|offset| self.parts.iter().rfind(|(at, _)| *at <= offset));
        part.map_or(&self.object, |(_, object)| object)
    }
}

/// A message's type with its name, and its flags without those that every request has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) number: u16,
    pub(super) name: &'static str,
    pub(super) flags: u16,
    /// The type of the messages that answer it; 0 if only an acknowledgement does.
    pub(super) reply: u16,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a message, whose body is the bytes of its fixed part, and attributes that `fill` writes.
    pub(super) fn message(
        &mut self,
        kind: Kind,
        (operation, object): (Operation, &str),
        body: &[u8],
        fill: impl FnOnce(&mut Message<'_>),
    ) {
        self.any_message(kind, (operation, object), body, false, fill);
    }

    /// Adds the mark of a transaction's begin or end.
    pub(super) fn mark(
        &mut self,
        kind: Kind,
        about: (Operation, &str),
        body: &[u8],
        fill: impl FnOnce(&mut Message<'_>),
    ) {
        self.any_message(kind, about, body, true, fill);
    }

    fn any_message(
        &mut self,
        kind: Kind,
        (operation, object): (Operation, &str),
        body: &[u8],
        mark: bool,
        fill: impl FnOnce(&mut Message<'_>),
    ) {
        let start = self.bytes.len();
        let dump = kind.flags & flag::DUMP == flag::DUMP;
        let flags = kind.flags | flag::REQUEST | if mark { 0 } else { flag::ACK };
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.number.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(body);
        align(&mut self.bytes);
        let mut message = Message { bytes: &mut self.bytes, start, attributes: Vec::new(), parts: Vec::new() };
        fill(&mut message);
        let Message { attributes, parts, .. } = message;
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        put(&mut self.bytes, start, &length.to_ne_bytes());
        let (call, reply, object) = (kind.name, kind.reply, object.to_owned());
        self.sent.push(Sent { operation, call, object, start, attributes, dump, mark, reply, parts });
    }

    /// Numbers the messages, from `first` on, and gives what is to be sent.
    pub(super) fn number(&mut self, first: u32) -> &[u8] {
        let starts = self.sent.iter().map(|sent| sent.start);
        for (sequence, start) in (0..).map(|n| first.wrapping_add(n)).zip(starts) {
            put(&mut self.bytes, start + 8, &sequence.to_ne_bytes());
        }
        &self.bytes
    }

    pub(super) fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// The same messages in batches of at most [`MESSAGES_PER_SEND`]. Each should be sent only when the one before it has succeeded.
    pub(crate) fn pieces(mut self) -> Vec<Batch> {
        let mut pieces = Vec::new();
        while self.sent.len() > MESSAGES_PER_SEND {
            let mut rest = self.sent.split_off(MESSAGES_PER_SEND);
            let end = rest.first().map_or(self.bytes.len(), |next| next.start);
            for sent in &mut rest {
                sent.start -= end;
            }
            let bytes = self.bytes.split_off(end);
            pieces.push(std::mem::replace(&mut self, Batch { bytes, sent: rest }));
        }
        pieces.push(self);
        pieces
    }
}

/// A message that is being written.
#[derive(Debug)]
pub(super) struct Message<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    attributes: Vec<(usize, &'static str)>,
    parts: Vec<(usize, String)>,
}

impl Message<'_> {
    /// Says that what follows is about this object, one of several.
    pub(super) fn part(&mut self, object: impl Into<String>) {
        self.parts.push((self.bytes.len() - self.start, object.into()));
    }

    /// Adds an attribute with this value.
    pub(super) fn bytes(&mut self, attribute: Attribute, value: &[u8]) {
        self.nest(attribute, |message| message.bytes.extend_from_slice(value));
    }

    pub(super) fn u32(&mut self, attribute: Attribute, value: u32) {
        self.bytes(attribute, &value.to_ne_bytes());
    }

    /// Adds a number as netfilter wants it: the high byte first.
    pub(super) fn be32(&mut self, attribute: Attribute, value: u32) {
        self.bytes(attribute, &value.to_be_bytes());
    }

    /// Adds a string, which ends with a NUL.
    pub(super) fn string(&mut self, attribute: Attribute, value: &str) {
        self.nest(attribute, |message| {
            message.bytes.extend_from_slice(value.as_bytes());
            message.bytes.push(0);
        });
    }

    /// Adds something that is no attribute, such as a header inside a nest.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        align(self.bytes);
    }

    /// Adds an attribute that holds what `fill` adds, and is marked as such: netfilter wants that in places.
    pub(super) fn nested(&mut self, attribute: Attribute, fill: impl FnOnce(&mut Self)) {
        self.nest(Attribute { number: attribute.number | NLA_F_NESTED, ..attribute }, fill);
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(super) fn nest(&mut self, attribute: Attribute, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attributes.push((start - self.start, attribute.name));
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&attribute.number.to_ne_bytes());
        fill(self);
        // Every value here is of bounded length, checked in the specs; the kernel refuses a length that does not fit.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        put(self.bytes, start, &length.to_ne_bytes());
        align(self.bytes);
    }
}

const NLA_F_NESTED: u16 = 0x8000;

/// Flags of requests, `linux/netlink.h`.
pub(super) mod flag {
    pub(in super::super) const REQUEST: u16 = 0x1;
    pub(in super::super) const ACK: u16 = 0x4;
    pub(in super::super) const EXCL: u16 = 0x200;
    pub(in super::super) const CREATE: u16 = 0x400;
    pub(in super::super) const APPEND: u16 = 0x800;
    pub(in super::super) const DUMP: u16 = 0x300;
}

fn align(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Overwrites what was left open.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::{attributes, messages};
    use super::*;
    use proptest::prelude::*;

    const KIND: Kind = Kind { number: 16, name: "RTM_NEWLINK", flags: flag::CREATE, reply: 0 };
    const ABOUT: (Operation, &str) = (Operation::CreatePair, "x");
    const OUTER: Attribute = Attribute { number: 18, name: "OUTER" };
    const INNER: Attribute = Attribute { number: 1, name: "INNER" };

    #[test]
    fn an_attribute_is_found_by_its_offset() {
        let mut batch = Batch::new();
        batch.message(KIND, ABOUT, &[0; 16], |_| {});
        batch.message(KIND, ABOUT, &[0; 16], |m| m.nest(OUTER, |m| m.u32(INNER, 1)));
        let sent = &batch.sent()[1];
        for (offset, name) in [(31, None), (32, Some("OUTER")), (36, Some("INNER")), (44, Some("INNER"))] {
            assert_eq!(sent.attribute_at(offset), name, "{offset}");
        }
    }

    proptest! {
        /// What is written can be read, and all lengths are right.
        #[test]
        fn written_and_read(values in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8), first: u32) {
            let mut batch = Batch::new();
            for _ in 0..2 {
                batch.message(KIND, ABOUT, &[7; 12], |m| {
                    for (number, value) in &values {
                        m.bytes(Attribute { number: number & 0x3fff, name: "X" }, value);
                    }
                });
            }
            let bytes = batch.number(first).to_vec();
            let read: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), 2);
            for (n, message) in (0..).zip(read) {
                prop_assert_eq!((message.kind, message.sequence), (16, first.wrapping_add(n)));
                let found: Vec<_> = attributes(&message.payload[12..]).map(|a| a.unwrap()).collect();
                let wanted: Vec<_> = values.iter().map(|(number, value)| (number & 0x3fff, &value[..])).collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
