//! All archives of the other tests once more, in both modes, while somebody exchanges directories for symlinks: nothing outside changes. With the
//! defences of this crate switched off, it does.

use crate::hostile::{CASES, bad_headers, bad_names};
use crate::semantics::{ANY_ORDER, ONE_ORDER};
use crate::support::{Done, Scratch, Tar, lenient, listing, sentinel, unlock, unpack, unpack_onto, xattrs};
use cofferdam_image::test_hooks::{Defence, without};
use cofferdam_image::{ErrorKind, Layers};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// So often at least directories are swapped while all of them are unpacked.
const SWAPS: usize = 500;

/// Layers, lowest first.
fn stacks() -> Vec<Vec<Tar>> {
    let good = ANY_ORDER.iter().chain(ONE_ORDER).map(|(layers, _)| layers.iter().map(|l| Tar::of(l)).collect());
    let hostile = CASES.iter().map(|entries| vec![Tar::of(entries)]);
    let bad = bad_names().into_iter().chain(bad_headers()).map(|(_, tar, _)| vec![tar]);
    good.chain(hostile).chain(bad).collect()
}

/// A symlink to the outside, under a name of its own.
fn trap(scratch: &Scratch) -> PathBuf {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let trap = scratch.path().join(format!("trap{}", MADE.fetch_add(1, Ordering::SeqCst)));
    symlink(scratch.outside(), &trap).unwrap();
    trap
}

/// Exchanges each directory in these for a symlink to the outside, and back.
fn swap(scratch: &Scratch, roots: &[&Path], done: &AtomicBool, swaps: &AtomicUsize) {
    let mut bait = trap(scratch);
    while !done.load(Ordering::SeqCst) {
        for root in roots {
            for entry in fs::read_dir(root).into_iter().flatten().flatten() {
                let path = entry.path();
                if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir())
                    && renameat_with(CWD, &bait, CWD, &path, RenameFlags::EXCHANGE).is_ok()
                {
                    swaps.fetch_add(1, Ordering::SeqCst);
                    // Back, so that there is something to be done; if that is gone, it was removed.
                    if renameat_with(CWD, &bait, CWD, &path, RenameFlags::EXCHANGE).is_err() {
                        // Who still has the directory open may put something into it meanwhile: what is left of it goes with the test's folder.
                        let _ = fs::remove_dir_all(&bait);
                        bait = trap(scratch);
                    }
                }
            }
        }
    }
    let _ = fs::remove_file(&bait).or_else(|_| fs::remove_dir_all(&bait));
}

/// Unpacks a stack in both modes while directories are swapped. Whatever the result is.
fn unpack_both(scratch: &Scratch, stack: &[Tar], swaps: &AtomicUsize) {
    let (stage, target) = (scratch.stage(), scratch.stage());
    let stages: Vec<_> = stack.iter().map(|_| scratch.stage()).collect();
    let roots: Vec<&Path> = stages.iter().chain([&stage, &target]).map(std::path::PathBuf::as_path).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = Done(&done);
        scope.spawn(|| swap(scratch, &roots, &done, swaps));
        for (number, layer) in stack.iter().enumerate() {
            let _ = unpack(&layer.clone().end(), &stages[number], Some(&stages[..number]), lenient());
        }
        let layers =
            stack.iter().fold(Layers::new(lenient()), |all, layer| all.layer(Cursor::new(layer.clone().end())));
        let _ = layers.flatten(File::open(&stage).unwrap(), File::open(&target).unwrap());
    });
    for path in roots {
        unlock(path);
        fs::remove_dir_all(path).unwrap();
    }
}

type Seen = BTreeMap<String, String>;

fn outside(scratch: &Scratch) -> Seen {
    // With a mode that lets an ordinary user look.
    sentinel(&scratch.outside())
}

/// Whoever never meets the race goes on until the test's time is over, which is a failure.
pub(crate) fn every_trap_while_directories_are_swapped() {
    let (stacks, scratch, swaps) = (stacks(), Scratch::new(), AtomicUsize::new(0));
    let before = outside(&scratch);
    while swaps.load(Ordering::SeqCst) < SWAPS {
        for (number, stack) in stacks.iter().enumerate() {
            unpack_both(&scratch, stack, &swaps);
            assert_eq!(outside(&scratch), before, "stack {number}");
        }
    }
    // The defence.
    without(&[Defence::Beneath], || {
        for stack in stacks.iter().cycle() {
            unpack_both(&scratch, stack, &swaps);
            if outside(&scratch) != before {
                return;
            }
        }
    });
}

