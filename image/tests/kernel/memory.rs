//! How much memory unpacking takes at most, measured: whatever an image is like, and however many of its layers are unpacked at once.

use crate::store::start;
use crate::support::{Scratch, Tar, gzip, lenient, long_path};
use cofferdam_image::test_hooks::{Defence, without};
use cofferdam_image::{Error, ErrorKind, LayerReader, Layers, Limits, Options, Unpacker};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// What a layer may keep here: a quarter of what it may usually, so that it is quick to ask for more.
const KEPT: u64 = 8 << 20;

/// What all of an image may take.
const BOUND: u64 = BUFFERS + KEPT + KEPT / 4;

/// What four layers may take that ask for nothing to be kept: the buffers on their way, and what threads and their allocator need.
const BUFFERS: u64 = 22 << 20;

/// Hostile layers of one kind: what is in a layer, entry by entry.
type Entries = Box<dyn Fn(usize) -> Tar>;

/// The most memory that the process has had since this was last asked, in bytes, beyond what it has now.
fn peak(run: impl FnOnce()) -> u64 {
    let status = |field: &str| -> u64 {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    // Takes back what the highest mark was, proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    run();
    status("VmHWM:").saturating_sub(before)
}

/// A layer of so many entries, on disk.
fn layer(scratch: &Scratch, count: usize, entry: &Entries) -> PathBuf {
    let path = scratch.stage().join("layer.tar");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    for number in 0..count {
        file.write_all(&entry(number).0).unwrap();
    }
    file.write_all(&[0; 1024]).unwrap();
    file.flush().unwrap();
    path
}

fn long(number: usize) -> String {
    format!("{number:08}{}", "x".repeat(80))
}

/// Entries in a directory whose name is long, by way of a symlink.
fn through(name: impl Fn(usize) -> String + 'static) -> Entries {
    Box::new(move |n| match n {
        0 => Tar::default().long_symlink("l", &long_path()),
        n => Tar::of(&[&name(n)]),
    })
}

/// What few bytes of a layer ask to be remembered, as much as there may be of it and more.
fn hostile() -> Vec<(&'static str, usize, Entries)> {
    let attribute = vec![b'v'; 50 << 10];
    let value = vec![b'x'; 900 << 10];
    let records: Vec<(String, Vec<u8>)> =
        (0..1900).map(|n| (format!("SCHILY.xattr.user.overlay.{n}"), vec![b'x'; 100])).collect();
    vec![
        ("directories", 30_000, Box::new(|n| Tar::of(&[&format!("{}/", long(n))]))),
        ("whiteouts", 30_000, Box::new(|n| Tar::of(&[&format!(".wh.{}=", long(n))]))),
        ("links to what comes later", 30_000, Box::new(|n| Tar::of(&[&format!("{}=>{}", long(n), long(n + 1))]))),
        ("whiteouts by way of a symlink", 30_000, through(|n| format!("l/.wh.{n}="))),
        ("opaque directories by way of a symlink", 30_000, through(|n| format!("l/{n}/.wh..wh..opq="))),
        ("what is left out", 30_000, Box::new(|n| Tar::default().raw(b'Z', &long(n), "", b""))),
        (
            "attributes of directories",
            200,
            Box::new(move |n| Tar::default().pax(b'x', &[("SCHILY.xattr.user.a", &attribute)]).entry(&format!("{n}/"))),
        ),
        (
            "headers that mean nothing",
            20,
            Box::new(move |n| Tar::default().pax(b'x', &[("comment", &value)]).entry(&format!("{n}="))),
        ),
        (
            "headers of many records",
            20,
            Box::new(move |n| {
                let records: Vec<(&str, &[u8])> =
                    records.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
                Tar::default().pax(b'g', &records).entry(&format!("{n}="))
            }),
        ),
    ]
}

/// So many layers at a time are unpacked at most.
const LAYERS: usize = 4;

/// Unpacks as many layers of that kind as are unpacked at once, in a process of its own. Says how much memory that took at most, and how it ended.
fn unpack_all(scratch: &Scratch, blob: &Path, defences: &[Defence]) -> (u64, Option<ErrorKind>) {
    let stages: Vec<File> = (0..LAYERS).map(|_| File::open(scratch.stage()).unwrap()).collect();
    measured(|options| {
        let layers = (0..LAYERS).fold(Layers::new(options), |all, _| all.layer(File::open(blob).unwrap()));
        without(defences, || layers.at_a_time(LAYERS).unpack(&stages)).map(drop)
    })
}

/// The same of one layer, of which nothing is known that is below.
fn unpack_alone(scratch: &Scratch, blob: &Path) -> (u64, Option<ErrorKind>) {
    let stage = File::open(scratch.stage()).unwrap();
    measured(|options| Unpacker::new(&stage, options)?.unpack(LayerReader::new(File::open(blob).unwrap())?).map(drop))
}

fn measured(unpack: impl FnOnce(Options) -> Result<(), Error>) -> (u64, Option<ErrorKind>) {
    let (mut read, write) = std::io::pipe().unwrap();
    let child = start(|| {
        let mut result = Ok(());
        let most = peak(|| {
            let mut limits = Limits::default();
            limits.kept_bytes = KEPT;
            result = unpack(lenient().limits(limits));
        });
        let told = match result.map_err(|e| (e.kind(), e.to_string())) {
            Ok(()) => "fine".to_owned(),
            Err((ErrorKind::LimitExceeded, _)) => "too much".to_owned(),
            Err((_, words)) => words,
        };
        write!(&write, "{most} {told}").unwrap();
    });
    drop(write);
    let mut told = String::new();
    read.read_to_string(&mut told).unwrap();
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    let (most, end) = told.split_once(' ').unwrap();
    let end = match end {
        "fine" => None,
        "too much" => Some(ErrorKind::LimitExceeded),
        other => panic!("{other}"),
    };
    (most.parse().unwrap(), end)
}

/// Whatever four layers at once ask to be remembered, all of it is within one bound; without it each has one of its own.
pub(crate) fn hostile_layers_share_one_bound() {
    for (what, count, entry) in hostile() {
        let scratch = Scratch::new();
        let blob = layer(&scratch, count, &entry);
        let (most, _) = unpack_all(&scratch, &blob, &[]);
        println!("{what}: {} KiB", most >> 10);
        assert!(most <= BOUND, "{what}: {} MiB", most >> 20);
        // The defence.
        if what == "directories" {
            let (most, _) = unpack_all(&scratch, &blob, &[Defence::Budget]);
            println!("{what}, each with a bound of its own: {} KiB", most >> 10);
            assert!(most > BOUND, "{} MiB", most >> 20);
        }
    }
    // What is said of an image is true of what may usually be kept.
    let usual = Limits::default().kept_bytes;
    assert!(BUFFERS + usual + usual / 4 <= 64 << 20);
}

/// Names below which nothing is known, each of which asks for a hundred directories in the end.
pub(crate) fn deep_marks_have_a_bound() {
    for mark in [".wh.x", ".wh..wh..opq"] {
        let scratch = Scratch::new();
        let entry: Entries = Box::new(move |n| Tar::default().long_name(&format!("{n}{}/{mark}", "/d".repeat(126))));
        let blob = layer(&scratch, 2000, &entry);
        let (most, end) = unpack_alone(&scratch, &blob);
        println!("{mark}: {} KiB", most >> 10);
        assert!(most <= BOUND && end == Some(ErrorKind::LimitExceeded), "{mark}: {} MiB, {end:?}", most >> 20);
    }
}

/// What one layer may keep, several may that are unpacked at once: those that have no room wait.
pub(crate) fn layers_wait_for_memory() {
    let scratch = Scratch::new();
    let entry: Entries = Box::new(|n| Tar::of(&[&format!(".wh.{}=", long(n))]));
    // Most of what one may keep.
    let count = usize::try_from(KEPT).unwrap() / 400;
    let blob = layer(&scratch, count, &entry);
    let (most, end) = unpack_all(&scratch, &blob, &[]);
    println!("{} KiB", most >> 10);
    assert!(most <= BOUND && end.is_none(), "{} MiB, {end:?}", most >> 20);
}

/// A large layer takes no more than a small one.
pub(crate) fn large_layers_take_no_more() {
    let scratch = Scratch::new();
    let data = "x".repeat(1 << 20);
    let entry: Entries = Box::new(move |n| Tar::of(&[&format!("{n}={data}")]));
    let blob = layer(&scratch, 100, &entry);
    let zipped = scratch.stage().join("layer.tar.gz");
    fs::write(&zipped, gzip(&fs::read(&blob).unwrap())).unwrap();
    for blob in [blob, zipped] {
        let (most, end) = unpack_all(&scratch, &blob, &[]);
        println!("{blob:?}: {} KiB", most >> 10);
        assert!(most <= BUFFERS && end.is_none(), "{} MiB, {end:?}", most >> 20);
    }
}
