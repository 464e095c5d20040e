//! Random stacks of layers, of which the model of a union says what they show: so does the mount of what was unpacked, and so does the flattened tree.

use crate::properties::runner_of;
use crate::semantics::seen;
use crate::support::{Scratch, Tar, tree};
use cofferdam_unionfs::model::{Directory, Node, merge};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Few, so that layers have them in common.
const NAMES: &[&str] = &["a", "b", "c", "d\n", "e "];

/// What an archive says of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    kind: Kind,
    mode: u32,
    seconds: u32,
    xattr: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    /// The content, and which of the layer's files it is, if it may have other names.
    File(u16, Option<usize>),
    Symlink(&'static str),
    Fifo,
    /// Another name of a file of its layer: of the first so many that come before it.
    Link(usize),
}

fn facts(kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Facts> {
    let mode = prop::sample::select(vec![0o644, 0o755, 0o600, 0o4711, 0o2750, 0o1777]);
    (kind, mode, 1..2_000_000_000_u32, prop::option::weighted(0.2, any::<u8>()))
        .prop_map(|(kind, mode, seconds, xattr)| Facts { kind, mode, seconds, xattr })
}

fn leaf() -> impl Strategy<Value = Node<Facts>> {
    let kind = prop_oneof![
        4 => any::<u16>().prop_map(|content| Kind::File(content, None)),
        1 => prop::sample::select(NAMES).prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        2 => (0..10_usize).prop_map(Kind::Link),
    ];
    prop_oneof![3 => facts(kind).prop_map(Node::File), 1 => Just(Node::Whiteout)]
}

fn directory(inner: impl Strategy<Value = Node<Facts>>) -> impl Strategy<Value = Directory<Facts>> {
    let names = prop::sample::select(NAMES).prop_map(std::ffi::OsString::from);
    (facts(Just(Kind::Directory)), prop::bool::weighted(0.15), btree_map(names, inner, 0..4))
        .prop_map(|(attributes, opaque, entries)| Directory { attributes, opaque, entries })
}

fn layer() -> impl Strategy<Value = Directory<Facts>> {
    directory(leaf().prop_recursive(3, 30, 4, |inner| directory(inner).prop_map(Node::Directory))).prop_map(settled)
}

/// Files with several names get them: a link becomes the file that it is of, or one of its own if there is none before it.
fn settled(mut root: Directory<Facts>) -> Directory<Facts> {
    fn settle(directory: &mut Directory<Facts>, files: &mut Vec<Facts>) {
        for node in directory.entries.values_mut() {
            match node {
                Node::Directory(inner) => settle(inner, files),
                Node::File(facts) => match facts.kind {
                    Kind::Link(which) if !files.is_empty() => *facts = files[which % files.len()].clone(),
                    Kind::Link(_) | Kind::File(..) => {
                        let content = if let Kind::File(content, _) = facts.kind { content } else { 0 };
                        facts.kind = Kind::File(content, Some(files.len()));
                        files.push(facts.clone());
                    }
                    _ => {}
                },
                Node::Whiteout => {}
            }
        }
    }
    settle(&mut root, &mut Vec::new());
    root
}

/// Files of different layers are different ones.
fn numbered(directory: &mut Directory<Facts>, layer: usize) {
    for node in directory.entries.values_mut() {
        match node {
            Node::Directory(inner) => numbered(inner, layer),
            Node::File(Facts { kind: Kind::File(_, Some(which)), .. }) => *which += layer * 1000,
            Node::File(_) | Node::Whiteout => {}
        }
    }
}

/// The layer as an archive, directories before what is in them.
fn archive(root: &Directory<Facts>) -> Tar {
    let mut first = BTreeMap::new();
    add(Tar::default(), "./", root, &mut first)
}

fn add(tar: Tar, path: &str, directory: &Directory<Facts>, first: &mut BTreeMap<usize, String>) -> Tar {
    let mut tar = entry(tar, path, &directory.attributes, first);
    if directory.opaque {
        tar = tar.entry(&format!("{path}.wh..wh..opq="));
    }
    for (name, node) in &directory.entries {
        let name = name.to_str().unwrap();
        tar = match node {
            Node::Directory(inner) => add(tar, &format!("{path}{name}/"), inner, first),
            Node::File(facts) => entry(tar, &format!("{path}{name}"), facts, first),
            Node::Whiteout => tar.entry(&format!("{path}.wh.{name}=")),
        };
    }
    tar
}

fn entry(tar: Tar, path: &str, facts: &Facts, first: &mut BTreeMap<usize, String>) -> Tar {
    let (flag, link, data) = match &facts.kind {
        Kind::Directory => (b'5', String::new(), String::new()),
        Kind::Symlink(target) => (b'2', (*target).to_owned(), String::new()),
        Kind::Fifo => (b'6', String::new(), String::new()),
        Kind::File(content, which) => match which.and_then(|which| first.insert(which, path.to_owned())) {
            Some(other) => (b'1', other, String::new()),
            None => (b'0', String::new(), content.to_string()),
        },
        Kind::Link(_) => unreachable!("settled"),
    };
    let value = facts.xattr.filter(|_| matches!(flag, b'0' | b'5')).map(|value| value.to_string());
    let tar = match &value {
        Some(value) => tar.pax(b'x', &[("SCHILY.xattr.user.test", value.as_bytes())]),
        None => tar,
    };
    tar.header(flag, path, &link, data.as_bytes(), |h| {
        h.set_mode(facts.mode);
        h.set_mtime(facts.seconds.into());
    })
}

/// What the model says can be seen, in the words of [`tree`].
fn told(root: &Directory<Facts>) -> BTreeMap<String, String> {
    fn add(path: &str, node: &Node<Facts>, told: &mut BTreeMap<String, (String, Option<usize>)>) {
        let (facts, inner) = match node {
            Node::Directory(directory) => (&directory.attributes, Some(directory)),
            Node::File(facts) => (facts, None),
            Node::Whiteout => panic!("{path:?} of a merged tree is a whiteout"),
        };
        told.insert(path.to_owned(), line(facts));
        for (name, node) in inner.iter().flat_map(|directory| &directory.entries) {
            let name = name.to_str().unwrap();
            add(&if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }, node, told);
        }
    }
    let mut lines = BTreeMap::new();
    add("", &Node::Directory(root.clone()), &mut lines);
    let mut first = BTreeMap::new();
    let with_links = lines.into_iter().map(|(path, (line, which))| {
        let same = which.map(|which| format!("same as {}", first.entry(which).or_insert_with(|| path.clone())));
        (path, line + &same.unwrap_or_default())
    });
    alone(with_links.collect())
}

