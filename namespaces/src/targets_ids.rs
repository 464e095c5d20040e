//! Who there is in the target's user namespace, and who the target is.

use crate::identity::{Change, Changes, IdRange};
use crate::target::Process;
use crate::{Credentials, Error};

/// Who there is in a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
    /// Whether `setgroups(2)` works inside.
    setgroups: bool,
}

pub(crate) fn of(process: &Process) -> Result<Ids, Error> {
    let setgroups = process.read("setgroups")?.starts_with(b"allow");
    Ok(Ids { uids: ranges(&process.read("uid_map")?), gids: ranges(&process.read("gid_map")?), setgroups })
}

/// The target's, as it sees itself in a user namespace that is joined, or as the caller sees it.
pub(crate) fn credentials(status: &[u8], inside: Option<&Ids>) -> Result<Credentials, Error> {
    let status = String::from_utf8_lossy(status);
    let numbers = |name: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    let none = || Error::config("target", "has a user or a group that nobody is in its user namespace");
    let map = |ranges: Option<&[IdRange]>, id: u32| ranges.map_or(Some(id), |ranges| mapped(ranges, id));
    let (uids, gids) = (inside.map(|ids| &ids.uids[..]), inside.map(|ids| &ids.gids[..]));
    // Real, effective, saved, of the file system.
    let effective = |name| numbers(name).get(1).copied();
    let uid = effective("Uid:").and_then(|id| map(uids, id)).ok_or_else(none)?;
    let gid = effective("Gid:").and_then(|id| map(gids, id)).ok_or_else(none)?;
    let credentials = Credentials::new(uid, gid);
    if inside.is_some_and(|ids| !ids.setgroups) {
        return Ok(credentials);
    }
    // A group that is nobody inside cannot be had there.
    Ok(credentials.groups(numbers("Groups:").into_iter().filter_map(|id| map(gids, id))))
}

fn ranges(text: &[u8]) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some(IdRange::new(numbers.next()??, numbers.next()??, numbers.next()??))
    };
    String::from_utf8_lossy(text).lines().filter_map(range).collect()
}

/// Who an id of the caller's is inside.
fn mapped(ranges: &[IdRange], outside: u32) -> Option<u32> {
    let range = ranges.iter().find(|r| outside >= r.outside && outside - r.outside < r.count)?;
    range.inside.checked_add(outside - range.outside)
}

impl Ids {
    /// Of a namespace without a process to ask.
    pub(crate) fn unknown() -> Self {
        let root = vec![IdRange::new(0, 0, 1)];
        Ids { uids: root.clone(), gids: root, setgroups: true }
    }

    /// What a child does that comes in: it is root, if there is one, or who the caller is in there, and then who the program is.
    ///
    /// It says who it is also where it is that already: to the kernel somebody who is not mapped is still the caller, for every file of his, and a hostile
    /// target may be in another namespace by the time that it is joined. That call fails there.
    pub(crate) fn changes(&self, wanted: Option<&Credentials>, caller: (u32, u32)) -> Result<Changes, Error> {
        let has_root = |ranges: &[IdRange]| ranges.iter().any(|range| range.inside == 0 && range.count > 0);
        let root = has_root(&self.uids) && has_root(&self.gids);
        // The caller's own groups are nothing in there, unless that is denied.
        let none = Change { groups: Some(Vec::new()), may_keep_groups: true, ..Change::default() };
        let first = match (root, wanted) {
            (true, _) => Change { gid: Some(0), uid: Some(0), ..none },
            (false, Some(_)) => none,
            (false, None) => {
                let there = mapped(&self.uids, caller.0).zip(mapped(&self.gids, caller.1));
                let words = "of the target has neither root nor the caller: say who the program is, by credentials";
                let (uid, gid) = there.ok_or_else(|| Error::config("user namespace", words))?;
                Change { gid: Some(gid), uid: Some(uid), ..none }
            }
        };
        let last = wanted.map(|wanted| {
            let (groups, gid, uid) = (wanted.groups.clone(), Some(wanted.gid), Some(wanted.uid));
            Change { groups, may_keep_groups: false, gid, uid }
        });
        Ok(Changes { first, last: last.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"Name:\tx\nUid:\t100001\t100005\t0\t0\nGid:\t7\t100006\t0\t0\nGroups:\t100006 5 100009 \n";

    #[test]
    fn a_target_is_seen_from_inside() {
        let ids = |setgroups| Ids { uids: ranges(b" 0 100000 10\n"), gids: ranges(b"0 100000 10\n"), setgroups };
        let found = credentials(STATUS, Some(&ids(true))).unwrap();
        assert_eq!(found, Credentials::new(5, 6).groups([6, 9]));
        assert_eq!(credentials(STATUS, Some(&ids(false))).unwrap(), Credentials::new(5, 6));
        let found = credentials(STATUS, None).unwrap();
        assert_eq!(found, Credentials::new(100_005, 100_006).groups([100_006, 5, 100_009]));
        assert!(credentials(b"Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n", Some(&ids(true))).is_err());
        assert!(credentials(b"", None).is_err());
    }

    #[test]
    fn nobody_comes_in_who_is_not_there() {
        // The maps, who the program is to be; who the child is first, and then, if it may.
        type Case<'a> = (Ids, Option<&'a Credentials>, Option<[Option<u32>; 3]>);
        let ids = |uids: &[u8], gids: &[u8]| Ids { uids: ranges(uids), gids: ranges(gids), setgroups: true };
        let (caller, five) = ((1000, 1000), Credentials::new(5, 5));
        let (root, other, own) = (b"0 1000 1", b"5 2000 1", b"5 1000 1");
        let cases: [Case<'_>; 10] = [
            (ids(root, root), None, Some([Some(0), Some(0), None])),
            (ids(root, root), Some(&five), Some([Some(0), Some(0), Some(5)])),
            (ids(own, own), None, Some([Some(5), Some(5), None])),
            (ids(own, own), Some(&five), Some([None, None, Some(5)])),
            (ids(other, other), Some(&five), Some([None, None, Some(5)])),
            (ids(root, own), None, Some([Some(0), Some(5), None])),
            (ids(b"", b""), None, None),
            (ids(root, b""), None, None),
            (ids(b"", root), None, None),
            (ids(b"0 2000 1", other), None, None),
        ];
        for (ids, wanted, expected) in cases {
            let found = ids.changes(wanted, caller);
            let who = |changes: &Changes| [changes.first.uid, changes.first.gid, changes.last.uid];
            assert_eq!(found.as_ref().ok().map(who), expected, "{ids:?} {wanted:?}");
            if let Ok(Changes { first, .. }) = found {
                assert_eq!((first.groups, first.may_keep_groups), (Some(vec![]), true), "{ids:?} {wanted:?}");
            }
        }
    }
}
