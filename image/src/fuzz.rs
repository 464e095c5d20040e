//! Targets for fuzzers: whatever parses bytes from outside, as functions that panic if something is wrong. Compiled for tests, which feed them with
//! changed inputs of `fuzz/`, and under `--cfg fuzzing`, as cargo-fuzz and AFL set it.
#![allow(clippy::missing_panics_doc, reason = "a fuzzer wants to see a panic")]
#![cfg_attr(fuzzing, allow(missing_docs, clippy::unwrap_used, reason = "a fuzzer wants to see a panic"))]

use crate::archive::{Archive, Entry, Kind, fuzz_header_rules, pad, write_end, write_entry};
use crate::document::{Index, Manifest};
use crate::unpack::fuzz_name;
use crate::{Config, Digest, LayerReader, Limits, Selection};
use std::io::{BufReader, Read};

/// Entries that are looked at.
const ENTRIES: usize = 2000;

fn limits() -> Limits {
    Limits { bytes: 4 << 20, ..Limits::default() }
}

/// All entries with their data, as far as there is no error.
fn entries(reader: impl Read, capacity: usize) -> (Vec<(Entry, Vec<u8>)>, bool) {
    let mut archive = Archive::new(BufReader::with_capacity(capacity, reader), limits());
    let mut found = Vec::new();
    while found.len() < ENTRIES {
        let Ok(next) = archive.next() else { return (found, false) };
        let Some(entry) = next else { return (found, true) };
        let mut data = Vec::new();
        loop {
            let Ok(there) = archive.data() else { return (found, false) };
            if there.is_empty() {
                break;
            }
            data.extend_from_slice(there);
            let count = there.len();
            archive.advance(count);
        }
        found.push((entry, data));
    }
    (found, true)
}

/// A layer's blob: decompressed, read as an archive. However it is cut into pieces, the entries are the same; what is written of them is
/// read as the same again.
pub fn tar_stream(bytes: &[u8]) {
    let Ok(layer) = LayerReader::new(bytes) else { return };
    let mut archive = Vec::new();
    let whole = layer.limit(limits().bytes).read_to_end(&mut archive).is_ok();
    if whole && archive == bytes {
        assert_eq!(Digest::of(bytes), LayerReader::new(bytes).and_then(LayerReader::finish).unwrap().diff_id);
    }
    let (found, good) = entries(&archive[..], 64 << 10);
    assert_eq!(entries(&archive[..], 7), (found.clone(), good), "it depends on the pieces");
    let stored: usize = found.iter().map(|(_, data)| data.len()).sum();
    assert!(stored <= archive.len(), "data from nowhere");
    let mut again = Vec::new();
    for (entry, data) in &found {
        check(entry, data);
        if is_writable(entry) {
            write_entry(entry, &mut again).unwrap();
            again.extend_from_slice(data);
            pad(data.len() as u64, &mut again).unwrap();
        }
    }
    write_end(&mut again).unwrap();
    let (read, complete) = entries(&again[..], 64 << 10);
    assert!(complete, "we cannot read what we write");
    let written: Vec<_> = found.into_iter().filter(|(entry, _)| is_writable(entry)).map(plain).collect();
    assert_eq!(read.into_iter().map(plain).collect::<Vec<_>>(), written);
}

fn check(entry: &Entry, data: &[u8]) {
    assert!(!entry.name.contains(&0) && !entry.link.contains(&0));
    assert!(entry.name.len() <= limits().name_bytes && entry.link.len() <= limits().name_bytes);
    assert!(entry.xattrs.is_sorted() && entry.mtime.nanos < 1_000_000_000 && entry.mode <= 0o7777);
    fuzz_header_rules(entry, data.len() as u64);
    whiteout_name(&entry.name);
}

/// What the writer has a form for, without loss.
fn is_writable(entry: &Entry) -> bool {
    let kind = !matches!(entry.kind, Kind::Other(_)) && entry.sparse.is_none() && entry.unreadable.is_empty();
    let numbers = [entry.uid, entry.gid].into_iter().all(|id| u32::try_from(id).is_ok());
    let device = entry.device.0 <= 0o777_7777 && entry.device.1 <= 0o777_7777;
    let records = entry.xattrs.iter().all(|(name, _)| !name.is_empty() && !name.contains(&b'='));
    kind && numbers && device && records && !entry.name.is_empty() && entry.atime.is_none()
}

/// How old a file's mark is does not matter any more.
fn plain((entry, data): (Entry, Vec<u8>)) -> (Entry, Vec<u8>) {
    let kind = if let Kind::File { .. } = entry.kind { Kind::File { old: false } } else { entry.kind };
    (Entry { kind, ..entry }, data)
}

/// A PAX header, before an entry of one byte.
pub fn pax(bytes: &[u8]) {
    let header = Entry { name: b"x".to_vec(), size: bytes.len() as u64, ..Entry::empty(Kind::Other(b'x')) };
    let file = Entry { name: b"f".to_vec(), size: 1, ..Entry::empty(Kind::File { old: false }) };
    let mut archive = Vec::new();
    write_entry(&header, &mut archive).unwrap();
    archive.extend_from_slice(bytes);
    pad(header.size, &mut archive).unwrap();
    write_entry(&file, &mut archive).unwrap();
    archive.resize(archive.len() + 512, 1);
    write_end(&mut archive).unwrap();
    tar_stream(&archive);
}

