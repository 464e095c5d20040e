//! From files to a layer: what is in a tree, or has changed in it, as an archive that depends on nothing else.

mod content;
mod list;
mod output;

use crate::{Compression, Error, ErrorKind, LayerSummary, Operation};
use cofferdam_unionfs::Form;
use content::Tree;
use list::Item;
use output::Output;
use std::io::Write;
use std::os::fd::AsFd;

/// Makes layers out of files.
///
/// ```no_run
/// use cofferdam_image::LayerBuilder;
/// use std::fs::File;
///
/// let builder = LayerBuilder::new().not_after(1_700_000_000);
/// let summary = builder.changes(File::open("before")?, File::open("after")?, File::create("layer.tar.gz")?)?;
/// println!("{}", summary.diff_id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The same files give the same bytes: entries are sorted, without names of users, access times or anything else of the machine; extended attributes are
/// sorted too, and those that belong to the machine (`security.*` but capabilities) or to overlayfs are left out. Sockets are left out, as
/// `tar(1)` does; a mark says that what was below a socket is gone, too. Files that are one by hard links are one in the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(alias("commit", "diff", "export"))]
pub struct LayerBuilder {
    compression: Compression,
    not_after: Option<i64>,
    form: Form,
}

impl Default for LayerBuilder {
    fn default() -> Self {
        LayerBuilder { compression: Compression::Gzip, not_after: None, form: Form::default() }
    }
}

impl LayerBuilder {
    /// With gzip, all times as they are.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How to compress. (Zstd takes the feature `zstd`.)
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Later times become this one, in seconds since 1970: what a build has made or touched does not show when.
    #[must_use]
    #[doc(alias = "SOURCE_DATE_EPOCH")]
    pub fn not_after(mut self, seconds: i64) -> Self {
        self.not_after = Some(seconds);
        self
    }

    /// In which form an upper directory says what is hidden, for [`upper`](Self::upper).
    #[must_use]
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// All of a tree, as the only layer of an image, or a merged tree to be exported.
    ///
    /// # Errors
    /// What opening and reading the files says, or writing; [`Interfered`](ErrorKind::Interfered) if a file is shorter than it was a moment ago;
    /// [`Unsupported`](ErrorKind::Unsupported) for a name that a layer cannot have.
    pub fn tree(&self, tree: impl AsFd, to: impl Write) -> Result<LayerSummary, Error> {
        let mut tree = Tree::open(tree.as_fd())?;
        let items = list::all(&mut tree)?;
        self.write(&mut tree, &items, to)
    }

    /// What an overlay's upper directory says: its files, and what it hides.
    ///
    /// Only for uppers that were mounted with `redirect_dir` and `metacopy` off, as `cofferdam-unionfs` does: where those were on, the files are not
    /// complete, which is an error here. Compare trees then.
    ///
    /// # Errors
    /// As [`tree`](Self::tree); [`Unsupported`](ErrorKind::Unsupported) for a directory or file that is not complete.
    #[doc(alias = "upperdir")]
    pub fn upper(&self, upper: impl AsFd, to: impl Write) -> Result<LayerSummary, Error> {
        let mut tree = Tree::open(upper.as_fd())?;
        let items = list::of_upper(&mut tree, self.form)?;
        self.write(&mut tree, &items, to)
    }

    /// What has to be done to `before` to make it `after`: two whole trees. Files are the same if everything that `lstat(2)` says but inode, device and change
    /// time is, and their attributes and targets are; contents are not read for that.
    ///
    /// # Errors
    /// As [`tree`](Self::tree).
    pub fn changes(&self, before: impl AsFd, after: impl AsFd, to: impl Write) -> Result<LayerSummary, Error> {
        let mut tree = Tree::open(after.as_fd())?;
        let items = list::changes(&mut Tree::open(before.as_fd())?, &mut tree)?;
        self.write(&mut tree, &items, to)
    }

    fn write(&self, tree: &mut Tree, items: &[Item], to: impl Write) -> Result<LayerSummary, Error> {
        let mut output = Output::new(to, self.compression)?;
        tree.write(items, self.not_after, &mut output)?;
        output.finish()
    }
}

fn unsupported(words: &'static str, path: &[u8]) -> Error {
    use std::os::unix::ffi::OsStrExt;
    Error::new(ErrorKind::Unsupported, Operation::Commit, words).about(std::ffi::OsStr::from_bytes(path))
}
