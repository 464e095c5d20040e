//! Union file systems on Linux: layers stacked into a detached overlay mount, with errors that say what the kernel said.
//!
//! ```no_run
//! use cofferdam_unionfs::{Overlay, WritableLayer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let scratch = std::fs::File::open("/var/lib/build/42")?;
//! let writable = WritableLayer::create(&scratch)?;
//!
//! let root = Overlay::new()
//!     .lower("/var/lib/layers/tools") // topmost first
//!     .lower("/var/lib/layers/debian")
//!     .writable(&writable)
//!     .mount()?;
//!
//! // `root` is a mount that is attached nowhere: give it to a sandbox as its root, or work in it.
//! # Ok(())
//! # }
//! ```
//!
//! The mount is a file descriptor. Nothing else of the machine sees it, nothing has to be unmounted: it ends when the
//! last descriptor and the last process inside are gone. [`attach`] puts it into the tree for those who want that.
//!
//! # What is here
//!
//! | item | what it is |
//! |---|---|
//! | [`Overlay`] | the stack that is wanted: lowers, perhaps a writable layer, options; mounts any number of times |
//! | [`WritableLayer`] | the directories `upper` and `work`, made, found again and removed |
//! | [`LayerStore`], [`Stage`], [`StoredLayer`] | layers in a folder that programs share: published whole or not at all, kept while somebody needs them |
//! | [`Container`], [`ContainerSpec`], [`InitLayer`], [`Backend`] | the files of a container in such a store: prepared, mounted, committed, discarded |
//! | [`SpaceLimit`], [`LimitMethod`], [`Space`] | how much a container may write, and has |
//! | [`Diff`] | what a writable layer, or one tree, changes about what is below it |
//! | [`model`] | what a stack of layers shows, as plain values |
//! | [`RootDir`] | files inside of a tree whose links may be hostile |
//! | [`make_whiteout`], [`is_whiteout`], [`make_opaque`], [`is_opaque`] | how a layer says "not here any more" on disk |
//! | [`WhiteoutName`] | how a layer *archive* says it: `.wh.NAME` and `.wh..wh..opq` |
//!
//! # What it does not do
//!
//! It does not unpack archives (`cofferdam-image` does) or make namespaces. It does not
//! log, print or read configuration, and keeps no state but that of a [`LayerStore`] in its folder. Dropping things closes descriptors and never deletes.
//!
//! # Terms
//!
//! - *Lower*: a read-only layer. The first one given is the topmost and wins.
//! - *Upper*: the writable layer, on top of all; *work*: a directory on the same file system, for the kernel's own use.
//! - *Whiteout*: an entry of a layer that hides the entry of that name in the layers below.
//! - *Opaque*: a directory of a layer that does not merge with the directories of that name below it, but hides them.
//! - *Form*: whose extended attributes carry this, [`Form::Trusted`] (`trusted.overlay.*`, only for real root) or
//!   [`Form::User`] (`user.overlay.*`, in user namespaces). Layers and mount must agree.
//!
//! # On disk
//!
//! | | in a directory | in an archive |
//! |---|---|---|
//! | whiteout | character device 0:0; or an empty file with the attribute `overlay.whiteout`, in a directory with `overlay.opaque=x` | `.wh.NAME` |
//! | opaque | the attribute `overlay.opaque=y` of the directory | `.wh..wh..opq` in it |
//!
//! The kernel ignores *opaque* on the root of a layer. [`Overlay`] does not: a lower whose root is opaque hides all lowers after it,
//! so they are not even mounted.
//!
//! # Kernel versions
//!
//! | needed for | what | Linux | before that |
//! |---|---|---|---|
//! | layers by descriptor | `fsconfig(FSCONFIG_SET_FD)` of overlay | 6.13 | `/proc/thread-self/fd/N` as `lowerdir+` |
//! | two lowers, or an upper | `lowerdir+` | 6.8 | [`Fallbacks::MOUNT`]; if that is not allowed, an error of kind [`Unsupported`](ErrorKind::Unsupported) |
//! | a [`Container`] with [`Backend::Overlay`] | `lowerdir+` | 6.8 | [`ContainerSpec::fallbacks`], or [`Backend::Copy`] |
//! | [idmapped](Layer::idmapped) lowers | detached mounts as layers | 6.15 | [`Fallbacks::ATTACH`]; if that is not allowed, an error of kind [`Unsupported`](ErrorKind::Unsupported) |
//! | a [`SpaceLimit`] by image or memory | detached mounts as layers | 6.15 | an error of kind [`Unsupported`](ErrorKind::Unsupported) |
//! | a [`SpaceLimit`] by project | `quotactl_fd` | 5.14 | the same |
//! | one lower alone | `open_tree`, `mount_setattr` | 5.12 | an error of kind [`Unsupported`](ErrorKind::Unsupported) |
//! | [`make_xattr_whiteout`] | `overlay.whiteout` | 6.8 | it is shown as an empty file: do not use it |
//! | [`make_whiteout`] without `CAP_MKNOD` | `mknod` of device 0:0 | 5.8 | an error of kind [`PermissionDenied`](ErrorKind::PermissionDenied) |
//! | [`LayerStore`], [`RootDir`] | `openat2` | 5.6 | an error of kind [`Unsupported`](ErrorKind::Unsupported) |
//! | [`Form::User`] | `userxattr`; on tmpfs, `user.*` attributes | 5.11; 6.6 | an error |
//!
//! [`Support::probe`] asks the kernel.
//!
//! # Features
//!
//! `serde`: what is plain data can be written and read, [`ContainerSpec`] above all.
//!
//! # Privileges
//!
//! `CAP_SYS_ADMIN` in the user namespace that owns the caller's mount namespace: real root, or root of a user namespace with a mount namespace of its own.
//! [`LayerStore`] and [`RootDir`] need only the right to the files.
//!
//! Images have files that even their owner may not read (`/etc/shadow` with mode 0000, `sudo` with 4111). Root of a user namespace may, if its owner is mapped there; an ordinary
//! user outside of one may not. To publish and to mount takes no right to read them; to copy or compare them does ([`Backend::Copy`], [`Container::commit`],
//! [`Diff::between`]), and is [`PermissionDenied`](ErrorKind::PermissionDenied), with the name of the file. Their mode is not changed for a while to read them: who copies
//! the same layer at that moment would copy that mode, a mount of it would show it, and after a crash it would stay.
//!
//! Real root uses [`Form::Trusted`], root of a user namespace [`Form::User`]. Layers given as descriptors must have been opened in the
//! caller's mount namespace.
//!
//! # Threats that are met here
//!
//! - A path is opened once, and that descriptor is what is mounted: a path that changes meanwhile changes nothing.
//! - No path becomes part of an option string, so `,` `:` `\` and newlines in names are only bytes.
//! - No layer is cut off: mount(2) silently drops what is beyond 4095 bytes of options; this crate does not use it, or, if [asked to](Fallbacks::MOUNT), checks the length.
//! - `redirect_dir=nofollow`, `metacopy=off` and `index=off` are always passed, whatever the module's defaults are: an attribute that a hostile
//!   layer brings cannot point to files elsewhere. Unpackers must keep such attributes out all the same: [`is_overlay_xattr`].
//! - A [`RootDir`] is not left, whatever links are in it, and whoever renames its directories meanwhile.
//! - What an image has in place of `/dev` or `/etc` leads nowhere: an [`InitLayer`] is made of directories, and hides it.
//! - A process that is killed, or a machine that loses power, leaves no half layer that the next one would take for a whole one: see [`LayerStore`].
//! - Names given to the functions on directories are single components, checked before anything is done, and never followed if they are symlinks.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::indexing_slicing
)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may fail"))]

