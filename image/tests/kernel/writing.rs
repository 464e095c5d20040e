//! Layers made of files, and images written: what comes out is what went in, and always the same.

use crate::semantics::seen;
use crate::store::start;
use crate::support::{Scratch, Tar, lenient, listing, tree, unpack};
use cofferdam_image::{
    Compression, Digest, Draft, ErrorKind, Image, LayerBuilder, LayerReader, LayerSummary, Layers, LayoutWriter,
    Selection,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn tree_of(builder: &LayerBuilder, dir: &Path) -> (Vec<u8>, LayerSummary) {
    let mut blob = Vec::new();
    let summary = builder.tree(File::open(dir).unwrap(), &mut blob).unwrap();
    assert_eq!((&summary.blob_digest, summary.blob_size), (&Digest::of(&blob), blob.len() as u64));
    (blob, summary)
}

/// Of every sort, with attributes.
fn rich() -> Tar {
    Tar::default()
        .pax(b'x', &[("SCHILY.xattr.user.a", b"\0b\n"), ("mtime", b"5.000000007")])
        .entry("f=content")
        .entry("h=>f")
        .entry("s->nowhere")
        .entry("p|")
        .pax(b'x', &[("SCHILY.xattr.user.d", b"1"), ("mtime", b"-3.25")])
        .header(b'5', "d", "", b"", |h| h.set_mode(0o1750))
        .pax(b'x', &[("path", format!("d/{}", "long".repeat(40)).as_bytes())])
        .entry("x=1")
        .pax(b'x', &[("path", "d/\u{e4}".as_bytes())])
        .entry("x=2")
        .entry("d/empty=")
}

pub(crate) fn a_tree_comes_back_as_it_was() {
    let scratch = Scratch::new();
    let source = scratch.flat(&[rich()]);
    let compressions: &[Compression] = if cfg!(feature = "zstd") {
        &[Compression::None, Compression::Gzip, Compression::Zstd]
    } else {
        &[Compression::None, Compression::Gzip]
    };
    for compression in compressions {
        let (blob, summary) = tree_of(&LayerBuilder::new().compression(*compression), &source);
        let stage = scratch.stage();
        let report = unpack(&blob, &stage, None, lenient()).unwrap();
        assert_eq!((report.diff_id, report.skipped.len()), (summary.diff_id, 0));
        assert_eq!(tree(&stage), tree(&source), "{compression:?}");
    }
}

pub(crate) fn the_same_files_give_the_same_layer() {
    let scratch = Scratch::new();
    let entries = ["b=1", "a/", "a/z=1", "a/y=2", "c->a"];
    let mut reversed = entries;
    reversed.reverse();
    let digests: Vec<Digest> = [&entries, &reversed]
        .iter()
        .enumerate()
        .map(|(turn, order)| {
            let dir = scratch.flat(&[Tar::of(&order[..])]);
            // Who makes it, and when it is read, is not in it.
            let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode([0o077, 0o000][turn]));
            let _ = fs::read(dir.join("b")).unwrap();
            let summary = tree_of(&LayerBuilder::new(), &dir).1;
            rustix::process::umask(old);
            summary.blob_digest
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
    // Times of a build do not show.
    let dir = scratch.flat(&[Tar::of(&["f=1"])]);
    let builder = LayerBuilder::new().not_after(1_500_000_000);
    fs::write(dir.join("f"), "1").unwrap();
    let before = tree_of(&builder, &dir).1;
    fs::write(dir.join("f"), "1").unwrap();
    assert_eq!(tree_of(&builder, &dir).1, before);
    fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(tree_of(&builder, &dir).1, before);
}

/// Pairs of trees, and the difference of each.
const CHANGES: &[(&[&str], &[&str], &[&str])] = &[
    (&["a=1", "b=1"], &["a=1"], &["b char 0"]),
    (&["a=1"], &["a=22"], &["a=22"]),
    (&["d/", "d/a=1", "e/", "e/x=1"], &["d=1", "e/", "e/x=1"], &["d=1"]),
    (&["d=1"], &["d/", "d/a=1"], &["d/", "d/a=1"]),
    (&["d/", "d/a=1"], &["d->x"], &["d->x"]),
    (&["f=1", "h=>f", "g=1"], &["f=1", "h=>f", "g=1", "k=>f"], &["f=1", "h=1", "k=1"]),
    (&["a/", "a/b/", "a/b/c=1", "x=1"], &["a/", "x=1"], &["a/", "a/b char 0"]),
];

pub(crate) fn changes_make_one_tree_of_the_other() {
    for (old, new, expected) in CHANGES {
        let (scratch, what) = (Scratch::new(), old);
        let (before, after) = (Tar::of(old), Tar::of(new));
        let (old, new) = (scratch.flat(std::slice::from_ref(&before)), scratch.flat(&[after]));
        let mut blob = Vec::new();
        let builder = LayerBuilder::new();
        builder.changes(File::open(&old).unwrap(), File::open(&new).unwrap(), &mut blob).unwrap();
        let stage = scratch.stage();
        let lowers = [scratch.layers(std::slice::from_ref(&before))[0].clone()];
        unpack(&blob, &stage, Some(&lowers), lenient()).unwrap();
        let found: Vec<String> =
            listing(&stage).into_iter().filter(|line| line != "a/" || expected.contains(&"a/")).collect();
        assert_eq!(found, *expected, "{what:?}");
        let (scratch_dir, target) = (scratch.stage(), scratch.stage());
        let layers = Layers::new(lenient()).layer(Cursor::new(before.end())).layer(Cursor::new(blob));
        layers.flatten(File::open(scratch_dir).unwrap(), File::open(&target).unwrap()).unwrap();
        assert_eq!(tree(&target), tree(&new), "applied to the old tree, it makes the new one");
    }
}

/// What an overlay's upper directory says is what a layer says.
pub(crate) fn an_upper_directory_becomes_a_layer() {
    let scratch = Scratch::new();
    let below = Tar::of(&["a=1", "b/", "b/x=1", "c/", "c/y=1", "d/", "d/z=1"]);
    let above = Tar::of(&[".wh.a", "b/", "b/.wh.x", "b/new=1", "c/", "c/.wh..wh..opq", "c/other=1"]);
    let done = scratch.layers(&[below.clone(), above]);
    let mut blob = Vec::new();
    LayerBuilder::new().upper(File::open(&done[1]).unwrap(), &mut blob).unwrap();
    let again = scratch.stage();
    unpack(&blob, &again, Some(&done[..1]), lenient()).unwrap();
    assert_eq!(tree(&again), tree(&done[1]));
    assert_eq!(seen(&[done[0].clone(), again]), seen(&done));
    rustix::fs::setxattr(done[1].join("b"), "trusted.overlay.redirect", b"/x", rustix::fs::XattrFlags::empty())
        .unwrap();
    let error = LayerBuilder::new().upper(File::open(&done[1]).unwrap(), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

/// A layout with an image `one` of one layer, and `two` on top of it; its folder.
fn layout(scratch: &Scratch) -> PathBuf {
    let dir = scratch.stage();
    let writer = LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    let root = scratch.flat(&[Tar::of(&["bin/", "bin/sh=sh", "etc/", "etc/gone=1"])]);
    let layer = writer.layer(|to| LayerBuilder::new().tree(File::open(&root).unwrap(), to)).unwrap();
    let draft = Draft::empty("amd64").layer(&layer, "the base").cmd(["/bin/sh"]).env("A", "1").env("B", "2");
    draft.write(&writer, "one").unwrap();
    let one = Image::open(&dir, &Selection::new().reference("one").platform("linux", "amd64")).unwrap();
    let layer = writer.import(&Tar::of(&["etc/.wh.gone", "new=1"]).end()[..]).unwrap();
    let draft = Draft::of(&one).unwrap().layer(&layer, "changes").env("A", "3").user("7:8").label("x", "y");
    draft.write(&writer, "two").unwrap();
    dir
}

fn open(dir: &Path, name: &str) -> Image {
    Image::open(dir, &Selection::new().reference(name).platform("linux", "amd64")).unwrap()
}

fn flatten(scratch: &Scratch, image: &Image) -> PathBuf {
    let (stage, target) = (scratch.stage(), scratch.stage());
    let layers = image.all_layers(lenient()).unwrap();
    layers.flatten(File::open(stage).unwrap(), File::open(&target).unwrap()).unwrap();
    target
}

pub(crate) fn an_image_on_top_of_another() {
    let scratch = Scratch::new();
    let dir = layout(&scratch);
    let two = open(&dir, "two");
    assert_eq!((two.layers().len(), two.config().command()), (2, vec!["/bin/sh"]));
    assert!(two.config().env().eq([("B", "2"), ("A", "3")]));
    assert_eq!(two.config().user(), Some("7:8"));
    let json = String::from_utf8_lossy(two.config().json()).into_owned();
    assert!(json.contains("the base") && json.contains("changes") && json.contains(r#""x":"y""#), "{json}");
    assert_eq!(listing(&flatten(&scratch, &two)), ["bin/", "bin/sh=sh", "etc/", "new=1"]);
    // The same again is the same.
    assert_eq!(*open(&layout(&scratch), "two").digest(), *two.digest());
    assert_eq!(open(&dir, "one").layers().len(), 1);
    let names = fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| name.len() == 64), "nothing half-written is left");
}

/// Through an archive and back: the layers and the config are the same to the byte.
pub(crate) fn archives_of_docker() {
    let scratch = Scratch::new();
    let two = open(&layout(&scratch), "two");
    let path = scratch.path().join("saved.tar");
    two.save(&["example.org/two:latest"], File::create(&path).unwrap()).unwrap();
    let selection = Selection::new().reference("example.org/two:latest");
    let saved = Image::open_archive(&path, &selection).unwrap();
    assert_eq!(saved.config().json(), two.config().json());
    assert!(saved.layers().iter().map(|l| &l.diff_id).eq(two.layers().iter().map(|l| &l.diff_id)));
    assert_eq!(tree(&flatten(&scratch, &saved)), tree(&flatten(&scratch, &two)));
    let error = Image::open_archive(&path, &Selection::new().reference("nobody:latest")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let back = scratch.stage();
    saved.copy_to(&LayoutWriter::open(File::open(&back).unwrap()).unwrap(), "two").unwrap();
    assert_eq!(open(&back, "two").config().json(), two.config().json());
    assert_eq!(tree(&flatten(&scratch, &open(&back, "two"))), tree(&flatten(&scratch, &two)));
    // A layer that is not what the config says.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|w| w == b"new").unwrap();
    bytes[at] ^= 1;
    let at = at - at % 512;
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&bytes[at..at + 512]);
    header.set_cksum();
    bytes[at..at + 512].copy_from_slice(header.as_bytes());
    fs::write(&path, bytes).unwrap();
    let damaged = Image::open_archive(&path, &selection).unwrap();
    let (stage, target) = (scratch.stage(), scratch.stage());
    let layers = damaged.all_layers(lenient()).unwrap();
    let error = layers.flatten(File::open(stage).unwrap(), File::open(&target).unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Mismatch, Some(1)), "{error}");
    assert!(!target.join("new").exists(), "the target has not seen it");
}

/// skopeo and umoci take what we write, and give it back.
pub(crate) fn others_read_what_we_write() {
    let scratch = Scratch::new();
    let dir = layout(&scratch);
    let two = open(&dir, "two");
    let run = |program: &str, args: &[String]| {
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let archive = scratch.path().join("two.tar");
    two.save(&["two:latest"], File::create(&archive).unwrap()).unwrap();
    for source in [format!("oci:{}:two", dir.display()), format!("docker-archive:{}", archive.display())] {
        let copy = scratch.path().join("copy");
        let target = format!("oci:{}:copied", copy.display());
        run("/usr/bin/skopeo", &["--insecure-policy".into(), "copy".into(), source.clone(), target]);
        let copied = open(&copy, "copied");
        assert_eq!(copied.config().diff_ids(), two.config().diff_ids(), "{source}");
        assert_eq!(tree(&flatten(&scratch, &copied)), tree(&flatten(&scratch, &two)));
        fs::remove_dir_all(copy).unwrap();
        let saved = scratch.path().join("saved");
        run(
            "/usr/bin/skopeo",
            &["--insecure-policy".into(), "copy".into(), source, format!("docker-archive:{}", saved.display())],
        );
        let saved_image = Image::open_archive(&saved, &Selection::new()).unwrap();
        assert_eq!(saved_image.config().diff_ids(), two.config().diff_ids());
        fs::remove_file(saved).unwrap();
    }
    let out = scratch.path().join("umoci");
    run(
        "/usr/bin/umoci",
        &["raw".into(), "unpack".into(), "--image".into(), format!("{}:two", dir.display()), out.display().to_string()],
    );
    assert_eq!(listing(&out), listing(&flatten(&scratch, &two)));
}

/// Two writers of one layout, and what one that was killed has left, are not in each other's way.
pub(crate) fn several_writers_of_one_layout() {
    let scratch = Scratch::new();
    let dir = scratch.stage();
    let open_writer = || LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    let (one, other) = (open_writer(), open_writer());
    let trap = scratch.outside().join("file");
    let guess = format!(".new-{}-index.json", std::process::id());
    fs::hard_link(&trap, dir.join(&guess)).unwrap();
    fs::hard_link(&trap, dir.join(format!("blobs/sha256/.new-{}-0", std::process::id()))).unwrap();
    let inner = Tar::of(&["a=1"]).end();
    let layer = one
        .layer(|to| {
            to.write_all(&inner).unwrap();
            // In the middle of the one, the other.
            let whole = other.import(&Tar::of(&["b=1"]).end()[..])?;
            assert_ne!(whole.summary.diff_id, Digest::of(&inner));
            LayerReader::new(&inner[..])?.finish()
        })
        .unwrap();
    Draft::empty("amd64").layer(&layer, "x").write(&one, "one").unwrap();
    assert_eq!(open(&dir, "one").layers().len(), 1);
    assert_eq!(fs::read(&trap).unwrap(), b"untouched", "no file is written through a name that could be guessed");
}

/// A writer that is killed leaves a half-written file, until the next one opens the layout. What another one is writing stays.
pub(crate) fn what_a_killed_writer_has_left_is_removed() {
    let scratch = Scratch::new();
    let dir = scratch.stage();
    let open_writer = || LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    let unfinished = || {
        let names = ["", "blobs/sha256"].map(|sub| fs::read_dir(dir.join(sub)).unwrap()).into_iter().flatten();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(".new-")).collect();
        names.sort();
        names
    };
    let writer = open_writer();
    let (mut life, death) = std::io::pipe().unwrap();
    let child = start(|| {
        let _ = writer.layer(|to| {
            to.write_all(b"half").unwrap();
            (&death).write_all(b"x").unwrap();
            loop {
                std::thread::park();
            }
        });
    });
    assert_eq!(life.read(&mut [0]).unwrap(), 1);
    open_writer();
    let left = unfinished();
    assert_eq!(left.len(), 1, "it is being written: {left:?}");
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap();
    assert_eq!(unfinished(), left, "it was killed");
    // Of the index, too; what only looks like it is not ours.
    fs::write(dir.join(format!(".new-{:032x}", 7)), "{").unwrap();
    fs::write(dir.join(".new-start"), "").unwrap();
    symlink("oci-layout", dir.join(format!(".new-{:032x}", 8))).unwrap();
    open_writer();
    assert_eq!(unfinished(), [format!(".new-{:032x}", 8), ".new-start".to_owned()]);
    // In the middle of writing, others open the layout.
    let layer = writer.layer(|to| {
        let inner = Tar::of(&["a=1"]).end();
        to.write_all(&inner).unwrap();
        open_writer();
        LayerReader::new(&inner[..])?.finish()
    });
    Draft::empty("amd64").layer(&layer.unwrap(), "x").write(&writer, "one").unwrap();
    assert_eq!(open(&dir, "one").layers().len(), 1);
}

/// Layers that must not be distributed are read, and never written: not into another layout, not below a new layer, not into an archive.
pub(crate) fn foreign_layers_are_not_written() {
    for foreign in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ] {
        let scratch = Scratch::new();
        let dir = scratch.stage();
        let writer = LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
        let layer = writer.import(&Tar::of(&["a=secret"]).end()[..]).unwrap();
        Draft::empty("amd64").layer(&layer, "x").write(&writer, "one").unwrap();
        rename_media_type(&dir, "application/vnd.oci.image.layer.v1.tar", foreign);
        let image = open(&dir, "one");
        assert_eq!(listing(&flatten(&scratch, &image)), ["a=secret"]);
        let other = scratch.stage();
        let to = LayoutWriter::open(File::open(&other).unwrap()).unwrap();
        let own = to.import(&Tar::of(&["b=1"]).end()[..]).unwrap();
        let draft = Draft::of(&image).unwrap().layer(&own, "y");
        let mut saved = Vec::new();
        for result in [
            image.copy_to(&to, "copied").map(drop),
            draft.write(&to, "on top").map(drop),
            draft.write(&writer, "where it is").map(drop),
            image.save(&["x:y"], &mut saved),
        ] {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.layer()), (ErrorKind::Unsupported, Some(0)), "{error}");
        }
        assert!(saved.is_empty() && !other.join("index.json").exists());
        assert!(!other.join("blobs/sha256").join(layer.summary.blob_digest.hex()).exists(), "{foreign}");
    }
}

