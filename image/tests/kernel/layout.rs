//! Images in layouts: chosen, verified, unpacked.

use crate::store::{form, nothing_staged};
use crate::support::{Scratch, Tar, gzip, listing, options};
use cofferdam_image::{Digest, Error, ErrorKind, Image, Report, Selection};
use cofferdam_unionfs::{LayerStore, Owner};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layout directory that is being written.
struct Layout {
    dir: PathBuf,
    manifests: Vec<String>,
}

impl Layout {
    fn new(scratch: &Scratch) -> Self {
        let dir = scratch.stage();
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir, manifests: Vec::new() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn blob(&self, media_type: &str, bytes: &[u8], more: &str) -> String {
        let digest = Digest::of(bytes);
        fs::write(self.blob_path(&digest), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}{more}}}"#, bytes.len())
    }

    /// An image of these blobs, whose archives have these digests.
    fn image(&mut self, layers: &[&[u8]], diff_ids: &[Digest], more: &str) -> String {
        let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
        let config = format!(
            r#"{{"os":"linux","config":{{"Cmd":["/bin/sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            ids.join(",")
        );
        let layers: Vec<String> = layers.iter().map(|blob| self.blob(LAYER, blob, "")).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            self.blob(CONFIG, config.as_bytes(), ""),
            layers.join(",")
        );
        let descriptor = self.blob(MANIFEST, manifest.as_bytes(), more);
        self.manifests.push(descriptor.clone());
        descriptor
    }

    fn write_index(&self) {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, self.manifests.join(","));
        fs::write(self.dir.join("index.json"), index).unwrap();
    }

    fn open(&self) -> Result<Image, Error> {
        Image::open(&self.dir, &Selection::new())
    }
}

fn tag(name: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
}

fn simple(scratch: &Scratch, blob: &[u8], archive: &[u8]) -> Layout {
    let mut layout = Layout::new(scratch);
    layout.image(&[blob], &[Digest::of(archive)], "");
    layout.write_index();
    layout
}

fn unpack_into(image: &Image, number: usize, stage: &Path, lowers: &[File]) -> Result<Report, Error> {
    let lowers: Vec<_> = lowers.iter().map(File::as_fd).collect();
    image.unpack_layer(number, File::open(stage).unwrap().as_fd(), &lowers, &options())
}

pub(crate) fn two_layers() {
    let scratch = Scratch::new();
    let archives = [Tar::of(&["d/", "d/f=1", "gone=1"]).end(), Tar::of(&["h=>d/f", ".wh.gone"]).end()];
    // One plain, whatever its media type says; one of two members.
    let blobs = [archives[0].clone(), [gzip(&archives[1][..700]), gzip(&archives[1][700..])].concat()];
    let mut layout = Layout::new(&scratch);
    let ids: Vec<Digest> = archives.iter().map(|a| Digest::of(a)).collect();
    layout.image(&[&blobs[0], &blobs[1]], &ids, &tag("v1"));
    layout.write_index();
    let image = Image::open_at(File::open(&layout.dir).unwrap(), &Selection::new().reference("v1")).unwrap();
    assert_eq!(image.config().command(), ["/bin/sh"]);
    assert_eq!(image.layers().len(), 2);
    let stages = [scratch.stage(), scratch.stage()];
    let mut below = Vec::new();
    for (number, stage) in stages.iter().enumerate() {
        let report = unpack_into(&image, number, stage, &below).unwrap();
        assert_eq!((&report.diff_id, report.blob_digest), (&ids[number], Digest::of(&blobs[number])));
        assert!(!report.opaque_root);
        below.push(File::open(stage).unwrap());
    }
    assert_eq!(listing(&stages[0]), ["d/", "d/f=1", "gone=1"]);
    assert_eq!(listing(&stages[1]), ["d/", "d/f=1", "gone char 0", "h=1"]);
    let error = unpack_into(&image, 2, &scratch.stage(), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error =
        unpack_into(&image, 1, &scratch.stage(), &[File::open(&stages[0]).unwrap(), File::open(&stages[0]).unwrap()]);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "too many lowers");
}

