//! The spec: what is wanted, as plain data.

use crate::privilege::Privilege;
use crate::{
    Child, Clock, ClockOffset, Credentials, Engine, Error, Fallbacks, Fds, IdMap, IoPriority, Join, Mount, Nice,
    OomScoreAdj, Personality, Plan, Propagation, Resource, Rlimit, Root, Scheduler, TerminalSize,
};
use bitflags::bitflags;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

bitflags! {
    /// The namespaces that a sandbox gets for itself, see `namespaces(7)`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Namespaces: u64 {
        /// Users, groups and capabilities, `user_namespaces(7)`. The only one that needs no privilege.
        const USER = libc::CLONE_NEWUSER as u64;
        /// Process ids, `pid_namespaces(7)`: the program is pid 1, and all that it starts dies with it.
        const PID = libc::CLONE_NEWPID as u64;
        /// Mounts, `mount_namespaces(7)`. Every mount is made private first, so that none reaches the host.
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// Host and NIS domain name, `uts_namespaces(7)`.
        const UTS = libc::CLONE_NEWUTS as u64;
        /// System V and POSIX message queues, semaphores, shared memory, `ipc_namespaces(7)`.
        const IPC = libc::CLONE_NEWIPC as u64;
        /// Network interfaces, addresses, routes, abstract sockets, `network_namespaces(7)`. Loopback is there, but down.
        const NET = libc::CLONE_NEWNET as u64;
        /// The view of the cgroup tree, `cgroup_namespaces(7)`, rooted at the cgroup that the process is born in.
        const CGROUP = libc::CLONE_NEWCGROUP as u64;
        /// The clocks since boot, `time_namespaces(7)`. The program enters it as it starts; a child that is held is not in it yet. Linux 6.3.
        const TIME = libc::CLONE_NEWTIME as u64;
    }
}

/// What is wanted of a process: its program, its namespaces, its surroundings.
///
/// Plain data, without descriptors, so that it can be cloned, compared and kept. Nothing is checked before [`prepare`](Sandbox::prepare).
///
/// The program starts with no signal blocked and none ignored, whatever the caller blocks or ignores when the plan is made.
///
/// The methods take and return the sandbox, so that they chain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default = "crate::spec::empty"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
#[doc(alias("Command", "unshare", "bwrap", "container"))]
pub struct Sandbox {
    #[cfg(feature = "serde")]
    pub(crate) version: crate::spec::Version,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) program: OsString,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) args: Vec<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) env: BTreeMap<OsString, OsString>,
    pub(crate) inherit_env: bool,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) working_directory: Option<PathBuf>,
    pub(crate) namespaces: Namespaces,
    pub(crate) user: Option<IdMap>,
    pub(crate) join: Option<Join>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) umask: Option<u32>,
    pub(crate) clocks: BTreeMap<Clock, ClockOffset>,
    pub(crate) root: Root,
    pub(crate) read_only_root: bool,
    pub(crate) allow_chroot: bool,
    pub(crate) propagation: Propagation,
    pub(crate) mounts: Vec<Mount>,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) hostname: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) domainname: Option<OsString>,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::text"))]
    pub(crate) arg0: Option<OsString>,
    pub(crate) new_session: bool,
    pub(crate) rlimits: BTreeMap<Resource, Rlimit>,
    pub(crate) oom_score_adj: Option<OomScoreAdj>,
    pub(crate) nice: Option<Nice>,
    pub(crate) scheduler: Option<Scheduler>,
    pub(crate) cpu_affinity: Option<BTreeSet<u16>>,
    pub(crate) io_priority: Option<IoPriority>,
    pub(crate) personality: Option<Personality>,
    pub(crate) sysctls: BTreeMap<String, String>,
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::streams"))]
    pub(crate) stdio: [Stdio; 3],
    pub(crate) fds: BTreeMap<u32, String>,
    pub(crate) terminal: Option<TerminalSize>,
    pub(crate) die_with_parent: bool,
    #[cfg(feature = "init")]
    pub(crate) init: bool,
    pub(crate) privilege: Privilege,
    pub(crate) engine: Option<Engine>,
    pub(crate) fallbacks: Fallbacks,
}

