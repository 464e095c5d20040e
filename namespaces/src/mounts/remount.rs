//! Flags of a mount where `mount_setattr(2)` is missing: `mount(2)` with `MS_REMOUNT | MS_BIND`.
//!
//! That call takes a path, sees only what is attached, sets one mount alone, and takes back each flag that it is not told of. So: what has been attached is found by
//! `/proc/self/fd`, at a number that the plan has reserved; a bind is made anew without what is mounted below its source, because that would be without the
//! flags; the flags that are there are asked for, and set again; and in the end the mount itself is asked, by its descriptor, whether it has them.

use super::source::Place;
use super::{Attributes, Mounts, ZERO};
use crate::bind::above_streams;
use crate::mount::MountFlags;
use crate::program::{Arg, Finding, Program, STATFS_FLAGS, Slot, Sys, Then};
use crate::{Error, Fallbacks, Sandbox, Step};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;

/// By which path a descriptor of the child's is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remount {
    spare: RawFd,
    path: Arg,
}

/// Keeps a number free for it, if it is allowed and may be needed.
pub(super) fn reserve(sandbox: &Sandbox) -> Result<Option<OwnedFd>, Error> {
    // In the mount namespace of others `/proc` is theirs.
    if !sandbox.fallbacks.contains(Fallbacks::REMOUNT) || sandbox.mounts.is_empty() || sandbox.join.is_some() {
        return Ok(None);
    }
    let failed = |call| move |errno: i32| Error::os(Step::Prepare, call, errno).about("/dev/null");
    let spare = open("/dev/null", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    above_streams(spare.map_err(|errno| failed("openat")(errno as i32))?).map(Some).map_err(failed("fcntl"))
}

impl Remount {
    pub(super) fn new(program: &mut Program, spare: RawFd) -> Self {
        let path = std::ffi::CString::new(format!("/proc/self/fd/{spare}")).unwrap_or_default();
        Remount { spare, path: program.string(path).into() }
    }
}

impl Mounts<'_> {
    /// Sets flags of a mount that is not attached yet, or notes that they are to be set by [`remount`](Self::remount) once it is.
    pub(super) fn set_now_or_later(&mut self, object: &Path, mount: Slot, how: Attributes) {
        let then = match self.remount {
            Some(_) if how.ids.is_none() => Then::Or(Fallbacks::REMOUNT, [libc::ENOSYS; 2]),
            _ => Then::Go,
        };
        self.set_then(Step::Mount, object, mount.into(), how, then);
    }

    /// A bind anew, without what is mounted below its source.
    pub(super) fn open_place_alone(&mut self, place: &Place, into: Slot) -> Result<(), Error> {
        self.if_remounted(|mounts| mounts.open_place(Step::Mount, place, false, into))
    }

    /// Sets these flags of a mount that is attached now, if they are not set.
    pub(super) fn remount(&mut self, object: &Path, mount: Slot, flags: MountFlags) {
        let Some(Remount { spare, path }) = self.remount else { return };
        let (wanted, found) = flags.as_mount_and_statfs();
        let (kept, none) = (self.program.slot(), self.text("none"));
        self.if_remounted(|mounts| {
            let (look, more) = ([mount.into(), Arg::Scratch], libc::MS_REMOUNT | libc::MS_BIND | wanted);
            mounts.program.call_then(Step::Mount, object, Sys::fstatfs, look, Then::MountFlags { keep: kept, more });
            let copy = [mount.into(), spare.into(), libc::O_CLOEXEC.into()];
            mounts.program.call(Step::Mount, object, Sys::dup3, copy);
            mounts.program.call(Step::Mount, object, Sys::mount, [none, path, ZERO, kept.into(), ZERO]);
            // Whatever the path led to.
            let set = Finding { word: STATFS_FLAGS, mask: found, value: found };
            mounts.program.call_then(Step::Mount, object, Sys::fstatfs, look, Then::Finds([set; 2], libc::ESTALE));
        });
    }

    /// The calls that `add` adds are made only where flags cannot be set otherwise.
    fn if_remounted<R>(&mut self, add: impl FnOnce(&mut Self) -> R) -> R {
        self.program.begin_only(Fallbacks::REMOUNT);
        let result = add(self);
        self.program.end_only();
        result
    }
}

impl MountFlags {
    /// As `mount(2)` takes them, and as `statfs(2)` tells them.
    fn as_mount_and_statfs(self) -> (u64, u64) {
        const NOSYMFOLLOW: (u64, u64) = (1 << 8, 1 << 13); // MS_NOSYMFOLLOW, ST_NOSYMFOLLOW
        let pairs = [
            (MountFlags::READ_ONLY, (libc::MS_RDONLY, libc::ST_RDONLY)),
            (MountFlags::NOSUID, (libc::MS_NOSUID, libc::ST_NOSUID)),
            (MountFlags::NODEV, (libc::MS_NODEV, libc::ST_NODEV)),
            (MountFlags::NOEXEC, (libc::MS_NOEXEC, libc::ST_NOEXEC)),
            (MountFlags::NOATIME, (libc::MS_NOATIME, libc::ST_NOATIME)),
            (MountFlags::NOSYMFOLLOW, NOSYMFOLLOW),
        ];
        let set = pairs.into_iter().filter(|(flag, _)| self.contains(*flag));
        set.fold((0, 0), |(mount, statfs), (_, (one, other))| (mount | one, statfs | other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_three_names() {
        assert_eq!(MountFlags::empty().as_mount_and_statfs(), (0, 0));
        let strict = MountFlags::READ_ONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        assert_eq!(strict.as_mount_and_statfs(), (0b1111, 0b1111));
        assert_eq!(MountFlags::NOATIME.as_mount_and_statfs(), (1024, 1024));
        assert_eq!(MountFlags::NOSYMFOLLOW.as_mount_and_statfs(), (256, 8192));
        let all = MountFlags::all().as_mount_and_statfs();
        assert_eq!((all.0.count_ones(), all.1.count_ones()), (6, 6));
    }
}
