//! commit-image: a base, a tree in which its files were changed, and the image that this makes: always the same one.

use cofferdam_image::{Draft, Image, LayoutWriter, Selection};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const COMMIT: &str = env!("CARGO_BIN_EXE_commit-image");
const UNPACK: &str = env!("CARGO_BIN_EXE_unpack-image");

struct Place {
    folder: TempDir,
}

impl Place {
    /// With a layout that has the image `base`, of one layer.
    fn new() -> Self {
        let place = Place { folder: TempDir::new().unwrap() };
        let (root, layout) = (place.path("base"), place.path("layout"));
        for dir in ["bin", "etc", "old/inner"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (path, content) in [("bin/tool", "1"), ("etc/kept", "2"), ("etc/gone", "3"), ("old/inner/file", "4")] {
            fs::write(root.join(path), content).unwrap();
        }
        fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::create_dir(&layout).unwrap();
        let writer = LayoutWriter::open(File::open(&layout).unwrap()).unwrap();
        let builder = cofferdam_image::LayerBuilder::new().not_after(1_000_000_000);
        let layer = writer.layer(|to| builder.tree(File::open(&root).unwrap(), to)).unwrap();
        Draft::empty("amd64")
            .layer(&layer, "the base")
            .env("A", "1")
            .cmd(["/bin/tool"])
            .write(&writer, "base")
            .unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The base's files, changed, in one order or the other.
    fn changed(&self, name: &str, backwards: bool) -> PathBuf {
        let tree = self.path(name);
        self.unpack("base", &tree);
        let steps: [&dyn Fn(); 4] = [
            &|| fs::remove_file(tree.join("etc/gone")).unwrap(),
            &|| {
                fs::remove_dir_all(tree.join("old")).unwrap();
                symlink("etc", tree.join("old")).unwrap();
            },
            &|| fs::write(tree.join("etc/new"), "5").unwrap(),
            &|| fs::write(tree.join("etc/newer"), "6").unwrap(),
        ];
        let order = if backwards { [3, 2, 1, 0] } else { [0, 1, 2, 3] };
        for step in order {
            steps[step]();
        }
        tree
    }

    fn unpack(&self, tag: &str, dest: &Path) {
        let source = format!("oci:{}:{tag}", self.path("layout").display());
        let output = Command::new(UNPACK).arg(source).arg(dest).args(["--policy", "strict"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// By a user with this umask, somewhere else in the world.
    fn commit(&self, how: (&str, &str), base: &str, tree: &Path, new: &str, more: &[&str]) -> Output {
        let (umask, zone) = how;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask $1; shift; exec \"$@\"", "sh", umask, COMMIT]).arg(self.path("layout"));
        command.arg(base).arg(tree).arg(new).args(more).env("TZ", zone).stdin(Stdio::null()).output().unwrap()
    }

    fn image(&self, name: &str) -> Image {
        let selection = Selection::new().reference(name).platform("linux", "amd64");
        Image::open(self.path("layout"), &selection).unwrap()
    }
}

fn digest(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn files(root: &Path, dir: &Path, found: &mut Vec<String>) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        let mode = meta.permissions().mode();
        if meta.is_dir() {
            found.push(format!("{name}/ {mode:o}"));
            files(root, &path, found);
        } else if meta.is_symlink() {
            found.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else {
            found.push(format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap()));
        }
    }
}

fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    files(root, root, &mut found);
    found
}

pub(crate) fn the_same_changes_give_the_same_image() {
    let place = Place::new();
    let (one, other) = (place.changed("one", false), place.changed("other", true));
    let options = ["--not-after", "1500000000", "--cmd", "/bin/tool", "--cmd", "-v"];
    let first = digest(&place.commit(("022", "UTC"), "base", &one, "new", &options));
    let second = digest(&place.commit(("077", "Asia/Kathmandu"), "base", &other, "again", &options));
    assert_eq!(first, second);
    let (base, image) = (place.image("base"), place.image("new"));
    assert_eq!(first.trim_end(), image.digest().to_string());
    assert_eq!((image.layers().len(), &image.layers()[0]), (2, &base.layers()[0]));
    assert_eq!(image.config().command(), ["/bin/tool", "-v"]);
    assert!(image.config().env().eq([("A", "1")]), "as in the base");
    place.unpack("new", &place.path("unpacked"));
    assert_eq!(listing(&place.path("unpacked")), listing(&one));
    // All in one layer.
    let squashed =
        digest(&place.commit(("022", "UTC"), "base", &one, "squashed", &[&options[..], &["--squash"]].concat()));
    let again =
        digest(&place.commit(("077", "UTC+7"), "base", &other, "squashed", &[&options[..], &["--squash"]].concat()));
    assert_eq!((squashed, place.image("squashed").layers().len()), (again, 1));
    place.unpack("squashed", &place.path("of one"));
    assert_eq!(listing(&place.path("of one")), listing(&one));
    // Nothing changed: still an image of its own, with an empty layer.
    let unchanged = place.path("unchanged");
    place.unpack("base", &unchanged);
    digest(&place.commit(("022", "UTC"), "base", &unchanged, "unchanged", &[]));
    let names = fs::read_dir(place.path("layout")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"], "nothing else is left");
}

pub(crate) fn what_cannot_be_committed() {
    let place = Place::new();
    let tree = place.changed("tree", false);
    let index = fs::read(place.path("layout/index.json")).unwrap();
    let says = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.stdout.is_empty() && text.lines().count() == 1, "{text}");
        (output.status.code(), text)
    };
    let commit = |base: &str, tree: &Path, more: &[&str]| says(&place.commit(("022", "UTC"), base, tree, "new", more));
    let (code, text) = commit("nobody", &tree, &[]);
    assert!(code == Some(1) && text.contains("nobody"), "{text}");
    let (code, text) = commit("base", Path::new("/nowhere"), &[]);
    assert!(code == Some(1) && text.contains("No such file"), "{text}");
    for args in [&["--not-after", "soon"][..], &["--what"], &["one", "more"]] {
        assert_eq!(commit("base", &tree, args).0, Some(2), "{args:?}");
    }
    assert_eq!(fs::read(place.path("layout/index.json")).unwrap(), index, "the layout is as it was");
}
