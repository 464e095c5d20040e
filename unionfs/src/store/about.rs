//! The two small files of a store: what is known of it, and of each layer. Pure: text to value and back.
//!
//! The first line has the version; then a line for each fact, `KEY VALUE`. A key that is not known is what a later version has added.

use super::LayerId;
use crate::limit::{Bounds, By};
use crate::{Backend, Fallbacks, Form};

const STORE: &str = "cofferdam store 1";
const LAYER: &str = "cofferdam layer 1";
const CONTAINER: &str = "cofferdam container 1";

/// What is known of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AboutStore {
    pub(super) form: Form,
}

/// What is known of a layer since it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AboutLayer {
    pub(super) parent: Option<LayerId>,
    /// Its root hides all that is below: the kernel ignores it there, a mount need not ask the disk.
    pub(super) opaque_root: bool,
}

/// What is known of a container since it was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AboutContainer {
    pub(super) parent: Option<LayerId>,
    pub(super) backend: Backend,
    pub(super) fallbacks: Fallbacks,
    pub(super) limit: Option<Bounds>,
}

/// Why a file cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Of another version.
    Version,
    Damaged,
}

impl AboutStore {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        match value(facts(text, STORE)?, "form") {
            Some("trusted") => Ok(AboutStore { form: Form::Trusted }),
            Some("user") => Ok(AboutStore { form: Form::User }),
            _ => Err(Unreadable::Damaged),
        }
    }

    pub(super) fn to_text(self) -> String {
        let form = match self.form {
            Form::Trusted => "trusted",
            Form::User => "user",
        };
        format!("{STORE}\nform {form}\n")
    }
}

impl AboutContainer {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let facts = facts(text, CONTAINER)?;
        let backend = value(facts, "backend").ok_or(Unreadable::Damaged)?;
        let backend = backend.parse().map_err(|_| Unreadable::Damaged)?;
        let parent = value(facts, "parent").map(LayerId::new).transpose().map_err(|_| Unreadable::Damaged)?;
        // One that only a later version knows is none.
        let fallbacks = value(facts, "fallbacks").unwrap_or_default().split(' ').filter_map(Fallbacks::from_name);
        let limit = value(facts, "limit").map(bounds).transpose()?;
        Ok(AboutContainer { parent, backend, fallbacks: fallbacks.collect(), limit })
    }

    /// The back-end comes last: a file that ends before is damaged, and cannot pass for one without a parent.
    pub(super) fn to_text(&self) -> String {
        let parent = self.parent.as_ref().map(|id| format!("parent {id}\n")).unwrap_or_default();
        let fallbacks: Vec<&str> = self.fallbacks.iter_names().map(|(name, _)| name).collect();
        let fallbacks =
            if fallbacks.is_empty() { String::new() } else { format!("fallbacks {}\n", fallbacks.join(" ")) };
        let limit = self.limit.map(|limit| format!("limit {}\n", bounds_text(limit))).unwrap_or_default();
        format!("{CONTAINER}\n{parent}{fallbacks}{limit}backend {}\n", self.backend)
    }
}

/// Bytes, inodes, method, and the number of a project; `-` is no limit.
fn bounds_text(Bounds { bytes, inodes, by }: Bounds) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let by = match by {
        By::Project(id) => format!("project {id}"),
        By::Image => "image".to_owned(),
        By::Tmpfs => "tmpfs".to_owned(),
    };
    format!("{} {} {by}", number(bytes), number(inodes))
}

fn bounds(text: &str) -> Result<Bounds, Unreadable> {
    let number = |word: &str| match word {
        "-" => Ok(None),
        number => number.parse().map(Some).map_err(|_| Unreadable::Damaged),
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [bytes, inodes, method, rest @ ..] = words.as_slice() else { return Err(Unreadable::Damaged) };
    let by = match (*method, rest) {
        ("project", [id]) => By::Project(id.parse().map_err(|_| Unreadable::Damaged)?),
        ("image", []) => By::Image,
        ("tmpfs", []) => By::Tmpfs,
        // What is limited otherwise is not where we would look for it.
        _ => return Err(Unreadable::Version),
    };
    Ok(Bounds { bytes: number(bytes)?, inodes: number(inodes)?, by })
}

impl AboutLayer {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let facts = facts(text, LAYER)?;
        let opaque_root = match value(facts, "root") {
            Some("opaque") => true,
            Some("plain") => false,
            _ => return Err(Unreadable::Damaged),
        };
        let parent = value(facts, "parent").map(LayerId::new).transpose().map_err(|_| Unreadable::Damaged)?;
        Ok(AboutLayer { parent, opaque_root })
    }

    pub(super) fn to_text(&self) -> String {
        let parent = self.parent.as_ref().map(|id| format!("parent {id}\n")).unwrap_or_default();
        let root = if self.opaque_root { "opaque" } else { "plain" };
        // The line that has to be there comes last: a text that is cut off is not taken for a whole one.
        format!("{LAYER}\n{parent}root {root}\n")
    }
}

