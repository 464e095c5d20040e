//! Looking into a tree that wants to lead us out of it.

use crate::support::{Place, list, open};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use cofferdam_unionfs::{Error, ErrorKind, Form, Operation, RootDir};
use nix::sys::stat::{Mode, SFlag, mknod};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A root with a file in it, and beside it one that nobody may reach.
fn place(form: Form) -> (Place, PathBuf, RootDir) {
    let place = Place::new(form);
    let root = place.layer("root", &[("etc/passwd", "inside"), ("dir/file", "file")]);
    place.layer("outside", &[("etc/passwd", "outside"), ("passwd", "outside")]);
    fs::write(place.path().join("passwd"), "outside").expect("is written");
    let dir = RootDir::new(open(&root));
    (place, root, dir)
}

fn read(root: &RootDir, path: &str) -> Result<String, Error> {
    root.read(path, 100).map(|content| String::from_utf8(content).expect("UTF-8"))
}

pub(crate) fn links_lead_back_inside(form: Form) {
    let (place, path, root) = place(form);
    let outside = place.path().join("outside");
    for (number, target) in [
        "/etc/passwd",
        "etc/passwd",
        "../../../../../../../../etc/passwd",
        "/../etc/../dir/../../etc/passwd",
        "dir/../etc/passwd",
        "/link-to-etc/passwd",
    ]
    .iter()
    .enumerate()
    {
        symlink(target, path.join(format!("{number}"))).expect("is made");
        if number == 0 {
            symlink("/etc", path.join("link-to-etc")).expect("is made");
        }
        assert_eq!(read(&root, &format!("{number}")).unwrap_or_else(|e| panic!("{target}: {e}")), "inside");
    }
    for path in
        ["etc/passwd", "/etc/passwd", "//etc//passwd", "../etc/passwd", "/../../etc/passwd", "dir/../etc/passwd"]
    {
        assert_eq!(read(&root, path).unwrap_or_else(|e| panic!("{path}: {e}")), "inside");
    }
    // Without the defence each of these is led outside.
    symlink(outside.join("passwd"), path.join("absolute")).expect("is made");
    symlink("../outside/passwd", path.join("upwards")).expect("is made");
    symlink(&outside, path.join("dir/link")).expect("is made");
    for name in ["absolute", "upwards", "dir/link/passwd"] {
        assert_eq!(fs::read_to_string(path.join(name)).expect("is led astray"), "outside");
        let error = read(&root, name).expect_err("is not inside");
        assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::InRoot), "{error}");
        assert_eq!(error.object(), Some(name.as_ref()));
    }
    symlink("loop", path.join("loop")).expect("is made");
    assert_eq!(read(&root, "loop").expect_err("has no end").raw_os_error(), Some(libc::ELOOP));
}

pub(crate) fn links_of_proc_are_refused(form: Form) {
    let (_place, _, _) = place(form);
    let root = RootDir::new(open("/proc/self"));
    // The defence is off: the link is gone through.
    assert!(fs::metadata("/proc/self/root/proc").is_ok());
    for path in ["root/etc/passwd", "cwd/Cargo.toml", "exe", "fd/0"] {
        assert_eq!(root.metadata(path).expect_err("is a way out").raw_os_error(), Some(libc::ELOOP), "{path}");
    }
    assert!(root.symlink_metadata("exe").expect("is a link").is_symlink());
    assert!(!read(&root, "comm").expect("is a file").is_empty());
}

pub(crate) fn only_files_are_opened(form: Form) {
    let (_place, path, root) = place(form);
    mknod(&path.join("fifo"), SFlag::S_IFIFO, Mode::S_IRWXU, 0).expect("is made");
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).expect("is made");
    // Not one of them is waited for.
    for name in ["fifo", "socket", "etc", "."] {
        let error = root.open(name).expect_err("is no ordinary file");
        assert_eq!((error.kind(), error.object()), (ErrorKind::InvalidInput, Some(name.as_ref())), "{error}");
    }
    assert!(root.metadata("fifo").expect("is seen").file_type().is_fifo());
    assert_eq!(root.metadata("/").expect("is seen").ino(), root.metadata("").expect("is seen").ino());
    assert_eq!(read(&root, "none").expect_err("is not there").kind(), ErrorKind::NotFound);
    assert_eq!(read(&root, "etc/passwd/x").expect_err("is not there").kind(), ErrorKind::NotFound);

    assert_eq!(root.read("etc/passwd", 6).expect("fits"), b"inside");
    assert_eq!(root.read("etc/passwd", 5).expect_err("is longer").kind(), ErrorKind::LimitReached);
    let etc = root.open_dir("etc").expect("is a directory");
    assert_eq!(read(&etc, "../../passwd").expect("is its own root"), "inside");
    assert_eq!(root.open_dir("etc/passwd").expect_err("is a file").kind(), ErrorKind::NotFound);
    let mut file = root.open("/etc/passwd").expect("is a file");
    assert!(file.write(b"x").is_err(), "it is open for reading only");
    let mut content = String::new();
    file.read_to_string(&mut content).expect("is read");
    assert_eq!(content, "inside");
}

