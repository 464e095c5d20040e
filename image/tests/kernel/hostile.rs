//! Archives that want to write outside, or to be taken for something else. For each that could harm a careless unpacker, such a one is
//! run too: if it does not harm, the test proves nothing.

use crate::support::{
    Scratch, Tar, is_root, lenient, listing, long_path, options, sentinel, unpack, unpack_new, unpack_onto, xattrs,
};
use cofferdam_image::{ErrorKind, Limits, Options};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Unpacks by paths, as too many do.
pub(crate) fn careless(archive: &[u8], stage: &Path) {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = stage.join(entry.path().unwrap());
        let link = entry.link_name().unwrap().map(std::borrow::Cow::into_owned);
        // Whatever fails, the next one may not.
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                let _ = fs::create_dir(&path);
                let mode = fs::Permissions::from_mode(entry.header().mode().unwrap());
                let _ = fs::set_permissions(&path, mode);
            }
            tar::EntryType::Symlink => drop(symlink(link.unwrap(), &path)),
            tar::EntryType::Link => drop(fs::hard_link(stage.join(link.unwrap()), &path)),
            _ => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data).unwrap();
                let _ = fs::write(&path, data);
            }
        }
    }
}

/// Each writes into, replaces, links to or changes what is outside, if it is let.
pub(crate) const CASES: &[&[&str]] = &[
    &["l->../outside", "l/evil=1"],
    &["l->../outside/file", "l=overwritten"],
    &["l->../outside", "l/"],
    &["l->../outside/dir", "l/", "l/evil/"],
    &["l->..", "l/outside/file=overwritten"],
    &["a/", "a/l->../../outside", "a/l/dir/evil=1"],
    &["l->../outside", "m->l", "m/evil=1"],
    &["h=>../outside/file", "h=overwritten"],
    &["l->../outside", "h=>l/file", "h=overwritten"],
    &["../outside/evil=1"],
    &["a/", "a/../../outside/evil=1"],
    &["../outside/"],
    &["l->../outside", "l/evil|", "l/evil->x", "l/evil/"],
];

pub(crate) fn nothing_outside_changes() {
    for entries in CASES {
        let tar = Tar::of(entries);
        let scratch = Scratch::new();
        let before = sentinel(&scratch.outside());
        // What is refused is refused; what is not must stay inside.
        let (stage, result) = unpack_new(&scratch, &tar);
        assert_eq!(sentinel(&scratch.outside()), before, "{entries:?}");
        if let Err(error) = result {
            assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::NotFound), "{entries:?}: {error}");
            assert!(error.entry().is_some(), "{error}");
        } else {
            assert!(!listing(&stage).is_empty());
        }
        // Nor if what leads outside is in the tree already.
        for split in 1..entries.len() {
            let (below, above) = entries.split_at(split);
            let (stage, target) = (scratch.stage(), scratch.stage());
            for part in [below, above] {
                // Whatever is refused, the next part may not be.
                let _ = unpack_onto(&Tar::of(part).end(), &stage, &target, lenient());
                fs::remove_dir_all(&stage).unwrap();
                fs::create_dir(&stage).unwrap();
            }
            assert_eq!(sentinel(&scratch.outside()), before, "{below:?}, then {above:?}");
        }
        // The proof that it could have changed.
        let stage = scratch.stage();
        careless(&tar.end(), &stage);
        assert_ne!(sentinel(&scratch.outside()), before, "{entries:?} does not even harm the careless");
    }
}

/// An absolute symlink means the root of the image, not that of the machine.
pub(crate) fn absolute_symlinks_stay_inside() {
    let scratch = Scratch::new();
    let before = sentinel(&scratch.outside());
    let outside = scratch.outside();
    let target = outside.to_str().unwrap();
    let tar = Tar::of(&[&format!("l->{target}"), "l/evil=1", "l/dir/more=1"]);
    let (stage, result) = unpack_new(&scratch, &tar);
    result.unwrap();
    assert_eq!(sentinel(&outside), before);
    assert_eq!(fs::read_to_string(stage.join(target.trim_start_matches('/')).join("evil")).unwrap(), "1");
    careless(&tar.end(), &scratch.stage());
    assert_ne!(sentinel(&outside), before);
}

