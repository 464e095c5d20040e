//! What if the n-th system call fails? A typed error, and nothing is left.

use crate::support::{Merged, Place, list, mounted, open, open_fds};
use cofferdam_testkit::fault::{Action, Call, Fault, Watch, Who};
use cofferdam_unionfs::{
    Backend, ContainerSpec, Error, ErrorKind, Form, InitLayer, LayerStore, Operation, Overlay, SyncPolicy,
    WritableLayer,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FileType, Mode, mknodat};
use std::fs;

/// All that the operations of this crate call, except `close`: a call that is not made would leave a descriptor.
pub(crate) const WATCHED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_mkdirat,
    libc::SYS_fchown,
    libc::SYS_fchmod,
    libc::SYS_unlinkat,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_renameat2,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_syncfs,
];

/// Calls `f` once for each system call that it makes when all is well, with that one failing. Gives the names of those calls.
fn walk<T: Send>(f: impl Fn() -> Result<T, Error> + Sync, check: impl Fn(&str, Result<T, Error>)) -> Vec<&'static str> {
    let (expected, made) = walk_in_any_order(f, check);
    assert_eq!(made, expected);
    made
}

/// The same where calls may come in another order each time, because directories list their names so. Gives the calls as they were expected and as they were made.
fn walk_in_any_order<T: Send>(
    f: impl Fn() -> Result<T, Error> + Sync,
    check: impl Fn(&str, Result<T, Error>),
) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut made = Vec::new();
    let watch = Watch::only(WATCHED);
    let (calls, result) = watch.record(&f);
    result.unwrap_or_else(|e| panic!("without a fault: {e}"));
    let fds = open_fds();
    for nth in 0..calls.len() {
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EIO) };
        let (seen, result) = watch.inject(fault, &f);
        let hit =
            seen.iter().find(|c| c.fault.is_some()).unwrap_or_else(|| panic!("call {nth} was not made: {seen:?}"));
        made.push(hit.name());
        check(hit.name(), result);
        assert_eq!(open_fds(), fds, "descriptors after {hit} failed");
    }
    (calls.iter().map(Call::name).collect(), made)
}

fn typed<T>(name: &str, result: Result<T, Error>) -> Error {
    let Err(error) = result else { panic!("{name} fails, and nobody is told") };
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Os, Some(libc::EIO)), "{name}: {error}");
    let call = error.system_call().expect("a call");
    assert!(call == name, "{name} failed, the error names {call}: {error}");
    error
}

fn walk_mount(overlay: &Overlay, operation: Operation) -> Vec<&'static str> {
    walk(
        || overlay.mount(),
        |name, result| {
            let error = typed(name, result);
            assert!([operation, Operation::OpenLayer, Operation::Opaque].contains(&error.operation()), "{error}");
            // The upper is free again.
            drop(mounted(overlay));
        },
    )
}

pub(crate) fn every_call_of_a_mount(form: Form) {
    let place = Place::new(form);
    let lowers = ["a", "b", "c"].map(|name| place.layer(name, &[(name, "")]));
    let (writable, upper) = place.writable();
    let overlay = place.overlay(&lowers).writable(&writable).index(true);
    let calls = walk_mount(&overlay, Operation::Mount);
    // Three lowers to open, the upper and all lowers but the last to be asked whether they are opaque; a context, four options (five with userxattr), five layers, create, the mount, and whether it can be written to.
    let count = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!((count("openat"), count("fgetxattr"), count("fsopen"), count("fsmount")), (3, 3, 1, 1), "{calls:?}");
    assert!(count("fsconfig") >= 10 && count("fstatfs") == 1, "{calls:?}");
    assert!(list(upper).is_empty());
}

/// The kernel refuses the stack; then the lowers are told apart, and mounted once more.
pub(crate) fn every_call_of_a_second_attempt(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("a", &[("a", "")]);
    let (other, other_name) = (place.layer("b", &[("b", "")]), place.path().join("link"));
    std::os::unix::fs::symlink(&lower, &other_name).expect("is made");
    let (writable, _) = place.writable();
    let overlay = place.overlay(&[lower, other, other_name]).writable(&writable);
    let calls = walk_mount(&overlay, Operation::Mount);
    let count = |name| calls.iter().filter(|c| **c == name).count();
    assert_eq!((count("openat"), count("fstat"), count("fsopen"), count("fsmount")), (3, 3, 2, 1), "{calls:?}");
    assert_eq!(mounted(&overlay).list(""), ["a", "b"]);
}

