//! Mounts and the root, as system calls of the child.
//!
//! Everything is made as a detached mount and attached by descriptor to a mount point that was opened inside the root: what was
//! checked is what is mounted upon, and a link in a hostile root leads nowhere else.

use crate::compile::{FILE, OPEN_HOW_SIZE, c_string, open_how};
use crate::mount::MountKind;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::{Error, Mount, Namespaces, Sandbox, Step};
use std::ffi::CString;
use std::path::Path;

const CONTEXT: Slot = Slot(4);
const MOUNT: Slot = Slot(5);
const TARGET: Slot = Slot(6);
const TREE: Slot = Slot(7);
// 8 to 12 are for the gate.
const UMASK: Slot = Slot(13);
/// As many as there are devices.
const NODES: [Slot; DEVICES.len()] = [Slot(14), Slot(15), Slot(16), Slot(17), Slot(18), Slot(19)];

const FSOPEN_CLOEXEC: u64 = 1;
const FSMOUNT_CLOEXEC: u64 = 1;
const FSCONFIG_SET_STRING: u64 = 1;
const FSCONFIG_CMD_CREATE: u64 = 6;
const OPEN_TREE_CLONE: u64 = 1;
const FROM_FD: u64 = 0x04; // MOVE_MOUNT_F_EMPTY_PATH
const TO_FD: u64 = 0x40; // MOVE_MOUNT_T_EMPTY_PATH
const QUIET: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
const ZERO: Arg = Arg::Value(0);

/// Devices that every program may expect, see `dev(4)` of the container engines.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEV_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes mounts private, attaches the root, mounts inside it, and lets the host's root go.
pub(crate) fn compile(program: &mut Program, root: Option<i32>, sandbox: &Sandbox) -> Result<(), Error> {
    let own_user = sandbox.namespaces.contains(Namespaces::USER);
    let mut child = Mounts { here: program.string(CString::default()), root, own_user, program };
    child.make_private(Step::Propagation);
    child.attach_root();
    for mount in &sandbox.mounts {
        child.mount(mount)?;
    }
    // Last: in a user namespace proc can only be mounted while another one is in sight.
    child.pivot();
    Ok(())
}

struct Mounts<'a> {
    program: &'a mut Program,
    root: Option<i32>,
    /// Without a user namespace of its own the child can make devices.
    own_user: bool,
    /// The empty path: the descriptor itself.
    here: u64,
}

