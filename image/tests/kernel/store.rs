//! Images in a layer store: whole layers or none, each once; and who the image's user is.

use crate::support::{Scratch, Tar, gzip, is_root, lenient, listing};
use cofferdam_image::{Draft, ErrorKind, Image, LayoutWriter, Options, Progress, Selection, User};
use cofferdam_unionfs::{Form, LayerStore, Overlay, Owner, SyncPolicy};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn image(scratch: &Scratch, layers: &[Tar]) -> Image {
    let dir = scratch.stage();
    let writer = LayoutWriter::open(File::open(&dir).unwrap()).unwrap();
    let draft = layers.iter().fold(Draft::empty("amd64"), |draft, layer| {
        draft.layer(&writer.import(&gzip(&layer.clone().end())[..]).unwrap(), "a layer")
    });
    draft.user("app").write(&writer, "image").unwrap();
    Image::open(&dir, &Selection::new().platform("linux", "amd64")).unwrap()
}

pub(crate) fn form() -> Form {
    if is_root() { Form::Trusted } else { Form::User }
}

fn open(dir: &Path) -> LayerStore {
    LayerStore::open(File::open(dir).unwrap(), form()).unwrap()
}

fn content(layer: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", layer.as_fd().as_raw_fd()))
}

fn three() -> [Tar; 3] {
    [Tar::of(&["d/", "d/f=1", "l->d"]), Tar::of(&["l/g=2", "h=>d/f"]), Tar::of(&["d/.wh.f", "new=3"])]
}