pub(crate) fn layers_that_are_not_what_they_should_be() {
    let archive = Tar::of(&["f=1"]).end();
    let other = Tar::of(&["f=2"]).end();
    let blob = gzip(&archive);
    let cut = &blob[..blob.len() - 9];
    let trailing = [&blob[..], b"garbage"].concat();
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &blob].concat();
    for (what, blob, kind) in [
        ("cut off", cut, ErrorKind::Corrupt),
        ("garbage at the end", &trailing, ErrorKind::Corrupt),
        ("another archive", &gzip(&other), ErrorKind::Mismatch),
        ("more after the archive", &gzip(&[&archive[..], &[0]].concat()), ErrorKind::Mismatch),
        ("an archive cut off", &gzip(&archive[..700]), ErrorKind::Malformed),
        ("zstd", &zstd, if cfg!(feature = "zstd") { ErrorKind::Corrupt } else { ErrorKind::Unsupported }),
    ] {
        let scratch = Scratch::new();
        let image = simple(&scratch, blob, &archive).open().unwrap();
        let error = unpack_into(&image, 0, &scratch.stage(), &[]).expect_err(what);
        assert_eq!((error.kind(), error.layer()), (kind, Some(0)), "{what}: {error}");
        // In a store it is not published, and what was staged is gone.
        let dir = scratch.stage();
        let store = LayerStore::open(File::open(&dir).unwrap(), form()).unwrap();
        let error = image.unpack_into(&store, &Owner::new("x").unwrap(), &options(), None).expect_err(what);
        assert_eq!((error.kind(), error.layer()), (kind, Some(0)), "{what}: {error}");
        assert_eq!(store.layers().unwrap(), []);
        nothing_staged(&dir);
    }
}

pub(crate) fn blobs_that_are_exchanged() {
    let archive = Tar::of(&["f=1"]).end();
    let other = Tar::of(&["f=2"]).end();
    let scratch = Scratch::new();
    let layout = simple(&scratch, &archive, &archive);
    let path = layout.blob_path(&Digest::of(&archive));
    let image = layout.open().unwrap();
    let try_with = |change: &dyn Fn()| {
        let _ = fs::remove_file(&path);
        change();
        unpack_into(&image, 0, &scratch.stage(), &[]).unwrap_err()
    };
    let error = try_with(&|| fs::write(&path, &other).unwrap());
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    let error = try_with(&|| fs::write(&path, [&archive[..], b"x"].concat()).unwrap());
    assert_eq!(error.kind(), ErrorKind::Mismatch, "another size: {error}");
    let error = try_with(&|| {});
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let right = scratch.path().join("right");
    fs::write(&right, &archive).unwrap();
    let error = try_with(&|| symlink(&right, &path).unwrap());
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP), "a symlink, even to the right bytes: {error}");
    let error = try_with(&|| fs::create_dir(&path).unwrap());
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    fs::remove_dir(&path).unwrap();
    // A fifo does not block.
    let error = try_with(&|| {
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    });
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
}

/// What is done to a good image of one layer, given its descriptor.
type Change = fn(&mut Layout, String);

