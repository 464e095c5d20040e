//! How a child comes by the memory that it needs until its program starts.

use crate::Error;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How a child comes by the memory that it needs until its program starts.
///
/// Both take the same steps with the same errors; [`Child::report`](crate::Child::report) says which one it was. Where nothing is asked for, by
/// [`Sandbox::engine`](crate::Sandbox::engine), it is `Shared`, unless one of those things is wanted that it cannot be for.
///
/// | | `Shared` | `Copy` |
/// |---|---|---|
/// | the caller's memory | is used, and the stack of one thread of the caller, which is suspended meanwhile | is copied, as `fork(2)` does |
/// | takes longer the more memory the caller uses | no | yes: tens of milliseconds for each GiB, and more page faults of the caller afterwards |
/// | user and group can change | no: the dumpable flag of the caller's memory would be lost with them, `PR_SET_DUMPABLE(2const)` | yes |
/// | namespaces of others can be joined, [`Sandbox::join`](crate::Sandbox::join) | no | yes |
/// | code of the caller's can run, [`Plan::spawn_fn`](crate::Plan::spawn_fn) | no | yes |
/// | a filter of system calls may kill the child before its program starts, `Seccomp::bpf` | no: the kernel may write the caller's memory into a core dump, and before Linux 5.16 kills the caller too, `core(5)` | yes, without a core dump |
/// | a version 1 cpuset is entered, where memory has more than one NUMA node | no: the caller's memory policies would change, and its pages move, `cpuset(7)` | yes |
/// | a child that is [held](crate::Plan::hold) can reach the caller's memory | yes | only read what was in it |
///
/// What a filter does is worked out for the calls that are left when it is in place, so that most filters are no reason for a copy. A copy is not dumpable from before it
/// lets signals in until its program starts. With `Shared`, a signal of those that dump core (`SIGQUIT`) that is pending then is an error, `EINTR`; one that comes in
/// the moment between that and `execve(2)` makes a core dump of the caller's memory, where limits and `core_pattern` allow it, and before Linux 5.16 ends the caller, whatever those say.
/// Who cannot risk that (a terminal that the child shares, on such a kernel) asks for `Copy`, or for [a session of its own](crate::Sandbox::new_session).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
#[doc(alias("vfork", "fork", "CLONE_VM"))]
pub enum Engine {
    /// `CLONE_VM | CLONE_VFORK`.
    Shared,
    /// Without `CLONE_VM`.
    Copy,
}

/// What a child does, or meets, that the caller's memory is not for.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a reason of its own")]
pub(crate) struct Needs {
    pub(crate) joins: bool,
    pub(crate) changes_ids: bool,
    /// By its own filters, with a core dump.
    pub(crate) may_be_killed: bool,
    /// Into a cpuset, which rules over memory too.
    pub(crate) moves_memory: bool,
}

impl Needs {
    /// Why it has to be a copy, if it has to.
    fn of_a_copy(self) -> Option<&'static str> {
        let reasons = [
            (
                self.joins,
                "cannot be Shared, because namespaces are joined whose members the caller's memory is not for",
            ),
            (
                self.changes_ids,
                "cannot be Shared, because user or group change, and with them the caller's dumpable flag",
            ),
            (
                self.may_be_killed,
                "cannot be Shared, because a filter may kill the child, and the kernel dump the caller's memory",
            ),
            (self.moves_memory, "cannot be Shared, because a cpuset is entered, and with it the caller's memory moved"),
        ];
        reasons.into_iter().find(|(holds, _)| *holds).map(|(_, reason)| reason)
    }
}

/// The rule.
pub(crate) fn choose(asked: Option<Engine>, needs: Needs) -> Result<Engine, Error> {
    match (asked, needs.of_a_copy()) {
        (Some(Engine::Shared), Some(reason)) => Err(Error::config("engine", reason)),
        (Some(engine), _) => Ok(engine),
        (None, Some(_)) => Ok(Engine::Copy),
        (None, None) => Ok(Engine::Shared),
    }
}

/// Whether one of these version 1 cgroups is a cpuset, on a machine where memory has more than one place: who enters it takes along the memory policies of all of its memory, and
/// with `cpuset.memory_migrate` its pages.
pub(crate) fn moves_memory(procs: &[(PathBuf, OwnedFd)]) -> bool {
    let cpuset =
        |(path, _): &(PathBuf, OwnedFd)| ["cpuset.mems", "mems"].iter().any(|mems| path.with_file_name(mems).exists());
    procs.iter().any(cpuset)
        && std::fs::read_to_string("/sys/devices/system/node/has_memory").is_ok_and(|nodes| are_several(&nodes))
}

/// As the kernel lists numbers: `0`, `0-1`, `0,2`.
fn are_several(list: &str) -> bool {
    list.contains(['-', ','])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_the_callers_memory_is_not_for_is_done_in_a_copy() {
        let none = Needs::default();
        let chosen = |asked, needs| choose(asked, needs).map_err(|error| error.kind());
        assert_eq!(chosen(None, none), Ok(Engine::Shared));
        assert_eq!(chosen(Some(Engine::Shared), none), Ok(Engine::Shared));
        assert_eq!(chosen(Some(Engine::Copy), none), Ok(Engine::Copy));
        for needs in [
            Needs { joins: true, ..none },
            Needs { changes_ids: true, ..none },
            Needs { may_be_killed: true, ..none },
            Needs { moves_memory: true, ..none },
        ] {
            assert_eq!(chosen(None, needs), Ok(Engine::Copy), "{needs:?}");
            assert_eq!(chosen(Some(Engine::Copy), needs), Ok(Engine::Copy), "{needs:?}");
            assert_eq!(chosen(Some(Engine::Shared), needs), Err(ErrorKind::InvalidConfig), "{needs:?}");
        }
    }

    #[test]
    fn places_of_memory_are_counted() {
        for (list, several) in [("0\n", false), ("7\n", false), ("\n", false), ("0-1\n", true), ("0,2\n", true)] {
            assert_eq!(are_several(list), several, "{list:?}");
        }
    }
}