/// Of a file's names, those that are hidden are none: one that is left over is alone. (A mount tells how many there are in the layer.)
fn alone(mut tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let group = |line: &str| line.rfind("same as ").map(|at| line[at..].to_owned());
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    tree.values().filter_map(|line| group(line)).for_each(|group| *count.entry(group).or_default() += 1);
    for line in tree.values_mut() {
        if group(line).is_some_and(|group| count[&group] == 1) {
            line.truncate(line.rfind("same as ").unwrap_or(line.len()));
        }
    }
    tree
}

/// Some dozens of stacks, always the same ones; thousands if there is time.
pub(crate) fn stacks_show_what_the_model_says() {
    let shown = Cell::new(0);
    let result = runner_of(60, 5000).run(&vec(layer(), 1..5), |mut layers| {
        layers.iter_mut().enumerate().for_each(|(number, layer)| numbered(layer, number));
        let scratch = Scratch::new();
        let stack: Vec<Tar> = layers.iter().map(archive).collect();
        let topmost_first: Vec<_> = layers.iter().rev().collect();
        let expected = told(&merge(&topmost_first).unwrap());
        prop_assert_eq!(&alone(seen(&scratch.layers(&stack))), &expected, "mounted");
        prop_assert_eq!(&alone(tree(&scratch.flat(&stack))), &expected, "flattened");
        shown.set(shown.get() + expected.len());
        Ok(())
    });
    result.unwrap();
    assert!(shown.get() > 300, "{shown:?} files: the test says little");
}

/// Which file it is beside: its names are to be found out.
fn line(facts: &Facts) -> (String, Option<usize>) {
    let (kind, mode, end, which) = match &facts.kind {
        Kind::Directory => (0o040_000, facts.mode, String::new(), None),
        Kind::File(content, which) => (0o100_000, facts.mode, format!("\"{content}\" "), *which),
        Kind::Symlink(target) => (0o120_000, 0o777, format!("-> {target:?} "), None),
        Kind::Fifo => (0o010_000, facts.mode, String::new(), None),
        Kind::Link(_) => unreachable!("settled"),
    };
    let has_xattr = matches!(facts.kind, Kind::Directory | Kind::File(..));
    let xattr =
        facts.xattr.filter(|_| has_xattr).map(|value| format!("user.test={:x?} ", value.to_string().as_bytes()));
    let time = format!("mtime {}.000000000 ", facts.seconds);
    (format!("{:06o} 0:0 {time}{}{end}", kind | mode, xattr.unwrap_or_default()), which)
}
