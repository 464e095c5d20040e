//! How much a container may write.

use crate::containers::{prepared, root};
use crate::crash::{killed_before_every_call, publish as publish_files};
use crate::store::{id, owner, publish, store};
use crate::support::{Merged, Place, list};
use cofferdam_unionfs::{
    AfterVolatile, Backend, Container, ContainerSpec, ErrorKind, Fallbacks, Form, InitLayer, LayerStore, LimitMethod,
    SpaceLimit,
};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const MIB: u64 = 1 << 20;

/// What is possible here without a quota.
pub(crate) fn methods(form: Form) -> &'static [LimitMethod] {
    match form {
        Form::Trusted => &[LimitMethod::Image, LimitMethod::Tmpfs],
        Form::User => &[LimitMethod::Tmpfs],
    }
}

pub(crate) fn limited(limit: SpaceLimit) -> ContainerSpec {
    ContainerSpec::new().init(InitLayer::usual()).limit(limit).fallbacks(Fallbacks::all())
}

pub(crate) fn one_method(method: LimitMethod) -> SpaceLimit {
    SpaceLimit::new().methods([method])
}

/// Writes a file until it is refused. Gives how many bytes there was room for.
pub(crate) fn fill(root: &Merged, name: &str) -> u64 {
    let mut file = File::create(root.path(name)).expect("is made");
    let chunk = vec![b'x'; 64 << 10];
    let mut written = 0;
    loop {
        match file.write(&chunk) {
            Ok(length) => written += length as u64,
            Err(error) => {
                refused(&error);
                return written;
            }
        }
    }
}

fn refused(error: &io::Error) {
    assert!([Some(libc::ENOSPC), Some(libc::EDQUOT)].contains(&error.raw_os_error()), "{error}");
}

/// Makes files until it is refused.
pub(crate) fn fill_with_files(root: &Merged) -> u64 {
    fs::create_dir(root.path("many")).expect("is made");
    for number in 1.. {
        if let Err(error) = File::create(root.path(&format!("many/{number}"))) {
            refused(&error);
            return number;
        }
    }
    unreachable!("there is a limit")
}

/// At least what was asked for, and not much more.
pub(crate) fn assert_near(found: u64, asked: u64, more: u64) {
    assert!((asked..=asked + more).contains(&found), "{found} of {asked}");
}

/// The loop devices whose file is in a folder.
pub(crate) fn loops(folder: &Path) -> Vec<PathBuf> {
    let folder = fs::canonicalize(folder).expect("is there");
    let devices = fs::read_dir("/sys/block").expect("is read").map(|entry| entry.expect("an entry").path());
    let file = |device: PathBuf| fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
    devices.map(file).map(PathBuf::from).filter(|file| file.starts_with(&folder)).collect()
}

