//! Filters of system calls, `seccomp(2)`.

mod bpf;
mod filters;
mod foresight;
mod listener;
mod listening;
mod policy;
mod table;

use crate::{Capabilities, CapabilitySet, Error, Sandbox};
pub(crate) use foresight::may_kill;
pub(crate) use listening::Bound;
use listening::Listening;
use policy::{Machine, NO_CALL};

pub use bpf::BpfInstruction;
pub use listener::{Answer, Notification, SeccompListener};
pub(crate) use listening::RESERVED;

/// A filter that decides on each system call, `seccomp(2)`.
///
/// | filter | what it does |
/// |---|---|
/// | [`container_default`](Seccomp::container_default) | as container engines do by default: a list of what is allowed |
/// | [`no_terminal_injection`](Seccomp::no_terminal_injection) | refuses to type into a terminal |
/// | [`no_user_namespaces`](Seccomp::no_user_namespaces) | refuses new user namespaces |
/// | [`notify`](Seccomp::notify) | asks the caller about some calls, and allows all others |
/// | [`bpf`](Seccomp::bpf) | whatever the caller says, by the crate `seccompiler` or by hand |
///
/// Several can be given, one after the other: the strictest answer of all of them holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the kernel's")]
pub struct Seccomp {
    filter: Filter,
    #[cfg_attr(feature = "serde", serde(default))]
    log: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    allow_speculation: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    listener: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    wait_killable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Filter {
    ContainerDefault { bounding: CapabilitySet },
    NoTerminalInjection,
    NoUserNamespaces,
    Notify(Vec<u32>),
    Bpf(Vec<BpfInstruction>),
}

impl From<Filter> for Seccomp {
    fn from(filter: Filter) -> Self {
        Seccomp { filter, log: false, allow_speculation: false, listener: false, wait_killable: false }
    }
}

impl Seccomp {
    /// What container engines allow a container whose bounding set is that of `capabilities`: the profile of Podman and its kin of 2022
    /// (`containers-common` 0.50).
    ///
    /// What is not known to be harmless is `ENOSYS`, what is known to be for somebody with more capabilities is `EPERM`. The 32-bit ABI of the machine is
    /// filtered likewise, and x32; calls of any other are fatal.
    ///
    /// It does not keep anybody from making user namespaces or from typing into a terminal: see the two others.
    ///
    /// Where an argument counts (`socket(2)`, `personality(2)`), its low 32 bits are looked at, as the kernel does; those engines compare 64.
    #[must_use]
    #[doc(alias("seccomp.json", "docker"))]
    pub fn container_default(capabilities: &Capabilities) -> Self {
        Filter::ContainerDefault { bounding: capabilities.bounding }.into()
    }

    /// `EPERM` for the requests that put something into the input of a terminal, `TIOCSTI` and `TIOCLINUX` (CVE-2017-5226), in the 32 bits that the kernel reads of
    /// them (CVE-2019-10063). Everything else is allowed.
    #[must_use]
    #[doc(alias("TIOCSTI", "TIOCLINUX"))]
    pub fn no_terminal_injection() -> Self {
        Filter::NoTerminalInjection.into()
    }

    /// `EPERM` for `clone(2)` and `unshare(2)` with a new user namespace, `ENOSYS` for `clone3(2)`, whose flags a filter cannot see (libc uses the older one then). Everything else
    /// is allowed.
    ///
    /// Who can make a user namespace is root in it, and gets to those parts of the kernel that are for root only: many of its holes were there.
    #[must_use]
    #[doc(alias("disable-userns", "unprivileged_userns_clone"))]
    pub fn no_user_namespaces() -> Self {
        Filter::NoUserNamespaces.into()
    }

    /// Asks the caller about these system calls (`libc::SYS_mkdirat`), which the [listener](Seccomp::listener) answers. All others are allowed. Those of other ABIs of the
    /// machine (32-bit, x32), whose numbers mean something else, are `ENOSYS`.
    ///
    /// A number that no call has, negative or from `0x4000_0000` on (where x32 begins), would never be asked about: it is an error of the plan.
    #[must_use]
    #[doc(alias("SECCOMP_RET_USER_NOTIF", "SCMP_ACT_NOTIFY"))]
    pub fn notify(calls: impl IntoIterator<Item = libc::c_long>) -> Self {
        // What does not fit is no number of a call: the plan says so.
        let calls = calls.into_iter().map(|call| u32::try_from(call).unwrap_or(u32::MAX)).collect();
        Seccomp::from(Filter::Notify(calls)).listener()
    }

    /// A program of the caller's, at most 4096 instructions.
    ///
    /// It must allow what the child still does when it is in place: `execve(2)`, and `capset(2)` if there are [capabilities](Sandbox::capabilities) without
    /// [no new privileges](Sandbox::no_new_privs), and `seccomp(2)` if there is another filter behind it.
    ///
    /// Where the child may die of it before its program starts, it does not have the caller's memory, but a copy ([`Engine::Copy`](crate::Engine::Copy)) of which
    /// no core dump is written. That is so if the filter kills one of those calls, or `exit_group(2)`, by which a child ends whose start fails, or decides on them by their arguments.
    ///
    /// ```
    /// # use cofferdam_namespaces::{BpfInstruction, Seccomp};
    /// // Allows everything. A program of the crate seccompiler has the same fields: `(i.code, i.jt, i.jf, i.k)`.
    /// let filter = Seccomp::bpf([BpfInstruction::from((0x06, 0, 0, 0x7fff_0000))]);
    /// ```
    #[must_use]
    #[doc(alias("seccompiler", "sock_fprog"))]
    pub fn bpf(program: impl IntoIterator<Item = BpfInstruction>) -> Self {
        Filter::Bpf(program.into_iter().collect()).into()
    }

