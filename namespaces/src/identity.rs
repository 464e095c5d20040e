//! Who is who in a user namespace, and who the program is: plain data, and what can be told to be wrong with it.

use crate::bind::Names;
use crate::join::{Joining, check_stays_hidden};
use crate::{Error, Namespaces, Sandbox, Step};
use nix::errno::Errno;
use nix::unistd::{getresgid, getresuid};
use std::fmt::Write;

/// Which users and groups there are in a sandbox's user namespace, and who they are outside, see `user_namespaces(7)`.
///
/// The process holds every capability in its namespace until it starts the program; the program keeps them if it is user 0.
///
/// Inside, the caller's own files and processes are still the caller's. If the caller is root and maps itself, so is user 0 inside, for every file and
/// every setting of the kernel (`/proc/sys`) that it can reach: what makes the difference for root is a root directory without such
/// things, or ranges that do not contain user 0 outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[doc(alias("uid_map", "gid_map", "setgroups", "keep-id"))]
pub struct IdMap {
    #[cfg_attr(feature = "serde", serde(rename = "map"))]
    pub(crate) kind: Kind,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) deny_setgroups: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub(crate) enum Kind {
    Single { uid: u32, gid: u32 },
    Ranges { uids: Vec<IdRange>, gids: Vec<IdRange> },
    Subordinate,
    Join(String),
}

impl IdMap {
    /// Root inside is the caller outside: user 0 and group 0, and nobody else.
    #[must_use]
    pub fn root() -> Self {
        Self::single(0, 0)
    }

    /// This user and this group inside are the caller's effective ids outside, and there is nobody else.
    ///
    /// The one map that takes no privilege and no helper. `setgroups(2)` is denied inside: who may drop a group could open a file that
    /// denies access to that group.
    #[must_use]
    pub fn single(uid: u32, gid: u32) -> Self {
        Kind::Single { uid, gid }.into()
    }

    /// These users and these groups.
    ///
    /// A caller with `CAP_SETUID` and `CAP_SETGID` (and `CAP_SETFCAP`, if user 0 outside is among them) writes the maps itself. For
    /// any other caller they are given to `newuidmap(1)` and `newgidmap(1)`, which allow what `/etc/subuid` and `/etc/subgid` do,
    /// and the caller's own ids.
    ///
    /// At most 340 ranges each and less than 4096 bytes as text, as the kernel takes them.
    #[must_use]
    pub fn ranges(uids: impl IntoIterator<Item = IdRange>, gids: impl IntoIterator<Item = IdRange>) -> Self {
        Kind::Ranges { uids: uids.into_iter().collect(), gids: gids.into_iter().collect() }.into()
    }

    /// Root inside is the caller outside, and from 1 on come the caller's subordinate ids, as `/etc/subuid` and `/etc/subgid` list them when the
    /// plan is made, one range after the other (`subuid(5)`). Written as [`ranges`](IdMap::ranges) are.
    ///
    /// Only the two files are read: a `subid` source of `nsswitch.conf(5)` is not asked.
    #[must_use]
    #[doc(alias("subuid", "subgid", "newuidmap", "newgidmap", "map-auto"))]
    pub fn subordinate() -> Self {
        Kind::Subordinate.into()
    }

    /// Those of the user namespace that [`Fds::bind`](crate::Fds::bind) gives this name, which the program joins instead of having one for itself. The caller needs
    /// `CAP_SYS_ADMIN` in it, as its owner has who made it.
    ///
    /// The child is user 0 and group 0 there before it does anything else, without supplementary groups where the caller may drop them or the namespace allows
    /// that; it makes the sandbox's other namespaces in it. A new pid or time namespace is not among them.
    ///
    /// Who is root in that namespace may be hostile: until its program starts, the child is a copy ([`Engine::Copy`](crate::Engine::Copy)) that nobody may trace.
    /// Where the administrator has set `fs.suid_dumpable` to 1, the kernel does not keep to that, and this is an error.
    #[must_use]
    #[doc(alias("setns", "nsenter", "userns"))]
    pub fn join(name: impl Into<String>) -> Self {
        Kind::Join(name.into()).into()
    }

    /// Denies `setgroups(2)` inside also where it would be allowed: with ranges. The caller's supplementary groups stay the program's then.
    #[must_use]
    pub fn deny_setgroups(mut self) -> Self {
        self.deny_setgroups = true;
        self
    }
}

impl From<Kind> for IdMap {
    fn from(kind: Kind) -> Self {
        IdMap { kind, deny_setgroups: false }
    }
}

