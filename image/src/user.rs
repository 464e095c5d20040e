//! Who a process of the image runs as: names become numbers by the image's own files.

use crate::{Config, Error, ErrorKind, Operation};
use cofferdam_unionfs::RootDir;
use std::os::fd::AsFd;

/// No real file of users is longer.
const FILE_BYTES: usize = 4 << 20;

/// A user of an image, with all groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The id of the first group.
    pub gid: u32,
    /// Ids of further groups, ascending: those of `/etc/group` that have the user among their members. None if the image names a group itself.
    pub groups: Vec<u32>,
    /// The home directory, if the image knows the user.
    pub home: Option<String>,
}

impl Config {
    /// Resolves the [`user`](Self::user) that the image asks for (root, if none) by `/etc/passwd` and `/etc/group` below `root`, which is the image's root
    /// directory, mounted or flattened: a descriptor. Symbolic links of these files lead at most to that root.
    ///
    /// A number needs no entry; its groups and its first group are then those of that entry, or 0, as other engines have it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a name that the files do not have; [`Malformed`](ErrorKind::Malformed) for one that is none;
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) for files of more than 4 MiB; what opening them says.
    #[doc(alias("getpwnam", "passwd"))]
    pub fn resolve_user(&self, root: impl AsFd) -> Result<User, Error> {
        let root = root.as_fd().try_clone_to_owned().map_err(|e| Error::from_io(Operation::ReadConfig, e))?;
        let root = RootDir::new(root);
        let read = |path: &str| match read_in(&root, path) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Err(e) if e.kind() == cofferdam_unionfs::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::from_store(&e).during(Operation::ReadConfig).about(path)),
        };
        resolve(self.user().unwrap_or("0"), &read("etc/passwd")?, &read("etc/group")?)
    }
}

/// Reads a file of the image, whose links lead at most to its root (CVE-2024-9676).
fn read_in(root: &RootDir, path: &str) -> Result<Vec<u8>, cofferdam_unionfs::Error> {
    #[cfg(feature = "test-hooks")]
    if crate::test_hooks::is_off(crate::test_hooks::Defence::InRoot) {
        let path = format!("/proc/self/fd/{}/{path}", std::os::fd::AsRawFd::as_raw_fd(&root.as_fd()));
        return Ok(std::fs::read(path).unwrap_or_default());
    }
    root.read(path, FILE_BYTES)
}

/// `user[:group]`, each a name or a number.
fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, Error> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let number = id(name);
    let known = lines(passwd).find(|fields| match number {
        // A name of digits counts as a number.
        Some(uid) => fields.get(2).copied().and_then(id) == Some(uid),
        None => fields.first() == Some(&name),
    });
    let field = |index: usize| known.as_ref().and_then(|fields| fields.get(index)).copied();
    let uid = number.or_else(|| field(2).and_then(id)).ok_or_else(|| unknown(name, "is no user of the image"))?;
    let home = field(5).filter(|home| !home.is_empty()).map(str::to_owned);
    if let Some(wanted) = group_name {
        let found =
            || lines(group).find(|fields| fields.first() == Some(&wanted)).and_then(|f| f.get(2).copied().and_then(id));
        let gid = id(wanted).or_else(found).ok_or_else(|| unknown(wanted, "is no group of the image"))?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let gid = field(3).and_then(id).unwrap_or(0);
    let member = |fields: &Vec<&str>| {
        let members = fields.get(3).copied().unwrap_or_default();
        field(0).is_some_and(|user| members.split(',').any(|member| member == user))
    };
    let mut groups: Vec<u32> =
        lines(group).filter(member).filter_map(|f| f.get(2).copied().and_then(id)).filter(|g| *g != gid).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups, home })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

/// Digits only: `parse` would take a sign. The highest number means nobody at all.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id != u32::MAX)
}

fn unknown(name: &str, words: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, Operation::ReadConfig, words).about(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:7:8:App:/srv/app:/bin/sh\n# no:x:9:9::/:\nbroken\nhuge:x:4294967295:1::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\nwheel:x:10:root,app\nown:x:8:app\n";

    #[test]
    fn names_and_numbers() {
        let user = |uid, gid, groups: &[u32], home: Option<&str>| {
            Some(User { uid, gid, groups: groups.to_vec(), home: home.map(str::to_owned) })
        };
        for (wanted, expected) in [
            ("root", user(0, 0, &[10], Some("/root"))),
            ("app", user(7, 8, &[10, 50], Some("/srv/app"))),
            ("7", user(7, 8, &[10, 50], Some("/srv/app"))),
            ("app:staff", user(7, 50, &[], Some("/srv/app"))),
            ("app:99", user(7, 99, &[], Some("/srv/app"))),
            ("1234", user(1234, 0, &[], None)),
            ("1234:5", user(1234, 5, &[], None)),
            ("nobody", None),
            ("app:nobody", None),
            ("", None),
            ("app:", None),
            ("huge", None),
            ("4294967295", None),
            ("-1", None),
            ("+7", None),
            ("# no", None),
        ] {
            assert_eq!(resolve(wanted, PASSWD, GROUP).ok(), expected, "{wanted:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text(wanted in ".{0,12}", passwd in "([a-c:0-9,\n]{0,60})", group in "([a-c:0-9,\n]{0,60})") {
            if let Ok(user) = resolve(&wanted, &passwd, &group) {
                prop_assert!(user.uid != u32::MAX && !user.groups.contains(&u32::MAX));
            }
        }
    }
}
