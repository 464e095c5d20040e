//! What publishing promises: an error means that nothing is there, success that it lasts.

use crate::containers::prepared;
use crate::store::{id, names, owner, path_of, publish, reopened, staged, store};
use crate::support::{Place, list, open, without_file_rights};
use crate::together::open_of;
use cofferdam_testkit::fault::{Action, Fault as Injected, Watch, Who};
use cofferdam_unionfs::{Backend, ContainerSpec, Diff, ErrorKind, Fault, Form, LayerStore, SyncPolicy};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The calls that need a descriptor more, and those that change the store.
const CALLS: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_write,
    libc::SYS_read,
    libc::SYS_fgetxattr,
    libc::SYS_renameat2,
    libc::SYS_fsync,
];

/// Whatever fails, `publish` either says so and the layer is not there, or the layer is there. Only waiting for its name comes later.
pub(crate) fn what_was_not_published_is_not_there(form: Form) {
    let place = Place::new(form);
    let store = store(&place).sync_policy(SyncPolicy::PerFile);
    let x = owner("x");
    let watch = Watch::only(CALLS);
    let publish = |stage: cofferdam_unionfs::Stage| stage.publish(&id("x"), None).map(drop);
    let stage = staged(&store, &x, "file");
    let (calls, result) = watch.record(|| publish(stage));
    result.unwrap_or_else(|e| panic!("{e}"));
    store.gc([]).expect("works");
    let mut late = Vec::new();
    for nth in 0..calls.len() {
        let stage = staged(&store, &x, "file");
        let fault = Injected { who: Who::Parent, nth, action: Action::Errno(libc::EMFILE) };
        let (seen, result) = watch.inject(fault, || publish(stage));
        let hit = seen.iter().find(|call| call.fault.is_some()).expect("it is made again");
        if result.is_err() && !names(&store).is_empty() {
            late.push(hit.name());
        }
        store.gc([]).expect("works");
        assert!(list(place.path().join("store/staging")).is_empty());
    }
    assert_eq!(late, ["fsync"], "an error, and the layer is there");
}

/// A root that its owner cannot look into: refused before it is in the way, and one that is closed later is told and can be removed.
pub(crate) fn a_closed_root_is_no_wedge(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let x = owner("x");
    publish(&store, &x, "fine", None);
    publish(&store, &x, "closed", None);
    publish(&store, &x, "on-it", Some("closed"));
    let close = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o000)).expect("chmod");
    let stage = staged(&store, &x, "file");
    close(&path_of(&stage));
    let error = without_file_rights(|| stage.publish(&id("never"), None)).expect_err("nobody could open it");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(names(&store), ["closed", "fine", "on-it"]);

    let closed = store.layer(&id("closed")).unwrap().expect("is there");
    close(&path_of(&closed));
    without_file_rights(|| {
        let found = store.check().unwrap_or_else(|e| panic!("{e}"));
        let found: Vec<_> = found.iter().map(|p| (p.name.to_str().expect("UTF-8"), p.fault)).collect();
        let [(name, Fault::Closed)] = found[..] else { panic!("{found:?}") };
        assert!(name.starts_with("closed~"), "{name}");
        store.repair().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(names(&store), ["fine"]);
        assert_eq!(store.check().unwrap(), []);
    });
}

/// What cannot be deleted is in nobody's way, and told.
pub(crate) fn trash_that_cannot_be_deleted_is_told(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let path = place.path().join("store");
    let x = owner("x");
    for name in ["kept", "stuck", "gone"] {
        publish(&store, &x, name, None);
    }
    // A mount in a layer is what nobody deletes.
    let stuck = store.layer(&id("stuck")).unwrap().expect("is there");
    let inside = fs::canonicalize(path_of(&stuck)).expect("is there").join("mount");
    fs::create_dir(&inside).expect("is made");
    let nothing = None::<&str>;
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &inside, Some("tmpfs"), none, nothing).expect("is mounted");
    store.acquire(&id("kept"), &owner("y")).expect("works");
    let collected = store.gc([&owner("y")]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((collected.layers.len(), collected.undeleted), (2, 1));
    assert_eq!(names(&store), ["kept"]);
    let other = LayerStore::open(open(&path), form).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(list(path.join("trash")).len(), 1);
    let error = other.empty_trash().expect_err("is still mounted");
    assert!([ErrorKind::Busy, ErrorKind::Os].contains(&error.kind()), "{error}");

    let trash = path.join("trash").join(&list(path.join("trash"))[0]);
    nix::mount::umount2(&trash.join("content/mount"), nix::mount::MntFlags::empty()).expect("is unmounted");
    assert_eq!(other.gc([&owner("y")]).expect("works").undeleted, 0);
    assert!(list(path.join("trash")).is_empty());
}

