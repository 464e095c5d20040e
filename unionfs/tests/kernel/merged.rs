//! What a union shows, and what it writes where.

use crate::support::{Place, list, mounted, open, raw_overlay};
use cofferdam_unionfs::{
    Form, RedirectDir, is_opaque, is_overlay_xattr, is_whiteout, make_opaque, make_whiteout, make_xattr_whiteout,
};
use rustix::fs::{XattrFlags, setxattr};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

fn missing(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
}

pub(crate) fn the_classic_demonstration(form: Form) {
    let place = Place::new(form);
    let top = place.layer("top", &[("both.txt", "top"), ("top.txt", "top"), ("dir/a", "top")]);
    let bottom = place.layer("bottom", &[("both.txt", "bottom"), ("bottom.txt", "bottom"), ("dir/b", "bottom")]);
    let (writable, upper) = place.writable();
    let merged = mounted(&place.overlay(&[&top, &bottom]).writable(&writable));

    assert_eq!(merged.list(""), ["both.txt", "bottom.txt", "dir", "top.txt"]);
    assert_eq!(merged.list("dir"), ["a", "b"]);
    assert_eq!((merged.read("both.txt"), merged.read("dir/b")), ("top".into(), "bottom".into()));
    assert!(list(&upper).is_empty());

    fs::write(merged.path("dir/new"), "new").expect("is written");
    let mut file = OpenOptions::new().append(true).open(merged.path("bottom.txt")).expect("opens");
    file.write_all(b" and more").expect("is appended");
    drop(file);

    assert_eq!(merged.read("bottom.txt"), "bottom and more");
    assert_eq!(merged.list("dir"), ["a", "b", "new"]);
    assert_eq!((list(&upper), list(upper.join("dir"))), (vec!["bottom.txt".into(), "dir".into()], vec!["new".into()]));
    assert_eq!(fs::read_to_string(upper.join("bottom.txt")).expect("is read"), "bottom and more");
    assert_eq!(fs::read_to_string(bottom.join("bottom.txt")).expect("is read"), "bottom");
    assert_eq!((list(top.join("dir")), list(bottom.join("dir"))), (vec!["a".into()], vec!["b".into()]));
}

pub(crate) fn deleting_leaves_a_whiteout(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("gone", "x"), ("stays", "x"), ("dir/x", "x")]);
    let (writable, upper) = place.writable();
    let merged = mounted(&place.overlay(&[&lower]).writable(&writable));
    fs::remove_file(merged.path("gone")).expect("is deleted");
    fs::remove_dir_all(merged.path("dir")).expect("is deleted");
    fs::write(merged.path("char"), "").expect("is written");

    assert_eq!(merged.list(""), ["char", "stays"]);
    assert_eq!(list(&lower), ["dir", "gone", "stays"]);
    let whiteouts = ["gone", "dir", "stays", "char", "never"]
        .map(|name| is_whiteout(open(&upper), name, form).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(whiteouts, [true, true, false, false, false]);
}

pub(crate) fn whiteouts_of_ours_hide(form: Form) {
    let place = Place::new(form);
    let bottom = place.layer("bottom", &[("file", "x"), ("dir/x", "x"), ("deep/gone", "x"), ("deep/kept", "x")]);
    let top = place.layer("top", &[("deep/", "")]);
    for (dir, name) in [("", "file"), ("", "dir"), ("deep", "gone"), ("", "never was")] {
        make_whiteout(open(top.join(dir)), name).unwrap_or_else(|e| panic!("{e}"));
        assert!(is_whiteout(open(top.join(dir)), name, form).expect("is looked at"));
    }
    let merged = mounted(&place.overlay(&[&top, &bottom]));
    assert_eq!((merged.list(""), merged.list("deep")), (vec!["deep".into()], vec!["kept".into()]));
    assert!(missing(merged.path("file")) && missing(merged.path("dir")) && missing(merged.path("deep/gone")));

    let error = make_whiteout(open(&top), "file").expect_err("is there already");
    assert_eq!(error.kind(), cofferdam_unionfs::ErrorKind::AlreadyExists);
}

