//! Unpacks one layer into a directory, as a layer for an overlay mount, or merged onto a tree.

mod dirs;
mod finish;
mod flatten;
mod leaf;
mod links;
mod lowers;
mod meta;
mod name;
mod resolve;
mod tree;

use crate::archive::{Archive, Entry, Kind};
use crate::pipeline::{self, Chunks};
use crate::report::{Skipped, SkippedPart};
use crate::{
    Devices, Error, ErrorKind, LayerReader, LayerSummary, Observer, Operation, Options, Policy, Progress, Report,
};
pub(crate) use dirs::{Dirs, names, stat_in};
use flatten::Target;
use links::Groups;
use lowers::Lowers;
use meta::{LeftOut, Meta};
pub(crate) use name::split;
use name::{Meaning, TreePath, ancestors, join, meaning, tree_path};
use resolve::{Node, resolve};
use rustix::fs::FileType;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use tree::{Tree, cost};

/// Unpacks one layer: into an empty directory, in the form in which overlayfs expects a layer, or by way of it [onto](Self::onto) a tree of files.
///
/// ```no_run
/// use cofferdam_image::{LayerReader, Options, Unpacker};
/// use std::fs::File;
///
/// let stage = File::open("layers/stage")?;
/// let below = File::open("layers/0")?;
/// let report = Unpacker::new(&stage, Options::new())?
///     .lowers(&[&below])?
///     .unpack(LayerReader::new(File::open("layer.tar.gz")?)?)?;
/// # let promised = cofferdam_image::Digest::of(b"");
/// assert_eq!(report.diff_id, promised); // nobody else compares it here
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The order of the entries does not matter to the result, except that of several with one name the last counts. What has to be
/// known as a whole (whiteouts, hard links whose target comes later, attributes of directories) is therefore done at the end;
/// until then every directory is open to the caller alone.
#[derive(Debug)]
pub struct Unpacker {
    options: Options,
    tree: Tree,
    lowers: Lowers,
    /// To be called before anything is looked up below.
    wait: Option<Wait>,
    /// What to merge onto.
    target: Option<Target>,
    watch: Watch,
    whiteouts: BTreeSet<TreePath>,
    opaques: BTreeSet<TreePath>,
    /// Symlinks of lower layers that entries went through, and their targets.
    followed: BTreeMap<TreePath, Vec<u8>>,
    /// Hard links whose targets this layer has not had so far.
    links: BTreeMap<TreePath, TreePath>,
    /// The names of linked files, by the number of the lower layer.
    groups: BTreeMap<usize, Groups>,
    entries: u64,
    /// Names that this layer has not, but lower ones, whose files had to be copied.
    copied_names: u64,
    bytes: u64,
    skipped: Vec<Skipped>,
    /// Bytes that all these names take in memory.
    kept: u64,
}

/// Blocks until all layers below are there. It may say where they are now, lowest first.
pub(crate) struct Wait(pub(crate) Box<dyn FnOnce() -> Result<Option<Vec<OwnedFd>>, Error> + Send>);

/// Who watches, and what there is to be told when all has been read.
#[derive(Clone)]
struct Watch {
    observer: Option<Arc<dyn Observer>>,
    progress: Progress,
}

