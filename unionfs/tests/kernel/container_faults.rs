//! What if the n-th system call fails of those that make a container, limit it, find it again, commit and discard it? A typed error, and nothing is left: no file, no loop
//! device, no project.

use crate::containers::BACKENDS;
use crate::faults::WATCHED;
use crate::limits::{MIB, limited, loops, methods, one_method};
use crate::projects::{by_project, limited_projects};
use crate::store::{id, names, owner, publish, store};
use crate::support::{Disk, Place, list, open_fds};
use cofferdam_testkit::fault::{Action, Call, Fault, Watch, Who};
use cofferdam_unionfs::{AfterVolatile, ContainerSpec, Error, Form, LayerStore, LimitMethod, Operation, SyncPolicy};
use rustix::fs::{FileType, Mode, mknodat};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What files of the store are read and written by, and data shared. (Not getrandom(2), by which the standard library seeds its maps as well.)
const MORE: &[i64] = &[libc::SYS_ioctl, libc::SYS_write, libc::SYS_read];

/// What limits are made of. The other calls are those of every container.
const OF_LIMITS: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fstatfs,
    libc::SYS_ioctl,
    libc::SYS_ftruncate,
    libc::SYS_pwrite64,
    libc::SYS_syncfs,
    libc::SYS_fsync,
    libc::SYS_renameat2,
];

/// All that a container goes through. Says when it was prepared.
fn life(store: &LayerStore, spec: &ContainerSpec, prepared: &AtomicBool) -> Result<(), Error> {
    let container = store.prepare(&owner("c"), Some(&id("base")), spec)?;
    prepared.store(true, Ordering::SeqCst);
    let root = container.mount()?;
    mknodat(&root, "new", FileType::RegularFile, Mode::RUSR, 0).expect("is made");
    container.space()?;
    drop((root, container));
    let found = store.container(&owner("c"), AfterVolatile::Accept)?.expect("is there");
    drop(found.mount()?);
    found.commit(&id("done"))?;
    found.discard()
}

/// Lets each of these calls of a container's life fail in turn. How many there are is not always the same: a file system may be waited for until it is unmounted. Gives their
/// names.
fn every_call(
    place: &Place,
    watched: &[i64],
    spec: &ContainerSpec,
    left: impl Fn() -> Vec<String>,
) -> BTreeSet<&'static str> {
    let store = store(place).sync_policy(SyncPolicy::PerFile);
    let image = owner("image");
    publish(&store, &image, "base", None);
    let folder = |name: &str| list(place.path().join("store").join(name));
    let watch = Watch::only(watched);
    // The first one makes other calls: it is asked for once what the kernel can do.
    life(&store, spec, &AtomicBool::new(false)).unwrap_or_else(|e| panic!("{e}"));
    store.gc([&image]).unwrap_or_else(|e| panic!("{e}"));
    let (fds, mut made) = (open_fds(), BTreeSet::new());
    for nth in 0.. {
        let prepared = AtomicBool::new(false);
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::EIO) };
        let (calls, result) = watch.inject(fault, || life(&store, spec, &prepared));
        let Some(hit) = calls.iter().find(|call| call.fault.is_some()) else {
            result.unwrap_or_else(|e| panic!("without a fault: {e}"));
            return made;
        };
        made.insert(hit.name());
        let operation = match result {
            // That a lock cannot be let go is nothing to be told: it goes with its descriptor. What cannot be shared is copied.
            Ok(()) => {
                assert!(hit.name() == "flock" || is_clone(hit), "{hit} fails, and nobody is told");
                None
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{hit}: {error}");
                assert_eq!(error.system_call(), Some(hit.name()), "{hit}: {error}");
                Some(error.operation())
            }
        };
        assert_eq!(open_fds(), fds, "descriptors after {hit} failed");
        // But for a stage whose removal it was that failed.
        let removing = ["unlinkat", "openat2", "fstat", "lseek", "getdents64"].contains(&hit.name());
        if !(removing && operation == Some(Operation::StageLayer)) {
            assert_eq!(folder("staging"), [""; 0], "after {hit} failed");
        }
        assert!(prepared.load(Ordering::SeqCst) || folder("containers").is_empty(), "after {hit} failed");
        store.gc([&image]).unwrap_or_else(|e| panic!("{hit}: {e}"));
        assert_eq!(store.check().unwrap_or_else(|e| panic!("{hit}: {e}")), [], "after {hit} failed");
        assert_eq!(names(&store), ["base"], "after {hit} failed");
        assert!(folder("containers").is_empty() && folder("trash").is_empty(), "after {hit} failed");
        assert_eq!(settled(&left), [""; 0], "after {hit} failed");
    }
    unreachable!("it ends")
}

/// Whether a call of `ioctl(2)` is `FICLONE`.
fn is_clone(call: &Call) -> bool {
    call.number == libc::SYS_ioctl && call.args[1] & u64::from(u32::MAX) == 0x4004_9409
}

/// What there is when nobody is busy any more: a device goes when the kernel has unmounted what was on it.
fn settled(left: impl Fn() -> Vec<String>) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let found = left();
        if found.is_empty() || begin.elapsed() > Duration::from_secs(5) {
            return found;
        }
        sleep(Duration::from_millis(1));
    }
}

fn all_of(made: &BTreeSet<&'static str>, calls: &[&str]) {
    for call in calls {
        assert!(made.contains(call), "{call} is not among {made:?}");
    }
}

pub(crate) fn every_call_of_a_container(form: Form) {
    for backend in BACKENDS {
        let place = Place::new(form);
        let made = every_call(&place, &[WATCHED, MORE].concat(), &ContainerSpec::new().backend(backend), Vec::new);
        all_of(&made, &["openat2", "mkdirat", "renameat2", "flock", "fsync", "write", "read", "unlinkat"]);
    }
}

pub(crate) fn every_call_of_a_limit(form: Form) {
    for method in methods(form) {
        let place = Place::new(form);
        let spec = limited(one_method(*method).bytes(MIB).inodes(300));
        let devices = |path: &Path| loops(path).iter().map(|file| file.display().to_string()).collect();
        let made = every_call(&place, OF_LIMITS, &spec, || devices(place.path()));
        all_of(&made, &["fsopen", "fsconfig", "fsmount", "fstatfs"]);
        if *method == LimitMethod::Image {
            all_of(&made, &["ioctl", "pwrite64", "ftruncate", "syncfs"]);
        }
    }
}

/// In a virtual machine all calls would take a minute and more.
pub(crate) fn every_call_of_a_project() {
    const CALLS: &[i64] = &[libc::SYS_quotactl_fd, libc::SYS_ioctl, libc::SYS_renameat2, libc::SYS_fsync];
    let disk = Disk::new("quota,project", "prjquota");
    for backend in BACKENDS {
        let place = Place::on(&disk, Form::Trusted);
        let spec = limited(by_project().bytes(MIB)).backend(backend);
        let seen = Cell::new(0);
        let made = every_call(&place, CALLS, &spec, || {
            seen.set(seen.get() + 1);
            limited_projects(&disk).iter().map(u32::to_string).collect()
        });
        assert!(seen.get() >= 15, "{seen:?}");
        all_of(&made, &["quotactl_fd", "ioctl", "renameat2"]);
    }
}
