//! Spawn processes into Linux namespaces with one `clone3`, and be told exactly what failed.
//!
//! ```no_run
//! use cofferdam_namespaces::{IdMap, Mount, Namespaces, Sandbox, Stdio};
//! use std::io::Read;
//!
//! let mut child = Sandbox::new("/bin/sh")
//!     .args(["-c", "echo \"pid $$ of $(hostname) as $(id -u)\""])
//!     .namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::NET)
//!     .user(IdMap::root()) // a user namespace: no privileges are needed
//!     .mount(Mount::proc("/proc"))
//!     .hostname("inside")
//!     .env("PATH", "/usr/bin:/bin")
//!     .stdout(Stdio::Pipe)
//!     .die_with_parent()
//!     .spawn()?;
//!
//! let mut said = String::new();
//! child.stdout.take().expect("asked for a pipe").read_to_string(&mut said)?;
//! assert_eq!(said, "pid 1 of inside as 0\n");
//! assert!(child.wait()?.success());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`spawn`](Sandbox::spawn) returns when the program has really started. A program that is missing, a hostname
//! that is too long, a user namespace that the administrator forbids: each is an [`Error`] that names the
//! [step](Error::step), the [object](Error::object) and the [errno](Error::raw_os_error), and leaves nothing behind.
//!
//! # From a spec to a process
//!
//! | type | what it is |
//! |---|---|
//! | [`Sandbox`] | what is wanted: plain data, no descriptors, nothing checked yet |
//! | [`Fds`] | the descriptors that the sandbox names, and the cgroup to be born in |
//! | [`Plan`] | both together, checked and turned into a list of system calls; spawns any number of times, from any thread |
//! | [`Creating`] | a child whose namespaces and mounts are there, and whose root is still the host's: for hooks |
//! | [`Held`] | a child that is ready, and waits for its release before its program starts |
//! | [`HeldAt`], [`Release`] | the same, waiting at a path; and what another process releases it by |
//! | [`Child`] | a running process: a pidfd that can be polled, waited for and signalled |
//! | [`Scope`] | a user namespace in which the caller's own code runs as root: to mount an overlay, say, without privileges |
//!
//! Everything that needs memory is done when the [`Plan`] is made. A spawn is then one `clone3(2)` with `CLONE_VM`: the child
//! shares the caller's memory, runs further down on its stack and executes the list of system calls with
//! inline assembly: no allocation, no lock, no libc, whatever the other threads of the caller were doing.
//! Because no page table is copied, a spawn takes as long from a program with an 8 GiB heap as from a small one.
//! [`Plan::explain`] shows the list.
//!
//! Where that cannot be, because user and group change, a filter may kill the child or [code of the caller's](Plan::spawn_fn) is to run inside, the child has a copy of the
//! memory, and takes the same steps: see [`Engine`].
//!
//! # A root of its own
//!
//! A [`Root`] is a directory of the host, nothing but what is mounted there, or a detached mount, as `fsmount(2)` and `open_tree(2)` give it and
//! `Overlay::mount` of `cofferdam-unionfs` returns it. The child attaches it in its own mount namespace, mounts inside it, and lets the host's
//! root go with `pivot_root(2)`.
//!
//! ```no_run
//! # use cofferdam_namespaces::{IdMap, Mount, Namespaces, Root, Sandbox};
//! let child = Sandbox::new("/usr/bin/python3")
//!     .namespaces(Namespaces::MOUNT | Namespaces::PID | Namespaces::NET)
//!     .user(IdMap::root())
//!     .root(Root::directory("/srv/debian"))
//!     .read_only_root()
//!     .mount(Mount::bind("/home/me/project", "/work"))
//!     .mount(Mount::tmpfs("/tmp").size(64 << 20))
//!     .mount(Mount::proc("/proc"))
//!     .mount(Mount::mask("/proc/kcore"))
//!     .mount(Mount::dev("/dev"))
//!     .working_directory("/work")
//!     .spawn()?;
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! What a [`Mount`] may be, where its mount point may be made and what is denied on it stands there.
//!
//! # Users and groups
//!
//! | map | who is inside | what it takes |
//! |---|---|---|
//! | [`IdMap::root`], [`IdMap::single`] | one user and one group, the caller outside | nothing |
//! | [`IdMap::subordinate`] | root, who is the caller outside, and the caller's subordinate ids | lines in `/etc/subuid` and `/etc/subgid`, `newuidmap(1)`, `newgidmap(1)` |
//! | [`IdMap::ranges`] | whoever is said | `CAP_SETUID` and `CAP_SETGID`, or as above |
//!
//! [`Sandbox::credentials`] says which of them the program is.
//!
//! ```no_run
//! # use cofferdam_namespaces::{Credentials, IdMap, Sandbox};
//! let child = Sandbox::new("/usr/bin/id")
//!     .user(IdMap::subordinate())
//!     .credentials(Credentials::new(1000, 1000).groups([27]))
//!     .spawn()?;
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Privilege
//!
//! | wanted | by | takes |
//! |---|---|---|
//! | [capabilities](Capabilities), all five sets | [`Sandbox::capabilities`] | `CAP_SETPCAP`, and those that it keeps |
//! | what being user 0 means | [`Sandbox::securebits`] | `CAP_SETPCAP` |
//! | nothing gained from set-user-id programs | [`Sandbox::no_new_privs`] | nothing |
//! | a session keyring of its own | [`Sandbox::new_session_keyring`] | nothing |
//! | a label of `AppArmor` or `SELinux` | [`Sandbox::apparmor_profile`], [`Sandbox::selinux_label`] | what their policy says |
//! | a filter of system calls, feature `seccomp` | `Sandbox::seccomp` | `no_new_privs` or `CAP_SYS_ADMIN` |
//! | a Landlock ruleset, feature `landlock` | `Sandbox::landlock` | `no_new_privs` or `CAP_SYS_ADMIN` |
//!
//! In a user namespace the child has every capability until its program starts. None of it is there unless it is asked for. As container engines have it:
//!
//! ```no_run
//! # #[cfg(feature = "seccomp")] {
//! # use cofferdam_namespaces::{Capabilities, IdMap, Mount, Namespaces, Root, Sandbox, Seccomp};
//! let capabilities = Capabilities::container_default();
//! let child = Sandbox::new("/bin/sh")
//!     .namespaces(Namespaces::MOUNT | Namespaces::PID | Namespaces::NET | Namespaces::IPC | Namespaces::UTS)
//!     .user(IdMap::root())
//!     .root(Root::directory("/srv/debian"))
//!     .mount(Mount::proc("/proc"))
//!     .mount(Mount::read_only_path("/proc/sys"))
//!     .capabilities(capabilities)
//!     .no_new_privs()
//!     .new_session()
//!     .new_session_keyring()
//!     .seccomp(Seccomp::container_default(&capabilities))
//!     .seccomp(Seccomp::no_terminal_injection()) // these two are more than engines do
//!     .seccomp(Seccomp::no_user_namespaces())
//!     .spawn()?;
//! # }
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! The order in the child is that of `capabilities(7)` and `seccomp(2)`: the bounding set before its user changes, the other sets and the securebits behind that; then
//! `no_new_privs`, then the rulesets. A filter goes in last of all, when the program has been found and nothing but `execve(2)` is left for it to forbid. Without
//! `no_new_privs` that takes `CAP_SYS_ADMIN`, which the child keeps until then and gives up by one more `capset(2)`, if [capabilities](Sandbox::capabilities) are asked for: without,
//! a program that becomes another user than root has lost it by then, and the plan is refused.
//!
//! A filter may ask the caller about a call, instead of deciding on it: [`Seccomp::listener`](crate::Seccomp), feature `seccomp`. The caller answers for the kernel, from the program's first
//! call on.
//!
//! ```no_run
//! # #[cfg(feature = "seccomp")] {
//! # use cofferdam_namespaces::{Answer, Sandbox, Seccomp};
//! let mut child = Sandbox::new("/usr/bin/make").no_new_privs().seccomp(Seccomp::notify([libc::SYS_mount])).spawn()?;
//! let listener = child.seccomp_listener.take().expect("asked for");
//! while let Some(call) = listener.receive()? {
//!     listener.answer(call.id, Answer::Errno(libc::EPERM))?;
//! }
//! # }
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Hooks
//!
//! The points in a container's life that OCI's runtime specification names are calls of this crate, between which the caller does what it wants; [`Sandbox::create`] lists
//! them. A [`Hook`] is a program for one of them: with the caller or in the sandbox, with a timeout, with the [state](OciState) on its standard input.
//!
//! # Cgroups
//!
//! A cgroup is entered through descriptors, so that any library can provide them (`Cgroup::entry` of `cofferdam-cgroups`
//! does): a directory of a version 2 hierarchy, a writable `cgroup.procs` file for each version 1 hierarchy.
//!
//! ```no_run
//! # use cofferdam_namespaces::{Fds, Sandbox};
//! # fn entry() -> Vec<std::os::fd::OwnedFd> { Vec::new() }
//! let child = Sandbox::new("/usr/bin/make").spawn_with(Fds::new().cgroup(entry()))?;
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Joining others
//!
//! What `nsenter(1)` and `docker exec` do: a [`Target`] is a process, or namespaces by descriptor, and [`Sandbox::join`] says which of them the program joins
//! and what else it takes from there. All other attributes work as they do without.
//!
//! ```no_run
//! # use cofferdam_namespaces::{Fds, Join, Sandbox, Stdio, Target};
//! # fn container() -> u32 { 0 }
//! let child = Sandbox::new("ps")
//!     .join(Join::all().environment().working_directory())
//!     .stdout(Stdio::Pipe)
//!     .spawn_with(Fds::new().target(Target::process(container())?))?;
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! A target can let its joiner wait: [`Join::timeout`] says for how long.
//!
//! The child cannot be in a pid namespace that it joins by itself, so that a process between joins and clones it. The [`Child`] is still the
//! caller's own, to be waited for and signalled by its pidfd.
//!
//! # Terminals, and other descriptors
//!
//! [`Sandbox::terminal`] gives the program a terminal of its own for those standard streams that are not something else, [`Child::terminal`](Child) is the other side of it:
//! what is typed, what is shown, and [how large it is](Terminal::resize). [`Sandbox::fd`] gives it a descriptor at a number that it knows.
//!
//! ```no_run
//! # use cofferdam_namespaces::{Fds, IdMap, Mount, Namespaces, Sandbox, TerminalSize};
//! # fn socket() -> std::os::fd::OwnedFd { unimplemented!() }
//! let mut child = Sandbox::new("/bin/sh")
//!     .user(IdMap::root())
//!     .namespaces(Namespaces::MOUNT)
//!     .mount(Mount::dev("/dev")) // the terminal is /dev/pts/0 in there
//!     .terminal(TerminalSize::new(24, 80))
//!     .fd(3, "socket")
//!     .spawn_with(Fds::new().bind("socket", socket()))?;
//! let terminal = child.terminal.take().expect("asked for");
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Process 1
//!
//! In a pid namespace of its own the program is process 1, with the duties of that: to wait for orphans, and to handle each signal that it is to get. A program that does not
//! know them gets an init in front, feature `init`: `Sandbox::init`.
//!
//! ```no_run
//! # #[cfg(feature = "init")] {
//! # use cofferdam_namespaces::{IdMap, Namespaces, Sandbox};
//! let child = Sandbox::new("/usr/bin/make").args(["-j8"]).namespaces(Namespaces::PID).user(IdMap::root()).init().spawn()?;
//! child.signal(15)?; // reaches make, and ends it
//! assert_eq!(child.wait()?.code(), Some(128 + 15));
//! # }
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Created here, started there
//!
//! As `runc create` and `runc start` do it: one process makes the sandbox, holds it and stays; another one, which knows nothing but a path, releases it. Once, if it may write to the
//! file there.
//!
//! ```no_run
//! # use cofferdam_namespaces::{Fds, Namespaces, Sandbox};
//! let plan = Sandbox::new("/usr/bin/server").namespaces(Namespaces::NET).prepare(Fds::new())?;
//! let child = plan.hold()?.at("/run/me/server.start", 0o600)?.wait()?;
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! ```no_run
//! # use cofferdam_namespaces::Release;
//! Release::at("/run/me/server.start")?.wait()?; // started, or the error that the holder has too
//! # Ok::<(), cofferdam_namespaces::Error>(())
//! ```
//!
//! # Sandboxes in files
//!
//! With the feature `serde` a [`Sandbox`] and its parts can be written and read in any format. Names are in `snake_case`, what is left out is as
//! [`Sandbox::new`] has it, an unknown field is an error, and so is another `version` than 1. Descriptors are named, and bound when it is spawned. In TOML:
//!
//! ```toml
//! version = 1
//! program = "/usr/bin/make"
//! args = ["-C", "/work"]
//! env.PATH = "/usr/bin:/bin"
//! namespaces = ["pid", "mount", "net"]
//! user.map.single = { uid = 0, gid = 0 }
//! root = "empty"
//! rlimits.nofile = { soft = 1024, hard = "unlimited" }
//! stdio.stdout.fd = "log"
//!
//! [[mounts]]
//! target = "/usr"
//! kind.bind.path = "/usr"
//! flags = ["read_only", "nosuid", "nodev"]
//!
//! [[mounts]]
//! target = "/proc"
//! kind.file_system = "proc"
//! ```
//!
//! A byte of a path, an argument or a variable that is not UTF-8 is written as a zero character and two hexadecimal digits: `"\u0000ff"` is the byte 255.
//!
//! # What it does not do
//!
//! It does not make cgroups, networks or file systems: its sister crates do, and meet it in descriptors. It does not log, print,
//! install signal handlers, read configuration or keep state on disk. Dropping a [`Child`] neither kills nor reaps it.
//!
//! # Kernel versions
//!
//! | needed for | system call | Linux |
//! |---|---|---|
//! | every spawn | `clone3` with `CLONE_PIDFD` and `CLONE_CLEAR_SIGHAND` | 5.5 |
//! | every spawn | `close_range` with `CLOSE_RANGE_CLOEXEC` | 5.11 |
//! | [`Fds::cgroup`] with a directory | `CLONE_INTO_CGROUP` | 5.7 |
//! | [`Sandbox::join`] of a process | `setns` with a pidfd | 5.8 |
//! | [`Target::exit_status`] | `PIDFD_GET_INFO` with `PIDFD_INFO_EXIT` | 6.15 |
//! | [`Sandbox::root`], [`Sandbox::mount`] | `fsopen`, `fsmount`, `move_mount`, `open_tree` | 5.2 |
//! | [`Sandbox::mount`], [`Sandbox::working_directory`] | `openat2` | 5.6 |
//! | `Sandbox::landlock` | `landlock_restrict_self` | 5.13 |
//! | `Sandbox::init` | `execveat` of a file of `memfd_create` | 3.19 |
//! | `Seccomp::listener` | `SECCOMP_FILTER_FLAG_NEW_LISTENER` | 5.0 |
//! | `SeccompListener::answer_with_fd`, `Seccomp::wait_killable` | `SECCOMP_ADDFD_FLAG_SEND`, `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` | 5.14, 5.19 |
//! | [`Engine::Shared`]: a core dump of the child is not the end of the caller | core dumps of one process | 5.16: before, see [`Engine`] |
//! | binds, masks, anything [read-only](Mount::read_only), [`Sandbox::read_only_root`] | `mount_setattr` | 5.12 |
//!
//! An older kernel, or a seccomp filter around the caller that hides a call, gives an error of kind [`Unsupported`](ErrorKind::Unsupported) that names the call. There
//! are no silent fallbacks: those of [`Fallbacks`] are used where [`Sandbox::fallbacks`] allows them, and [`Child::report`] tells which were.
//!
//! For `mount_setattr(2)` there is one for what needs it of a single mount, [`Fallbacks::REMOUNT`]: `mount(2)` cannot set flags of all that is below, so that a bind comes without
//! that, and what is about all of it (a read-only root or path) stays an error. `openat2(2)` has none. A walk from name to name with `O_NOFOLLOW` is safe only where no link is met, and
//! links must be followed: `/bin/sh` is one in nearly every root, and the look at a root's program has to follow it, but not to one of `/proc`'s, which nothing but
//! `RESOLVE_NO_MAGICLINKS` can tell from it (CVE-2019-5736). To follow a link inside a root by hand, as `RESOLVE_IN_ROOT` does, is a race with whoever renames a directory on the
//! way meanwhile (CVE-2021-30465). And a sandbox whose mount points alone are walked, but not its program, would have gained nothing: it does not start.
//!
//! # Privileges
//!
//! None with a user namespace ([`Sandbox::user`]), where the administrator allows them (`user.max_user_namespaces`,
//! the switches of `AppArmor` and Debian). Without one, every other namespace needs `CAP_SYS_ADMIN`.
//!
//! # Threats that are met here
//!
//! - The sandboxed program gets exactly the descriptors 0, 1 and 2, and those that are [asked for](Sandbox::fd): all others are closed by the kernel at `execve(2)`,
//!   also those that another library of the caller opened without `O_CLOEXEC`.
//! - A terminal is opened in the file system that was just mounted for it, and its other end by `TIOCGPTPEER`: no path inside is asked (CVE-2025-52565). It comes
//!   with a session of its own, so that nothing can be typed into the caller's (CVE-2017-5226).
//! - The environment is empty unless the caller fills it: secrets of the host program do not leak by default.
//! - Where [capabilities](Sandbox::capabilities) are asked for, the program has those that are named and no others, the inheritable set is empty unless it is named
//!   (CVE-2022-27650), and what setting up takes is given up before the program starts. Where they are not, it has the caller's, all five sets, or in a new user namespace all.
//! - A hook that is a program of the sandbox's root is confined as the sandbox's program is, and runs beside a copy of the caller that it may neither trace nor look at.
//! - The listener of a filter is not open in the program, and what lets the child's own last calls pass the filter is a secret that nobody inside has.
//! - A filter of system calls compares arguments as the kernel reads them: 32 bits of the number of an `ioctl(2)` (CVE-2017-5226, CVE-2019-10063).
//! - `setgroups(2)` is denied in a user namespace before its group map is written (CVE-2014-8989), unless the administrator has given the caller
//!   groups of its own: with ranges that root or `newgidmap(1)` writes, the caller's supplementary groups are dropped.
//! - Settings of the kernel are written through a `proc(5)` of the child's own, and only those that belong to a new namespace (CVE-2019-16884).
//! - Mounts are attached by descriptor to a mount point that was resolved inside the root with `openat2(2)`: links in a hostile root, also those
//!   that are put there meanwhile, lead nowhere else (CVE-2021-30465, CVE-2024-45310). They do not propagate to the host. What is missing is made
//!   in the root's own mount and in an empty tmpfs, never in what is bound.
//! - What a plan is about it recognises by device and inode: a directory or file that has been exchanged since is refused.
//! - A [mask](Mount::mask) is the host's null device, seen to be that, and not what the root calls `/dev/null` (CVE-2025-31133).
//! - Binds have no devices and no set-user-id programs unless that is asked for; the flags that the host has set are kept.
//! - The working directory is opened without magic links: no descriptor that is still open leads out (CVE-2024-21626).
//! - What joins the namespaces of others is a copy of the caller that nobody in them may trace or look at (CVE-2016-9962, CVE-2019-5736). It is somebody who is mapped in the
//!   user namespace that it joins, without the caller's groups, or it does not join. Nothing in there leads it to another file: the target's root is entered by
//!   descriptor, the child's own files are found in the caller's `/proc`.
//! - The program of a root is looked at before it is started: neither it, nor what runs it if it is a script, may be a magic link, which would be the
//!   host's own program (CVE-2019-5736). It must be readable for that, and two descriptors free (`RLIMIT_NOFILE`). Who can write to the root at this very moment, another sandbox say, can still
//!   exchange it after the look; and what `binfmt_misc` of the host names without the flag `F`, the kernel looks up in the root by itself.
//! - The init of a sandbox is no part of the host's program, but a file of its own that is sealed, for each spawn another; it has no descriptors, and no more rights than the program.
//! - A child that may die of a filter before its program starts is a copy, of which no core dump is written: it would be the host program's memory, in the sandbox's
//!   root. For a signal that comes in the moment before `execve(2)` see [`Engine`].
//! - Nothing of the host program's memory outlives `execve(2)`, and nothing of it changes: signal mask, dumpable flag,
//!   working directory and descriptors are as before.
//!
//! Without a [`Root`] the program still sees the host's files, as far as permissions allow.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::indexing_slicing
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail"))]

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("cofferdam-namespaces is for 64-bit Linux on x86_64 and aarch64");