/// A range of ids, inside and outside of a user namespace: one line of `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(clippy::exhaustive_structs, reason = "what the kernel takes")]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside: in the user namespace of the caller.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// `count` ids, from `inside` and from `outside` on.
    #[must_use]
    pub fn new(inside: u32, outside: u32, count: u32) -> Self {
        IdRange { inside, outside, count }
    }
}

/// A map as the kernel takes it, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<IdRange>);

impl Ranges {
    /// As many lines as the kernel takes, since Linux 4.15.
    const MOST: usize = 340;
    /// The kernel wants less than a page, which has at least this size.
    const TEXT: usize = 4096;

    pub(crate) fn check(object: &'static str, ranges: Vec<IdRange>) -> Result<Self, Error> {
        let refuse = |words| Err(Error::config(object, words));
        if ranges.is_empty() {
            return refuse("has no range");
        }
        if ranges.len() > Self::MOST {
            return refuse("has more than 340 ranges");
        }
        // The last id of all, 2^32 - 1, means nobody.
        let fits = |first: u32, count: u32| first.checked_add(count).is_some();
        if !ranges.iter().all(|r| r.count > 0 && fits(r.inside, r.count) && fits(r.outside, r.count)) {
            return refuse("has a range without ids, or one that goes beyond 4294967294");
        }
        if overlap(ranges.iter().map(|r| (r.inside, r.count))) {
            return refuse("has ranges that overlap inside");
        }
        if overlap(ranges.iter().map(|r| (r.outside, r.count))) {
            return refuse("has ranges that overlap outside");
        }
        let ranges = Ranges(ranges);
        if ranges.text().len() >= Self::TEXT {
            return refuse("is longer than 4095 bytes as text");
        }
        Ok(ranges)
    }

    pub(crate) fn as_slice(&self) -> &[IdRange] {
        &self.0
    }

    /// As `/proc/PID/uid_map` wants it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for IdRange { inside, outside, count } in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{inside} {outside} {count}");
        }
        text
    }

    /// Who an id of the caller's is inside.
    pub(crate) fn inside(&self, outside: u32) -> Option<u32> {
        let range = self.0.iter().find(|r| outside >= r.outside && outside - r.outside < r.count)?;
        Some(range.inside + (outside - range.outside))
    }

    /// Whether there is such an id inside.
    pub(crate) fn has(&self, inside: u32) -> bool {
        self.0.iter().any(|r| inside >= r.inside && inside - r.inside < r.count)
    }
}

fn overlap(ranges: impl Iterator<Item = (u32, u32)>) -> bool {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_unstable();
    ranges.windows(2).any(|pair| matches!(pair, [(first, count), (next, _)] if next - first < *count))
}

/// Who the program is: user, group and supplementary groups, as seen from inside, see `credentials(7)`.
///
/// Real, effective, saved and file system ids are all the same. The program of a user other than 0 starts without capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[doc(alias("setuid", "setresuid", "setgid", "setgroups", "initgroups", "run-as"))]
pub struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) groups: Option<Vec<u32>>,
}

impl Credentials {
    /// This user and this group, without supplementary groups; where `setgroups(2)` is denied ([`IdMap`]), with those of the caller.
    #[must_use]
    pub fn new(uid: u32, gid: u32) -> Self {
        Credentials { uid, gid, groups: None }
    }

    /// Exactly these supplementary groups. An error of the plan where `setgroups(2)` is denied.
    #[must_use]
    pub fn groups(mut self, groups: impl IntoIterator<Item = u32>) -> Self {
        self.groups = Some(groups.into_iter().collect());
        self
    }
}

/// As many supplementary groups as the kernel takes.
const GROUPS: usize = 65536;

/// A change of ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) groups: Option<Vec<u32>>,
    /// Whether the groups stay as they are where `setgroups(2)` is denied.
    pub(crate) may_keep_groups: bool,
    pub(crate) gid: Option<u32>,
    pub(crate) uid: Option<u32>,
}

impl Change {
    fn between(from: (u32, u32), to: (u32, u32), groups: Option<Vec<u32>>) -> Self {
        Change {
            groups,
            may_keep_groups: false,
            gid: (from.1 != to.1).then_some(to.1),
            uid: (from.0 != to.0).then_some(to.0),
        }
    }

