//! Unpacks one layer into a directory, as a layer for an overlay mount, or merged onto a tree.

mod dirs;
mod entry;
mod finish;
mod flatten;
mod kept;
mod leaf;
mod links;
mod lowers;
mod marks;
mod meta;
mod name;
mod resolve;
mod tree;
mod unlocked;

use crate::archive::Archive;
use crate::pipeline::{self, Chunks};
use crate::report::Skipped;
use crate::{Error, LayerReader, LayerSummary, Observer, Operation, Options, Progress, Report};
pub(crate) use dirs::{Dirs, names, stat_in};
use flatten::Target;
pub(crate) use kept::{Budget, Share};
use links::Groups;
use lowers::Lowers;
pub(crate) use meta::is_label;
pub(crate) use name::split;
#[cfg(any(test, fuzzing))]
use name::{Meaning, meaning};
use name::{TreePath, ancestors, components, join};
use resolve::{Node, resolve};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use tree::{Tree, cost};
use unlocked::Unlocked;

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
    /// Those of names and values of attributes.
    attributes: u64,
    skipped: Vec<Skipped>,
    /// Bytes that all these names take in memory,
    kept: u64,
    /// those of `skipped` among them,
    kept_of_skipped: u64,
    /// and how many it may be.
    share: Share,
}

/// What symlinks lead to and fro between has at most so many times the components that a path may have.
const WAY: usize = 8;

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
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the directory is not empty; what opening and reading it says.
    pub fn new(stage: impl AsFd, options: Options) -> Result<Self, Error> {
        Ok(Unpacker {
            tree: Tree::new(stage.as_fd())?,
            lowers: Lowers::unknown(),
            wait: None,
            target: None,
            watch: Watch { observer: None, progress: Progress { layer: 0, blob: 0, archive: 0 } },
            share: Share::alone(options.limits.kept_bytes),
            options,
            whiteouts: BTreeSet::new(),
            opaques: BTreeSet::new(),
            followed: BTreeMap::new(),
            links: BTreeMap::new(),
            groups: BTreeMap::new(),
            entries: 0,
            copied_names: 0,
            bytes: 0,
            attributes: 0,
            skipped: Vec::new(),
            kept: 0,
            kept_of_skipped: 0,
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
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if they are one directory, or of two file systems; what opening it says.
    #[doc(alias = "flatten")]
    pub fn onto(mut self, target: impl AsFd) -> Result<Self, Error> {
        let target = target.as_fd();
        let unlocked = Unlocked::default();
        self.target = Some(Target::new(target, self.tree.open(b"")?.as_fd(), unlocked.clone())?);
        self.lowers = Lowers::tree(target, unlocked)?;
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

    /// Calls `wait` before anything is looked up in the layers below, which may be in the making until then, and shares with them what may be kept in memory.
    pub(crate) fn beside_others(mut self, wait: Wait, share: Share) -> Self {
        self.wait = Some(wait);
        self.share = share;
        self
    }

    /// Unpacks the layer, and reads it to its end. Blocks until it is done. Two more threads decompress and hash meanwhile.
    ///
    /// After an error the directory holds a part of the layer: discard it. So it is to be done if the digests in the report are not those that were
    /// promised; [`Image::unpack_layer`](crate::Image::unpack_layer) compares them.
    ///
    /// # Errors
    /// [`Refused`](crate::ErrorKind::Refused), [`Malformed`](crate::ErrorKind::Malformed), [`Unsupported`](crate::ErrorKind::Unsupported),
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) and [`Corrupt`](crate::ErrorKind::Corrupt) about the layer, of which
    /// [`entry`](Error::entry) names the entry; [`Cancelled`](crate::ErrorKind::Cancelled); whatever the kernel says.
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
        self.share.done(self.kept_of_skipped);
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
    fn below(&mut self) -> Result<&mut Lowers, Error> {
        if let Some(Wait(wait)) = self.wait.take()
            && let Some(layers) = wait()?
        {
            let layers: Vec<BorrowedFd<'_>> = layers.iter().map(AsFd::as_fd).collect();
            self.lowers = Lowers::new(&layers, self.options.form)?;
        }
        Ok(&mut self.lowers)
    }

    /// Few bytes of a layer can ask for much memory: one global header gives every directory its attributes.
    fn check_kept(&mut self) -> Result<(), Error> {
        while !self.share.keep(self.kept.saturating_add(self.tree.kept()).saturating_add(self.lowers.kept()))? {
            self.below()?;
        }
        Ok(())
    }

    /// Where a name leads, its last component not being followed.
    fn resolve_parent(&mut self, path: &[u8]) -> Result<TreePath, Error> {
        let (parent, leaf) = split(path);
        // The most frequent case: the parent is a directory of this layer, without symlinks on the way.
        if self.tree.has(parent) {
            return Ok(path.to_vec());
        }
        match self.follow(parent)? {
            Some(parent) => Ok(join(&parent, leaf)),
            None => Err(Error::refused("is below something that is not a directory")),
        }
    }

    /// Where the directory of a name leads. With the name it has as many components as a name may have without symlinks: what they lead to is made, and
    /// looked for in every layer below.
    fn follow(&mut self, parent: &[u8]) -> Result<Option<TreePath>, Error> {
        let limit = self.options.limits.depth;
        resolve(parent, limit.saturating_mul(WAY), |path| {
            if components(path).count() >= limit {
                return Err(Error::limit(Operation::Unpack, "components in a path", limit as u64));
            }
            self.look(path)
        })
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
}
