//! The root: attached first, changed to last.

use super::source::{Found, Sources};
use super::{Attributes, FROM_FD, Mounts, RECURSIVE, ZERO};
use crate::mount::MountFlags;
use crate::program::{Arg, Sys, Then};
use crate::report::CHROOTED;
use crate::{Error, Propagation, Root, Sandbox, Step};
use std::path::Path;

impl Mounts<'_> {
    /// Settles what mounts inside and outside have to do with each other, for all that there are.
    pub(super) fn propagate(&mut self, step: Step) {
        let kind = match self.propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
        };
        let (none, root) = (self.text("none"), self.text("/"));
        let flags = libc::MS_REC | kind;
        self.program.call(step, "/", Sys::mount, [none, root, ZERO, flags.into(), ZERO]);
    }

    /// On top of the host's root: the one place that is there for certain.
    pub(super) fn attach_root(&mut self, sources: &Sources, sandbox: &Sandbox) -> Result<(), Error> {
        let slot = self.program.slot();
        let root: Arg = match (&sandbox.root, &sources.root) {
            (_, Some(Found::Place(place))) => {
                self.open_place(Step::Root, place, true, slot)?;
                slot.into()
            }
            (_, Some(Found::Mount { fd, .. })) => (*fd).into(),
            (Root::Empty, None) => {
                let options = [("mode", "755")];
                self.create(
                    Step::Root,
                    Path::new("/"),
                    ("tmpfs", &options),
                    MountFlags::NOSUID | MountFlags::NODEV,
                    slot,
                );
                slot.into()
            }
            _ => {
                self.root_is(None);
                return Ok(());
            }
        };
        let top = self.text("/");
        let attach = [root, self.here, libc::AT_FDCWD.into(), top, FROM_FD.into()];
        self.program.call(Step::Root, "/", Sys::move_mount, attach);
        // It may be a peer of a shared mount of the host, where what is mounted inside would appear.
        self.propagate(Step::Root);
        self.root_is(Some(root));
        Ok(())
    }

    /// All that is in the root now; what is mounted afterwards is not. Without a root of its own, all that the host has mounted.
    pub(super) fn freeze_root(&mut self) {
        let flags = MountFlags::READ_ONLY;
        if let Some(root) = self.root {
            self.set(Step::Root, Path::new("/"), root, Attributes { flags, recursive: true, ids: None });
        } else {
            self.program.close_written(Step::Root);
            let (top, attributes) = (self.text("/"), self.program.words([flags.bits(), 0, 0, 0]));
            let args = [libc::AT_FDCWD.into(), top, RECURSIVE.into(), attributes.into(), 32_u64.into()];
            self.program.call(Step::Root, "/", Sys::mount_setattr, args);
        }
    }

    /// `pivot_root(".", ".")` stacks the old root upon the new one, from where it is taken away: no directory is needed for it.
    ///
    /// It is impossible (`EINVAL`) in an initramfs, whose root can neither be moved nor taken away. There the new root is on top of it, and `chroot(2)` is how to get
    /// there; whoever has `CAP_SYS_CHROOT` may get back.
    pub(super) fn pivot(&mut self, or_chroot: bool) {
        let Some(root) = self.root else { return };
        let (dot, top) = (self.text("."), self.text("/"));
        self.program.call(Step::Pivot, "/", Sys::fchdir, [root]);
        let let_go = [dot, libc::MNT_DETACH.into()];
        if or_chroot {
            let pivot = self.program.fork(Step::Pivot, "/", (Sys::pivot_root, [dot, dot]), libc::EINVAL, None);
            // No errno is 0.
            let gone = self.program.fork(Step::Pivot, "/", (Sys::umount2, let_go), 0, None);
            self.program.failure_joins(pivot);
            self.program.call_then(Step::Pivot, "/", Sys::chroot, [dot], Then::Notes(CHROOTED));
            self.program.success_joins(gone);
        } else {
            self.program.call(Step::Pivot, "/", Sys::pivot_root, [dot, dot]);
            self.program.call(Step::Pivot, "/", Sys::umount2, let_go);
        }
        self.program.call(Step::Pivot, "/", Sys::chdir, [top]);
    }
}
