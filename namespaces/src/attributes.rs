//! What else a process has: names, a session, a personality, how soon it is killed when memory is short.

use crate::compile::c_string;
use crate::idmap::write_file;
use crate::program::{Program, Sys};
use crate::{Error, Namespaces, Sandbox, Step};
use bitflags::bitflags;
use std::ffi::{OsStr, OsString};

/// How soon the kernel kills the process when memory is short: -1000 (never) to 1000 (first), `proc_pid_oom_score_adj(5)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[allow(clippy::exhaustive_structs, reason = "a number")]
pub struct OomScoreAdj(pub i16);

impl From<i16> for OomScoreAdj {
    fn from(value: i16) -> Self {
        OomScoreAdj(value)
    }
}

bitflags! {
    /// How the kernel behaves towards a process, `personality(2)`: as a Linux of other times or machines.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Personality: u32 {
        /// `uname(2)` says that the machine is a 32-bit one.
        #[doc(alias = "PER_LINUX32")]
        const LINUX32 = 0x0008;
        /// `uname(2)` says that Linux is 2.6.
        const UNAME26 = 0x002_0000;
        /// Addresses are the same in each run.
        #[doc(alias = "setarch")]
        const ADDR_NO_RANDOMIZE = 0x004_0000;
        /// Memory is laid out as it was before 2.6.
        const ADDR_COMPAT_LAYOUT = 0x020_0000;
        /// What can be read can be executed.
        const READ_IMPLIES_EXEC = 0x040_0000;
        /// Addresses fit in 32 bits.
        const ADDR_LIMIT_32BIT = 0x080_0000;
        /// Addresses fit in 3 GiB.
        const ADDR_LIMIT_3GB = 0x800_0000;
        /// `select(2)` does not change its time-out.
        const STICKY_TIMEOUTS = 0x400_0000;
    }
}

impl Sandbox {
    /// The NIS domain name, at most 64 bytes, `setdomainname(2)`. Needs [`Namespaces::UTS`].
    #[must_use]
    #[doc(alias = "setdomainname")]
    pub fn domainname(mut self, name: impl Into<OsString>) -> Self {
        self.domainname = Some(name.into());
        self
    }

    /// What the program finds as its own name, `argv[0]`. By default as [`Sandbox::new`] has it.
    #[must_use]
    #[doc(alias("argv0", "login"))]
    pub fn arg0(mut self, name: impl Into<OsString>) -> Self {
        self.arg0 = Some(name.into());
        self
    }

    /// A session of its own, `setsid(2)`: without a controlling terminal, so that nothing can be typed into the caller's (CVE-2017-5226).
    #[must_use]
    #[doc(alias("setsid", "TIOCSTI"))]
    pub fn new_session(mut self) -> Self {
        self.new_session = true;
        self
    }

    /// How soon it is killed when memory is short. By default as the caller. A lower value than the caller's takes `CAP_SYS_RESOURCE` on the machine.
    #[must_use]
    pub fn oom_score_adj(mut self, value: impl Into<OomScoreAdj>) -> Self {
        self.oom_score_adj = Some(value.into());
        self
    }

    /// How the kernel behaves towards it. By default as towards the caller; an empty set is Linux as it is.
    #[must_use]
    pub fn personality(mut self, personality: Personality) -> Self {
        self.personality = Some(personality);
        self
    }
}

const NAME_MAX: usize = 64;

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    check_name(sandbox, "hostname", sandbox.hostname.as_deref())?;
    check_name(sandbox, "domainname", sandbox.domainname.as_deref())?;
    if sandbox.umask.is_some_and(|mask| mask > 0o777) {
        return Err(Error::config("umask", "is more than 0o777"));
    }
    if sandbox.oom_score_adj.is_some_and(|OomScoreAdj(value)| !(-1000..=1000).contains(&value)) {
        return Err(Error::config("oom_score_adj", "is not in -1000 to 1000"));
    }
    if sandbox.personality.is_some_and(|personality| !Personality::all().contains(personality)) {
        return Err(Error::config("personality", "has a flag that is none"));
    }
    Ok(())
}

fn check_name(sandbox: &Sandbox, what: &'static str, name: Option<&OsStr>) -> Result<(), Error> {
    match name {
        Some(_) if !sandbox.namespaces.contains(Namespaces::UTS) => {
            Err(Error::config(what, "needs Namespaces::UTS, or it would be the host's"))
        }
        Some(name) if name.len() > NAME_MAX => Err(Error::config(what, "is longer than 64 bytes")),
        _ => Ok(()),
    }
}

pub(crate) fn names(program: &mut Program, sandbox: &Sandbox) -> Result<(), Error> {
    let names = [
        ("hostname", &sandbox.hostname, Step::Hostname, Sys::sethostname),
        ("domainname", &sandbox.domainname, Step::Domainname, Sys::setdomainname),
    ];
    for (what, name, step, sys) in names {
        if let Some(name) = name {
            let text = program.string(c_string(what, name)?);
            program.call(step, name, sys, [text.into(), (name.len() as u64).into()]);
        }
    }
    Ok(())
}

/// As long as the file is the child's: with other ids it is root's.
pub(crate) fn oom_score(program: &mut Program, sandbox: &Sandbox) {
    if let Some(OomScoreAdj(value)) = sandbox.oom_score_adj {
        write_file(program, Step::OomScore, c"/proc/self/oom_score_adj".to_owned(), value.to_string());
    }
}

pub(crate) fn session(program: &mut Program, sandbox: &Sandbox) {
    // A terminal comes with one.
    if sandbox.new_session && sandbox.terminal.is_none() {
        program.call(Step::Session, "", Sys::setsid, []);
    }
}

pub(crate) fn personality(program: &mut Program, sandbox: &Sandbox) {
    if let Some(personality) = sandbox.personality {
        program.call(Step::Personality, "", Sys::personality, [personality.bits().into()]);
    }
}
