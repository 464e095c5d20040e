//! Mounts and the root, as system calls of the child.
//!
//! Everything is made as a detached mount and attached by descriptor to a mount point that was opened inside the root: what was
//! checked is what is mounted upon, and a link in a hostile root leads nowhere else.

mod bind;
mod cgroup;
mod check;
mod cover;
mod dev;
mod fresh;
mod point;
mod remount;
mod root;
mod source;

use crate::mount::{MountFlags, MountKind};
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::terminal::Opening;
use crate::{Error, Mount, Propagation, Root, Sandbox, Step};
pub(crate) use check::check;
use point::{Base, Kind};
use remount::Remount;
pub(crate) use root::pivot;
use source::Found;
pub(crate) use source::Sources;
use std::ffi::CString;
use std::path::Path;

const ZERO: Arg = Arg::Value(0);
const FROM_FD: u64 = 0x04; // MOVE_MOUNT_F_EMPTY_PATH
const TO_FD: u64 = 0x40; // MOVE_MOUNT_T_EMPTY_PATH
const OPEN_TREE_CLONE: u64 = 1;
const CLOEXEC: u64 = libc::O_CLOEXEC as u64;
const RECURSIVE: u64 = libc::AT_RECURSIVE as u64;
const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
/// From so many on descriptors are closed as soon as they have served, and not by the start of the program: a process may have 1024 of them,
/// those of the caller included.
const MANY: usize = 192;

/// Makes mounts private, attaches the root and mounts inside it. Returns the root, for [`pivot`].
pub(crate) fn compile(program: &mut Program, sources: &Sources, sandbox: &Sandbox) -> Result<Option<Arg>, Error> {
    let mut child = Mounts::new(program, sources, sandbox);
    child.propagate(Step::Propagation);
    // All of them before anything is mounted that hides one.
    let trees = child.open_sources(sources, sandbox)?;
    child.attach_root(sources, sandbox)?;
    // Mount points get the modes that they are given.
    let umask = child.program.slot();
    if makes_files(sandbox) {
        child.program.call_then(Step::Root, "umask", Sys::umask, [ZERO], Then::Keep(umask));
    }
    if sandbox.read_only_root {
        child.make_points(sources, sandbox)?;
        child.freeze_root();
    }
    for (at, ((mount, tree), found)) in sandbox.mounts.iter().zip(trees).zip(&sources.mounts).enumerate() {
        if child.made.contains(&at) {
            continue;
        }
        let later = sandbox.mounts.get(at + 1..).unwrap_or_default();
        let kept = !mount.covers() && later.iter().any(|next| next.covers() && next.target.starts_with(&mount.target));
        child.terminal = Opening::of(sandbox, at);
        child.mount(mount, (tree, found.as_ref()), kept)?;
    }
    if makes_files(sandbox) {
        child.program.call(Step::Root, "umask", Sys::umask, [umask.into()]);
    }
    Ok(child.root)
}

/// How many a mount leaves open, if they are not closed.
fn descriptors(mount: &Mount) -> usize {
    match &mount.kind {
        MountKind::Dev | MountKind::Cgroup => 24,
        MountKind::Mask => 4,
        // With each directory on the way, which may have to be made.
        _ => 2 + mount.target.components().count(),
    }
}

/// Whether any of it makes files or directories.
fn makes_files(sandbox: &Sandbox) -> bool {
    let makes = |mount: &Mount| match &mount.kind {
        MountKind::Dev | MountKind::Cgroup => true,
        MountKind::New(name) => name == "tmpfs",
        _ => false,
    };
    !sandbox.mounts.is_empty() && (sandbox.root != Root::Host || sandbox.mounts.iter().any(makes))
}

/// The slots that one mount after the other uses.
struct Hands {
    /// The context in which a file system is made.
    context: Slot,
    /// What is mounted.
    mount: Slot,
    /// What it is mounted upon.
    target: Slot,
    /// The directory in which a missing mount point is made, or a file that is made.
    parent: Slot,
    /// A mount upon a part of the one that is being made.
    inner: Slot,
}

struct Mounts<'a> {
    program: &'a mut Program,
    hands: Hands,
    /// The sandbox's own root.
    root: Option<Arg>,
    /// Where mount points may be made.
    bases: Vec<Base>,
    /// Those of the sandbox's mounts that only make something, and have made it before their turn, because the root is read-only by then.
    made: Vec<usize>,
    /// Without a user namespace of its own the child can make devices.
    own_user: bool,
    propagation: Propagation,
    /// The empty path: the descriptor itself.
    here: Arg,
    /// The host's null device.
    null: Slot,
    many: bool,
    /// The terminal to be opened in the mount that is being made.
    terminal: Option<Opening>,
    /// How flags are set where the kernel lacks the call for it, if that is allowed.
    remount: Option<Remount>,
}

impl<'a> Mounts<'a> {
    fn new(program: &'a mut Program, sources: &Sources, sandbox: &Sandbox) -> Self {
        let remount = sources.spare.map(|spare| Remount::new(program, spare));
        let mut slot = || program.slot();
        let hands = Hands { context: slot(), mount: slot(), target: slot(), parent: slot(), inner: slot() };
        Mounts {
            hands,
            root: None,
            bases: Vec::new(),
            made: Vec::new(),
            own_user: sources.own_user,
            propagation: sandbox.propagation,
            here: program.string(CString::default()).into(),
            null: program.slot(),
            many: sandbox.mounts.iter().map(descriptors).sum::<usize>() > MANY,
            terminal: None,
            remount,
            program,
        }
    }