/// A durable handle takes over what another has published: then it has to wait for the disk itself.
pub(crate) fn what_is_taken_over_lasts_as_well(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let durable = store.clone().sync_policy(SyncPolicy::Filesystem);
    let x = owner("x");
    publish(&store, &x, "base", None);
    publish(&store, &x, "quick", Some("base"));
    let taken = staged(&durable, &x, "quick").publish_or_take(&id("quick"), Some(&id("base"))).expect("is taken");
    assert!(taken.is_synced());
    assert!(store.layer(&id("base")).unwrap().expect("is there").is_synced());

    // Its name may not be on the disk yet: whoever has renamed it may still be waiting for that.
    let stage = staged(&durable, &owner("y"), "quick");
    let layers = fs::canonicalize(place.path().join("store/layers")).expect("is there");
    let (calls, taken) = Watch::only(&[libc::SYS_fsync]).record(|| {
        let taken = stage.publish_or_take(&id("quick"), Some(&id("base")));
        (open_of(&layers), taken)
    });
    let (descriptors, taken) = taken;
    taken.expect("is taken");
    let synced: Vec<i32> = calls.iter().filter_map(|call| i32::try_from(call.args[0]).ok()).collect();
    assert!(synced.iter().any(|fd| descriptors.contains(fd)), "{synced:?} are waited for, not {descriptors:?}");
    assert_eq!(names(&reopened(&place.path().join("store"), form)), ["base", "quick"]);
}

/// Images have files that keep out even their owner: such a layer is published and waited for, and what cannot be read is told by its name. No mode is changed for it.
pub(crate) fn files_that_their_owner_may_not_read(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let x = owner("x");
    for (at, name, mode, whole) in [
        ("etc/shadow", "open", 0o600, 0),
        ("etc/shadow", "shadow", 0o000, 1),
        ("etc/shadow", "sudo", 0o4111, 1),
        ("etc", "closed", 0o000, 1),
    ] {
        let durable = store.clone().sync_policy(SyncPolicy::PerFile);
        let stage = staged(&durable, &x, "file");
        let path = path_of(&stage);
        fs::create_dir(path.join("etc")).expect("is made");
        fs::write(path.join("etc/shadow"), "secret").expect("is written");
        fs::set_permissions(path.join(at), Permissions::from_mode(mode)).expect("chmod");
        let watch = Watch::only(&[libc::SYS_fsync, libc::SYS_syncfs]);
        let (calls, layer) = without_file_rights(|| watch.record(|| stage.publish(&id(name), None)));
        let layer = layer.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(layer.is_synced());
        let count = |number| calls.iter().filter(|call| call.number == number).count();
        assert_eq!(count(libc::SYS_syncfs), whole, "{name}");
        let found = fs::metadata(path_of(&layer).join(at)).expect("is there").mode();
        assert_eq!(found & 0o7777, mode, "{name}");
    }
    for (name, mode) in [("shadow", 0o000), ("sudo", 0o4111)] {
        let spec = ContainerSpec::new().backend(Backend::Copy);
        let prepare = || store.prepare(&owner("c"), Some(&id(name)), &spec).map(drop);
        let error = without_file_rights(prepare).expect_err("may not be read");
        assert_eq!(
            (error.kind(), error.object()),
            (ErrorKind::PermissionDenied, Some("etc/shadow".as_ref())),
            "{error}"
        );
        let layer = store.layer(&id(name)).unwrap().expect("is there");
        let error = without_file_rights(|| Diff::between(&layer, &layer).map(drop)).expect_err("may not be read");
        assert_eq!(
            (error.kind(), error.object()),
            (ErrorKind::PermissionDenied, Some("etc/shadow".as_ref())),
            "{error}"
        );
        assert_eq!(fs::metadata(path_of(&layer).join("etc/shadow")).expect("is there").mode() & 0o7777, mode);
        // Root may, also that of a user namespace.
        assert!(Diff::between(&layer, &layer).unwrap_or_else(|e| panic!("{e}")).changes().is_empty());
        let container = prepared(&store, "c", Some(name), &spec);
        let view = container.view().unwrap_or_else(|e| panic!("{e}"));
        let copy = fs::metadata(path_of(&view).join("etc/shadow")).expect("is there");
        assert_eq!(copy.mode() & 0o7777, mode);
        drop(view);
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    }
}
