//! Linux control groups, v1, v2 and hybrid, in one typed model over directory descriptors.
//!
//! ```no_run
//! use cofferdam_cgroups::{Controllers, CpuQuota, Enforcement, Hierarchy, Limits};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hierarchy = Hierarchy::detect()?;
//! let cgroup = hierarchy
//!     .create("build-42", Controllers::CPU | Controllers::PIDS | Controllers::MEMORY)?
//!     .into_guard();
//! cgroup.apply(
//!     &Limits::new()
//!         .cpu_quota(CpuQuota::cores(0.2)?) // 20 % of one core
//!         .pids(64)
//!         .memory(512 << 20) // 512 MiB, and no swap besides
//!         .swap(0),
//!     Enforcement::Strict,
//! )?;
//!
//! let mut make = std::process::Command::new("make").spawn()?;
//! cgroup.attach(make.id())?;
//! make.wait()?;
//!
//! let cpu = cgroup.cpu_stats()?;
//! println!("used {:?}, throttled for {:?}", cpu.usage, cpu.throttled);
//! println!("killed for lack of memory: {:?}", cgroup.memory_stats()?.events.oom_kill);
//! cgroup.close()?; // kills what is left and deletes the cgroup
//! # Ok(())
//! # }
//! ```
//!
//! A process can also be *born* in a cgroup, which is safer (nothing runs outside it, not even for a moment) and
//! on v2 much faster: [`Cgroup::entry`] gives the descriptors for that.
//!
//! # What it does not do
//!
//! - It does not start processes; `cofferdam-namespaces` does, or `std::process::Command` with [`Cgroup::attach`].
//! - It does not mount or unmount anything, and never moves a process that the caller did not name: least of all
//!   to the root, where it would escape its limits.
//! - It does not talk to systemd unless asked to (feature `systemd`). Below a unit that is not delegated (`Delegate=yes`),
//!   systemd is the only writer; make cgroups elsewhere, or have it make a scope.
//! - It writes no log, reads no environment variable, and has no global state.
//!
//! # Terms
//!
//! - *Layout*: [`Layout::V2`], one unified tree; [`Layout::V1`], one tree per controller, or per group of
//!   co-mounted ones; [`Layout::Hybrid`], v1 trees for the controllers and a unified one beside them.
//! - *Cgroup*: one directory in a tree. On v1 and hybrid a [`Cgroup`] is one directory of the same name in every
//!   tree that it needs, because that is what a user means by it.
//! - *Own cgroup*: the one in which the calling thread is. [`Hierarchy::create`] makes new ones next to it (v2) or
//!   below it (v1). On v1 a limit that holds the caller holds them too; on v2 only the limits above the caller's own cgroup do.
//!   Where that one has limits of its own (a service's `MemoryMax=`), or is all that was delegated, choose the place.
//! - *No internal processes*: on v2 a cgroup has processes or children with controllers, not both. That is why on
//!   v2 the new one is a sibling.
//!
//! # Limits of memory
//!
//! Memory and swap are limited each for itself, as on v2; for v1, which limits memory and the sum of both, they are
//! converted. What stays different is the kernel's:
//!
//! | | v2 | v1 |
//! |---|---|---|
//! | a limit below what is in use, and cannot be reclaimed | is set; processes are killed until it holds | refused with `EBUSY`: [`ErrorKind::Busy`], and the error says what is in use |
//! | a limit of swap without one of memory | possible | [`ErrorKind::Unsupported`], nothing is written |
//! | [`Max::Max`] for memory alone | swap keeps its limit | swap loses its limit |
//! | [`MemoryEvents::oom_kill`] | in the cgroup and below | in the cgroup itself |
//!
//! Where the kernel does not count swap (`CONFIG_SWAP`, `swapaccount=0`), [`Limits::swap`] of 0 or [`Max::Max`] is taken
//! as met, and any other limit is [`ErrorKind::ControllerUnavailable`], with nothing written.
//!
//! Memory stays charged to the cgroup in which it was first touched: what a process had before it was attached is not
//! counted here. A process that is born in the cgroup is counted from its start.
//!
//! # Looking, waiting, cleaning up
//!
//! [`Cgroup::stats`] reads what was selected once, a [`Sampler`] again and again without allocation. [`Cgroup::events`] and
//! [`Cgroup::pressure_trigger`] are descriptors to be polled. [`Hierarchy::create_owned`] makes cgroups that
//! [`Hierarchy::gc`] finds when their owner is no more. [`Hierarchy::capabilities`] tells beforehand what works.
//! [`view`] shows a container its own share of the machine.
//!
//! # Choosing the place
//!
//! [`Hierarchy::own`] and [`Cgroup::child`] make cgroups at a place that the caller chose. In a container with
//! cgroup v2 one's own cgroup is the root of what can be seen, and nothing can be made next to it. The way out is
//! to move into a leaf first:
//!
//! ```no_run
//! # use cofferdam_cgroups::{Controllers, Hierarchy};
//! # fn main() -> Result<(), cofferdam_cgroups::Error> {
//! let hierarchy = Hierarchy::detect()?;
//! let leaf = hierarchy.own(Controllers::empty())?.child("self")?;
//! let here = hierarchy.own(Controllers::CPU)?;
//! leaf.attach(std::process::id())?; // and every other process that is in `here`
//! let job = here.child("job")?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Hierarchy::from_roots`] works from directories that are open already, for a program that was handed its part of the trees
//! and may see neither `/proc` nor `/sys/fs/cgroup`.
//!
//! # Features
//!
//! None is on unless asked for. `serde`: the types that are plain data can be written down and read. `oci`: `linux.resources` of
//! the OCI runtime specification from and to [`Limits`] (serde and `serde_json`). `systemd`: scopes and services made by systemd
//! over D-Bus (zbus, which brings some 60 crates and two threads).
//!
//! # Kernels
//!
//! | what | since | before that |
//! |---|---|---|
//! | `openat2`, `pidfd_open` | 5.6, 5.3 | [`ErrorKind::Unsupported`] |
//! | `CLONE_INTO_CGROUP` for the directory of [`Cgroup::entry`] | 5.7 | [`Cgroup::attach`] |
//! | `cgroup.kill` | 5.14 | freeze, signal through pidfds, thaw |
//! | v1 without a freezer | | signal through pidfds until nothing is left |
//! | `cpu.idle`, burst | 5.15, 5.14 | [`ErrorKind::ControllerUnavailable`], or skipped by [`Enforcement::BestEffort`] |
//! | `memory.reclaim` | 5.19 | the same |
//! | `pids.peak`, `memory.peak` (v2) | 6.1, 5.19 | `None` |
//! | a peak reset for one reader (v2) | 6.12 | [`ErrorKind::Unsupported`] |
//! | v1: memory below a cgroup counts in it | 5.11 | only if `memory.use_hierarchy` is 1 (systemd sets it) |
//!
//! An attach on v1, or on v2 without `CLONE_INTO_CGROUP`, costs milliseconds per tree (the kernel waits for an RCU
//! grace period), unless the tree is mounted with `favordynmods`.
//!
//! # Privileges
//!
//! Root (on v1: in the user namespace that owns the mount), or on v2 a *delegated* cgroup: the directory, its
//! `cgroup.procs` and its `cgroup.subtree_control` belong to the user (`systemd-run --user --scope -p Delegate=yes`).
//! Without either, [`Hierarchy::create`] fails with [`ErrorKind::PermissionDenied`] and the file that refused.
//!
//! # Threat model
//!
//! Names given by callers are plain file names, or refused before anything is touched. Every file is opened by
//! `openat2` below a directory descriptor whose file system was verified once (magic and device), without following
//! symbolic links or crossing mounts, so that neither a name nor a mount made later leads elsewhere. A process is
//! signalled only through a pidfd that was checked to belong to the cgroup, never by a bare number. A cgroup that
//! someone else deleted and made again under the same name is not deleted. The kernel's text is parsed without
//! trust: it cannot cause a panic. Someone with write access to the same cgroups can always move processes out of
//! them; that is the kernel's delegation model, not something that this crate can prevent.