    /// The kernel resets the dumpable flag of a process, and its signal at the parent's death, when these change.
    pub(crate) fn of_ids(&self) -> bool {
        self.uid.is_some() || self.gid.is_some()
    }
}

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maps {
    pub(crate) uids: Ranges,
    pub(crate) gids: Ranges,
    /// Whether `setgroups(2)` works inside.
    pub(crate) setgroups: bool,
    /// One id each, which the process may write itself; otherwise the caller writes the maps.
    pub(crate) by_child: bool,
}

/// The two times at which the child changes its ids: as soon as it can, to be root in its user namespace, and at the end, to be who the program is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) first: Change,
    pub(crate) last: Change,
}

/// What a sandbox's identity comes to, for this caller.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The user namespace that is not made but joined.
    pub(crate) join: Option<i32>,
    pub(crate) maps: Option<Maps>,
    pub(crate) changes: Changes,
    /// Whether the program is another user or group than the caller is by its effective ids.
    pub(crate) moves: bool,
    /// Whether it is root, inside or outside, until it becomes another user.
    pub(crate) leaves_root: bool,
}

impl Identity {
    pub(crate) fn of(sandbox: &Sandbox, names: &mut Names, joining: Option<&Joining>) -> Result<Self, Error> {
        let (caller, alike) = caller()?;
        if let Some(joining) = joining {
            let wanted = joining.credentials(sandbox);
            let changes = match &joining.ids {
                Some(ids) => {
                    wanted.map_or(Ok(()), |wanted| wanted.check(None))?;
                    ids.changes(wanted, caller)?
                }
                None => Changes::new(caller, None, wanted)?,
            };
            let moves = joining.ids.is_some() || changes.of_ids();
            if moves {
                check_stays_hidden()?;
            }
            let root = if joining.ids.is_some() { changes.first.uid == Some(0) } else { caller.0 == 0 };
            let leaves_root = changes.leave_root(root);
            return Ok(Identity { join: None, maps: None, changes, moves, leaves_root });
        }
        let root = IdMap::root();
        let map = sandbox.namespaces.contains(Namespaces::USER).then(|| sandbox.user.as_ref().unwrap_or(&root));
        let wanted = sandbox.credentials.as_ref();
        if let Some(IdMap { kind: Kind::Join(name), .. }) = map {
            // The one takes another process, the other is entered before the user namespace is.
            if sandbox.namespaces.intersects(Namespaces::PID | Namespaces::TIME) {
                return Err(Error::config(
                    "pid or time namespace",
                    "cannot be made in a user namespace that is joined",
                ));
            }
            check_stays_hidden()?;
            let (join, changes) = (Some(names.number(name)?), Changes::joining(wanted)?);
            let leaves_root = changes.leave_root(true);
            return Ok(Identity { join, maps: None, changes, moves: true, leaves_root });
        }
        let maps = map.map(|map| Maps::new(map, caller)).transpose()?;
        let changes = Changes::new(caller, maps.as_ref(), wanted)?;
        let moves = changes.of_ids();
        let changes = if alike { changes } else { changes.of_all(caller, maps.as_ref()) };
        let leaves_root = changes.leave_root(maps.as_ref().map_or(caller.0 == 0, |maps| maps.uids.has(0)));
        Ok(Identity { join: None, maps, changes, moves, leaves_root })
    }

    /// Whether the caller writes the maps, while the child waits.
    pub(crate) fn by_caller(&self) -> bool {
        self.maps.as_ref().is_some_and(|maps| !maps.by_child)
    }
}

/// The caller's effective user and group, and whether they are its only ones: those who start a set-user-id program stay what they are.
fn caller() -> Result<((u32, u32), bool), Error> {
    let failed = |call| move |errno: Errno| Error::os(Step::Prepare, call, errno as i32);
    let users = getresuid().map_err(failed("getresuid"))?;
    let groups = getresgid().map_err(failed("getresgid"))?;
    let alike = [users.real, users.saved].iter().all(|id| *id == users.effective)
        && [groups.real, groups.saved].iter().all(|id| *id == groups.effective);
    Ok(((users.effective.as_raw(), groups.effective.as_raw()), alike))
}

impl Changes {
    /// Also of ids that are right: the others may not be. Without a user namespace they are the caller's business.
    fn of_all(mut self, caller: (u32, u32), maps: Option<&Maps>) -> Self {
        if let Some(maps) = maps {
            self.first.uid = self.first.uid.or_else(|| maps.uids.inside(caller.0));
            self.first.gid = self.first.gid.or_else(|| maps.gids.inside(caller.1));
        }
        self
    }

    pub(crate) fn of_ids(&self) -> bool {
        self.first.of_ids() || self.last.of_ids()
    }

