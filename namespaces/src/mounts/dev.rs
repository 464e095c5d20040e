//! A minimal `/dev`.

use super::{Attributes, CLOEXEC, FROM_FD, Mounts, OPEN_TREE_CLONE};
use crate::Step;
use crate::mount::MountFlags;
use crate::program::{Slot, Sys, Then};
use crate::terminal::PEER;
use std::path::Path;

/// Devices that every program may expect, see `dev(4)` of the container engines.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// So that nobody changes the mode or the times of the host's device. It can be written to.
const HOSTS: MountFlags = QUIET.union(MountFlags::READ_ONLY);
const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

impl Mounts<'_> {
    /// A small tmpfs with harmless devices, its own terminals and shared memory.
    pub(super) fn dev(&mut self, target: &Path, flags: MountFlags) {
        let mount = self.hands.mount;
        let devices = DEVICES.map(|(name, major, minor)| (name, libc::makedev(major, minor)));
        let hosts = if self.own_user {
            // Before anything hides them.
            devices.map(|(name, _)| Some(self.open_device(&target.join(name), name)))
        } else {
            [None; DEVICES.len()]
        };
        let options = [("mode", "755"), ("size", "64k")];
        self.create(Step::Mount, target, ("tmpfs", &options), flags - MountFlags::READ_ONLY, mount);
        self.attach(target, mount, self.hands.target);
        for ((name, number), hosts) in devices.into_iter().zip(hosts) {
            match hosts {
                Some(device) => {
                    self.bind_device(&target.join(name), name, device);
                    self.remount(&target.join(name), device, HOSTS);
                }
                None => self.make_device(&target.join(name), name, number),
            }
        }
        for (name, to) in LINKS {
            self.link(&target.join(name), name, to);
        }
        let terminals: &[_] = &[("ptmxmode", "666"), ("mode", "620")];
        self.inside(&target.join("pts"), "pts");
        self.create(Step::Mount, &target.join("pts"), ("devpts", terminals), QUIET, self.hands.inner);
        self.attach_inside(&target.join("pts"), "pts");
        if let Some(opening) = self.terminal {
            opening.compile(self.program, self.hands.inner);
            self.console(&target.join("console"));
        }
        let memory: &[_] = &[("mode", "1777"), ("size", "64m")];
        self.inside(&target.join("shm"), "shm");
        self.create(Step::Mount, &target.join("shm"), ("tmpfs", memory), QUIET | MountFlags::NODEV, self.hands.inner);
        self.attach_inside(&target.join("shm"), "shm");
        self.seal(target, flags);
    }

    /// A user namespace may not make devices: it gets the host's.
    fn open_device(&mut self, object: &Path, name: &str) -> Slot {
        let (device, slot) = (self.text(&format!("/dev/{name}")), self.program.slot());
        let clone = [libc::AT_FDCWD.into(), device, (OPEN_TREE_CLONE | CLOEXEC).into()];
        self.program.call_then(Step::Mount, object, Sys::open_tree, clone, Then::Keep(slot));
        self.set_now_or_later(object, slot, Attributes { flags: HOSTS, recursive: false, ids: None });
        slot
    }

    fn bind_device(&mut self, object: &Path, name: &str, device: Slot) {
        let (file, made) = (self.text(name), self.hands.parent);
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let create = [self.hands.mount.into(), file, flags.into(), 0o666_u32.into()];
        self.program.call_then(Step::Mount, object, Sys::openat, create, Then::Keep(made));
        self.attach(object, device, made);
    }

    /// The program's terminal by the name of the machine's, as container engines have it. By descriptor (CVE-2025-52565).
    fn console(&mut self, object: &Path) {
        let slot = self.program.slot();
        self.clone_tree(Step::Mount, object, (PEER.into(), self.here), false, slot);
        self.bind_device(object, "console", slot);
    }

    /// Its own, so that what is done to it (a mode, an owner) is not done to the host's.
    fn make_device(&mut self, object: &Path, name: &str, number: u64) {
        let file = self.text(name);
        let node = [self.hands.mount.into(), file, (libc::S_IFCHR | 0o666).into(), number.into()];
        self.program.call(Step::Mount, object, Sys::mknodat, node);
    }

    /// A symbolic link in the mount being made.
    pub(super) fn link(&mut self, object: &Path, name: &str, to: &str) {
        let (link, destination) = (self.text(name), self.text(to));
        self.program.call(Step::Mount, object, Sys::symlinkat, [destination, self.hands.mount.into(), link]);
    }

    /// A directory in the mount being made.
    pub(super) fn inside(&mut self, object: &Path, name: &str) {
        let name = self.text(name);
        let make = [self.hands.mount.into(), name, 0o755_u32.into()];
        self.program.call(Step::Mount, object, Sys::mkdirat, make);
    }

    /// A mount on a directory of the mount being made.
    pub(super) fn attach_inside(&mut self, object: &Path, name: &str) {
        let name = self.text(name);
        let attach = [self.hands.inner.into(), self.here, self.hands.mount.into(), name, FROM_FD.into()];
        self.program.call(Step::Mount, object, Sys::move_mount, attach);
    }

    /// The mount that has been made, once everything is in it.
    pub(super) fn seal(&mut self, object: &Path, flags: MountFlags) {
        if flags.contains(MountFlags::READ_ONLY) {
            let how = Attributes { flags: MountFlags::READ_ONLY, recursive: false, ids: None };
            self.set_now_or_later(object, self.hands.mount, how);
            self.remount(object, self.hands.mount, MountFlags::READ_ONLY);
        }
    }
}