/// A document that is taken for one sort is not taken for another.
pub fn manifest(bytes: &[u8]) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let index = Index::parse(bytes, None);
    let manifest = Manifest::parse(bytes, MANIFEST);
    assert!(index.is_err() || manifest.is_err(), "an index and a manifest at once");
    if let Ok(index) = index
        && let Ok(chosen) = Selection::new().choose(&index.manifests, true)
        && let Ok(found) = chosen.digest()
    {
        digest(found.to_string().as_bytes());
    }
    if let Ok(manifest) = manifest {
        for layer in &manifest.layers {
            let _ = layer.digest();
        }
    }
    if let Ok(config) = Config::parse(bytes.to_vec()) {
        assert_eq!(config.json(), bytes);
        assert!(config.env().count() < bytes.len());
    }
    let _ = crate::document::parse::<Vec<crate::docker::Saved>>(bytes, crate::Operation::ReadManifest);
}

/// What is a digest has one spelling, and is safe as the name of a file.
pub fn digest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        let safe = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(digest.hex().bytes().all(safe) && matches!(digest.hex().len(), 64 | 128));
    }
}

/// The path that an entry's name comes to stays inside.
pub fn whiteout_name(bytes: &[u8]) {
    if let Some(path) = fuzz_name(bytes, &limits()) {
        let mut components = path.split(|b| *b == b'/');
        let inside = |c: &[u8]| !c.is_empty() && c != b"." && c != b".." && !c.contains(&0) && c.len() <= 255;
        assert!(path.is_empty() || components.all(inside), "{path:?} of {bytes:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_testkit::Fuzz;

    fn fuzz(name: &str) -> Fuzz {
        Fuzz::new(format!("{}/fuzz/{name}", env!("CARGO_MANIFEST_DIR")))
    }

    const PAX: &[&[u8]] = &[
        b"30 path=../x\n",
        b"11 path=ab\n",
        b"12 size=1\n",
        b"size=",
        b"GNU.sparse.map=0,1",
        b"GNU.sparse.major=1",
        b"GNU.sparse.minor=0",
        b"GNU.sparse.size=",
        b"GNU.sparse.realsize=",
        b"GNU.sparse.name=",
        b"GNU.sparse.offset=",
        b"GNU.sparse.numbytes=",
        b"SCHILY.xattr.user.a=",
        b"LIBARCHIVE.xattr.",
        b"SCHILY.acl.access=",
        b"mtime=-1.5",
        b"uid=",
        b"linkpath=",
        b"=",
        b"\n",
        b"\0",
        b"18446744073709551615",
        b"-",
    ];

    /// Sets the checksums right, of what looks like a header.
    #[expect(clippy::ptr_arg, reason = "the driver's form, in which a mutation may also change the length")]
    fn checksums(bytes: &mut Vec<u8>) {
        for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }

    #[test]
    fn tar_streams() {
        let flags: Vec<Vec<u8>> = b"01234567xgLKSZV".iter().map(|flag| vec![*flag]).collect();
        let words: Vec<&[u8]> = PAX
            .iter()
            .copied()
            .chain(flags.iter().map(Vec::as_slice))
            .chain([&b"ustar  \0"[..], b"ustar\x0000"])
            .collect();
        fuzz("tar_stream").words(&words).blocks(512).mend(checksums).run(tar_stream);
    }

    #[test]
    fn pax_headers() {
        // The first number is the record's length.
        let lengths = |bytes: &mut Vec<u8>| {
            let lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').filter_map(record).collect();
            *bytes = lines.concat();
        };
        fuzz("pax").words(PAX).mend(lengths).run(pax);
    }

    fn record(line: &[u8]) -> Option<Vec<u8>> {
        let content = line.get(line.iter().position(|b| *b == b' ')?..)?;
        let mut length = content.len() + 1;
        while length != content.len() + 1 + length.to_string().len() {
            length = content.len() + 1 + length.to_string().len();
        }
        Some([length.to_string().as_bytes(), content, b"\n"].concat())
    }

    #[test]
    fn manifests() {
        let words: &[&[u8]] = &[
            b"\"schemaVersion\":2,",
            b"\"mediaType\":\"application/vnd.oci.image.index.v1+json\",",
            b"\"manifests\":[],",
            b"\"layers\":[],",
            b"\"config\":{},",
            b"null",
            b"{",
            b"}",
            b"[",
            b"]",
            b"\"",
            b",",
            b"\\u0000",
            b"1e999",
            b"-1",
            b"{\"a\":[",
        ];
        fuzz("manifest").words(words).run(manifest);
    }

    #[test]
    fn digests() {
        fuzz("digest").words(&[b"sha256:", b"sha512:", b":", b"../", b"A", b"g", b"\0"]).run(digest);
    }

    #[test]
    fn whiteout_names() {
        fuzz("whiteout_name")
            .words(&[b".wh.", b".wh..wh..opq", b".wh..wh.", b"..", b".", b"/", b"//", b"\0"])
            .run(whiteout_name);
    }
}
