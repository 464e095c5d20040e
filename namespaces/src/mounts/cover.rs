//! Masked and read-only paths: what is there looks different.

use super::source::null_device;
use super::{Attributes, CLOEXEC, Mounts};
use crate::mount::MountFlags;
use crate::program::{Arg, Slot, Sys, Then};
use crate::{Error, Step};
use std::path::Path;

impl Mounts<'_> {
    /// The host's null device, before anything is mounted: in the root, `/dev/null` may be whatever its maker likes (CVE-2025-31133).
    pub(super) fn open_null(&mut self) {
        let null = Path::new("/dev/null");
        let path = self.text("/dev/null");
        let open =
            [libc::AT_FDCWD.into(), path, (u64::from(libc::O_PATH.cast_unsigned()) | CLOEXEC).into(), 0_u64.into()];
        self.program.call_then(Step::Mount, null, Sys::openat, open, Then::Keep(self.null));
        self.expect(Step::Mount, null, self.null, Then::Finds(null_device(), libc::ENODEV));
    }

    /// What is missing needs no mask.
    pub(super) fn mask(&mut self, target: &Path) -> Result<(), Error> {
        let (found, mount) = (self.hands.target, self.hands.mount);
        let open = self.open_to_cover(target)?;
        let there = self.program.fork(Step::Mount, target, (Sys::openat2, open), libc::ENOENT, Some(found));
        let dot = self.text(".");
        let look = [found.into(), dot, (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).into(), 0_u64.into()];
        let looked = self.hands.parent;
        let is_directory = self.program.fork(Step::Mount, target, (Sys::openat, look), libc::ENOTDIR, Some(looked));
        self.done_with(&[looked]);
        // A directory: nothing in it.
        let nothing = MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        self.create(Step::Mount, target, ("tmpfs", &[("mode", "755"), ("size", "4k")]), nothing, mount);
        self.done_with(&[self.hands.context]);
        let attach = self.attach_args(mount, found);
        // No errno is 0.
        let covered = self.program.fork(Step::Mount, target, (Sys::move_mount, attach), 0, None);
        // Anything else: nothing to read. Read-only, so that nobody changes the mode of the host's device.
        self.program.failure_joins(is_directory);
        self.clone_tree(Step::Mount, target, (self.null.into(), self.here), false, mount);
        let flags = MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
        self.set_now_or_later(target, mount, Attributes { flags, recursive: false, ids: None });
        self.attach(target, mount, found);
        self.remount(target, mount, flags);
        self.program.success_joins(covered);
        self.done_with(&[mount, found]);
        self.program.failure_joins(there);
        Ok(())
    }

    /// What is there, bound upon itself. If that is a whole mount of the sandbox's, what is in it is looked up from its cover then, which is returned.
    pub(super) fn freeze(&mut self, target: &Path, flags: MountFlags) -> Result<Option<Slot>, Error> {
        let whole = self.is_mount(target).then(|| self.program.slot());
        let (found, mount) = (self.hands.target, whole.unwrap_or(self.hands.mount));
        let open = self.open_to_cover(target)?;
        let there = self.program.fork(Step::Mount, target, (Sys::openat2, open), libc::ENOENT, Some(found));
        self.clone_tree(Step::Mount, target, (Arg::from(found), self.here), true, mount);
        self.set(Step::Mount, target, mount.into(), Attributes { flags, recursive: true, ids: None });
        self.attach(target, mount, found);
        self.done_with(&[found]);
        if whole.is_none() {
            self.done_with(&[mount]);
        }
        self.program.failure_joins(there);
        Ok(whole)
    }
}
