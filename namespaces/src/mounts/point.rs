//! Mount points: found inside the root, or made there.

use super::Mounts;
use super::source::{Found, Sources};
use crate::compile::{OPEN_HOW_SIZE, c_string, open_how};
use crate::mount::MountKind;
use crate::program::{Arg, Finding, Slot, Sys, Then};
use crate::{Error, Mount, Sandbox, Step};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Links lead nowhere out of the root, and those of `/proc` nowhere at all.
const INSIDE: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// A mount of the sandbox's own, or the root.
#[derive(Debug, Clone)]
pub(super) struct Base {
    path: PathBuf,
    /// Where what is missing may be made: in the root, and in an empty file system.
    dir: Option<Arg>,
    /// The mount, if something in it is to be covered.
    mount: Option<Slot>,
}

impl Mounts<'_> {
    pub(super) fn root_is(&mut self, root: Option<Arg>) {
        self.root = root;
        self.bases = vec![Base { path: "/".into(), dir: root, mount: None }];
    }

    /// Something has been mounted here: what was known of it and below it is hidden.
    pub(super) fn covered(&mut self, target: &Path, made: Option<Slot>, mount: Option<Slot>) {
        self.bases.retain(|base| !base.path.starts_with(target));
        self.bases.push(Base { path: target.to_owned(), dir: made.map(Arg::from), mount });
    }

    /// The directory below which this mount point lies and may be made, and its path from there.
    fn base_of<'t>(&self, target: &'t Path) -> Option<(Arg, &'t Path)> {
        let above = self.bases.iter().filter(|base| base.path != target && target.starts_with(&base.path));
        let base = above.max_by_key(|base| base.path.components().count())?;
        Some((base.dir?, target.strip_prefix(&base.path).ok()?))
    }

    /// Opens a mount point. If it is missing, it is made where that is allowed.
    pub(super) fn find_or_make(&mut self, target: &Path, kind: Kind) -> Result<(), Error> {
        let into = self.hands.target;
        let flags = if kind == Kind::Directory { libc::O_PATH | libc::O_DIRECTORY } else { libc::O_PATH };
        let Some((dir, inner)) = self.base_of(target) else {
            let open = self.open_inside(target, flags)?;
            self.program.call_then(Step::Mount, target, Sys::openat2, open, Then::Keep(into));
            return Ok(());
        };
        let open = self.open_at(dir, inner, flags, INSIDE)?;
        let found = self.program.fork(Step::Mount, target, (Sys::openat2, open), libc::ENOENT, Some(into));
        self.make(target, (dir, inner), kind)?;
        self.program.call_then(Step::Mount, target, Sys::openat2, open, Then::Keep(into));
        self.program.success_joins(found);
        Ok(())
    }

    /// Makes the directories on the way, and the mount point. Each parent is opened anew, inside the root and on the very mount in which it is
    /// to be made; its child's name has no slash. Who swaps one for a link meanwhile gets a directory in his own root, or an error.
    fn make(&mut self, target: &Path, place: (Arg, &Path), kind: Kind) -> Result<(), Error> {
        let (at, opened, name) = self.make_way(target, place)?;
        match kind {
            Kind::Directory => self.make_directory(target, at, name),
            Kind::File => {
                let args = [at, name, (libc::S_IFREG | 0o644).into(), 0_u64.into()];
                self.program.call_then(Step::Mount, target, Sys::mknodat, args, Then::Unless(libc::EEXIST));
            }
        }
        self.done_with(opened.as_slice());
        Ok(())
    }

    /// Makes the directories on the way alone; the last of them, the slot if it has been opened for that, and the name of what is to be made there.
    fn make_way(&mut self, target: &Path, (dir, inner): (Arg, &Path)) -> Result<(Arg, Option<Slot>, Arg), Error> {
        let parent = self.hands.parent;
        let (mut at, mut opened, mut last) = (dir, None, self.here);
        let mut above = PathBuf::new();
        for name in inner {
            if !above.as_os_str().is_empty() {
                self.make_directory(target, at, last);
                self.done_with(opened.as_slice());
                let flags = libc::O_PATH | libc::O_DIRECTORY;
                let open = self.open_at(dir, &above, flags, INSIDE | libc::RESOLVE_NO_XDEV)?;
                self.program.call_then(Step::Mount, target, Sys::openat2, open, Then::Keep(parent));
                (at, opened) = (parent.into(), Some(parent));
            }
            last = self.program.string(c_string("mount point", name)?).into();
            above.push(name);
        }
        Ok((at, opened, last))
    }

    fn make_directory(&mut self, target: &Path, at: Arg, name: Arg) {
        let exists = Then::Unless(libc::EEXIST);
        self.program.call_then(Step::Mount, target, Sys::mkdirat, [at, name, 0o755_u32.into()], exists);
    }

    /// What is no mount point, but there for itself.
    pub(super) fn make_alone(&mut self, mount: &Mount) -> Result<(), Error> {
        let target = mount.target.as_path();
        let MountKind::Link(to) = &mount.kind else {
            self.find_or_make(target, Kind::Directory)?;
            self.done_with(&[self.hands.target]);
            return Ok(());
        };
        let place = self.base_of(target).ok_or_else(|| {
            let words = "lies neither in the sandbox's own root nor in a tmpfs that it can be made in";
            Error::config(format!("link {target:?}"), words)
        })?;
        let (at, opened, name) = self.make_way(target, place)?;
        self.make_link(target, to, (at, name))?;
        self.done_with(opened.as_slice());
        Ok(())
    }

    /// Makes a link, or finds it there with this very text, as the last child of the same plan has made it.
    fn make_link(&mut self, target: &Path, to: &Path, (at, name): (Arg, Arg)) -> Result<(), Error> {
        let bytes = to.as_os_str().as_bytes();
        let text: Arg = self.program.string(c_string("link", to.as_os_str())?).into();
        let make = [text, at, name];
        let fork = self.program.fork(Step::Mount, target, (Sys::symlinkat, make), libc::EEXIST, None);
        // One byte more tells a longer one.
        let read = [at, name, Arg::Scratch, (bytes.len() as u64 + 1).into()];
        let found = self.program.fork(Step::Mount, target, (Sys::readlinkat, read), libc::EINVAL, None);
        // No link: what has been refused is refused again.
        self.program.call(Step::Mount, target, Sys::symlinkat, make);
        self.program.success_joins(found);
        let whole = Then::Exactly(i64::try_from(bytes.len()).unwrap_or(i64::MAX), libc::EEXIST);
        self.program.call_then(Step::Mount, target, Sys::readlinkat, read, whole);
        for (pair, part) in bytes.chunks(2 * WORD).enumerate() {
            let (first, second) = part.split_at(part.len().min(WORD));
            let same = [finding(2 * pair, first), finding(2 * pair + 1, second)];
            self.program.call_then(Step::Mount, target, Sys::readlinkat, read, Then::Finds(same, libc::EEXIST));
        }
        self.program.success_joins(fork);
        Ok(())
    }

    /// Makes those of the root's own before it becomes read-only; from then on nothing is made there.
    pub(super) fn make_points(&mut self, sources: &Sources, sandbox: &Sandbox) -> Result<(), Error> {
        for (turn, (mount, found)) in sandbox.mounts.iter().zip(&sources.mounts).enumerate() {
            let (makes, here) = (mount.only_makes(), self.base_of(&mount.target).is_some());
            if makes && here {
                self.make_alone(mount)?;
                self.made.push(turn);
            } else if !mount.covers() && here {
                self.find_or_make(&mount.target, Kind::of(found.as_ref()))?;
                self.done_with(&[self.hands.target]);
            }
            if !makes {
                self.covered(&mount.target, None, None);
            }
        }
        self.bases = vec![Base { path: "/".into(), dir: None, mount: None }];
        Ok(())
    }

    /// Whether it is a mount of the sandbox's, of which something is to be covered.
    pub(super) fn is_mount(&self, target: &Path) -> bool {
        self.bases.iter().any(|base| base.mount.is_some() && base.path == target)
    }

    /// The arguments of an `openat2(2)` of what is to be covered. In a mount of the sandbox's it is looked up from there: on the way from the root somebody
    /// could have put another directory, in which it is missing, and needs no cover then.
    pub(super) fn open_to_cover(&mut self, target: &Path) -> Result<[Arg; 4], Error> {
        let above = self.bases.iter().filter(|base| base.mount.is_some() && target.starts_with(&base.path));
        let base = above.max_by_key(|base| base.path.components().count());
        let Some((mount, inner)) = base.and_then(|base| Some((base.mount?, target.strip_prefix(&base.path).ok()?)))
        else {
            return self.open_inside(target, libc::O_PATH);
        };
        let inner = if inner.as_os_str().is_empty() { Path::new(".") } else { inner };
        self.open_at(mount.into(), inner, libc::O_PATH, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS)
    }

    /// The arguments of an `openat2(2)` of a path of the sandbox.
    pub(super) fn open_inside(&mut self, target: &Path, flags: i32) -> Result<[Arg; 4], Error> {
        match self.root {
            Some(root) => self.open_at(root, target, flags, INSIDE),
            None => self.open_at(libc::AT_FDCWD.into(), target, flags, libc::RESOLVE_NO_MAGICLINKS),
        }
    }

    fn open_at(&mut self, dir: Arg, path: &Path, flags: i32, resolve: u64) -> Result<[Arg; 4], Error> {
        let text = self.program.string(c_string("mount point", path.as_os_str())?);
        let how = self.program.words(open_how(flags, resolve));
        Ok([dir, text.into(), how.into(), OPEN_HOW_SIZE.into()])
    }
}

/// Of the scratch.
const WORD: usize = size_of::<u64>();

/// That this word of the scratch begins with these bytes.
fn finding(word: usize, bytes: &[u8]) -> Finding {
    let (mut mask, mut value) = ([0; WORD], [0; WORD]);
    for ((mask, value), byte) in mask.iter_mut().zip(&mut value).zip(bytes) {
        (*mask, *value) = (0xff, *byte);
    }
    Finding { word, mask: u64::from_ne_bytes(mask), value: u64::from_ne_bytes(value) }
}

impl Kind {
    /// As what is bound there.
    pub(super) fn of(source: Option<&Found>) -> Kind {
        if source.is_some_and(|found| !found.directory()) { Kind::File } else { Kind::Directory }
    }
}
