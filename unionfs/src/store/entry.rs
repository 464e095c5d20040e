//! What a name in the folder `layers` says: which layer it is, and whether its content is on the disk. Pure.

use super::LayerId;
use std::ffi::{OsStr, OsString};

/// Not allowed in a [`LayerId`].
const MARK: char = '~';
const LONGEST_BOOT: usize = 64;

/// Which run of the machine it is: what had not reached the disk by its end may be lost. As the kernel spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootId(String);

/// The name of a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryName {
    pub(super) id: LayerId,
    /// The run of the machine in which it was published, unless its content is known to be on the disk.
    pub(super) unsynced: Option<BootId>,
}

impl BootId {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim_end();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let good = (1..=LONGEST_BOOT).contains(&text.len()) && text.bytes().all(fine);
        good.then(|| BootId(text.to_owned()))
    }
}

impl EntryName {
    /// `None`: no layer has this name.
    pub(super) fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        let (id, boot) = match name.split_once(MARK) {
            Some((id, boot)) => (id, Some(BootId::parse(boot.as_bytes())?)),
            None => (name, None),
        };
        Some(EntryName { id: LayerId::new(id).ok()?, unsynced: boot })
    }

    pub(super) fn to_os_string(&self) -> OsString {
        match &self.unsynced {
            Some(BootId(boot)) => format!("{}{MARK}{boot}", self.id).into(),
            None => self.id.as_str().into(),
        }
    }

    /// Whether the machine went down between this layer's publishing and its content's way to the disk.
    pub(super) fn is_doubtful(&self, now: &BootId) -> bool {
        self.unsynced.as_ref().is_some_and(|boot| boot != now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_sort_of_name() {
        let boot = BootId::parse(b"6f5ea4b0-3d69-4d3c-a6ac-08f5c5f2b9c1\n").unwrap();
        let id = || LayerId::new("sha256:00").unwrap();
        for (name, expected) in [
            ("sha256:00", Some(EntryName { id: id(), unsynced: None })),
            (
                "sha256:00~6f5ea4b0-3d69-4d3c-a6ac-08f5c5f2b9c1",
                Some(EntryName { id: id(), unsynced: Some(boot.clone()) }),
            ),
            ("sha256:00~", None),
            ("~x", None),
            ("a~b~c", None),
            ("a~b/c", None),
            ("lost+found", Some(EntryName { id: LayerId::new("lost+found").unwrap(), unsynced: None })),
            (".x", None),
        ] {
            assert_eq!(EntryName::parse(OsStr::new(name)), expected, "{name}");
        }
        let doubtful = EntryName { id: id(), unsynced: BootId::parse(b"another") };
        assert!(doubtful.is_doubtful(&boot));
        assert!(!EntryName { unsynced: Some(boot.clone()), ..doubtful.clone() }.is_doubtful(&boot));
        assert!(!EntryName { unsynced: None, ..doubtful }.is_doubtful(&boot));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_back(name in "[a-z~.:-]{0,12}") {
            if let Some(parsed) = EntryName::parse(OsStr::new(&name)) {
                prop_assert_eq!(parsed.to_os_string(), OsString::from(name));
            }
        }
    }
}
