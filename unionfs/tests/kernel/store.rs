//! The layer store: what is published, found, kept and removed.

use crate::support::{Place, list, mounted, open};
use cofferdam_unionfs::{
    ContainerSpec, ErrorKind, Fault, Form, LayerId, LayerStore, Operation, Overlay, Owner, Stage, SyncPolicy,
    make_opaque, make_whiteout,
};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

pub(crate) fn id(name: &str) -> LayerId {
    LayerId::new(name).expect("a good name")
}

pub(crate) fn owner(name: &str) -> Owner {
    Owner::new(name).expect("a good name")
}

/// A store in the place's folder, without waiting for the disk.
pub(crate) fn store(place: &Place) -> LayerStore {
    reopened(&place.layer("store", &[]), place.form)
}

pub(crate) fn reopened(path: &Path, form: Form) -> LayerStore {
    let store = LayerStore::open(open(path), form).unwrap_or_else(|e| panic!("{e}"));
    store.sync_policy(SyncPolicy::None)
}

/// The path of a directory that is a descriptor.
pub(crate) fn path_of(dir: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd()).into()
}

pub(crate) fn staged(store: &LayerStore, owner: &Owner, file: &str) -> Stage {
    let stage = store.stage(owner).unwrap_or_else(|e| panic!("{e}"));
    fs::write(path_of(&stage).join(file), file).expect("is written");
    stage
}

/// Publishes a layer with one file, of its own name.
pub(crate) fn publish(store: &LayerStore, owner: &Owner, name: &str, parent: Option<&str>) {
    let parent = parent.map(id);
    let stage = staged(store, owner, name);
    let layer = stage.publish(&id(name), parent.as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!((layer.id(), layer.parent()), (&id(name), parent.as_ref()));
}

pub(crate) fn names(store: &LayerStore) -> Vec<String> {
    store.layers().unwrap_or_else(|e| panic!("{e}")).iter().map(ToString::to_string).collect()
}

pub(crate) fn a_stack_is_published_and_mounted(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let image = owner("image:x");
    publish(&store, &image, "base", None);
    publish(&store, &image, "gone", Some("base"));
    let stage = staged(&store, &image, "top");
    make_whiteout(&stage, "gone").expect("is made");
    stage.publish(&id("top"), Some(&id("gone"))).unwrap_or_else(|e| panic!("{e}"));

    let chain = store.chain(&id("top")).unwrap_or_else(|e| panic!("{e}"));
    let ids: Vec<&str> = chain.iter().map(|layer| layer.id().as_str()).collect();
    assert_eq!(ids, ["top", "gone", "base"]);
    assert_eq!(mounted(&Overlay::new().form(form).lowers(&chain)).list(""), ["base", "top"]);
    assert_eq!(store.owners(&id("base")).unwrap(), [image]);
    let root = fs::metadata(path_of(chain.first().expect("a layer"))).expect("is there");
    assert_eq!(root.mode() & 0o7777, 0o755);
    // Only who owns the store gets at set-user-id programs in it.
    assert_eq!(fs::metadata(place.path().join("store/layers")).expect("is there").mode() & 0o77, 0);

    // A root that hides all below is known since the publishing: nobody asks the disk again.
    let stage = staged(&store, &owner("y"), "alone");
    make_opaque(&stage, form).expect("is marked");
    assert!(stage.publish(&id("opaque"), Some(&id("top"))).expect("is published").has_opaque_root());
    let chain = store.chain(&id("opaque")).expect("is there");
    let overlay = Overlay::new().form(form).lowers(&chain);
    let (calls, root) = cofferdam_testkit::fault::record(|| overlay.mount());
    assert!(!calls.iter().any(|c| c.number == libc::SYS_fgetxattr), "{calls:?}");
    assert_eq!(crate::support::Merged(root.expect("is mounted")).list(""), ["alone"]);
}

pub(crate) fn nothing_is_seen_before_it_is_published(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let path = place.path().join("store");
    let stage = staged(&store, &owner("x"), "file");
    // Neither another handle nor its cleaning up changes anything about a stage in use.
    let other = reopened(&path, form);
    assert_eq!(other.gc([]).expect("works").stages, 0);
    assert!(names(&other).is_empty() && other.layer(&id("x")).unwrap().is_none());
    assert_eq!(list(path_of(&stage)), ["file"]);
    stage.publish(&id("x"), None).expect("is published");
    assert_eq!(names(&other), ["x"]);

    // Given up, dropped, and dropped with the store.
    staged(&store, &owner("x"), "file").discard().expect("is removed");
    assert!(list(path.join("staging")).is_empty());
    drop(staged(&store, &owner("x"), "file"));
    assert_eq!(list(path.join("staging")).len(), 1);
    assert_eq!(other.gc([&owner("x")]).expect("works").stages, 1);
    drop(staged(&store, &owner("x"), "file"));
    drop(store);
    assert_eq!(names(&reopened(&path, form)), ["x"]);
    assert!(list(path.join("staging")).is_empty() && list(path.join("trash")).is_empty());
}

pub(crate) fn one_name_is_published_once(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let (first, second) = (owner("first"), owner("second"));
    publish(&store, &first, "a", None);
    publish(&store, &first, "b", Some("a"));
    let error = staged(&store, &second, "other").publish(&id("b"), Some(&id("a"))).expect_err("is there");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::AlreadyExists, Operation::Publish), "{error}");
    let error = staged(&store, &second, "other").publish_or_take(&id("b"), None).expect_err("is another one");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(store.owners(&id("b")).unwrap(), std::slice::from_ref(&first));

    let taken = staged(&store, &second, "other").publish_or_take(&id("b"), Some(&id("a"))).expect("is taken");
    assert_eq!(list(path_of(&taken)), ["b"]);
    assert_eq!(store.owners(&id("b")).unwrap(), [first, second.clone()]);

    let error = staged(&store, &second, "c").publish(&id("c"), Some(&id("z"))).expect_err("has no parent");
    assert_eq!(error.to_string(), "publish a layer: \"z\": there is no such layer");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(list(place.path().join("store/staging")).is_empty());
    assert_eq!(names(&store), ["a", "b"]);
}

