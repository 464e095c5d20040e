//! Filters of system calls, `seccomp(2)`.

mod bpf;
mod filters;
mod policy;
mod table;

use crate::program::{Program, Sys};
use crate::{Capabilities, CapabilitySet, Error, Sandbox, Step};
use policy::Machine;

pub use bpf::BpfInstruction;

/// A filter that decides on each system call, `seccomp(2)`.
///
/// | filter | what it does |
/// |---|---|
/// | [`container_default`](Seccomp::container_default) | as container engines do by default: a list of what is allowed |
/// | [`no_terminal_injection`](Seccomp::no_terminal_injection) | refuses to type into a terminal |
/// | [`no_user_namespaces`](Seccomp::no_user_namespaces) | refuses new user namespaces |
/// | [`bpf`](Seccomp::bpf) | whatever the caller says, by the crate `seccompiler` or by hand |
///
/// Several can be given, one after the other: the strictest answer of all of them holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Seccomp {
    filter: Filter,
    #[cfg_attr(feature = "serde", serde(default))]
    log: bool,
    #[cfg_attr(feature = "serde", serde(default))]
    allow_speculation: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
enum Filter {
    ContainerDefault { bounding: CapabilitySet },
    NoTerminalInjection,
    NoUserNamespaces,
    Bpf(Vec<BpfInstruction>),
}

impl From<Filter> for Seccomp {
    fn from(filter: Filter) -> Self {
        Seccomp { filter, log: false, allow_speculation: false }
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

    /// A program of the caller's, at most 4096 instructions.
    ///
    /// It must allow what the child still does when it is in place: `execve(2)`, and `capset(2)` if there are [capabilities](Sandbox::capabilities) without
    /// [no new privileges](Sandbox::no_new_privs), and `seccomp(2)` if there is another filter behind it.
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

    /// The program that the kernel gets, on this architecture.
    #[must_use]
    pub fn program(&self) -> Vec<BpfInstruction> {
        let machine = Machine::THIS;
        let policy = match &self.filter {
            Filter::Bpf(program) => return program.clone(),
            Filter::ContainerDefault { bounding } => filters::container_default(machine, *bounding),
            Filter::NoTerminalInjection => filters::no_terminal_injection(machine),
            Filter::NoUserNamespaces => filters::no_user_namespaces(machine),
        };
        bpf::assemble(&policy)
    }

    fn name(&self) -> &'static str {
        match self.filter {
            Filter::Bpf(_) => "bpf",
            Filter::ContainerDefault { .. } => "container default",
            Filter::NoTerminalInjection => "no terminal injection",
            Filter::NoUserNamespaces => "no user namespaces",
        }
    }

    pub(crate) fn bind(&self) -> Result<Bound, Error> {
        let program = self.program();
        bpf::check(&program)?;
        let mut flags = 0;
        if self.log {
            flags |= libc::SECCOMP_FILTER_FLAG_LOG;
        }
        if self.allow_speculation {
            flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        }
        Ok(Bound { name: self.name(), flags, program: program.into_iter().map(BpfInstruction::word).collect() })
    }
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

/// A filter, ready for the kernel.
#[derive(Debug)]
pub(crate) struct Bound {
    name: &'static str,
    flags: libc::c_ulong,
    program: Vec<u64>,
}

impl Bound {
    pub(crate) fn compile(&self, program: &mut Program) {
        let instructions = program.words(self.program.iter().copied());
        // A struct sock_fprog: how many, and where.
        let list = program.words([self.program.len() as u64, instructions]);
        let install = [libc::SECCOMP_SET_MODE_FILTER.into(), self.flags.into(), list.into()];
        program.call(Step::Seccomp, self.name, Sys::seccomp, install);
    }
}
