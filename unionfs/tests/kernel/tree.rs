//! Trees: random ones, as layers on disk and in the model at once; and what can be seen of one.

use crate::support::Random;
use cofferdam_unionfs::model::{Directory, Node};
use cofferdam_unionfs::{Form, is_whiteout, make_opaque, make_whiteout, make_xattr_whiteout};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Few, so that layers have them in common; and with bytes that something might trip over.
pub(crate) const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"new\nline", b"\xff,:\\", b".wh.a"];
const XATTR: &str = "user.test";

/// What is seen of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) kind: char,
    pub(crate) mode: u32,
    /// Of a file; where a link leads.
    pub(crate) content: Vec<u8>,
    pub(crate) xattr: Option<Vec<u8>>,
    /// Which of several names it has is the first; or in the model, a number that these names share.
    pub(crate) link: Option<PathBuf>,
}

pub(crate) type Seen = BTreeMap<PathBuf, Facts>;

/// Makes a random layer in an empty directory, and the model of it.
pub(crate) fn random_layer(random: &mut Random, path: &Path, form: Form, number: u64) -> Directory<Facts> {
    let mut layer = Maker { random, form, number, files: Vec::new() };
    let mut root = layer.directory(path, 3);
    if layer.random.percent(5) {
        make_opaque(File::open(path).expect("opens"), form).expect("is marked");
        root.opaque = true;
    }
    root
}

struct Maker<'a> {
    random: &'a mut Random,
    form: Form,
    number: u64,
    /// To be linked to.
    files: Vec<(PathBuf, Facts)>,
}

impl Maker<'_> {
    fn directory(&mut self, path: &Path, depth: u64) -> Directory<Facts> {
        let mut directory = Directory::new(facts(path));
        for name in NAMES {
            if self.random.percent(45) {
                let name = OsStr::from_bytes(name);
                directory.insert(name, self.node(path, name, depth));
            }
        }
        // At the end: what is in it changes nothing about it.
        set(self.random, path, &mut directory.attributes);
        directory
    }

    fn node(&mut self, dir: &Path, name: &OsStr, depth: u64) -> Node<Facts> {
        let path = dir.join(name);
        match self.random.below(100) {
            0..40 if depth > 0 => {
                fs::create_dir(&path).expect("is made");
                let mut directory = self.directory(&path, depth - 1);
                let hides_by_xattr = directory.entries.values().any(|node| *node == Node::Whiteout);
                if self.random.percent(20) && !hides_by_xattr {
                    make_opaque(File::open(&path).expect("opens"), self.form).expect("is marked");
                    directory.opaque = true;
                }
                Node::Directory(directory)
            }
            0..5 => {
                make_xattr_whiteout(File::open(dir).expect("opens"), name, self.form).expect("is made");
                Node::Whiteout
            }
            5..15 | 40..55 => {
                make_whiteout(File::open(dir).expect("opens"), name).expect("is made");
                Node::Whiteout
            }
            55..65 => {
                symlink(OsStr::from_bytes(self.random.pick(NAMES)), &path).expect("is made");
                Node::File(facts(&path))
            }
            65..70 => {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("is made");
                Node::File(facts(&path))
            }
            70..80 if !self.files.is_empty() => {
                let which = usize::try_from(self.random.below(self.files.len() as u64)).expect("small");
                let (first, facts) = &self.files[which];
                fs::hard_link(first, &path).expect("is linked");
                Node::File(facts.clone())
            }
            _ => {
                fs::write(&path, format!("{} of {}", self.random.below(1000), self.number)).expect("is written");
                let mut facts = facts(&path);
                set(self.random, &path, &mut facts);
                facts.link = Some(format!("{}-{}", self.number, self.files.len()).into());
                self.files.push((path, facts.clone()));
                Node::File(facts)
            }
        }
    }
}

/// Gives a file or directory a random mode and attribute.
fn set(random: &mut Random, path: &Path, facts: &mut Facts) {
    facts.mode = if facts.kind == 'd' { 0o700 } else { 0o400 } | u32::try_from(random.below(0o100)).expect("small");
    fs::set_permissions(path, fs::Permissions::from_mode(facts.mode)).expect("chmod");
    if random.percent(30) {
        let value = random.below(10).to_string().into_bytes();
        set_xattr(path, &value);
        facts.xattr = Some(value);
    }
}