pub(crate) fn every_call_of_a_bind(form: Form) {
    let place = Place::new(form);
    let calls = walk_mount(&place.overlay(&[place.layer("a", &[])]), Operation::Bind);
    assert_eq!(calls, ["openat", "open_tree", "mount_setattr"]);
}

pub(crate) fn every_call_of_a_writable_layer(form: Form) {
    let place = Place::new(form);
    let path = place.layer("writable", &[]);
    let dir = open(&path);
    let make_and_remove = || {
        let layer = WritableLayer::create(&dir)?;
        // Without a file in it nothing would have to be opened.
        mknodat(layer.upper(), "file", FileType::RegularFile, Mode::RUSR, 0).expect("is made");
        drop(layer);
        WritableLayer::remove(&dir)
    };
    let calls = walk(make_and_remove, |name, result| match typed(name, result).operation() {
        Operation::RemoveWritable => WritableLayer::remove(&dir).expect("can be repeated"),
        operation => {
            assert_eq!(operation, Operation::PrepareWritable);
            assert!(list(&path).is_empty(), "{name} failed, and {:?} is left", list(&path));
        }
    });
    for call in ["mkdirat", "openat2", "fchown", "fchmod", "unlinkat", "getdents64", "lseek", "fstat"] {
        assert!(calls.contains(&call), "{call} is not among {calls:?}");
    }
}

/// Whether a call of `fsconfig(2)` is `FSCONFIG_SET_FD`. An int is the lower half of its register.
fn is_set_fd(call: &Call) -> bool {
    call.args[1] & u64::from(u32::MAX) == 5
}

/// Runs `f`, whose `nth` layer is handed over to a kernel that, so it says, takes layers only as strings.
fn without_layer_descriptors<T: Send>(
    f: impl Fn() -> Result<T, Error> + Sync,
    nth: usize,
    errno: i32,
) -> Result<T, Error> {
    let watch = Watch::only(&[libc::SYS_fsconfig]);
    let (calls, _) = watch.record(|| f().map(drop));
    let mut layers = calls.iter().enumerate().filter(|(_, call)| is_set_fd(call)).map(|(i, _)| i).skip(nth);
    let nth = layers.next().unwrap_or_else(|| panic!("no layer is handed over as a descriptor: {calls:?}"));
    let (calls, result) = watch.inject(Fault { who: Who::Parent, nth, action: Action::Errno(errno) }, &f);
    assert!(!calls.iter().skip(nth + 1).any(is_set_fd), "{calls:?}");
    result
}

pub(crate) fn layers_as_links(form: Form) {
    let place = Place::new(form);
    let lowers = ["a", "b:,\\", "c"].map(|name| place.layer(name, &[(&name[..1], "")]));
    let (writable, upper) = place.writable();
    let overlay = place.overlay(&lowers).writable(&writable);
    for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::EBADF] {
        let merged = without_layer_descriptors(|| overlay.mount(), 0, errno);
        let merged = Merged(merged.unwrap_or_else(|e| panic!("{e}")));
        fs::write(merged.path("new"), "").expect("is written");
        assert_eq!(merged.list(""), ["a", "b", "c", "new"]);
    }
    assert_eq!(list(upper), ["new"]);

    // Links in something that is not /proc are no links. The first mount is for the test kit, which has to look into /proc once.
    let without_proc = || {
        drop(overlay.mount()?);
        let nothing = None::<&str>;
        mount(Some("tmpfs"), "/proc", Some("tmpfs"), MsFlags::empty(), nothing).expect("is mounted");
        let result = overlay.mount();
        umount2("/proc", MntFlags::empty()).expect("is unmounted");
        result
    };
    // One that this kernel refuses by itself is not followed by others.
    let (calls, _) = Watch::only(&[libc::SYS_fsconfig]).record(|| overlay.mount().map(drop));
    let of_the_first = calls.iter().filter(|c| is_set_fd(c)).count();
    let error = without_layer_descriptors(without_proc, of_the_first, libc::EINVAL).expect_err("there is no /proc");
    assert_eq!(
        (error.kind(), error.object()),
        (ErrorKind::Unsupported, Some("/proc/thread-self/fd".as_ref())),
        "{error}"
    );
}