pub(crate) fn what_is_made_is_made_inside(form: Form) {
    let (place, path, root) = place(form);
    let outside = place.path().join("outside");
    symlink(&outside, path.join("out")).expect("is made");
    symlink("/dir", path.join("in")).expect("is made");
    symlink(outside.join("new"), path.join("dangling")).expect("is made");
    root.create("in/new", 0o640).expect("is made").write_all(b"new").expect("is written");
    root.create_dir("/in/../dir/sub", 0o750).expect("is made");
    assert_eq!(list(path.join("dir")), ["file", "new", "sub"]);
    assert_eq!(fs::metadata(path.join("dir/new")).expect("is there").mode() & 0o7777, 0o640);
    assert_eq!(read(&root, "dir/new").expect("is read"), "new");

    assert_eq!(root.create("out/new", 0o600).expect_err("is outside").kind(), ErrorKind::NotFound);
    for name in ["dangling", "etc/passwd", "in"] {
        assert_eq!(root.create(name, 0o600).expect_err("is there").kind(), ErrorKind::AlreadyExists);
        assert_eq!(root.create_dir(name, 0o700).expect_err("is there").kind(), ErrorKind::AlreadyExists);
    }
    for name in ["", "/", ".", "..", "etc/..", "etc/.", "new/", "etc/new/"] {
        assert_eq!(root.create(name, 0o600).expect_err("has no name").kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    assert_eq!(root.read_link("in").expect("is a link"), PathBuf::from("/dir"));
    assert_eq!(root.read_link("out").expect("is a link"), outside);
    assert_eq!(root.read_link("dir").expect_err("is no link").kind(), ErrorKind::NotFound);
    assert_eq!(list(&outside), ["etc", "passwd"]);
}

/// Where a rename elsewhere makes the kernel ask for another try, it gets one, and others; but not for ever.
pub(crate) fn what_races_is_tried_again(form: Form) {
    let (_place, _, root) = place(form);
    let watch = Watch::only(&[libc::SYS_openat2]);
    let again = |nth| Fault { who: Who::Parent, nth, action: Action::Errno(libc::EAGAIN) };
    let (calls, content) = watch.inject(again(0), || read(&root, "etc/passwd"));
    assert_eq!((calls.len(), content.unwrap_or_else(|e| panic!("{e}")).as_str()), (2, "inside"));
    let (calls, content) = watch.inject(again(Fault::EVERY), || read(&root, "etc/passwd"));
    let error = content.expect_err("it never ends");
    assert_eq!((error.raw_os_error(), error.system_call()), (Some(libc::EAGAIN), Some("openat2")), "{error}");
    assert!((10..10_000).contains(&calls.len()), "{} attempts", calls.len());
}

/// Somebody swaps a directory for a link that leads outside, and moves another one up and down, all the while.
pub(crate) fn a_race_is_not_lost(form: Form) {
    let (place, path, root) = place(form);
    symlink(place.path().join("outside"), path.join("swapped")).expect("is made");
    fs::create_dir_all(path.join("a/b")).expect("is made");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let swap = |a: &str, b: &str| {
                    renameat_with(CWD, path.join(a), CWD, path.join(b), RenameFlags::EXCHANGE).expect("are swapped");
                };
                swap("etc", "swapped");
                fs::rename(path.join("a/b"), path.join("b")).expect("is moved");
                fs::rename(path.join("b"), path.join("a/b")).expect("is moved");
            }
        });
        let (mut inside, mut refused, mut astray) = (0, 0, 0);
        for _ in 0..20_000 {
            match read(&root, "etc/passwd") {
                Ok(content) => {
                    assert_eq!(content, "inside");
                    inside += 1;
                }
                Err(error) => {
                    assert!([ErrorKind::NotFound, ErrorKind::Os].contains(&error.kind()), "{error}");
                    refused += 1;
                }
            }
            // With the defence off.
            let file = File::open(path.join("etc/passwd")).map(std::io::read_to_string);
            astray += usize::from(file.is_ok_and(|content| content.expect("is read") == "outside"));
            // Up and down again, while b is moved: never above the root.
            if let Ok(content) = read(&root, "a/b/../../../etc/passwd") {
                assert_eq!(content, "inside");
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(inside > 0 && refused > 0 && astray > 0, "{inside} inside, {refused} refused, {astray} astray");
    });
}