pub(crate) fn what_a_container_writes_is_limited(form: Form) {
    for method in methods(form) {
        let place = Place::new(form);
        let store = store(&place);
        publish(&store, &owner("image"), "base", None);
        let spec = limited(one_method(*method).bytes(8 * MIB));
        let container = prepared(&store, "c", Some("base"), &spec);
        let other = prepared(&store, "d", Some("base"), &spec);
        let free = prepared(&store, "e", Some("base"), &ContainerSpec::new());
        assert_eq!(loops(place.path()).len(), if *method == LimitMethod::Image { 2 } else { 0 });
        let space = |container: &Container| container.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
        let before = space(&container);
        assert_eq!((before.method, before.inodes), (*method, None));
        assert!(before.used.bytes < MIB && before.bytes.expect("a limit") >= 8 * MIB, "{before:?}");
        assert_eq!(free.space().unwrap_or_else(|e| panic!("{e}")), None);

        let mount = root(container.mount());
        let written = fill(&mount, "file");
        assert_near(written, 8 * MIB, MIB);
        let full = space(&container);
        assert!(full.used.bytes >= written, "{full:?}");
        // Nobody else is short of room, and what is deleted is given back.
        assert_near(fill(&root(other.mount()), "file"), 8 * MIB, MIB);
        fs::write(root(free.mount()).path("file"), vec![b'x'; 20 << 20]).expect("has no limit");
        fs::remove_file(mount.path("file")).expect("is removed");
        assert_near(fill(&mount, "again"), 8 * MIB, MIB);
        fs::remove_file(mount.path("again")).expect("is removed");
        fs::write(mount.path("kept"), "kept").expect("is written");
        drop(mount);
        assert!(space(&container).used.bytes < MIB);
        container.commit(&id("done")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(crate::containers::layer_shows(&store, "done").read("kept"), "kept");
        for container in [container, other, free] {
            container.discard().unwrap_or_else(|e| panic!("{e}"));
        }
        assert_eq!(loops(place.path()), [""; 0].map(PathBuf::from));
        assert!(list(place.path().join("store/trash")).is_empty());
    }
}

pub(crate) fn how_many_files_a_container_makes_is_limited(form: Form) {
    for method in methods(form) {
        let place = Place::new(form);
        let store = store(&place);
        let limit = one_method(*method).bytes(8 * MIB).inodes(300);
        let container = prepared(&store, "c", None, &limited(limit));
        let mount = root(container.mount());
        assert_near(fill_with_files(&mount), 300, 40);
        let space = container.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
        assert!(space.used.inodes >= 300 && space.inodes.expect("a limit") >= 300, "{space:?}");
        drop(mount);
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// An image lasts, and is mounted once at a time; what was in memory is gone, and nobody is told that it was empty.
pub(crate) fn what_was_written_within_a_limit_is_found_again(form: Form) {
    for method in methods(form) {
        let place = Place::new(form);
        let store = store(&place);
        publish(&store, &owner("image"), "base", None);
        let container = prepared(&store, "c", Some("base"), &limited(one_method(*method).bytes(8 * MIB)));
        let mount = root(container.mount());
        fs::write(mount.path("written"), "x").expect("is written");
        drop(container);
        let found = |after| store.container(&owner("c"), after);
        let again = if *method == LimitMethod::Image {
            assert_eq!(found(AfterVolatile::Accept).expect_err("is mounted").kind(), ErrorKind::Busy);
            drop(mount);
            found(AfterVolatile::Refuse)
        } else {
            drop(mount);
            assert_eq!(found(AfterVolatile::Refuse).expect_err("is gone").kind(), ErrorKind::Volatile);
            found(AfterVolatile::Accept)
        };
        let again = again.unwrap_or_else(|e| panic!("{e}")).expect("is there");
        let mount = root(again.mount());
        assert_eq!(mount.path("written").exists(), *method == LimitMethod::Image);
        assert!(mount.path("base").exists());
        assert_near(fill(&mount, "file"), 8 * MIB - MIB / 16, MIB + MIB / 16);
        drop((mount, again));
        store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(store.containers().expect("are read"), []);
        assert_eq!(loops(place.path()), [""; 0].map(PathBuf::from));
    }
}

/// One that cannot be had is told, and the next one taken if there is one.
pub(crate) fn a_method_that_is_not_possible_here(form: Form) {
    let place = Place::new(form);
    let store = store(&place);
    let refused = |spec: &ContainerSpec| store.prepare(&owner("c"), None, spec).map(drop).expect_err("is not possible");
    let project = || one_method(LimitMethod::Project).bytes(MIB);
    assert_eq!(refused(&limited(project())).kind(), ErrorKind::Unsupported, "no quota");
    assert_eq!(refused(&limited(SpaceLimit::new().methods([]))).kind(), ErrorKind::InvalidInput);
    let copy = limited(SpaceLimit::new().bytes(MIB)).backend(Backend::Copy);
    let error = refused(&copy);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for word in ["project: ", "image: ", "tmpfs: "] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let image = refused(&limited(one_method(LimitMethod::Image))).kind();
    assert_eq!(image, ErrorKind::Unsupported, "without bytes");
    let container = prepared(&store, "c", None, &limited(SpaceLimit::new().bytes(MIB)));
    let space = container.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
    assert_eq!(space.method, methods(form)[0]);
    container.discard().unwrap_or_else(|e| panic!("{e}"));
    for folder in ["containers", "staging", "trash"] {
        assert!(list(place.path().join("store").join(folder)).is_empty(), "{folder}");
    }
    assert_eq!(loops(place.path()), [""; 0].map(PathBuf::from));
}

/// What we write as an empty ext4 is one: e2fsck finds no fault with it, before and after it was in use.
pub(crate) fn an_image_is_what_e2fsck_takes() {
    let place = Place::new(Form::Trusted);
    let store = store(&place);
    for (name, bytes, inodes) in
        [("tiny", 1, Some(1)), ("small", MIB, None), ("two-groups", 200 * MIB, None), ("many", 7 << 30, Some(500_000))]
    {
        let mut limit = one_method(LimitMethod::Image).bytes(bytes);
        limit.inodes = inodes;
        let container = prepared(&store, name, None, &limited(limit));
        let image = crate::store::path_of(&container).join("image");
        let image = fs::canonicalize(image).expect("is there");
        let mount = root(container.mount());
        fs::write(mount.path("file"), "x").expect("is written");
        drop((mount, container));
        let checked = Command::new(E2FSCK).arg("-fn").arg(&image).output().expect("is started");
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{name}: {said}");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).expect("is there"));
        assert!(blocks * 512 < 4 * MIB, "{name}: {blocks} sectors");
    }
    store.gc([]).unwrap_or_else(|e| panic!("{e}"));
}

pub(crate) const E2FSCK: &str = "/sbin/e2fsck";

/// A process that is killed leaves no loop device, and no container by half.
pub(crate) fn killed_anywhere_in_the_life_of_an_image() {
    const CALLS: &[i64] = &[
        libc::SYS_mkdirat,
        libc::SYS_pwrite64,
        libc::SYS_ioctl,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
    ];
    let place = Place::new(Form::Trusted);
    let spec = limited(one_method(LimitMethod::Image).bytes(MIB));
    let work = |path: &Path| {
        let store = crate::store::reopened(path, Form::Trusted);
        let container = prepared(&store, "x", Some("base"), &spec);
        fs::write(root(container.mount()).path("file"), "x").expect("is written");
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    };
    let check = |store: &LayerStore, done: bool| {
        assert_eq!(loops(place.path()), [""; 0].map(PathBuf::from));
        let found = store.container(&owner("x"), AfterVolatile::Refuse).unwrap_or_else(|e| panic!("{e}"));
        assert!(!done || found.is_none());
        if let Some(container) = found {
            assert!(root(container.mount()).path("dir").exists());
        }
        store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        assert!(store.containers().expect("are read").is_empty() && loops(place.path()).is_empty());
    };
    let base = |store: &LayerStore| publish_files(store, &owner("image"), "base", None);
    let calls = killed_before_every_call(&place, CALLS, base, work, check);
    assert!(calls > 40, "{calls}");
}