pub(crate) fn layers_that_are_there_are_not_unpacked_again() {
    let scratch = Scratch::new();
    let (owner, other) = (Owner::new("image:one").unwrap(), Owner::new("image:two").unwrap());
    let store = open(&scratch.stage());
    let three = three();
    let first = image(&scratch, &three[..2]).unpack_into(&store, &owner, &lenient(), None).unwrap();
    assert_eq!(first.reports.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(listing(&content(&first.layers[1])), ["d/", "d/f=1", "d/g=2", "h=1"]);
    let again = image(&scratch, &three).unpack_into(&store, &other, &lenient(), None).unwrap();
    assert_eq!(again.reports.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
    assert_eq!((again.layers.len(), store.layers().unwrap().len()), (3, 3));
    // The same archive on other layers is another layer: it can mean something else.
    let twice = image(&scratch, &[three[0].clone(), three[0].clone()]);
    let twice = twice.unpack_into(&store, &other, &lenient(), None).unwrap();
    assert_eq!((twice.layers[0].id(), twice.reports.len()), (first.layers[0].id(), 1));
    assert_ne!(twice.layers[1].id(), twice.layers[0].id());
    store.gc(&[owner]).unwrap();
    assert_eq!(store.layers().unwrap().len(), 2);
}

pub(crate) fn an_image_in_a_store_is_mounted() {
    let scratch = Scratch::new();
    let store = open(&scratch.stage());
    let unpacked =
        image(&scratch, &three()).unpack_into(&store, &Owner::new("x").unwrap(), &Options::new(), None).unwrap();
    let root = Overlay::new().lowers(store.chain(unpacked.layers[2].id()).unwrap()).mount().unwrap();
    assert_eq!(listing(&content(&root)), ["d/", "d/g=2", "h=1", "l->d", "new=3"]);
}

/// Without opening the store again, which would clean up.
pub(crate) fn nothing_staged(store: &Path) {
    for folder in ["staging", "trash"] {
        let left: Vec<_> = fs::read_dir(store.join(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}

pub(crate) fn a_failure_leaves_whole_layers_only() {
    let scratch = Scratch::new();
    let dir = scratch.stage();
    let store = open(&dir);
    let owner = Owner::new("x").unwrap();
    let bad = image(&scratch, &[Tar::of(&["a=1"]), Tar::of(&["../evil=1"])]);
    let error = bad.unpack_into(&store, &owner, &lenient(), None).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Refused, Some(1)), "{error}");
    nothing_staged(&dir);
    // Whoever watches can end it.
    let stop: Arc<dyn cofferdam_image::Observer> = Arc::new(|_: Progress| ControlFlow::Break(()));
    let good = image(&scratch, &three());
    let error = good.unpack_into(&store, &owner, &lenient(), Some(stop)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    nothing_staged(&dir);
    for id in store.layers().unwrap() {
        assert_eq!(listing(&content(&store.layer(&id).unwrap().unwrap())), ["a=1"]);
    }
    good.unpack_into(&store, &owner, &lenient(), None).unwrap();
}

pub(crate) fn a_full_disk() {
    let scratch = Scratch::new();
    let disk = scratch.stage();
    let mount = |args: &[&str]| assert!(Command::new("/bin/mount").args(args).arg(&disk).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=2m", "small"]);
    let store = open(&disk);
    let owner = Owner::new("x").unwrap();
    let large = format!("large={}", "x".repeat(3 << 20));
    let image = image(&scratch, &[Tar::of(&["a=1"]), Tar::of(&[&large])]);
    let error = image.unpack_into(&store, &owner, &Options::new(), None).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::NoSpace, Some(1)), "{error}");
    nothing_staged(&disk);
    for id in store.layers().unwrap() {
        assert_eq!(listing(&content(&store.layer(&id).unwrap().unwrap())), ["a=1"]);
    }
    mount(&["-o", "remount,size=16m"]);
    assert_eq!(image.unpack_into(&store, &owner, &Options::new(), None).unwrap().layers.len(), 2);
    drop(store);
    assert!(Command::new("/bin/umount").arg("-l").arg(&disk).status().unwrap().success());
}

/// What the layers of an image are when all is well, and how often an observer is called for them.
fn all_is_well(image: &Image, scratch: &Scratch) -> (Vec<Vec<String>>, usize) {
    let (store, calls) = (open(&scratch.stage()), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let observer = Arc::new(move |_: Progress| {
        counted.fetch_add(1, Ordering::SeqCst);
        ControlFlow::Continue(())
    });
    let unpacked = image.unpack_into(&store, &Owner::new("x").unwrap(), &lenient(), Some(observer)).unwrap();
    (unpacked.layers.iter().map(|layer| listing(&content(layer))).collect(), calls.load(Ordering::SeqCst))
}

/// Whoever watches ends it, by an answer or by a panic, at each of the moments that there are: what was published by then is whole, and nothing else is there.
pub(crate) fn ended_at_any_moment() {
    let scratch = Scratch::new();
    let image = image(&scratch, &three());
    let owner = Owner::new("x").unwrap();
    let (whole, calls) = all_is_well(&image, &scratch);
    let dir = scratch.stage();
    let store = open(&dir).sync_policy(SyncPolicy::None);
    let mut ended = 0;
    for panics in [false, true] {
        for nth in 0..calls {
            let count = AtomicUsize::new(0);
            let observer: Arc<dyn cofferdam_image::Observer> =
                Arc::new(move |_: Progress| match count.fetch_add(1, Ordering::SeqCst) == nth {
                    true if panics => std::panic::resume_unwind(Box::new("an observer")),
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                });
            let unpack = || image.unpack_into(&store, &owner, &lenient(), Some(observer));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(unpack));
            match result {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
                Err(_) => assert!(panics),
            }
            nothing_staged(&dir);
            assert_eq!(store.check().unwrap(), []);
            let layers = store.layers().unwrap();
            for id in &layers {
                let found = listing(&content(&store.layer(id).unwrap().unwrap()));
                assert!(whole.contains(&found), "{id}: {found:?}");
            }
            ended += usize::from(layers.len() < whole.len());
            store.gc(&[]).unwrap();
        }
    }
    assert!(ended >= calls, "only {ended} of {calls} were early enough");
}

/// The lowest layer is bad, and those above, which only wait for it by then, have directories that their owner cannot enter.
pub(crate) fn layers_that_wait_are_removed() {
    let scratch = Scratch::new();
    let locked = (0..3).map(|number| {
        let name = format!("locked{number}");
        let tar = Tar::default().header(b'5', &name, "", b"", |h| h.set_mode(0));
        tar.entry(&format!("{name}/f=1")).entry(&format!("{name}/d/")).entry("h=>nothing-below")
    });
    let layers: Vec<Tar> = [Tar::of(&["a=1", "../evil=1"])].into_iter().chain(locked).collect();
    let dir = scratch.stage();
    let store = open(&dir);
    let error = image(&scratch, &layers).unpack_into(&store, &Owner::new("x").unwrap(), &lenient(), None).unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Refused, Some(0)), "{error}");
    nothing_staged(&dir);
    assert_eq!(store.layers().unwrap(), []);
}

/// `/etc/passwd` of the image, wherever it leads, is the image's.
pub(crate) fn users_are_the_images_own() {
    let scratch = Scratch::new();
    let image = image(&scratch, &[Tar::of(&["f=1"])]);
    let root = scratch.stage();
    let resolve = || image.config().resolve_user(File::open(&root).unwrap());
    assert_eq!(resolve().unwrap_err().kind(), ErrorKind::NotFound, "no files at all");
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(scratch.outside().join("passwd"), "app:x:1:1::/:\n").unwrap();
    for target in
        ["../../outside/passwd", scratch.outside().join("passwd").to_str().unwrap(), "/etc/passwd", "/proc/self/fd/0"]
    {
        symlink(target, root.join("etc/passwd")).unwrap();
        assert!(resolve().is_err(), "{target}");
        fs::remove_file(root.join("etc/passwd")).unwrap();
    }
    fs::create_dir(root.join("real")).unwrap();
    fs::write(root.join("real/passwd"), "app:x:7:8::/srv:\n").unwrap();
    fs::write(root.join("etc/group"), "staff:x:50:app\n").unwrap();
    symlink("../../../../real/passwd", root.join("etc/passwd")).unwrap();
    let User { uid, gid, groups, home, .. } = resolve().unwrap();
    assert_eq!((uid, gid, groups, home.as_deref()), (7, 8, vec![50], Some("/srv")));
}

/// Who watches and panics takes the whole operation with it, not only its own layer: nobody waits for that layer for ever.
pub(crate) fn an_observer_that_panics() {
    let scratch = Scratch::new();
    for layer in 0..3 {
        let observer: Arc<dyn cofferdam_image::Observer> = Arc::new(move |progress: Progress| {
            assert_ne!(progress.layer, layer, "as it should");
            ControlFlow::Continue(())
        });
        let (stage, target) = (scratch.stage(), scratch.stage());
        let layers = image(&scratch, &three()).all_layers(lenient()).unwrap().observer(observer);
        let (scratch_dir, target) = (File::open(stage).unwrap(), File::open(target).unwrap());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layers.flatten(scratch_dir, target)));
        assert!(result.is_err(), "the panic is the caller's");
    }
}

