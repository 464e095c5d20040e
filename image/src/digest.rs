//! Digests: the names of blobs. One is made only from bytes, or by a strict parser, so that it can be part of a path.

use crate::{Error, ErrorKind, Operation};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// An algorithm for digests, one of the two that OCI registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256, which nearly every image uses.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name as digests have it, which is also the name of the folder of such blobs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// The number of hexadecimal digits of a digest.
    fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The digest of a blob, like `sha256:6c3c624b58db…`.
///
/// Only a registered algorithm, a colon and the right number of *lower-case* hexadecimal digits make one. It has no
/// slash, no dot and one spelling, so two digests are equal exactly if their texts are.
///
/// ```
/// use cofferdam_image::Digest;
///
/// let empty: Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse()?;
/// assert_eq!(empty, Digest::of(b""));
/// assert!("sha256:../../../etc/passwd".parse::<Digest>().is_err());
/// # Ok::<(), cofferdam_image::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its digits, lower-case hexadecimal; also the name of the blob's file.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// # Errors
    /// [`Malformed`](ErrorKind::Malformed) for all that is not a digest, [`Unsupported`](ErrorKind::Unsupported) for
    /// an algorithm that is not known here.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |kind, words| Err(Error::new(kind, Operation::ParseDigest, words).about(text));
        let Some((name, hex)) = text.split_once(':') else {
            return fail(ErrorKind::Malformed, "has no colon");
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return fail(ErrorKind::Unsupported, "is of an unknown algorithm"),
        };
        #[cfg(feature = "test-hooks")]
        if crate::test_hooks::is_off(crate::test_hooks::Defence::Digests) {
            return Ok(Digest { algorithm, hex: hex.into() });
        }
        if hex.len() != algorithm.digits() {
            return fail(ErrorKind::Malformed, "has the wrong number of digits");
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return fail(ErrorKind::Malformed, "has something else than lower-case hexadecimal digits");
        }
        Ok(Digest { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Digests what comes piece by piece.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest { algorithm: Algorithm::Sha256, hex: hex(&hasher.finalize()) },
            Hasher::Sha512(hasher) => Digest { algorithm: Algorithm::Sha512, hex: hex(&hasher.finalize()) },
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_answers() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), abc);
        let mut sha512 = Hasher::new(Algorithm::Sha512);
        sha512.update(b"a");
        sha512.update(b"bc");
        let text = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(sha512.finish(), text.parse().unwrap());
    }

    #[test]
    fn what_is_no_digest() {
        let good = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, kind) in [
            (String::new(), ErrorKind::Malformed),
            (good.to_owned(), ErrorKind::Malformed),
            (format!("sha256:{}", good.to_uppercase()), ErrorKind::Malformed),
            (format!("sha256:{good}0"), ErrorKind::Malformed),
            (format!("sha256:{}", &good[1..]), ErrorKind::Malformed),
            (format!("sha256:{good}\n"), ErrorKind::Malformed),
            (format!("sha256:../{}", &good[3..]), ErrorKind::Malformed),
            (format!("sha256:sha256:{}", &good[7..]), ErrorKind::Malformed),
            (format!("sha512:{good}"), ErrorKind::Malformed),
            (format!("SHA256:{good}"), ErrorKind::Unsupported),
            (format!("md5:{}", &good[32..]), ErrorKind::Unsupported),
            (format!("../sha256:{good}"), ErrorKind::Unsupported),
            (format!(" sha256:{good}"), ErrorKind::Unsupported),
        ] {
            assert_eq!(text.parse::<Digest>().unwrap_err().kind(), kind, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_back_and_safe_as_a_file_name(text in "(sha256|sha512|md5):[0-9a-fA-F./]{60,130}|.*") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
                prop_assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }

        #[test]
        fn every_digest_is_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let digest = Digest::of(&bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }
    }
}