    fn leave_root(&self, root_first: bool) -> bool {
        root_first && self.last.uid.is_some_and(|uid| uid != 0)
    }

    /// In a namespace whose maps are not known.
    fn joining(wanted: Option<&Credentials>) -> Result<Self, Error> {
        let first = Change { groups: Some(Vec::new()), may_keep_groups: true, gid: Some(0), uid: Some(0) };
        let Some(wanted) = wanted else { return Ok(Changes { first, last: Change::default() }) };
        wanted.check(None)?;
        let groups = wanted.groups.clone();
        Ok(Changes { first, last: Change::between((0, 0), (wanted.uid, wanted.gid), groups) })
    }

    /// From the caller's effective user and group to who the program is to be.
    pub(crate) fn new(caller: (u32, u32), maps: Option<&Maps>, wanted: Option<&Credentials>) -> Result<Self, Error> {
        if let Some(wanted) = wanted {
            wanted.check(maps)?;
        }
        let wanted_ids = wanted.map(|wanted| (wanted.uid, wanted.gid));
        let wanted_groups = wanted.and_then(|wanted| wanted.groups.clone());
        match maps {
            None => {
                let Some(ids) = wanted_ids else { return Ok(Changes::default()) };
                // Not compared with the caller's: its real and saved ids may be others.
                let groups = Some(wanted_groups.unwrap_or_default());
                let last = Change { groups, gid: Some(ids.1), uid: Some(ids.0), ..Change::default() };
                Ok(Changes { first: Change::default(), last })
            }
            Some(maps) if maps.by_child => Ok(Changes::default()),
            Some(maps) => {
                let root = if maps.uids.has(0) && maps.gids.has(0) { Some((0, 0)) } else { wanted_ids };
                let root = root.ok_or_else(|| {
                    Error::config("user namespace", "has no user 0 and group 0: say who the program is, by credentials")
                })?;
                let ids = wanted_ids.unwrap_or(root);
                let now = (maps.uids.inside(caller.0), maps.gids.inside(caller.1));
                let first = Change {
                    groups: maps.setgroups.then(Vec::new),
                    gid: (now.1 != Some(root.1)).then_some(root.1),
                    uid: (now.0 != Some(root.0)).then_some(root.0),
                    may_keep_groups: false,
                };
                let last = Change::between(root, ids, wanted_groups.filter(|groups| !groups.is_empty()));
                Ok(Changes { first, last })
            }
        }
    }
}