/// Gives the layers of the one image of a layout another media type.
fn rename_media_type(dir: &Path, old: &str, new: &str) {
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    let digest = &index.split_once("sha256:").unwrap().1[..64];
    let path = dir.join("blobs/sha256").join(digest);
    let before = fs::read_to_string(&path).unwrap();
    let manifest = before.replace(&format!("{old}\""), &format!("{new}\""));
    assert_ne!(manifest, before);
    let renamed = Digest::of(manifest.as_bytes());
    fs::write(dir.join("blobs/sha256").join(renamed.hex()), &manifest).unwrap();
    let size = |text: &str| format!("\"size\":{}", text.len());
    let index = index.replace(digest, renamed.hex()).replace(&size(&before), &size(&manifest));
    fs::write(dir.join("index.json"), index).unwrap();
}

/// A layer that changes between the two times it is read is not passed on as if it had been verified.
pub(crate) fn a_layer_that_changes_while_it_is_saved() {
    struct Changes<'a> {
        blob: &'a Path,
        saved: Vec<u8>,
    }
    impl std::io::Write for Changes<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // After the first reading: with the header of the layer.
            if self.saved.is_empty() {
                let mut blob = fs::read(self.blob)?;
                blob[512] ^= 1;
                fs::write(self.blob, blob)?;
            }
            self.saved.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let scratch = Scratch::new();
    let dir = scratch.stage();
    let writer = LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    let layer = writer.import(&Tar::of(&["a=content"]).end()[..]).unwrap();
    Draft::empty("amd64").layer(&layer, "x").write(&writer, "one").unwrap();
    let blob = dir.join("blobs/sha256").join(layer.summary.blob_digest.hex());
    let mut to = Changes { blob: &blob, saved: Vec::new() };
    let error = open(&dir, "one").save(&["x:y"], &mut to).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Mismatch, Some(0)), "{error}");
    assert!(!to.saved.windows(13).any(|w| w == b"manifest.json"), "what was written is no image");
}
