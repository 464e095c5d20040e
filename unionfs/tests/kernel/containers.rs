//! The files of containers: one suite for every back-end.

use crate::diff::change_at_random;
use crate::store::{id, names, owner, path_of, publish, reopened, staged, store};
use crate::support::{Merged, Place, Random, cases, list};
use crate::tree::random_layer;
use cofferdam_testkit::union::seen;
use cofferdam_unionfs::{
    AfterVolatile, Backend, Container, ContainerSpec, Error, ErrorKind, Form, InitLayer, LayerId, LayerStore, Overlay,
    SyncPolicy,
};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Overlay, Backend::Copy];

pub(crate) fn root(mount: Result<std::os::fd::OwnedFd, Error>) -> Merged {
    Merged(mount.unwrap_or_else(|e| panic!("{e}")))
}

pub(crate) fn prepared(store: &LayerStore, name: &str, parent: Option<&str>, spec: &ContainerSpec) -> Container {
    let parent = parent.map(id);
    store.prepare(&owner(name), parent.as_ref(), spec).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs a test once for each back-end, each with a store of its own that has a layer `base`.
pub(crate) fn for_each_backend(form: Form, test: impl Fn(&LayerStore, &ContainerSpec, &Path)) {
    for backend in BACKENDS {
        let place = Place::new(form);
        let store = store(&place);
        let stage = staged(&store, &owner("image"), "file");
        let path = path_of(&stage);
        fs::create_dir_all(path.join("etc/deep")).expect("is made");
        fs::write(path.join("etc/deep/conf"), "conf").expect("is written");
        fs::set_permissions(path.join("etc"), fs::Permissions::from_mode(0o711)).expect("chmod");
        symlink("/outside", path.join("dev")).expect("is made");
        stage.publish(&id("base"), None).unwrap_or_else(|e| panic!("{e}"));
        test(&store, &ContainerSpec::new().backend(backend), place.path());
    }
}

pub(crate) fn layer_shows(store: &LayerStore, name: &str) -> Merged {
    let chain = store.chain(&id(name)).unwrap_or_else(|e| panic!("{e}"));
    root(Overlay::new().form(store.form()).lowers(chain).mount())
}

pub(crate) fn a_container_lives(form: Form) {
    for_each_backend(form, |store, spec, path| {
        let container = prepared(store, "c", Some("base"), spec);
        assert_eq!(store.containers().unwrap(), [owner("c")]);
        assert_eq!(store.owners(&id("base")).unwrap(), [owner("c"), owner("image")]);
        assert_eq!(container.directory().is_some(), spec.backend == Backend::Copy);
        assert_eq!(container.overlay().is_some(), spec.backend == Backend::Overlay);

        let mount = root(container.mount());
        fs::write(mount.path("new"), "new").expect("is written");
        fs::remove_file(mount.path("file")).expect("is removed");
        fs::write(mount.path("etc/deep/conf"), "changed").expect("is written");
        let view = root(container.view());
        assert_eq!((view.list(""), view.read("new")), (["dev", "etc", "new"].map(Into::into).into(), "new".into()));
        let refused = fs::write(view.path("new"), "x").expect_err("is read-only");
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        // Nothing of it is seen by another container, or in the layer.
        let other = prepared(store, "d", Some("base"), spec);
        assert_eq!(root(other.mount()).list(""), ["dev", "etc", "file"]);
        assert_eq!(layer_shows(store, "base").read("etc/deep/conf"), "conf");
        drop((view, mount));

        let layer = container.commit(&id("done")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(layer.parent(), Some(&id("base")));
        let merged = layer_shows(store, "done");
        assert_eq!(merged.list(""), ["dev", "etc", "new"]);
        assert_eq!(merged.read("etc/deep/conf"), "changed");
        assert_eq!(fs::metadata(merged.path("etc")).expect("is there").mode() & 0o7777, 0o711);
        drop(merged);
        // It goes on, and can be committed again.
        fs::write(root(container.mount()).path("more"), "").expect("is written");
        container.commit(&id("more")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(layer_shows(store, "more").list(""), ["dev", "etc", "more", "new"]);
        assert_eq!(container.commit(&id("more")).expect_err("is there").kind(), ErrorKind::AlreadyExists);
        assert!(container.usage().unwrap().inodes > 0);

        container.discard().unwrap_or_else(|e| panic!("{e}"));
        other.discard().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(store.owners(&id("base")).unwrap(), [owner("image")]);
        for folder in ["containers", "staging", "trash"] {
            assert!(list(path.join("store").join(folder)).is_empty(), "{folder}");
        }
        assert_eq!(store.check().unwrap(), []);
    });
}

pub(crate) fn a_container_on_nothing(form: Form) {
    for_each_backend(form, |store, spec, _| {
        let container = prepared(store, "c", None, spec);
        let mount = root(container.mount());
        assert!(mount.list("").is_empty());
        fs::create_dir(mount.path("dir")).expect("is made");
        fs::write(mount.path("dir/file"), "x").expect("is written");
        drop(mount);
        assert!(container.commit(&id("first")).expect("works").parent().is_none());
        assert_eq!(layer_shows(store, "first").read("dir/file"), "x");
    });
}

pub(crate) fn an_init_layer_is_never_committed(form: Form) {
    for_each_backend(form, |store, spec, _| {
        let init = InitLayer::usual().file("/etc/hosts", "127.0.0.1 here\n").directory("opt/x/mount");
        let container = prepared(store, "c", Some("base"), &spec.clone().init(init));
        let mount = root(container.mount());
        assert_eq!(mount.list(""), ["dev", "etc", "file", "opt", "proc", "sys"]);
        // Where the image has a link that leads elsewhere, there is a directory.
        assert!(fs::symlink_metadata(mount.path("dev")).expect("is there").is_dir());
        assert_eq!(mount.list("dev"), ["pts", "shm"]);
        assert_eq!(mount.list("etc"), ["deep", "hostname", "hosts", "mtab", "resolv.conf"]);
        assert_eq!(fs::metadata(mount.path("etc")).expect("is there").mode() & 0o7777, 0o711);
        assert_eq!(mount.read("etc/hosts"), "127.0.0.1 here\n");
        assert_eq!(
            container
                .diff()
                .unwrap_or_else(|e| panic!("{e}"))
                .changes()
                .iter()
                .filter(|c| !c.path.as_os_str().is_empty())
                .count(),
            0
        );

        fs::write(mount.path("etc/hosts"), "changed").expect("is written");
        fs::write(mount.path("dev/leak"), "").expect("is written");
        fs::remove_file(mount.path("etc/mtab")).expect("is removed");
        fs::remove_dir(mount.path("sys")).expect("is removed");
        fs::write(mount.path("opt/x/mount/leak"), "").expect("is written");
        fs::write(mount.path("etc/real"), "real").expect("is written");
        drop(mount);
        container.commit(&id("done")).unwrap_or_else(|e| panic!("{e}"));
        let merged = layer_shows(store, "done");
        assert_eq!(merged.list(""), ["dev", "etc", "file"]);
        assert!(fs::symlink_metadata(merged.path("dev")).expect("is there").is_symlink());
        assert_eq!(
            (merged.list("etc"), merged.read("etc/real")),
            (["deep", "real"].map(Into::into).into(), "real".into())
        );
        drop(merged);
        // Found again, it still knows.
        drop(container);
        let container = store.container(&owner("c"), AfterVolatile::Refuse).unwrap().expect("is there");
        container.commit(&id("again")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(layer_shows(store, "again").list("etc"), ["deep", "real"]);

        let bad = spec.clone().init(InitLayer::new().file("../x", ""));
        assert_eq!(store.prepare(&owner("d"), None, &bad).expect_err("leads out").kind(), ErrorKind::InvalidInput);
    });
}

pub(crate) fn a_container_is_found_again(form: Form) {
    for_each_backend(form, |store, spec, path| {
        let container = prepared(store, "c", Some("base"), spec);
        fs::write(root(container.mount()).path("kept"), "kept").expect("is written");
        let find = |store: &LayerStore| store.container(&owner("c"), AfterVolatile::Refuse);
        assert_eq!(find(store).expect_err("is in use").kind(), ErrorKind::Busy);
        let error = store.prepare(&owner("c"), None, spec).expect_err("has one");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        drop(container);
        let again = reopened(&path.join("store"), form);
        let container = find(&again).unwrap_or_else(|e| panic!("{e}")).expect("is there");
        assert_eq!((container.parent(), container.backend()), (Some(&id("base")), spec.backend));
        assert_eq!(root(container.mount()).read("kept"), "kept");
        assert!(find(store).is_err() && store.container(&owner("d"), AfterVolatile::Refuse).unwrap().is_none());
        drop(container);
        assert_eq!(
            store.prepare(&owner("d"), Some(&id("none")), spec).expect_err("no layer").kind(),
            ErrorKind::NotFound
        );
        // Published and prepared without waiting, it is gone with the run of the machine; durable, it is not.
        let durable = store.clone().sync_policy(SyncPolicy::Filesystem);
        drop(prepared(&durable, "safe", Some("base"), spec));
        assert!(store.layer(&id("base")).unwrap().expect("is there").is_synced());
        let folder = path.join("store/containers");
        let quick = list(&folder).into_iter().find(|name| name.starts_with("c~")).expect("is marked");
        fs::rename(folder.join(quick), folder.join("c~another-run")).expect("is renamed");
        assert_eq!(reopened(&path.join("store"), form).containers().unwrap(), [owner("safe")]);
    });
}

pub(crate) fn containers_keep_what_they_stand_on(form: Form) {
    for_each_backend(form, |store, spec, path| {
        publish(store, &owner("image"), "top", Some("base"));
        let used = prepared(store, "used", Some("top"), spec);
        drop(prepared(store, "left", Some("top"), spec));
        // Even if somebody has taken its note away.
        store.release(&id("top"), &owner("left")).expect("works");
        let collected = store.gc([&owner("left")]).unwrap_or_else(|e| panic!("{e}"));
        assert!(collected.layers.is_empty() && collected.containers.is_empty(), "{collected:?}");
        let error = store.remove(&id("top")).expect_err("is stood on");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        // Dead, but in use: left alone, until it is not.
        let collected = store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((collected.containers, collected.layers.len()), (vec![owner("left")], 0));
        assert_eq!(root(used.mount()).list(""), ["dev", "etc", "file", "top"]);
        drop(used);
        let collected = store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((collected.containers, collected.layers.len()), (vec![owner("used")], 2));
        assert!(names(store).is_empty() && list(path.join("store/trash")).is_empty());
    });
}

/// What a commit holds is what a container had, whatever was done in it: types, modes, attributes, hard links, holes, devices.
pub(crate) fn a_commit_is_what_was_there(form: Form) {
    for backend in BACKENDS {
        let place = Place::new(form);
        let store = store(&place);
        let mut entries = 0;
        for case in 0..cases(60) {
            let mut random = Random::new(case + 2_000_000);
            let mut parent: Option<LayerId> = None;
            for number in 0..=random.below(3) {
                let stage = store.stage(&owner("image")).expect("a place");
                let path = fs::canonicalize(path_of(&stage)).expect("is there");
                random_layer(&mut random, &path, form, number);
                let next = id(&format!("{case}-{number}"));
                stage.publish(&next, parent.as_ref()).unwrap_or_else(|e| panic!("{e}"));
                parent = Some(next);
            }
            let spec = ContainerSpec::new().backend(backend);
            let container = store.prepare(&owner("c"), parent.as_ref(), &spec).unwrap_or_else(|e| panic!("{e}"));
            let before = seen(&layer_shows(&store, parent.as_ref().expect("one").as_str()).path(""), form);
            assert_eq!(seen(&root(container.view()).path(""), form), before, "{backend}, case {case}");
            let mount = root(container.mount());
            change_at_random(&mut random, &mount.path(""), form);
            change_at_random(&mut random, &mount.path(""), form);
            drop(mount);
            // Seen anew: see the tests of diffs.
            let expected = seen(&root(container.mount()).path(""), form);
            container.commit(&id("done")).unwrap_or_else(|e| panic!("{backend}, case {case}: {e}"));
            let shown = seen(&layer_shows(&store, "done").path(""), form);
            assert_eq!(shown, expected, "{backend}, case {case}");
            entries += shown.len();
            container.discard().unwrap_or_else(|e| panic!("{e}"));
            store.gc([]).expect("works");
        }
        assert!(entries > 10, "{entries}");
    }
}

/// What random trees do not have: holes, times, special bits, devices, attributes of links.
pub(crate) fn a_commit_loses_nothing(form: Form) {
    for_each_backend(form, |store, spec, _| {
        let container = prepared(store, "c", Some("base"), spec);
        let mount = root(container.mount());
        let sparse = fs::File::create(mount.path("sparse")).expect("is made");
        std::os::unix::fs::FileExt::write_at(&sparse, b"middle", 10 << 20).expect("is written");
        sparse.set_len(1 << 30).expect("is set");
        fs::write(mount.path("suid"), "").expect("is written");
        fs::set_permissions(mount.path("suid"), fs::Permissions::from_mode(0o6755)).expect("chmod");
        fs::create_dir(mount.path("sticky")).expect("is made");
        fs::set_permissions(mount.path("sticky"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::hard_link(mount.path("sparse"), mount.path("sticky/again")).expect("is linked");
        std::os::unix::net::UnixListener::bind(mount.path("socket")).expect("is made");
        let old = std::time::UNIX_EPOCH - std::time::Duration::new(1000, 5);
        for name in ["sparse", "sticky"] {
            fs::File::open(mount.path(name)).and_then(|file| file.set_modified(old)).expect("is set");
        }
        let device = nix::sys::stat::mknod(
            &mount.path("device"),
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRUSR,
            0x103,
        );
        assert_eq!(device.is_ok(), form == Form::Trusted);
        if form == Form::Trusted {
            std::os::unix::fs::lchown(mount.path("suid"), Some(7), Some(8)).expect("is given");
            fs::set_permissions(mount.path("suid"), fs::Permissions::from_mode(0o6755)).expect("chmod");
        }
        drop(mount);
        container.commit(&id("done")).unwrap_or_else(|e| panic!("{e}"));
        let merged = layer_shows(store, "done");
        let data = |name| fs::symlink_metadata(merged.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(data("sparse").len() == 1 << 30 && data("sparse").blocks() < 1024, "{:?}", data("sparse"));
        assert_eq!(data("sparse").ino(), data("sticky/again").ino());
        let mut middle = [0; 6];
        let file = fs::File::open(merged.path("sparse")).expect("opens");
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut middle, 10 << 20).expect("is read");
        assert_eq!(&middle, b"middle");
        assert_eq!((data("suid").mode() & 0o7777, data("sticky").mode() & 0o7777), (0o6755, 0o1777));
        assert!(data("socket").file_type().is_socket());
        for name in ["sparse", "sticky"] {
            assert_eq!(data(name).modified().expect("a time"), old, "{name}");
        }
        if form == Form::Trusted {
            assert_eq!((data("device").rdev(), data("suid").uid(), data("suid").gid()), (0x103, 7, 8));
        }
    });
}
