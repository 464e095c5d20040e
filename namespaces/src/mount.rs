//! What is mounted in a sandbox, as plain data.

use bitflags::bitflags;
use std::ffi::OsString;
use std::path::PathBuf;

/// Something to mount in the sandbox's mount namespace, on a mount point given by an absolute path.
///
/// ```
/// # use cofferdam_namespaces::{Mount, Namespaces, Root, Sandbox};
/// let sandbox = Sandbox::new("/usr/bin/make")
///     .namespaces(Namespaces::MOUNT | Namespaces::PID)
///     .root(Root::Empty)
///     .mount(Mount::bind("/usr", "/usr").read_only())
///     .mount(Mount::bind("/home/me/project", "/work"))
///     .mount(Mount::tmpfs("/tmp").size(64 << 20))
///     .mount(Mount::proc("/proc"))
///     .mount(Mount::mask("/proc/kcore"))
///     .mount(Mount::dev("/dev"));
/// ```
///
/// # The mount point
///
/// The path is resolved inside the sandbox's root with `openat2(2)`, and the mount attached to what was found: a link in the root, also one that is
/// put there meanwhile, does not lead out of it.
///
/// A mount point that is missing is made, with the directories above it: a directory of mode 755, or for a file an empty file. That happens in the
/// sandbox's own [root](crate::Sandbox::root) and in a [`tmpfs`](Mount::tmpfs) that was mounted before, and nowhere else: neither
/// in the host's root nor in a directory that is bound. There a missing mount point is `ENOENT`.
///
/// # What is on it
///
/// Set-user-id programs and devices do not work on any of these, unless [`allow_suid`](Mount::allow_suid) and
/// [`allow_devices`](Mount::allow_devices) say so. The flags with which the host has mounted what is bound hold in any case: in a user namespace the kernel
/// lets nobody take them away.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "crate::spec::WrittenMount", into = "crate::spec::WrittenMount")
)]
pub struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) kind: MountKind,
    pub(crate) flags: MountFlags,
    /// Of a new file system: a key and a value, or a flag alone.
    pub(crate) options: Vec<(String, Option<OsString>)>,
    /// Of a bind: not with what is mounted below its source.
    pub(crate) alone: bool,
    /// Of a bind: a descriptor of the user namespace whose ids it has.
    pub(crate) ids: Option<String>,
}

