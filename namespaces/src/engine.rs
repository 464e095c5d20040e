//! How a child comes by the memory that it needs until its program starts.

use crate::Error;

/// How a child comes by the memory that it needs until its program starts.
///
/// Both take the same steps with the same errors; [`Child::report`](crate::Child::report) says which one it was. Where nothing is asked for, by
/// [`Sandbox::engine`](crate::Sandbox::engine), it is `Shared`, unless the child changes its user or group or joins namespaces.
///
/// | | `Shared` | `Copy` |
/// |---|---|---|
/// | the caller's memory | is used, and the stack of one thread of the caller, which is suspended meanwhile | is copied, as `fork(2)` does |
/// | takes longer the more memory the caller uses | no | yes: tens of milliseconds for each GiB, and more page faults of the caller afterwards |
/// | user and group can change | no: the dumpable flag of the caller's memory would be lost with them, `PR_SET_DUMPABLE(2const)` | yes |
/// | namespaces of others can be joined, [`Sandbox::join`](crate::Sandbox::join) | no | yes |
/// | code of the caller's can run, [`Plan::spawn_fn`](crate::Plan::spawn_fn) | no | yes |
/// | a child that is [held](crate::Plan::hold) can reach the caller's memory | yes | only read what was in it |
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

/// The rule.
pub(crate) fn choose(asked: Option<Engine>, changes_ids: bool, joins: bool) -> Result<Engine, Error> {
    match asked {
        Some(Engine::Shared) if joins => Err(Error::config(
            "engine",
            "cannot be Shared, because namespaces are joined whose members the caller's memory is not for",
        )),
        Some(Engine::Shared) if changes_ids => Err(Error::config(
            "engine",
            "cannot be Shared, because user or group change, and with them the caller's dumpable flag",
        )),
        Some(engine) => Ok(engine),
        None if changes_ids || joins => Ok(Engine::Copy),
        None => Ok(Engine::Shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn ids_are_changed_in_a_copy() {
        let chosen = |asked, ids| choose(asked, ids, false).map_err(|error| error.kind());
        assert_eq!(chosen(None, false), Ok(Engine::Shared));
        assert_eq!(chosen(None, true), Ok(Engine::Copy));
        assert_eq!(chosen(Some(Engine::Shared), false), Ok(Engine::Shared));
        assert_eq!(chosen(Some(Engine::Copy), false), Ok(Engine::Copy));
        assert_eq!(chosen(Some(Engine::Copy), true), Ok(Engine::Copy));
        assert_eq!(chosen(Some(Engine::Shared), true), Err(ErrorKind::InvalidConfig));
        assert_eq!(choose(None, false, true).unwrap(), Engine::Copy);
        assert_eq!(choose(Some(Engine::Shared), false, true).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