const WRONG_DOCUMENTS: &[(&str, Change, ErrorKind)] = &[
    ("a manifest called an index", |l, d| l.manifests = vec![d.replace(MANIFEST, INDEX)], ErrorKind::MediaType),
    ("a size that is too small", |l, d| l.manifests = vec![d.replace("\"size\":", "\"size\":1")], ErrorKind::Mismatch),
    ("a digest that is a path", |l, d| l.manifests = vec![d.replace("sha256:", "sha256:../")], ErrorKind::Malformed),
    (
        "a digest of dots",
        |l, _| {
            l.manifests = vec![format!(r#"{{"mediaType":"{MANIFEST}","digest":"sha256:../../oci-layout","size":30}}"#)];
        },
        ErrorKind::Malformed,
    ),
    ("a negative size", |l, d| l.manifests = vec![d.replace("\"size\":", "\"size\":-")], ErrorKind::Malformed),
    (
        "a huge document",
        |l, d| {
            let size = d.rfind("\"size\":").unwrap();
            l.manifests = vec![format!("{}\"size\":18446744073709551615}}", &d[..size])];
        },
        ErrorKind::LimitExceeded,
    ),
    ("another sort of document", |l, d| l.manifests = vec![d.replace(MANIFEST, "text/plain")], ErrorKind::NotFound),
    (
        "for another machine",
        |l, d| {
            l.manifests = vec![d.replace("\"size\"", r#""platform":{"os":"plan9","architecture":"mips"},"size""#)];
        },
        ErrorKind::NotFound,
    ),
    ("no image", |l, _| l.manifests.clear(), ErrorKind::NotFound),
    ("two images", |l, _| drop(l.image(&[], &[], "")), ErrorKind::Ambiguous),
    (
        "too few DiffIDs",
        |l, _| {
            l.manifests.clear();
            l.image(&[b"x"], &[], "");
        },
        ErrorKind::Mismatch,
    ),
    (
        "too many DiffIDs",
        |l, _| {
            l.manifests.clear();
            l.image(&[], &[Digest::of(b"x")], "");
        },
        ErrorKind::Mismatch,
    ),
    (
        "indexes without end",
        |l, d| {
            let mut inner = d;
            for _ in 0..6 {
                let index = format!(r#"{{"schemaVersion":2,"manifests":[{inner}]}}"#);
                inner = l.blob(INDEX, index.as_bytes(), "");
            }
            l.manifests = vec![inner];
        },
        ErrorKind::LimitExceeded,
    ),
];

pub(crate) fn documents_that_are_not_what_they_should_be() {
    let archive = Tar::of(&["f=1"]).end();
    let id = Digest::of(&archive);
    for (what, change, kind) in WRONG_DOCUMENTS {
        let scratch = Scratch::new();
        let mut layout = Layout::new(&scratch);
        let descriptor = layout.image(&[&archive], std::slice::from_ref(&id), "");
        layout.write_index();
        layout.open().unwrap();
        change(&mut layout, descriptor);
        layout.write_index();
        let error = layout.open().map(drop).expect_err(what);
        assert_eq!(error.kind(), *kind, "{what}: {error}");
    }
}

pub(crate) fn layouts_that_are_none() {
    let scratch = Scratch::new();
    let layout = simple(&scratch, b"", b"");
    let says = |text: &[u8], file: &str| {
        let path = layout.dir.join(file);
        let before = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        let error = layout.open().map(drop).unwrap_err();
        fs::write(&path, before).unwrap();
        error
    };
    let large = [b"{\"imageLayoutVersion\":\"1.0.0\",\"x\":\"", &vec![b'x'; 4 << 20][..], b"\"}"].concat();
    assert_eq!(says(&large, "oci-layout").kind(), ErrorKind::LimitExceeded);
    assert_eq!(says(&large, "index.json").kind(), ErrorKind::LimitExceeded);
    assert_eq!(says(b"{\"imageLayoutVersion\":\"2.0.0\"}", "oci-layout").kind(), ErrorKind::Unsupported);
    assert_eq!(says(b"", "oci-layout").kind(), ErrorKind::Malformed);
    assert_eq!(says(b"\xff", "index.json").kind(), ErrorKind::Malformed);
    layout.open().unwrap();
    fs::remove_file(layout.dir.join("index.json")).unwrap();
    symlink("/dev/zero", layout.dir.join("index.json")).unwrap();
    assert_eq!(layout.open().map(drop).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    let nowhere = scratch.path().join("nowhere");
    let error = Image::open(&nowhere, &Selection::new()).map(drop).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("open the image layout: open({nowhere:?}): No such file or directory (os error 2)")
    );
}

pub(crate) fn by_name_and_platform_through_an_inner_index() {
    let scratch = Scratch::new();
    let mut layout = Layout::new(&scratch);
    let archives = ["arm=1", "intel=1", "other=1"].map(|entry| Tar::of(&[entry]).end());
    let ids = archives.each_ref().map(|a| Digest::of(a));
    let for_machine = |arch: &str| format!(r#","platform":{{"os":"linux","architecture":"{arch}"}}"#);
    let arm = layout.image(&[&archives[0]], &ids[..1], &for_machine("arm64"));
    let intel = layout.image(&[&archives[1]], &ids[1..2], &for_machine("amd64"));
    layout.manifests.clear();
    let inner = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{arm},{intel}]}}"#);
    let inner = layout.blob(INDEX, inner.as_bytes(), &tag("both"));
    layout.image(&[&archives[2]], &ids[2..], &tag("other"));
    layout.manifests.push(inner);
    layout.write_index();
    let diff_id = |selection: Selection| Ok(Image::open(&layout.dir, &selection)?.layers()[0].diff_id.clone());
    let named = |name: &str| Selection::new().reference(name);
    assert_eq!(diff_id(named("both").platform("linux", "arm64")).unwrap(), ids[0]);
    assert_eq!(diff_id(named("both").platform("linux", "amd64")).unwrap(), ids[1]);
    assert_eq!(diff_id(named("other")).unwrap(), ids[2]);
    let kind = |selection| diff_id(selection).map_err(|e: Error| e.kind()).unwrap_err();
    assert_eq!(kind(named("both").platform("linux", "s390x")), ErrorKind::NotFound);
    assert_eq!(kind(named("neither")), ErrorKind::NotFound);
    assert_eq!(kind(Selection::new()), ErrorKind::Ambiguous);
}
