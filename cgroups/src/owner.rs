//! Whose a cgroup is, so that what a killed program left behind can be found and removed.
//!
//! The owner is in the name. Nothing else is there from the very moment in which the cgroup is, in every version and
//! for every user: an attribute would be set a moment later, and a program that dies in that moment would leave
//! something that is nobody's.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::cgroup::Cgroup;
use crate::controllers::{Controllers, Subsystems};
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::hierarchy::Hierarchy;
use crate::layout::Version;
use crate::member::{Member, Tree};

/// Before the owner.
const TAG: &str = "cofferdam-";
/// Between owner and name. No owner has it, nor has any unit of systemd's: on v2 new cgroups are made beside those, and
/// `cofferdam-exporter.service` must be nobody's.
const SEPARATOR: char = '+';

/// Who a cgroup belongs to: one running program, for instance, by a number that no other has. 1 to 64 letters, digits,
/// `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(into = "String", try_from = "String"))]
pub struct Owner(String);

impl Owner {
    /// An owner of that name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
            Ok(Owner(name))
        } else {
            Err(Error::invalid(name, "owner", "1 to 64 letters, digits, - and _ are needed"))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cgroup's name in the file system.
    fn tagged(&self, name: &OsStr) -> OsString {
        let mut tagged = OsString::from(format!("{TAG}{}{SEPARATOR}", self.0));
        tagged.push(name);
        tagged
    }

    /// Whose a name in the file system is, if it is one of ours.
    fn of(tagged: &OsStr) -> Option<Self> {
        let rest = tagged.as_bytes().strip_prefix(TAG.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == SEPARATOR as u8)?;
        Owner::new(std::str::from_utf8(rest.get(..end)?).ok()?).ok()
    }
}

/// Refuses a name that [`Hierarchy::gc`] would take for that of an owner's.
pub(crate) fn check_untagged(name: &OsStr) -> Result<()> {
    match Owner::of(name) {
        None => Ok(()),
        Some(_) => Err(Error::invalid(
            name.to_string_lossy(),
            "cgroup name",
            "cofferdam-OWNER+NAME is what create_owned makes, and gc removes",
        )),
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Owner::new(name)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> String {
        owner.0
    }
}

impl TryFrom<String> for Owner {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Owner::new(name)
    }
}

/// What [`Hierarchy::gc`] has found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Collected {
    /// Whose it was.
    pub owner: Owner,
    /// The name in the file system.
    pub name: OsString,
    /// Whether it is gone now.
    pub result: Result<()>,
}

impl Hierarchy {
    /// Like [`create`](Self::create), for an owner: the directory is called `cofferdam-OWNER+NAME`, and
    /// [`gc`](Self::gc) finds it when the owner is no more.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn create_owned(&self, owner: &Owner, name: impl AsRef<OsStr>, controllers: Controllers) -> Result<Cgroup> {
        crate::dir::check_name(name.as_ref())?;
        let tagged = owner.tagged(name.as_ref());
        crate::dir::check_name(&tagged)?;
        self.make(&tagged, controllers)
    }

    /// Opens what [`create_owned`](Self::create_owned) made.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_owned(&self, owner: &Owner, name: impl AsRef<OsStr>, controllers: Controllers) -> Result<Cgroup> {
        crate::dir::check_name(name.as_ref())?;
        self.open(owner.tagged(name.as_ref()), controllers)
    }

    /// Kills and deletes every cgroup that [`create_owned`](Self::create_owned) made at this place, by whichever
    /// process, and whose owner `is_live` does not know; and no other: they are known by their names, which neither
    /// [`create`](Self::create) makes nor systemd. Blocks as long as [`Guard::TIMEOUT`] for each at most. It is asked about
    /// each owner after its cgroup was found: who starts up while this runs is safe if it makes itself known before it
    /// makes cgroups.
    ///
    /// # Errors
    /// If the place cannot be looked at. What becomes of each cgroup is in its [`Collected`].
    pub fn gc(&self, mut is_live: impl FnMut(&Owner) -> bool) -> Result<Vec<Collected>> {
        let mut left: Vec<Left<'_>> = Vec::new();
        for tree in self.trees() {
            for place in self.places(tree) {
                for name in tree.root.dir(&place)?.children()? {
                    let Some(owner) = Owner::of(&name) else { continue };
                    let found = (tree, place.join(&name));
                    match left.iter_mut().find(|(_, known, _)| *known == name) {
                        Some((.., parts)) => parts.push(found),
                        None => left.push((owner, name, vec![found])),
                    }
                }
            }
        }
        left.retain(|(owner, ..)| !is_live(owner));
        let end = |(owner, name, parts): (_, _, Vec<_>)| Collected { owner, name, result: end(parts) };
        Ok(left.into_iter().map(end).collect())
    }
}

/// A cgroup that has an owner: its name, and where it is.
type Left<'a> = (Owner, OsString, Vec<(&'a Arc<Tree>, PathBuf)>);

/// In all of the trees together: on v1 who is frozen in one of them does not die in another.
fn end(parts: Vec<(&Arc<Tree>, PathBuf)>) -> Result<()> {
    let mut members = Vec::with_capacity(parts.len());
    for (tree, relative) in parts {
        match Member::open(tree, relative, tree.subsystems & Subsystems::FREEZER) {
            Err(error) if error.is_gone() => {}
            member => members.push(member?),
        }
    }
    // The unified one is the last in every cgroup.
    members.sort_by_key(|member| member.version() == Version::V2);
    let cgroup = Cgroup::found(members);
    let killed = cgroup.kill(Guard::TIMEOUT);
    cgroup.delete().map_err(|error| killed.err().unwrap_or(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn owners() {
        for bad in ["", "a.b", "a/b", "..", "a b", "é", &"x".repeat(65)] {
            assert!(Owner::new(bad).is_err(), "{bad:?}");
        }
        for foreign in [
            "job",
            "cofferdam-",
            "cofferdam-x",
            "cofferdam-+x",
            "cofferdam-a b+x",
            "cofferdam-a.b+x",
            "cofferdam-test-1-2",
            "x+cofferdam-a+b",
            "cofferdam-exporter.service",
            "cofferdam-a.scope",
            "cofferdam-a@b.service",
            "cofferdam-a\\x2bb:c_d.slice",
        ] {
            assert_eq!(Owner::of(OsStr::new(foreign)), None, "{foreign:?}");
            assert!(check_untagged(OsStr::new(foreign)).is_ok(), "{foreign:?}");
        }
    }

    #[test]
    fn a_name_of_an_owner_is_kept_for_them() {
        for tagged in ["cofferdam-a+b", "cofferdam-a+", "cofferdam-a+b+c.service"] {
            assert_eq!(Owner::of(OsStr::new(tagged)), Some(Owner::new("a").unwrap()));
            let error = check_untagged(OsStr::new(tagged)).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{error}");
        }
    }

    proptest! {
        #[test]
        fn an_owner_comes_back(name in "[a-zA-Z0-9_-]{1,64}", job in "[^/\n]{1,80}") {
            let owner = Owner::new(name).unwrap();
            prop_assert_eq!(Owner::of(&owner.tagged(OsStr::new(&job))), Some(owner));
        }

        /// Whatever systemd may call a unit (`systemd.unit(5)`).
        #[test]
        fn a_unit_is_nobodys(unit in "cofferdam-[a-zA-Z0-9:_.@\\\\-]{0,80}") {
            prop_assert_eq!(Owner::of(OsStr::new(&unit)), None);
        }

        #[test]
        fn never_panics(name: Vec<u8>) {
            let _ = Owner::of(OsStr::from_bytes(&name));
        }
    }
}