mod attributes;
mod bind;
mod capabilities;
mod capability;
mod child;
mod clocks;
mod closure;
mod compile;
mod creating;
mod deadline;
mod engine;
mod error;
mod fallbacks;
mod fds;
mod gate;
mod handover;
mod held;
mod hint;
mod hook;
mod identity;
mod idmap;
#[cfg_attr(not(feature = "init"), path = "no_init.rs")]
mod init;
mod inside;
mod join;
mod label;
#[cfg(feature = "landlock")]
mod landlock;
mod limits;
mod listing;
mod mount;
mod mounts;
mod namespace;
mod newidmap;
mod oci_state;
mod parent_death;
mod passing;
mod plan;
mod privilege;
mod program;
mod release;
mod report;
mod root;
mod sandbox;
mod scheduling;
mod scope;
#[cfg(feature = "seccomp")]
mod seccomp;
mod signals;
#[cfg(feature = "serde")]
mod spec;
mod start;
mod step;
mod subid;
mod sys;
mod sysctl;
mod target;
mod targets_ids;
mod terminal;

pub use attributes::{OomScoreAdj, Personality};
pub use capabilities::{Capabilities, SecureBits};
pub use capability::{Capability, CapabilityIter, CapabilitySet, UnknownCapability};
pub use child::Child;
pub use clocks::{Clock, ClockOffset};
pub use creating::Creating;
pub use engine::Engine;
pub use error::{Error, ErrorKind};
pub use fallbacks::Fallbacks;
pub use fds::Fds;
pub use held::Held;
pub use hook::Hook;
pub use identity::{Credentials, IdMap, IdRange};
pub use join::Join;
#[cfg(feature = "landlock")]
pub use landlock::landlock_abi;
pub use limits::{Resource, Rlimit};
pub use listing::{Listing, NamespaceId, NamespaceInfo};
pub use mount::Mount;
pub use oci_state::OciState;
pub use plan::Plan;
pub use program::Call;
pub use release::{HeldAt, Release};
pub use report::Report;
pub use root::{Propagation, Root};
pub use sandbox::{Namespaces, Sandbox, Stdio};
pub use scheduling::{IoPriority, Nice, Scheduler};
pub use scope::Scope;
#[cfg(feature = "seccomp")]
pub use seccomp::{Answer, BpfInstruction, Notification, Seccomp, SeccompListener};
pub use step::Step;
pub use target::Target;
pub use terminal::{Terminal, TerminalSize};
