//! What `docker save` writes: a tar archive of `manifest.json`, configs and layers. Blobs are read where they lie in it.

use crate::archive::{Archive, Kind};
use crate::document::parse;
use crate::layout::JSON_LIMIT;
use crate::section::Section;
use crate::{Digest, Error, ErrorKind, Limits, Operation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

const MANIFEST: &str = "manifest.json";
/// As many entries are listed: a hundred layers have four each.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of their names.
const MAX_NAMES: usize = 32 << 20;
/// Symbolic links to each other: old versions link a layer that comes twice.
const MAX_LINKS: usize = 8;

/// One image of the archive, as `manifest.json` has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Saved {
    pub(crate) config: String,
    #[serde(default, deserialize_with = "crate::document::null_is_empty")]
    pub(crate) repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "crate::document::null_is_empty")]
    pub(crate) layers: Vec<String>,
}

/// The archive, with the places of its files.
#[derive(Debug)]
pub(crate) struct DockerArchive {
    file: Arc<File>,
    entries: BTreeMap<Vec<u8>, Place>,
}

#[derive(Debug, Clone)]
enum Place {
    Data { at: u64, size: u64 },
    Link(Vec<u8>),
}

impl DockerArchive {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::from_io(Operation::OpenLayout, e).about(path))?;
        Self::of(file)
    }

    /// Reads the headers, and goes over the data by their lengths.
    pub(crate) fn of(file: File) -> Result<Self, Error> {
        let file = Arc::new(file);
        let length = file.metadata().map_err(|e| Error::from_io(Operation::OpenLayout, e))?.len();
        let (mut entries, mut at, mut names) = (BTreeMap::new(), 0, 0);
        for _ in 0..MAX_ENTRIES {
            let mut archive = Archive::new(
                BufReader::with_capacity(4096, Section::new(Arc::clone(&file), at, length.saturating_sub(at))),
                Limits::default(),
            );
            let Some(entry) = archive.next().map_err(|e| e.during(Operation::OpenLayout))? else {
                return Ok(DockerArchive { file, entries });
            };
            let reader = archive.into_inner();
            let data_at = reader.get_ref().position().saturating_sub(reader.buffer().len() as u64);
            let name = normal(b"", &entry.name);
            names += name.len() + entry.link.len();
            if names > MAX_NAMES {
                return Err(Error::limit(Operation::OpenLayout, "bytes in names", MAX_NAMES as u64));
            }
            match entry.kind {
                Kind::File { .. } => drop(entries.insert(name, Place::Data { at: data_at, size: entry.size })),
                Kind::Symlink => {
                    let folder = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash);
                    let target = normal(name.get(..folder).unwrap_or_default(), &entry.link);
                    entries.insert(name, Place::Link(target));
                }
                Kind::HardLink => drop(entries.insert(name, Place::Link(normal(b"", &entry.link)))),
                _ => {}
            }
            let blocks = entry.size.checked_next_multiple_of(512).and_then(|size| data_at.checked_add(size));
            at = blocks.filter(|end| *end <= length).ok_or_else(|| {
                Error::new(ErrorKind::Malformed, Operation::OpenLayout, "ends within the data of an entry")
            })?;
        }
        Err(Error::limit(Operation::OpenLayout, "entries", MAX_ENTRIES as u64))
    }

    pub(crate) fn manifest(&self) -> Result<(Vec<u8>, Vec<Saved>), Error> {
        let json = self.small(MANIFEST, Operation::ReadManifest)?;
        let images = parse(&json, Operation::ReadManifest)?;
        Ok((json, images))
    }

    /// The config, and its digest, which must be its name if that is one.
    pub(crate) fn config(&self, saved: &Saved) -> Result<(Vec<u8>, Digest), Error> {
        let json = self.small(&saved.config, Operation::ReadConfig)?;
        let (found, name) = (Digest::of(&json), saved.config.rsplit('/').next().unwrap_or_default());
        let named = format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name)).parse::<Digest>();
        match named {
            Ok(named) if named != found => Err(Error::differs(Operation::ReadConfig, &named, &found)),
            _ => Ok((json, found)),
        }
    }

    /// A file of the archive.
    pub(crate) fn section(&self, name: &str, operation: Operation) -> Result<Section, Error> {
        let mut path = normal(b"", name.as_bytes());
        for _ in 0..MAX_LINKS {
            match self.entries.get(&path) {
                Some(Place::Data { at, size }) => return Ok(Section::new(Arc::clone(&self.file), *at, *size)),
                Some(Place::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(Error::new(ErrorKind::NotFound, operation, "is not in the archive").about(name))
    }

    fn small(&self, name: &str, operation: Operation) -> Result<Vec<u8>, Error> {
        let section = self.section(name, operation)?;
        if section.left() > JSON_LIMIT {
            return Err(Error::limit(operation, "bytes in a JSON document", JSON_LIMIT).about(name));
        }
        let (mut section, mut json) = (section, Vec::new());
        section.read_to_end(&mut json).map_err(|e| Error::from_io(operation, e).about(name))?;
        Ok(json)
    }
}

/// A name of the archive without `.` and `..`. It is only ever compared with others.
fn normal(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path: Vec<&[u8]> = Vec::new();
    let folder = if name.starts_with(b"/") { b"" } else { folder };
    for component in folder.split(|b| *b == b'/').chain(name.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            component => path.push(component),
        }
    }
    path.join(&b'/')
}
