//! The mount itself: what it is, its options and attributes, where it is.

use crate::support::{Place, list, mount_table, mounted, open, user_namespace};
use cofferdam_unionfs::{ErrorKind, Form, Layer, Operation, Overlay, RedirectDir, WritableLayer, Xino, attach};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::FsFlags;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

fn read_only(result: io::Result<()>) -> bool {
    result.is_err_and(|e| e.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

pub(crate) fn one_lower_is_bound_read_only(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("file", "x"), ("dir/x", "")]);
    let merged = mounted(&place.overlay(&[&lower]));
    assert_ne!(fstatfs(&merged.0).expect("statfs").filesystem_type(), OVERLAYFS_SUPER_MAGIC);
    assert_eq!((merged.list(""), merged.read("file")), (vec!["dir".into(), "file".into()], "x".into()));
    assert!(read_only(fs::write(merged.path("file"), "y")));
    assert!(read_only(fs::write(merged.path("dir/new"), "y")));
    assert!(read_only(fs::remove_file(merged.path("file"))));
    // The directory itself is as writable as before.
    fs::write(lower.join("new"), "y").expect("is written");
    assert_eq!(merged.read("new"), "y");
}

pub(crate) fn attributes_are_in_force(form: Form) {
    let place = Place::new(form);
    let lowers = [place.layer("a", &[("file", "x")]), place.layer("b", &[])];
    let (writable, _) = place.writable();
    let flags = |overlay: &cofferdam_unionfs::Overlay| fstatfs(&mounted(overlay).0).expect("statfs").flags();
    let all = FsFlags::ST_RDONLY | FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC;
    for overlay in [place.overlay(&lowers), place.overlay(&lowers[..1]), place.overlay(&lowers).writable(&writable)] {
        let set = flags(&overlay.clone().read_only().nosuid().nodev().noexec());
        assert_eq!(set & all, all);
        // In a user namespace mounts may have inherited some that cannot be taken off, so no more than this:
        for (with, flag) in [
            (overlay.clone().nosuid(), FsFlags::ST_NOSUID),
            (overlay.clone().nodev(), FsFlags::ST_NODEV),
            (overlay.clone().noexec(), FsFlags::ST_NOEXEC),
        ] {
            assert!(flags(&with).contains(flag));
            assert_eq!(flags(&with) - flag, flags(&overlay) - flag);
        }
    }
    let merged = mounted(&place.overlay(&lowers).writable(&writable).read_only());
    assert!(read_only(fs::write(merged.path("file"), "y")));
}

/// What the check of options lets through, the kernel takes.
pub(crate) fn options_are_taken(form: Form) {
    let place = Place::new(form);
    let lowers = [place.layer("a", &[("x", "")]), place.layer("b", &[("y", "")])];
    let (mut taken, mut refused) = (0, 0);
    for bits in 0..16 {
        let bit = |n: u32| bits >> n & 1 == 1;
        for redirect_dir in [RedirectDir::NoFollow, RedirectDir::Follow, RedirectDir::On] {
            for xino in [Xino::Off, Xino::Auto, Xino::On] {
                let mut overlay =
                    place.overlay(&lowers).index(bit(0)).metacopy(bit(1)).redirect_dir(redirect_dir).xino(xino);
                if bit(2) {
                    overlay = overlay.volatile();
                }
                // An index binds an upper to its options, so each gets a new one.
                let scratch = tempfile::tempdir_in(place.path()).expect("a folder");
                if bit(3) {
                    let layer = cofferdam_unionfs::WritableLayer::create(open(scratch.path())).expect("is made");
                    overlay = overlay.writable(&layer);
                }
                match overlay.mount() {
                    Ok(_) => taken += 1,
                    Err(error) if error.kind() == ErrorKind::InvalidInput => refused += 1,
                    Err(error) => panic!("{overlay:?}: {error}"),
                }
            }
        }
    }
    // Without an upper: index 2, xino 3; metacopy off 3 redirects, on 2. With: index 2, volatile 2, xino 3; metacopy off 3, on 1.
    // With user.* attributes neither metacopy nor redirects.
    let expected = if form == Form::Trusted { (6 * 5 + 12 * 4, 66) } else { (6 + 12, 126) };
    assert_eq!((taken, refused), expected);
}