impl Watch {
    /// Asks whether to go on.
    fn go_on(&self) -> Result<(), Error> {
        let answer = self.observer.as_ref().map(|observer| observer.progress(self.progress));
        if answer.is_some_and(|answer| answer.is_break()) { Err(Error::cancelled()) } else { Ok(()) }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wait")
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// For a fuzzer: the path that a name means, whatever of it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_name(name: &[u8], limits: &crate::Limits) -> Option<TreePath> {
    match meaning(name, limits).ok()? {
        Meaning::Entry(path) | Meaning::Whiteout(path) | Meaning::Opaque(path) => Some(path),
        Meaning::Reserved => None,
    }
}

impl Unpacker {
    /// Unpacks into `stage`, an empty directory. Only the caller should be able to enter the directory that it is in: a layer
    /// may have set-user-id programs and devices.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the directory is not empty; what opening and reading it says.
    pub fn new(stage: impl AsFd, options: Options) -> Result<Self, Error> {
        Ok(Unpacker {
            tree: Tree::new(stage.as_fd())?,
            lowers: Lowers::unknown(),
            wait: None,
            target: None,
            watch: Watch { observer: None, progress: Progress { layer: 0, blob: 0, archive: 0 } },
            options,
            whiteouts: BTreeSet::new(),
            opaques: BTreeSet::new(),
            followed: BTreeMap::new(),
            links: BTreeMap::new(),
            groups: BTreeMap::new(),
            entries: 0,
            copied_names: 0,
            bytes: 0,
            skipped: Vec::new(),
            kept: 0,
        })
    }

    /// Says which layers are below, *all* of them, lowest first, unpacked in the same form. An empty list: this is the lowest layer.
    ///
    /// They are needed for hard links to their files, for the attributes of directories that this layer's entries only pass
    /// through, and to follow their symlinks. Without this call nothing is known about them: such a link is an error, such a
    /// directory is root's with mode 0755, and their symlinks are hidden by directories.
    ///
    /// # Errors
    /// What opening them says.
    pub fn lowers(mut self, lowest_first: &[impl AsFd]) -> Result<Self, Error> {
        let layers: Vec<BorrowedFd<'_>> = lowest_first.iter().map(AsFd::as_fd).collect();
        self.lowers = Lowers::new(&layers, self.options.form)?;
        Ok(self)
    }

    /// Merges the layer onto the tree `target`, in place of what it replaces and without what it hides: *flattened*. In the end the stage
    /// is empty again. Both must be directories of one file system, and the stage not in the target.
    ///
    /// What the layer's entries are in the end is the same as in an overlay mount; hard links to files of the target are of those very files. Nothing of
    /// the target is changed before the whole layer has been read. (If that may still turn out not to be the right one, unpack with [`Image`](crate::Image), which
    /// compares digests before.) If it fails while merging, the target is neither as before nor as it should be.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if they are one directory, or of two file systems; what opening it says.
    #[doc(alias = "flatten")]
    pub fn onto(mut self, target: impl AsFd) -> Result<Self, Error> {
        let target = target.as_fd();
        self.target = Some(Target::new(target, self.tree.open(b"")?.as_fd())?);
        self.lowers = Lowers::tree(target)?;
        Ok(self)
    }

    /// If the target is empty, nothing is below, and the root is not as it is there either.
    pub(crate) fn onto_nothing(mut self, target: BorrowedFd<'_>) -> Result<Self, Error> {
        if Tree::new(target).is_ok() {
            let nothing: &[BorrowedFd<'_>] = &[];
            self.lowers = Lowers::new(nothing, self.options.form)?;
        }
        Ok(self)
    }

    /// Tells how far it is, and can be cancelled.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.watch.observer = Some(observer);
        self
    }

    /// Calls this before anything is looked up in the layers below, which may be in the making until then.
    pub(crate) fn wait(mut self, wait: Wait) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Unpacks the layer, and reads it to its end. Blocks until it is done. Two more threads decompress and hash meanwhile.
    ///
    /// After an error the directory holds a part of the layer: discard it. So it is to be done if the digests in the report are not those that were
    /// promised; [`Image::unpack_layer`](crate::Image::unpack_layer) compares them.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused), [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported),
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) and [`Corrupt`](ErrorKind::Corrupt) about the layer, of which
    /// [`entry`](Error::entry) names the entry; [`Cancelled`](ErrorKind::Cancelled); whatever the kernel says.
    pub fn unpack<R: Read + Send>(self, layer: LayerReader<R>) -> Result<Report, Error> {
        self.unpack_checked(layer, |_| Ok(()))
    }

