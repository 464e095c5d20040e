//! What a layer means: the traps of whiteouts, order, links and attributes, seen through real overlay mounts.

use crate::support::{Scratch, Tar, is_root, lenient, listing, options, tree, unpack, unpack_onto, xattrs};
use cofferdam_image::{Devices, Error, ErrorKind, Options, SkippedPart};
use cofferdam_unionfs::Overlay;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Layers, lowest first, and what is to be seen of their union. The entries of the last layer may come in any order.
pub(crate) type Case = (&'static [&'static [&'static str]], &'static [&'static str]);

pub(crate) const ANY_ORDER: &[Case] = &[
    // The whiteout is about the lower file.
    (&[&["f=old"], &["f=new", ".wh.f"]], &["f=new"]),
    (&[&["f=old", "g=1"], &[".wh.f"]], &["g=1"]),
    (&[&["d/", "d/old=1"], &[".wh.d", "d/", "d/new=2"]], &["d/", "d/new=2"]),
    (&[&["d/", "d/old=1"], &[".wh.d", "d/new=2"]], &["d/", "d/new=2"]),
    (&[&["foo/", "foo/bar=1", "foo/baz=2"], &[".wh.foo", "foo/.wh.bar"]], &[]),
    (&[&["d/", "d/a=1", "d/b=2"], &["d/.wh..wh..opq", "d/", "d/c=3"]], &["d/", "d/c=3"]),
    (&[&["d/", "d/a=1", "d/b=2"], &["d/.wh..wh..opq"]], &["d/"]),
    // Within an opaque directory readdir would list the whiteout.
    (&[&["d/", "d/a=1"], &["d/", "d/.wh..wh..opq", "d/.wh.a", "d/b=2"]], &["d/", "d/b=2"]),
    (&[&["d/", "d/e/", "d/e/a=1"], &["d/.wh..wh..opq", "d/e/", "d/e/.wh.a"]], &["d/", "d/e/"]),
    (&[&["a=1", "d/", "d/x=1"], &[".wh..wh..opq", "b=2"]], &["b=2"]),
    // So it would where nothing is merged.
    (&[&["a=1"], &["d/", "d/.wh.ghost", "d/x=1"]], &["a=1", "d/", "d/x=1"]),
    (&[&["d/", "d/a=1"], &[".wh.d"], &["d/b=1"]], &["d/", "d/b=1"]),
    (&[&["d/", "d/a=1"], &["d/.wh..wh..opq", "d/b=1"], &["d/.wh.a", "d/.wh.b"]], &["d/"]),
    // One kind in place of another.
    (&[&["x=1", "d/", "d/a=1"], &["x/", "x/y=2", "d=3"]], &["d=3", "x/", "x/y=2"]),
    (&[&["x=1"], &["x/y=2"]], &["x/", "x/y=2"]),
    (&[&["d/", "d/a=1"], &["d->e", "e/", "e/b=1"]], &["d->e", "e/", "e/b=1"]),
    // Through a symlink of a lower layer.
    (&[&["u/", "u/l/", "u/l/a=1", "l->u/l"], &["l/x=2"]], &["l->u/l", "u/", "u/l/", "u/l/a=1", "u/l/x=2"]),
    (&[&["u/", "u/l/", "u/l/a=1", "l->/u/l"], &["l/.wh.a"]], &["l->/u/l", "u/", "u/l/"]),
    (
        &[&["u/", "u/l/", "u/l/a=1", "l->../../u/l"], &["l/.wh..wh..opq", "l/b=1"]],
        &["l->../../u/l", "u/", "u/l/", "u/l/b=1"],
    ),
    // Hard links: to what comes later, to a lower layer, through a chain, with an absolute target, to a symlink.
    (&[&[], &["h=>f", "f=1"]], &["f=1", "h=1"]),
    (&[&["f=1"], &["h=>f"]], &["f=1", "h=1"]),
    (&[&["d/", "d/f=1"], &["h=>/d/f", "g=>h"]], &["d/", "d/f=1", "g=1", "h=1"]),
    (&[&["f=old"], &["h=>f", "f=new"]], &["f=new", "h=new"]),
    (&[&["s->nowhere"], &["h=>s"]], &["h->nowhere", "s->nowhere"]),
    (&[&["u/", "u/f=1", "l->u"], &["h=>l/f"]], &["h=1", "l->u", "u/", "u/f=1"]),
    (&[&["f=1"], &[".wh.h", "h=>f", "/g/./"]], &["f=1", "g/", "h=1"]),
    // Another name of the linked file is below what this layer has in place of its directory.
    (&[&["a/", "a/f=1", "b=>a/f"], &["a=2", "h=>b"]], &["a=2", "b=1", "h=1"]),
    (&[&["a/", "a/f=1", "b=>a/f", "c/"], &["a->c", "h=>b"]], &["a->c", "b=1", "c/", "h=1"]),
];

/// The same, in this order only.
pub(crate) const ONE_ORDER: &[Case] = &[
    (&[&["u/", "u/a=1", "l->u"], &["l/", "l/x=2"]], &["l/", "l/x=2", "u/", "u/a=1"]),
    (&[&["f=1", "f=2"]], &["f=2"]),
    (&[&["d/", "d/x=1", "d/e/", "d/e/y=1", "d=3"]], &["d=3"]),
    (&[&["d/", "d/old=1"], &["d=1", "d/", "d/x=2"]], &["d/", "d/x=2"]),
    (&[&["d/", "d/x=1"], &["s->d", "s/", "s/y=1"]], &["d/", "d/x=1", "s/", "s/y=1"]),
    (&[&["r/", "l->r", "l/x=1"]], &["l->r", "r/", "r/x=1"]),
    (&[&["r/", "l->/r/../r", "l/x=1"]], &["l->/r/../r", "r/", "r/x=1"]),
    (&[&["f=1", "h=>f", "f=2"]], &["f=2", "h=1"]),
    (&[&["f=1", "h=>g", "h=2", "g=3"]], &["f=1", "g=3", "h=2"]),
];

/// Looks at the mounted union of some layers.
pub(crate) fn union<T>(layers: &[PathBuf], look: impl Fn(&Path) -> T) -> T {
    // A lower alone would not be an overlay.
    let ground = layers[0].with_file_name("ground");
    fs::create_dir_all(&ground).unwrap();
    let mount = Overlay::new().lowers(layers.iter().rev()).lower(&ground).mount().unwrap();
    look(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())))
}

/// All that there is to see of the union. (Of a single layer that hides the others, the mount shows its own marks too.)
pub(crate) fn seen(layers: &[PathBuf]) -> BTreeMap<String, String> {
    let mut tree = union(layers, tree);
    for line in tree.values_mut() {
        *line = line.replace("trusted.overlay.opaque=[79] ", "");
    }
    tree
}

fn orders(entries: &[&'static str]) -> Vec<Vec<&'static str>> {
    let Some((first, rest)) = entries.split_first() else { return vec![Vec::new()] };
    let insert =
        |order: Vec<&'static str>| (0..=order.len()).map(move |at| [&order[..at], &[*first], &order[at..]].concat());
    orders(rest).into_iter().flat_map(insert).collect()
}

pub(crate) fn layers_mean_what_they_should_in_any_order() {
    for (layers, expected) in ANY_ORDER {
        let (last, below) = layers.split_last().unwrap();
        let mut first_tree = None;
        for order in orders(last) {
            let scratch = Scratch::new();
            let stack: Vec<Tar> = below.iter().map(|l| Tar::of(l)).chain([Tar::of(&order)]).collect();
            let done = scratch.layers(&stack);
            assert_eq!(union(&done, listing), *expected, "{layers:?} as {order:?}");
            let flat = scratch.flat(&stack);
            assert_eq!(tree(&flat), seen(&done), "{layers:?} as {order:?}, flattened");
            let top = tree(done.last().unwrap());
            let first = first_tree.get_or_insert_with(|| top.clone());
            assert_eq!(*first, top, "{layers:?} as {order:?}");
        }
    }
}

pub(crate) fn of_several_with_one_name_the_last_counts() {
    for (layers, expected) in ONE_ORDER {
        let scratch = Scratch::new();
        let stack: Vec<Tar> = layers.iter().map(|l| Tar::of(l)).collect();
        let done = scratch.layers(&stack);
        assert_eq!(union(&done, listing), *expected, "{layers:?}");
        assert_eq!(tree(&scratch.flat(&stack)), seen(&done), "{layers:?}, flattened");
    }
}

/// Without a mount: what every user can see.
pub(crate) fn flattened_layers_mean_the_same() {
    for (layers, expected) in ANY_ORDER.iter().chain(ONE_ORDER) {
        let scratch = Scratch::new();
        let stack: Vec<Tar> = layers.iter().map(|l| Tar::of(l)).collect();
        assert_eq!(listing(&scratch.flat(&stack)), *expected, "{layers:?}");
    }
}

/// Where the order would matter, one order is refused.
pub(crate) fn contradictions_are_refused() {
    let below = Tar::of(&["u/", "l->u"]);
    for (entries, kind) in [
        (&["l/x=1", ".wh.l"][..], ErrorKind::Refused),
        (&["l/x=1", "l/"], ErrorKind::Refused),
        (&["l/x=1", "l=file"], ErrorKind::Refused),
        (&["a/x=1", "a=file"], ErrorKind::Refused),
        (&["a/x=1", "a->b"], ErrorKind::Refused),
        (&["a=file", "a/x=1"], ErrorKind::Refused),
        (&["h=>h"], ErrorKind::Refused),
        (&["h=>l/../h"], ErrorKind::Refused),
        (&["g=>h", "h=>g"], ErrorKind::NotFound),
        (&["h=>nowhere"], ErrorKind::NotFound),
        (&["h=>u"], ErrorKind::Refused),
        (&["d/", "h=>d"], ErrorKind::Refused),
        (&["h=>d", "d/"], ErrorKind::Refused),
        (&["h=>l", ".wh.l"], ErrorKind::NotFound),
        (&["h=>f", "h/x=1", "f=1"], ErrorKind::Refused),
        (&["a->b", "b->a", "a/x=1"], ErrorKind::Refused),
    ] {
        let scratch = Scratch::new();
        let lowers = scratch.layers(std::slice::from_ref(&below));
        let error = unpack(&Tar::of(entries).end(), &scratch.stage(), Some(&lowers), lenient()).unwrap_err();
        assert_eq!(error.kind(), kind, "{entries:?}: {error}");
        assert!(error.entry().is_some(), "{error}");
        let target = scratch.flat(std::slice::from_ref(&below));
        let error = unpack_onto(&Tar::of(entries).end(), &scratch.stage(), &target, lenient()).unwrap_err();
        assert_eq!(error.kind(), kind, "{entries:?}, flattened: {error}");
    }
}

pub(crate) fn a_link_to_a_lower_file_is_of_one_file_with_all_its_attributes() {
    let scratch = Scratch::new();
    let below = Tar::of(&["d/"]).pax(b'x', &[("SCHILY.xattr.user.kind", b"tool"), ("mtime", b"7.000000009")]).header(
        b'0',
        "d/f",
        "",
        b"content",
        |h| h.set_mode(0o4751),
    );
    let done = scratch.layers(&[below, Tar::of(&["h=>d/f"])]);
    let (lower, copy, link) = (done[0].join("d/f"), done[1].join("d/f"), done[1].join("h"));
    let (lower_meta, copy_meta) = (fs::metadata(&lower).unwrap(), fs::metadata(&copy).unwrap());
    assert_eq!(copy_meta.ino(), fs::metadata(&link).unwrap().ino());
    assert_ne!(copy_meta.ino(), lower_meta.ino(), "the lower layer is not linked into this one");
    assert_eq!((lower_meta.nlink(), copy_meta.nlink()), (1, 2));
    assert_eq!(copy_meta.mode() & 0o7777, 0o4751);
    assert_eq!((copy_meta.mtime(), copy_meta.mtime_nsec()), (7, 9));
    assert_eq!(xattrs(&copy)["user.kind"], b"tool");
    assert_eq!(fs::read(&link).unwrap(), b"content");
}

pub(crate) fn a_directory_that_is_passed_through_is_as_below() {
    let scratch = Scratch::new();
    let below = Tar::default().pax(b'x', &[("mtime", b"-5.5"), ("SCHILY.xattr.user.a", b"b")]).header(
        b'5',
        "d",
        "",
        b"",
        |h| h.set_mode(0o2750),
    );
    let done = scratch.layers(&[below, Tar::of(&["d/x=1", "new/x=1"])]);
    let [lower, upper] = [tree(&done[0]), tree(&done[1])];
    assert_eq!(lower["d"], upper["d"]);
    assert!(upper["d"].starts_with("042750") && upper["d"].contains("mtime -6.500000000"), "{}", upper["d"]);
    assert_eq!(lower[""], upper[""], "the root too");
    assert!(upper["new"].starts_with("040755") && upper["new"].contains("mtime 0.0"), "{}", upper["new"]);
    // And where this layer has cut it off, it is not.
    let scratch = Scratch::new();
    let below = Tar::default().header(b'5', "d", "", b"", |h| h.set_mode(0o700));
    let done = scratch.layers(&[below, Tar::of(&["d/x=1", ".wh.d"])]);
    assert_eq!(fs::metadata(done[1].join("d")).unwrap().mode() & 0o7777, 0o755);
}

/// Modes that keep the caller out, times with nanoseconds, attributes on files and directories, links of all sorts.
pub(crate) fn attributes_are_as_in_the_archive() {
    let scratch = Scratch::new();
    let tar = Tar::default()
        .header(b'5', "locked", "", b"", |h| h.set_mode(0o000))
        .pax(b'x', &[("mtime", b"1234567890.123456789"), ("atime", b"-1.000000001"), ("SCHILY.xattr.user.x", b"\0\n=")])
        .header(b'0', "locked/file", "", b"data", |h| h.set_mode(0o6111))
        .pax(b'x', &[("mtime", b"5.5"), ("LIBARCHIVE.xattr.user.%65", b"Zm9v")])
        .header(b'5', "dir", "", b"", |h| h.set_mode(0o1777))
        .pax(b'x', &[("mtime", b"6.25"), ("linkpath", b"dangling")])
        .raw(b'2', "dir/symlink", "", b"")
        .pax(b'x', &[("path", "d\u{e4}/\u{1f600}".as_bytes())])
        .raw(b'6', "ignored", "", b"")
        .header(b'5', "./", "", b"", |h| h.set_mode(0o711));
    let stage = scratch.stage();
    let report = unpack(&tar.end(), &stage, None, options()).unwrap();
    assert_eq!((report.entries, report.bytes, report.skipped.len()), (6, 4, 0));
    assert_eq!(fs::metadata(&stage).unwrap().mode() & 0o7777, 0o711);
    let dir = fs::metadata(stage.join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime(), dir.mtime_nsec()), (0o1777, 5, 500_000_000));
    assert_eq!(xattrs(&stage.join("dir"))["user.e"], b"foo");
    let symlink = fs::symlink_metadata(stage.join("dir/symlink")).unwrap();
    assert_eq!((symlink.mtime(), symlink.mtime_nsec()), (6, 250_000_000));
    assert_eq!(fs::read_link(stage.join("dir/symlink")).unwrap(), PathBuf::from("dangling"));
    assert_eq!(fs::metadata(stage.join("d\u{e4}/\u{1f600}")).unwrap().mode(), 0o010_644);
    let locked = fs::metadata(stage.join("locked")).unwrap();
    assert_eq!((locked.mode() & 0o7777, locked.mtime()), (0, 1_000_000_000));
    // Let the test, as an ordinary user, look and clean up.
    fs::set_permissions(stage.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    let file = fs::metadata(stage.join("locked/file")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.len()), (0o6111, 4));
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((file.atime(), file.atime_nsec()), (-2, 999_999_999));
    fs::set_permissions(stage.join("locked/file"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(xattrs(&stage.join("locked/file"))["user.x"], b"\0\n=");
}

/// `cap_net_raw=ep`, as `setcap` writes it.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn roots_own() -> Tar {
    Tar::default()
        .pax(b'x', &[("SCHILY.xattr.security.capability", CAPABILITY), ("uid", b"70000"), ("gid", b"70001")])
        .header(b'0', "ping", "", b"\x7fELF", |h| h.set_mode(0o4755))
        .header(b'3', "null", "", b"", |h| {
            h.set_mode(0o666);
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        })
        .header(b'4', "disk", "", b"", |h| {
            h.set_device_major(300).unwrap();
            h.set_device_minor(70).unwrap();
        })
        .header(b'2', "link", "ping", b"", |h| h.set_uid(12))
}

pub(crate) fn owners_devices_and_capabilities_as_root() {
    let scratch = Scratch::new();
    let stage = scratch.stage();
    let report = unpack(&roots_own().end(), &stage, None, Options::new()).unwrap();
    assert_eq!(report.skipped, []);
    let ping = fs::metadata(stage.join("ping")).unwrap();
    assert_eq!((ping.uid(), ping.gid(), ping.mode() & 0o7777), (70000, 70001, 0o4755));
    assert_eq!(xattrs(&stage.join("ping"))["security.capability"], CAPABILITY);
    let null = fs::metadata(stage.join("null")).unwrap();
    assert_eq!((null.mode(), null.rdev()), (0o020_666, rustix::fs::makedev(1, 3)));
    let disk = fs::metadata(stage.join("disk")).unwrap();
    assert_eq!((disk.mode(), disk.rdev()), (0o060_644, rustix::fs::makedev(300, 70)));
    assert_eq!(fs::symlink_metadata(stage.join("link")).unwrap().uid(), 12);

    let stage = scratch.stage();
    let report = unpack(&roots_own().end(), &stage, None, Options::new().devices(Devices::Skip)).unwrap();
    assert_eq!(report.skipped.len(), 2);
    assert_eq!(listing(&stage).len(), 2);
}

/// Also as root: then the caller is root.
pub(crate) fn squashed_to_the_caller() {
    let scratch = Scratch::new();
    let stage = scratch.stage();
    let tar = roots_own().entry("d/").entry("d/.wh..wh..opq").entry(".wh.gone");
    let report = unpack(&tar.end(), &stage, None, Options::rootless()).unwrap();
    let skipped: Vec<_> = report.skipped.iter().map(|s| (s.entry.to_str().unwrap(), &s.what)).collect();
    let capability = SkippedPart::Xattr("security.capability".into());
    let expected = [("ping", &capability), ("null", &SkippedPart::Device), ("disk", &SkippedPart::Device)];
    assert_eq!(skipped, expected);
    let me = rustix::process::geteuid().as_raw();
    for path in ["ping", "link", "d", ""] {
        assert_eq!(fs::symlink_metadata(stage.join(path)).unwrap().uid(), me, "{path}");
    }
    assert_eq!(fs::metadata(stage.join("ping")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(xattrs(&stage.join("d"))["user.overlay.opaque"], b"y");
    assert_eq!(listing(&stage), ["d/", "gone char 0", "link->ping", "ping=\u{7f}ELF"]);
    if !is_root() {
        let stage = scratch.stage();
        let error = unpack(&roots_own().end(), &stage, None, Options::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

/// Without lowers nothing is known: whiteouts stay, a link to elsewhere is an error that says so.
pub(crate) fn without_lowers() {
    let scratch = Scratch::new();
    let unpack_one = |entries: &[&str]| -> Result<Vec<String>, Error> {
        let stage = scratch.stage();
        unpack(&Tar::of(entries).end(), &stage, None, options())?;
        Ok(listing(&stage))
    };
    assert_eq!(unpack_one(&["d/", "d/.wh.x"]).unwrap(), ["d/", "d/x char 0"]);
    assert_eq!(unpack_one(&["d/.wh.x", "d/.wh..wh..opq"]).unwrap(), ["d/"]);
    assert_eq!(unpack_one(&["a=1", "a/.wh.x"]).unwrap(), ["a=1"], "below a file nothing is left to hide");
    assert_eq!(unpack_one(&[".wh..wh.plnk/", ".wh..wh.plnk/1.2=x", ".wh..wh.aufs=x"]).unwrap(), [""; 0]);
    let error = unpack_one(&["h=>elsewhere"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nothing is known about lower ones"), "{error}");
}

/// A whiteout's name decides, whatever its type.
pub(crate) fn whiteouts_of_every_type() {
    for flag in [b'0', b'1', b'2', b'3', b'4', b'5', b'6', b'Z'] {
        let scratch = Scratch::new();
        let lowers = scratch.layers(&[Tar::of(&["f=1", "g=1"])]);
        let stage = scratch.stage();
        let data: &[u8] = if matches!(flag, b'0' | b'Z') { b"some data" } else { b"" };
        let tar = Tar::default().raw(flag, ".wh.f", "g", data);
        unpack(&tar.clone().end(), &stage, Some(&lowers), options()).unwrap();
        assert_eq!(listing(&stage), ["f char 0"]);
        assert_eq!(listing(&scratch.flat(&[Tar::of(&["f=1", "g=1"]), tar])), ["g=1"]);
    }
}