pub(crate) fn nothing_is_attached_until_asked_for(form: Form) {
    let place = Place::new(form);
    let lowers = [place.layer("a", &[("x", "")]), place.layer("b", &[])];
    let target = place.layer("target", &[]);
    let before = mount_table();
    let merged = mounted(&place.overlay(&lowers));
    assert_eq!(mount_table(), before);
    attach(&merged.0, open(&target)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((list(&target), mount_table() == before), (vec!["x".into()], false));
    let error = attach(open(place.path()), open(&target)).expect_err("is no mount's root");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    drop(merged);
    umount2(&target, MntFlags::empty()).expect("is unmounted");
    assert_eq!(mount_table(), before);
}

/// The upper is free again when the descriptor is closed, at once.
pub(crate) fn mounted_again_and_again(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[]);
    let (writable, upper) = place.writable();
    let overlay = place.overlay(&[&lower]).writable(&writable).index(true);
    for i in 0..50 {
        let merged = mounted(&overlay);
        assert_eq!(merged.list("").len(), i);
        fs::write(merged.path(&format!("{i:02}")), "").expect("is written");
        // With an index, upper and work are for one mount at a time.
        assert_eq!(overlay.mount().map(drop).map_err(|e| e.kind()), Err(ErrorKind::Busy));
    }
    assert_eq!(list(upper).len(), 50);
}

pub(crate) fn descriptors_as_layers(form: Form) {
    use std::os::unix::fs::OpenOptionsExt;
    let place = Place::new(form);
    let layers = ["a", "b", "c", "d"].map(|name| place.layer(name, &[(name, "")]));
    let fd = |i: usize, flags: i32| -> OwnedFd {
        fs::OpenOptions::new().read(true).custom_flags(flags).open(&layers[i]).expect("opens").into()
    };
    let (writable, upper) = place.writable();
    let overlay = place
        .overlay(&[&layers[0]])
        .lower(fd(1, 0))
        .lower(fd(2, libc::O_PATH))
        .lower(std::fs::File::from(fd(3, libc::O_PATH)))
        .writable(&writable);
    // What is mounted is the directory that was opened, whatever its name is now.
    let moved = place.path().join("moved");
    fs::rename(&layers[1], &moved).expect("is renamed");
    fs::create_dir(&layers[1]).expect("is made");
    for _ in 0..2 {
        let merged = mounted(&overlay);
        fs::write(merged.path("new"), "").expect("is written");
        assert_eq!(merged.list(""), ["a", "b", "c", "d", "new"]);
    }
    assert_eq!(list(upper), ["new"]);
}

/// What overlays do with each other: one can be the lower of another, and that is deep enough. None can be an upper, or have other owners.
pub(crate) fn overlays_in_each_other(form: Form) {
    let place = Place::new(form);
    let lowers = ["a", "b", "c", "d"].map(|name| place.layer(name, &[(name, "")]));
    let attached = |name: &str, overlay: &Overlay| {
        let target = place.layer(name, &[]);
        attach(mounted(overlay).0, open(&target)).unwrap_or_else(|e| panic!("{e}"));
        target
    };
    let inner = attached("inner", &place.overlay(&lowers[..2]));
    let outer = attached("outer", &place.overlay(&[&inner, &lowers[2]]));
    assert_eq!(list(&outer), ["a", "b", "c"]);
    let error = place.overlay(&[&outer, &lowers[3]]).mount().expect_err("is too deep");
    assert_eq!((error.operation(), error.raw_os_error()), (Operation::Mount, Some(libc::EINVAL)), "{error}");

    let (writable, upper) = place.writable();
    let written = attached("written", &place.overlay(&lowers[..1]).writable(&writable));
    let inside = WritableLayer::create(open(&written)).unwrap_or_else(|e| panic!("{e}"));
    let error = place.overlay(&lowers[1..2]).writable(&inside).mount().expect_err("is no upper");
    assert_eq!((error.operation(), error.raw_os_error()), (Operation::Mount, Some(libc::EINVAL)), "{error}");
    drop(inside);
    assert_eq!(list(upper), ["upper", "work"]);

    if form == Form::Trusted {
        let mapped = Layer::from(&inner).idmapped(user_namespace(100_000));
        let error = place.overlay(&lowers[2..]).lower(mapped).mount().expect_err("is refused");
        assert_eq!((error.operation(), error.raw_os_error()), (Operation::Idmap, Some(libc::EINVAL)), "{error}");
    }
    for target in [written, outer, inner] {
        umount2(&target, MntFlags::empty()).expect("is unmounted");
    }
}