    /// `check` looks at the digests before the layer is finished, and before a target is touched.
    pub(crate) fn unpack_checked<R: Read + Send>(
        mut self,
        layer: LayerReader<R>,
        check: impl FnOnce(&LayerSummary) -> Result<(), Error>,
    ) -> Result<Report, Error> {
        let layer = layer.limit(self.options.limits.bytes).ratio(self.options.limits.ratio);
        let observer = self.watch.observer.clone();
        let ((), summary) = pipeline::run(layer, observer.as_deref(), |chunks| self.entries(chunks))?;
        self.watch.progress = Progress { layer: 0, blob: summary.blob_size, archive: summary.size };
        check(&summary)?;
        self.finish()?;
        Ok(Report {
            entries: self.entries,
            bytes: self.bytes,
            skipped: self.skipped,
            diff_id: summary.diff_id,
            blob_digest: summary.blob_digest,
            opaque_root: self.opaques.contains(&b""[..]),
        })
    }

    fn entries(&mut self, chunks: &mut Chunks) -> Result<(), Error> {
        let limits = self.options.limits.clone();
        let mut archive = Archive::new(chunks, limits.clone());
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            if self.entries > limits.entries {
                return Err(Error::limit(Operation::Unpack, "entries", limits.entries));
            }
            let done = self.entry(&entry, &mut archive).and_then(|()| self.check_kept());
            done.map_err(|e| e.at_entry(OsStr::from_bytes(&entry.name)))?;
        }
        Ok(())
    }

    /// The layers below, when they are all there.
    fn below(&mut self) -> Result<&Lowers, Error> {
        if let Some(Wait(wait)) = self.wait.take()
            && let Some(layers) = wait()?
        {
            let layers: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
            self.lowers = Lowers::new(&layers, self.options.form)?;
        }
        Ok(&self.lowers)
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<(), Error> {
        let path = match meaning(&entry.name, &self.options.limits)? {
            Meaning::Entry(path) => path,
            Meaning::Whiteout(path) => {
                self.kept += cost(path.len());
                self.whiteouts.insert(path);
                return Ok(());
            }
            Meaning::Opaque(path) => {
                self.kept += cost(path.len());
                self.opaques.insert(path);
                return Ok(());
            }
            Meaning::Reserved => {
                self.skip(&entry.name, SkippedPart::AufsMetadata);
                return Ok(());
            }
        };
        if path.is_empty() && entry.kind != Kind::Directory {
            return Err(Error::refused("would replace the root by something that is not a directory"));
        }
        let (meta, left_out) = Meta::of_entry(entry, &self.options)?;
        let path = self.resolve_parent(&path)?;
        let not_set = match entry.kind {
            Kind::Directory => self.directory(&path, meta).map(|()| Vec::new()),
            Kind::File { .. } => self.file(&path, &meta, entry.sparse.as_ref(), archive),
            Kind::Symlink => self.symlink(&path, &entry.link, &meta),
            // Its attributes are those of its target.
            Kind::HardLink => return self.hard_link(&path, &entry.link),
            Kind::Fifo => self.node(&path, FileType::Fifo, 0, &meta),
            Kind::CharDevice | Kind::BlockDevice => match self.device(&path, entry, &meta)? {
                Some(not_set) => Ok(not_set),
                None => return Ok(()),
            },
            Kind::Other(flag) if self.options.policy == Policy::Lenient => {
                self.skip(&entry.name, SkippedPart::UnknownType(flag));
                return Ok(());
            }
            Kind::Other(_) => {
                let words = "is of a type that is not known";
                return Err(Error::new(ErrorKind::Unsupported, Operation::Unpack, words));
            }
        };
        self.skip_xattrs(&entry.name, left_out);
        self.skip_xattrs(&entry.name, not_set?);
        Ok(())
    }

    /// A device, if there is to be one.
    fn device(&mut self, path: &[u8], entry: &Entry, meta: &Meta) -> Result<Option<LeftOut>, Error> {
        let char_device = entry.kind == Kind::CharDevice;
        if char_device && entry.device == (0, 0) {
            return Err(Error::refused("is the device 0:0, by which a layer would steer overlayfs"));
        }
        if self.options.devices == Devices::Make {
            let kind = if char_device { FileType::CharacterDevice } else { FileType::BlockDevice };
            let made = self.node(path, kind, rustix::fs::makedev(entry.device.0, entry.device.1), meta);
            match made {
                Err(e) if e.kind() == ErrorKind::PermissionDenied && self.options.policy == Policy::Lenient => {}
                made => return made.map(Some),
            }
        }
        self.skip(&entry.name, SkippedPart::Device);
        Ok(None)
    }

    /// Few bytes of a layer can ask for much memory: one global header gives every directory its attributes.
    fn check_kept(&self) -> Result<(), Error> {
        let kept = self.kept.saturating_add(self.tree.kept());
        if kept > self.options.limits.kept_bytes { Err(self.too_much_kept()) } else { Ok(()) }
    }

    fn too_much_kept(&self) -> Error {
        Error::limit(Operation::Unpack, "bytes to be kept until the end", self.options.limits.kept_bytes)
    }

    fn skip(&mut self, name: &[u8], what: SkippedPart) {
        let more = if let SkippedPart::Xattr(xattr) = &what { xattr.len() } else { 0 };
        self.kept += cost(name.len() + more);
        self.skipped.push(Skipped { entry: OsString::from_vec(name.to_vec()), what });
    }

    fn skip_xattrs(&mut self, name: &[u8], left_out: LeftOut) {
        for xattr in left_out {
            self.skip(name, SkippedPart::Xattr(OsString::from_vec(xattr)));
        }
    }

    /// Where a name leads, its last component not being followed.
    fn resolve_parent(&mut self, path: &[u8]) -> Result<TreePath, Error> {
        let (parent, leaf) = split(path);
        // The most frequent case: the parent is a directory of this layer, without symlinks on the way.
        if self.tree.has(parent) {
            return Ok(path.to_vec());
        }
        match resolve(parent, |path| self.look(path))? {
            Some(parent) => Ok(join(&parent, leaf)),
            None => Err(Error::refused("is below something that is not a directory")),
        }
    }

    /// What an entry on its way meets: this layer above the lower ones.
    fn look(&mut self, path: &[u8]) -> Result<Node, Error> {
        match self.tree.look(path)? {
            Node::Absent if self.is_cut(path) => return Ok(Node::Absent),
            Node::Absent => {}
            found => return Ok(found),
        }
        let Some(found) = self.below()?.look(path)? else { return Ok(Node::Absent) };
        Ok(match found.node()? {
            Node::Symlink(target) => {
                if self.followed.insert(path.to_vec(), target.clone()).is_none() {
                    self.kept += cost(path.len() + target.len());
                }
                Node::Symlink(target)
            }
            // A directory of this layer will hide it.
            Node::Other => Node::Absent,
            node => node,
        })
    }

    /// Whether this layer hides what the lower ones have at `path`, by a whiteout, or an opaque or new directory above.
    fn is_cut(&self, path: &[u8]) -> bool {
        let replaced = |path: &[u8]| self.tree.get(path).is_some_and(|d| d.opaque);
        self.whiteouts.contains(path) || replaced(path) || self.is_within_cut(path)
    }

    fn is_within_cut(&self, path: &[u8]) -> bool {
        let replaced = |path: &[u8]| self.tree.get(path).is_some_and(|d| d.opaque);
        ancestors(path).any(|a| self.whiteouts.contains(a) || self.opaques.contains(a) || replaced(a))
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        let target = tree_path(target, &self.options.limits)?;
        let found = self.resolve_parent(&target)?;
        if found == path {
            return Err(Error::refused("is a hard link to itself"));
        }
        if self.tree.look(&found)? == Node::Absent {
            // It may come later; else it is a lower layer's.
            self.kept += cost(path.len() + target.len());
            self.links.insert(path.to_vec(), target);
            return Ok(());
        }
        self.link(path, &found)
    }
}
