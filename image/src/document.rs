//! The JSON documents of an image as others write them: unknown fields are tolerated, and kept, because the documents
//! themselves are.

use crate::{Digest, Error, ErrorKind, Operation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The annotation that carries the name of an image in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `oci-layout`.
#[derive(Debug, Deserialize)]
pub(crate) struct LayoutFile {
    #[serde(rename = "imageLayoutVersion")]
    pub(crate) image_layout_version: String,
}

/// What a descriptor points to, as far as its media type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Index,
    Manifest,
    Config,
    Layer,
    Other,
}

impl Media {
    pub(crate) fn of(media_type: &str) -> Self {
        match media_type {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Media::Index
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Media::Manifest
            }
            "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json" => {
                Media::Config
            }
            // How it is compressed is sniffed, so the suffix matters only in that it must be one of these.
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Media::Layer,
            _ => Media::Other,
        }
    }
}

/// Names a blob: what it is, how long, and its digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Its digest, which is checked here.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        self.digest.parse()
    }

    pub(crate) fn reference(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }

    pub(crate) fn media(&self) -> Media {
        Media::of(&self.media_type)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) layers: Vec<Descriptor>,
}

/// What every index and manifest says of itself. A document that could be read as both is one that two readers see differently (CVE-2021-41190).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelfDescription {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Index {
    /// `said` is the media type of the descriptor; the outer index of a layout has none.
    pub(crate) fn parse(bytes: &[u8], said: Option<&str>) -> Result<Self, Error> {
        let operation = Operation::ReadIndex;
        let it = SelfDescription::read(bytes, operation)?;
        it.check(Media::Index, said, operation)?;
        if it.config.is_some() || it.layers.is_some() {
            return Err(Error::new(ErrorKind::MediaType, operation, "has the fields of a manifest"));
        }
        parse(bytes, operation)
    }
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8], said: &str) -> Result<Self, Error> {
        let operation = Operation::ReadManifest;
        let it = SelfDescription::read(bytes, operation)?;
        it.check(Media::Manifest, Some(said), operation)?;
        if it.manifests.is_some() {
            return Err(Error::new(ErrorKind::MediaType, operation, "has the fields of an index"));
        }
        let manifest: Manifest = parse(bytes, operation)?;
        let wrong = |descriptor: &Descriptor, words| {
            Err(Error::new(ErrorKind::MediaType, operation, words).about(descriptor.media_type.clone()))
        };
        if manifest.config.media() != Media::Config {
            return wrong(&manifest.config, "is not the media type of an image's config");
        }
        match manifest.layers.iter().enumerate().find(|(_, layer)| layer.media() != Media::Layer) {
            Some((number, layer)) => {
                wrong(layer, "is not the media type of a layer").map_err(|e: Error| e.in_layer(number))
            }
            None => Ok(manifest),
        }
    }
}

impl SelfDescription {
    fn read(bytes: &[u8], operation: Operation) -> Result<Self, Error> {
        let it: SelfDescription = parse(bytes, operation)?;
        #[cfg(feature = "test-hooks")]
        if crate::test_hooks::is_off(crate::test_hooks::Defence::MediaTypes) {
            let SelfDescription { schema_version, .. } = it;
            return Ok(SelfDescription {
                schema_version,
                media_type: None,
                manifests: None,
                config: None,
                layers: None,
            });
        }
        Ok(it)
    }

    fn check(&self, expected: Media, said: Option<&str>, operation: Operation) -> Result<(), Error> {
        if self.schema_version != 2 {
            return Err(Error::new(ErrorKind::Unsupported, operation, "is not of schema version 2"));
        }
        match (self.media_type.as_deref(), said) {
            (Some(own), Some(said)) if own != said => {
                let mut error = Error::differs(operation, &said, &own);
                error.set_kind(ErrorKind::MediaType);
                Err(error)
            }
            (Some(own), None) if Media::of(own) != expected => {
                Err(Error::new(ErrorKind::MediaType, operation, "is another sort of document").about(own))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], operation: Operation) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::message(ErrorKind::Malformed, operation, e.to_string()))
}

/// Go writes an empty list as `null`.
pub(crate) fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":2,"x":[1]}}"#, Digest::of(b"{}"))
    }

    fn manifest(media_type: &str, config: &str, layer: &str) -> String {
        let (config, layer) = (descriptor(config), descriptor(layer));
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{layer}],"annotations":{{}},"new":1}}"#
        )
    }

    #[test]
    fn a_document_is_read_only_as_what_it_is() {
        let config = "application/vnd.oci.image.config.v1+json";
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let good = manifest(MANIFEST, config, layer);
        assert_eq!(Manifest::parse(good.as_bytes(), MANIFEST).unwrap().layers.len(), 1);
        let both = good.replace("\"new\":1", "\"manifests\":[]");
        let as_index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(MANIFEST));
        for (document, said, index, kind) in [
            (good.as_str(), INDEX, false, ErrorKind::MediaType),
            (&both, MANIFEST, false, ErrorKind::MediaType),
            (&both.replace(MANIFEST, INDEX), INDEX, true, ErrorKind::MediaType),
            (&good.replace(MANIFEST, INDEX), INDEX, true, ErrorKind::MediaType),
            (&as_index, MANIFEST, false, ErrorKind::MediaType),
            (&manifest(MANIFEST, layer, layer), MANIFEST, false, ErrorKind::MediaType),
            (&manifest(MANIFEST, config, config), MANIFEST, false, ErrorKind::MediaType),
            (&good.replace("\"schemaVersion\":2", "\"schemaVersion\":1"), MANIFEST, false, ErrorKind::Unsupported),
            ("{}", MANIFEST, false, ErrorKind::Malformed),
            ("[]", INDEX, true, ErrorKind::Malformed),
            ("", INDEX, true, ErrorKind::Malformed),
        ] {
            let error = if index {
                Index::parse(document.as_bytes(), Some(said)).map(drop).unwrap_err()
            } else {
                Manifest::parse(document.as_bytes(), said).map(drop).unwrap_err()
            };
            assert_eq!(error.kind(), kind, "{document}: {error}");
        }
        assert_eq!(Index::parse(as_index.as_bytes(), None).unwrap().manifests.len(), 1);
        assert!(Index::parse(good.as_bytes(), None).is_err(), "a manifest as the outer index");
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let deep = ["[".repeat(1 << 20), "]".repeat(1 << 20)].concat();
        let unknown = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{deep}}}"#);
        assert!(Index::parse(unknown.as_bytes(), None).is_ok());
        let known = format!(r#"{{"schemaVersion":2,"manifests":{deep}}}"#);
        assert_eq!(Index::parse(known.as_bytes(), None).unwrap_err().kind(), ErrorKind::Malformed);
    }

    proptest! {
        #[test]
        fn any_text(text in ".{0,200}|\\{\"schemaVersion\":2,\"(manifests|config|layers)\":.{0,80}\\}") {
            let _ = Index::parse(text.as_bytes(), None);
            let _ = Manifest::parse(text.as_bytes(), MANIFEST);
        }
    }
}
