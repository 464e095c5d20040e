//! A stack of layers on disk beside what the model of a union says of it, and beside what a mount shows. With the feature `union`.
//!
//! ```no_run
//! use cofferdam_testkit::union::{facts, paths, read, seen};
//! use cofferdam_unionfs::{Form, model};
//! use std::path::Path;
//!
//! let layers = ["upper", "lower"].map(|layer| read(Path::new(layer), Form::Trusted, &facts)); // topmost first
//! let merged = model::merge(&layers.each_ref()).expect("there are layers");
//! assert_eq!(seen(Path::new("merged"), Form::Trusted), paths(&merged));
//! ```

use cofferdam_unionfs::model::{Directory, Node};
use cofferdam_unionfs::{Form, is_opaque, is_overlay_xattr, is_whiteout};
use rustix::fs::{getxattr, lgetxattr, listxattr, llistxattr};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What there is to see of a file or directory, its name aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `d`, `l`, `p`, `s`, `c`, `b` or `f`, as ls(1) has it but for the last.
    pub kind: char,
    /// The bits of chmod(2).
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// What is in a file; where a link leads; which device it is.
    pub content: Vec<u8>,
    /// All that the caller may see, those of overlayfs left out.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// Of the names of one file the first; until that is known, something that they share.
    pub link: Option<PathBuf>,
}

impl Facts {
    /// For where times are not kept.
    #[must_use]
    pub fn without_time(self) -> Self {
        Facts { mtime: (0, 0), ..self }
    }
}

/// A tree, by the paths of all that is in it. The root's is empty.
pub type Seen = BTreeMap<PathBuf, Facts>;

/// What there is to see of a file. A link is not followed.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn facts(path: &Path) -> Facts {
    of(path, &fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}

/// The same of what a link in `/proc` leads to, which is no link itself.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn facts_behind(path: &Path) -> Facts {
    of(path, &fs::metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
}

fn of(path: &Path, data: &Metadata) -> Facts {
    let device = || data.rdev().to_string().into_bytes();
    let (kind, content) = match data.file_type() {
        kind if kind.is_dir() => ('d', Vec::new()),
        kind if kind.is_symlink() => ('l', fs::read_link(path).expect("is read").into_os_string().into_vec()),
        kind if kind.is_fifo() => ('p', Vec::new()),
        kind if kind.is_socket() => ('s', Vec::new()),
        kind if kind.is_char_device() => ('c', device()),
        kind if kind.is_block_device() => ('b', device()),
        _ => ('f', fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"))),
    };
    let link = (kind != 'd' && data.nlink() > 1).then(|| format!("{}:{}", data.dev(), data.ino()).into());
    let (owner, mtime) = ((data.uid(), data.gid()), (data.mtime(), data.mtime_nsec()));
    Facts { kind, mode: data.mode() & 0o7777, owner, mtime, content, xattrs: xattrs(path, kind), link }
}

fn xattrs(path: &Path, kind: char) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let list = if kind == 'l' { llistxattr } else { listxattr };
    let length = list(path, names.as_mut_slice()).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes);
    let value = |name: &OsStr| {
        let mut value = vec![0; 1 << 16];
        let get = if kind == 'l' { lgetxattr } else { getxattr };
        let length = get(path, name, value.as_mut_slice()).unwrap_or_else(|e| panic!("{path:?}, {name:?}: {e}"));
        value.truncate(length);
        value
    };
    names.filter(|name| !is_overlay_xattr(name)).map(|name| (name.to_owned(), value(name))).collect()
}

/// Reads a layer's directory into the model. What is kept of each file and directory is the caller's, [`facts`] for instance.
///
/// # Panics
/// If it cannot be read.
pub fn read<T>(layer: &Path, form: Form, facts: &impl Fn(&Path) -> T) -> Directory<T> {
    let dir = File::open(layer).unwrap_or_else(|e| panic!("{layer:?}: {e}"));
    let mut directory = Directory::new(facts(layer));
    directory.opaque = is_opaque(&dir, form).unwrap_or_else(|e| panic!("{layer:?}: {e}"));
    for name in names(layer) {
        let path = layer.join(&name);
        let kind = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).file_type();
        let node = match kind {
            kind if kind.is_dir() => Node::Directory(read(&path, form, facts)),
            _ if is_whiteout(&dir, &name, form).unwrap_or_else(|e| panic!("{path:?}: {e}")) => Node::Whiteout,
            _ => Node::File(facts(&path)),
        };
        directory.insert(name, node);
    }
    directory
}

/// All that a tree shows, a mounted one above all: what is listed and can be looked up. (Where nothing merges the kernel lists whiteouts that cannot.)
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn seen(root: &Path, form: Form) -> Seen {
    let mut seen = Seen::new();
    let mut rest = vec![PathBuf::new()];
    while let Some(path) = rest.pop() {
        let full = root.join(&path);
        let facts = facts(&full);
        if facts.kind == 'd' {
            let dir = File::open(&full).unwrap_or_else(|e| panic!("{full:?}: {e}"));
            for name in names(&full) {
                let is_there = fs::symlink_metadata(full.join(&name)).is_ok();
                if is_there && !is_whiteout(&dir, &name, form).unwrap_or_else(|e| panic!("{full:?}: {e}")) {
                    rest.push(path.join(name));
                }
            }
        }
        seen.insert(path, facts);
    }
    linked(seen)
}

/// The same of a [merged](cofferdam_unionfs::model::merge) tree of the model.
///
/// # Panics
/// If there are whiteouts in it.
#[must_use]
pub fn paths(root: &Directory<Facts>) -> Seen {
    fn add(path: PathBuf, directory: &Directory<Facts>, seen: &mut Seen) {
        for (name, node) in &directory.entries {
            let path = path.join(name);
            match node {
                Node::Directory(directory) => add(path, directory, seen),
                Node::File(facts) => _ = seen.insert(path, facts.clone()),
                Node::Whiteout => panic!("{path:?} of a merged tree is a whiteout"),
            }
        }
        seen.insert(path, directory.attributes.clone());
    }
    let mut seen = Seen::new();
    add(PathBuf::new(), root, &mut seen);
    linked(seen)
}

/// Calls each group of names by the first of them. One of which only one name is seen is none.
fn linked(mut seen: Seen) -> Seen {
    let mut groups: HashMap<PathBuf, (PathBuf, usize)> = HashMap::new();
    for (path, facts) in &seen {
        if let Some(link) = &facts.link {
            groups.entry(link.clone()).or_insert_with(|| (path.clone(), 0)).1 += 1;
        }
    }
    for facts in seen.values_mut() {
        facts.link = facts.link.take().and_then(|link| groups.get(&link)).filter(|g| g.1 > 1).map(|g| g.0.clone());
    }
    seen
}

fn names(dir: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{dir:?}: {e}"));
    entries.map(|entry| entry.expect("an entry").file_name()).collect()
}
