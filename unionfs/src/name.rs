//! Whiteouts in archives: names with a prefix, as the OCI image specification has them.

use crate::{Error, Operation};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const PREFIX: &[u8] = b".wh.";
/// A second prefix within: what AUFS kept for itself, of which OCI took one name over.
const META: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..opq";

/// What the last component of an archive entry's path says, if it is not the name of a file.
///
/// ```
/// use cofferdam_unionfs::WhiteoutName;
/// use std::ffi::OsStr;
///
/// assert_eq!(WhiteoutName::parse("passwd")?, None);
/// assert_eq!(WhiteoutName::parse(".wh.passwd")?, Some(WhiteoutName::Whiteout(OsStr::new("passwd"))));
/// assert_eq!(WhiteoutName::parse(".wh..wh..opq")?, Some(WhiteoutName::Opaque));
/// assert!(WhiteoutName::parse(".wh...").is_err());
/// # Ok::<(), cofferdam_unionfs::Error>(())
/// ```
///
/// An archive can give such an entry any type (file, directory, hard link): the name decides, so look at it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhiteoutName<'a> {
    /// `.wh.NAME`: hides NAME of the layers below. It says nothing about a NAME in the same layer.
    Whiteout(&'a OsStr),
    /// `.wh..wh..opq`: the directory that it is in is opaque.
    Opaque,
    /// Another name that begins with `.wh..wh.`: what AUFS kept for itself (`.wh..wh.plnk`), which ended up in images of
    /// its time. It is no whiteout of anything; skip or refuse it. Here is the whole name.
    Reserved(&'a OsStr),
}

impl<'a> WhiteoutName<'a> {
    /// Reads the last component of an entry's path. `None`: an ordinary name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if what comes after the prefix is no name of a file: nothing, `.`, `..`; or
    /// if `name` is not one component, or has a zero byte.
    pub fn parse<N: AsRef<OsStr> + ?Sized>(name: &'a N) -> Result<Option<Self>, Error> {
        let name = name.as_ref();
        let refuse = |words| Err(Error::invalid(Operation::ParseName, name, words));
        if name.as_bytes().iter().any(|b| matches!(b, b'/' | 0)) {
            return refuse("is not one component of a path");
        }
        let Some(rest) = name.as_bytes().strip_prefix(PREFIX) else {
            return Ok(None);
        };
        match rest {
            b"" => refuse("is a whiteout of nothing"),
            b"." | b".." => refuse("is a whiteout of what is not a name"),
            OPAQUE => Ok(Some(WhiteoutName::Opaque)),
            rest if rest.starts_with(META) => Ok(Some(WhiteoutName::Reserved(name))),
            rest => Ok(Some(WhiteoutName::Whiteout(OsStr::from_bytes(rest)))),
        }
    }

    /// The name as an archive has it. [`parse`](Self::parse) reads it back, if a whiteout's NAME was the name of a file in a
    /// layer: one that does not itself begin with `.wh.`, which archives cannot express.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        match self {
            WhiteoutName::Whiteout(name) => OsString::from_vec([PREFIX, name.as_bytes()].concat()),
            WhiteoutName::Opaque => OsString::from_vec([PREFIX, OPAQUE].concat()),
            WhiteoutName::Reserved(name) => (*name).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn every_sort_of_name() {
        use WhiteoutName::{Opaque, Reserved, Whiteout};
        let whiteout = |name| Some(Whiteout(OsStr::new(name)));
        let reserved = |name| Some(Reserved(OsStr::new(name)));
        for (name, expected) in [
            ("passwd", None),
            ("", None),
            (".", None),
            ("..", None),
            (".wh", None),
            (".whx", None),
            (".WH.x", None),
            ("x.wh.y", None),
            (".wh.x", whiteout("x")),
            (".wh. ", whiteout(" ")),
            (".wh.\n", whiteout("\n")),
            (".wh....", whiteout("...")),
            (".wh..x", whiteout(".x")),
            (".wh..wh", whiteout(".wh")),
            (".wh..opq", whiteout(".opq")),
            (".wh..wh..opq", Some(Opaque)),
            (".wh..wh.", reserved(".wh..wh.")),
            (".wh..wh.x", reserved(".wh..wh.x")),
            (".wh..wh.plnk", reserved(".wh..wh.plnk")),
            (".wh..wh..opqx", reserved(".wh..wh..opqx")),
            (".wh..wh..wh..opq", reserved(".wh..wh..wh..opq")),
        ] {
            assert_eq!(WhiteoutName::parse(name).unwrap(), expected, "{name:?}");
        }
        for name in [".wh.", ".wh..", ".wh...", ".wh.a/b", ".wh./", "a/b", "/", "a\0", ".wh.\0"] {
            let error = WhiteoutName::parse(name).unwrap_err();
            assert_eq!((error.kind(), error.object()), (ErrorKind::InvalidInput, Some(OsStr::new(name))));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_back(name in proptest::collection::vec(any::<u8>(), 0..12), prefixes in 0..4_usize) {
            let name = OsString::from_vec([PREFIX.repeat(prefixes), name].concat());
            if let Ok(Some(parsed)) = WhiteoutName::parse(&name) {
                prop_assert_eq!(parsed.to_os_string(), name);
            }
        }

        #[test]
        fn a_whiteout_is_of_a_name_in_this_directory(name in proptest::collection::vec(any::<u8>(), 0..6)) {
            let name = OsString::from_vec([PREFIX.to_vec(), name].concat());
            if let Ok(Some(WhiteoutName::Whiteout(of))) = WhiteoutName::parse(&name) {
                prop_assert!(!matches!(of.as_bytes(), b"" | b"." | b".."));
                prop_assert!(!of.as_bytes().iter().any(|b| matches!(b, 0 | b'/')));
            }
        }

        #[test]
        fn what_is_written_is_read_back(name in proptest::collection::vec(any::<u8>(), 1..12)) {
            let name = OsString::from_vec(name);
            let whiteout = WhiteoutName::Whiteout(&name);
            if WhiteoutName::parse(&name).is_ok_and(|n| n.is_none()) && name != "." && name != ".." {
                let written = whiteout.to_os_string();
                prop_assert_eq!(WhiteoutName::parse(&written).unwrap(), Some(whiteout));
            }
        }
    }
}
