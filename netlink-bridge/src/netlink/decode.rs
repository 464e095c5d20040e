//! Reading netlink messages, without trust in any length. Pure; a fuzzer's target.

/// What was received is no sequence of netlink messages, or no such message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages in a datagram, until the end or the first that is malformed.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (message, after) = message(rest).map_or((Err(Malformed), &[][..]), |(m, after)| (Ok(m), after));
        rest = after;
        Some(message)
    })
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let (length, after) = take_u32(bytes)?;
    let (kind, after) = take_u16(after)?;
    let (flags, after) = take_u16(after)?;
    let (sequence, after) = take_u32(after)?;
    let (_port, _) = take_u32(after)?;
    let (whole, rest) = split_aligned(bytes, usize::try_from(length).ok()?)?;
    let payload = whole.get(super::encode::HEADER..)?;
    Some((Message { kind, flags, sequence, payload }, rest))
}

/// The attributes in a message's or a nest's bytes, without the flags in their types, until the end or the first that is malformed.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (attribute, after) = attribute(rest).map_or((Err(Malformed), &[][..]), |(a, after)| (Ok(a), after));
        rest = after;
        Some(attribute)
    })
}

/// An attribute's type and value.
type Attribute<'a> = (u16, &'a [u8]);

fn attribute(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (length, after) = take_u16(bytes)?;
    let (kind, _) = take_u16(after)?;
    let (whole, rest) = split_aligned(bytes, length.into())?;
    Some(((kind & 0x3fff, whole.get(4..)?), rest))
}

/// The first `length` bytes, and what follows them after padding; the last one's padding may be missing.
fn split_aligned(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let whole = bytes.get(..length)?;
    let next = length.checked_next_multiple_of(4)?;
    Some((whole, bytes.get(next..).unwrap_or_default()))
}

/// The kernel's verdict on a message, `struct nlmsgerr` with extended acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// 0: done.
    pub(super) errno: i32,
    pub(super) message: Option<String>,
    /// Where the attribute that it objects to begins in the request.
    pub(super) offset: Option<u32>,
}

const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

impl Verdict {
    /// Reads an acknowledgement or, with `header_follows` false, the end of a list.
    pub(super) fn parse(flags: u16, payload: &[u8], header_follows: bool) -> Result<Self, Malformed> {
        let (error, mut rest) = take_u32(payload).ok_or(Malformed)?;
        // The kernel gives the errno's negative.
        let errno = error.cast_signed().checked_neg().filter(|errno| *errno >= 0).ok_or(Malformed)?;
        if header_follows {
            let (length, _) = take_u32(rest).ok_or(Malformed)?;
            let capped = flags & CAPPED != 0;
            let quoted = if capped { super::encode::HEADER } else { usize::try_from(length).map_err(|_| Malformed)? };
            (_, rest) = split_aligned(rest, quoted.max(super::encode::HEADER)).ok_or(Malformed)?;
        }
        let mut verdict = Verdict { errno, message: None, offset: None };
        if flags & ACK_TLVS == 0 {
            return Ok(verdict);
        }
        for attribute in attributes(rest) {
            match attribute? {
                (NLMSGERR_ATTR_MSG, text) => verdict.message = Some(string(text)),
                (NLMSGERR_ATTR_OFFS, value) => verdict.offset = take_u32(value).map(|(value, _)| value),
                _ => {}
            }
        }
        Ok(verdict)
    }
}

/// A string up to its NUL.
pub(super) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

pub(super) fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (value, rest) = bytes.split_first_chunk()?;
    Some((u16::from_ne_bytes(*value), rest))
}

pub(super) fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = bytes.split_first_chunk()?;
    Some((u32::from_ne_bytes(*value), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A refusal as Linux 6.18 sends it, for an address that is none.
    fn refusal() -> Vec<u8> {
        let mut bytes = 0u32.wrapping_sub(99).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[44, 0, 0, 0, 20, 0, 5, 6, 1, 0, 0, 0, 9, 0, 0, 0]);
        bytes.extend_from_slice(&[13, 0, 1, 0]);
        bytes.extend_from_slice(b"no such\0\0");
        bytes.extend_from_slice(&[0, 0, 0, 8, 0, 2, 0, 24, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found() {
        let mut bytes = refusal();
        // Length 13: four of header, nine of text with its NULs; three of padding.
        let verdict = Verdict::parse(CAPPED | ACK_TLVS, &bytes, true).unwrap();
        assert_eq!(verdict, Verdict { errno: 99, message: Some("no such".into()), offset: Some(24) });
        let plain = Verdict::parse(CAPPED, &bytes, true).unwrap();
        assert_eq!(plain, Verdict { errno: 99, message: None, offset: None });
        bytes.truncate(3);
        assert_eq!(Verdict::parse(CAPPED, &bytes, true), Err(Malformed));
    }

    #[test]
    fn malformed_messages_end_the_reading() {
        for bytes in [
            &[1u8][..],
            &[0; 16],
            &[15, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[17, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(messages(bytes).collect::<Vec<_>>(), [Err(Malformed)], "{bytes:?}");
        }
        for bytes in [&[0u8][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4]] {
            assert_eq!(attributes(bytes).collect::<Vec<_>>(), [Err(Malformed)], "{bytes:?}");
        }
        // An error that is positive, or that has no negative.
        for error in [1u32, 0x8000_0000] {
            assert_eq!(Verdict::parse(0, &error.to_ne_bytes(), false), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>, flags: u16, follows: bool) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16 + 1);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
            let _ = Verdict::parse(flags, &bytes, follows);
            let _ = super::super::Link::parse(&bytes);
        }

        /// Bytes that look more like the kernel's: one of a real reply is changed, or its end is cut off.
        #[test]
        fn damaged_bytes(at in 0usize..44, value: u8, length in 0usize..44) {
            let mut bytes = refusal();
            let last = bytes.len() - 1;
            bytes[at.min(last)] = value;
            bytes.truncate(length);
            let _ = Verdict::parse(CAPPED | ACK_TLVS, &bytes, true);
            let _ = Verdict::parse(ACK_TLVS, &bytes, true);
        }
    }
}