pub(crate) fn layers_stay_while_they_are_needed(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let (image, container, dead) = (owner("image"), owner("container"), owner("dead"));
    publish(&store, &image, "base", None);
    for (name, parent) in [("left", "base"), ("right", "base"), ("leaf", "right")] {
        publish(&store, &dead, name, Some(parent));
    }
    assert!(store.acquire(&id("right"), &container).unwrap().is_some());
    assert!(store.acquire(&id("right"), &container).unwrap().is_some());
    assert!(store.acquire(&id("none"), &container).unwrap().is_none());
    for (name, words) in [("right", "is needed by an owner"), ("leaf", "is needed by an owner")] {
        let error = store.remove(&id(name)).expect_err("is needed");
        assert_eq!((error.kind(), error.to_string().contains(words)), (ErrorKind::Busy, true), "{error}");
    }

    let gone = store.gc([&image, &container]).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(gone.layers, [id("leaf"), id("left")]);
    assert_eq!(gone.references.len(), 3);
    assert_eq!(names(&store), ["base", "right"]);
    // The base is needed by what stands on it, too.
    assert!(store.release(&id("base"), &image).unwrap() && !store.release(&id("base"), &image).unwrap());
    assert!(store.remove(&id("base")).expect_err("is stood on").to_string().contains("standing on it"));
    assert!(store.gc([&container]).unwrap().layers.is_empty());
    assert_eq!(store.release_all(&container).unwrap(), 1);
    assert!(store.remove(&id("right")).unwrap() && !store.remove(&id("right")).unwrap());
    assert_eq!(store.gc([&container, &image]).unwrap().layers, [id("base")]);
    assert!(names(&store).is_empty() && list(place.path().join("store/trash")).is_empty());
}

/// The boot id cannot be changed; the name of a directory can.
pub(crate) fn what_had_not_reached_the_disk_is_not_believed(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let path = place.path().join("store");
    let durable = store.clone().sync_policy(SyncPolicy::Filesystem);
    let x = owner("x");
    publish(&durable, &x, "safe", None);
    publish(&store, &x, "kept", Some("safe"));
    publish(&store, &x, "below", Some("kept"));
    publish(&store, &x, "lost", Some("below"));
    let synced = |name| store.layer(&id(name)).unwrap().expect("is there").is_synced();
    assert_eq!(["safe", "kept", "below", "lost"].map(synced), [true, false, false, false]);
    store.persist(&id("kept")).unwrap_or_else(|e| panic!("{e}"));
    // What is durable makes what it stands on durable, too.
    let per_file = store.clone().sync_policy(SyncPolicy::PerFile);
    publish(&per_file, &x, "on-it", Some("below"));
    assert_eq!(["kept", "below", "on-it", "lost"].map(synced), [true, true, true, false]);
    assert_eq!(names(&reopened(&path, form)).len(), 5);

    let layers = path.join("layers");
    let unsynced = list(&layers).into_iter().find(|name| name.starts_with("lost~")).expect("is marked");
    fs::rename(layers.join(unsynced), layers.join("lost~of-another-run")).expect("is renamed");
    assert!(store.layer(&id("lost")).unwrap().is_none());
    assert_eq!(names(&reopened(&path, form)), ["below", "kept", "on-it", "safe"]);
    assert!(!list(layers).iter().any(|name| name.contains('~')));
    publish(&store, &x, "lost", Some("below"));
}

