//! The init layer: what a container needs to find and must not be part of what is made of it. Pure.

use crate::{Error, Operation};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// A layer between image and container for files that the program writes (`/etc/hosts`) and places to mount at (`/dev`, `/proc`).
///
/// It hides what the image has there, whatever that is: a link `/dev` that leads elsewhere becomes a directory, a `/dev` that is full becomes empty. What a container
/// changes about its entries, and all that it has below them, is no part of a [commit](crate::Container::commit).
///
/// ```
/// use cofferdam_unionfs::InitLayer;
///
/// let init = InitLayer::usual().file("/etc/hosts", "127.0.0.1 localhost\n");
/// # let _ = init;
/// ```
///
/// Directories that only lead to an entry look as the image has them, and show what it has in them: with `/etc/hosts` alone, `/etc` is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[must_use]
pub struct InitLayer {
    entries: BTreeMap<PathBuf, InitEntry>,
}

/// What is at a place of the init layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum InitEntry {
    File(Vec<u8>),
    Directory,
    Link(PathBuf),
}

impl InitLayer {
    /// No entries yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What programs expect: the directories `/dev`, `/dev/pts`, `/dev/shm`, `/proc` and `/sys` to mount at, empty files `/etc/hosts`, `/etc/hostname` and
    /// `/etc/resolv.conf`, and the link `/etc/mtab` to `/proc/mounts`.
    pub fn usual() -> Self {
        let directories = ["dev", "dev/pts", "dev/shm", "proc", "sys"];
        let files = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
        let layer = directories.iter().fold(Self::new(), InitLayer::directory);
        files.iter().fold(layer, |layer, path| layer.file(path, "")).symlink("etc/mtab", "/proc/mounts")
    }

    /// A file of mode 0644, or another content for it.
    pub fn file(self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Self {
        self.entry(path.as_ref(), InitEntry::File(content.into()))
    }

    /// A directory of mode 0755, with nothing in it but entries of this layer.
    pub fn directory(self, path: impl AsRef<Path>) -> Self {
        self.entry(path.as_ref(), InitEntry::Directory)
    }

    /// A symbolic link.
    pub fn symlink(self, path: impl AsRef<Path>, target: impl Into<PathBuf>) -> Self {
        self.entry(path.as_ref(), InitEntry::Link(target.into()))
    }

    fn entry(mut self, path: &Path, entry: InitEntry) -> Self {
        let path = path.strip_prefix("/").unwrap_or(path);
        self.entries.insert(path.to_owned(), entry);
        self
    }

    /// Its entries, each directory before what is in it. What is above an entry must be a directory.
    pub(crate) fn checked(&self) -> Result<&BTreeMap<PathBuf, InitEntry>, Error> {
        let refuse = |path: &Path, words| Err(Error::invalid(Operation::PrepareContainer, path, words));
        for path in self.entries.keys() {
            let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
            if !plain || path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) {
                return refuse(path, "is no place in an init layer");
            }
            for above in path.ancestors().skip(1) {
                if self.entries.get(above).is_some_and(|entry| *entry != InitEntry::Directory) {
                    return refuse(path, "lies in something of the init layer that is not a directory");
                }
            }
        }
        Ok(&self.entries)
    }

    pub(crate) fn places(&self) -> InitPlaces {
        InitPlaces(self.entries.keys().cloned().collect())
    }
}

/// Where the entries of an init layer are, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct InitPlaces(Vec<PathBuf>);

impl InitPlaces {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path is an entry or lies in one.
    pub(crate) fn cover(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.0.iter().any(|place| place == above))
    }

    /// Whether a path leads to an entry and is none itself.
    pub(crate) fn lead_through(&self, path: &Path) -> bool {
        !self.cover(path) && self.0.iter().any(|place| place.starts_with(path))
    }

    /// One line for each, and one at the end; bytes that are not plain are written as `%` and two digits.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for place in &self.0 {
            for byte in place.as_os_str().as_bytes() {
                match byte {
                    b'/' | b'.' | b'-' | b'_' => text.push(char::from(*byte)),
                    byte if byte.is_ascii_alphanumeric() => text.push(char::from(*byte)),
                    byte => _ = write!(text, "%{byte:02x}"),
                }
            }
            text.push('\n');
        }
        text + END
    }

    /// Reads what [`to_text`](Self::to_text) has written; `None` for anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        // What was cut off must not pass for fewer places: they would be committed.
        let text = std::str::from_utf8(text).ok()?.strip_suffix(END)?;
        if !text.is_empty() && !text.ends_with('\n') {
            return None;
        }
        text.lines().map(place).collect::<Option<Vec<_>>>().map(InitPlaces)
    }
}

/// The last line, which is no place.
const END: &str = "%end\n";

fn place(line: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut parts = line.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    (!bytes.is_empty()).then(|| OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    #[test]
    fn what_is_an_entry_and_what_leads_to_one() {
        let places = InitLayer::usual().places();
        for (path, covered, leads) in [
            ("etc/hosts", true, false),
            ("etc/hosts/x", true, false),
            ("etc/hosts2", false, false),
            ("etc", false, true),
            ("dev", true, false),
            ("dev/pts", true, false),
            ("dev/null", true, false),
            ("devices", false, false),
            ("", false, true),
            ("usr", false, false),
        ] {
            let path = Path::new(path);
            assert_eq!((places.cover(path), places.lead_through(path)), (covered, leads), "{path:?}");
        }
        assert!(!InitPlaces::default().lead_through(Path::new("")));
    }

    #[test]
    fn places_that_are_none() {
        let usual = InitLayer::usual;
        assert!(usual().checked().is_ok());
        for bad in [
            usual().file("", ""),
            usual().file("/", ""),
            usual().directory("../etc"),
            usual().directory("a/./../b"),
            usual().symlink("a\0b", "x"),
            usual().file("etc/hosts/x", ""),
            usual().directory("etc/mtab/x/y"),
        ] {
            assert_eq!(bad.checked().unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(paths in proptest::collection::vec(proptest::collection::vec(1..=255_u8, 1..20), 0..4)) {
            let places = InitPlaces(paths.into_iter().map(|path| OsString::from_vec(path).into()).collect());
            let text = places.to_text();
            prop_assert_eq!(InitPlaces::parse(text.as_bytes()), Some(places));
            for end in 0..text.len() {
                prop_assert_eq!(InitPlaces::parse(text.get(..end).unwrap().as_bytes()), None);
            }
            prop_assert_eq!(InitPlaces::parse(text.repeat(2).as_bytes()), None);
        }
    }
}
