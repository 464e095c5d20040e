//! OCI images on Linux: found, verified, and their layers unpacked into directories that an overlay mount can stack.
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
//! A layer is decompressed, hashed, parsed and written in one pass. When [`unpack_layer`](Image::unpack_layer) returns a [`Report`], blob and
//! `DiffID` are what the image promises; when it returns an [`Error`], that names layer, entry and reason.
//!
//! # What is here
//!
//! | type | what it is |
//! |---|---|
//! | [`Image`] | an image in an OCI layout directory, chosen by a [`Selection`]: its [`Config`], its [`Layer`]s |
//! | [`LayerReader`] | the archive inside a layer's blob: decompressed, counted, hashed |
//! | [`Unpacker`] | one layer, from a [`LayerReader`] into a directory, by [`Options`] and [`Limits`] |
//! | [`Digest`] | the name of a blob, made only by a strict parser or from bytes |
//!
//! # What it does not do
//!
//! It does not mount, fetch from registries, keep a store, or start anything. It does not log, print, read configuration or keep state.
//! In this version: no zstd, no sparse files (both are errors), no `docker save` archives, no unpacking onto a tree that is
//! there, no id maps, no writing of images.
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
//! - A hard link to a file of a lower layer copies that file into this layer first, so that both names are of one file.
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
//! are set through `/proc/self/fd`, so `/proc` must be mounted for those.
//!
//! # Privileges
//!
//! [`Options::new`] is for root, [`Options::rootless`] for an ordinary user, to whom all files then belong; what was left out is in [`Report::skipped`].
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
//! - Documents, PAX headers, names, attributes, entries and bytes have [limits](Limits), checked before memory is taken or data written.
//! - Archives that tar readers understand differently are refused.
//! - Attributes (`trusted.overlay.*`, `user.overlay.*`) and devices (0:0) by which a layer would steer overlayfs are refused.
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
mod config;
mod digest;
mod docker;
mod document;
mod error;
mod image;
mod layers;
mod layout;
mod observer;
mod options;
mod owner;
mod pipeline;
mod reader;
mod report;
mod section;
mod select;
mod unpack;

pub use config::Config;
pub use digest::{Algorithm, Digest};
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
pub use unpack::Unpacker;
