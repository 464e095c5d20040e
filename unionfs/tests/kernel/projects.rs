//! Quotas of projects, on a file system that has them.

use crate::containers::{prepared, root};
use crate::crash::{killed_and_looked_at, publish as publish_files};
use crate::limits::{MIB, assert_near, fill, fill_with_files, limited, one_method};
use crate::store::{owner, path_of, publish, reopened, store};
use crate::support::{Disk, Place, list, open};
use cofferdam_unionfs::{
    AfterVolatile, Backend, Container, ContainerSpec, Fallbacks, Form, LayerStore, LimitMethod, SpaceLimit,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

fn disk() -> Disk {
    Disk::new("quota,project", "prjquota")
}

pub(crate) fn by_project() -> SpaceLimit {
    one_method(LimitMethod::Project)
}

/// The number of a container's project, as it is kept.
fn project_of(folder: &Path) -> Option<u32> {
    let about = fs::read_to_string(folder.join("about")).ok()?;
    about.lines().find_map(|line| line.strip_prefix("limit ")?.rsplit_once("project ")?.1.parse().ok())
}

/// What the kernel has of a project: limits of space and inodes, space and inodes used. Zeros: nothing.
fn record(disk: &Disk, id: u32) -> [u64; 4] {
    let (mut record, root) = ([0_u64; 9], open(disk.path()));
    let command = 0x0080_0007_u32 << 8 | 2;
    #[expect(unsafe_code, reason = "no safe wrapper")]
    // SAFETY: a struct if_dqblk is as long.
    let got = unsafe { libc::syscall(libc::SYS_quotactl_fd, root.as_raw_fd(), command, id, record.as_mut_ptr()) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    [record[0], record[3], record[2], record[5]]
}

/// The projects of which the kernel has limits or files, but for the one of all that is nobody's.
pub(crate) fn limited_projects(disk: &Disk) -> Vec<u32> {
    let (root, command) = (open(disk.path()), 0x0080_0009_u32 << 8 | 2);
    let (mut found, mut next) = (Vec::new(), 1_u32);
    loop {
        let mut record = [0_u64; 9];
        #[expect(unsafe_code, reason = "no safe wrapper")]
        // SAFETY: a struct if_nextdqblk is as long.
        let got = unsafe { libc::syscall(libc::SYS_quotactl_fd, root.as_raw_fd(), command, next, record.as_mut_ptr()) };
        if got != 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return found;
        }
        let id = u32::try_from(record[8] >> 32).expect("a number");
        if [record[0], record[2], record[3], record[5]] != [0; 4] {
            found.push(id);
        }
        next = id + 1;
    }
}

pub(crate) fn a_project_holds_what_a_container_writes() {
    let disk = disk();
    let place = Place::on(&disk, Form::Trusted);
    let store = store(&place);
    publish(&store, &owner("image"), "base", None);
    let spec = limited(by_project().bytes(4 * MIB));
    let container = prepared(&store, "c", Some("base"), &spec);
    let other = prepared(&store, "d", Some("base"), &spec);
    let free = prepared(&store, "e", Some("base"), &ContainerSpec::new().fallbacks(Fallbacks::all()));
    let ids = [&container, &other].map(|container| project_of(&path_of(container)).expect("a project"));
    assert_ne!(ids[0], ids[1]);

    let mount = root(container.mount());
    let written = fill(&mount, "file");
    assert_near(written, 4 * MIB, MIB);
    let space = container.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
    assert_eq!((space.method, space.inodes), (LimitMethod::Project, None));
    assert!(space.used.bytes >= written && space.bytes.expect("a limit") >= 4 * MIB, "{space:?}");
    // What is in the layers can be deleted all the same, and nobody else is short of room.
    fs::remove_file(mount.path("file")).expect("is removed");
    assert_near(fill(&root(other.mount()), "file"), 4 * MIB, MIB);
    fs::write(root(free.mount()).path("file"), vec![b'x'; 10 << 20]).expect("has no limit");
    drop(mount);

    // It is found again, and holds.
    drop(container);
    let again =
        store.container(&owner("c"), AfterVolatile::Refuse).unwrap_or_else(|e| panic!("{e}")).expect("is there");
    let mount = root(again.mount());
    assert_near(fill(&mount, "file"), 4 * MIB, MIB);
    drop(mount);
    for container in [again, other, free] {
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(ids.map(|id| record(&disk, id)), [[0; 4]; 2], "the projects are nobody's again");
    drop(store);
    drop(place);
}

pub(crate) fn a_project_counts_files_and_copies() {
    let disk = disk();
    let place = Place::on(&disk, Form::Trusted);
    let store = store(&place);
    let container = prepared(&store, "c", None, &limited(by_project().inodes(200)));
    let mount = root(container.mount());
    assert_near(fill_with_files(&mount), 200, 20);
    let space = container.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
    assert!(space.bytes.is_none() && space.used.inodes >= 200, "{space:?}");
    drop(mount);

    // A copy has the layers in it, which do not count: the limit is for what comes on top. Root of the machine is not held by it; its count is.
    let stage = store.stage(&owner("image")).unwrap_or_else(|e| panic!("{e}"));
    fs::write(path_of(&stage).join("large"), vec![b'x'; 6 << 20]).expect("is written");
    stage.publish(&crate::store::id("large"), None).unwrap_or_else(|e| panic!("{e}"));
    let spec = limited(by_project().bytes(2 * MIB)).backend(Backend::Copy);
    let copy = prepared(&store, "d", Some("large"), &spec);
    let space = copy.space().unwrap_or_else(|e| panic!("{e}")).expect("has a limit");
    assert_near(space.bytes.expect("a limit"), 8 * MIB, MIB);
    assert!(space.used.bytes >= 6 * MIB, "{space:?}");
    for container in [container, copy] {
        container.discard().unwrap_or_else(|e: cofferdam_unionfs::Error| panic!("{e}"));
    }
    drop((store, place));
}

/// A process that is killed leaves no project with limits that nobody would lift.
pub(crate) fn killed_anywhere_in_the_life_of_a_project() {
    const CALLS: &[i64] = &[libc::SYS_quotactl_fd, libc::SYS_ioctl, libc::SYS_renameat2, libc::SYS_unlinkat];
    let disk = disk();
    let place = Place::on(&disk, Form::Trusted);
    let spec = limited(by_project().bytes(MIB));
    // Numbers are drawn: what the killed process has had is told by the folders that it has left.
    let seen = RefCell::new(BTreeSet::new());
    let note = |path: &Path| {
        for folder in ["staging", "containers", "trash"] {
            let folder = path.join(folder);
            let found = list(&folder).into_iter().filter_map(|name| project_of(&folder.join(name)));
            seen.borrow_mut().extend(found);
        }
    };
    let work = |path: &Path| {
        let store = reopened(path, Form::Trusted);
        let container: Container = prepared(&store, "x", Some("base"), &spec);
        fs::write(root(container.mount()).path("file"), "x").expect("is written");
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    };
    let check = |store: &LayerStore, _: bool| {
        store.gc([]).unwrap_or_else(|e| panic!("{e}"));
        for id in seen.borrow().iter() {
            assert_eq!(record(&disk, *id), [0; 4], "{id}");
        }
    };
    let base = |store: &LayerStore| publish_files(store, &owner("image"), "base", None);
    let calls = killed_and_looked_at(&place, CALLS, (base, note), work, check);
    assert!(calls > 15 && seen.borrow().len() > 5, "{calls}: {seen:?}");
    drop(place);
}
