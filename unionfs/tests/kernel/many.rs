//! Many lowers, long names, strange names, the same one twice.

use crate::support::{Merged, Place, list, mounted, raw_overlay};
use cofferdam_unionfs::{ErrorKind, Form, MAX_LOWERS, Operation, WritableLayer};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// As many layers as asked for, with paths of 300 bytes and more. Each has a file of its own and one that all have.
pub(crate) fn layers(place: &Place, count: usize) -> Vec<PathBuf> {
    let deep = format!("{}/{}", "long".repeat(40), "path".repeat(40));
    let layer = |i: usize| place.layer(&format!("{deep}/{i}"), &[(&format!("of {i}"), ""), ("all", &i.to_string())]);
    (0..count).map(layer).collect()
}

pub(crate) fn shows_all(merged: &Merged, count: usize) {
    assert_eq!(merged.read("all"), "0");
    let mut expected: Vec<String> = (0..count).map(|i| format!("of {i}")).chain(["all".into()]).collect();
    expected.sort();
    assert_eq!(merged.list(""), expected, "of {count} lowers");
}

pub(crate) fn any_number_of_lowers(form: Form) {
    let place = Place::new(form);
    let layers = layers(&place, MAX_LOWERS);
    let (writable, upper) = place.writable();
    for count in [1, 2, 10, 128, MAX_LOWERS] {
        let lowers = layers.get(..count).expect("as many");
        shows_all(&mounted(&place.overlay(lowers)), count);
        let merged = mounted(&place.overlay(lowers).writable(&writable));
        shows_all(&merged, count);
        fs::write(merged.path("all"), "0").expect("is written");
    }
    assert_eq!(list(upper), ["all"]);
}

/// The reason why this crate does not use mount(2): its options are cut at 4095 bytes, and if a path ends there, nobody is told.
pub(crate) fn mount_2_loses_lowers(form: Form) {
    let place = Place::new(form);
    // 9 bytes of `lowerdir=`, and 61 times a path of 66 bytes with a colon: the cut takes a colon away.
    let name = |i: usize| {
        let rest = 66 - place.path().as_os_str().len() - 1;
        format!("{i:0rest$}")
    };
    let layers: Vec<PathBuf> =
        (0..75).map(|i| place.layer(&name(i), &[(&format!("of {i}"), ""), ("all", "0")])).collect();
    let paths: Vec<&str> = layers.iter().map(|l| l.to_str().expect("UTF-8")).collect();
    assert!(paths.iter().all(|p| p.len() == 66), "{paths:?}");

    let options = format!("lowerdir={}{}", paths.join(":"), if form == Form::User { ",userxattr" } else { "" });
    let target = place.layer("merged", &[]);
    mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .expect("says that all is well");
    let shown = list(&target);
    umount2(&target, MntFlags::empty()).expect("is unmounted");
    assert!(shown.contains(&"of 60".into()) && !shown.contains(&"of 61".into()), "{shown:?}");

    shows_all(&mounted(&place.overlay(&layers)), 75);
}

pub(crate) fn five_hundred_and_one(form: Form) {
    let place = Place::new(form);
    let layers = layers(&place, MAX_LOWERS + 1);
    let error = place.overlay(&layers).mount().expect_err("too many");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidInput, Operation::Check));
    assert_eq!(
        error.to_string(),
        "check the overlay: \"lowers\": there are more than 500, which is what overlayfs takes"
    );
    // Equal ones do not count.
    let twice = layers.iter().take(MAX_LOWERS).flat_map(|l| [l, l]);
    shows_all(&mounted(&place.overlay::<PathBuf>(&[]).lowers(twice)), MAX_LOWERS);
}

pub(crate) fn names_of_any_bytes(form: Form) {
    let place = Place::new(form);
    let names: [&[u8]; 10] = [
        b"comma,upperdir=x",
        b"colon:colon::",
        b"back\\slash\\:\\,\\\\",
        b"new\nline",
        b"space tab\t",
        b"quotes'\"`$(x)",
        b"=%2c\\054",
        b"\xff\xfe not UTF-8",
        b"ends with a backslash\\",
        &[b'x'; 255],
    ];
    let layers: Vec<PathBuf> = names.iter().map(|name| place.path().join(OsStr::from_bytes(name))).collect();
    for (i, layer) in layers.iter().enumerate() {
        fs::create_dir(layer).expect("is made");
        fs::write(layer.join(format!("of {i}")), "").expect("is written");
        fs::write(layer.join("all"), i.to_string()).expect("is written");
    }
    shows_all(&mounted(&place.overlay(&layers)), layers.len());
    // And each with such a place for upper and work.
    let lower = place.layer("lower", &[]);
    for layer in &layers {
        let writable = layer.join("writable");
        fs::create_dir(&writable).expect("is made");
        let merged = WritableLayer::create(crate::support::open(&writable)).expect("is made");
        let merged = mounted(&place.overlay(&[&lower]).writable(&merged));
        fs::write(merged.path("new"), "new").expect("is written");
        assert_eq!(list(writable.join("upper")), ["new"]);
        drop(merged);
        let by_path = mounted(&place.overlay(&[&lower]).upper(writable.join("upper"), writable.join("work")));
        assert_eq!(by_path.list(""), ["new"]);
    }
}

pub(crate) fn a_lower_given_twice(form: Form) {
    let place = Place::new(form);
    let layers = layers(&place, 2);
    let [a, b] = layers.as_slice() else { panic!("two layers") };
    let stack = [a, b, a, b, b];
    assert_eq!(raw_overlay(&[&place.path().join("."), place.path()], form).err(), Some(rustix::io::Errno::LOOP));
    shows_all(&mounted(&place.overlay(&stack)), 2);
    // Only one remains, under two names.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(a, &link).expect("is made");
    assert_eq!(mounted(&place.overlay(&[a, &link])).list(""), ["all", "of 0"]);
}
