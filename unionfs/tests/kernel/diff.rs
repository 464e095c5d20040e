//! What a writable layer changes: told, applied to what is below, and compared with what the mount shows.

use crate::model::random_layers;
use crate::support::{Place, Random, cases, list, mounted, open};
use crate::tree::{NAMES, XATTR, set_xattr};
use cofferdam_testkit::union::{Facts, Seen, facts_behind};
use cofferdam_unionfs::{
    AfterVolatile, ChangeKind, Diff, DiffMethod, ErrorKind, Form, Overlay, RedirectDir, WritableLayer,
};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn told(diff: &Diff) -> Vec<String> {
    let sign = |kind| match kind {
        ChangeKind::Added => '+',
        ChangeKind::Modified => '*',
        ChangeKind::Deleted => '-',
    };
    let tell = |change: &cofferdam_unionfs::Change| {
        let link = change.link_to.as_ref().map(|to| format!(" = {}", to.display())).unwrap_or_default();
        let opaque = if change.opaque { " alone" } else { "" };
        format!("{}{}{opaque}{link}", sign(change.kind), change.path.display())
    };
    diff.changes().iter().map(tell).collect()
}

pub(crate) fn every_sort_of_change(form: Form) {
    let place = Place::new(form);
    let files = ["changed", "gone", "same", "dir/gone", "dir/same", "whole/x", "fresh/x", "fresh/y", "deep/er/still/x"];
    let lower = place.layer("lower", &files.map(|f| (f, f)));
    let (writable, upper) = place.writable();
    fs::set_permissions(&lower, fs::Permissions::from_mode(0o711)).expect("chmod");
    let overlay = place.overlay(&[&lower]).writable(&writable);
    assert_eq!(told(&overlay.diff().unwrap_or_else(|e| panic!("{e}"))), ["*"], "the root's mode");

    let merged = mounted(&overlay);
    let path = |name| merged.path(name);
    fs::write(path("changed"), "x").expect("is written");
    fs::remove_file(path("gone")).expect("is removed");
    fs::remove_file(path("dir/gone")).expect("is removed");
    fs::remove_dir_all(path("whole")).expect("is removed");
    fs::remove_dir_all(path("fresh")).expect("is removed");
    fs::create_dir(path("fresh")).expect("is made");
    fs::write(path("fresh/z"), "").expect("is written");
    fs::create_dir(path("new")).expect("is made");
    fs::write(path("new/file"), "").expect("is written");
    fs::hard_link(path("new/file"), path("new/link")).expect("is linked");
    symlink("x", path("new/symlink")).expect("is made");
    fs::write(path("deep/er/still/x"), "y").expect("is written");
    fs::write(path("brief"), "").expect("is written");
    fs::remove_file(path("brief")).expect("is removed");
    drop(merged);
    let diff = overlay.diff().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(diff.method(), DiffMethod::Upper);
    assert_eq!(
        told(&diff),
        [
            "*",
            "*changed",
            "*deep/er/still/x",
            "*dir",
            "-dir/gone",
            "*fresh alone",
            "+fresh/z",
            "-gone",
            "+new",
            "+new/file",
            "+new/link = new/file",
            "+new/symlink",
            "-whole",
        ]
    );
    assert!(list(&upper).contains(&"gone".into()), "a whiteout");
    let gone = diff.changes().iter().find(|change| change.kind == ChangeKind::Deleted).expect("one");
    assert!(diff.open(gone).is_ok() || form == Form::User, "the whiteout itself");
    let error = place.overlay(&[&lower]).diff().expect_err("has no upper");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// What is seen, but for times, which the applying below keeps of files only.
fn seen(root: &Path, form: Form) -> Seen {
    let seen = cofferdam_testkit::union::seen(root, form);
    seen.into_iter().map(|(path, facts)| (path, facts.without_time())).collect()
}

fn remove(path: &Path) {
    let Ok(data) = fs::symlink_metadata(path) else { return };
    if data.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("is removed");
}

/// Gives `to` what there is to know of `from`, its names and, of a directory, its content aside.
fn copy(from: &Path, data: &Facts, to: &Path) {
    if data.kind != 'd' || !to.is_dir() || to.is_symlink() {
        remove(to);
    }
    match data.kind {
        'd' => fs::create_dir(to).or_else(|e| if to.is_dir() { Ok(()) } else { Err(e) }).expect("is made"),
        'l' => symlink(OsStr::from_bytes(&data.content), to).expect("is made"),
        'p' => nix::unistd::mkfifo(to, nix::sys::stat::Mode::S_IRUSR).expect("is made"),
        _ => fs::write(to, &data.content).expect("is written"),
    }
    if data.kind != 'l' {
        fs::set_permissions(to, fs::Permissions::from_mode(data.mode)).expect("chmod");
    }
    match data.xattrs.get(OsStr::new(XATTR)) {
        Some(value) => set_xattr(to, value),
        None => _ = rustix::fs::lremovexattr(to, XATTR),
    }
    if data.kind == 'f' {
        let time = fs::metadata(from).expect("is there").modified().expect("a time");
        File::open(to).and_then(|file| file.set_modified(time)).expect("is set");
    }
}

/// Makes a copy of a tree, with its hard links.
fn copy_tree(from: &Path, to: &Path, form: Form) {
    for (path, facts) in seen(from, form) {
        match &facts.link {
            Some(first) if *first != path => fs::hard_link(to.join(first), to.join(path)).expect("is linked"),
            _ => copy(&from.join(&path), &facts, &to.join(&path)),
        }
    }
}

fn apply(diff: &Diff, to: &Path) {
    for change in diff.changes() {
        let target = to.join(&change.path);
        match (&change.link_to, change.kind) {
            (_, ChangeKind::Deleted) => remove(&target),
            (Some(first), _) => {
                remove(&target);
                fs::hard_link(to.join(first), target).expect("is linked");
            }
            (None, _) => {
                let source = diff.open(change).unwrap_or_else(|e| panic!("{e}"));
                let link = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
                if change.opaque {
                    remove(&target);
                }
                if rustix::fs::fstat(&source).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFLNK) {
                    let to = rustix::fs::readlinkat(&source, "", Vec::new()).expect("is read").into_bytes();
                    remove(&target);
                    symlink(std::ffi::OsString::from_vec(to), target).expect("is made");
                } else {
                    copy(&link, &facts_behind(&link), &target);
                }
            }
        }
    }
}