/// The same through the symlinks of a lower layer.
pub(crate) fn symlinks_of_lower_layers_stay_inside() {
    let scratch = Scratch::new();
    let before = sentinel(&scratch.outside());
    let lowers = scratch.layers(&[Tar::of(&["l->../outside", "m->../../../../../etc"])]);
    let stage = scratch.stage();
    let tar = Tar::of(&["l/evil=1", "m/cofferdam-evil=1", "l/.wh.file", "h=>l/evil"]);
    unpack(&tar.end(), &stage, Some(&lowers), options()).unwrap();
    assert_eq!(sentinel(&scratch.outside()), before);
    assert!(!Path::new("/etc/cofferdam-evil").exists());
    let inside = ["etc/", "etc/cofferdam-evil=1", "h=1", "outside/", "outside/evil=1"];
    assert_eq!(listing(&stage), inside);
}

/// What is in the archive, the archive, how it is refused.
pub(crate) type Refused = (&'static str, Tar, ErrorKind);

pub(crate) fn bad_names() -> Vec<Refused> {
    let xattr = |key: &str| Tar::default().pax(b'x', &[(key, b"y")]).entry("d/");
    let device = Tar::default().header(b'3', "x", "", b"", |h| {
        h.set_device_major(0).unwrap();
        h.set_device_minor(0).unwrap();
    });
    vec![
        ("the root as a symlink", Tar::of(&[".->/"]), ErrorKind::Refused),
        ("the root as a file", Tar::of(&["./=x"]), ErrorKind::Malformed),
        ("the root as a link", Tar::of(&["f=1", "/=>f"]), ErrorKind::Refused),
        ("no name", Tar::of(&["=x"]), ErrorKind::Refused),
        ("dots", Tar::of(&["a/../b=1"]), ErrorKind::Refused),
        ("a link with dots", Tar::of(&["h=>../x"]), ErrorKind::Refused),
        ("a link to nothing", Tar::of(&["h=>"]), ErrorKind::Refused),
        ("a symlink to nothing", Tar::of(&["s->"]), ErrorKind::Refused),
        ("a whiteout of nothing", Tar::of(&[".wh.=1"]), ErrorKind::Refused),
        ("a whiteout of the parent", Tar::of(&["a/.wh...=1"]), ErrorKind::Refused),
        ("a file in a whiteout", Tar::of(&[".wh.a/b=1"]), ErrorKind::Refused),
        ("a whiteout device", device, ErrorKind::Refused),
        ("an opaque mark", xattr("SCHILY.xattr.trusted.overlay.opaque"), ErrorKind::Refused),
        ("a redirect", xattr("SCHILY.xattr.user.overlay.redirect"), ErrorKind::Refused),
        ("an encoded redirect", xattr("LIBARCHIVE.xattr.trusted.overlay%2eredirect"), ErrorKind::Refused),
    ]
}

/// Not all readers see a prefix in it, or the same one.
fn prefixed(magic: [u8; 8], prefix: &[u8]) -> Tar {
    Tar::default().header(b'0', "f", "", b"1", |h| {
        let bytes = h.as_mut_bytes();
        bytes[257..265].copy_from_slice(&magic);
        bytes[345..345 + prefix.len()].copy_from_slice(prefix);
        if prefix.len() > 130 {
            bytes[508..512].copy_from_slice(b"tar\0");
        }
    })
}

pub(crate) fn bad_headers() -> Vec<Refused> {
    let xattr = |key: &str| Tar::default().pax(b'x', &[(key, b"y")]).entry("d/");
    let pax = |records: &[(&str, &[u8])]| Tar::default().pax(b'x', records).entry("f=1");
    vec![
        ("an attribute without a name", xattr("SCHILY.xattr."), ErrorKind::Malformed),
        ("a size for all", Tar::default().pax(b'g', &[("size", b"1")]).entry("f=1"), ErrorKind::Malformed),
        ("a name for all", Tar::default().pax(b'g', &[("path", b"x")]).entry("f=1"), ErrorKind::Malformed),
        ("an unknown type", Tar::default().raw(b'Z', "x", "", b""), ErrorKind::Unsupported),
        ("a sparse file of the future", pax(&[("GNU.sparse.major", b"2")]), ErrorKind::Malformed),
        ("a sparse file", pax(&[("GNU.sparse.major", b"1")]), ErrorKind::Malformed),
        ("a zero byte", pax(&[("path", b"a\0b")]), ErrorKind::Malformed),
        ("nobody's id", pax(&[("uid", b"4294967295")]), ErrorKind::Malformed),
        ("a huge id", pax(&[("gid", b"18446744073709551615")]), ErrorKind::Malformed),
        (
            "two extended headers",
            Tar::default().pax(b'x', &[("path", b"a")]).pax(b'x', &[("path", b"b")]).entry("c=1"),
            ErrorKind::Malformed,
        ),
        (
            "PAX beside GNU",
            Tar::default().raw(b'L', "x", "", b"long").pax(b'x', &[("path", b"b")]).entry("c=1"),
            ErrorKind::Malformed,
        ),
        (
            "a GNU name cut off",
            Tar::default().header(b'L', "x", "", b"long", |h| h.set_size(3)).entry("c=1"),
            ErrorKind::Malformed,
        ),
        ("a header for nothing", Tar::default().pax(b'x', &[("path", b"a")]), ErrorKind::Malformed),
        ("a file like a directory", Tar::of(&["d/=1"]), ErrorKind::Malformed),
        ("a prefix before POSIX", prefixed(*b"\0\0\0\0\0\0\0\0", b"evil"), ErrorKind::Malformed),
        ("a prefix in GNU's format", prefixed(*b"ustar  \0", b"evil"), ErrorKind::Malformed),
        ("times in GNU's format, a prefix to some", prefixed(*b"ustar  \0", b"00000000001\0"), ErrorKind::Malformed),
        ("star's times after a long prefix", prefixed(*b"ustar\x0000", &[b'p'; 140]), ErrorKind::Malformed),
        (
            "a wrong checksum",
            Tar({
                let mut t = Tar::of(&["f=1"]).0;
                t[0] ^= 1;
                t
            }),
            ErrorKind::Malformed,
        ),
        (
            "a lone zero block",
            Tar([&Tar::of(&["f=1"]).0[..], &[0; 512], &Tar::of(&["g=1"]).0].concat()),
            ErrorKind::Malformed,
        ),
    ]
}

pub(crate) fn what_is_refused() {
    for (what, tar, kind) in bad_names().into_iter().chain(bad_headers()) {
        let scratch = Scratch::new();
        let before = sentinel(&scratch.outside());
        let error = unpack_new(&scratch, &tar).1.expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert_eq!(sentinel(&scratch.outside()), before);
    }
}

pub(crate) fn limits_hold() {
    let mut limits = Limits::default();
    limits.entries = 3;
    limits.bytes = 100 << 10;
    limits.depth = 4;
    limits.name_bytes = 300;
    limits.xattr_bytes = 100;
    limits.pax_bytes = 1000;
    let long = |flag, size: u64| Tar::default().header(flag, "x", "", b"", move |h| h.set_size(size));
    let name = vec![b'x'; 301];
    for (what, tar, message) in [
        ("entries", Tar::of(&["a=", "b=", "c=", "d="]), "3 entries"),
        ("bytes", Tar::of(&[&format!("a={}", "x".repeat(110 << 10))]), "102400 bytes in the archive"),
        ("a size", long(b'0', 7 << 40), "102400 bytes in the archive"),
        ("depth", Tar::of(&["a/b/c/d/e="]), "4 components in a name"),
        ("where a symlink leads", Tar::of(&["l->a/b/c/d", "l/x="]), "4 components in a path"),
        ("where a symlink leads a whiteout", Tar::of(&["l->a/b/c/d", "l/.wh.x="]), "4 components in a path"),
        (
            "where a symlink leads an opaque directory",
            Tar::of(&["l->a/b/c/d", "l/x/.wh..wh..opq="]),
            "4 components in a path",
        ),
        ("where a symlink leads a link", Tar::of(&["l->a/b/c/d", "f=>l/x"]), "4 components in a path"),
        ("to and fro", Tar::of(&[&format!("l->{}", "a/../".repeat(17)), "l/x="]), "32 components on the way of a path"),
        ("a name", Tar::default().pax(b'x', &[("path", &name)]).entry("a="), "300 bytes in a name"),
        ("a GNU name", long(b'L', 1 << 40), "301 bytes in a name"),
        (
            "attributes",
            Tar::default().pax(b'x', &[("SCHILY.xattr.user.a", &[7; 100])]).entry("a="),
            "100 bytes of extended attributes of an entry",
        ),
        ("a PAX header", long(b'x', 1 << 40), "1000 bytes of PAX headers"),
        (
            "global PAX headers",
            (0..4).fold(Tar::default(), |t, i| t.pax(b'g', &[(&format!("SCHILY.xattr.user.k{i}"), &[b'x'; 300])])),
            "1000 bytes of PAX headers",
        ),
    ] {
        let scratch = Scratch::new();
        let mut archive = tar.end();
        if what == "bytes" || what == "a size" {
            archive.extend_from_slice(&vec![0; 200 << 10]);
        }
        let error = unpack(&archive, &scratch.stage(), None, options().limits(limits.clone())).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {error}");
        assert!(error.to_string().ends_with(&format!("more than {message}")), "{what}: {error}");
    }
}

/// One header gives all entries their attributes: what that comes to on the disk is limited like the bytes in files.
pub(crate) fn bytes_of_attributes_are_limited() {
    const EACH: usize = 2 << 10;
    const LIMIT: usize = 16 * EACH;
    let records: Vec<(String, Vec<u8>)> = ["a", "b", "c", "d"]
        .map(|name| (format!("SCHILY.xattr.user.{name}"), vec![b'v'; EACH / 4 - "user.a".len()]))
        .to_vec();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
    let mut limits = Limits::default();
    limits.bytes = LIMIT as u64;
    for entry in ["f=", "d/", "s->x", "p|", "ff=1"] {
        let at = entry.len() - entry.trim_start_matches(char::is_alphabetic).len();
        let (name, rest) = entry.split_at(at);
        let tar = (0..20).fold(Tar::default().pax(b'g', &records), |tar, n| tar.entry(&format!("{name}{n:02}{rest}")));
        let (scratch, options) = (Scratch::new(), lenient().limits(limits.clone()));
        let stage = scratch.stage();
        let error = unpack(&tar.end(), &stage, None, options).expect_err(entry);
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{entry}: {error}");
        assert!(error.to_string().ends_with("more than 32768 bytes in files"), "{entry}: {error}");
        // As many as there is room for; with a byte of data each, one less.
        let made = listing(&stage).len();
        assert_eq!(made, LIMIT / EACH - usize::from(entry == "ff=1"), "{entry}");
        let on_disk: usize = std::iter::once(stage.clone())
            .chain(fs::read_dir(&stage).unwrap().map(|entry| entry.unwrap().path()))
            .flat_map(|path| xattrs(&path))
            .filter(|(name, _)| name.starts_with("user."))
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(on_disk <= LIMIT, "{entry}: {on_disk} bytes");
    }
    // What there is room for is not data.
    let scratch = Scratch::new();
    let tar = (0..3).fold(Tar::default().pax(b'g', &records), |tar, n| tar.entry(&format!("{n}=1")));
    let report = unpack(&tar.end(), &scratch.stage(), None, lenient().limits(limits)).unwrap();
    assert_eq!(report.bytes, 3);
}

/// What has to be remembered until the end of a layer has a bound, whatever it is: few entries can ask for much.
pub(crate) fn what_is_kept_has_a_bound() {
    let mut limits = Limits::default();
    limits.kept_bytes = 64 << 10;
    let many = |entry: &dyn Fn(Tar, usize) -> Tar| (0..400).fold(Tar::default(), entry);
    // Short names that lead to long ones.
    let through = |name: &dyn Fn(usize) -> String| {
        (0..100).fold(Tar::default().long_symlink("l", &long_path()), |tar, n| tar.entry(&format!("{}=", name(n))))
    };
    let long = "x".repeat(90);
    let attribute = vec![b'v'; 200 << 10];
    for (what, tar) in [
        ("directories", many(&|tar, n| tar.entry(&format!("{n}{long}/")))),
        ("directories that are passed through", many(&|tar, n| tar.entry(&format!("{n}{long}/f=")))),
        ("whiteouts", many(&|tar, n| tar.entry(&format!(".wh.{n}{long}")))),
        ("opaque directories", many(&|tar, n| tar.entry(&format!("{n}{long}/.wh..wh..opq")))),
        ("links", many(&|tar, n| tar.entry(&format!("{n}{long}=>later")))),
        ("whiteouts by way of a symlink", through(&|n| format!("l/.wh.{n}"))),
        ("opaque directories by way of a symlink", through(&|n| format!("l/{n}/.wh..wh..opq"))),
        ("links to each other by way of a symlink", {
            let link = Tar::default().long_symlink("l", &long_path());
            (0..4).fold(link, |tar, n| tar.entry(&format!("l/{n}=>l/{}", n + 1)))
        }),
        ("what is skipped", many(&|tar, n| tar.raw(b'Z', &format!("{n}{long}"), "", b""))),
        (
            "attributes of directories",
            Tar::default().pax(b'g', &[("SCHILY.xattr.user.a", &attribute)]).entry("a/").entry("b/"),
        ),
        ("attributes that are skipped", {
            let overlay = "SCHILY.xattr.user.overlay.";
            let names: Vec<String> = (0..400).map(|n| format!("{overlay}{n}{long}")).collect();
            let records: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"y"[..])).collect();
            Tar::default().pax(b'x', &records).entry("f=")
        }),
    ] {
        let scratch = Scratch::new();
        let error = unpack(&tar.end(), &scratch.stage(), None, lenient().limits(limits.clone())).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{what}: {error}");
        assert!(error.to_string().contains("kept"), "{what}: {error}");
    }
    // Marks that ask for many directories each: it is noticed after the first of them.
    for mark in [".wh.x", ".wh..wh..opq"] {
        let scratch = Scratch::new();
        let deep = (0..40).fold(Tar::default(), |tar, n| tar.long_name(&format!("{n}{}/{mark}", "/d".repeat(126))));
        let stage = scratch.stage();
        let error = unpack(&deep.end(), &stage, None, lenient().limits(limits.clone())).unwrap_err();
        assert!(error.kind() == ErrorKind::LimitExceeded && error.to_string().contains("kept"), "{error}");
        assert!((1..300).contains(&listing(&stage).len()), "{} directories", listing(&stage).len());
    }
    // One directory that is described again and again is one.
    let scratch = Scratch::new();
    let again = many(&|tar, _| tar.entry("d/"));
    unpack(&again.end(), &scratch.stage(), None, options().limits(limits)).unwrap();
}

/// What belongs to the stage already is not touched: it must be empty.
pub(crate) fn a_stage_that_is_not_empty() {
    let scratch = Scratch::new();
    let before = sentinel(&scratch.outside());
    let options = if is_root() { Options::new() } else { Options::rootless() };
    let error = unpack(&Tar::of(&["f=1"]).end(), &scratch.outside(), None, options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(sentinel(&scratch.outside()), before);
}

/// Files are new: an old name's other links are not written through.
pub(crate) fn no_file_is_written_through_a_link() {
    let scratch = Scratch::new();
    let tar = Tar::of(&["f=first", "h=>f", "h=second", "s->f", "s=third"]);
    assert_eq!(unpack_new(&scratch, &tar).1.unwrap_err().kind(), ErrorKind::Refused, "twice");
    let stage = scratch.stage();
    unpack(&tar.end(), &stage, None, lenient()).unwrap();
    assert_eq!(listing(&stage), ["f=first", "h=second", "s=third"]);
}
