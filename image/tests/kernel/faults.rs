//! Every system call on files that unpacking makes fails in turn: the error tells it.

use crate::support::{Scratch, Tar};
use cofferdam_image::{LayerReader, Options, Policy, Unpacker};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use std::collections::BTreeSet;
use std::fs::File;

/// What concerns files. (Of the rest, memory and closing, failures are not ours to tell.)
const CALLS: &[i64] = &[
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