mod attach;
mod container;
mod context;
mod copy;
mod diff;
mod dir;
mod error;
mod facts;
mod fallbacks;
mod layer;
mod limit;
pub mod model;
mod mount;
mod name;
mod options;
mod overlay;
mod remove;
mod root;
mod scratch;
mod stack;
mod store;
mod support;
#[allow(unsafe_code, reason = "system calls without a safe wrapper among our dependencies")]
mod sys;
mod walk;
mod whiteout;
mod writable;

pub use attach::attach;
pub use container::{Backend, Container, ContainerSpec, InitLayer};
pub use diff::{Change, ChangeKind, Diff, DiffMethod};
pub use error::{Error, ErrorKind, Operation};
pub use fallbacks::Fallbacks;
pub use layer::Layer;
pub use limit::{LimitMethod, Space, SpaceLimit};
pub use name::WhiteoutName;
pub use options::{RedirectDir, Xino};
pub use overlay::{MAX_LOWERS, Overlay};
pub use root::RootDir;
pub use store::{Collected, Fault, LayerId, LayerStore, Owner, Problem, Stage, StoredLayer, SyncPolicy, Usage};
pub use support::Support;
pub use whiteout::{Form, is_opaque, is_overlay_xattr, is_whiteout, make_opaque, make_whiteout, make_xattr_whiteout};
pub use writable::{AfterVolatile, WritableLayer};
