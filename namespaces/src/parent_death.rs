//! Whether what was asked for at the parent's death outlives the start of the program.
//!
//! The kernel forgets it where `execve(2)` gives a process more permitted capabilities than it had: its parent must not signal who is more than the parent had started.
//! Of a program of user 0 that can be told beforehand: it gets the bounding and the inheritable set, whatever the permitted one was. With no new privileges it gets
//! nothing that it had not. What a program's file or a label does is the kernel's to know.

use crate::identity::Identity;
use crate::sys::{self, Rights};
use crate::{Error, Namespaces, Sandbox, SecureBits, Step, privilege};
use nix::unistd::getresuid;

/// Whether the program of this plan would live on when its parent has died.
pub(crate) fn is_forgotten(
    sandbox: &Sandbox,
    identity: &Identity,
    rights: &privilege::Bound,
    apart: Namespaces,
) -> Result<bool, Error> {
    if !sandbox.die_with_parent || sandbox.privilege.no_new_privs || !is_root(identity)? {
        return Ok(false);
    }
    let (inside, failed) = (apart.contains(Namespaces::USER), |(call, errno)| Error::os(Step::Prepare, call, errno));
    // Root of a user namespace has all of them, and no securebits.
    let all = Rights { permitted: u64::MAX, bounding: u64::MAX, ..Rights::default() };
    let before = if inside { all } else { Rights::own().map_err(failed)? };
    let securebits = sandbox.privilege.securebits.map_or(before.securebits, |bits| bits.bits());
    let forgotten = gains(rights.at_start(before)) && securebits & SecureBits::NOROOT.bits() == 0;
    Ok(forgotten && !sys::has_no_new_privs().map_err(failed)?)
}

/// Whether a program of user 0 gets more than is permitted to who starts it.
fn gains(before: Rights) -> bool {
    (before.bounding | before.inheritable) & !before.permitted != 0
}

/// By its real or its effective id.
fn is_root(identity: &Identity) -> Result<bool, Error> {
    if let Some(uid) = identity.changes.last.uid.or(identity.changes.first.uid) {
        return Ok(uid == 0);
    }
    let users = getresuid().map_err(|errno| Error::os(Step::Prepare, "getresuid", errno as i32))?;
    Ok([users.real, users.effective].into_iter().any(|user| match &identity.maps {
        Some(maps) => maps.uids.inside(user.as_raw()) == Some(0),
        None => user.is_root(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_more_than_was_permitted() {
        let all = (1 << 41) - 1;
        for (permitted, bounding, inheritable, more) in [
            (all, all, 0, false),
            (all, all, all, false),
            (0, all, 0, true),
            (0, 0, 0, false),
            (all, 0, 0, false),
            (0, 0, 1, true),
            (1, 0, 1, false),
            (6, 7, 0, true),
            (7, 6, 1, false),
            (all, all | 1 << 41, 0, true),
        ] {
            let rights = Rights { permitted, bounding, inheritable, securebits: 0 };
            assert_eq!(gains(rights), more, "{rights:x?}");
        }
    }
}
