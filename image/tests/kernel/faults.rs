//! Every system call on files that unpacking makes fails in turn: the error tells it.

use crate::store::{form, image, nothing_staged};
use crate::support::{Scratch, Tar, lenient};
use cofferdam_image::{ErrorKind, LayerReader, Options, Policy, Unpacker};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_unionfs::{LayerStore, Owner};
use std::collections::BTreeSet;
use std::fs::File;

/// What concerns files. (Of the rest, memory and closing, failures are not ours to tell.)
pub(crate) const CALLS: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fsetxattr,
    libc::SYS_setxattr,
    libc::SYS_utimensat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_flistxattr,
    libc::SYS_fgetxattr,
    libc::SYS_pwrite64,
    libc::SYS_copy_file_range,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
];

/// Takes every way that there is.
fn everything() -> Tar {
    Tar::of(&[
        "d/",
        "d/f=1",
        "d/f=2",
        "s->d",
        "s/g=3",
        "h=>low/f",
        "p|",
        "e/x=1",
        "e/y/",
        "old/.wh.f",
        "gone/.wh..wh..opq",
    ])
    .pax(b'x', &[("SCHILY.xattr.user.a", b"b")])
    .entry("attributed=1")
    .pax(b'x', &[("SCHILY.xattr.trusted.a", b"b")])
    .entry("node|")
    .entry("r/")
    .entry("r/f=1")
    .entry("r=replaced")
}

pub(crate) fn every_failure_is_told() {
    let scratch = Scratch::new();
    let lowers = scratch.layers(&[Tar::of(&["low/", "low/f=0", "old/", "old/f=0", "gone/", "gone/f=0", "link->low"])]);
    let archive = everything().end();
    let watch = Watch::only(CALLS);
    let lowers: Vec<File> = lowers.iter().map(|path| File::open(path).unwrap()).collect();
    let stage = || File::open(scratch.stage()).unwrap();
    let run = |stage: &File| {
        let unpacker = Unpacker::new(stage, Options::new().policy(Policy::Lenient))?.lowers(&lowers)?;
        unpacker.unpack(LayerReader::new(&archive[..])?)
    };
    let empty = stage();
    let (calls, result) = watch.record(|| run(&empty));
    result.unwrap();
    let seen: BTreeSet<i64> = calls.iter().map(|call| call.number).collect();
    let missing: Vec<_> = CALLS.iter().filter(|number| !seen.contains(number)).collect();
    assert!(missing.is_empty(), "not met: {missing:?}");
    for nth in 0..calls.len() {
        let stage = stage();
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EIO) };
        let (calls, result) = watch.inject(fault, || run(&stage));
        let failed = calls.iter().find(|call| call.fault.is_some()).unwrap();
        let error = result.expect_err(&failed.to_string());
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{failed}: {error}");
    }
}

/// Where a rename elsewhere makes the kernel ask for another try, it gets one, and others; but not for ever.
pub(crate) fn what_races_is_tried_again() {
    let (scratch, archive) = (Scratch::new(), Tar::of(&["d/", "d/f=1", "d/s->f", "h=>d/f"]).end());
    let watch = Watch::only(&[libc::SYS_openat2]);
    let run = |stage: &File| Unpacker::new(stage, lenient())?.unpack(LayerReader::new(&archive[..])?);
    let stage = || File::open(scratch.stage()).unwrap();
    let again = |nth| Fault { who: Who::Parent, nth, action: Action::Errno(libc::EAGAIN) };
    let empty = stage();
    let (calls, result) = watch.record(|| run(&empty));
    result.unwrap();
    for nth in 0..calls.len() {
        let stage = stage();
        let (more, result) = watch.inject(again(nth), || run(&stage));
        result.unwrap_or_else(|e| panic!("{}: {e}", calls[nth]));
        assert_eq!(more.len(), calls.len() + 1);
    }
    let stage = stage();
    let (calls, result) = watch.inject(again(Fault::EVERY), || run(&stage));
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Interfered, Some(libc::EAGAIN)), "{error}");
    assert!((10..10_000).contains(&calls.len()), "{} attempts", calls.len());
}

/// What a store calls beside.
const OF_A_STORE: &[i64] = &[libc::SYS_write, libc::SYS_flock, libc::SYS_renameat2, libc::SYS_fsync, libc::SYS_syncfs];

/// The same in a store: whatever fails, no stage is left, and what is published is whole.
pub(crate) fn every_failure_leaves_no_stage() {
    let scratch = Scratch::new();
    let layers = [Tar::of(&["d/", "d/f=1"]), Tar::of(&["d/g=2", "h=>d/f", "d/.wh.x", "new/", "new/s->d"])];
    let (below, all) = (image(&scratch, &layers[..1]), image(&scratch, &layers));
    let dir = scratch.stage();
    let store = LayerStore::open(File::open(&dir).unwrap(), form()).unwrap();
    let (kept, owner) = (Owner::new("kept").unwrap(), Owner::new("x").unwrap());
    below.unpack_into(&store, &kept, &lenient(), None).unwrap();
    let watch = Watch::only(&[CALLS, OF_A_STORE].concat());
    let run = || all.unpack_into(&store, &owner, &lenient(), None).map(|unpacked| unpacked.layers.len());
    let (calls, result) = watch.record(run);
    assert_eq!(result.unwrap(), 2);
    store.gc([&kept]).unwrap();
    let (mut failures, mut of_std) = (0, Vec::new());
    for nth in 0..calls.len() {
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EIO) };
        let (calls, result) = watch.inject(fault, run);
        let Some(failed) = calls.iter().find(|call| call.fault.is_some()) else { continue };
        match result {
            // That a lock cannot be let go is nothing to be told: it goes with its descriptor.
            Ok(_) if failed.name() == "flock" => {}
            // The standard library looks into files to know how many processors there are.
            Ok(_) => of_std.push(failed.name()),
            Err(error) => assert_eq!(error.raw_os_error().unwrap_or(libc::EIO), libc::EIO, "{failed}: {error}"),
        }
        failures += 1;
        nothing_staged(&dir);
        assert_eq!(store.check().unwrap(), [], "{failed}");
        store.gc([&kept]).unwrap();
        assert_eq!(store.layers().unwrap().len(), 1);
    }
    assert!(failures > 60 && failures + 2 >= calls.len(), "{failures} of {}", calls.len());
    let untold = of_std.iter().filter(|name| !["openat", "lseek", "fstat", "newfstatat"].contains(name)).count();
    assert!(untold == 0 && of_std.len() <= 12, "{of_std:?} failed, and nobody was told");
}