    /// Also writes to the kernel's log what it does not allow, `SECCOMP_FILTER_FLAG_LOG`, as far as `kernel.seccomp.actions_logged` says.
    #[must_use]
    pub fn log(mut self) -> Self {
        self.log = true;
        self
    }

    /// Leaves the processor's speculation on, `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: faster, and a program may learn by it what is in its own memory
    /// that it should not see. Since Linux 5.16 it is on anyway.
    #[must_use]
    pub fn allow_speculation(mut self) -> Self {
        self.allow_speculation = true;
        self
    }

    /// What the filter wants to ask somebody about (`SECCOMP_RET_USER_NOTIF`), it asks the caller, by [`Child::seccomp_listener`](crate::Child), `seccomp_unotify(2)`. At most
    /// one filter of a sandbox can have that, and none if the caller is under such a filter itself (`EBUSY`).
    ///
    /// The caller is asked from the program's first call on, whatever the filter wants to be asked about: it is installed before the other filters, and makes
    /// an exception for the calls that the child has still to make then, which have a secret of 128 bits in two arguments that the kernel does not look at. (So the
    /// program may have 4,060 instructions, and the kernel cannot answer for it without running it.) The listener is never open in the program. Takes four descriptors above
    /// the highest that the program gets (`RLIMIT_NOFILE`); cannot be had for a [closure](crate::Plan::spawn_fn).
    #[must_use]
    #[doc(alias("SECCOMP_FILTER_FLAG_NEW_LISTENER", "seccomp_unotify"))]
    pub fn listener(mut self) -> Self {
        self.listener = true;
        self
    }

    /// With a [`listener`](Seccomp::listener): a call that the caller has received is not interrupted by a signal, unless it kills, so that it is asked about once
    /// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`). Linux 5.19; on an older kernel an error, `EINVAL`.
    #[must_use]
    pub fn wait_killable(mut self) -> Self {
        self.wait_killable = true;
        self
    }

    pub(crate) fn has_listener(&self) -> bool {
        self.listener
    }

    /// What it would ask about fails then, `ENOSYS`.
    pub(crate) fn nobody_listens(&mut self) {
        (self.listener, self.wait_killable) = (false, false);
    }

    /// The program that the kernel gets, on this architecture. (With a [`listener`](Seccomp::listener), its exception comes in front of it.)
    #[must_use]
    pub fn program(&self) -> Vec<BpfInstruction> {
        let machine = Machine::THIS;
        let policy = match &self.filter {
            Filter::Bpf(program) => return program.clone(),
            Filter::ContainerDefault { bounding } => filters::container_default(machine, *bounding),
            Filter::NoTerminalInjection => filters::no_terminal_injection(machine),
            Filter::NoUserNamespaces => filters::no_user_namespaces(machine),
            Filter::Notify(calls) => filters::notify(machine, calls),
        };
        bpf::assemble(&policy)
    }

    fn name(&self) -> &'static str {
        match self.filter {
            Filter::Bpf(_) => "bpf",
            Filter::ContainerDefault { .. } => "container default",
            Filter::NoTerminalInjection => "no terminal injection",
            Filter::NoUserNamespaces => "no user namespaces",
            Filter::Notify(_) => "notify",
        }
    }

    /// With the exception that a listener makes.
    fn bind(&self, highest: i32) -> Result<Bound, Error> {
        if matches!(&self.filter, Filter::Notify(calls) if calls.iter().any(|call| *call >= NO_CALL)) {
            return Err(Error::config("seccomp filter", "is to ask about a number that no system call has"));
        }
        let mut program = self.program();
        bpf::check(&program)?;
        let mut flags = 0;
        if self.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        if self.allow_speculation {
            flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }
        if self.wait_killable && !self.listener {
            return Err(Error::config("seccomp filter", "that waits to be killed has no listener"));
        }
        let listening = if self.listener { Some(Listening::new(highest)?) } else { None };
        if let Some(listening) = &listening {
            program = listening.excepted(program);
            bpf::check(&program)?;
            flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            if self.wait_killable {
                flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            }
        }
        Ok(Bound::new(self.name(), flags, program, listening))
    }
}

/// All of them, in the order in which they are installed: the strictest answer holds in any.
pub(crate) fn bind(filters: &[Seccomp], highest: i32) -> Result<Vec<Bound>, Error> {
    let (with, without): (Vec<_>, Vec<_>) = filters.iter().partition(|filter| filter.listener);
    if with.len() > 1 {
        return Err(Error::config("seccomp filters", "have more than one listener"));
    }
    with.into_iter().chain(without).map(|filter| filter.bind(highest)).collect()
}

impl Sandbox {
    /// Adds a filter of system calls. Takes [`no_new_privs`](Sandbox::no_new_privs) or `CAP_SYS_ADMIN`; with [`credentials`](Sandbox::credentials) of another user than
    /// root, `no_new_privs` or [`capabilities`](Sandbox::capabilities) that are said.
    ///
    /// It is installed last of all, so that it need not allow what the child does before: but see [`Seccomp::bpf`].
    #[must_use]
    #[doc(alias = "SystemCallFilter")]
    pub fn seccomp(mut self, filter: Seccomp) -> Self {
        self.privilege.seccomp.push(filter);
        self
    }
}
