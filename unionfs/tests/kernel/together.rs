//! Containers while others work with the same store: a collection, another thread, a process that has copies of descriptors.

use crate::store::{id, names, owner, path_of, publish, store};
use crate::support::{Place, list, open};
use cofferdam_testkit::fault::{Call, Watch};
use cofferdam_unionfs::{AfterVolatile, Backend, ContainerSpec, ErrorKind, Form, LayerStore, SyncPolicy};
use nix::fcntl::{Flock, FlockArg};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prepares a container; `meanwhile` is run when the layer has been taken, and before the container is in its place.
fn prepare_while(
    place: &Place,
    store: &LayerStore,
    spec: &ContainerSpec,
    meanwhile: impl Fn(&Path),
) -> Option<ErrorKind> {
    let path = place.path().join("store");
    // With the lock shared all goes on, but for the last step.
    let lock = Flock::lock(open(path.join("lock")), FlockArg::LockShared).expect("is locked");
    std::thread::scope(|scope| {
        let prepared = scope.spawn(|| store.prepare(&owner("c"), Some(&id("base")), spec));
        let limit = Instant::now() + Duration::from_secs(60);
        let places = |name: String| path.join("staging").join(name).join("init-places").exists();
        while !list(path.join("staging")).into_iter().any(places) {
            assert!(Instant::now() < limit && !prepared.is_finished(), "it has not begun");
            std::thread::yield_now();
        }
        meanwhile(&path.join("layers").join(&list(path.join("layers"))[0]));
        drop(lock);
        prepared.join().expect("no panic").map(drop).map_err(|e| e.kind()).err()
    })
}

/// A layer that is collected between its being taken and the container's being there. (By hand: a collection needs the lock alone.)
pub(crate) fn a_container_is_not_prepared_on_what_is_gone(form: Form) {
    for backend in [Backend::Overlay, Backend::Copy] {
        let place = Place::new(form);
        let store = store(&place);
        let spec = ContainerSpec::new().backend(backend);
        publish(&store, &owner("image"), "base", None);
        let aside = place.path().join("aside");
        let left = |store: &LayerStore| {
            let staging = list(place.path().join("store/staging"));
            assert!(store.containers().unwrap().is_empty() && staging.is_empty(), "{backend}: {staging:?}");
        };
        let gone = prepare_while(&place, &store, &spec, |layer| fs::rename(layer, &aside).expect("is renamed"));
        assert_eq!(gone, Some(ErrorKind::NotFound), "{backend}");
        left(&store);
        // Another one under the same name is not what the container stands on.
        publish(&store, &owner("image"), "base", None);
        let other = prepare_while(&place, &store, &spec, |layer| {
            fs::remove_dir_all(&aside).expect("is removed");
            fs::rename(layer, &aside).expect("is renamed");
            fs::create_dir(layer).expect("is made");
            for folder in ["content", "owners"] {
                fs::create_dir(layer.join(folder)).expect("is made");
            }
            fs::copy(aside.join("about"), layer.join("about")).expect("is copied");
        });
        assert_eq!(other, Some(ErrorKind::NotFound), "{backend}");
        left(&store);
        // Whoever takes the owner's note away meanwhile, it is there when the container is.
        let note = |layer: &Path| fs::remove_file(layer.join("owners/c")).expect("was noted");
        assert_eq!(prepare_while(&place, &store, &spec, note), None, "{backend}");
        assert_eq!(store.owners(&id("base")).unwrap(), [owner("c")], "{backend}");
    }
}

/// The note goes with the container, and not later, when the same owner may have taken the layer again.
pub(crate) fn a_note_goes_with_its_container(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    let container = store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works");
    let watch = Watch::only(&[libc::SYS_flock, libc::SYS_renameat2, libc::SYS_unlinkat]);
    let (calls, result) = watch.record(|| container.discard());
    result.unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = calls.iter().map(Call::name).collect();
    let rename = names.iter().position(|name| *name == "renameat2").expect("is renamed");
    let before = names[..rename].iter().rposition(|name| *name == "flock").expect("is locked");
    let after = rename + names[rename..].iter().position(|name| *name == "flock").expect("is unlocked");
    assert!(names[before..after].contains(&"unlinkat"), "{names:?}");
    assert_eq!(store.owners(&id("base")).unwrap(), [owner("image")]);
}

