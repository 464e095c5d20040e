//! The kernel's text: numbers and `key value` lines, from bytes, without allocation. Nothing here can panic.

use std::time::Duration;

use crate::error::{Error, Result};

/// A decimal number that fills the whole text, white space around it aside.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| match byte {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A number of microseconds.
pub(crate) fn micros(text: &[u8]) -> Option<Duration> {
    number(text).map(Duration::from_micros)
}

/// The `key value` lines of a flat-keyed file. Lines of another form are passed over.
pub(crate) fn fields(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut words = words(line);
        let (key, value) = (words.next()?, number(words.next()?)?);
        words.next().is_none().then_some((key, value))
    })
}

/// The value of one key of a flat-keyed file.
pub(crate) fn field(text: &[u8], key: &str) -> Option<u64> {
    fields(text).find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
}

/// The `key=value` pairs of a line.
pub(crate) fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    words(line).filter_map(|word| {
        let at = word.iter().position(|byte| *byte == b'=')?;
        Some((word.get(..at)?, word.get(at + 1..)?))
    })
}

/// The first word of a line, and what follows it.
pub(crate) fn first_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii();
    let at = line.iter().position(u8::is_ascii_whitespace)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// The number of a process or thread as text, for the kernel. 0 would be the caller itself.
pub(crate) fn positive(id: u32, what: &str) -> Result<String> {
    if id == 0 || i32::try_from(id).is_err() {
        return Err(Error::invalid(id.to_string(), what, "the number is positive"));
    }
    Ok(id.to_string())
}

/// Words separated by white space.
pub(crate) fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// The process numbers of a `cgroup.procs`. A process that this pid namespace cannot see is listed as 0 on v2, and
/// is passed over.
pub(crate) fn pids(text: &[u8]) -> impl Iterator<Item = u32> {
    words(text).filter_map(number).filter_map(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"42\n"), Some(42));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "\n", "-1", "max", "18446744073709551616", "1 2", "+1"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn only_pairs_are_fields() {
        let text = b"a 1\nb\nc x\nd 2 3\ne 4";
        let found: Vec<_> = fields(text).collect();
        assert_eq!(found, [(b"a".as_slice(), 1), (b"e".as_slice(), 4)]);
    }

    #[test]
    fn invisible_processes_are_passed_over() {
        assert_eq!(pids(b"0\n7\n0\n12\n").collect::<Vec<_>>(), [7, 12]);
    }

    proptest! {
        #[test]
        fn any_number_comes_back(n: u64) {
            prop_assert_eq!(number(format!("{n}\n").as_bytes()), Some(n));
        }

        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = number(&text);
            let _ = fields(&text).count();
            let _ = pids(&text).count();
        }
    }
}