/// Opening, staging, publishing, taking, collecting: whatever fails, it is told, and the next one finds a store that is whole.
pub(crate) fn every_call_of_a_store(form: Form) {
    let place = Place::new(form);
    let path = place.layer("store", &[]);
    let dir = open(&path);
    // The very first opening makes other calls.
    drop(crate::store::reopened(&path, form));
    let (id, owner) = (crate::store::id("x"), crate::store::owner("y"));
    let work = || {
        let store = LayerStore::open(&dir, form)?.sync_policy(SyncPolicy::PerFile);
        let stage = store.stage(&owner)?;
        mknodat(&stage, "file", FileType::RegularFile, Mode::RUSR, 0).expect("is made");
        stage.publish(&id, None)?;
        store.acquire(&id, &crate::store::owner("z"))?;
        store.chain(&id)?;
        let undeleted = store.gc([])?.undeleted;
        store.remove(&id)?;
        Ok(undeleted)
    };
    let (_, calls) = walk_in_any_order(work, |name, result| {
        // That a lock cannot be let go is nothing to be told: it goes with its descriptor.
        if name == "flock" && result.is_ok() {
            return;
        }
        // What could not be deleted is told as well, and deleted by the next one.
        if !matches!(result, Ok(1..)) {
            typed(name, result);
        }
        let store = crate::store::reopened(&path, form);
        assert_eq!(store.check().unwrap_or_else(|e| panic!("{name}: {e}")), [], "after {name} failed");
        store.gc([]).unwrap_or_else(|e| panic!("{name}: {e}"));
        for folder in ["layers", "staging", "trash"] {
            assert!(list(path.join(folder)).is_empty(), "after {name} failed");
        }
    });
    for call in ["mkdirat", "openat2", "fsync", "renameat2", "flock", "unlinkat", "getdents64", "fgetxattr", "fchmod"] {
        assert!(calls.contains(&call), "{call} is not among {calls:?}");
    }
}

/// A file system with room for so many inodes, and then one more, until all goes well: it is full at each step in turn.
pub(crate) fn a_full_disk_at_every_step(form: Form) {
    let (id, owner) = (crate::store::id("x"), crate::store::owner("y"));
    let publish = |store: &LayerStore| store.stage(&owner)?.publish(&id, None).map(drop);
    let failures = full_at_every_step(form, publish);
    assert!(failures >= 8, "only {failures} steps had no room");
}

/// The same for a container: what is committed of it is there or not.
pub(crate) fn a_full_disk_at_every_step_of_a_container(form: Form) {
    for backend in [Backend::Overlay, Backend::Copy] {
        let (id, owner) = (crate::store::id("x"), crate::store::owner("y"));
        let spec = ContainerSpec::new().init(InitLayer::usual()).backend(backend);
        let failures = full_at_every_step(form, |store| {
            let container = store.prepare(&owner, None, &spec)?;
            let root = Merged(container.mount()?);
            // What does not fit is not there, and not committed.
            let full = |e: std::io::Error| assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
            let _ = fs::create_dir(root.path("dir")).and_then(|()| fs::write(root.path("dir/file"), "x")).map_err(full);
            drop(root);
            container.commit(&id)?;
            container.discard()
        });
        assert!(failures >= 20, "only {failures} steps had no room");
    }
}

/// Gives how many steps there were.
fn full_at_every_step(form: Form, work: impl Fn(&LayerStore) -> Result<(), Error>) -> usize {
    let place = Place::new(form);
    let path = place.layer("disk", &[]);
    let mut failures = 0;
    for inodes in 2.. {
        let options = |inodes: u32| format!("size=1m,nr_inodes={inodes}");
        let mount_with = |flags, inodes| {
            mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(options(inodes).as_str())).expect("is mounted");
        };
        mount_with(MsFlags::empty(), inodes);
        let result = LayerStore::open(open(&path), form).and_then(|store| work(&store));
        mount_with(MsFlags::MS_REMOUNT, 1000);
        let store = crate::store::reopened(&path, form);
        assert_eq!(store.check().unwrap_or_else(|e| panic!("{e}")), []);
        // Room may be short after the commit, too: for the discarding.
        assert!(crate::store::names(&store).len() <= 1 && (result.is_err() || crate::store::names(&store).len() == 1));
        store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        for folder in ["layers", "containers", "trash"] {
            assert!(list(path.join(folder)).is_empty(), "{folder}");
        }
        assert!(list(path.join("staging")).is_empty());
        drop(store);
        umount2(&path, MntFlags::empty()).expect("is unmounted");
        match result {
            Ok(()) => return failures,
            Err(error) => {
                // Why it has no place for its own files the kernel does not say.
                let said = error.raw_os_error().or((error.operation() == Operation::Mount).then_some(libc::ENOSPC));
                assert_eq!((error.kind(), said), (ErrorKind::LimitReached, Some(libc::ENOSPC)), "{error}");
                failures += 1;
            }
        }
    }
    unreachable!("it ends")
}
