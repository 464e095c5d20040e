//! What if the n-th system call fails? A typed error, and nothing is left.

use crate::support::{Place, list, mounted, open, open_fds};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_unionfs::{Error, ErrorKind, Form, Operation, Overlay, WritableLayer};
use rustix::fs::{FileType, Mode, mknodat};

/// All that the operations of this crate call, except `close`: a call that is not made would leave a descriptor.
const WATCHED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_mkdirat,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_unlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
];

/// Calls `f` once for each system call that it makes when all is well, with that one failing. Gives the names of those calls.
fn walk<T: Send>(f: impl Fn() -> Result<T, Error> + Sync, check: impl Fn(&str, Result<T, Error>)) -> Vec<&'static str> {
    let watch = Watch::only(WATCHED);
    let (calls, result) = watch.record(&f);
    result.unwrap_or_else(|e| panic!("without a fault: {e}"));
    let fds = open_fds();
    for (nth, call) in calls.iter().enumerate() {
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EIO) };
        let (seen, result) = watch.inject(fault, &f);
        let hit =
            seen.iter().find(|c| c.fault.is_some()).unwrap_or_else(|| panic!("call {nth} was not made: {seen:?}"));
        assert_eq!(hit.name(), call.name());
        check(hit.name(), result);
        assert_eq!(open_fds(), fds, "descriptors after {hit} failed");
    }
    calls.iter().map(cofferdam_testkit::fault::Call::name).collect()
}

fn typed<T>(name: &str, result: Result<T, Error>) -> Error {
    let Err(error) = result else { panic!("{name} fails, and nobody is told") };
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Os, Some(libc::EIO)), "{name}: {error}");
    let call = error.system_call().expect("a call");
    assert!(call == name, "{name} failed, the error names {call}: {error}");
    error
}

fn walk_mount(overlay: &Overlay, operation: Operation) -> Vec<&'static str> {
    walk(
        || overlay.mount(),
        |name, result| {
            let error = typed(name, result);
            assert!([operation, Operation::OpenLayer, Operation::Opaque].contains(&error.operation()), "{error}");
            // The upper is free again.
            drop(mounted(overlay));
        },
    )
}

pub(crate) fn every_call_of_a_mount(form: Form) {
    let place = Place::new(form);
    let lowers = ["a", "b", "c"].map(|name| place.layer(name, &[(name, "")]));
    let (writable, upper) = place.writable();
    let overlay = place.overlay(&lowers).writable(&writable).index(true);
    let calls = walk_mount(&overlay, Operation::Mount);
    // Three layers to open and look at, upper, work; a context, four options (five with userxattr), five layers, create, the mount.
    let count = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!((count("openat"), count("fgetxattr"), count("fsopen"), count("fsmount")), (5, 4, 1, 1), "{calls:?}");
    assert!(count("fsconfig") >= 10, "{calls:?}");
    assert!(list(upper).is_empty());
}

pub(crate) fn every_call_of_a_bind(form: Form) {
    let place = Place::new(form);
    let calls = walk_mount(&place.overlay(&[place.layer("a", &[])]), Operation::Bind);
    assert_eq!(calls, ["openat", "fstat", "fgetxattr", "open_tree", "mount_setattr"]);
}

pub(crate) fn every_call_of_a_writable_layer(form: Form) {
    let place = Place::new(form);
    let path = place.layer("writable", &[]);
    let dir = open(&path);
    let make_and_remove = || {
        let layer = WritableLayer::create(&dir)?;
        // Without a file in it nothing would have to be opened.
        mknodat(layer.upper(), "file", FileType::RegularFile, Mode::RUSR, 0).expect("is made");
        drop(layer);
        WritableLayer::remove(&dir)
    };
    let calls = walk(make_and_remove, |name, result| match typed(name, result).operation() {
        Operation::RemoveWritable => WritableLayer::remove(&dir).expect("can be repeated"),
        operation => {
            assert_eq!(operation, Operation::PrepareWritable);
            assert!(list(&path).is_empty(), "{name} failed, and {:?} is left", list(&path));
        }
    });
    for call in ["mkdirat", "openat2", "fchown", "fchmod", "unlinkat", "getdents64", "lseek", "fstat"] {
        assert!(calls.contains(&call), "{call} is not among {calls:?}");
    }
}