impl Mounts<'_> {
    fn make_private(&mut self, step: Step) {
        let (none, root) = (self.text("none"), self.text("/"));
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        self.program.call(step, "/", Sys::mount, [none, root, ZERO, flags.into(), ZERO]);
    }

    /// On top of the host's root: the one place that is there for certain.
    fn attach_root(&mut self) {
        if let Some(root) = self.root {
            let top = self.text("/");
            let attach = [root.into(), self.here.into(), libc::AT_FDCWD.into(), top, FROM_FD.into()];
            self.program.call(Step::Root, "", Sys::move_mount, attach);
            // It may be a peer of a shared mount of the host, where what is mounted inside would appear.
            self.make_private(Step::Root);
        }
    }

    /// `pivot_root(".", ".")` stacks the old root upon the new one, from where it is taken away: no directory is needed for it.
    fn pivot(&mut self) {
        if let Some(root) = self.root {
            let (dot, top) = (self.text("."), self.text("/"));
            self.program.call(Step::Pivot, "", Sys::fchdir, [root.into()]);
            self.program.call(Step::Pivot, "", Sys::pivot_root, [dot, dot]);
            self.program.call(Step::Pivot, "", Sys::umount2, [dot, libc::MNT_DETACH.into()]);
            self.program.call(Step::Pivot, "/", Sys::chdir, [top]);
        }
    }

    fn mount(&mut self, mount: &Mount) -> Result<(), Error> {
        self.open_target(&mount.target)?;
        match mount.kind {
            MountKind::Proc => {
                self.create(&mount.target, "proc", &[], QUIET | libc::MOUNT_ATTR_NODEV, MOUNT);
                self.attach(&mount.target, MOUNT, TARGET);
            }
            MountKind::Dev => self.dev(&mount.target),
        }
        Ok(())
    }

    /// Opens the mount point; in a root of our own it is made if it is a missing directory of the top level.
    fn open_target(&mut self, target: &Path) -> Result<(), Error> {
        let text: Arg = self.program.string(c_string("mount point", target.as_os_str())?).into();
        let (from, resolve) = match self.root {
            Some(root) => (root, libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS),
            None => (libc::AT_FDCWD, libc::RESOLVE_NO_MAGICLINKS),
        };
        let mut names = target.components().skip(1);
        if let (Some(root), Some(name), None) = (self.root, names.next(), names.next()) {
            let name: Arg = self.program.string(c_string("mount point", name.as_os_str())?).into();
            let make = [root.into(), name, 0o755_u32.into()];
            self.program.call_then(Step::Mount, target, Sys::mkdirat, make, Then::Unless(libc::EEXIST));
        }
        let how = self.program.words(open_how(libc::O_PATH | libc::O_DIRECTORY, resolve));
        let open = [from.into(), text, how.into(), OPEN_HOW_SIZE.into()];
        self.program.call_then(Step::Mount, target, Sys::openat2, open, Then::Keep(TARGET));
        Ok(())
    }

    /// A detached mount of a new file system.
    fn create(&mut self, target: &Path, kind: &str, options: &[(&str, &str)], attributes: u64, into: Slot) {
        let kind = self.text(kind);
        let open = [kind, FSOPEN_CLOEXEC.into()];
        self.program.call_then(Step::Mount, target, Sys::fsopen, open, Then::Keep(CONTEXT));
        for (key, value) in options {
            let (key, value) = (self.text(key), self.text(value));
            let set = [CONTEXT.into(), FSCONFIG_SET_STRING.into(), key, value, ZERO];
            self.program.call(Step::Mount, target, Sys::fsconfig, set);
        }
        let create = [CONTEXT.into(), FSCONFIG_CMD_CREATE.into(), ZERO, ZERO, ZERO];
        self.program.call(Step::Mount, target, Sys::fsconfig, create);
        let mount = [CONTEXT.into(), FSMOUNT_CLOEXEC.into(), attributes.into()];
        self.program.call_then(Step::Mount, target, Sys::fsmount, mount, Then::Keep(into));
    }

    fn attach(&mut self, target: &Path, from: Slot, to: Slot) {
        let flags = FROM_FD | TO_FD;
        let attach = [from.into(), self.here.into(), to.into(), self.here.into(), flags.into()];
        self.program.call(Step::Mount, target, Sys::move_mount, attach);
    }

    /// A small tmpfs with harmless devices, its own terminals and shared memory.
    fn dev(&mut self, target: &Path) {
        if self.own_user {
            // Before anything hides them.
            for ((name, ..), slot) in DEVICES.into_iter().zip(NODES) {
                self.open_device(&target.join(name), name, slot);
            }
        }
        self.create(target, "tmpfs", &[("mode", "755"), ("size", "64k")], QUIET, MOUNT);
        self.attach(target, MOUNT, TARGET);
        // Modes are as given.
        self.program.call_then(Step::Mount, target, Sys::umask, [ZERO], Then::Keep(UMASK));
        for ((name, major, minor), slot) in DEVICES.into_iter().zip(NODES) {
            if self.own_user {
                self.bind_device(&target.join(name), name, slot);
            } else {
                self.make_device(&target.join(name), name, libc::makedev(major, minor));
            }
        }
        for (name, to) in DEV_LINKS {
            let (link, destination) = (self.text(name), self.text(to));
            self.program.call(Step::Mount, target.join(name), Sys::symlinkat, [destination, MOUNT.into(), link]);
        }
        let terminals: &[_] = &[("ptmxmode", "666"), ("mode", "620")];
        self.inner(&target.join("pts"), "pts", "devpts", terminals, QUIET);
        let memory: &[_] = &[("mode", "1777"), ("size", "64m")];
        self.inner(&target.join("shm"), "shm", "tmpfs", memory, QUIET | libc::MOUNT_ATTR_NODEV);
        self.program.call(Step::Mount, target, Sys::umask, [UMASK.into()]);
    }

    /// A user namespace may not make devices: it gets the host's.
    fn open_device(&mut self, object: &Path, name: &str, into: Slot) {
        let device = self.text(&format!("/dev/{name}"));
        let flags = OPEN_TREE_CLONE | u64::from(libc::O_CLOEXEC.cast_unsigned());
        let clone = [libc::AT_FDCWD.into(), device, flags.into()];
        self.program.call_then(Step::Mount, object, Sys::open_tree, clone, Then::Keep(into));
    }

    fn bind_device(&mut self, object: &Path, name: &str, device: Slot) {
        let file = self.text(name);
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let make = [MOUNT.into(), file, flags.into(), 0o666_u32.into()];
        self.program.call_then(Step::Mount, object, Sys::openat, make, Then::Keep(FILE));
        self.attach(object, device, FILE);
    }

    /// Its own, so that what is done to it (a mode, an owner) is not done to the host's.
    fn make_device(&mut self, object: &Path, name: &str, number: u64) {
        let file = self.text(name);
        let make = [MOUNT.into(), file, (libc::S_IFCHR | 0o666).into(), number.into()];
        self.program.call(Step::Mount, object, Sys::mknodat, make);
    }

    /// A file system of its own on a new directory of the one just mounted.
    fn inner(&mut self, object: &Path, name: &str, kind: &str, options: &[(&str, &str)], attributes: u64) {
        let name = self.text(name);
        self.program.call(Step::Mount, object, Sys::mkdirat, [MOUNT.into(), name, 0o755_u32.into()]);
        self.create(object, kind, options, attributes, TREE);
        let attach = [TREE.into(), self.here.into(), MOUNT.into(), name, FROM_FD.into()];
        self.program.call(Step::Mount, object, Sys::move_mount, attach);
    }

    /// Text of our own, without zero bytes.
    fn text(&mut self, text: &str) -> Arg {
        self.program.string(CString::new(text).unwrap_or_default()).into()
    }
}
