//! Advisories about others, each with the defence on and off. (Those about links and swapped directories are in `traps` and `hostile`.)

use crate::support::{Scratch, Tar, listing, options, sentinel, unpack, xattrs};
use cofferdam_image::test_hooks::{Defence, without};
use cofferdam_image::{Devices, Digest, Draft, Error, ErrorKind, Image, LayoutWriter, Limits, Policy, Selection};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// CVE-2025-62518 and kin: a size in a PAX header, and another one in the header after it.
pub(crate) fn sizes_that_lie() {
    // A whole archive, as the data of a file.
    let hidden = Tar::of(&["smuggled=evil"]).0;
    let size = hidden.len().to_string();
    let tar = Tar::default()
        .pax(b'x', &[("size", size.as_bytes())])
        .header(b'0', "f", "", &hidden, |h| h.set_size(0))
        .entry("after=1");
    let run = |defences: &[Defence]| {
        let scratch = Scratch::new();
        let stage = scratch.stage();
        without(defences, || unpack(&tar.clone().end(), &stage, None, options())).unwrap();
        let mut names: Vec<_> = fs::read_dir(&stage).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(run(&[]), ["after", "f"]);
    assert_eq!(run(&[Defence::Sizes]), ["after", "f", "smuggled"]);
}

/// CVE-2021-29136: the root is replaced by a symlink, which those who come after follow.
pub(crate) fn a_root_that_is_a_symlink() {
    for tar in [Tar::of(&[".->../outside", "evil=1"]), Tar::of(&["./->../outside"]), Tar::of(&["f=1", ".=>f"])] {
        let scratch = Scratch::new();
        let before = sentinel(&scratch.outside());
        let run = || unpack(&tar.clone().end(), &scratch.stage(), None, options()).map(drop).map_err(|e| e.kind());
        assert_eq!(run(), Err(ErrorKind::Refused));
        assert_ne!(without(&[Defence::Root], run), Err(ErrorKind::Refused), "nobody has looked at the name");
        assert_eq!(sentinel(&scratch.outside()), before);
    }
}

fn layout_of(scratch: &Scratch, index: &str) -> PathBuf {
    let dir = scratch.stage();
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(dir.join("index.json"), index).unwrap();
    dir
}

fn open(dir: &Path) -> Result<Image, Error> {
    Image::open(dir, &Selection::new())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// CVE-2024-3727: a digest that is a path.
pub(crate) fn digests_that_are_paths() {
    let scratch = Scratch::new();
    let size = fs::metadata(scratch.outside().join("file")).unwrap().len();
    let descriptor = format!(r#"{{"mediaType":"{MANIFEST}","digest":"sha256:../../../outside/file","size":{size}}}"#);
    let dir = layout_of(&scratch, &format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#));
    let run = || open(&dir).map(drop).unwrap_err();
    assert_eq!(run().kind(), ErrorKind::Malformed);
    // Then it is not opened, because it is not beneath the layout.
    let error = without(&[Defence::Digests], run);
    assert_eq!(error.raw_os_error(), Some(libc::EXDEV), "{error}");
    // Then it has been read, and is not what its name says.
    let error = without(&[Defence::Digests, Defence::Beneath], run);
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains(Digest::of(b"untouched").hex()), "{error}");
}

/// CVE-2021-41190: one document that is an index to one reader and a manifest to another.
pub(crate) fn documents_that_are_two_things() {
    let scratch = Scratch::new();
    let blob = |dir: &Path, media_type: &str, text: &str| {
        let digest = Digest::of(text.as_bytes());
        fs::write(dir.join("blobs/sha256").join(digest.hex()), text).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, text.len())
    };
    let config = r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    for (said, more) in [(MANIFEST, r#","manifests":[]"#), (INDEX, "")] {
        let dir = layout_of(&scratch, "");
        let config = blob(&dir, CONFIG, config);
        let document = format!(r#"{{"schemaVersion":2,"mediaType":"{said}","config":{config},"layers":[]{more}}}"#);
        // Called a manifest by whoever points to it.
        let descriptor = blob(&dir, MANIFEST, &document);
        fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#)).unwrap();
        let run = || open(&dir).map(drop).map_err(|e| e.kind());
        assert_eq!(run(), Err(ErrorKind::MediaType));
        assert_eq!(without(&[Defence::MediaTypes], run), Ok(()));
    }
}

/// CVE-2024-9676: a file of the image, in which a process of the host looks for users, leads to one of the host's.
pub(crate) fn users_of_the_host() {
    let scratch = Scratch::new();
    let dir = scratch.stage();
    let writer = LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    Draft::empty("amd64").user("app").write(&writer, "x").unwrap();
    let image = Image::open(&dir, &Selection::new().platform("linux", "amd64")).unwrap();
    fs::write(scratch.outside().join("passwd"), "app:x:1234:1::/:\n").unwrap();
    for target in ["../../outside/passwd".to_owned(), scratch.outside().join("passwd").display().to_string()] {
        let root = scratch.stage();
        fs::create_dir(root.join("etc")).unwrap();
        symlink(&target, root.join("etc/passwd")).unwrap();
        let run = || image.config().resolve_user(File::open(&root).unwrap()).map(|user| user.uid).map_err(|e| e.kind());
        assert_eq!(run(), Err(ErrorKind::NotFound), "{target}");
        assert_eq!(without(&[Defence::InRoot], run), Ok(1234), "{target}");
    }
}

/// CVE-2023-25153, CVE-2025-58183: metadata without a bound. The limits are all that stands against it.
pub(crate) fn metadata_without_a_bound() {
    let value = vec![b'x'; 1100 << 10];
    let mut map = [format!("{}\n", 1 << 17).into_bytes(), b"0\n0\n".repeat(1 << 17)].concat();
    map.resize(map.len().next_multiple_of(512), 0);
    let version = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"0")];
    let attribute = vec![b'x'; 300 << 10];
    for (what, tar) in [
        ("a PAX header", Tar::default().pax(b'x', &[("comment", &value)]).entry("f=1")),
        ("a map of a sparse file", Tar::default().pax(b'x', &version).raw(b'0', "f", "", &map)),
        ("names and values", Tar::default().pax(b'x', &[("SCHILY.xattr.user.overlay.a", &attribute)]).entry("f=1")),
    ] {
        let scratch = Scratch::new();
        let lenient = || options().policy(Policy::Lenient);
        let error = unpack(&tar.clone().end(), &scratch.stage(), None, lenient()).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {error}");
        let mut limits = Limits::default();
        (limits.pax_bytes, limits.sparse_bytes, limits.xattr_bytes) = (8 << 20, 8 << 20, 8 << 20);
        unpack(&tar.end(), &scratch.stage(), None, lenient().limits(limits)).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
}

/// A layer that has the marks of overlayfs itself could hide and redirect what is in others.
pub(crate) fn marks_of_overlayfs() {
    let attributes = Tar::default()
        .pax(b'x', &[("SCHILY.xattr.user.overlay.opaque", b"y"), ("LIBARCHIVE.xattr.user.overlay%2eredirect", b"L3g")])
        .entry("d/");
    let device = Tar::default().header(b'3', "gone", "", b"", |h| {
        h.set_device_major(0).unwrap();
        h.set_device_minor(0).unwrap();
    });
    let run = |tar: &Tar, policy: Policy| {
        let scratch = Scratch::new();
        let stage = scratch.stage();
        let options = options().policy(policy).devices(Devices::Make);
        let result = unpack(&tar.clone().end(), &stage, None, options).map(drop).map_err(|e| e.kind());
        let marks = if stage.join("d").exists() { xattrs(&stage.join("d")).into_keys().collect() } else { Vec::new() };
        (result, marks.iter().filter(|name| name.contains("overlay")).count(), listing(&stage))
    };
    let entry = |name: &str| vec![name.to_owned()];
    assert_eq!(run(&attributes, Policy::Strict), (Err(ErrorKind::Refused), 0, vec![]));
    assert_eq!(run(&attributes, Policy::Lenient), (Ok(()), 0, entry("d/")));
    assert_eq!(run(&device, Policy::Lenient), (Err(ErrorKind::Refused), 0, vec![]));
    without(&[Defence::Steering], || {
        assert_eq!(run(&attributes, Policy::Strict), (Ok(()), 2, entry("d/")));
        assert_eq!(run(&device, Policy::Strict), (Ok(()), 0, entry("gone char 0")));
    });
}
