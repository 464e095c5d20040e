//! Names of entries: from the bytes of a hostile archive to a path inside the layer, or a whiteout.

use crate::{Error, ErrorKind, Limits, Operation};
use cofferdam_unionfs::WhiteoutName;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const COMPONENT_BYTES: usize = 255;

/// A path below the layer's root: components joined by single slashes, none of them empty, `.` or `..`. The root itself is empty.
pub(super) type TreePath = Vec<u8>;

/// What the name of an entry says. The type of the entry says nothing before that: a whiteout can have any.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Entry(TreePath),
    /// This is hidden in the layers below.
    Whiteout(TreePath),
    /// All in this directory is hidden in the layers below.
    Opaque(TreePath),
    /// AUFS' own.
    Reserved,
}

/// Reads the name of an entry.
pub(super) fn meaning(name: &[u8], limits: &Limits) -> Result<Meaning, Error> {
    let path = tree_path(name, limits)?;
    let (parent, leaf) = split(&path);
    for component in components(parent) {
        match parse(component)? {
            None => {}
            Some(WhiteoutName::Reserved(_)) => return Ok(Meaning::Reserved),
            Some(_) => return Err(Error::refused("is below a whiteout")),
        }
    }
    Ok(match parse(leaf)? {
        None => Meaning::Entry(path),
        Some(WhiteoutName::Opaque) => Meaning::Opaque(parent.to_vec()),
        Some(WhiteoutName::Whiteout(of)) => Meaning::Whiteout(join(parent, of.as_bytes())),
        Some(WhiteoutName::Reserved(_)) => Meaning::Reserved,
    })
}

/// Reads a name as a path below the root: a leading slash means the root too, `..` is refused.
pub(super) fn tree_path(name: &[u8], limits: &Limits) -> Result<TreePath, Error> {
    if name.is_empty() {
        return Err(Error::refused("has an empty name"));
    }
    let mut path = TreePath::with_capacity(name.len());
    let mut depth = 0;
    for component in components(name) {
        match component {
            b"" | b"." => continue,
            #[cfg(feature = "test-hooks")]
            b".." if crate::test_hooks::is_off(crate::test_hooks::Defence::Names) => path = join(&path, b".."),
            b".." => return Err(Error::refused("has a name with a component \"..\"")),
            long if long.len() > COMPONENT_BYTES => {
                return Err(Error::limit(Operation::Unpack, "bytes in a component of a name", COMPONENT_BYTES as u64));
            }
            component => path = join(&path, component),
        }
        depth += 1;
        if depth > limits.depth {
            return Err(Error::limit(Operation::Unpack, "components in a name", limits.depth as u64));
        }
    }
    Ok(path)
}

pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
}

/// The parent and the last component. The parent of a component alone is the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

pub(super) fn join(parent: &[u8], leaf: &[u8]) -> TreePath {
    if parent.is_empty() { leaf.to_vec() } else { [parent, b"/", leaf].concat() }
}

/// The path's ancestors, beginning with the root, without itself.
pub(super) fn ancestors(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let root = if path.is_empty() { None } else { path.get(..0) };
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
    root.into_iter().chain(slashes.filter_map(|(slash, _)| path.get(..slash)))
}

fn parse(component: &[u8]) -> Result<Option<WhiteoutName<'_>>, Error> {
    #[cfg(feature = "test-hooks")]
    if crate::test_hooks::is_off(crate::test_hooks::Defence::Names) && component.starts_with(b".wh..") {
        return Ok(component.strip_prefix(b".wh.").map(|of| WhiteoutName::Whiteout(OsStr::from_bytes(of))));
    }
    WhiteoutName::parse(OsStr::from_bytes(component))
        .map_err(|_| Error::new(ErrorKind::Refused, Operation::Unpack, "is a whiteout of what is not a name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str) -> Result<Meaning, ErrorKind> {
        meaning(name.as_bytes(), &Limits::default()).map_err(|e| e.kind())
    }

    #[test]
    fn every_sort_of_name() {
        let entry = |path: &str| Ok(Meaning::Entry(path.into()));
        let refused = || Err(ErrorKind::Refused);
        for (name, expected) in [
            ("a", entry("a")),
            ("./a//b/./c/", entry("a/b/c")),
            ("/etc/passwd", entry("etc/passwd")),
            ("//", entry("")),
            (".", entry("")),
            ("./", entry("")),
            ("...", entry("...")),
            ("a/..b", entry("a/..b")),
            ("", refused()),
            ("..", refused()),
            ("a/../b", refused()),
            ("a/..", refused()),
            ("/../x", refused()),
            (".wh.a", Ok(Meaning::Whiteout("a".into()))),
            ("/x/.wh.a/", Ok(Meaning::Whiteout("x/a".into()))),
            (".wh..wh..opq", Ok(Meaning::Opaque("".into()))),
            ("x/y/.wh..wh..opq", Ok(Meaning::Opaque("x/y".into()))),
            (".wh..wh.plnk", Ok(Meaning::Reserved)),
            (".wh..wh.plnk/1.2", Ok(Meaning::Reserved)),
            (".wh.", refused()),
            ("x/.wh..", refused()),
            ("x/.wh...", refused()),
            (".wh.a/b", refused()),
            (".wh..wh..opq/b", refused()),
        ] {
            assert_eq!(read(name), expected, "{name:?}");
        }
        assert_eq!(read(&"x".repeat(256)), Err(ErrorKind::LimitExceeded));
        assert_eq!(read(&"x/".repeat(129)), Err(ErrorKind::LimitExceeded));
        assert!(read(&"x/".repeat(128)).is_ok());
    }

    #[test]
    fn ancestors_begin_with_the_root() {
        assert!(ancestors(b"a/b/c").eq([&b""[..], b"a", b"a/b"]));
        assert!(ancestors(b"a").eq([&b""[..]]));
        assert_eq!(ancestors(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn a_path_stays_inside(name in "(/|\\.|\\.wh\\.|[ab]|\\PC){0,12}") {
            let found = meaning(name.as_bytes(), &Limits::default());
            if let Ok(Meaning::Entry(path) | Meaning::Whiteout(path) | Meaning::Opaque(path)) = found {
                prop_assert!(path.is_empty() || components(&path).all(|c| !matches!(c, b"" | b"." | b"..")));
                let (parent, leaf) = split(&path);
                prop_assert_eq!(join(parent, leaf), path);
            }
        }
    }
}