pub(crate) fn a_folder_that_is_no_store_of_ours(form: Form) {
    let place = Place::new(form);
    let other = if form == Form::User { Form::Trusted } else { Form::User };
    let open_store = |path: &Path, form| LayerStore::open(open(path), form).map(drop);
    let foreign = place.layer("foreign", &[("something", "")]);
    let error = open_store(&foreign, form).expect_err("is not empty");
    assert_eq!((error.kind(), error.object()), (ErrorKind::InvalidInput, Some("something".as_ref())), "{error}");
    assert_eq!(list(&foreign), ["lock", "something"]);

    let path = place.layer("store", &[]);
    open_store(&path, form).expect("is made");
    assert_eq!(open_store(&path, other).expect_err("is in the other form").kind(), ErrorKind::InvalidInput);
    for (text, kind) in [("cofferdam store 2\n", ErrorKind::Unsupported), ("", ErrorKind::Corrupt)] {
        fs::write(path.join("about"), text).expect("is written");
        assert_eq!(open_store(&path, form).expect_err("cannot be read").kind(), kind);
    }
    // A link in the place of one of its folders is not followed.
    let path = place.layer("other", &[]);
    open_store(&path, form).expect("is made");
    fs::remove_dir(path.join("trash")).expect("is empty");
    symlink(&foreign, path.join("trash")).expect("is made");
    assert!(open_store(&path, form).is_err());
    assert_eq!(list(&foreign), ["lock", "something"]);
}

pub(crate) fn a_damaged_store_is_found_out_and_repaired(form: Form) {
    let place = Place::new(form);
    let store = store(&place).sync_policy(SyncPolicy::Filesystem);
    let x = owner("x");
    publish(&store, &x, "base", None);
    for name in ["about", "content", "owners", "later", "root"] {
        publish(&store, &x, name, Some("base"));
        publish(&store, &x, &format!("on-{name}"), Some(name));
    }
    publish(&store, &x, "missing", None);
    publish(&store, &x, "orphan", Some("missing"));
    publish(&store, &x, "one", None);
    publish(&store, &x, "two", Some("one"));
    let spec = ContainerSpec::new();
    drop(store.prepare(&owner("c"), Some(&id("missing")), &spec).unwrap_or_else(|e| panic!("{e}")));
    assert!(store.check().unwrap().is_empty());

    let layers = place.path().join("store/layers");
    fs::write(layers.join("about/about"), "").expect("is written");
    fs::remove_dir_all(layers.join("content/content")).expect("is removed");
    fs::remove_dir_all(layers.join("owners/owners")).expect("is removed");
    fs::write(layers.join("later/about"), "cofferdam layer 2\n").expect("is written");
    make_opaque(open(layers.join("root/content")), form).expect("is marked");
    fs::remove_dir_all(layers.join("missing")).expect("is removed");
    fs::write(layers.join("one/about"), "cofferdam layer 1\nparent two\nroot plain\n").expect("is written");
    fs::write(layers.join("a file"), "").expect("is written");

    let expected = [
        ("a file", Fault::Foreign),
        ("about", Fault::Unreadable),
        ("content", Fault::Incomplete),
        ("later", Fault::LaterVersion),
        ("one", Fault::Loop),
        ("orphan", Fault::Orphan),
        ("owners", Fault::Incomplete),
        ("root", Fault::RootChanged),
        ("two", Fault::Loop),
        ("c", Fault::Orphan),
    ];
    let found = store.check().unwrap_or_else(|e| panic!("{e}"));
    let found: Vec<(&str, Fault)> = found.iter().map(|p| (p.name.to_str().expect("UTF-8"), p.fault)).collect();
    assert_eq!(found, expected);
    for (name, kind) in [("about", ErrorKind::Corrupt), ("two", ErrorKind::Corrupt), ("later", ErrorKind::Unsupported)]
    {
        assert_eq!(store.chain(&id(name)).expect_err("is damaged").kind(), kind);
    }
    assert_eq!(store.gc([&x, &owner("c")]).expect_err("does not guess").kind(), ErrorKind::Corrupt);

    assert_eq!(store.repair().unwrap_or_else(|e| panic!("{e}")).len(), expected.len());
    assert_eq!(names(&store), ["base", "later", "on-later"]);
    let left: Vec<Fault> = store.check().unwrap().iter().map(|p| p.fault).collect();
    assert_eq!(left, [Fault::Foreign, Fault::LaterVersion, Fault::Orphan]);
}

pub(crate) fn usage_is_what_du_says(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let stage = store.stage(&owner("x")).expect("a place");
    let path = path_of(&stage);
    fs::create_dir_all(path.join("a/b")).expect("is made");
    fs::write(path.join("a/file"), vec![1; 100_000]).expect("is written");
    fs::hard_link(path.join("a/file"), path.join("again")).expect("is linked");
    symlink("/", path.join("a/b/link")).expect("is made");
    fs::File::create(path.join("sparse")).expect("is made").set_len(1 << 30).expect("is set");
    let layer = stage.publish(&id("x"), None).expect("is published");
    let usage = store.usage(&id("x")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(usage.inodes, 5);
    let du = |path: &Path| {
        let path = fs::read_link(path).expect("a directory");
        let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(path).output().expect("runs");
        String::from_utf8_lossy(&output.stdout)
            .split('\t')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .expect("a number")
    };
    let root = fs::metadata(path_of(&layer)).expect("is there").blocks() * 512;
    assert_eq!(usage.bytes + root, du(&path_of(&layer)));
    assert_eq!(store.usage(&id("none")).expect_err("is not there").kind(), ErrorKind::NotFound);
}