/// A process that another thread starts has a copy of each descriptor until its exec: as good as this one.
pub(crate) fn a_copy_of_a_descriptor_keeps_nothing_in_use(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    let container = store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works");
    let copy = container.as_fd().try_clone_to_owned().expect("is copied");
    drop(container);
    let again = store.container(&owner("c"), AfterVolatile::Refuse);
    let again = again.unwrap_or_else(|e| panic!("{e}")).expect("is there");
    again.discard().unwrap_or_else(|e| panic!("{e}"));
    let container = store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works");
    let other = container.as_fd().try_clone_to_owned().expect("is copied");
    container.discard().unwrap_or_else(|e| panic!("{e}"));
    assert!(list(place.path().join("store/trash")).is_empty());
    drop((copy, other));
}

/// What others have left in the trash is not the concern of who discards a container.
pub(crate) fn a_discard_tells_only_its_own(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    let stuck = place.path().join("store/trash/stuck");
    let mount = stuck.join("mount");
    fs::create_dir_all(&mount).expect("is made");
    let (nothing, none) = (None::<&str>, nix::mount::MsFlags::empty());
    let mount_at = |path: &Path| nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), none, nothing);
    mount_at(&mount).expect("is mounted");
    let container = store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works");
    container.discard().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(list(place.path().join("store/trash")), ["stuck"]);
    nix::mount::umount2(&mount, nix::mount::MntFlags::empty()).expect("is unmounted");
    // Its own it tells.
    let container = store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works");
    let inside = fs::canonicalize(path_of(&container)).expect("is there").join("mount");
    fs::create_dir(&inside).expect("is made");
    mount_at(&inside).expect("is mounted");
    let error = container.discard().expect_err("is mounted");
    assert!([ErrorKind::Busy, ErrorKind::Os].contains(&error.kind()), "{error}");
    assert!(store.containers().unwrap().is_empty());
    let trash = place.path().join("store/trash");
    for name in list(&trash) {
        let mount = trash.join(name).join("mount");
        let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::empty());
    }
    store.empty_trash().unwrap_or_else(|e| panic!("{e}"));
}

/// A container that is gone must not come back with a loss of power when its layers do not.
pub(crate) fn containers_go_before_their_layers(form: Form) {
    let place = Place::new(form);
    let store = store(&place).sync_policy(SyncPolicy::PerFile);
    publish(&store, &owner("image"), "base", None);
    drop(store.prepare(&owner("c"), Some(&id("base")), &ContainerSpec::new()).expect("works"));
    let folder = |name| fs::canonicalize(place.path().join("store").join(name)).expect("is there");
    let (containers, layers) = (folder("containers"), folder("layers"));
    let watch = Watch::only(&[libc::SYS_fsync, libc::SYS_renameat2]);
    let (calls, fds) = watch.record(|| {
        store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        (open_of(&containers), open_of(&layers))
    });
    assert!(names(&store).is_empty());
    let first = |name: &str, fds: &[i32]| {
        calls
            .iter()
            .position(|call| call.name() == name && i32::try_from(call.args[0]).is_ok_and(|fd| fds.contains(&fd)))
    };
    let (synced, renamed) = (first("fsync", &fds.0), first("renameat2", &fds.1));
    assert!(synced.is_some() && renamed.is_some() && synced < renamed, "{calls:?}");
}

/// Which descriptors of this process are of that directory.
pub(crate) fn open_of(directory: &Path) -> Vec<i32> {
    let links = fs::read_dir("/proc/self/fd").expect("is read").map(|entry| entry.expect("an entry").path());
    let of_it = |link: &PathBuf| fs::read_link(link).is_ok_and(|to| to == directory);
    links.filter(of_it).filter_map(|link| link.file_name()?.to_str()?.parse().ok()).collect()
}
