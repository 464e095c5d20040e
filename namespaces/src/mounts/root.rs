//! The root: attached first, changed to last.

use super::source::{Found, Place, Sources};
use super::{Attributes, FROM_FD, Mounts, RECURSIVE, ZERO};
use crate::compile::c_string;
use crate::mount::MountFlags;
use crate::program::{Arg, Program, Stops, Sys, Then};
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
        if let Some(Found::Place(place)) = &sources.root {
            self.move_to_its_place(root, place)?;
        }
        // It may be a peer of a shared mount of the host, where what is mounted inside would appear.
        self.propagate(Step::Root);
        self.root_is(Some(root));
        Ok(())
    }

    /// While it is created, hooks find the root, and what they mount there, by the path that they know.
    fn move_to_its_place(&mut self, root: Arg, place: &Place) -> Result<(), Error> {
        // The kernel moves nothing out of a shared mount.
        if self.propagation != Propagation::Shared {
            let path: Arg = self.program.string(c_string("root", place.path.as_os_str())?).into();
            let there = [root, self.here, libc::AT_FDCWD.into(), path, FROM_FD.into()];
            self.program.stopping(Stops::Creation, |program| {
                program.call(Step::Root, &place.path, Sys::move_mount, there);
            });
        }
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
}

/// Lets the host's root go. After all mounts: in a user namespace proc can only be mounted while another one is in sight.
///
/// `pivot_root(".", ".")` stacks the old root upon the new one, from where it is taken away: no directory is needed for it.
///
/// It is impossible (`EINVAL`) in an initramfs, whose root can neither be moved nor taken away. There the new root is on top of it, and `chroot(2)` is how to get
/// there; whoever has `CAP_SYS_CHROOT` may get back.
pub(crate) fn pivot(program: &mut Program, root: Arg, or_chroot: bool) {
    let (dot, top): (Arg, Arg) = (program.string(c".".to_owned()).into(), program.string(c"/".to_owned()).into());
    program.call(Step::Pivot, "/", Sys::fchdir, [root]);
    let let_go = [dot, libc::MNT_DETACH.into()];
    if or_chroot {
        let pivot = program.fork(Step::Pivot, "/", (Sys::pivot_root, [dot, dot]), libc::EINVAL, None);
        // No errno is 0.
        let gone = program.fork(Step::Pivot, "/", (Sys::umount2, let_go), 0, None);
        program.failure_joins(pivot);
        program.call_then(Step::Pivot, "/", Sys::chroot, [dot], Then::Notes(CHROOTED));
        program.success_joins(gone);
    } else {
        program.call(Step::Pivot, "/", Sys::pivot_root, [dot, dot]);
        program.call(Step::Pivot, "/", Sys::umount2, let_go);
    }
    program.call(Step::Pivot, "/", Sys::chdir, [top]);
}
