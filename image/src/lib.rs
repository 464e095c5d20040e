//! Container images on Linux: found, verified, their layers unpacked as layers of an overlay mount or flattened into one tree; and made.
//!
//! ```no_run
//! use cofferdam_image::{Image, Options, Selection};
//! use std::fs::{File, create_dir};
//! use std::os::fd::AsFd;
//!
//! let image = Image::open("busybox", &Selection::new().reference("latest"))?;
//!
//! let mut layers: Vec<File> = Vec::new();
//! for (number, layer) in image.layers().iter().enumerate() {
//!     let path = format!("layers/{}", layer.diff_id.hex());
//!     create_dir(&path)?;
//!     let stage = File::open(&path)?;
//!     let below: Vec<_> = layers.iter().map(File::as_fd).collect();
//!     let report = image.unpack_layer(number, stage.as_fd(), &below, &Options::new())?;
//!     println!("{}: {} entries, {} bytes", report.diff_id, report.entries, report.bytes);
//!     layers.push(stage);
//! }
//! // Mount the layers with `cofferdam-unionfs`, and start what the image says:
//! println!("{:?} in {:?}", image.config().command(), image.config().working_directory());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A layer is decompressed, hashed, parsed and written in one pass, each by a thread of its own. When [`unpack_layer`](Image::unpack_layer) returns a [`Report`],
//! blob and `DiffID` are what the image promises; when it returns an [`Error`], that names layer, entry and reason. [`Layers`] unpacks all of an image, several
//! at a time; [`Image::unpack_into`] does it into the layer store of `cofferdam-unionfs`.
//!
//! # What is here
//!
//! | type | what it is |
//! |---|---|
//! | [`Image`] | an image in an OCI layout directory or a `docker save` archive, chosen by a [`Selection`]: its [`Config`], its [`Layer`]s |
//! | [`LayerReader`] | the archive inside a layer's blob: decompressed, counted, hashed |
//! | [`Unpacker`] | one layer, from a [`LayerReader`] into a directory or [onto](Unpacker::onto) a tree, by [`Options`] and [`Limits`] |
//! | [`Layers`] | all layers of an image: as they are, or flattened into one tree |
//! | [`LayerBuilder`] | the other way round: a tree, or what has changed in it, as a layer |
//! | [`Draft`], [`LayoutWriter`] | a new image, from nothing or another one, written to a layout; [`Image::save`] writes an archive |
//! | [`Digest`] | the name of a blob, made only by a strict parser or from bytes |
//!
//! # Features
//!
//! - `zstd`: layers compressed with zstd, by its C sources. Frames that want windows of more than 128 MiB are refused.
//!
//! # What it does not do
//!
//! It does not mount, fetch from registries, keep a store, or start anything. It does not log, print, read configuration or keep state.
//! In this version archives that are compressed as a whole are not read, and nothing is unpacked without losing ownership by a user who has no
//! map of ids: a user namespace is the caller's to make.
//!
//! # What a layer means
//!
//! Where the specification leaves something open, a layer is what it would be if the layers were unpacked one onto the other.
//!
//! - The order of entries does not matter, only that of several with one name: the last counts. An entry that would have
//!   meant something else in another order (a file in place of a directory that others are in) is refused.
//! - A whiteout is about the layers below. `.wh.x` and `x` in one layer: the new `x` stays; if it is a directory, it is opaque.
//! - Symbolic links are followed in the directories of an entry's name, never in its last component: those of this layer and, where lower layers are given,
//!   theirs. With `lib -> usr/lib` below, `lib/x` is unpacked as `usr/lib/x`. None leads out of the root.
//! - A directory that entries only pass through is as in the lower layers; else it is root's, with mode 0755 and the time 0.
//! - A hard link to a file of a lower layer copies that file, with all names that it has there, into this layer first, so that all stay names of one file.
//!   Flattened, nothing is copied.
//! - Flattened, a layer is unpacked beside the tree by the same rules, and then moved there: both modes mean the same.
//! - A leading slash is dropped. `..` in a name is refused. Names are bytes.
//!
//! # Terms
//!
//! - *Blob*: a file of the layout, named by its digest. *Layer*: a blob that holds a tar archive, compressed or not.
//! - *`DiffID`*: the digest of the archive inside a layer's blob.
//! - *Stage*: the empty directory that a layer is unpacked into; published by the caller when all is well.
//! - *Whiteout*, *opaque*, *lower*, *form*: as in `cofferdam-unionfs`.
//!
//! # Kernel versions
//!
//! | needed for | system call | Linux |
//! |---|---|---|
//! | everything | `openat2` | 5.6 |
//! | whiteouts without `CAP_MKNOD` | `mknod` of device 0:0 | 5.8 |
//! | times of symlinks, devices, fifos | `utimensat` with `AT_EMPTY_PATH` | 5.8 |
//! | [`Form::User`](cofferdam_unionfs::Form::User) on tmpfs | `user.*` attributes | 6.6 |
//!
//! There are no silent fallbacks: an older kernel gives an error. Modes of devices and fifos, and attributes of what is neither a file nor a directory,
//! are set through `/proc/self/fd`, so `/proc` must be mounted for those; and for directories of a tree whose mode keeps even their owner out, when a layer is merged onto it.
//!
//! # Privileges
//!
//! [`Options::new`] is for root, or root of a user namespace in which the image's users are mapped; [`Ownership::Mapped`] for root who prepares files for such a
//! namespace; [`Options::rootless`] for an ordinary user, to whom all files then belong. What was left out is in [`Report::skipped`].
//! An ordinary user may not read files of some modes even if they are theirs (0000 of `/etc/shadow`, 4111 of `sudo`). They are unpacked all the same; but a layer with a hard link to
//! one of a lower layer, which has to be copied for that, and a [`LayerBuilder`] that comes to one are an error that names it. Root of a user namespace may read them.
//!
//! # Memory
//!
//! An image takes 64 MiB at most while it is unpacked, however large its layers are, however many of them are unpacked at a time and whatever they ask for; for zstd the
//! windows of their frames in addition. The buffers of a layer take 5 MiB. The rest is for what has to be remembered until the end of a layer, of a Debian 1 MiB: see
//! [`Limits::kept_bytes`].
//!
//! # Threats that are met here
//!
//! The image is hostile, and another process may rename things in the stage meanwhile.
//!
//! - A name is resolved by this crate, component by component, to one without symlinks; that is opened from the stage's descriptor with
//!   `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV)`. So there is no symlink to be led astray by, neither the image's nor one
//!   that was swapped in a moment ago. The last component is only ever made (`O_EXCL`), linked or removed, without following it.
//! - Files are always new: nothing is written through a hard link, no old file is opened.
//! - No digest is a path before it has been parsed, no document used before it has been verified, none read as what it does not claim to be.
//! - Documents, PAX headers, names, attributes, entries, bytes, and all that is kept in memory until the end have [limits](Limits), checked before memory is
//!   taken or data written.
//! - Archives that tar readers understand differently are refused.
//! - Attributes (`trusted.overlay.*`, `user.overlay.*`) and devices (0:0) by which a layer would steer overlayfs are refused (attributes: or left out, as
//!   [`Policy`] says).
//! - Labels and signatures of security modules (`security.*` but `security.capability`) are left out and listed: by `security.SMACK64EXEC` or `security.selinux` a layer
//!   would choose what its programs run as on this machine, by `security.ima` what is trusted.
//! - Until the end every directory of the stage has mode 0700. Afterwards it is the caller's part that nobody else can enter the directory above:
//!   a layer has set-user-id programs.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::indexing_slicing
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail"))]

mod archive;
mod blob;
mod chunk;
mod commit;
mod config;
mod digest;
mod docker;
mod document;
mod draft;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod layers;
mod layout;
mod observer;
mod options;
mod owner;
mod pipeline;
mod reader;
mod report;
mod save;
mod section;
mod select;
mod store;
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub mod test_hooks;
mod unpack;
mod user;
mod writer;

pub use commit::LayerBuilder;
pub use config::Config;
pub use digest::{Algorithm, Digest};
pub use draft::Draft;
pub use error::{Error, ErrorKind, Operation};
pub use image::{Image, Layer};
pub use layers::Layers;
pub use observer::{Observer, Progress};
pub use options::{Devices, Limits, Options, Policy};
pub use owner::{OwnerMap, Ownership};
pub use reader::{Compression, LayerReader, LayerSummary};
pub use report::{Report, Skipped, SkippedPart};
pub use section::Blob;
pub use select::Selection;
pub use store::Unpacked;
pub use unpack::Unpacker;
pub use user::User;
pub use writer::{LayoutWriter, NewLayer};
