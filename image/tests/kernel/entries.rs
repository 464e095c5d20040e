//! Entries of every sort, in every encoding: sparse files, access control lists, owners by a map.

use crate::support::{
    Scratch, Tar, lenient, listing, options, tree, unlock, unpack, unpack_new, unpack_onto_open, xattrs,
};
use cofferdam_image::{ErrorKind, Limits, Options, OwnerMap, Ownership, SkippedPart};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// A file of 1 MiB and 3 bytes with data at 0, at 64 KiB and at the end; and what is stored of it.
const LENGTH: u64 = (1 << 20) + 3;
const SEGMENTS: [(u64, &[u8]); 3] = [(0, b"begin"), (65536, &[7; 700]), (1 << 20, b"end")];

fn stored() -> Vec<u8> {
    SEGMENTS.iter().flat_map(|(_, data)| data.to_vec()).collect()
}

fn expected() -> Vec<u8> {
    let mut content = vec![0; usize::try_from(LENGTH).unwrap()];
    for (offset, data) in SEGMENTS {
        let offset = usize::try_from(offset).unwrap();
        content[offset..offset + data.len()].copy_from_slice(data);
    }
    content
}

fn octal(field: &mut [u8], number: u64) {
    let digits = format!("{number:011o}\0");
    field.copy_from_slice(digits.as_bytes());
}

/// In the header, the second and third pair in a block of its own.
fn gnu() -> Tar {
    let mut block = vec![0; 512];
    for (pair, (offset, data)) in block.chunks_exact_mut(24).zip(&SEGMENTS[1..]) {
        octal(&mut pair[..12], *offset);
        octal(&mut pair[12..24], data.len() as u64);
    }
    let header = Tar::default().header(b'S', "sparse", "", b"", |h| {
        let bytes = h.as_mut_bytes();
        bytes[257..265].copy_from_slice(b"ustar  \0");
        octal(&mut bytes[386..398], SEGMENTS[0].0);
        octal(&mut bytes[398..410], SEGMENTS[0].1.len() as u64);
        bytes[482] = 1;
        octal(&mut bytes[483..495], LENGTH);
        h.set_size(stored().len() as u64);
    });
    let mut bytes = [header.0, block, stored()].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    Tar(bytes)
}

fn pax(records: &[(&str, String)], data: &[u8]) -> Tar {
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    Tar::default().pax(b'x', &records).raw(b'0', "GNUSparseFile.0/sparse", "", data)
}

