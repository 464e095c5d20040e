//! What a stack of layers shows: the semantics of a union, as plain values.
//!
//! The kernel does this for a mount. Whoever flattens layers, compares them or tests either needs it without one; the tests of this crate
//! mount thousands of random stacks and compare.
//!
//! ```
//! use cofferdam_unionfs::model::{Directory, Node, merge};
//!
//! let mut lower = Directory::new("755");
//! lower.insert("kept", Node::File("a"));
//! lower.insert("gone", Node::File("b"));
//! let mut upper = Directory::new("700");
//! upper.insert("gone", Node::Whiteout);
//!
//! let merged = merge(&[&upper, &lower]).unwrap(); // topmost first
//! assert_eq!(merged.attributes, "700");
//! assert_eq!(merged.entries.keys().collect::<Vec<_>>(), ["kept"]);
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

/// A directory of a layer, with all that is in it. `T` is what the caller knows of a file or directory: nothing is read into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory<T> {
    /// What is known of the directory itself.
    pub attributes: T,
    /// It hides the directories of its name in the layers below, instead of merging with them. On the root of a layer, too, as
    /// [`Overlay`](crate::Overlay) has it.
    pub opaque: bool,
    /// What is in it.
    pub entries: BTreeMap<OsString, Node<T>>,
}

/// What a layer can have under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<T> {
    /// A directory.
    Directory(Directory<T>),
    /// Anything else that is shown: a file, a link, a device. Of two with one name the upper one is shown, as a whole.
    File(T),
    /// Nothing is shown, whatever the layers below have.
    Whiteout,
}

impl<T> Directory<T> {
    /// An empty directory that is not opaque.
    pub fn new(attributes: T) -> Self {
        Directory { attributes, opaque: false, entries: BTreeMap::new() }
    }

    /// Puts something into it, and gives what had that name before.
    pub fn insert(&mut self, name: impl Into<OsString>, node: Node<T>) -> Option<Node<T>> {
        self.entries.insert(name.into(), node)
    }
}

/// What a stack of layers shows, given by their roots, topmost first. No layers show nothing, not even a root.
///
/// The answer has no whiteouts and is not opaque anywhere.
#[must_use]
pub fn merge<T: Clone>(layers: &[&Directory<T>]) -> Option<Directory<T>> {
    let (top, _) = layers.split_first()?;
    // Below the first that is opaque nothing is seen.
    let end = layers.iter().position(|layer| layer.opaque).map_or(layers.len(), |opaque| opaque + 1);
    let visible = layers.get(..end).unwrap_or_default();
    let names: BTreeSet<&OsString> = visible.iter().flat_map(|layer| layer.entries.keys()).collect();
    let mut merged = Directory::new(top.attributes.clone());
    for name in names {
        if let Some(node) = shown(visible, name) {
            merged.entries.insert(name.clone(), node);
        }
    }
    Some(merged)
}

