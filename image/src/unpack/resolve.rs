//! Where a name leads: symlinks are followed as a process inside the image would follow them.
//!
//! An entry `lib/x`, where `lib` is a symlink to `usr/lib`, in this layer or a lower one, is `usr/lib/x`: that is what unpacking
//! the layers one onto the other comes to, and what the image's makers saw. A symlink leads at most to the root, never out of it.
//! The result has no symlinks, and is opened in a way that would refuse any.

use super::name::{TreePath, components, join, split};
use crate::{Error, Operation};
use std::collections::VecDeque;

/// As many as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// What is at a path without symlinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Absent,
    Directory,
    Symlink(Vec<u8>),
    Other,
}

/// Follows the symlinks in all components of `path`. `None` if one of them is neither a directory nor absent. Those of the path and of all targets together
/// may be so `many`: few symlinks can lead to and fro between very many.
pub(super) fn resolve(
    path: &[u8],
    many: usize,
    mut look: impl FnMut(&[u8]) -> Result<Node, Error>,
) -> Result<Option<TreePath>, Error> {
    #[cfg(feature = "test-hooks")]
    if crate::test_hooks::is_off(crate::test_hooks::Defence::Resolution) {
        return Ok(Some(path.to_vec()));
    }
    let mut found = TreePath::new();
    let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    let (mut symlinks, mut all) = (0, rest.len());
    while let Some(component) = rest.pop_front() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                found.truncate(split(&found).0.len());
                continue;
            }
            _ => {}
        }
        let candidate = join(&found, &component);
        match look(&candidate)? {
            Node::Absent | Node::Directory => found = candidate,
            Node::Other => return Ok(None),
            Node::Symlink(target) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Error::refused("is below a symbolic link that leads nowhere"));
                }
                all += components(&target).count();
                if all > many {
                    return Err(Error::limit(Operation::Unpack, "components on the way of a path", many as u64));
                }
                if target.starts_with(b"/") {
                    found.clear();
                }
                for component in components(&target).rev() {
                    rest.push_front(component.to_vec());
                }
            }
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn walk(path: &str, symlinks: &[(&str, &str)]) -> Result<Option<String>, Error> {
        let symlinks: BTreeMap<_, _> = symlinks.iter().copied().collect();
        let found = resolve(path.as_bytes(), 200, |path| {
            let path = std::str::from_utf8(path).unwrap();
            Ok(match symlinks.get(path) {
                Some(target) => Node::Symlink(target.as_bytes().to_vec()),
                None if path.ends_with("file") => Node::Other,
                None => Node::Directory,
            })
        })?;
        Ok(found.map(|path| String::from_utf8(path).unwrap()))
    }

    #[test]
    fn symlinks_lead_at_most_to_the_root() {
        for (path, symlinks, expected) in [
            ("", &[][..], Some("")),
            ("a/b", &[], Some("a/b")),
            ("lib/x", &[("lib", "usr/lib")], Some("usr/lib/x")),
            ("lib/x", &[("lib", "/usr/lib")], Some("usr/lib/x")),
            ("a/l/x", &[("a/l", "../b")], Some("b/x")),
            ("a/l/x", &[("a/l", "../../../../etc")], Some("etc/x")),
            ("l", &[("l", "/..//./etc/")], Some("etc")),
            ("l/x", &[("l", "m"), ("m", "n/o"), ("n", "/p")], Some("p/o/x")),
            ("l", &[("l", "/")], Some("")),
            ("file/x", &[], None),
            ("l/x", &[("l", "file")], None),
        ] {
            assert_eq!(walk(path, symlinks).unwrap().as_deref(), expected, "{path} {symlinks:?}");
        }
    }

    #[test]
    fn loops_end() {
        assert!(walk("a", &[("a", "a")]).is_err());
        assert!(walk("a", &[("a", "b"), ("b", "a")]).is_err());
        assert!(walk("a", &[("a", "a/a/a")]).is_err());
    }

    #[test]
    fn to_and_fro_ends() {
        let long = "a/../".repeat(60);
        assert_eq!(walk("l", &[("l", &long)]).unwrap().as_deref(), Some(""));
        let error = walk("l/m", &[("l", &long), ("m", &long)]).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::LimitExceeded);
        assert!(error.to_string().contains("200 components"), "{error}");
    }

    proptest! {
        #[test]
        fn the_result_has_neither_dots_nor_symlinks(
            path in "[abc./]{0,8}",
            symlinks in proptest::collection::btree_map("[abc](/[abc]){0,2}", "[abc./]{1,8}", 0..4),
        ) {
            let list: Vec<(&str, &str)> = symlinks.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            if let Ok(Some(found)) = walk(&path, &list) {
                prop_assert!(found.is_empty() || found.split('/').all(|c| !matches!(c, "" | "." | "..")));
                let mut prefixes = found.match_indices('/').map(|(i, _)| &found[..i]).chain([found.as_str()]);
                prop_assert!(prefixes.all(|p| !symlinks.contains_key(p)));
            }
        }
    }
}
