//! What a test can need of the machine.

use std::fmt;
use std::fs;

use crate::cgroup::{Groups, Layout};
use crate::probe;
use crate::process::in_child;

/// Something that not every machine or user has. [`check`](Need::check) tries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// User id 0 and the right to make mount, network and pid namespaces.
    Root,
    /// An ordinary user: not id 0, no capability.
    OrdinaryUser,
    /// The caller may make a user namespace and map itself in it.
    Userns,
    /// `/etc/subuid` and `/etc/subgid` have a line for the caller.
    SubordinateIds,
    /// The capability to raise hard limits, `CAP_SYS_RESOURCE`: root may lack it in a container.
    RaiseLimits,
    /// A cgroup with this controller can be made below our own (v1) or beside it (v2), whichever
    /// version has the controller.
    Cgroup(&'static str),
    /// The same, and the controller is on v1.
    CgroupV1(&'static str),
    /// The same, and the controller is on v2.
    CgroupV2(&'static str),
    /// A cgroup v2 hierarchy is mounted, with or without controllers, and we may make cgroups.
    CgroupV2Tree,
    /// The machine's hierarchies are laid out like this.
    CgroupLayout(Layout),
    /// An overlay can be mounted: as root, or else in a user namespace.
    Overlay,
    /// `AppArmor` is the security module that is on.
    AppArmor,
    /// A file system of a program's own, `fuse(4)`, can be mounted: as root, or else in a user namespace.
    Fuse,
    /// A pair of veth links can be made: as root, or else in a user namespace.
    Veth,
    /// A vxlan link can be made: as root, or else in a user namespace.
    Vxlan,
    /// This program is there and executable: a path as `/bin/busybox`, or a name as `nft`, which is looked up in `PATH` as it will be when
    /// the test starts it.
    Program(&'static str),
    /// This program is there and linked statically: it works in a root where it is alone. (Debian has two packages with a `/bin/busybox`.)
    StaticProgram(&'static str),
    /// The Debian that `testkit/debian` makes is there, and the caller may read it.
    Debian,
    /// A process that dumps core leaves a file in its working directory: the machine's `core_pattern` names no pipe and no path, and there may be such files.
    CoreFiles,
    /// This file is there, for example one that only some kernels have.
    File(&'static str),
    /// That many bytes of memory are available (`MemAvailable`).
    Memory(u64),
}

impl Need {
    /// Tries whether the need is met, without changing the machine: what is tried is tried in a
    /// throw-away child process, or removed again. The calling process must have one thread.
    ///
    /// # Errors
    /// Why it is not met, in words that follow "needs root: ".
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Root => probe::root(),
            Self::OrdinaryUser => probe::ordinary_user(),
            Self::Userns => in_child(probe::userns),
            Self::SubordinateIds => probe::subordinate_ids(),
            Self::RaiseLimits => probe::raise_limits(),
            Self::Overlay => in_child(probe::overlay),
            Self::AppArmor => match read("/sys/module/apparmor/parameters/enabled") {
                Ok(on) if on.trim() == "Y" => Ok(()),
                _ => Err("it is not there, or off".into()),
            },
            Self::Fuse => in_child(probe::fuse),
            Self::Veth => in_child(|| probe::link("veth")),
            Self::Vxlan => in_child(|| probe::link("vxlan")),
            Self::Program(program) => probe::program(program),
            Self::StaticProgram(path) => probe::static_program(path),
            Self::Debian => probe::debian().map(drop),
            Self::File(path) => match fs::exists(path) {
                Ok(true) => Ok(()),
                _ => Err("there is no such file".into()),
            },
            Self::Memory(bytes) => probe::memory(bytes),
            Self::CoreFiles => probe::core_files(),
            Self::CgroupLayout(wanted) => match Layout::of_this_machine()? {
                found if found == wanted => Ok(()),
                found => Err(format!("this machine has {found}")),
            },
            Self::Cgroup(_) | Self::CgroupV1(_) | Self::CgroupV2(_) | Self::CgroupV2Tree => {
                let groups = Groups::make(&[self])?;
                let entered = in_child(|| groups.enter());
                groups.remove().and(entered)
            }
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::OrdinaryUser => f.write_str("an ordinary user"),
            Self::Userns => f.write_str("user namespaces"),
            Self::SubordinateIds => f.write_str("subordinate ids"),
            Self::RaiseLimits => f.write_str("CAP_SYS_RESOURCE"),
            Self::Cgroup(c) => write!(f, "cgroup {c}"),
            Self::CgroupV1(c) => write!(f, "cgroup v1 {c}"),
            Self::CgroupV2(c) => write!(f, "cgroup v2 {c}"),
            Self::CgroupV2Tree => f.write_str("cgroup v2"),
            Self::CgroupLayout(layout) => layout.fmt(f),
            Self::Overlay => f.write_str("overlay"),
            Self::AppArmor => f.write_str("AppArmor"),
            Self::Fuse => f.write_str("fuse"),
            Self::Veth => f.write_str("veth"),
            Self::Vxlan => f.write_str("vxlan"),
            Self::Debian => f.write_str("testkit/debian"),
            Self::CoreFiles => f.write_str("core dumps in the working directory"),
            Self::StaticProgram(path) => write!(f, "a static {path}"),
            Self::Program(path) | Self::File(path) => f.write_str(path),
            Self::Memory(bytes) => write!(f, "{} MiB of memory", bytes >> 20),
        }
    }
}

/// Reads a file under `/proc` or `/sys`, with an error that names it.
pub(crate) fn read(path: impl AsRef<std::path::Path>) -> Result<String, String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}