/// What is shown under one name.
fn shown<T: Clone>(layers: &[&Directory<T>], name: &OsStr) -> Option<Node<T>> {
    let mut directories = Vec::new();
    for node in layers.iter().filter_map(|layer| layer.entries.get(name)) {
        match node {
            Node::Directory(directory) => directories.push(directory),
            // Under a directory it is hidden, and hides what is below.
            Node::File(_) | Node::Whiteout if !directories.is_empty() => break,
            Node::File(file) => return Some(Node::File(file.clone())),
            Node::Whiteout => return None,
        }
    }
    merge(&directories).map(Node::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Layer = Directory<u8>;

    fn dir(attributes: u8, opaque: bool, entries: &[(&str, Node<u8>)]) -> Layer {
        Directory { attributes, opaque, entries: entries.iter().map(|(n, e)| ((*n).into(), e.clone())).collect() }
    }

    fn sub(attributes: u8, opaque: bool, entries: &[(&str, Node<u8>)]) -> Node<u8> {
        Node::Directory(dir(attributes, opaque, entries))
    }

    #[test]
    fn one_name_in_two_layers() {
        use Node::{File, Whiteout};
        let lower_dir = || sub(1, false, &[("x", File(1)), ("y", File(1))]);
        for (upper, lower, expected) in [
            (File(2), Some(File(1)), Some(File(2))),
            (File(2), Some(lower_dir()), Some(File(2))),
            (Whiteout, Some(File(1)), None),
            (Whiteout, Some(lower_dir()), None),
            (Whiteout, None, None),
            (sub(2, false, &[]), Some(File(1)), Some(sub(2, false, &[]))),
            (sub(2, false, &[]), Some(Whiteout), Some(sub(2, false, &[]))),
            (sub(2, false, &[("x", Whiteout)]), Some(lower_dir()), Some(sub(2, false, &[("y", File(1))]))),
            (sub(2, true, &[("z", File(2))]), Some(lower_dir()), Some(sub(2, false, &[("z", File(2))]))),
            (sub(2, true, &[("x", Whiteout)]), Some(lower_dir()), Some(sub(2, false, &[]))),
        ] {
            let (upper, lower) = (dir(0, false, &[("n", upper)]), lower.map(|node| dir(9, false, &[("n", node)])));
            let stack: Vec<&Layer> = std::iter::once(&upper).chain(&lower).collect();
            assert_eq!(merge(&stack).unwrap().entries.get(OsStr::new("n")), expected.as_ref(), "{stack:?}");
        }
        assert_eq!(merge::<u8>(&[]), None);
    }

    #[test]
    fn what_is_in_the_middle_hides_what_is_below_it() {
        use Node::{File, Whiteout};
        let top = dir(3, false, &[("n", sub(3, false, &[]))]);
        let bottom = dir(1, false, &[("n", sub(1, false, &[("x", File(1))]))]);
        for (middle, shows) in
            [(File(2), false), (Whiteout, false), (sub(2, true, &[]), false), (sub(2, false, &[]), true)]
        {
            let middle = dir(2, false, &[("n", middle)]);
            let expected = if shows { sub(3, false, &[("x", File(1))]) } else { sub(3, false, &[]) };
            assert_eq!(merge(&[&top, &middle, &bottom]).unwrap().entries.get(OsStr::new("n")), Some(&expected));
        }
        let opaque_root = dir(2, true, &[]);
        assert_eq!(merge(&[&top, &opaque_root, &bottom]), merge(&[&top, &opaque_root]));
    }

    fn node() -> impl Strategy<Value = Node<u8>> {
        let leaf = prop_oneof![any::<u8>().prop_map(Node::File), Just(Node::Whiteout)];
        leaf.prop_recursive(3, 24, 3, |inner| directory(inner).prop_map(Node::Directory))
    }

    fn directory(inner: impl Strategy<Value = Node<u8>>) -> impl Strategy<Value = Layer> {
        let entries = proptest::collection::btree_map("[abc]".prop_map(OsString::from), inner, 0..3);
        (any::<u8>(), proptest::bool::weighted(0.2), entries).prop_map(|(attributes, opaque, entries)| Directory {
            attributes,
            opaque,
            entries,
        })
    }

    fn layers() -> impl Strategy<Value = Vec<Layer>> {
        proptest::collection::vec(directory(node()), 1..5)
    }

    fn is_plain(directory: &Layer) -> bool {
        !directory.opaque
            && directory.entries.values().all(|node| match node {
                Node::Directory(directory) => is_plain(directory),
                Node::File(_) => true,
                Node::Whiteout => false,
            })
    }

    proptest! {
        #[test]
        fn a_merged_tree_says_nothing_about_layers(layers in layers()) {
            let stack: Vec<&Layer> = layers.iter().collect();
            let merged = merge(&stack).unwrap();
            prop_assert!(is_plain(&merged));
            prop_assert_eq!(merge(&[&merged]), Some(merged));
        }

        /// What is below can be merged first: so a store may flatten the lower part of a stack.
        #[test]
        fn the_lower_part_can_be_flattened(layers in layers(), at in 0..4_usize) {
            let stack: Vec<&Layer> = layers.iter().collect();
            let (upper, lower) = stack.split_at(at.min(stack.len() - 1));
            let flat = merge(lower).unwrap();
            let again: Vec<&Layer> = upper.iter().copied().chain([&flat]).collect();
            prop_assert_eq!(merge(&again), merge(&stack));
        }

        /// The same layer again below itself changes nothing: so an overlay may drop it.
        #[test]
        fn a_layer_twice_is_as_once(layers in layers(), again in 0..4_usize, at in 0..5_usize) {
            let mut stack: Vec<&Layer> = layers.iter().collect();
            let expected = merge(&stack);
            let again = again.min(stack.len() - 1);
            let copy = *stack.get(again).unwrap();
            stack.insert(at.clamp(again + 1, stack.len()), copy);
            prop_assert_eq!(merge(&stack), expected);
        }
    }
}
