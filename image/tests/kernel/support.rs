//! Archives, good and hostile, and trees to compare.

use cofferdam_image::{Error, LayerReader, Layers, Observer, Options, Policy, Progress, Report, Unpacker};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A tar archive, written header by header, so that it can be as wrong as a test wants.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// Entries in a shorthand: `dir/`, `file=content`, `symlink->target`, `link=>target`, `fifo|`.
    pub(crate) fn of(entries: &[&str]) -> Self {
        entries.iter().fold(Tar::default(), |tar, entry| tar.entry(entry))
    }

    pub(crate) fn entry(self, entry: &str) -> Self {
        if let Some((name, target)) = entry.split_once("->") {
            self.raw(b'2', name, target, b"")
        } else if let Some((name, target)) = entry.split_once("=>") {
            self.raw(b'1', name, target, b"")
        } else if let Some((name, content)) = entry.split_once('=') {
            self.raw(b'0', name, "", content.as_bytes())
        } else if let Some(name) = entry.strip_suffix('|') {
            self.raw(b'6', name, "", b"")
        } else {
            self.raw(b'5', entry, "", b"")
        }
    }

    pub(crate) fn raw(self, flag: u8, name: &str, link: &str, data: &[u8]) -> Self {
        self.header(flag, name, link, data, |_| {})
    }

    pub(crate) fn header(
        mut self,
        flag: u8,
        name: &str,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        let bytes = header.as_mut_bytes();
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
        bytes[156] = flag;
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header with these records, for the next entry (`x`) or all that follow (`g`).
    pub(crate) fn pax(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(flag, "pax", "", &content)
    }

    /// A symlink whose target may be as long as the kernel's limit.
    pub(crate) fn long_symlink(self, name: &str, target: &str) -> Self {
        self.pax(b'x', &[("linkpath", target.as_bytes())]).raw(b'2', name, "", b"")
    }

    /// A file whose name may be.
    pub(crate) fn long_name(self, name: &str) -> Self {
        self.pax(b'x', &[("path", name.as_bytes())]).raw(b'0', "x", "", b"")
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// As long as a path may be, of few components, which do not exist.
pub(crate) fn long_path() -> String {
    vec!["x".repeat(255); 16].join("/")
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything that the user who runs the test can have.
pub(crate) fn options() -> Options {
    if is_root() { Options::new() } else { Options::rootless() }
}

/// Where it is not about what is refused.
pub(crate) fn lenient() -> Options {
    options().policy(Policy::Lenient)
}

/// A directory for a test's layers, and one outside them that must not change.
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    made: AtomicUsize,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::DirBuilder::new().mode(0o751).create(&outside).unwrap();
        fs::write(outside.join("file"), "untouched").unwrap();
        fs::create_dir(outside.join("dir")).unwrap();
        fs::write(outside.join("dir/inner"), "untouched").unwrap();
        Scratch { dir, made: AtomicUsize::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// A new empty directory.
    pub(crate) fn stage(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let path = self.dir.path().join(format!("layer{number}"));
        fs::create_dir(&path).unwrap();
        path
    }

    /// Unpacks layers, lowest first, each knowing the ones below.
    pub(crate) fn layers(&self, layers: &[Tar]) -> Vec<PathBuf> {
        let mut done: Vec<PathBuf> = Vec::new();
        for layer in layers {
            let stage = self.stage();
            unpack(&layer.clone().end(), &stage, Some(&done), lenient()).unwrap();
            done.push(stage);
        }
        done
    }

    /// Merges layers, lowest first, into one tree.
    pub(crate) fn flat(&self, layers: &[Tar]) -> PathBuf {
        let (target, stage) = (self.stage(), self.stage());
        let blobs =
            layers.iter().fold(Layers::new(lenient()), |all, layer| all.layer(Cursor::new(layer.clone().end())));
        blobs.flatten(File::open(&stage).unwrap(), File::open(&target).unwrap()).unwrap();
        assert_eq!(listing(&stage), [""; 0], "the stage is empty again");
        fs::remove_dir(stage).unwrap();
        target
    }
}

/// Merges a layer onto a tree.
pub(crate) fn unpack_onto(blob: &[u8], stage: &Path, target: &Path, options: Options) -> Result<Report, Error> {
    unpack_onto_open(blob, stage, File::open(target).unwrap(), options)
}

/// Merges a layer onto a tree that its owner need not be able to open any more.
pub(crate) fn unpack_onto_open(blob: &[u8], stage: &Path, target: File, options: Options) -> Result<Report, Error> {
    let unpacker = Unpacker::new(File::open(stage).unwrap(), options)?.onto(target)?;
    unpacker.unpack(LayerReader::new(blob)?)
}

pub(crate) fn unpack(blob: &[u8], stage: &Path, lowers: Option<&[PathBuf]>, options: Options) -> Result<Report, Error> {
    let mut unpacker = Unpacker::new(File::open(stage).unwrap(), options)?;
    if let Some(lowers) = lowers {
        let lowers: Vec<File> = lowers.iter().map(|path| File::open(path).unwrap()).collect();
        unpacker = unpacker.lowers(&lowers)?;
    }
    unpacker.unpack(LayerReader::new(blob)?)
}

/// Unpacks with an observer that says no after so many times. Returns how often it was asked.
pub(crate) fn observed(unpacker: Unpacker, layer: &Tar, ends: usize) -> (usize, Result<Report, Error>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&asked);
    let observer: Arc<dyn Observer> = Arc::new(move |_: Progress| {
        let before = calls.fetch_add(1, Ordering::SeqCst);
        if before < ends { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let result = unpacker.observer(observer).unpack(LayerReader::new(&layer.clone().end()[..]).unwrap());
    (asked.load(Ordering::SeqCst), result)
}

/// Unpacks into a new stage.
pub(crate) fn unpack_new(scratch: &Scratch, tar: &Tar) -> (PathBuf, Result<Report, Error>) {
    let stage = scratch.stage();
    let result = unpack(&tar.clone().end(), &stage, None, options());
    (stage, result)
}

/// Everything that there is to see of a tree: path -> type, mode, ids, device, times, attributes, content, hard-link group.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut groups = BTreeMap::new();
    walk(root, Path::new(""), &mut |path, full| {
        let meta = fs::symlink_metadata(full).unwrap();
        let mut line = format!("{:06o} {}:{} ", meta.mode(), meta.uid(), meta.gid());
        if meta.file_type().is_char_device() || meta.file_type().is_block_device() {
            write!(line, "dev {:x} ", meta.rdev()).unwrap();
        }
        // A whiteout's time means nothing.
        if !meta.file_type().is_char_device() || meta.rdev() != 0 {
            write!(line, "mtime {}.{:09} ", meta.mtime(), meta.mtime_nsec()).unwrap();
        }
        for (name, value) in xattrs(full) {
            write!(line, "{name}={value:x?} ").unwrap();
        }
        if meta.is_file() {
            write!(line, "{:?} ", String::from_utf8_lossy(&fs::read(full).unwrap())).unwrap();
        } else if meta.is_symlink() {
            write!(line, "-> {:?} ", fs::read_link(full).unwrap()).unwrap();
        }
        if !meta.is_dir() && meta.nlink() > 1 {
            let first = groups.entry(meta.ino()).or_insert_with(|| path.display().to_string());
            write!(line, "same as {first}").unwrap();
        }
        found.insert(path.display().to_string(), line);
    });
    found
}

/// The same with inode numbers and change times, of which not one may change.
pub(crate) fn sentinel(root: &Path) -> BTreeMap<String, String> {
    let mut found = tree(root);
    walk(root, Path::new(""), &mut |path, full| {
        let meta = fs::symlink_metadata(full).unwrap();
        let more = format!("{} {} {}.{}", meta.ino(), meta.nlink(), meta.ctime(), meta.ctime_nsec());
        found.get_mut(&path.display().to_string()).unwrap().push_str(&more);
    });
    found
}

/// In the shorthand of [`Tar::of`], without attributes.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut |path, full| {
        let (name, meta) = (path.display(), fs::symlink_metadata(full).unwrap());
        let kind = meta.file_type();
        found.push(if path.as_os_str().is_empty() {
            return;
        } else if kind.is_dir() {
            format!("{name}/")
        } else if kind.is_symlink() {
            format!("{name}->{}", fs::read_link(full).unwrap().display())
        } else if kind.is_fifo() {
            format!("{name}|")
        } else if kind.is_char_device() {
            format!("{name} char {:x}", meta.rdev())
        } else {
            format!("{name}={}", fs::read_to_string(full).unwrap())
        });
    });
    found
}

fn walk(root: &Path, path: &Path, visit: &mut impl FnMut(&Path, &Path)) {
    let full = root.join(path);
    visit(path, &full);
    if fs::symlink_metadata(&full).unwrap().is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), visit);
        }
    }
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let count = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..count].split(|b| *b == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
        value[..length].to_vec()
    };
    names.map(|name| (String::from_utf8_lossy(name).into_owned(), value(name))).collect()
}

/// Makes everything removable again.
pub(crate) fn unlock(path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            unlock(&entry.unwrap().path());
        }
    }
}

/// Tells another thread to end, also when this one panics: who joins it would wait for ever.
pub(crate) struct Done<'a>(pub(crate) &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
