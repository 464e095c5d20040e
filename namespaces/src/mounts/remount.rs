//! Flags of a mount where `mount_setattr(2)` is missing: `mount(2)` with `MS_REMOUNT | MS_BIND`.
//!
//! That call takes a path, sees only what is attached, sets one mount alone, and takes back each flag that it is not told of. So: what has been attached is found by
//! `/proc/self/fd`, at a number that the plan has reserved; a bind is made anew without what is mounted below its source, because that would be without the
//! flags; the flags that are there are asked for, and set again; and in the end the mount itself is asked, by its descriptor, whether it has them.
//!
//! Without what is mounted below a source, what that hides would be in sight: where there is such a mount when the plan is made, the missing call stays an error.

use super::source::Place;
use super::{Attributes, Mounts, ZERO};
use crate::bind::above_streams;
use crate::mount::MountFlags;
use crate::program::{Arg, Finding, Program, STATFS_FLAGS, Slot, Sys, Then};
use crate::{Error, Fallbacks, Sandbox, Step};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const ST_NOSYMFOLLOW: u64 = 1 << 13;

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

/// Where there are mounts now, as this thread sees them.
pub(super) fn mount_points() -> Result<Vec<PathBuf>, Error> {
    let path = "/proc/thread-self/mountinfo";
    let failed = |error: io::Error| Error::os(Step::Prepare, "read", error.raw_os_error().unwrap_or(0)).about(path);
    let text = fs::read(path).map_err(failed)?;
    // proc_pid_mountinfo(5): the fifth field.
    let fields = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(fields.map(|field| OsString::from_vec(unescape(field)).into()).collect())
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, tail)) = rest.split_first() {
        let (byte, after) = match (*first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), after)
            }
            (byte, tail) => (byte, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
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
            let mut expect = |flags, otherwise| {
                let set = Finding { word: STATFS_FLAGS, mask: flags, value: flags };
                mounts.program.call_then(Step::Mount, object, Sys::fstatfs, look, Then::Finds([set; 2], otherwise));
            };
            expect(found & !ST_NOSYMFOLLOW, libc::ESTALE);
            // Before Linux 5.10 there is no such flag, and mount(2) does not say so.
            if flags.contains(MountFlags::NOSYMFOLLOW) {
                expect(ST_NOSYMFOLLOW, libc::EOPNOTSUPP);
            }
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
        const MS_NOSYMFOLLOW: u64 = 1 << 8;
        let pairs = [
            (MountFlags::READ_ONLY, (libc::MS_RDONLY, libc::ST_RDONLY)),
            (MountFlags::NOSUID, (libc::MS_NOSUID, libc::ST_NOSUID)),
            (MountFlags::NODEV, (libc::MS_NODEV, libc::ST_NODEV)),
            (MountFlags::NOEXEC, (libc::MS_NOEXEC, libc::ST_NOEXEC)),
            (MountFlags::NOATIME, (libc::MS_NOATIME, libc::ST_NOATIME)),
            (MountFlags::NOSYMFOLLOW, (MS_NOSYMFOLLOW, ST_NOSYMFOLLOW)),
        ];
        let set = pairs.into_iter().filter(|(flag, _)| self.contains(*flag));
        set.fold((0, 0), |(mount, statfs), (_, (one, other))| (mount | one, statfs | other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mount_points_are_escaped() {
        for (field, path) in
            [("/a\\040b\\011c\\134", "/a b\tc\\"), ("/\\04", "/\\04"), ("/\\400", "/\\400"), ("\\", "\\")]
        {
            assert_eq!(unescape(field.as_bytes()), path.as_bytes());
        }
        assert!(mount_points().unwrap().contains(&PathBuf::from("/")));
    }

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
