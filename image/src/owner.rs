//! To whom unpacked files belong.

use crate::{Error, ErrorKind, Operation};

/// To whom the unpacked files belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[doc(alias("chown", "uid", "rootless"))]
pub enum Ownership {
    /// To the users and groups in the archive. Needs `CAP_CHOWN` and `CAP_FOWNER`.
    #[default]
    Archive,
    /// To others, as this map says: the files of a container whose users are those of a user namespace. Privileges as for
    /// [`Archive`](Self::Archive). Ids in access control lists and the root of file capabilities are mapped too.
    Mapped(OwnerMap),
    /// All to the caller, `squashed`: what an ordinary user can do. Attributes that only root may set (`trusted.*`, `security.*`) and access control
    /// lists are skipped and [listed](crate::Report::skipped).
    Caller,
}

/// Which user and group of the archive is which one here: ranges, as in `/proc/PID/uid_map`, `user_namespaces(7)`.
///
/// ```
/// # use cofferdam_image::{Options, OwnerMap, Ownership};
/// // As `/etc/subuid` and `/etc/subgid` give them.
/// let map = OwnerMap::new().users(0, 100_000, 65_536).groups(0, 100_000, 65_536);
/// let options = Options::new().ownership(Ownership::Mapped(map));
/// ```
///
/// An entry whose user or group is in no range is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[doc(alias("idmap", "subuid"))]
pub struct OwnerMap {
    users: Vec<Range>,
    groups: Vec<Range>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

impl OwnerMap {
    /// A map of nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps `count` users of the archive, from `inside` on, to those from `outside` on. Of several ranges with a user the first counts.
    #[must_use]
    pub fn users(mut self, inside: u32, outside: u32, count: u32) -> Self {
        self.users.push(Range { inside, outside, count });
        self
    }

    /// The same for groups.
    #[must_use]
    pub fn groups(mut self, inside: u32, outside: u32, count: u32) -> Self {
        self.groups.push(Range { inside, outside, count });
        self
    }
}

/// The highest id means "leave it as it is" to chown(2), so it must not get there.
fn checked(id: u64) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX)
}

fn find(ranges: &[Range], id: u64) -> Option<u32> {
    let id = checked(id)?;
    let in_range = |range: &Range| {
        let offset = id.checked_sub(range.inside).filter(|offset| *offset < range.count)?;
        checked(u64::from(range.outside) + u64::from(offset))
    };
    ranges.iter().find_map(in_range)
}

impl Ownership {
    /// The user here that this one of the archive is.
    pub(crate) fn user(&self, id: u64) -> Option<u32> {
        match self {
            Ownership::Mapped(map) => find(&map.users, id),
            Ownership::Archive | Ownership::Caller => checked(id),
        }
    }

    /// The group here that this one of the archive is.
    pub(crate) fn group(&self, id: u64) -> Option<u32> {
        match self {
            Ownership::Mapped(map) => find(&map.groups, id),
            Ownership::Archive | Ownership::Caller => checked(id),
        }
    }

    pub(crate) fn is_callers(&self) -> bool {
        *self == Ownership::Caller
    }

    pub(crate) fn nobody(&self) -> Error {
        match self {
            Ownership::Mapped(_) => Error::refused("has an owner who is not in the map of owners"),
            _ => Error::new(ErrorKind::Malformed, Operation::Unpack, "has an owner that no file can have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let map = OwnerMap::new().users(0, 1000, 1).users(1, 100_000, 10).groups(5, u32::MAX - 1, 3);
        let mapped = Ownership::Mapped(map);
        for (id, user) in [(0, Some(1000)), (1, Some(100_000)), (10, Some(100_009)), (11, None), (1 << 40, None)] {
            assert_eq!(mapped.user(id), user, "{id}");
        }
        assert_eq!((mapped.group(0), mapped.group(5)), (None, Some(u32::MAX - 1)));
        assert_eq!((mapped.group(6), mapped.group(7)), (None, None), "no id has that number");
        assert_eq!(Ownership::Archive.user(u64::from(u32::MAX)), None);
        assert_eq!(Ownership::Archive.group(7), Some(7));
    }
}
