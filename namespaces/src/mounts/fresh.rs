//! New file systems.

use super::{Mounts, ZERO};
use crate::compile::c_string;
use crate::mount::MountFlags;
use crate::program::{Arg, Slot, Sys, Then};
use crate::{Error, Mount, Step};
use std::ffi::OsStr;
use std::path::Path;

const FSOPEN_CLOEXEC: u64 = 1;
const FSMOUNT_CLOEXEC: u64 = 1;
const FSCONFIG_SET_FLAG: u64 = 0;
const FSCONFIG_SET_STRING: u64 = 1;
const FSCONFIG_CMD_CREATE: u64 = 6;

impl Mounts<'_> {
    /// One of our own choice, as a detached mount.
    pub(super) fn create(
        &mut self,
        step: Step,
        object: &Path,
        (name, options): (&str, &[(&str, &str)]),
        flags: MountFlags,
        into: Slot,
    ) {
        let name = self.text(name);
        self.open_context(step, object, name);
        for (key, value) in options {
            let (key, value) = (self.text(key), self.text(value));
            self.configure(step, object, [FSCONFIG_SET_STRING.into(), key, value]);
        }
        self.mount_context(step, object, flags, into);
    }

    /// One of the caller's choice, as a detached mount.
    pub(super) fn new_file_system(&mut self, mount: &Mount, name: &str, into: Slot) -> Result<(), Error> {
        let target = mount.target.as_path();
        let name: Arg = self.program.string(c_string("file system", OsStr::new(name))?).into();
        self.open_context(Step::Mount, target, name);
        for (key, value) in &mount.options {
            let key: Arg = self.program.string(c_string("mount option", OsStr::new(key))?).into();
            let setting = match value {
                None => [FSCONFIG_SET_FLAG.into(), key, ZERO],
                Some(value) => {
                    let value = self.program.string(c_string("mount option", value)?);
                    [FSCONFIG_SET_STRING.into(), key, value.into()]
                }
            };
            self.configure(Step::Mount, target, setting);
        }
        self.mount_context(Step::Mount, target, mount.flags, into);
        Ok(())
    }

    /// A control group hierarchy of version 1: of these controllers, or of this name and none.
    pub(super) fn hierarchy(
        &mut self,
        object: &Path,
        (flags, name): (&[&str], Option<&str>),
        to: MountFlags,
        into: Slot,
    ) {
        let cgroup = self.text("cgroup");
        self.open_context(Step::Mount, object, cgroup);
        for flag in flags {
            let flag = self.text(flag);
            self.configure(Step::Mount, object, [FSCONFIG_SET_FLAG.into(), flag, ZERO]);
        }
        if let Some(name) = name {
            let (key, name) = (self.text("name"), self.text(name));
            self.configure(Step::Mount, object, [FSCONFIG_SET_STRING.into(), key, name]);
        }
        self.mount_context(Step::Mount, object, to, into);
    }

    fn open_context(&mut self, step: Step, object: &Path, name: Arg) {
        let open = [name, FSOPEN_CLOEXEC.into()];
        self.program.call_then(step, object, Sys::fsopen, open, Then::Keep(self.hands.context));
    }

    fn configure(&mut self, step: Step, object: &Path, [command, key, value]: [Arg; 3]) {
        let set = [self.hands.context.into(), command, key, value, ZERO];
        self.program.call(step, object, Sys::fsconfig, set);
    }

    fn mount_context(&mut self, step: Step, object: &Path, flags: MountFlags, into: Slot) {
        self.configure(step, object, [FSCONFIG_CMD_CREATE.into(), ZERO, ZERO]);
        let mount = [self.hands.context.into(), FSMOUNT_CLOEXEC.into(), flags.bits().into()];
        self.program.call_then(step, object, Sys::fsmount, mount, Then::Keep(into));
    }
}