/// Runs something in a process of its own, which is to be killed.
pub(crate) fn start(body: impl FnOnce()) -> Pid {
    #[expect(unsafe_code, reason = "a process to be killed")]
    // SAFETY: the thread is the only one of the test; the child takes no lock that another one may hold.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            std::process::exit(i32::from(result.is_err()));
        }
    }
}

/// Layers with so much in them that a killed program is in the middle of some.
fn several() -> Vec<Tar> {
    let layer = |number: usize| {
        let begin = Tar::of(&[&format!("d{number}/"), &format!("d{number}/f=1")]);
        (0..60).fold(begin, |tar, file| tar.entry(&format!("d{number}/{file}={}", "x".repeat(3000 + file))))
    };
    (0..6).map(layer).chain([Tar::of(&["h=>d0/f", "d1/.wh.f"])]).collect()
}

/// Unpacks in a process of its own, which is killed when its observer is called for the time of this number, from 0, and does not return from that call.
fn killed_at(sign: usize, unpack: impl FnOnce(Arc<dyn cofferdam_image::Observer>)) {
    let (mut life, death) = std::io::pipe().unwrap();
    let child = start(|| {
        let calls = AtomicUsize::new(0);
        unpack(Arc::new(move |_: Progress| {
            if calls.fetch_add(1, Ordering::SeqCst) == sign {
                (&death).write_all(b"x").unwrap();
                loop {
                    std::thread::park();
                }
            }
            ControlFlow::Continue(())
        }));
    });
    let alive = life.read(&mut [0]).unwrap();
    kill(child, Signal::SIGKILL).unwrap();
    let ended = waitpid(child, None).unwrap();
    assert!(alive == 1 && matches!(ended, WaitStatus::Signaled(..)), "it ended before call {sign}: {ended:?}");
}

/// A store whose user is killed while an image is unpacked into it: another one finds whole layers only, and unpacks the rest.
pub(crate) fn killed_at_any_moment() {
    let scratch = Scratch::new();
    let image = image(&scratch, &several());
    let owner = Owner::new("image:killed").unwrap();
    let (whole, signs) = all_is_well(&image, &scratch);
    assert!(signs >= 2 * whole.len(), "at the beginning and the end of each layer, but {signs}");
    let dir = scratch.stage();
    let mut there = 0;
    for sign in 0..signs {
        killed_at(sign, |observer| {
            image.unpack_into(&open(&dir), &owner, &lenient(), Some(observer)).unwrap();
        });
        let store = open(&dir);
        assert_eq!(store.check().unwrap(), []);
        let layers = store.layers().unwrap();
        for id in &layers {
            let found = listing(&content(&store.layer(id).unwrap().unwrap()));
            assert!(whole.contains(&found), "{id}: {found:?}");
        }
        assert!(fs::read_dir(dir.join("staging")).unwrap().next().is_none(), "nothing is left of the others");
        there = layers.len();
        let unpacked = image.unpack_into(&store, &owner, &lenient(), None).unwrap();
        assert!(unpacked.layers.iter().map(|layer| listing(&content(layer))).eq(whole.iter().cloned()));
        drop(unpacked);
        store.gc(&[]).unwrap();
        assert_eq!(store.layers().unwrap(), []);
    }
    // When the last one of them speaks for the last time, four at most are in the making.
    assert!((whole.len() - 4..whole.len()).contains(&there), "{there} layers");
}