fn encodings() -> [(&'static str, Tar); 4] {
    let name = ("GNU.sparse.name", "sparse".to_owned());
    let size = ("GNU.sparse.size", LENGTH.to_string());
    let pairs: Vec<(u64, usize)> = SEGMENTS.iter().map(|(offset, data)| (*offset, data.len())).collect();
    let listed = pairs.iter().flat_map(|(offset, count)| {
        [("GNU.sparse.offset", offset.to_string()), ("GNU.sparse.numbytes", count.to_string())]
    });
    let map: Vec<String> = pairs.iter().map(|(offset, count)| format!("{offset},{count}")).collect();
    let numbers = pairs.iter().flat_map(|(offset, count)| [*offset, *count as u64]);
    let lines: Vec<String> = [pairs.len() as u64].into_iter().chain(numbers).map(|n| format!("{n}\n")).collect();
    let mut in_data = lines.concat().into_bytes();
    in_data.resize(512, 0);
    in_data.extend(stored());
    let version = [
        ("GNU.sparse.major", "1".to_owned()),
        ("GNU.sparse.minor", "0".to_owned()),
        ("GNU.sparse.realsize", LENGTH.to_string()),
    ];
    [
        ("GNU", gnu()),
        ("0.0", pax(&[vec![name.clone(), size.clone()], listed.collect()].concat(), &stored())),
        ("0.1", pax(&[name.clone(), size, ("GNU.sparse.map", map.join(","))], &stored())),
        ("1.0", pax(&[vec![name], version.to_vec()].concat(), &in_data)),
    ]
}

pub(crate) fn sparse_files_in_four_encodings() {
    for (what, tar) in encodings() {
        let scratch = Scratch::new();
        let stage = scratch.stage();
        let report =
            unpack(&tar.entry("after=1").end(), &stage, None, options()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(report.bytes, stored().len() as u64 + 1, "{what}");
        assert_eq!(fs::read(stage.join("sparse")).unwrap(), expected(), "{what}");
        assert!(fs::metadata(stage.join("sparse")).unwrap().blocks() * 512 < LENGTH / 2, "{what}: has holes");
        assert_eq!(fs::read(stage.join("after")).unwrap(), b"1");
    }
}

pub(crate) fn sparse_files_that_lie() {
    let map = |map: &str, size: &str, data: &[u8]| {
        pax(&[("GNU.sparse.map", map.to_owned()), ("GNU.sparse.size", size.to_owned())], data)
    };
    let version_1 = |data: &[u8]| {
        let records = ["major", "minor", "realsize"].map(|k| ["GNU.sparse.", k].concat());
        let records: Vec<(&str, String)> =
            records.iter().zip(["1", "0", "10"]).map(|(k, v)| (k.as_str(), v.to_owned())).collect();
        pax(&records, data)
    };
    let mut limits = Limits::default();
    limits.bytes = 1 << 20;
    limits.sparse_bytes = 1024;
    for (what, tar, kind) in [
        ("overlap", map("0,2,1,2", "10", b"1234"), ErrorKind::Malformed),
        ("beyond the end", map("9,2", "10", b"12"), ErrorKind::Malformed),
        ("more data than the map has", map("0,1", "10", b"12"), ErrorKind::Malformed),
        ("less data than the map has", map("0,3", "10", b"12"), ErrorKind::Malformed),
        ("half a pair", map("0,1,2", "10", b"1"), ErrorKind::Malformed),
        ("a huge file", map("0,1", "9223372036854775807", b"1"), ErrorKind::LimitExceeded),
        ("a map without an end", version_1(&b"9\n1\n1\n".repeat(400)), ErrorKind::Malformed),
        (
            "a map that is too long",
            version_1(&[b"900000\n".to_vec(), b"1\n".repeat(2000)].concat()),
            ErrorKind::LimitExceeded,
        ),
        ("a map longer than the data", version_1(b"900000\n1"), ErrorKind::Malformed),
        (
            "a symlink",
            {
                let records = [("GNU.sparse.map", &b"0,0"[..]), ("GNU.sparse.size", b"0")];
                Tar::default().pax(b'x', &records).raw(b'2', "s", "t", b"")
            },
            ErrorKind::Malformed,
        ),
    ] {
        let scratch = Scratch::new();
        let error = unpack(&tar.end(), &scratch.stage(), None, options().limits(limits.clone())).expect_err(what);
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
}

/// What GNU tar itself writes, in every format that it has.
pub(crate) fn sparse_files_of_gnu_tar() {
    let scratch = Scratch::new();
    let source = scratch.stage();
    fs::write(source.join("sparse"), b"").unwrap();
    let file = fs::OpenOptions::new().write(true).open(source.join("sparse")).unwrap();
    for (offset, data) in SEGMENTS {
        std::os::unix::fs::FileExt::write_all_at(&file, data, offset * 8).unwrap();
    }
    let whole = fs::read(source.join("sparse")).unwrap();
    for format in
        [&["--format=gnu"][..], &["--sparse-version=0.0"], &["--sparse-version=0.1"], &["--sparse-version=1.0"]]
    {
        let mut tar = Command::new("/bin/tar");
        tar.args(["--create", "--sparse", "--hole-detection=raw"]);
        if format[0] != "--format=gnu" {
            tar.arg("--format=pax");
        }
        let output = tar.args(format).arg("--directory").arg(&source).arg("sparse").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() < whole.len() / 2, "{format:?} is sparse");
        let stage = scratch.stage();
        unpack(&output.stdout, &stage, None, options()).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert!(fs::read(stage.join("sparse")).unwrap() == whole, "{format:?}");
    }
}

const LIST: &[u8] = b"user::rw-,user:17:r--,group::r--,mask::r--,other::---";

fn with_lists() -> Tar {
    Tar::default()
        .pax(b'x', &[("SCHILY.acl.access", LIST), ("uid", b"3"), ("gid", b"4")])
        .header(b'0', "f", "", b"1", |h| h.set_mode(0o640))
        .pax(b'x', &[("SCHILY.acl.access", b"user::rwx,group::r-x,other::---"), ("SCHILY.acl.default", LIST)])
        .header(b'5', "d", "", b"", |h| h.set_mode(0o750))
}

fn list_of(path: &Path, name: &str) -> Vec<(u16, u16, u32)> {
    let list = xattrs(path)[name].clone();
    let entries = list[4..].chunks_exact(8).map(|e| {
        let half = |at: usize| u16::from_le_bytes([e[at], e[at + 1]]);
        (half(0), half(2), u32::from_le_bytes([e[4], e[5], e[6], e[7]]))
    });
    entries.collect()
}

pub(crate) fn access_control_lists() {
    let scratch = Scratch::new();
    let (stage, result) = unpack_new(&scratch, &with_lists());
    assert_eq!(result.unwrap().skipped, []);
    let none = u32::MAX;
    let list = |user| vec![(1, 6, none), (2, 4, user), (4, 4, none), (16, 4, none), (32, 0, none)];
    assert_eq!(list_of(&stage.join("f"), "system.posix_acl_access"), list(17));
    assert_eq!(list_of(&stage.join("d"), "system.posix_acl_default"), list(17));
    assert_eq!(fs::metadata(stage.join("f")).unwrap().mode() & 0o7777, 0o640);
    // Users of the list are mapped as owners are.
    let map = OwnerMap::new().users(0, 1000, 100).groups(0, 2000, 100);
    let stage = scratch.stage();
    let mapped = Options::new().ownership(Ownership::Mapped(map.clone()));
    unpack(&with_lists().end(), &stage, None, mapped.clone()).unwrap();
    assert_eq!(list_of(&stage.join("f"), "system.posix_acl_access"), list(1017));
    let meta = fs::metadata(stage.join("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1003, 2004));
    // A list of names is nobody's here.
    let names = Tar::default().pax(b'x', &[("SCHILY.acl.access", b"user::rw-,user:lisa:r--,group::r--,other::---")]);
    let names = names.entry("f=1").end();
    assert_eq!(unpack(&names, &scratch.stage(), None, Options::new()).unwrap_err().kind(), ErrorKind::Unsupported);
    let report = unpack(&names, &scratch.stage(), None, lenient()).unwrap();
    assert_eq!(report.skipped[0].what, SkippedPart::Xattr("system.posix_acl_access".into()));
}

/// `cap_net_raw=ep`.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn owners_by_a_map() {
    let scratch = Scratch::new();
    let tar = Tar::default()
        .pax(b'x', &[("SCHILY.xattr.security.capability", CAPABILITY)])
        .entry("ping=1")
        .header(b'2', "s", "ping", b"", |h| h.set_uid(5))
        .entry("new/f=1");
    let map = OwnerMap::new().users(0, 100_000, 10).groups(0, 200_000, 10);
    let stage = scratch.stage();
    unpack(&tar.clone().end(), &stage, None, Options::new().ownership(Ownership::Mapped(map.clone()))).unwrap();
    for (path, user) in [("ping", 100_000), ("s", 100_005), ("new", 100_000), ("", 100_000)] {
        let meta = fs::symlink_metadata(stage.join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (user, 200_000), "{path}");
    }
    // The capability counts where user 100000 is root.
    let mut expected = CAPABILITY.to_vec();
    expected[3] = 3;
    expected.extend(100_000_u32.to_le_bytes());
    assert_eq!(xattrs(&stage.join("ping"))["security.capability"], expected);
    let tar = tar.header(b'0', "far", "", b"", |h| h.set_uid(10));
    let error = unpack(&tar.end(), &scratch.stage(), None, Options::new().ownership(Ownership::Mapped(map)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Refused);
}

/// What the policy leaves out, and lists, or else refuses.
pub(crate) fn what_cannot_be_had() {
    let xattr = |key: &str| Tar::default().pax(b'x', &[(key, b"y")]);
    let cases: Vec<(Tar, SkippedPart, &[&str])> = vec![
        (
            xattr("SCHILY.xattr.trusted.overlay.opaque").entry("d/"),
            SkippedPart::Xattr("trusted.overlay.opaque".into()),
            &["d/"],
        ),
        (
            xattr("SCHILY.xattr.user.overlay.redirect").entry("d/"),
            SkippedPart::Xattr("user.overlay.redirect".into()),
            &["d/"],
        ),
        // Only files and directories can have attributes of users.
        (xattr("SCHILY.xattr.user.x").entry("s->t"), SkippedPart::Xattr("user.x".into()), &["s->t"]),
        (xattr("SCHILY.xattr.nonsense").entry("f=1"), SkippedPart::Xattr("nonsense".into()), &["f=1"]),
        (Tar::of(&["f=1"]).raw(b'Z', "x", "", b"data"), SkippedPart::UnknownType(b'Z'), &["f=1"]),
    ];
    for (tar, part, left) in cases {
        let scratch = Scratch::new();
        unpack(&tar.clone().end(), &scratch.stage(), None, options()).expect_err("strict");
        let stage = scratch.stage();
        let report = unpack(&tar.clone().end(), &stage, None, lenient()).unwrap();
        assert_eq!(report.skipped.iter().map(|s| s.what.clone()).collect::<Vec<_>>(), [part]);
        assert_eq!(listing(&stage), left);
        assert_eq!(tree(&scratch.flat(&[tar]))[""], tree(&stage)[""]);
    }
}

/// An attribute of users asks for the permission to write, whoever has the file open: also where the caller is its owner from the beginning.
pub(crate) fn attributes_of_what_may_only_be_read() {
    let scratch = Scratch::new();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let tar = Tar::default().pax(b'x', &[("SCHILY.xattr.user.x", b"y")]).header(b'0', "f", "", b"1", |h| {
        h.set_mode(0o444);
        h.set_uid(user.into());
        h.set_gid(group.into());
    });
    let (stage, report) = unpack_new(&scratch, &tar);
    assert!(report.unwrap().skipped.is_empty());
    let file = stage.join("f");
    assert_eq!(xattrs(&file).get("user.x").map(Vec::as_slice), Some(&b"y"[..]));
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, 0o444);
}

/// A directory that is there already gets what the layer says, and loses what it does not.
pub(crate) fn a_merged_directory_has_only_the_new_attributes() {
    let scratch = Scratch::new();
    let below = Tar::default()
        .pax(b'x', &[("SCHILY.xattr.user.old", b"1"), ("SCHILY.xattr.user.both", b"1")])
        .header(b'5', "d", "", b"", |h| h.set_mode(0o500))
        .entry("d/x=1")
        .entry("kept/")
        .entry("kept/y=1");
    let above = Tar::default()
        .pax(b'x', &[("SCHILY.xattr.user.new", b"2"), ("SCHILY.xattr.user.both", b"2"), ("mtime", b"7.5")])
        .header(b'5', "d", "", b"", |h| h.set_mode(0o711))
        .entry("d/z=1")
        .entry("kept/.wh.y");
    let target = scratch.flat(&[below, above]);
    let names: Vec<_> = xattrs(&target.join("d")).into_iter().filter(|(name, _)| name.starts_with("user.")).collect();
    assert_eq!(names, [("user.both".to_owned(), b"2".to_vec()), ("user.new".to_owned(), b"2".to_vec())]);
    let meta = fs::metadata(target.join("d")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o711, 7, 500_000_000));
    assert_eq!(fs::metadata(target.join("kept")).unwrap().mtime(), 1_000_000_000, "as before, but for what was hidden");
    assert_eq!(listing(&target), ["d/", "d/x=1", "d/z=1", "kept/"]);
}

/// Links of a lower layer stay links when one of them gets another name.
pub(crate) fn the_whole_group_of_links_is_copied() {
    let scratch = Scratch::new();
    let stack = [Tar::of(&["a/", "a/f=1", "b=>a/f", "c=>a/f", "gone=>a/f"]), Tar::of(&["h=>b", ".wh.gone", "c=new"])];
    let done = scratch.layers(&stack);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(listing(&done[1]), ["a/", "a/f=1", "b=1", "c=new", "gone char 0", "h=1"]);
    assert_eq!(inode(&done[1].join("h")), inode(&done[1].join("a/f")));
    assert_eq!(fs::metadata(done[1].join("h")).unwrap().nlink(), 3);
    let flat = scratch.flat(&stack);
    assert_eq!(listing(&flat), ["a/", "a/f=1", "b=1", "c=new", "h=1"]);
    assert_eq!(inode(&flat.join("h")), inode(&flat.join("a/f")));
    assert_eq!(fs::metadata(flat.join("h")).unwrap().nlink(), 3);
}

/// A file of the lower layer that has holes has them in this one too: else a link would cost what the file seems to be.
pub(crate) fn links_to_a_lower_sparse_file() {
    for (what, tar) in encodings() {
        let scratch = Scratch::new();
        let done = scratch.layers(&[tar, Tar::of(&["h=>sparse"])]);
        let copy = done[1].join("h");
        assert_eq!(fs::read(&copy).unwrap(), expected(), "{what}");
        let meta = fs::metadata(&copy).unwrap();
        assert!(meta.blocks() * 512 < LENGTH / 2, "{what}: {} blocks", meta.blocks());
        assert_eq!(meta.ino(), fs::metadata(done[1].join("sparse")).unwrap().ino());
    }
    // One that is nothing but a hole, as long as no disk.
    let scratch = Scratch::new();
    let huge = (40_u64 << 30).to_string();
    let tar =
        pax(&[("GNU.sparse.name", "sparse".into()), ("GNU.sparse.size", huge), ("GNU.sparse.map", "0,0".into())], b"");
    let done = scratch.layers(&[tar, Tar::of(&["h=>sparse"])]);
    let meta = fs::metadata(done[1].join("h")).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (40 << 30, 0));
}

/// Directories of the tree that their owner may not write to: what is below them is merged all the same, and they are as they were.
pub(crate) fn directories_that_keep_their_owner_out() {
    let locked = |tar: Tar, name: &str, mode: u32| tar.header(b'5', name, "", b"", |h| h.set_mode(mode));
    let below = locked(Tar::default(), "d", 0o555);
    let below = locked(below.entry("d/x=1").entry("d/kept=1"), "d/e", 0o555)
        .entry("d/e/y=1")
        .entry("d/e/f/")
        .entry("d/e/f/z=1");
    let below = locked(below, "o", 0o500).entry("o/x=1").entry("o/g/").entry("o/g/x=1");
    let above = Tar::of(&["d/.wh.x", "d/new=2", "d/e/.wh.f", "o/.wh..wh..opq", "o/new=2"]);
    let scratch = Scratch::new();
    let target = scratch.flat(&[below.clone(), above.clone()]);
    assert_eq!(listing(&target), ["d/", "d/e/", "d/e/y=1", "d/kept=1", "d/new=2", "o/", "o/new=2"]);
    for (path, mode) in [("d", 0o555), ("d/e", 0o555), ("o", 0o500)] {
        assert_eq!(fs::metadata(target.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    let done = scratch.layers(&[below, above]);
    assert_eq!(fs::metadata(done[1].join("d/e")).unwrap().mode() & 0o7777, 0o555);
    // Let the test clean up.
    for path in [target, done[0].clone(), done[1].clone()] {
        unlock(&path);
    }
}

/// Directories whose owner cannot even look into them, all with the same mode.
fn locked_tree(mode: u32) -> Tar {
    let locked = |tar: Tar, name: &str| tar.header(b'5', name, "", b"", |h| h.set_mode(mode));
    let tar = locked(locked(locked(Tar::default(), "./"), "d").entry("d/x=1"), "d/e");
    let tar = locked(tar.entry("d/e/y=1"), "d/e/g").entry("d/e/g/z=1");
    locked(tar, "untouched").entry("untouched/f=1")
}

/// Merged as root, who is kept out of nothing, and as an ordinary user: what is in them is the same, and so is their mode in the end.
pub(crate) fn directories_that_nobody_may_enter() {
    // Of those that are there, from the outside to the inside.
    let modes = |target: &Path| {
        let mut modes = BTreeMap::new();
        for path in ["", "untouched", "d", "d/e", "d/e/g"] {
            if let Ok(meta) = fs::symlink_metadata(target.join(path))
                && meta.is_dir()
            {
                modes.insert(path, meta.mode() & 0o7777);
                fs::set_permissions(target.join(path), fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        modes
    };
    // And which of the directories have the layer's own mode then.
    let uppers: &[(&[&str], &[&str])] = &[
        (&["d/new=2"], &[]),
        (&["d/.wh.x"], &[]),
        (&["d/e/.wh.y", "d/e/new=1"], &[]),
        (&["d/e/.wh.g"], &[]),
        (&["d/.wh..wh..opq", "d/z=1"], &[]),
        (&["d/e/g/.wh..wh..opq"], &[]),
        (&[".wh.d"], &[]),
        (&[".wh.untouched"], &[]),
        (&["d=file"], &[]),
        (&["h=>d/e/y"], &[]),
        (&["h=>d/e/g/z", "d/.wh.x"], &[]),
        (&["d/e/"], &["d/e"]),
        (&["d/e/g/", "d/e/g/new=1"], &["d/e/g"]),
        (&["./", "d/new=1"], &[""]),
    ];
    for mode in [0o000, 0o111, 0o222, 0o444, 0o300] {
        for (upper, own) in uppers {
            let scratch = Scratch::new();
            let flat = |mode| scratch.flat(&[locked_tree(mode), Tar::of(upper)]);
            let (open, target) = (flat(0o755), flat(mode));
            let mut expected = modes(&open);
            expected.iter_mut().filter(|(path, _)| !own.contains(path)).for_each(|(_, m)| *m = mode);
            assert_eq!(modes(&target), expected, "{mode:o} {upper:?}");
            assert_eq!(listing(&target), listing(&open), "{mode:o} {upper:?}");
        }
        // What is refused, after it has looked into them.
        let scratch = Scratch::new();
        let target = scratch.flat(&[locked_tree(mode)]);
        let open = || {
            fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
            let open = File::open(&target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
            open
        };
        let refused = Tar::of(&["h=>d/e/g/z", "d/e/new=1", ".wh.untouched", "../x=1"]);
        unpack_onto_open(&refused.end(), &scratch.stage(), open(), lenient()).unwrap_err();
        let missing = Tar::of(&["h=>d/e/g/nothing"]);
        unpack_onto_open(&missing.end(), &scratch.stage(), open(), lenient()).unwrap_err();
        assert!(modes(&target).values().eq(&[mode; 5]), "{mode:o}");
        assert_eq!(listing(&target), listing(&scratch.flat(&[locked_tree(0o755)])));
    }
}