impl Credentials {
    fn check(&self, maps: Option<&Maps>) -> Result<(), Error> {
        let refuse = |words| Err(Error::config("credentials", words));
        let groups = self.groups.as_deref().unwrap_or_default();
        if groups.len() > GROUPS {
            return refuse("have more than 65536 supplementary groups");
        }
        if self.uid == u32::MAX || self.gid == u32::MAX || groups.contains(&u32::MAX) {
            return refuse("have the id 4294967295, which means nobody");
        }
        let Some(maps) = maps else { return Ok(()) };
        if !maps.uids.has(self.uid) {
            return refuse("have a user that the map of the user namespace does not have");
        }
        if !maps.gids.has(self.gid) || !groups.iter().all(|group| maps.gids.has(*group)) {
            return refuse("have a group that the map of the user namespace does not have");
        }
        if self.groups.is_some() && !maps.setgroups {
            return refuse("have supplementary groups, but setgroups is denied in the user namespace");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range() -> impl Strategy<Value = IdRange> {
        (0..500_u32, 0..500_u32, 0..60_u32).prop_map(|(inside, outside, count)| IdRange { inside, outside, count })
    }

    fn maps(ranges: &[(u32, u32, u32)], setgroups: bool) -> Maps {
        let ranges: Vec<_> = ranges.iter().map(|(i, o, c)| IdRange::new(*i, *o, *c)).collect();
        let ranges = Ranges::check("map", ranges).unwrap();
        Maps { uids: ranges.clone(), gids: ranges, setgroups, by_child: false }
    }

    proptest! {
        /// What is accepted is a one-to-one map, and says what its text says.
        #[test]
        fn an_accepted_map_is_one_to_one(ranges in prop::collection::vec(range(), 0..6)) {
            let naive = |id: u32| -> Vec<u32> {
                let hit = ranges.iter().filter(|r| (r.outside..r.outside + r.count).contains(&id));
                hit.map(|r| r.inside + id - r.outside).collect()
            };
            let all: Vec<u32> = (0..600).flat_map(naive).collect();
            let unique: std::collections::BTreeSet<_> = all.iter().collect();
            let sound = !ranges.is_empty() && ranges.iter().all(|r| r.count > 0) && unique.len() == all.len()
                && (0..600).all(|id| naive(id).len() < 2);
            let checked = Ranges::check("map", ranges.clone());
            prop_assert_eq!(checked.is_ok(), sound);
            if let Ok(checked) = checked {
                for id in 0..600 {
                    prop_assert_eq!(checked.inside(id), naive(id).first().copied());
                    prop_assert_eq!(checked.has(id), unique.contains(&id));
                }
                let read: Vec<IdRange> = checked.text().lines().map(|line| {
                    let numbers: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
                    IdRange::new(numbers[0], numbers[1], numbers[2])
                }).collect();
                prop_assert_eq!(read, ranges);
            }
        }
    }

    #[test]
    fn the_kernels_limits_are_known() {
        let many = |n: u32, factor: u32| (0..n).map(|i| IdRange::new(i, i * factor, 1)).collect::<Vec<_>>();
        assert!(Ranges::check("map", many(340, 1)).is_ok());
        let words = |ranges| Ranges::check("map", ranges).unwrap_err().to_string();
        assert!(words(many(341, 1)).contains("340"));
        assert!(words(many(339, 10_000_000)).contains("4095 bytes"));
        assert!(words(vec![IdRange::new(0, u32::MAX, 1)]).contains("4294967294"));
        assert!(words(vec![IdRange::new(1, 0, u32::MAX)]).contains("4294967294"));
        assert!(Ranges::check("map", vec![IdRange::new(0, 0, u32::MAX)]).is_ok());
        assert!(words(Vec::new()).contains("no range"));
    }

    #[test]
    fn ids_change_to_root_and_then_to_the_program() {
        let wide = maps(&[(0, 100_000, 65536)], true);
        let changes = |caller, maps, wanted: Option<Credentials>| Changes::new(caller, maps, wanted.as_ref()).unwrap();
        let change = |groups: Option<&[u32]>, gid, uid| Change {
            groups: groups.map(<[u32]>::to_vec),
            may_keep_groups: false,
            gid,
            uid,
        };
        let none = Change::default();

        assert_eq!(changes((0, 0), None, None), Changes::default());
        let wanted = Some(Credentials::new(7, 8));
        let last = change(Some(&[]), Some(8), Some(7));
        assert_eq!(changes((0, 0), None, wanted.clone()), Changes { first: none.clone(), last });
        // Not mapped: root first.
        let first = change(Some(&[]), Some(0), Some(0));
        assert_eq!(changes((0, 0), Some(&wide), None), Changes { first: first.clone(), last: none.clone() });
        let last = change(None, Some(8), Some(7));
        assert_eq!(changes((0, 0), Some(&wide), wanted), Changes { first: first.clone(), last });
        let last = change(Some(&[27]), None, None);
        assert_eq!(changes((0, 0), Some(&wide), Some(Credentials::new(0, 0).groups([27]))), Changes { first, last });
        // An ordinary user who is root inside changes no id.
        let own = maps(&[(0, 1000, 1), (1, 100_000, 65536)], true);
        let kept = Changes { first: change(Some(&[]), None, None), last: none.clone() };
        assert_eq!(changes((1000, 1000), Some(&own), None), kept);
        assert!(!kept.of_ids());
        // Nobody is root inside: the program's own ids are as good.
        let users = maps(&[(5, 100_000, 10)], false);
        let first = change(None, Some(6), Some(5));
        assert_eq!(changes((0, 0), Some(&users), Some(Credentials::new(5, 6))), Changes { first, last: none });
        assert!(Changes::new((0, 0), Some(&users), None).is_err());
    }

    #[test]
    fn credentials_that_cannot_be() {
        let (open, closed) = (maps(&[(0, 100_000, 10)], true), maps(&[(0, 100_000, 10)], false));
        let words = |maps, wanted: Credentials| Changes::new((0, 0), maps, Some(&wanted)).unwrap_err().to_string();
        assert!(words(Some(&open), Credentials::new(10, 0)).contains("a user that"));
        assert!(words(Some(&open), Credentials::new(0, 10)).contains("a group that"));
        assert!(words(Some(&open), Credentials::new(0, 0).groups([9, 10])).contains("a group that"));
        assert!(words(Some(&closed), Credentials::new(0, 0).groups([])).contains("denied"));
        assert!(words(None, Credentials::new(u32::MAX, 0)).contains("nobody"));
        assert!(words(None, Credentials::new(0, 0).groups(0..70_000)).contains("65536"));
    }
}
