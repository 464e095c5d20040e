//! What older kernels do not take as it is, and what this one takes.

use crate::many::{layers, shows_all};
use crate::support::{Disk, Merged, Place, is_linux, list, mount_table, mounted, open, open_fds, user_namespace};
use cofferdam_unionfs::{ErrorKind, Fallbacks, Form, Layer, MAX_LOWERS, Overlay, Support};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub(crate) fn what_is_known_of_this_kernel(form: Form) {
    let fds = open_fds();
    let support = Support::probe().unwrap_or_else(|e| panic!("{e}"));
    let found = [support.lowers_one_by_one, support.descriptors, support.detached, support.user_attributes];
    assert_eq!(found, [(6, 8), (6, 13), (6, 15), (5, 11)].map(|(major, minor)| is_linux(major, minor)), "{support:?}");
    assert_eq!(open_fds(), fds);
    if !support.lowers_one_by_one {
        return;
    }
    // What is known need not be tried.
    let place = Place::new(form);
    let layers = layers(&place, 3);
    let overlay = place.overlay(&layers).support(support);
    let (calls, root) = cofferdam_testkit::fault::record(|| overlay.mount());
    shows_all(&Merged(root.unwrap_or_else(|e| panic!("{e}"))), 3);
    let set_fd = calls.iter().filter(|c| c.number == libc::SYS_fsconfig && c.args[1] & 0xff == 5).count();
    assert_eq!(set_fd, if support.descriptors { 3 } else { 0 });
}

/// By mount(2), with nothing cut off.
pub(crate) fn an_older_kernel_mounts_all_the_same(form: Form) {
    let place = Place::new(form);
    let layers = layers(&place, MAX_LOWERS);
    let (writable, upper) = place.writable();
    let before = mount_table();
    for count in [2, 10, 128, MAX_LOWERS] {
        let overlay = place.overlay(layers.get(..count).expect("as many")).writable(&writable);
        assert_eq!(overlay.mount().expect_err("was not allowed").kind(), ErrorKind::Unsupported);
        let (root, used) = overlay.fallbacks(Fallbacks::all()).mount_and_report().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(used, Fallbacks::MOUNT);
        let root = Merged(root);
        shows_all(&root, count);
        fs::write(root.path("all"), "0").expect("is written");
    }
    assert_eq!(list(&upper), ["all"]);
    let overlay = place.overlay(&layers[..2]).fallbacks(Fallbacks::MOUNT).read_only().nosuid();
    let refused = fs::write(mounted(&overlay).path("x"), "").expect_err("is read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));

    // A directory that is not where it was is not taken for another.
    let moved = place.layer("moved", &[]);
    let descriptor = open(&moved);
    fs::rename(&moved, place.path().join("elsewhere")).expect("is renamed");
    let found = Overlay::new().form(form).lower(descriptor).lower(&layers[0]).fallbacks(Fallbacks::MOUNT);
    shows_all(&mounted(&found), 1);
    let descriptor = open(place.layer("gone", &[]));
    fs::remove_dir(place.path().join("gone")).expect("is removed");
    place.layer("gone (deleted)", &[("trap", "")]);
    let lost = Overlay::new().form(form).lower(descriptor).lower(&layers[0]).fallbacks(Fallbacks::MOUNT);
    assert_eq!(lost.mount().expect_err("is another").kind(), ErrorKind::Unsupported);
    assert_eq!(mount_table(), before, "nobody has seen anything");
}

/// One copy of a layer, with other owners in each user namespace.
pub(crate) fn one_layer_for_many_user_namespaces() {
    // On older kernels not every file system can be idmapped: tmpfs since 6.3.
    let disk = Disk::new("extent", "defaults");
    let place = Place::on(&disk, Form::Trusted);
    let lower = place.layer("lower", &[("file", "x"), ("theirs", "")]);
    let bottom = place.layer("bottom", &[("below", "")]);
    std::os::unix::fs::chown(lower.join("theirs"), Some(7), Some(8)).expect("is given");
    let (writable, upper) = place.writable();
    let before = mount_table();
    let mapped = |path: &std::path::Path, first| Layer::from(path).idmapped(user_namespace(first));
    let needed = match (is_linux(6, 8), is_linux(6, 15)) {
        (_, true) => Fallbacks::empty(),
        (true, _) => Fallbacks::ATTACH,
        _ => Fallbacks::all(),
    };
    let mount = |overlay: Overlay| {
        if !needed.is_empty() {
            let error = overlay.mount().expect_err("was not allowed");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        let (root, used) = overlay.fallbacks(Fallbacks::all()).mount_and_report().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(used, needed);
        Merged(root)
    };
    let owner =
        |root: &Merged, name| fs::metadata(root.path(name)).map(|data| (data.uid(), data.gid())).expect("is there");
    for first in [100_000, 300_000] {
        let overlay = Overlay::new().lower(mapped(&lower, first)).lower(mapped(&bottom, first)).writable(&writable);
        let root = mount(overlay);
        assert_eq!([owner(&root, "file"), owner(&root, "below")], [(first, first); 2]);
        assert_eq!(owner(&root, "theirs"), (first + 7, first + 8));
    }
    // What is copied up belongs to whom it is shown to belong to.
    let root = mount(Overlay::new().lower(mapped(&lower, 100_000)).lower(&bottom).writable(&writable));
    fs::write(root.path("file"), "changed").expect("is written");
    assert_eq!(fs::metadata(upper.join("file")).expect("is there").uid(), 100_000);
    assert_eq!(fs::metadata(lower.join("file")).expect("is there").uid(), 0);
    drop(root);
    // The same one twice is found out by a second attempt.
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&lower, &link).expect("is made");
    let twice = [&lower, &bottom, &link].map(|path| mapped(path, 100_000));
    let root = mount(Overlay::new().lowers(twice));
    assert_eq!(
        (owner(&root, "theirs"), root.list("")),
        ((100_007, 100_008), vec!["below".into(), "file".into(), "theirs".into()])
    );
    drop(root);
    // Alone it is a bind mount.
    let root = mounted(&Overlay::new().lower(mapped(&lower, 100_000)));
    assert_eq!(owner(&root, "theirs"), (100_007, 100_008));
    drop(root);
    assert_eq!(mount_table(), before, "nobody has seen anything");
    drop(place);
}
