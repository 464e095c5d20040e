//! Limits of a process's resources, `getrlimit(2)`.

use crate::program::{Program, Sys};
use crate::{Error, Sandbox, Step};
use nix::sys::resource;

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident $constant:ident $text:literal,)*) => {
        /// What a process can use up, see `getrlimit(2)`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        #[doc(alias("ulimit", "setrlimit", "prlimit"))]
        pub enum Resource {
            $($(#[$doc])* #[doc(alias = $text)] $name,)*
        }

        impl Resource {
            /// All of them.
            pub const ALL: &'static [Resource] = &[$(Resource::$name,)*];

            /// The name as in the manual, `RLIMIT_NOFILE`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Resource::$name => $text,)* }
            }

            fn number(self) -> u32 {
                match self { $(Resource::$name => libc::$constant,)* }
            }
        }
    };
}

resources! {
    /// Bytes of address space.
    As RLIMIT_AS "RLIMIT_AS",
    /// Bytes of a core dump; 0 is none.
    Core RLIMIT_CORE "RLIMIT_CORE",
    /// Seconds of processor time.
    Cpu RLIMIT_CPU "RLIMIT_CPU",
    /// Bytes of data segment and private memory.
    Data RLIMIT_DATA "RLIMIT_DATA",
    /// Bytes of any file that it writes.
    Fsize RLIMIT_FSIZE "RLIMIT_FSIZE",
    /// File locks and leases: of no effect since Linux 2.4.25.
    Locks RLIMIT_LOCKS "RLIMIT_LOCKS",
    /// Bytes of locked memory.
    Memlock RLIMIT_MEMLOCK "RLIMIT_MEMLOCK",
    /// Bytes of POSIX message queues, of its user.
    Msgqueue RLIMIT_MSGQUEUE "RLIMIT_MSGQUEUE",
    /// The lowest nice value that it may take, as 20 less that value: 1 to 40.
    Nice RLIMIT_NICE "RLIMIT_NICE",
    /// One more than the highest descriptor.
    Nofile RLIMIT_NOFILE "RLIMIT_NOFILE",
    /// Processes and threads, of its user.
    Nproc RLIMIT_NPROC "RLIMIT_NPROC",
    /// Bytes of resident memory: of no effect since Linux 2.4.30.
    Rss RLIMIT_RSS "RLIMIT_RSS",
    /// The highest real-time priority that it may take.
    Rtprio RLIMIT_RTPRIO "RLIMIT_RTPRIO",
    /// Microseconds of real-time scheduling without a blocking system call.
    Rttime RLIMIT_RTTIME "RLIMIT_RTTIME",
    /// Signals that may be queued, of its user.
    Sigpending RLIMIT_SIGPENDING "RLIMIT_SIGPENDING",
    /// Bytes of stack, arguments and environment.
    Stack RLIMIT_STACK "RLIMIT_STACK",
}

/// A soft limit, which holds, and a hard limit, up to which the process may raise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(clippy::exhaustive_structs, reason = "what the kernel takes")]
pub struct Rlimit {
    /// What holds; [`Rlimit::UNLIMITED`] is no limit.
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::unlimited"))]
    pub soft: u64,
    /// What it may be raised to.
    #[cfg_attr(feature = "serde", serde(with = "crate::spec::unlimited"))]
    pub hard: u64,
}

impl Rlimit {
    /// No limit.
    #[doc(alias = "RLIM_INFINITY")]
    pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

    /// These two.
    #[must_use]
    pub fn new(soft: u64, hard: u64) -> Self {
        Rlimit { soft, hard }
    }
}

/// The same for both.
impl From<u64> for Rlimit {
    fn from(limit: u64) -> Self {
        Rlimit { soft: limit, hard: limit }
    }
}

impl Sandbox {
    /// Limits a resource of the process. By default, and for each that is not named, as the caller.
    ///
    /// A hard limit above the caller's takes `CAP_SYS_RESOURCE` on the machine, which nobody has in a user namespace.
    #[must_use]
    #[doc(alias("ulimit", "setrlimit", "prlimit"))]
    pub fn rlimit(mut self, resource: Resource, limit: impl Into<Rlimit>) -> Self {
        self.rlimits.insert(resource, limit.into());
        self
    }
}

pub(crate) fn check(sandbox: &Sandbox) -> Result<(), Error> {
    match sandbox.rlimits.iter().find(|(_, limit)| limit.soft > limit.hard) {
        Some((resource, _)) => Err(Error::config(resource.name(), "has a soft limit above the hard one")),
        None => Ok(()),
    }
}

/// All that may take privileges, as long as there are any.
pub(crate) fn compile(program: &mut Program, sandbox: &Sandbox) -> Result<(), Error> {
    for (resource, limit) in &sandbox.rlimits {
        if *resource != Resource::Nofile {
            set(program, *resource, *limit);
        } else if let Some(limit) = raised(callers_descriptors()?, *limit) {
            set(program, *resource, limit);
        }
    }
    Ok(())
}

/// After the last descriptor has been opened: its number may be higher than the limit.
pub(crate) fn compile_descriptors(program: &mut Program, sandbox: &Sandbox) {
    if let Some(limit) = sandbox.rlimits.get(&Resource::Nofile) {
        set(program, Resource::Nofile, *limit);
    }
}

fn set(program: &mut Program, resource: Resource, Rlimit { soft, hard }: Rlimit) {
    let limit = program.words([soft, hard]);
    let args = [0_u64.into(), resource.number().into(), limit.into(), 0_u64.into()];
    program.call(Step::Limits, resource.name(), Sys::prlimit64, args);
}

/// The limit that must be set early, if the wanted one is raised: never lower than what the child needs itself.
fn raised(now: Rlimit, wanted: Rlimit) -> Option<Rlimit> {
    (wanted.hard > now.hard).then(|| Rlimit::new(now.soft.max(wanted.soft), wanted.hard))
}

fn callers_descriptors() -> Result<Rlimit, Error> {
    let now = resource::getrlimit(resource::Resource::RLIMIT_NOFILE);
    let (soft, hard) = now.map_err(|e| Error::os(Step::Prepare, "prlimit64", e as i32).about("RLIMIT_NOFILE"))?;
    Ok(Rlimit::new(soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_raised_early_and_lowered_late() {
        let now = Rlimit::new(1024, 4096);
        assert_eq!(raised(now, Rlimit::new(10, 20)), None);
        assert_eq!(raised(now, Rlimit::new(4096, 4096)), None);
        assert_eq!(raised(now, Rlimit::new(10, 5000)), Some(Rlimit::new(1024, 5000)));
        assert_eq!(raised(now, 5000.into()), Some(5000.into()));
    }
}
