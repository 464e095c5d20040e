//! The writable layer: making, finding, removing it.

use crate::support::{Place, list, mounted, open};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_unionfs::{AfterVolatile, ErrorKind, Form, Operation, WritableLayer};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

pub(crate) fn made_for_the_caller(form: Form) {
    let place = Place::new(form);
    let before = umask(Mode::from_bits_truncate(0o077));
    let (writable, upper) = place.writable();
    umask(before);
    let root = fs::metadata(&upper).expect("is there");
    assert_eq!((root.mode() & 0o7777, root.uid(), root.gid()), (0o755, geteuid().as_raw(), getegid().as_raw()));
    // The merged root has the looks of the upper, and those may be taken from a lower.
    let lower = place.layer("lower", &[]);
    set_mode(&lower, 0o1711);
    writable.set_root_like(open(&lower)).unwrap_or_else(|e| panic!("{e}"));
    let merged = mounted(&place.overlay(&[&lower]).writable(&writable));
    assert_eq!(fs::metadata(merged.path("")).expect("is there").mode() & 0o7777, 0o1711);
}

pub(crate) fn nothing_is_left_of_a_failure(form: Form) {
    let place = Place::new(form);
    for name in ["upper", "work"] {
        let dir = place.layer(name, &[(&format!("{name}/file"), "")]);
        let error = WritableLayer::create(open(&dir)).expect_err("is in the way");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::AlreadyExists, Operation::PrepareWritable));
        assert_eq!(list(&dir), [name]);
        assert_eq!(list(dir.join(name)), ["file"]);
        let error = WritableLayer::open(open(&dir), AfterVolatile::Refuse).expect_err("is not complete");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // Whatever there is of it can be removed.
        WritableLayer::remove(open(&dir)).expect("is removed");
        assert!(list(&dir).is_empty());
    }
}

pub(crate) fn removed_with_all_that_is_in_it(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("gone", ""), ("dir/x", "")]);
    let (writable, upper) = place.writable();
    let merged = mounted(&place.overlay(&[&lower]).writable(&writable).index(true));
    fs::remove_file(merged.path("gone")).expect("is deleted");
    fs::remove_dir_all(merged.path("dir")).expect("is deleted");
    for dir in 0..40 {
        let dir = merged.path(&format!("{dir}"));
        fs::create_dir(&dir).expect("is made");
        for file in 0..40 {
            fs::write(dir.join(format!("a file with a long name, number {file}")), "").expect("is written");
        }
    }
    drop((merged, writable));
    // Deeper than any path can be, and than there are descriptors.
    let mut deep = fs::canonicalize(&upper).expect("a path");
    for _ in 0..3000 {
        let next = deep.join("deeper and deeper");
        DirBuilder::new().mode(0o700).create(&next).expect("is made");
        deep = next;
        if deep.as_os_str().len() > 3000 {
            // Go on from a shorter path: what is below is moved along.
            let top = upper.join("deep");
            let below = place.path().join("below");
            fs::rename(upper.join("deeper and deeper"), &below).expect("is moved");
            fs::create_dir_all(&top).expect("is made");
            fs::rename(&below, top.join(format!("{}", list(&top).len()))).expect("is moved");
            deep.clone_from(&upper);
        }
    }
    set_mode(upper.join("0"), 0);
    set_mode(upper.join("1"), 0o500);

    let dir = upper.parent().expect("a parent");
    let again = WritableLayer::open(open(dir), AfterVolatile::Refuse).expect("is found again");
    drop(again);
    WritableLayer::remove(open(dir)).unwrap_or_else(|e| panic!("{e}"));
    assert!(list(dir).is_empty());
    WritableLayer::remove(open(dir)).expect("is fine with nothing");
    assert_eq!(list(&lower), ["dir", "gone"]);
}

pub(crate) fn removal_is_not_led_astray(form: Form) {
    let place = Place::new(form);
    let outside = place.layer("outside", &[("precious", "x"), ("dir/precious", "x")]);
    let (writable, upper) = place.writable();
    drop(writable);
    let dir = upper.parent().expect("a parent");
    symlink(&outside, upper.join("to a directory")).expect("is made");
    symlink(outside.join("precious"), upper.join("to a file")).expect("is made");
    fs::create_dir_all(upper.join("dir/mounted")).expect("is made");
    let nothing = None::<&str>;
    mount(Some(&outside), &upper.join("dir/mounted"), nothing, MsFlags::MS_BIND, nothing).expect("is mounted");

    let error = WritableLayer::remove(open(dir)).expect_err("something is mounted there");
    // As if it had been mounted right after the walk found a directory there that is not empty.
    let watch = Watch::only(&[libc::SYS_unlinkat]);
    let (calls, _) = watch.record(|| WritableLayer::remove(open(dir)));
    let fault = Fault { who: Who::Parent, nth: calls.len() - 1, action: Action::Errno(libc::ENOTEMPTY) };
    let (_, late) = watch.inject(fault, || WritableLayer::remove(open(dir)));
    umount2(&upper.join("dir/mounted"), MntFlags::empty()).expect("is unmounted");
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Busy, Some(libc::EBUSY)), "{error}");
    assert_eq!(error.object(), Some("upper/dir/mounted".as_ref()));
    assert_eq!(late.expect_err("something is mounted there").raw_os_error(), Some(libc::EXDEV));
    assert_eq!(
        (list(&outside), list(outside.join("dir"))),
        (vec!["dir".into(), "precious".into()], vec!["precious".into()])
    );

    // A link in the place of the whole is deleted as a link.
    fs::rename(&upper, dir.join("aside")).expect("is moved");
    symlink(&outside, &upper).expect("is made");
    assert!(WritableLayer::open(open(dir), AfterVolatile::Refuse).is_err());
    WritableLayer::remove(open(dir)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((list(dir), list(&outside)), (vec!["aside".into()], vec!["dir".into(), "precious".into()]));
}

pub(crate) fn a_volatile_layer_is_refused_until_accepted(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[]);
    let (writable, upper) = place.writable();
    let dir = upper.parent().expect("a parent");
    let overlay = place.overlay(&[&lower]).writable(&writable).volatile();
    let merged = mounted(&overlay);
    fs::write(merged.path("file"), "x").expect("is written");
    drop(merged);

    let error = overlay.mount().expect_err("was volatile");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Volatile, Operation::Mount), "{error}");
    let error = WritableLayer::open(open(dir), AfterVolatile::Refuse).expect_err("was volatile");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Volatile, Operation::PrepareWritable), "{error}");

    let accepted = WritableLayer::open(open(dir), AfterVolatile::Accept).unwrap_or_else(|e| panic!("{e}"));
    let merged = mounted(&place.overlay(&[&lower]).writable(&accepted));
    assert_eq!(merged.read("file"), "x");
    drop(merged);
    WritableLayer::open(open(dir).as_fd(), AfterVolatile::Refuse).expect("is not volatile any more");
}