impl Sandbox {
    /// A process of `program`, without any namespace of its own and with an empty environment.
    ///
    /// A program with a slash is a path, seen from the sandbox; one without is looked for in `PATH` of the *sandbox's* environment,
    /// or in `/bin:/usr/bin` where that has none, as `execvp(3)` does. (A script must begin with `#!`: no shell is tried.)
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Sandbox {
            #[cfg(feature = "serde")]
            version: crate::spec::Version,
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            inherit_env: false,
            working_directory: None,
            namespaces: Namespaces::empty(),
            user: None,
            join: None,
            credentials: None,
            umask: None,
            clocks: BTreeMap::new(),
            root: Root::Host,
            read_only_root: false,
            allow_chroot: false,
            propagation: Propagation::Private,
            mounts: Vec::new(),
            hostname: None,
            domainname: None,
            arg0: None,
            new_session: false,
            rlimits: BTreeMap::new(),
            oom_score_adj: None,
            nice: None,
            scheduler: None,
            cpu_affinity: None,
            io_priority: None,
            personality: None,
            sysctls: BTreeMap::new(),
            stdio: [const { Stdio::Inherit }; 3],
            fds: BTreeMap::new(),
            terminal: None,
            die_with_parent: false,
            #[cfg(feature = "init")]
            init: false,
            privilege: Privilege::default(),
            engine: None,
            fallbacks: Fallbacks::empty(),
        }
    }

    /// Adds an argument. The program's own name, `argv[0]`, comes first by itself.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the last setting of a name holds.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs<N: Into<OsString>, V: Into<OsString>>(mut self, vars: impl IntoIterator<Item = (N, V)>) -> Self {
        self.env.extend(vars.into_iter().map(|(n, v)| (n.into(), v.into())));
        self
    }

    /// Starts from the caller's environment, as it is when the plan is made, instead of from an empty one.
    #[must_use]
    pub fn inherit_env(mut self) -> Self {
        self.inherit_env = true;
        self
    }

    /// The working directory, seen from the sandbox. By default the caller's.
    #[must_use]
    #[doc(alias("cwd", "chdir", "current_dir"))]
    pub fn working_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.working_directory = Some(path.into());
        self
    }

    /// Adds namespaces to those that are wanted already.
    #[must_use]
    pub fn namespaces(mut self, namespaces: Namespaces) -> Self {
        self.namespaces |= namespaces;
        self
    }

    /// A user namespace with this map of ids. [`Namespaces::USER`] alone means [`IdMap::root`].
    #[must_use]
    #[doc(alias("uid_map", "map-root-user", "rootless"))]
    pub fn user(mut self, map: IdMap) -> Self {
        self.namespaces |= Namespaces::USER;
        self.user = Some(map);
        self
    }

    /// Who the program is. By default the caller, with a map of [ranges](IdMap::ranges) user 0 and group 0.
    ///
    /// Without a user namespace this takes `CAP_SETUID` and `CAP_SETGID`.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets a clock inside so far ahead of the caller's. Needs [`Namespaces::TIME`].
    #[must_use]
    #[doc(alias("timens", "boottime", "monotonic"))]
    pub fn clock_offset(mut self, clock: Clock, offset: ClockOffset) -> Self {
        self.clocks.insert(clock, offset);
        self
    }

    /// The permissions that new files of the program do *not* get, `umask(2)`: at most `0o777`. By default the caller's.
    #[must_use]
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// The root directory. By default the host's. Needs [`Namespaces::MOUNT`].
    ///
    /// With a root of its own the sandbox starts in `/`, has no `/proc` and no `/dev` but those that [`mount`](Sandbox::mount) makes, and
    /// the host's files are out of reach.
    #[must_use]
    #[doc(alias("chroot", "pivot_root", "rootfs"))]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Makes the root read-only, with all that is mounted in it, but not what the sandbox mounts there; with [`Root::Host`] all that the
    /// host has mounted. Needs [`Namespaces::MOUNT`] and `mount_setattr(2)` (Linux 5.12).
    ///
    /// Mount points that are missing are made before.
    #[must_use]
    #[doc(alias("readonly", "ro", "ProtectSystem"))]
    pub fn read_only_root(mut self) -> Self {
        self.read_only_root = true;
        self
    }

    /// Lets `chroot(2)` do where `pivot_root(2)` is impossible, which is in an initramfs.
    ///
    /// It is the weaker of the two: the old root stays below the new one, and a program with `CAP_SYS_CHROOT` may find it.
    #[must_use]
    pub fn allow_chroot(mut self) -> Self {
        self.allow_chroot = true;
        self
    }

    /// What of the mounts that others make reaches the sandbox, and the other way round. By default nothing. Needs [`Namespaces::MOUNT`].
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Adds a mount, made in the order given. Needs [`Namespaces::MOUNT`].
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// The host name, at most 64 bytes, `sethostname(2)`. Needs [`Namespaces::UTS`].
    #[must_use]
    pub fn hostname(mut self, name: impl Into<OsString>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// Where standard input comes from. By default the caller's.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdio[0] = stdin;
        self
    }

    /// Where standard output goes. By default the caller's.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdio[1] = stdout;
        self
    }

    /// Where standard error goes. By default the caller's.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stdio[2] = stderr;
        self
    }

    /// Kills the process (`SIGKILL`) when the *thread* that spawned it ends, by whatever death, `PR_SET_PDEATHSIG(2const)`.
    ///
    /// Linux binds this to the thread, not to the process: spawn from a thread that lives as long as the sandbox should, for example the
    /// main thread, and not from a pool that retires its threads. With [`Namespaces::PID`] everything inside dies along.
    ///
    /// The kernel forgets it where a program gets more rights than its process had, or other ones, from then on for good:
    ///
    /// - A program of user 0 that starts with a permitted set that does not have all of its bounding and inheritable set: an error of the plan, unless it has
    ///   [`no_new_privs`](Sandbox::no_new_privs) or [`SecureBits::NOROOT`](crate::SecureBits::NOROOT).
    /// - A program whose file is set-user-id, set-group-id or has capabilities, without `no_new_privs`; one that changes its credentials itself.
    /// - A program that starts under another label: [`selinux_label`](Sandbox::selinux_label), [`apparmor_profile`](Sandbox::apparmor_profile), or what the machine's
    ///   policy has for its file.
    ///
    /// That is not to be seen when the plan is made, but for the first. Whoever must be sure, and cannot exclude the others, kills the sandbox by its cgroup, or holds it by a pid namespace
    /// whose process 1 is another program.
    #[must_use]
    #[doc(alias("pdeathsig", "die-with-parent"))]
    pub fn die_with_parent(mut self) -> Self {
        self.die_with_parent = true;
        self
    }

    /// Whether the child has the caller's memory until its program starts, or a copy. By default what is possible and fast, see [`Engine`].
    #[must_use]
    #[doc(alias("vfork", "fork"))]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// What may be done instead where the kernel lacks a system call. By default nothing.
    #[must_use]
    pub fn fallbacks(mut self, fallbacks: Fallbacks) -> Self {
        self.fallbacks |= fallbacks;
        self
    }

    /// Checks the sandbox, binds the descriptors that it names and makes the plan of a spawn, which can be used many times.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for what makes no sense; otherwise what [`Step::Prepare`](crate::Step::Prepare) meets
    /// when it opens `/dev/null`. Nothing has been spawned then.
    pub fn prepare(&self, fds: Fds) -> Result<Plan, Error> {
        let plan = crate::compile::compile(self, fds)?;
        if plan.0.parts.forgets_parent {
            let words = "would be forgotten when the program starts, as user 0 with more than its permitted capabilities: permit what is in the bounding and the inheritable set, or ask for no_new_privs";
            return Err(Error::config("die_with_parent", words));
        }
        Ok(plan)
    }

    /// Spawns a sandbox that names no descriptors. Returns when the program has started.
    ///
    /// # Errors
    /// As [`prepare`](Sandbox::prepare) and [`Plan::spawn`].
    pub fn spawn(&self) -> Result<Child, Error> {
        self.spawn_with(Fds::new())
    }

    /// Spawns the sandbox with these descriptors. Returns when the program has started.
    ///
    /// # Errors
    /// As [`prepare`](Sandbox::prepare) and [`Plan::spawn`].
    pub fn spawn_with(&self, fds: Fds) -> Result<Child, Error> {
        self.prepare(fds)?.spawn()
    }
}

/// What a standard stream of the sandbox is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Stdio {
    /// The caller's own stream.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// A new pipe, whose other end is in the [`Child`].
    Pipe,
    /// The descriptor that [`Fds::bind`] gives this name.
    Fd(String),
}

impl Stdio {
    /// The descriptor that [`Fds::bind`] gives this name.
    #[must_use]
    pub fn fd(name: impl Into<String>) -> Self {
        Stdio::Fd(name.into())
    }
}
