//! What a container is made of: layers of any modes, init layers of any size, as many layers as the kernel takes.

use crate::containers::{BACKENDS, for_each_backend, layer_shows, prepared, root};
use crate::store::{id, owner, path_of, publish, staged, store};
use crate::support::{Merged, Place, list, without_file_rights};
use cofferdam_testkit::fault::Watch;
use cofferdam_unionfs::{
    AfterVolatile, Backend, ContainerSpec, ErrorKind, Fallbacks, Form, InitLayer, LayerStore, MAX_LOWERS,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

const CLOSED: [&str; 3] = ["etc", "etc/deep", "dev"];

/// Publishes a layer whose directories nobody may write to, with a second one on it.
fn closed_layers(store: &LayerStore) {
    let modes = |path: &Path, mode| {
        for name in CLOSED {
            fs::set_permissions(path.join(name), Permissions::from_mode(mode)).expect("chmod");
        }
    };
    for (name, parent) in [("closed", None), ("on-it", Some("closed"))] {
        let stage = staged(store, &owner("image"), name);
        let path = path_of(&stage);
        for dir in CLOSED {
            fs::create_dir(path.join(dir)).expect("is made");
            fs::write(path.join(dir).join(name), name).expect("is written");
        }
        modes(&path, 0o555);
        stage.publish(&id(name), parent.map(id).as_ref()).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Without rights to all files no directory can be filled that its owner may not write to: the mode comes last.
pub(crate) fn closed_directories_are_filled_by_their_owner(form: Form) {
    for backend in BACKENDS {
        let place = Place::new(form);
        let store = store(&place);
        closed_layers(&store);
        let spec = ContainerSpec::new().backend(backend).init(InitLayer::usual().file("/etc/deep/made", "x"));
        let container = without_file_rights(|| prepared(&store, "c", Some("on-it"), &spec));
        // The kernel mounts an overlay to be written to only for those who have them.
        let view = root(container.view());
        assert_eq!(view.list("etc/deep"), ["closed", "made", "on-it"], "{backend}");
        let mode = |merged: &Merged, name| fs::metadata(merged.path(name)).expect("is there").mode() & 0o7777;
        assert_eq!((mode(&view, "etc"), mode(&view, "etc/deep")), (0o555, 0o555), "{backend}");
        drop(view);
        let mount = root(container.mount());
        fs::write(mount.path("etc/deep/new"), "new").expect("is written");
        fs::set_permissions(mount.path("etc/deep"), Permissions::from_mode(0o511)).expect("chmod");
        drop(mount);
        without_file_rights(|| container.commit(&id("done"))).unwrap_or_else(|e| panic!("{backend}: {e}"));
        let merged = layer_shows(&store, "done");
        assert_eq!((mode(&merged, "etc"), mode(&merged, "etc/deep")), (0o555, 0o511), "{backend}");
        assert_eq!((merged.list("etc").len(), merged.read("etc/deep/new")), (3, "new".into()), "{backend}");
        drop(merged);
        without_file_rights(|| container.discard()).unwrap_or_else(|e| panic!("{backend}: {e}"));
        assert!(
            list(place.path().join("store/trash")).is_empty() && list(place.path().join("store/staging")).is_empty()
        );
    }
}

/// What is written can be read back, and what was cut off is not taken for a whole one.
pub(crate) fn an_init_layer_is_found_whole_or_not_at_all(form: Form) {
    for_each_backend(form, |store, spec, path| {
        let large = |count| (0..count).fold(InitLayer::new(), |init, n| init.directory(format!("{n:0>200}")));
        let error = store.prepare(&owner("c"), Some(&id("base")), &spec.clone().init(large(400)));
        assert_eq!(error.expect_err("is too large").kind(), ErrorKind::InvalidInput);
        assert!(list(path.join("store/staging")).is_empty());
        drop(prepared(store, "c", Some("base"), &spec.clone().init(large(300))));
        let find = || store.container(&owner("c"), AfterVolatile::Refuse);
        assert!(
            find().unwrap_or_else(|e| panic!("{e}")).expect("is there").diff().expect("works").changes().is_empty()
        );
        let folder = path.join("store/containers");
        let places = folder.join(&list(&folder)[0]).join("init-places");
        let text = fs::read(&places).expect("is read");
        for damaged in [&text[..201], &text[..201 * 200], b"", &text.repeat(2)] {
            fs::write(&places, damaged).expect("is written");
            assert_eq!(find().expect_err("is damaged").kind(), ErrorKind::Corrupt, "{} bytes", damaged.len());
        }
        fs::write(places.with_file_name("about"), " ".repeat(1 << 17)).expect("is written");
        assert_eq!(store.check().unwrap_or_else(|e| panic!("{e}")).len(), 1);
    });
}

/// Places to mount at are empty, whatever the image has there; what is beside a file of an init layer stays.
pub(crate) fn an_init_layer_hides_what_is_in_its_directories(form: Form) {
    for backend in BACKENDS {
        let place = Place::new(form);
        let store = store(&place);
        closed_layers(&store);
        let spec = ContainerSpec::new().backend(backend).init(InitLayer::usual().directory("/opt/mount"));
        let container = prepared(&store, "c", Some("on-it"), &spec);
        for mount in [root(container.mount()), root(container.view())] {
            assert_eq!(mount.list("dev"), ["pts", "shm"], "{backend}");
            let etc = ["closed", "deep", "hostname", "hosts", "mtab", "on-it", "resolv.conf"];
            assert_eq!(mount.list("etc"), etc, "{backend}");
            assert_eq!(fs::metadata(mount.path("dev")).expect("is there").mode() & 0o7777, 0o755, "{backend}");
        }
        fs::write(root(container.mount()).path("dev/leak"), "").expect("is written");
        container.commit(&id("done")).unwrap_or_else(|e| panic!("{e}"));
        // Of the layer that stands on the image nothing is hidden.
        assert_eq!(layer_shows(&store, "done").list("dev"), ["closed", "on-it"], "{backend}");
    }
}

/// As many layers as the kernel takes, one of them for the view of what is written; an init layer counts if there is one.
pub(crate) fn a_container_on_as_many_layers_as_can_be(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let name = |number: usize| format!("layer-{number}");
    for number in 1..=MAX_LOWERS {
        let parent = (number > 1).then(|| name(number - 1));
        publish(&store, &owner("image"), &name(number), parent.as_deref());
    }
    let prepare = |layers, spec: &ContainerSpec| store.prepare(&owner("c"), Some(&id(&name(layers))), spec);
    let (bare, usual) = (ContainerSpec::new(), ContainerSpec::new().init(InitLayer::usual()));
    for (layers, spec) in [(MAX_LOWERS, &bare), (MAX_LOWERS - 1, &usual)] {
        let error = prepare(layers, spec).expect_err("are too many");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(store.containers().unwrap().is_empty());
    }
    for (layers, spec) in [(MAX_LOWERS - 1, &bare), (MAX_LOWERS - 2, &usual)] {
        let container = prepare(layers, spec).unwrap_or_else(|e| panic!("{e}"));
        fs::write(root(container.mount()).path("new"), "").expect("is written");
        assert!(root(container.view()).list("").len() > layers);
        drop(container);
        let again = store.container(&owner("c"), AfterVolatile::Refuse).unwrap().expect("is there");
        assert!(root(again.view()).list("").len() > layers);
        again.discard().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Names that are not told are not referred to either.
pub(crate) fn links_lead_to_what_is_told(form: Form) {
    for_each_backend(form, |store, spec, _| {
        let container = prepared(store, "c", Some("base"), &spec.clone().init(InitLayer::usual()));
        let mount = root(container.mount());
        fs::write(mount.path("dev/a"), "a").expect("is written");
        for name in ["x", "y", "z"] {
            fs::hard_link(mount.path("dev/a"), mount.path(name)).expect("is linked");
        }
        drop(mount);
        let diff = container.diff().unwrap_or_else(|e| panic!("{e}"));
        let told: Vec<_> = diff.changes().iter().filter(|change| !change.path.as_os_str().is_empty()).collect();
        let links: Vec<_> = told.iter().map(|c| (c.path.to_str().unwrap(), c.link_to.as_deref())).collect();
        let first = Some(Path::new("x"));
        assert_eq!(links, [("x", None), ("y", first), ("z", first)], "{}", spec.backend);
    });
}

/// No init layer, no lower for it: one system call less, and one layer more.
pub(crate) fn an_empty_init_layer_is_no_lower(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    let container = prepared(&store, "c", Some("base"), &ContainerSpec::new());
    let watch = Watch::only(&[libc::SYS_fsconfig]);
    let (with_one, _) = watch.record(|| root(container.mount()));
    let other = prepared(&store, "d", Some("base"), &ContainerSpec::new().init(InitLayer::usual()));
    let (with_two, _) = watch.record(|| root(other.mount()));
    assert_eq!(with_one.len() + 1, with_two.len());
}

/// What may be done on an older kernel is kept with the container.
pub(crate) fn a_container_keeps_its_fallbacks(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    for (name, fallbacks) in [("none", Fallbacks::empty()), ("mount", Fallbacks::MOUNT)] {
        for backend in [Backend::Overlay, Backend::Copy] {
            let spec = ContainerSpec::new().backend(backend).fallbacks(fallbacks).init(InitLayer::usual());
            let name = format!("{name}-{backend}");
            drop(prepared(&store, &name, Some("base"), &spec));
            let container = store.container(&owner(&name), AfterVolatile::Refuse).unwrap().expect("is there");
            assert_eq!(container.fallbacks(), fallbacks);
            drop((root(container.mount()), root(container.view())));
        }
    }
}
