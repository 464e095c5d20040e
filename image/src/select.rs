//! Which of a layout's images is wanted.

use crate::docker::Saved;
use crate::document::{Descriptor, Media, Platform};
use crate::{Error, ErrorKind, Operation};

/// Which of the images in a layout is wanted: by its name, and by the platform that it is for.
///
/// ```
/// # use cofferdam_image::Selection;
/// let for_this_machine = Selection::new().reference("latest");
/// let for_another = Selection::new().reference("latest").platform("linux", "riscv64");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    reference: Option<String>,
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Selection {
    /// The only image of the layout, for Linux and the architecture that this program was compiled for.
    #[must_use]
    pub fn new() -> Self {
        // As Go calls them.
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "loongarch64" => "loong64",
            other => other,
        };
        Selection { reference: None, os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// The image that the layout gives this name, the annotation `org.opencontainers.image.ref.name`: often a tag alone.
    #[must_use]
    #[doc(alias = "tag")]
    pub fn reference(mut self, name: impl Into<String>) -> Self {
        self.reference = Some(name.into());
        self
    }

    /// An image for another platform, in Go's words: `linux`, `arm64`.
    #[must_use]
    pub fn platform(mut self, os: impl Into<String>, architecture: impl Into<String>) -> Self {
        self.os = os.into();
        self.architecture = architecture.into();
        self
    }

    /// The variant of the architecture, like `v7` of `arm`. By default any.
    #[must_use]
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Chooses from an index; `by_name` for the outer one, which carries the names.
    pub(crate) fn choose<'a>(&self, from: &'a [Descriptor], by_name: bool) -> Result<&'a Descriptor, Error> {
        let fail = |kind, words| Err(Error::new(kind, Operation::ReadIndex, words));
        let mut fitting: Vec<&Descriptor> = from
            .iter()
            .filter(|d| matches!(d.media(), Media::Index | Media::Manifest))
            .filter(|d| !by_name || self.reference.is_none() || d.reference() == self.reference.as_deref())
            .collect();
        if fitting.is_empty() {
            let error = fail(ErrorKind::NotFound, "has no image of that name");
            return error.map_err(|e| match &self.reference {
                Some(name) => e.about(name),
                None => e,
            });
        }
        fitting.retain(|d| d.platform.as_ref().is_none_or(|p| self.fits(p)));
        // One that says its platform goes before those that do not.
        if fitting.iter().any(|d| d.platform.is_some()) {
            fitting.retain(|d| d.platform.is_some());
        }
        let Some((first, others)) = fitting.split_first() else {
            let wanted = format!("{}/{}", self.os, self.architecture);
            return fail(ErrorKind::NotFound, "has no image for that platform").map_err(|e| e.about(wanted));
        };
        // Variants of one platform are listed best first; under several names, the same image is still one.
        let same = |d: &Descriptor| d.digest == first.digest;
        let variants =
            |d: &Descriptor| first.platform.is_some() && d.platform.is_some() && d.reference() == first.reference();
        if others.iter().all(|d| same(d) || variants(d)) {
            Ok(first)
        } else {
            fail(ErrorKind::Ambiguous, "has several images: name one of them")
        }
    }

    /// Chooses from a `docker save` archive.
    pub(crate) fn choose_saved<'a>(&self, from: &'a [Saved]) -> Result<&'a Saved, Error> {
        let named = |saved: &&Saved| self.reference.as_ref().is_none_or(|name| saved.repo_tags.contains(name));
        let fail = |kind, words| Err(Error::new(kind, Operation::ReadManifest, words));
        let mut fitting = from.iter().filter(named);
        match (fitting.next(), fitting.next()) {
            (Some(saved), None) => Ok(saved),
            (Some(_), Some(_)) => fail(ErrorKind::Ambiguous, "has several images: name one of them"),
            (None, _) => fail(ErrorKind::NotFound, "has no image of that name"),
        }
    }

    fn fits(&self, platform: &Platform) -> bool {
        platform.os == self.os
            && platform.architecture == self.architecture
            && (self.variant.is_none() || platform.variant == self.variant)
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name platform digit`, `-` for none.
    fn descriptors(list: &[&str]) -> Vec<Descriptor> {
        let one = |text: &&str| {
            let mut words = text.split(' ');
            let (name, platform, digit) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let annotations = match name {
                "-" => String::new(),
                name => format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#),
            };
            let platform = match platform.split_once('/') {
                None => String::new(),
                Some((os, rest)) => {
                    let (architecture, variant) = rest.split_once('/').unwrap_or((rest, ""));
                    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#)
                }
            };
            let json = format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"sha256:{}"{annotations}{platform}}}"#,
                digit.repeat(64)
            );
            serde_json::from_str(&json).unwrap()
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn one_is_chosen() {
        let any = || Selection::new().platform("linux", "amd64");
        for (list, selection, expected) in [
            (&["- - 1"][..], any(), Ok('1')),
            (&["a - 1"], any(), Ok('1')),
            (&["a - 1", "b - 2"], any(), Err(ErrorKind::Ambiguous)),
            (&["a - 1", "b - 1"], any(), Ok('1')),
            (&["a - 1", "b - 2"], any().reference("b"), Ok('2')),
            (&["a - 1", "b - 2"], any().reference("c"), Err(ErrorKind::NotFound)),
            (&[], any(), Err(ErrorKind::NotFound)),
            (&["a linux/arm64 1", "a linux/amd64 2", "a unknown/unknown 3"], any(), Ok('2')),
            (&["a linux/arm64 1"], any(), Err(ErrorKind::NotFound)),
            (&["a windows/amd64 1"], any(), Err(ErrorKind::NotFound)),
            (&["a - 1", "a linux/amd64 2"], any(), Ok('2')),
            (&["a linux/amd64 1", "b linux/amd64 2"], any(), Err(ErrorKind::Ambiguous)),
            (&["a linux/arm/v7 1", "a linux/arm/v6 2"], any().platform("linux", "arm"), Ok('1')),
            (&["a linux/arm/v7 1", "a linux/arm/v6 2"], any().platform("linux", "arm").variant("v6"), Ok('2')),
        ] {
            let list = descriptors(list);
            let chosen = selection.choose(&list, true).map(|d| d.digest().unwrap().hex().chars().next().unwrap());
            assert_eq!(chosen.map_err(|e| e.kind()), expected, "{list:?} {selection:?}");
        }
    }
}
