//! Layers of what has changed: what cannot be in one, and what cannot be read.

use crate::support::{Scratch, Tar, lenient, listing, unpack};
use cofferdam_image::{LayerBuilder, Layers};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

fn socket(path: &Path) {
    mknodat(CWD, path, FileType::Socket, Mode::RWXU, 0).unwrap();
}

/// What a layer makes of the tree below it: merged, and what it looks like as a layer.
fn applied(scratch: &Scratch, below: &Tar, layer: &[u8]) -> (Vec<String>, Vec<String>) {
    let (flat, target) = (scratch.stage(), scratch.stage());
    let layers = Layers::new(lenient()).layer(Cursor::new(below.clone().end())).layer(Cursor::new(layer.to_vec()));
    layers.flatten(File::open(flat).unwrap(), File::open(&target).unwrap()).unwrap();
    let (lowers, stage) = (scratch.layers(std::slice::from_ref(below)), scratch.stage());
    unpack(layer, &stage, Some(&lowers), lenient()).unwrap();
    (listing(&target), listing(&stage))
}

/// A socket has no place in a layer. What it has replaced is gone all the same.
pub(crate) fn what_a_socket_hides_stays_hidden() {
    for below in [
        &["run/", "run/app=1", "x=1"][..],
        &["run/", "run/app/", "run/app/f=1", "x=1"],
        &["run/", "run/app->../x", "x=1"],
        &["run/", "run/app|", "x=1"],
        &["run/", "x=1"],
    ] {
        let (scratch, below) = (Scratch::new(), Tar::of(below));
        let hidden = below.0.windows(8).any(|w| w == b"run/app\0" || w == b"run/app/");
        let marks: &[&str] = if hidden { &["run/", "run/app char 0"] } else { &["run/"] };

        let upper = scratch.stage();
        fs::create_dir(upper.join("run")).unwrap();
        socket(&upper.join("run/app"));
        let mut blob = Vec::new();
        LayerBuilder::new().upper(File::open(&upper).unwrap(), &mut blob).unwrap();
        let (merged, layer) = applied(&scratch, &below, &blob);
        assert_eq!((&merged[..], &layer[..]), (&["run/".to_owned(), "x=1".to_owned()][..], &owned(marks)[..]));

        let (before, after) = (scratch.flat(std::slice::from_ref(&below)), scratch.flat(&[Tar::of(&["run/", "x=1"])]));
        socket(&after.join("run/app"));
        let mut blob = Vec::new();
        LayerBuilder::new().changes(File::open(&before).unwrap(), File::open(&after).unwrap(), &mut blob).unwrap();
        let (merged, layer) = applied(&scratch, &below, &blob);
        assert_eq!(merged, ["run/", "x=1"]);
        assert_eq!(layer.iter().any(|line| line == "run/app char 0"), hidden, "{layer:?}");
        assert_eq!(blob_names(&blob).iter().any(|name| name == "run/.wh.app"), hidden);

        // Where a socket was before, no layer has anything; and what is the whole of it hides nothing.
        let mut again = Vec::new();
        LayerBuilder::new().changes(File::open(&after).unwrap(), File::open(&after).unwrap(), &mut again).unwrap();
        assert!(blob_names(&again).is_empty());
        let mut whole = Vec::new();
        LayerBuilder::new().tree(File::open(&after).unwrap(), &mut whole).unwrap();
        assert_eq!(blob_names(&whole), ["./", "run/", "x"]);
    }
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn blob_names(blob: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(blob));
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned());
    names.map(|name| String::from_utf8(name).unwrap()).collect()
}

/// A directory that cannot be opened is not one that is not there: what was deleted in it would come back.
pub(crate) fn what_cannot_be_compared_is_told() {
    let scratch = Scratch::new();
    let tree = |gone: bool| -> PathBuf {
        let root = scratch.stage();
        fs::create_dir_all(root.join("d/x")).unwrap();
        fs::write(root.join("d/x/kept"), "1").unwrap();
        if !gone {
            fs::write(root.join("d/x/gone"), "1").unwrap();
        }
        // Looked at first; by then, none of the directories above is open any more.
        fs::create_dir_all(root.join("d/z").join("deep/".repeat(40))).unwrap();
        root
    };
    let (before, after) = (File::open(tree(false)).unwrap(), File::open(tree(true)).unwrap());
    let run = || {
        let mut blob = Vec::new();
        LayerBuilder::new().changes(&before, &after, &mut blob).map(|_| blob)
    };
    let watch = Watch::only(&[libc::SYS_openat2, libc::SYS_openat, libc::SYS_newfstatat]);
    let (calls, result) = watch.record(run);
    assert!(blob_names(&result.unwrap()).iter().any(|name| name == "d/x/.wh.gone"));
    for nth in 0..calls.len() {
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EMFILE) };
        let (calls, result) = watch.inject(fault, run);
        let failed = calls.iter().find(|call| call.fault.is_some()).unwrap();
        let error = result.map(|blob| blob_names(&blob)).expect_err(&failed.to_string());
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{failed}: {error}");
    }
}