pub(crate) fn set_xattr(path: &Path, value: &[u8]) {
    rustix::fs::lsetxattr(path, XATTR, value, rustix::fs::XattrFlags::empty()).expect("is set");
}

/// What can be seen of one file. Of its names nothing.
pub(crate) fn facts(path: &Path) -> Facts {
    facts_of(path, fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}

/// The same of what a link in /proc leads to, which is no link itself.
pub(crate) fn facts_behind(path: &Path) -> Facts {
    facts_of(path, fs::metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}

#[expect(clippy::needless_pass_by_value, reason = "nobody needs it any more")]
fn facts_of(path: &Path, data: fs::Metadata) -> Facts {
    let kind = data.file_type();
    let (kind, content) = match kind {
        _ if kind.is_dir() => ('d', Vec::new()),
        _ if kind.is_symlink() => ('l', fs::read_link(path).expect("is read").into_os_string().into_vec()),
        _ if kind.is_fifo() => ('p', Vec::new()),
        _ if kind.is_char_device() => ('c', data.rdev().to_string().into_bytes()),
        _ => ('f', fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"))),
    };
    let mut value = vec![0; 64];
    let get = if kind == 'l' { rustix::fs::lgetxattr } else { rustix::fs::getxattr };
    let xattr = get(path, XATTR, value.as_mut_slice()).ok().map(|length| {
        value.truncate(length);
        value
    });
    Facts { kind, mode: data.mode() & 0o7777, content, xattr, link: None }
}

/// All that is shown: what can be looked up. (Where nothing merges the kernel lists whiteouts that cannot.)
pub(crate) fn seen(root: &Path, form: Form) -> Seen {
    let mut seen = Seen::new();
    let mut files = HashMap::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(path) = rest.pop() {
        let full = root.join(&path);
        let mut facts = facts(&full);
        if facts.kind == 'd' {
            let dir = File::open(&full).expect("opens");
            for name in names(&full) {
                let is_there = fs::symlink_metadata(full.join(&name)).is_ok();
                if is_there && !is_whiteout(&dir, &name, form).expect("is seen") {
                    rest.push(path.join(name));
                }
            }
            // The first of a file's names is the first in their order.
            rest.sort_by(|a, b| b.cmp(a));
        } else {
            let data = fs::symlink_metadata(&full).expect("is there");
            if data.nlink() > 1 {
                facts.link = Some(files.entry((data.dev(), data.ino())).or_insert_with(|| path.clone()).clone());
            }
        }
        seen.insert(path, facts);
    }
    alone(seen)
}

fn names(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir).expect("is read").map(|e| e.expect("an entry").file_name()).collect()
}

/// What the model says can be seen.
pub(crate) fn told(root: &Directory<Facts>) -> Seen {
    fn add(path: &Path, node: &Node<Facts>, seen: &mut Seen) {
        match node {
            Node::Directory(directory) => {
                seen.insert(path.to_owned(), directory.attributes.clone());
                for (name, node) in &directory.entries {
                    add(&path.join(name), node, seen);
                }
            }
            Node::File(facts) => _ = seen.insert(path.to_owned(), facts.clone()),
            Node::Whiteout => panic!("{path:?} of a merged tree is a whiteout"),
        }
    }
    let mut seen = Seen::new();
    add(Path::new(""), &Node::Directory(root.clone()), &mut seen);
    let mut first: HashMap<PathBuf, PathBuf> = HashMap::new();
    for (path, facts) in &mut seen {
        if let Some(link) = &mut facts.link {
            link.clone_from(first.entry(link.clone()).or_insert_with(|| path.clone()));
        }
    }
    alone(seen)
}

/// A link group of which only one name is seen is none.
fn alone(mut seen: Seen) -> Seen {
    let mut count: HashMap<PathBuf, usize> = HashMap::new();
    for link in seen.values().filter_map(|facts| facts.link.as_ref()) {
        *count.entry(link.clone()).or_default() += 1;
    }
    for facts in seen.values_mut() {
        facts.link = facts.link.take().filter(|link| count[link] > 1);
    }
    seen
}
