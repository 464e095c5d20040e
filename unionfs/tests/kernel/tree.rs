//! Random layers, on disk and in the model at once.

use crate::support::Random;
use cofferdam_testkit::union::{Facts, facts, read};
use cofferdam_unionfs::model::{Directory, Node};
use cofferdam_unionfs::{Form, make_opaque, make_whiteout, make_xattr_whiteout};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Few, so that layers have them in common; and with bytes that something might trip over.
pub(crate) const NAMES: &[&[u8]] = &[b"a", b"b", b"c", b"new\nline", b"\xff,:\\", b".wh.a"];
pub(crate) const XATTR: &str = "user.test";

/// Makes a random layer in an empty directory. The answer is the model of it, as it was made and as it is read, which are the same.
pub(crate) fn random_layer(random: &mut Random, path: &Path, form: Form, number: u64) -> Directory<Facts> {
    let mut layer = Maker { random, form, number, files: Vec::new() };
    let mut root = layer.directory(path, 3);
    if layer.random.percent(5) {
        make_opaque(File::open(path).expect("opens"), form).expect("is marked");
        root.opaque = true;
    }
    assert_eq!(read(path, form, &|path| made(path)), root, "{path:?}");
    read(path, form, &facts)
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
        let mut directory = Directory::new(made(path));
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
                Node::File(made(&path))
            }
            65..70 => {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("is made");
                Node::File(made(&path))
            }
            70..80 if !self.files.is_empty() => {
                let which = usize::try_from(self.random.below(self.files.len() as u64)).expect("small");
                let (first, facts) = &self.files[which];
                fs::hard_link(first, &path).expect("is linked");
                Node::File(facts.clone())
            }
            _ => {
                fs::write(&path, format!("{} of {}", self.random.below(1000), self.number)).expect("is written");
                let mut facts = made(&path);
                set(self.random, &path, &mut facts);
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
        facts.xattrs.insert(XATTR.into(), value);
    }
}

pub(crate) fn set_xattr(path: &Path, value: &[u8]) {
    rustix::fs::lsetxattr(path, XATTR, value, rustix::fs::XattrFlags::empty()).expect("is set");
}

/// What is known when it is made: that it will have other names, and when its directory was last changed, is not.
fn made(path: &Path) -> Facts {
    Facts { link: None, ..facts(path).without_time() }
}