pub(crate) fn attribute_whiteouts_of_ours_hide(form: Form) {
    let place = Place::new(form);
    let bottom = place.layer("bottom", &[("file", "x"), ("empty", "x"), ("deep/gone", "x"), ("deep/kept", "x")]);
    let top = place.layer("top", &[("deep/", ""), ("empty", "")]);
    for (dir, name) in [("", "file"), ("deep", "gone")] {
        make_xattr_whiteout(open(top.join(dir)), name, form).unwrap_or_else(|e| panic!("{e}"));
        assert!(is_whiteout(open(top.join(dir)), name, form).expect("is looked at"));
    }
    // Neither the mark on the directory nor being empty means more than it does.
    assert!(!is_whiteout(open(&top), "empty", form).expect("is looked at"));
    assert!(!is_opaque(open(&top), form).expect("is looked at"));
    let merged = mounted(&place.overlay(&[&top, &bottom]));
    assert_eq!((merged.list(""), merged.list("deep")), (vec!["deep".into(), "empty".into()], vec!["kept".into()]));
    assert!(missing(merged.path("file")) && missing(merged.path("deep/gone")));
    assert_eq!(merged.read("empty"), "");
    drop(merged);

    // The mark does not take an opaque directory's place.
    make_opaque(open(top.join("deep")), form).expect("is marked");
    make_xattr_whiteout(open(top.join("deep")), "more", form).expect("is made");
    assert!(is_opaque(open(top.join("deep")), form).expect("is looked at"));
}

pub(crate) fn opaque_directories_of_ours_hide(form: Form) {
    let place = Place::new(form);
    let bottom = place.layer("bottom", &[("dir/old", "x"), ("dir/sub/old", "x"), ("other/old", "x")]);
    let top = place.layer("top", &[("dir/new", "x"), ("dir/sub/new", "x"), ("other/new", "x")]);
    assert!(!is_opaque(open(top.join("dir")), form).expect("is looked at"));
    make_opaque(open(top.join("dir")), form).unwrap_or_else(|e| panic!("{e}"));
    assert!(is_opaque(open(top.join("dir")), form).expect("is looked at"));
    let merged = mounted(&place.overlay(&[&top, &bottom]));
    assert_eq!(merged.list("dir"), ["new", "sub"]);
    assert_eq!(merged.list("dir/sub"), ["new"]);
    assert_eq!(merged.list("other"), ["new", "old"]);
}

pub(crate) fn opaque_directories_of_the_kernel_are_seen(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("dir/old", "x"), ("merged/old", "x")]);
    let (writable, upper) = place.writable();
    let merged = mounted(&place.overlay(&[&lower]).writable(&writable));
    fs::remove_dir_all(merged.path("dir")).expect("is deleted");
    fs::create_dir(merged.path("dir")).expect("is made");
    fs::write(merged.path("merged/new"), "").expect("is written");
    let opaque = ["dir", "merged"].map(|name| is_opaque(open(upper.join(name)), form).expect("is looked at"));
    assert_eq!(opaque, [true, false]);
}

pub(crate) fn an_opaque_root_cuts_the_stack(form: Form) {
    let place = Place::new(form);
    let layers = ["a", "b", "c"].map(|name| place.layer(name, &[(name, ""), ("dir/", "")]));
    make_opaque(open(&layers[1]), form).expect("is marked");
    let kernel = raw_overlay(&layers, form).expect("mounts");
    assert_eq!(kernel.list(""), ["a", "b", "c", "dir"], "the kernel used to ignore this");
    assert_eq!(mounted(&place.overlay(&layers)).list(""), ["a", "b", "dir"]);
    assert_eq!(mounted(&place.overlay(&layers[1..])).list(""), ["b", "dir"]);
    let (writable, _) = place.writable();
    assert_eq!(mounted(&place.overlay(&layers).writable(&writable)).list(""), ["a", "b", "dir"]);
}

/// What a layer says in its attributes about files elsewhere is not believed, unless the caller asks for it.
pub(crate) fn a_hostile_layer_points_to_nothing(form: Form) {
    let place = Place::new(form);
    let bottom = place.layer("bottom", &[("secret/file", "secret")]);
    let top = place.layer("top", &[("dir/", ""), ("file", "")]);
    let set = |path: &str, name: &str, value: &str| {
        let prefix = if form == Form::User { "user" } else { "trusted" };
        let name = format!("{prefix}.overlay.{name}");
        assert!(is_overlay_xattr(&name));
        setxattr(top.join(path), name, value.as_bytes(), XattrFlags::empty()).expect("is set");
    };
    set("dir", "redirect", "/secret");
    set("file", "redirect", "/secret/file");
    set("file", "metacopy", "");
    let overlay = place.overlay(&[&top, &bottom]);
    let merged = mounted(&overlay);
    assert!(fs::read_to_string(merged.path("dir/file")).is_err());
    assert_ne!(fs::read_to_string(merged.path("file")).ok().as_deref(), Some("secret"));
    if form == Form::Trusted {
        // With the defence off:
        let merged = mounted(&overlay.redirect_dir(RedirectDir::Follow).metacopy(true));
        assert_eq!((merged.read("dir/file"), merged.read("file")), ("secret".into(), "secret".into()));
    }
}