    /// Mounts. If it is `kept`, something in it will be covered.
    fn mount(&mut self, mount: &Mount, (tree, found): (Option<Slot>, Option<&Found>), kept: bool) -> Result<(), Error> {
        let target = mount.target.as_path();
        if mount.only_makes() {
            return self.make_alone(mount);
        }
        if !mount.covers() {
            self.find_or_make(target, Kind::of(found))?;
        }
        let (mut base, mut own) = (None, None);
        match (&mount.kind, tree) {
            (MountKind::New(name), _) => {
                // Only in what is certainly empty.
                let fresh = name == "tmpfs" && !mount.flags.contains(MountFlags::READ_ONLY);
                let into = if fresh || kept { *own.insert(self.program.slot()) } else { self.hands.mount };
                base = own.filter(|_| fresh);
                self.new_file_system(mount, name, into)?;
                self.attach(target, into, self.hands.target);
                if let Some(opening) = self.terminal {
                    opening.compile(self.program, into);
                }
                self.done_with(&[self.hands.context, self.hands.target]);
                if own.is_none() {
                    self.done_with(&[self.hands.mount]);
                }
            }
            (MountKind::Bind(_), Some(tree)) => {
                self.attach(target, tree, self.hands.target);
                if mount.sets_flags_alone(found) {
                    self.remount(target, tree, mount.flags);
                }
                self.done_with(&[self.hands.target]);
                own = Some(tree);
                if !kept {
                    self.done_with(&[tree]);
                }
            }
            (MountKind::Bind(_), None) | (MountKind::Directory | MountKind::Link(_), _) => {}
            (MountKind::Dev, _) => self.dev(target, mount.flags),
            (MountKind::Cgroup, _) => self.cgroup(target, mount.flags)?,
            (MountKind::Mask, _) => self.mask(target)?,
            (MountKind::Freeze, _) => own = self.freeze(target, mount.flags)?,
        }
        if kept && own.is_none() {
            let copy = [self.hands.mount.into(), libc::F_DUPFD_CLOEXEC.into(), 3_u64.into()];
            let slot = *own.insert(self.program.slot());
            self.program.call_then(Step::Mount, target, Sys::fcntl, copy, Then::Keep(slot));
        }
        self.covered(target, base, own.filter(|_| kept || mount.covers()));
        Ok(())
    }

    fn attach(&mut self, target: &Path, from: Slot, to: Slot) {
        let attach = self.attach_args(from, to);
        self.program.call(Step::Mount, target, Sys::move_mount, attach);
    }

    fn attach_args(&self, from: Slot, to: Slot) -> [Arg; 5] {
        [from.into(), self.here, to.into(), self.here, (FROM_FD | TO_FD).into()]
    }

    /// Sets flags of a mount, and of those below it.
    fn set(&mut self, step: Step, object: &Path, mount: Arg, how: Attributes) {
        self.set_then(step, object, mount, how, Then::Go);
    }

    fn set_then(&mut self, step: Step, object: &Path, mount: Arg, how: Attributes, then: Then) {
        let Attributes { flags, recursive, ids } = how;
        let atime = if flags.contains(MountFlags::NOATIME) { libc::MOUNT_ATTR__ATIME } else { 0 };
        let id_map = if ids.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 };
        let namespace = ids.map_or(0, |fd| u64::from(fd.cast_unsigned()));
        // A struct mount_attr.
        let attributes = self.program.words([flags.bits() | id_map, atime, 0, namespace]);
        let at = EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
        let args = [mount, self.here, at.into(), attributes.into(), 32_u64.into()];
        self.program.call_then(step, object, Sys::mount_setattr, args, then);
    }

    /// Takes a mount and those below it out of their peer groups, or makes them slaves, as the sandbox's propagation is.
    fn make_private(&mut self, object: &Path, mount: Slot) {
        let kind = if self.propagation == Propagation::Slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
        let attributes = self.program.words([0, 0, kind, 0]);
        let args = [mount.into(), self.here, (EMPTY_PATH | RECURSIVE).into(), attributes.into(), 32_u64.into()];
        self.program.call(Step::Mount, object, Sys::mount_setattr, args);
    }

    /// A copy of a mount, or of a part of one, that is attached nowhere.
    fn clone_tree(&mut self, step: Step, object: &Path, (from, path): (Arg, Arg), recursive: bool, into: Slot) {
        let flags = OPEN_TREE_CLONE | CLOEXEC | EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
        self.program.call_then(step, object, Sys::open_tree, [from, path, flags.into()], Then::Keep(into));
    }

    fn done_with(&mut self, slots: &[Slot]) {
        if self.many {
            for slot in slots {
                self.program.call(Step::Mount, "", Sys::close, [(*slot).into()]);
            }
        }
    }

    /// Text of our own, without zero bytes.
    fn text(&mut self, text: &str) -> Arg {
        self.program.string(CString::new(text).unwrap_or_default()).into()
    }
}

impl Mount {
    /// Whether it is a bind whose flags need no more than one mount: what comes detached may have others below it, which only the kernel could set.
    fn sets_flags_alone(&self, found: Option<&Found>) -> bool {
        matches!(found, Some(Found::Place(place)) if !place.covered) && !self.flags.is_empty() && self.ids.is_none()
    }
}

/// What `mount_setattr(2)` is to do.
#[derive(Debug, Clone, Copy)]
struct Attributes {
    flags: MountFlags,
    recursive: bool,
    ids: Option<i32>,
}