/// The lines after the version.
fn facts<'a>(text: &'a [u8], version: &str) -> Result<&'a str, Unreadable> {
    let text = std::str::from_utf8(text).map_err(|_| Unreadable::Damaged)?;
    let text = text.strip_suffix('\n').ok_or(Unreadable::Damaged)?;
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let kind = version.trim_end_matches(|c: char| c.is_ascii_digit());
    match first {
        first if first == version => Ok(rest),
        first if first.starts_with(kind) => Err(Unreadable::Version),
        _ => Err(Unreadable::Damaged),
    }
}

fn value<'a>(facts: &'a str, key: &str) -> Option<&'a str> {
    facts.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_no_part_of_it_is() {
        let id = |name| Some(LayerId::new(name).unwrap());
        for (about, text) in [
            (AboutLayer { parent: None, opaque_root: false }, "cofferdam layer 1\nroot plain\n"),
            (AboutLayer { parent: id("a:b"), opaque_root: true }, "cofferdam layer 1\nparent a:b\nroot opaque\n"),
        ] {
            assert_eq!(about.to_text(), text);
            assert_eq!(AboutLayer::parse(text.as_bytes()), Ok(about));
            for end in 0..text.len() {
                assert!(AboutLayer::parse(text.get(..end).unwrap().as_bytes()).is_err(), "{end} bytes of {text:?}");
            }
        }
        for (about, text) in [
            (
                AboutContainer { parent: None, backend: Backend::Copy, fallbacks: Fallbacks::empty(), limit: None },
                "cofferdam container 1\nbackend copy\n",
            ),
            (
                AboutContainer {
                    parent: id("a:b"),
                    backend: Backend::Overlay,
                    fallbacks: Fallbacks::MOUNT,
                    limit: Some(Bounds { bytes: Some(4096), inodes: None, by: By::Project(1 << 30) }),
                },
                "cofferdam container 1\nparent a:b\nfallbacks MOUNT\nlimit 4096 - project 1073741824\nbackend overlay\n",
            ),
        ] {
            assert_eq!(about.to_text(), text);
            assert_eq!(AboutContainer::parse(text.as_bytes()), Ok(about));
            for end in 0..text.len() {
                assert!(AboutContainer::parse(text.get(..end).unwrap().as_bytes()).is_err(), "{end} bytes of {text:?}");
            }
        }
        for form in [Form::Trusted, Form::User] {
            let text = AboutStore { form }.to_text();
            assert_eq!(AboutStore::parse(text.as_bytes()), Ok(AboutStore { form }));
            for end in 0..text.len() {
                assert!(AboutStore::parse(text.get(..end).unwrap().as_bytes()).is_err());
            }
        }
    }

    #[test]
    fn other_versions_and_nonsense() {
        for (text, expected) in [
            (&b"cofferdam layer 2\nroot plain\n"[..], Err(Unreadable::Version)),
            (b"cofferdam layer 1\nroot plain\nlater fact\n", Ok(AboutLayer { parent: None, opaque_root: false })),
            (b"cofferdam layer 1\nroot plainer\n", Err(Unreadable::Damaged)),
            (b"cofferdam layer 1\nparent ../x\nroot plain\n", Err(Unreadable::Damaged)),
            (b"cofferdam store 1\nroot plain\n", Err(Unreadable::Damaged)),
            (b"\xff\xff\n\n", Err(Unreadable::Damaged)),
            (b"\0\0\0\0\0\0\0\0\0", Err(Unreadable::Damaged)),
            (b"", Err(Unreadable::Damaged)),
        ] {
            assert_eq!(AboutLayer::parse(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }
}