/// Whoever opens a fifo to write to it waits for a reader.
fn write_unless_fifo(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path)?.write_all(b"new")
}

/// Does random things to a merged tree. What is not possible (a directory that would have to be moved across layers) is left out.
pub(crate) fn change_at_random(random: &mut Random, root: &Path, form: Form) {
    for _ in 0..random.below(8) {
        let paths: Vec<PathBuf> = seen(root, form).into_keys().collect();
        let some =
            |random: &mut Random| root.join(&paths[usize::try_from(random.below(paths.len() as u64)).expect("small")]);
        let (one, other) = (some(random), some(random));
        let new = other.join(OsStr::from_bytes(random.pick(NAMES)));
        let is_file = fs::symlink_metadata(&one).is_ok_and(|d| d.is_file());
        let _: io::Result<()> = match random.below(9) {
            0 if is_file => fs::write(&one, random.below(1000).to_string()),
            1 if is_file => fs::set_permissions(&one, fs::Permissions::from_mode(0o604)),
            2 => write_unless_fifo(&new),
            3 => fs::create_dir(&new),
            // Not all directories can be removed: the kernel counts whiteouts that it does not show.
            4 if one != *root => fs::remove_dir_all(&one)
                .or_else(|_| fs::remove_file(&one))
                .and_then(|()| if random.percent(50) { fs::create_dir(&one) } else { Ok(()) }),
            5 => symlink("anywhere", &new),
            6 if is_file => fs::hard_link(&one, &new),
            7 if one != *root => fs::rename(&one, &new),
            8 if is_file => {
                set_xattr(&one, b"changed");
                Ok(())
            }
            _ => Ok(()),
        };
    }
}

fn random_changes(form: Form, usual: u64, options: impl Fn(Overlay, &mut Random) -> Overlay) -> [usize; 2] {
    let place = Place::new(form);
    let mut methods = [0, 0];
    for case in 0..cases(usual) {
        let mut random = Random::new(case + 1_000_000);
        let count = random.below(3) + 1;
        let layers = random_layers(&place, &mut random, count);
        let paths: Vec<_> = layers.iter().map(|(path, _)| path).collect();
        let (writable, upper) = place.writable();
        let overlay = options(place.overlay(&paths), &mut random).writable(&writable);
        let merged = mounted(&overlay);
        // Twice, so that what was in the upper before is changed as well.
        change_at_random(&mut random, &merged.path(""), form);
        change_at_random(&mut random, &merged.path(""), form);
        drop(merged);
        // Seen anew: a mount in use shows names as one file that will not be when they are looked up again, and the other way round.
        let expected = seen(&mounted(&overlay).path(""), form);

        let below = place.layer("below", &[]);
        copy_tree(&mounted(&place.overlay(&paths)).path(""), &below, form);
        let diff = overlay.diff().unwrap_or_else(|e| panic!("case {case}: {e}"));
        methods[usize::from(diff.method() == DiffMethod::Comparison)] += 1;
        apply(&diff, &below);
        assert_eq!(seen(&below, form), expected, "case {case}: {:#?}\n{layers:#?}", diff.changes());
        drop((diff, overlay, writable));
        for folder in ["layers", "below"] {
            fs::remove_dir_all(place.path().join(folder)).expect("is removed");
        }
        WritableLayer::remove(open(upper.parent().expect("a parent"))).expect("is removed");
    }
    methods
}

