//! A small image, made of busybox, and run-image on it.

use crate::support::left_of;
use cofferdam_image::Digest;
use flate2::{Compression, write::GzEncoder};
use rustix::fs::{Access, access};
use std::collections::BTreeMap;
use std::env::current_exe;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_run-image");
const APPLETS: &str =
    "awk cat dd echo grep hostname httpd id ip kill ls mkdir mount ps readlink rm sh sleep stat touch true wget";

/// An OCI layout of two layers and two images, `box` and, with nothing to run, `silent`; and folders for what run-image makes.
///
/// | layer | |
/// |---|---|
/// | lower | `/bin`, `/etc/gone`, `/etc/kept`, `/etc/linked`, `/hidden/below` |
/// | upper | a whiteout of `/etc/gone`, `/etc/link` as a hard link to `/etc/linked`, and `/hidden/above`, where `/hidden` is opaque |
pub(crate) struct Images {
    folder: TempDir,
    program: PathBuf,
}

impl Images {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["tmp", "store"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        write_layout(&folder.path().join("layout"));
        let mut program = PathBuf::from(PROGRAM);
        if access(&program, Access::EXEC_OK).is_err() {
            // For a user who cannot reach the folder that it was built in, testkit/tier has put it beside this program.
            program = current_exe().unwrap().with_file_name("run-image");
        }
        Images { folder, program }
    }

    /// The name of the container, unless it is another. No other test has it.
    pub(crate) fn name(&self) -> String {
        let unique = self.folder.path().file_name().unwrap().to_str().unwrap();
        format!("run-image{}", unique.replace('.', "-"))
    }

    pub(crate) fn layout(&self) -> PathBuf {
        self.folder.path().join("layout")
    }

    /// Where layers and containers are.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store/layers")
    }

    /// `run-image oci:LAYOUT:TAG` with these arguments, separated by spaces, and then `--` and the command.
    pub(crate) fn command_of(&self, tag: &str, args: &str, command: &[&str]) -> Command {
        let mut program = Command::new(&self.program);
        program.arg(format!("oci:{}:{tag}", self.layout().display())).args(["--name", &self.name()]);
        program.arg("--store").arg(self.folder.path().join("store"));
        program.args(args.split_whitespace()).arg("--").args(command);
        program.env("TMPDIR", self.folder.path().join("tmp")).stdin(Stdio::null());
        program
    }

    pub(crate) fn command(&self, args: &str, command: &[&str]) -> Command {
        self.command_of("box", args, command)
    }

    /// As nobody, who has no cgroup even where there are delegated ones.
    pub(crate) fn command_of_nobody(&self, args: &str, command: &[&str]) -> Command {
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(self.folder.path(), 0o755);
        open(&self.folder.path().join("tmp"), 0o777);
        open(&self.folder.path().join("store"), 0o777);
        // A copy: the folder of the program may be closed to others.
        let copy = self.folder.path().join("run-image");
        fs::copy(&self.program, &copy).unwrap();
        let usual = self.command(args, command);
        let mut program = Command::new(copy);
        program.args(usual.get_args()).envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        program.stdin(Stdio::null()).uid(65534).gid(65534);
        program
    }

    pub(crate) fn output(&self, args: &str, command: &[&str]) -> Output {
        self.command(args, command).output().unwrap()
    }

    /// What it says, when all goes well and leaves nothing.
    pub(crate) fn text(&self, args: &str, command: &[&str]) -> String {
        let output = self.output(args, command);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{command:?}: {out}");
        self.assert_nothing_left();
        out
    }

    /// No folder but those of layers, no cgroup, no link.
    pub(crate) fn assert_nothing_left(&self) {
        let files: Vec<_> = fs::read_dir(self.folder.path().join("tmp")).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files, [""; 0].map(PathBuf::from));
        assert_eq!(self.in_store("containers"), 0);
        assert_eq!(self.in_store("staging") + self.in_store("trash"), 0);
        assert_eq!(left_of(&self.name()), [""; 0]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(links(), ["lo"], "the test has a network namespace of its own");
        }
    }

    /// How many things are in a folder of the store.
    pub(crate) fn in_store(&self, folder: &str) -> usize {
        fs::read_dir(self.store().join(folder)).map_or(0, Iterator::count)
    }

    /// All files of the layout.
    pub(crate) fn layout_digests(&self) -> BTreeMap<PathBuf, Digest> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.layout()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), Digest::of(&fs::read(path).unwrap()));
                }
            }
        }
        found
    }
}

/// The network links that a process of this test sees.
pub(crate) fn links() -> Vec<String> {
    let lines = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    lines.lines().skip(2).map(|line| line.split(':').next().unwrap().trim().to_owned()).collect()
}

fn write_layout(layout: &Path) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let descriptor = |sort: &str, bytes: &[u8], more: &str| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        let media = format!("application/vnd.oci.image.{sort}");
        format!(r#"{{"mediaType":"{media}","digest":"{digest}","size":{}{more}}}"#, bytes.len())
    };
    let archives = [lower(), upper()];
    let layers = archives.each_ref().map(|tar| descriptor("layer.v1.tar+gzip", &gzip(tar), ""));
    let ids = archives.each_ref().map(|tar| format!("\"{}\"", Digest::of(tar)));
    let process =
        r#"{"Cmd":["/bin/sh","-c","echo $GREETING from $PWD"],"Env":["GREETING=hello"],"WorkingDir":"/hidden"}"#;
    let manifests = [("box", process), ("silent", "{}")].map(|(tag, process)| {
        let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, ids.join(","));
        let config = format!(r#"{{"os":"linux","config":{process},"rootfs":{rootfs}}}"#);
        let config = descriptor("config.v1+json", config.as_bytes(), "");
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
        let name = format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}"#);
        descriptor("manifest.v1+json", manifest.as_bytes(), &name)
    });
    fs::write(layout.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(",")))
        .unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn lower() -> Vec<u8> {
    let mut tar = Archive::new();
    tar.entry("bin/busybox", EntryType::Regular, 0o755, &fs::read("/bin/busybox").unwrap());
    for applet in APPLETS.split(' ') {
        tar.link(&format!("bin/{applet}"), EntryType::Symlink, "busybox");
    }
    for (name, content) in [("etc/gone", "gone"), ("etc/kept", "kept"), ("etc/linked", "linked"), ("hidden/below", "")]
    {
        tar.entry(name, EntryType::Regular, 0o644, content.as_bytes());
    }
    tar.0.into_inner().unwrap()
}

fn upper() -> Vec<u8> {
    let mut tar = Archive::new();
    for name in ["etc/.wh.gone", "hidden/.wh..wh..opq", "hidden/above"] {
        tar.entry(name, EntryType::Regular, 0o644, b"");
    }
    tar.link("etc/link", EntryType::Link, "etc/linked");
    tar.0.into_inner().unwrap()
}

struct Archive(Builder<Vec<u8>>);

impl Archive {
    /// With the directories that there are in each of the layers.
    fn new() -> Self {
        let mut tar = Archive(Builder::new(Vec::new()));
        for name in ["bin", "etc", "hidden"] {
            tar.entry(name, EntryType::Directory, 0o755, b"");
        }
        tar
    }

    fn entry(&mut self, name: &str, kind: EntryType, mode: u32, content: &[u8]) {
        self.0.append_data(&mut header(kind, mode, content.len()), name, content).unwrap();
    }

    fn link(&mut self, name: &str, kind: EntryType, target: &str) {
        self.0.append_link(&mut header(kind, 0o644, 0), name, target).unwrap();
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