/// Nobody swaps anything: it is the archive alone, and what we make of it.
pub(crate) fn hostile_archives_without_defences() {
    let all = [Defence::Beneath, Defence::Names, Defence::Resolution, Defence::Leaves];
    let harmed = |defences: &[Defence]| {
        let mut harmed = Vec::new();
        for entries in CASES {
            let scratch = Scratch::new();
            let before = outside(&scratch);
            let (stage, target) = (scratch.stage(), scratch.stage());
            without(defences, || {
                let _ = unpack(&Tar::of(entries).end(), &stage, None, lenient());
                let _ = unpack_onto(&Tar::of(entries).end(), &scratch.stage(), &target, lenient());
            });
            if outside(&scratch) != before {
                harmed.push(*entries);
            }
        }
        harmed
    };
    assert_eq!(harmed(&[]), [&[""; 0]; 0]);
    let without_all = harmed(&all);
    // What the others need is not there at all: a call that changes a directory by its name, a link whose name is not new.
    assert!(without_all.len() >= 8, "{without_all:?}");
    // It takes more than one hole to get through, but for the last component, on which one call decides.
    for one in all {
        assert_eq!(harmed(&[one]).len(), usize::from(one == Defence::Leaves), "{one:?}");
    }
}

/// A whiteout of the directory above: flattened, it would remove everything.
pub(crate) fn a_whiteout_of_the_directory_above() {
    let run = |defences: &[Defence]| {
        let scratch = Scratch::new();
        let before = outside(&scratch);
        let target = scratch.flat(&[Tar::of(&["a/", "a/f=1"])]);
        let error = without(defences, || {
            unpack_onto(&Tar::of(&[".wh...=", "b=1"]).end(), &scratch.stage(), &target, lenient()).map(drop)
        });
        (error.map_err(|e| e.kind()), scratch.outside().exists() && outside(&scratch) == before)
    };
    assert_eq!(run(&[]), (Err(ErrorKind::Refused), true));
    assert!(!run(&[Defence::Names, Defence::Beneath]).1, "it does no harm anyway");
}

/// CVE-2026-50163: a hard link's target is looked for in the layer, not in the working directory.
pub(crate) fn hard_links_do_not_know_the_working_directory() {
    let scratch = Scratch::new();
    let before = outside(&scratch);
    let here = std::env::current_dir().unwrap();
    std::env::set_current_dir(scratch.outside()).unwrap();
    let tar = Tar::of(&["h=>file", "h=overwritten"]);
    let (stage, target) = (scratch.stage(), scratch.stage());
    let error = unpack(&Tar::of(&["h=>file"]).end(), &stage, None, lenient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    unpack(&tar.clone().end(), &scratch.stage(), None, lenient()).unwrap();
    let error = unpack_onto(&Tar::of(&["h=>file"]).end(), &scratch.stage(), &target, lenient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(outside(&scratch), before);
    // The defence; then nobody makes the file anew either.
    let leak = scratch.stage();
    without(&[Defence::Links], || unpack(&Tar::of(&["h=>file"]).end(), &leak, None, lenient())).unwrap();
    assert_eq!(listing(&leak), ["h=untouched"]);
    without(&[Defence::Links, Defence::Leaves], || unpack(&tar.end(), &scratch.stage(), None, lenient())).unwrap();
    assert_eq!(fs::read_to_string("file").unwrap(), "overwritten");
    std::env::set_current_dir(here).unwrap();
}

/// Layers of nothing at all, names that are not text, times that are zero.
pub(crate) fn what_other_readers_stumble_over() {
    let scratch = Scratch::new();
    let empty = scratch.stage();
    let report = unpack(b"", &empty, None, lenient()).unwrap();
    assert_eq!((report.entries, report.diff_id), (0, cofferdam_image::Digest::of(b"")));
    unpack(&crate::support::gzip(b""), &scratch.stage(), None, lenient()).unwrap();
    unpack(&[0; 1024], &scratch.stage(), None, lenient()).unwrap();
    assert_eq!(listing(&empty), [""; 0]);
    let stage = scratch.stage();
    let name = b"\xff\xfe-\xe4";
    let tar = Tar::default().header(b'0', "x", "", b"1", |h| {
        h.as_mut_bytes()[..4].copy_from_slice(name);
        h.set_mtime(0);
    });
    unpack(&tar.entry("././d//").end(), &stage, None, lenient()).unwrap();
    let path = stage.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
    let meta = fs::metadata(path).unwrap();
    assert_eq!(meta.mtime(), 0);
    assert!(stage.join("d").is_dir());
    // A global header is for all that follow, but for what they say themselves.
    let stage = scratch.stage();
    let tar = Tar::of(&["before=1"])
        .pax(b'g', &[("mtime", b"7.25"), ("SCHILY.xattr.user.a", b"all")])
        .entry("all=1")
        .pax(b'x', &[("mtime", b"8"), ("SCHILY.xattr.user.b", b"own")])
        .entry("own=1")
        .pax(b'g', &[("mtime", b"9")])
        .entry("after=1");
    unpack(&tar.end(), &stage, None, lenient()).unwrap();
    let found = ["before", "all", "own", "after"].map(|name| {
        let path = stage.join(name);
        let (meta, names) = (fs::metadata(&path).unwrap(), xattrs(&path).into_keys());
        let names: Vec<String> = names.filter(|name| name.starts_with("user.")).collect();
        (meta.mtime(), meta.mtime_nsec(), names.join(" "))
    });
    let expected = [(1_000_000_000, 0, ""), (7, 250_000_000, "user.a"), (8, 0, "user.a user.b"), (9, 0, "user.a")];
    assert_eq!(found, expected.map(|(seconds, nanos, names)| (seconds, nanos, names.to_owned())));
}