pub(crate) fn random_changes_can_be_applied(form: Form) {
    let [upper, comparison] = random_changes(form, 100, |overlay, _| overlay);
    assert!(upper > 10 && comparison == 0, "{upper} by the upper, {comparison} by comparison");
}

pub(crate) fn random_changes_with_an_index_can_be_applied(form: Form) {
    let [upper, comparison] = random_changes(form, 60, |overlay, _| overlay.index(true));
    // With user.* attributes the kernel keeps no index, whatever is asked for.
    let expected = comparison > 0 || form == Form::User;
    assert!(upper > 5 && expected, "{upper} by the upper, {comparison} by comparison");
}

/// With an index a file stays one under all its names, also when the only name that the upper ever had is gone.
pub(crate) fn a_write_by_a_name_that_is_gone_is_found() {
    let place = Place::new(Form::Trusted);
    let lower = place.layer("lower", &[("a", "before"), ("c", "")]);
    fs::hard_link(lower.join("a"), lower.join("b")).expect("is linked");
    let (writable, _) = place.writable();
    let overlay = place.overlay(&[&lower]).index(true).writable(&writable);
    let merged = mounted(&overlay);
    fs::write(merged.path("c"), "x").expect("is written");
    drop(merged);
    assert_eq!(
        overlay.diff().unwrap_or_else(|e| panic!("{e}")).method(),
        DiffMethod::Upper,
        "nothing of several names"
    );

    let merged = mounted(&overlay);
    fs::write(merged.path("b"), "after").expect("is written");
    fs::remove_file(merged.path("b")).expect("is removed");
    assert_eq!(fs::read_to_string(merged.path("a")).expect("is read"), "after");
    drop(merged);
    let diff = overlay.diff().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(told(&diff), ["*", "*a", "-b", "*c"]);
    assert_eq!(diff.method(), DiffMethod::Comparison);
}

/// As real root only: the kernel wants `trusted.*` attributes for that.
pub(crate) fn random_changes_with_redirects_can_be_applied() {
    let [upper, comparison] = random_changes(Form::Trusted, 60, |overlay, random| {
        overlay.redirect_dir(RedirectDir::On).metacopy(random.percent(50))
    });
    assert!(upper > 5 && comparison > 5, "{upper} by the upper, {comparison} by comparison");
}

/// Devices, sparse files and special bits are in the upper as they are in the tree.
pub(crate) fn what_changed_can_be_read_whole(form: Form) {
    let place = Place::new(form);
    let lower = place.layer("lower", &[("x", "")]);
    let (writable, upper) = place.writable();
    let overlay = place.overlay(&[&lower]).writable(&writable).volatile();
    let merged = mounted(&overlay);
    let sparse = File::create(merged.path("sparse")).expect("is made");
    sparse.set_len(1 << 30).expect("is set");
    fs::write(merged.path("suid"), "").expect("is written");
    fs::set_permissions(merged.path("suid"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let device = merged.path("device");
    let may = nix::sys::stat::mknod(&device, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, 0x103);
    assert_eq!(may.is_ok(), form == Form::Trusted);
    let diff = overlay.diff().unwrap_or_else(|e| panic!("{e}"));
    for change in diff.changes().iter().filter(|change| change.kind == ChangeKind::Added) {
        let data = File::from(diff.open(change).expect("is opened")).metadata().expect("is seen");
        match change.path.to_str().expect("UTF-8") {
            "sparse" => assert!(data.len() == 1 << 30 && data.blocks() < 64),
            "suid" => assert_eq!(data.mode() & 0o7777, 0o4755),
            other => assert_eq!((other, data.rdev()), ("device", 0x103)),
        }
    }
    drop(merged);
    let layer = WritableLayer::open(open(upper.parent().expect("a parent")), AfterVolatile::Accept);
    layer.unwrap_or_else(|e| panic!("{e}"));
}