bitflags! {
    /// What is denied on a mount: the bits of `mount_setattr(2)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub(crate) struct MountFlags: u64 {
        const READ_ONLY = libc::MOUNT_ATTR_RDONLY;
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        const NODEV = libc::MOUNT_ATTR_NODEV;
        const NOEXEC = libc::MOUNT_ATTR_NOEXEC;
        const NOATIME = libc::MOUNT_ATTR_NOATIME;
        const NOSYMFOLLOW = libc::MOUNT_ATTR_NOSYMFOLLOW;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum MountKind {
    /// A new file system of this name.
    #[cfg_attr(feature = "serde", serde(rename = "file_system"))]
    New(String),
    /// A tmpfs with devices, terminals and shared memory.
    Dev,
    /// The hierarchies of control groups.
    Cgroup,
    /// What is somewhere else.
    Bind(Source),
    /// Nothing is to be seen there.
    Mask,
    /// What is there, read-only.
    #[cfg_attr(feature = "serde", serde(rename = "read_only_path"))]
    Freeze,
    /// No mount: a directory.
    Directory,
    /// No mount: a symbolic link with this text.
    Link(#[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))] PathBuf),
}

/// Where a bind comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum Source {
    /// A path of the host.
    Path(#[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))] PathBuf),
    /// A file or directory, by descriptor.
    Fd(String),
    /// A detached mount, by descriptor.
    Mount(String),
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const QUIET: MountFlags = STRICT.union(MountFlags::NOEXEC);

impl Mount {
    fn make(target: impl Into<PathBuf>, kind: MountKind, flags: MountFlags) -> Self {
        Mount { target: target.into(), kind, flags, options: Vec::new(), alone: false, ids: None }
    }

    /// Any file system that needs no device of its own, or whose option `source` names one, `fsopen(2)`: its name as in `/proc/filesystems`.
    ///
    /// ```
    /// # use cofferdam_namespaces::Mount;
    /// let overlay = Mount::file_system("overlay", "/merged").option("lowerdir", "/usr").option("source", "merged");
    /// ```
    ///
    /// In a user namespace only those that the kernel trusts with that.
    #[must_use]
    #[doc(alias = "fs")]
    pub fn file_system(name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::New(name.into()), STRICT)
    }

    fn quiet(name: &str, target: impl Into<PathBuf>) -> Self {
        let mut mount = Self::file_system(name, target);
        mount.flags = QUIET;
        mount
    }

    /// A fresh `proc(5)` that shows the sandbox's own pid namespace; nosuid, nodev, noexec.
    ///
    /// Needs [`Namespaces::PID`](crate::Namespaces::PID). In a user namespace the kernel demands that the caller's own `/proc` has nothing mounted over its parts.
    #[must_use]
    pub fn proc(target: impl Into<PathBuf>) -> Self {
        Self::quiet("proc", target)
    }

    /// A `sysfs(5)` that shows the network of the sandbox's network namespace; read-only, nosuid, nodev, noexec.
    ///
    /// In a user namespace it needs [`Namespaces::NET`](crate::Namespaces::NET) too. Root without a user namespace could change the whole machine
    /// through one that is [`writable`](Mount::writable).
    #[must_use]
    pub fn sysfs(target: impl Into<PathBuf>) -> Self {
        Self::quiet("sysfs", target).read_only()
    }

    /// An empty `tmpfs(5)`, of mode 755 and as large as half of the machine's memory if nothing else is said; nosuid, nodev.
    #[must_use]
    pub fn tmpfs(target: impl Into<PathBuf>) -> Self {
        Self::file_system("tmpfs", target).mode(0o755)
    }

    /// Terminals of the sandbox's own, `pts(4)`; nosuid, noexec.
    #[must_use]
    pub fn devpts(target: impl Into<PathBuf>) -> Self {
        Self::quiet("devpts", target).allow_devices().option("ptmxmode", "666").option("mode", "620")
    }

    /// The POSIX message queues of the sandbox's own, `mq_overview(7)`; nosuid, nodev, noexec. Needs [`Namespaces::IPC`](crate::Namespaces::IPC).
    #[must_use]
    pub fn mqueue(target: impl Into<PathBuf>) -> Self {
        Self::quiet("mqueue", target)
    }

    /// A minimal `/dev`: null, zero, full, random, urandom and tty (in a user namespace, which may not make devices, the host's own), terminals (`pts`, `ptmx`) and shared memory (`shm`, at most
    /// 64 MiB) of the sandbox's own, and the links fd, stdin, stdout and stderr.
    #[must_use]
    pub fn dev(target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Dev, MountFlags::NOSUID | MountFlags::NOEXEC)
    }

    /// The control groups from the sandbox's own downwards, `cgroups(7)`; read-only, nosuid, nodev, noexec. Needs [`Namespaces::CGROUP`](crate::Namespaces::CGROUP).
    ///
    /// Where the machine has version 2 alone, that hierarchy; where it has version 1 too, a tmpfs with a directory for each hierarchy (`cpu,cpuacct`, with a link
    /// for each of several names), and version 2 as `unified`. Do not make it [`writable`](Mount::writable) for root without a user namespace: with version 1
    /// that is root on the host (`release_agent`, CVE-2022-0492).
    #[must_use]
    pub fn cgroup(target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Cgroup, QUIET | MountFlags::READ_ONLY)
    }

    /// Whether it changes how something looks that is there, and is nothing if there is none.
    pub(crate) fn covers(&self) -> bool {
        matches!(self.kind, MountKind::Mask | MountKind::Freeze)
    }

    fn from(source: Source, target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Bind(source), STRICT)
    }

    /// A file or directory of the host, with what is mounted below it, at another place; nosuid, nodev.
    ///
    /// As [`Root::Directory`](crate::Root::Directory) it is looked up when the [`Plan`](crate::Plan) is made, and a spawn that finds something else there fails with `ESTALE`: make a new
    /// plan for a file that has been replaced. The sandbox's own mounts do not hide it.
    #[must_use]
    #[doc(alias("rbind", "volume"))]
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::from(Source::Path(source.into()), target)
    }

    /// As [`bind`](Mount::bind), of the file or directory that [`Fds::bind`](crate::Fds::bind) gives this name; it may be opened with `O_PATH`.
    ///
    /// It must still be where it was when it was opened, in a mount of the caller's namespace: the kernel binds nothing from elsewhere.
    #[must_use]
    pub fn bind_fd(name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self::from(Source::Fd(name.into()), target)
    }

    /// The *detached* mount (`fsmount(2)`, or `open_tree(2)` with `OPEN_TREE_CLONE`) that [`Fds::bind`](crate::Fds::bind) gives this name; nosuid, nodev.
    ///
    /// A mount can be attached once: such a [`Plan`](crate::Plan) spawns once.
    #[must_use]
    pub fn attach(name: impl Into<String>, target: impl Into<PathBuf>) -> Self {
        Self::from(Source::Mount(name.into()), target)
    }

    /// Hides what is at this path, if there is anything: a directory by an empty, read-only tmpfs, anything else by the host's `/dev/null`.
    ///
    /// As all mounts, it is made in its turn: after the one that it hides something of. Root in the sandbox can take it away, unless it
    /// lacks `CAP_SYS_ADMIN`.
    ///
    /// What lies in another mount of the sandbox is looked up from that mount; a link that leads out of it is an error (`EXDEV`). In the root itself, who
    /// writes to it at that moment can put the path out of the way, and it counts as missing.
    #[must_use]
    #[doc(alias = "maskedPaths")]
    pub fn mask(target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Mask, QUIET | MountFlags::READ_ONLY)
    }

    /// Makes what is at this path, if there is anything, read-only, with all that is mounted below it.
    ///
    /// As all mounts, it is made in its turn; see [`mask`](Mount::mask).
    #[must_use]
    #[doc(alias("readonlyPaths", "remount-ro"))]
    pub fn read_only_path(target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Freeze, MountFlags::READ_ONLY)
    }

    /// No mount, but a directory of mode 755, made in its turn where a missing mount point would be, with the directories above it. If it is there, it stays as it is.
    #[must_use]
    #[doc(alias = "mkdir")]
    pub fn directory(target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Directory, MountFlags::empty())
    }

    /// No mount, but a symbolic link with the text `to`, made in its turn where a missing mount point may be made; the directories above it too. The text is taken as it
    /// is, and read when somebody follows it.
    ///
    /// What is there already is not replaced: `EEXIST`, unless it is a link with this very text.
    #[must_use]
    #[doc(alias("symlink", "ln"))]
    pub fn link(to: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self::make(target, MountKind::Link(to.into()), MountFlags::empty())
    }

    /// Whether something is made, and nothing mounted.
    pub(crate) fn only_makes(&self) -> bool {
        matches!(self.kind, MountKind::Directory | MountKind::Link(_))
    }

    /// Sets an option of a new file system, `fsconfig(2)`. The last setting of a key holds.
    #[must_use]
    pub fn option(self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.set(key.into(), Some(value.into()))
    }

    /// Sets an option of a new file system that has no value.
    #[must_use]
    pub fn flag(self, key: impl Into<String>) -> Self {
        self.set(key.into(), None)
    }

    fn set(mut self, key: String, value: Option<OsString>) -> Self {
        self.options.retain(|(known, _)| *known != key);
        self.options.push((key, value));
        self
    }

    /// The most that fits in a tmpfs, in bytes, rounded up to pages.
    #[must_use]
    pub fn size(self, bytes: u64) -> Self {
        self.option("size", bytes.to_string())
    }

    /// The most files that fit in a tmpfs.
    #[must_use]
    #[doc(alias = "nr_inodes")]
    pub fn inodes(self, number: u64) -> Self {
        self.option("nr_inodes", number.to_string())
    }

    /// The mode of the topmost directory of a tmpfs.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.option("mode", format!("{mode:o}"))
    }

    /// Nothing can be written there. Of a bind also below it, whatever is mounted there: `mount_setattr(2)`, Linux 5.12.
    ///
    /// A new file system is read-only from the start: nothing can be mounted in an empty one.
    #[must_use]
    #[doc(alias = "ro")]
    pub fn read_only(mut self) -> Self {
        self.flags |= MountFlags::READ_ONLY;
        self
    }

    /// Takes [`read_only`](Mount::read_only) back, for what is so by itself.
    #[must_use]
    #[doc(alias = "rw")]
    pub fn writable(mut self) -> Self {
        self.flags -= MountFlags::READ_ONLY;
        self
    }

    /// No program there can be started.
    #[must_use]
    pub fn noexec(mut self) -> Self {
        self.flags |= MountFlags::NOEXEC;
        self
    }

    /// Reading changes no access time. A user namespace may not say so of what it binds.
    #[must_use]
    pub fn noatime(mut self) -> Self {
        self.flags |= MountFlags::NOATIME;
        self
    }

    /// No symbolic link there is followed (Linux 5.14).
    #[must_use]
    pub fn nosymfollow(mut self) -> Self {
        self.flags |= MountFlags::NOSYMFOLLOW;
        self
    }

    /// Lets programs there be set-user-id, set-group-id or have capabilities.
    #[must_use]
    #[doc(alias = "suid")]
    pub fn allow_suid(mut self) -> Self {
        self.flags -= MountFlags::NOSUID;
        self
    }

    /// Lets devices there be opened.
    #[must_use]
    #[doc(alias("dev-bind", "nodev"))]
    pub fn allow_devices(mut self) -> Self {
        self.flags -= MountFlags::NODEV;
        self
    }

    /// Binds without what is mounted below the source. In a user namespace that is `EINVAL` if anything is: what is below must stay hidden.
    #[must_use]
    pub fn non_recursive(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Binds with owners mapped as in the user namespace that [`Fds::bind`](crate::Fds::bind) gives this name, `mount_setattr(2)` with `MOUNT_ATTR_IDMAP` (Linux 5.12).
    ///
    /// Needs `CAP_SYS_ADMIN` where the file system was mounted, so it is not for a sandbox with a user namespace of its own. There, map
    /// a detached mount before, and [`attach`](Mount::attach) it.
    #[must_use]
    #[doc(alias = "idmap")]
    pub fn id_mapped(mut self, user_namespace: impl Into<String>) -> Self {
        self.ids = Some(user_namespace.into());
        self
    }
}
