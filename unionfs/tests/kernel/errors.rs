//! Errors: kind, object, errno, the kernel's words.

use crate::support::{Place, open};
use cofferdam_unionfs::{ErrorKind, Form, Layer, Operation, Overlay, make_opaque};
use std::ffi::OsStr;

pub(crate) fn a_layer_that_is_not_there(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("file", "")]);
    for (name, errno) in [("nope", libc::ENOENT), ("lower/file", libc::ENOTDIR)] {
        let path = place.path().join(name);
        let error = place.overlay(&[&lower, &path]).mount().expect_err("is no directory");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::OpenLayer));
        assert_eq!((error.object(), error.raw_os_error()), (Some(path.as_os_str()), Some(errno)));
        assert_eq!(error.system_call(), Some("openat"));
    }
}

pub(crate) fn the_kernel_says_why(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[]);
    // A directory whose names are compared in a way of their own, which overlayfs does not take.
    let error = place.overlay(&[lower.as_path(), "/proc/sys/kernel".as_ref()]).mount().expect_err("is refused");
    assert_eq!((error.operation(), error.raw_os_error()), (Operation::Mount, Some(libc::EINVAL)), "{error}");
    assert_eq!(error.object(), Some(OsStr::new("/proc/sys/kernel")));
    let message = error.kernel_message().expect("the kernel says something");
    assert!(message.starts_with("overlay: ") && message.contains("not supported"), "{message}");
    let text = error.to_string();
    let start =
        "mount the overlay: fsconfig(\"/proc/sys/kernel\"): Invalid argument (os error 22); the kernel says: overlay: ";
    assert!(text.starts_with(start), "{text}");
    // The first one, too, is where the kernel is asked what it takes.
    let error = place.overlay(&["/proc/sys/kernel".as_ref(), lower.as_path()]).mount().expect_err("is refused");
    assert!(error.kernel_message().expect("the kernel says something").contains("not supported"), "{error}");
}

pub(crate) fn layers_that_overlap(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("inner/", "")]);
    let work = place.layer("work", &[]);
    for overlay in [place.overlay(&[&lower, &lower.join("inner")]), place.overlay(&[&lower]).upper(&lower, &work)] {
        let error = overlay.mount().expect_err("overlaps");
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Overlapping, Some(libc::ELOOP)), "{error}");
    }
}

pub(crate) fn refused_before_anything_is_done(form: Form) {
    let place = Place::new(form);
    let lowers = [place.layer("a", &[]), place.layer("b", &[])];
    let (writable, upper) = place.writable();
    make_opaque(open(&upper), form).expect("is marked");
    let mapped = |path: &std::path::PathBuf| Layer::from(path).idmapped(open("/proc/self/ns/user"));
    for (overlay, object) in [
        (place.overlay::<&str>(&[]), "lowers"),
        (place.overlay::<&str>(&[]).writable(&writable), "lowers"),
        (place.overlay(&lowers).volatile(), "volatile"),
        (place.overlay(&lowers).metacopy(true), "metacopy"),
        (place.overlay(&lowers).upper(mapped(&upper), &lowers[1]), "upper"),
        (place.overlay(&lowers).upper(&lowers[0], mapped(&lowers[1])), "upper"),
        (place.overlay(&lowers).upper(&upper, &lowers[1]), upper.to_str().expect("UTF-8")),
    ] {
        let (calls, result) = cofferdam_testkit::fault::record(|| overlay.mount());
        let error = result.expect_err("is refused");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::InvalidInput, Operation::Check), "{error}");
        assert_eq!(error.object(), Some(OsStr::new(object)));
        assert!(!calls.iter().any(|c| c.number == libc::SYS_fsopen), "{calls:?}");
    }
}

pub(crate) fn an_ordinary_user_may_not() {
    let place = Place::new(Form::User);
    let lowers = [place.layer("a", &[]), place.layer("b", &[])];
    let error = place.overlay(&lowers).mount().expect_err("is not allowed");
    assert_eq!((error.kind(), error.system_call()), (ErrorKind::PermissionDenied, Some("fsopen")));
    assert_eq!(error.to_string(), "mount the overlay: fsopen(\"overlay\"): Operation not permitted (os error 1)");
    let error = place.overlay(&lowers[..1]).mount().expect_err("is not allowed");
    assert_eq!((error.kind(), error.system_call()), (ErrorKind::PermissionDenied, Some("open_tree")));
    let error = make_opaque(open(&lowers[0]), Form::Trusted).expect_err("is not allowed");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
}

pub(crate) fn an_old_kernel_is_told_as_such() {
    let place = Place::new(Form::Trusted);
    let lowers = [place.layer("a", &[("x", "")]), place.layer("b", &[])];
    let (writable, _) = place.writable();
    let one = Overlay::new().lower(&lowers[0]);
    // More than this kernel has room for in its options: it says so earlier.
    let many: Vec<_> = (0..200).map(|i| place.layer(&format!("many/{i}"), &[])).collect();
    for overlay in [place.overlay(&lowers), one.clone().writable(&writable), place.overlay(&many)] {
        let error = overlay.mount().expect_err("this kernel is too old");
        assert_eq!((error.kind(), error.object()), (ErrorKind::Unsupported, Some(OsStr::new("lowerdir+"))), "{error}");
        assert!(error.to_string().contains("Linux 6.8"), "{error}");
    }
    // A bind needs nothing new.
    assert_eq!(crate::support::mounted(&one).list(""), ["x"]);
}
