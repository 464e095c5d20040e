//! unpack-image: its two modes, its one line of JSON, and that DEST appears as a whole or stays as it was.

use crate::image::Images;
use std::env::current_exe;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_unpack-image");

pub(crate) const SCRIPT: &str = "/usr/bin/script";

/// For a user who cannot reach the folder that it was built in, testkit/tier has put it beside this program.
fn program() -> PathBuf {
    let beside = current_exe().unwrap().with_file_name("unpack-image");
    if fs::metadata(PROGRAM).is_ok() { PathBuf::from(PROGRAM) } else { beside }
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, source: &str, more: &[&str]) -> Output {
        Command::new(program()).arg(source).arg(self.path("out/dest")).args(more).stdin(Stdio::null()).output().unwrap()
    }

    /// A layer with these entries: `dir/`, `file=content`.
    fn layer(&self, name: &str, entries: &[&str]) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            let (path, content) = entry.split_once('=').unwrap_or((entry, ""));
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(if path.ends_with('/') {
                tar::EntryType::Directory
            } else {
                tar::EntryType::Regular
            });
            header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_000_000_000);
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        let path = self.path(name);
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        path.display().to_string()
    }

    /// What is in the folder that DEST is in.
    fn out(&self) -> Vec<String> {
        names(&self.path("out"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn outcome(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn both_modes_and_json() {
    let place = Place::new();
    let lower = place.layer("lower.tar", &["d/", "d/gone=1", "d/kept=2"]);
    let upper = place.layer("upper.tar", &["d/.wh.gone=", "new=33"]);
    let source = format!("layers:{lower},{upper}");
    let (code, out, err) = outcome(&place.run(&source, &["--json"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        (place.out(), names(&place.path("out/dest"))),
        (vec!["dest".to_owned()], vec!["d".to_owned(), "new".to_owned()])
    );
    assert_eq!(names(&place.path("out/dest/d")), ["kept"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let layers = json["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    let mut keys: Vec<_> = layers[1].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["blob_digest", "bytes", "diff_id", "entries", "opaque_root", "skipped"]);
    assert_eq!((layers[1]["entries"].as_u64(), layers[1]["bytes"].as_u64()), (Some(2), Some(2)));
    assert_eq!(layers[0]["diff_id"], layers[0]["blob_digest"], "a plain layer is its archive");
    assert_eq!(out.lines().count(), 1);

    fs::remove_dir_all(place.path("out/dest")).unwrap();
    // An empty directory is taken.
    fs::create_dir(place.path("out/dest")).unwrap();
    let (code, out, err) = outcome(&place.run(&source, &["--mode", "overlay", "--policy", "strict"]));
    let strict_user = !rustix::process::geteuid().is_root();
    if strict_user {
        // To whom files belong cannot be had exactly.
        assert_eq!(code, Some(1), "{err}");
        let (code, _, err) = outcome(&place.run(&source, &["--mode", "overlay"]));
        assert_eq!(code, Some(0), "{err}");
    } else {
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    }
    assert_eq!(names(&place.path("out/dest")), ["0", "1"]);
    assert_eq!(names(&place.path("out/dest/1/d")), ["gone"], "a whiteout");
    assert_eq!(place.out(), ["dest"]);
}

/// Nothing is left of what was refused, and what was there is as it was.
pub(crate) fn refused_images_leave_nothing() {
    let place = Place::new();
    let good = place.layer("good.tar", &["a=1"]);
    let evil = place.layer("evil.tar", &["b=1", "../evil=1"]);
    let source = format!("layers:{good},{evil}");
    for mode in ["flatten", "overlay"] {
        let (code, out, err) = outcome(&place.run(&source, &["--mode", mode, "--json"]));
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.contains("layer 1") && err.contains("../evil") && err.contains("\"..\""), "{err}");
        assert_eq!(place.out(), [""; 0]);
    }
    fs::create_dir(place.path("out/dest")).unwrap();
    assert_eq!(place.run(&source, &[]).status.code(), Some(1));
    assert_eq!((place.out(), names(&place.path("out/dest")).len()), (vec!["dest".to_owned()], 0));
    // Somebody's files are not touched, whatever is to come there.
    fs::write(place.path("out/dest/mine"), "1").unwrap();
    let (code, _, err) = outcome(&place.run(&format!("layers:{good}"), &[]));
    assert!(code == Some(1) && err.contains("not an empty directory"), "{err}");
    assert_eq!(names(&place.path("out/dest")), ["mine"]);
    for (args, code) in [(&["--mode", "x"][..], 2), (&["--policy"], 2), (&["more"], 2), (&["--help"], 0)] {
        assert_eq!(place.run(&source, args).status.code(), Some(code), "{args:?}");
    }
    assert_eq!(place.run("layers:/nowhere", &[]).status.code(), Some(1));
    assert_eq!(place.run("nonsense", &[]).status.code(), Some(2));
}

pub(crate) fn an_image_of_a_layout() {
    let (images, place) = (Images::new(), Place::new());
    let layout = images.layout();
    let (code, _, err) = outcome(&place.run(&format!("oci:{}:box", layout.display()), &["--json"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(names(&place.path("out/dest/etc")), ["kept", "link", "linked"]);
    assert_eq!(names(&place.path("out/dest/hidden")), ["above"]);
    let (code, _, err) = outcome(&place.run(&format!("oci:{}:nobody", layout.display()), &[]));
    assert!(code == Some(1) && err.lines().count() == 1, "{err}");
}

/// Killed in the middle: DEST is not there.
pub(crate) fn killed_in_the_middle() {
    let place = Place::new();
    let layer = place.layer("layer.tar", &["a=1", "b=2"]);
    // A fifo that never ends: the layer is in the middle for as long as we like.
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let source = format!("layers:{layer},{}", fifo.display());
    let mut child =
        Command::new(program()).arg(source).arg(place.path("out/dest")).stdin(Stdio::null()).spawn().unwrap();
    let mut writer = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
    writer.write_all(&fs::read(&layer).unwrap()[..600]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!place.path("out/dest").exists());
    // What it was working in is a folder that nobody else can enter, and is the user's to remove.
    for name in place.out() {
        assert!(name.starts_with(".unpack-image-"), "{name}");
        assert_eq!(fs::metadata(place.path("out").join(&name)).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(place.path("out").join(&name), Permissions::from_mode(0o700)).unwrap();
    }
}

/// On a terminal there is a bar for each layer, which is full in the end; elsewhere nothing. (`script` is a terminal.)
pub(crate) fn bars_on_a_terminal() {
    let place = Place::new();
    let large = format!("a={}", "x".repeat(3 << 20));
    let (lower, upper) = (place.layer("lower.tar", &[&large]), place.layer("upper.tar", &["b=1"]));
    let command = format!("{} layers:{lower},{upper} {}", program().display(), place.path("out/dest").display());
    let output = Command::new(SCRIPT).args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let (code, out, _) = outcome(&output);
    assert_eq!(code, Some(0), "{out}");
    let full = "#".repeat(40);
    let last = &out[out.rfind("layer   0").unwrap()..];
    assert!(last.contains(&format!("layer   0 [{full}]      3 of 3 MiB")), "{out:?}");
    assert!(last.contains(&format!("layer   1 [{full}]")), "{out:?}");
    assert!(out.contains("\x1b[2A"), "drawn again in place: {out:?}");
    assert_eq!(names(&place.path("out/dest")), ["a", "b"]);
    fs::remove_dir_all(place.path("out/dest")).unwrap();
    assert_eq!(outcome(&place.run(&format!("layers:{lower},{upper}"), &[])), (Some(0), String::new(), String::new()));
}