#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "a test that fails panics"
    )
)]

mod affinity;
mod apply;
mod cgroup;
mod controllers;
mod cpuset;
mod delete;
mod devices;
mod dir;
mod error;
mod events;
mod freeze;
mod guard;
mod hierarchy;
mod kept;
mod kill;
mod layout;
mod limits;
mod member;
mod mountinfo;
#[cfg(feature = "oci")]
pub mod oci;
mod owner;
mod peak;
mod policy;
mod probe;
mod psi;
mod read_back;
mod reclaim;
mod sampler;
mod stats;
mod sys;
#[cfg(feature = "systemd")]
pub mod systemd;
mod text;
pub mod view;
mod wait;
mod walk;

pub use apply::{Applied, Enforcement, Written};
pub use cgroup::Cgroup;
pub use controllers::Controllers;
pub use error::{Error, ErrorKind};
pub use events::{Event, Events};
pub use guard::Guard;
pub use hierarchy::Hierarchy;
pub use layout::Layout;
pub use limits::{
    Access, CpuLimits, CpuPeriod, CpuQuota, CpuWeight, CpusetLimits, Device, DeviceKind, DeviceRule, Devices, IdList,
    IoDeviceLimits, IoLimits, IoWeight, Limits, Max, MemoryLimits, NetworkLimits, PageSize, Partition, RdmaLimits,
};
pub use owner::{Collected, Owner};
pub use peak::Peak;
pub use probe::{Capabilities, Support};
pub use psi::{PressureTrigger, Resource, Waiting};
pub use sampler::Sampler;
pub use stats::{
    CpuStats, CpuTime, HugetlbStats, IoDeviceStats, IoStats, MemoryDetails, MemoryEvents, MemoryStats, MiscStats,
    Other, PidsStats, Pressure, RdmaStats, Select, Stall, Stats,
};

#[cfg(test)]
mod tests {
    #[test]
    fn handles_can_be_shared_between_threads() {
        fn check<T: Send + Sync + std::fmt::Debug + 'static>() {}
        check::<crate::Hierarchy>();
        check::<crate::Cgroup>();
        check::<crate::Guard>();
        check::<crate::Error>();
    }
}
