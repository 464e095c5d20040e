//! Crashes: a store whose process is killed, anywhere, and what another one finds.

use crate::store::{id, names, owner, path_of, reopened};
use crate::support::{Place, Random, list};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_unionfs::{AfterVolatile, ContainerSpec, Form, InitLayer, LayerStore, Owner, SyncPolicy};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All calls that change something, or let a lock go. Not clone(2): libc holds the allocator's lock during fork(3), and who decides
/// about the call may need it.
const CHANGES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_write,
    libc::SYS_fchmod,
    libc::SYS_fsetxattr,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_syncfs,
    libc::SYS_flock,
    libc::SYS_close,
];

/// Those by which what is on the disk becomes another.
const STATES: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_write,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fsetxattr,
];

/// So many files, in directories, that a layer of which some are missing is noticed.
const FILES: usize = 6;

/// Runs something in a process of its own, which may be killed.
fn start(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "a process to be killed")]
    // SAFETY: the thread is the only one that runs code of the test; the child takes no lock that another one may hold.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let result = catch_unwind(AssertUnwindSafe(body));
            std::process::exit(i32::from(result.is_err()));
        }
    }
}

/// Whether it ended by itself, in which case all must have gone well.
fn ended(child: Pid) -> bool {
    match waitpid(child, None).expect("is waited for") {
        WaitStatus::Exited(_, code) => {
            assert_eq!(code, 0, "in the child");
            true
        }
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => false,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn publish(store: &LayerStore, owner: &Owner, name: &str, parent: Option<&str>) {
    let stage = store.stage(owner).unwrap_or_else(|e| panic!("{e}"));
    let path = path_of(&stage);
    fs::create_dir(path.join("dir")).expect("is made");
    for i in 0..FILES {
        fs::write(path.join("dir").join(i.to_string()), name).expect("is written");
    }
    let parent = parent.map(id);
    stage.publish(&id(name), parent.as_ref()).unwrap_or_else(|e| panic!("{name}: {e}"));
}

/// Opens a store after a crash: nothing is left of what was not done, and every layer is whole, with all that it stands on.
fn opened_again(path: &Path, form: Form) -> LayerStore {
    let store = reopened(path, form);
    assert_eq!(store.check().unwrap_or_else(|e| panic!("{e}")), []);
    for folder in ["staging", "trash"] {
        assert!(list(path.join(folder)).is_empty(), "{folder}: {:?}", list(path.join(folder)));
    }
    for layer in store.layers().expect("is read") {
        for layer in store.chain(&layer).unwrap_or_else(|e| panic!("{e}")) {
            let dir = path_of(&layer).join("dir");
            assert_eq!(list(&dir).len(), FILES, "{} is not whole", layer.id());
            for file in list(&dir) {
                assert_eq!(fs::read_to_string(dir.join(file)).expect("is read"), layer.id().as_str());
            }
        }
    }
    store
}

/// Does something to a copy of a store once for each system call that it makes, and is killed before that one. Gives how many there were.
pub(crate) fn killed_before_every_call(
    place: &Place,
    watched: &[i64],
    prepare: impl Fn(&LayerStore),
    work: impl Fn(&Path) + Sync,
    check: impl Fn(&LayerStore, bool),
) -> usize {
    killed_and_looked_at(place, watched, (prepare, |_: &Path| {}), work, check)
}

/// The same, with a look at what is there after the kill and before anybody opens it.
pub(crate) fn killed_and_looked_at(
    place: &Place,
    watched: &[i64],
    (prepare, look): (impl Fn(&LayerStore), impl Fn(&Path)),
    work: impl Fn(&Path) + Sync,
    check: impl Fn(&LayerStore, bool),
) -> usize {
    for nth in 0.. {
        let path = place.layer(&format!("store {nth}"), &[]);
        prepare(&reopened(&path, place.form));
        let fault = Fault { who: Who::Child, nth, action: Action::Kill };
        let (calls, done) = Watch::only(watched).inject(fault, || ended(start(|| work(&path))));
        assert_eq!(done, !calls.iter().any(|call| call.fault.is_some()));
        look(&path);
        check(&opened_again(&path, place.form), done);
        fs::remove_dir_all(&path).expect("is removed");
        if done {
            return nth;
        }
    }
    unreachable!("it ends")
}

fn publishing(form: Form, policy: SyncPolicy) {
    let place = Place::new(form);
    let x = owner("x");
    let work = |path: &Path| publish(&reopened(path, form).sync_policy(policy), &x, "top", Some("base"));
    let calls = killed_before_every_call(
        &place,
        CHANGES,
        |store| publish(store, &x, "base", None),
        work,
        |store, done| {
            let found = names(store);
            assert!(found == ["base", "top"] || (!done && found == ["base"]), "{found:?}");
            for layer in &found {
                assert_eq!(store.owners(&id(layer)).expect("is there"), std::slice::from_ref(&x));
            }
            // And it can be done again.
            if !found.contains(&"top".into()) {
                publish(store, &x, "top", Some("base"));
            }
        },
    );
    assert!(calls > 60, "{calls}");
}

pub(crate) fn killed_anywhere_in_publishing_without_a_sync(form: Form) {
    publishing(form, SyncPolicy::None);
}

pub(crate) fn killed_anywhere_in_publishing_with_syncfs(form: Form) {
    publishing(form, SyncPolicy::Filesystem);
}

pub(crate) fn killed_anywhere_in_publishing_with_fsync(form: Form) {
    publishing(form, SyncPolicy::PerFile);
}

pub(crate) fn killed_anywhere_in_collecting(form: Form) {
    let place = Place::new(form);
    let (live, dead) = (owner("live"), owner("dead"));
    killed_before_every_call(
        &place,
        CHANGES,
        |store| {
            publish(store, &live, "base", None);
            publish(store, &dead, "middle", Some("base"));
            publish(store, &dead, "top", Some("middle"));
            drop(store.stage(&dead).expect("is made"));
        },
        |path| {
            LayerStore::open(crate::support::open(path), form).expect("opens").gc([&live]).expect("works");
        },
        |store, done| {
            let found = names(store);
            let expected = [&["base"][..], &["base", "middle"], &["base", "middle", "top"]];
            assert!(if done { found == ["base"] } else { expected.iter().any(|e| found == *e) }, "{found:?}");
            assert_eq!(store.owners(&id("base")).expect("is there"), std::slice::from_ref(&live));
            store.gc([&live]).expect("can be done again");
            assert_eq!(names(store), ["base"]);
        },
    );
}

pub(crate) fn killed_anywhere_in_the_very_first_opening(form: Form) {
    let place = Place::new(form);
    for nth in 0.. {
        let path = place.layer(&format!("store {nth}"), &[]);
        let fault = Fault { who: Who::Child, nth, action: Action::Kill };
        let (_, done) = Watch::only(CHANGES).inject(fault, || ended(start(|| drop(reopened(&path, form)))));
        publish(&opened_again(&path, form), &owner("x"), "x", None);
        if done {
            break;
        }
    }
}

/// A container is there as a whole or not at all, and so is what is committed of it.
pub(crate) fn killed_anywhere_in_the_life_of_a_container(form: Form) {
    let place = Place::new(form);
    let x = owner("x");
    let spec = ContainerSpec::new().init(InitLayer::usual());
    let work = |path: &Path| {
        let store = reopened(path, form);
        let container = store.prepare(&x, Some(&id("base")), &spec).unwrap_or_else(|e| panic!("{e}"));
        let root = crate::support::Merged(container.mount().unwrap_or_else(|e| panic!("{e}")));
        for i in 0..FILES {
            fs::write(root.path("dir").join(i.to_string()), "top").expect("is written");
        }
        container.commit(&id("top")).unwrap_or_else(|e| panic!("{e}"));
        drop(root);
        container.discard().unwrap_or_else(|e| panic!("{e}"));
    };
    let calls = killed_before_every_call(
        &place,
        STATES,
        |store| publish(store, &owner("image"), "base", None),
        work,
        |store, done| {
            assert!(!done || (names(store) == ["base", "top"] && store.containers().unwrap().is_empty()));
            match store.container(&x, AfterVolatile::Refuse).unwrap_or_else(|e| panic!("{e}")) {
                Some(container) => {
                    let root = crate::support::Merged(container.mount().unwrap_or_else(|e| panic!("{e}")));
                    assert_eq!(root.list(""), ["dev", "dir", "etc", "proc", "sys"]);
                    drop(root);
                    container.discard().unwrap_or_else(|e| panic!("{e}"));
                }
                None => drop(store.prepare(&x, Some(&id("base")), &spec).unwrap_or_else(|e| panic!("{e}"))),
            }
            store.gc([]).expect("works");
            assert!(names(store).is_empty() && store.containers().unwrap().is_empty());
        },
    );
    assert!(calls > 60, "{calls}");
}

/// What the process to be killed does for ever: it tells each layer that is published, and each owner that is given up *before* that.
fn publish_and_collect(path: &Path, form: Form, seed: u64, mut tell: impl FnMut(&str)) {
    let mut random = Random::new(seed);
    let policies = [SyncPolicy::None, SyncPolicy::None, SyncPolicy::None, SyncPolicy::PerFile];
    let keep = owner("keep");
    for round in 0.. {
        let policy = policies[usize::try_from(random.below(4)).expect("small")];
        let store = reopened(path, form).sync_policy(policy);
        let (name, on_it) = (format!("{seed}-{round}"), format!("{seed}-{round}-on-it"));
        publish(&store, &keep, &name, None);
        tell(&name);
        publish(&store, &owner("brief"), &on_it, Some(&name));
        if random.below(3) == 0 {
            store.gc([&keep]).expect("works");
        }
    }
}

/// With `COFFERDAM_TEST_LONG` ten times as many.
pub(crate) fn killed_at_random_moments(form: Form) {
    let place = Place::new(form);
    let path = place.layer("store", &[]);
    let times = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { 5000 } else { 500 };
    let mut random = Random::new(7);
    let mut published = 0;
    for round in 1..=times {
        let (mut told, tell) = std::io::pipe().expect("a pipe");
        let seed = round;
        let mut writer = tell.try_clone().expect("a copy");
        let child = start(|| {
            publish_and_collect(&path, form, seed, |name| writeln!(writer, "{name}").expect("is written"));
        });
        drop((tell, writer));
        std::thread::sleep(Duration::from_micros(random.below(12_000)));
        kill(child, Signal::SIGKILL).expect("is killed");
        assert!(!ended(child));
        let mut lines = String::new();
        told.read_to_string(&mut lines).expect("is read");
        let store = opened_again(&path, form);
        let found = names(&store);
        // Nothing that was published is lost.
        let promised: Vec<&str> = lines.lines().collect();
        for name in &promised {
            assert!(found.iter().any(|f| f == name), "{name} is lost in round {round}: {found:?}");
        }
        published += promised.len();
        store.gc([]).expect("works");
        assert!(names(&store).is_empty());
    }
    assert!(published > 50, "only {published} layers were published in {times} rounds");
}

/// Several processes with several threads publish, take, mount nothing, give up and collect: what somebody needs is there, and whole.
pub(crate) fn two_processes_and_eight_threads(form: Form) {
    const LAYERS: u64 = 12;
    let place = Place::new(form);
    let path: PathBuf = place.layer("store", &[]);
    drop(reopened(&path, form));
    let rounds = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { 2000 } else { 60 };
    let owners: Vec<Owner> = (0..16).map(|n| owner(&format!("thread-{n}"))).collect();
    let work = |number: usize| {
        let store = reopened(&path, form);
        let (mut random, me) = (Random::new(number as u64), &owners[number]);
        for round in 0..rounds {
            let top = random.below(LAYERS) + 1;
            // Layer n stands on n/2: take or make all that it needs, from the lowest up.
            let mut line: Vec<u64> = std::iter::successors(Some(top), |n| (*n > 1).then_some(n / 2)).collect();
            line.reverse();
            for n in &line {
                let parent = (*n > 1).then(|| id(&(n / 2).to_string()));
                if store.acquire(&id(&n.to_string()), me).unwrap_or_else(|e| panic!("{e}")).is_none() {
                    let stage = store.stage(me).unwrap_or_else(|e| panic!("{e}"));
                    fs::write(path_of(&stage).join("file"), n.to_string()).expect("is written");
                    let taken = stage.publish_or_take(&id(&n.to_string()), parent.as_ref());
                    taken.unwrap_or_else(|e| panic!("{e}"));
                }
            }
            let chain = store.chain(&id(&top.to_string())).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(chain.len(), line.len());
            for (layer, n) in chain.iter().zip(line.iter().rev()) {
                let content = fs::read_to_string(path_of(layer).join("file")).expect("is whole");
                assert_eq!(content, n.to_string());
            }
            store.release_all(me).unwrap_or_else(|e| panic!("{e}"));
            if round % 3 == number % 3 {
                store.gc(&owners).unwrap_or_else(|e| panic!("{e}"));
            }
            if round % 7 == 0 {
                drop(reopened(&path, form));
            }
        }
    };
    let process = |first: usize| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (first..first + 8).map(|number| scope.spawn(move || work(number))).collect();
            for thread in threads {
                thread.join().expect("all is well");
            }
        });
    };
    let processes = [0, 8].map(|first| start(|| process(first)));
    for child in processes {
        assert!(ended(child));
    }
    let store = opened_without_files(&path, form);
    store.gc([]).expect("works");
    assert!(names(&store).is_empty());
    assert!(list(path.join("layers")).is_empty());
}

fn opened_without_files(path: &Path, form: Form) -> LayerStore {
    let store = reopened(path, form);
    assert_eq!(store.check().unwrap_or_else(|e| panic!("{e}")), []);
    store
}
