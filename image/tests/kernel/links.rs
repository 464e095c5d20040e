//! Hard links to files of lower layers: what they bring into a layer has the same limits as what is in its archive, and can be ended.

use crate::support::{Scratch, Tar, observed, options, unpack};
use cofferdam_image::{Error, ErrorKind, Limits, Report, Unpacker};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Unpacks onto one lower layer, with limits that are changed in one place.
fn linking(
    scratch: &Scratch,
    lower: &[PathBuf],
    upper: &[&str],
    limit: impl FnOnce(&mut Limits),
) -> (PathBuf, Result<Report, Error>) {
    let mut limits = Limits::default();
    limit(&mut limits);
    let stage = scratch.stage();
    let result = unpack(&Tar::of(upper).end(), &stage, Some(lower), options().limits(limits));
    (stage, result)
}

fn exceeded(result: Result<Report, Error>, entry: &str, words: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.entry()), (ErrorKind::LimitExceeded, Some(OsStr::new(entry))), "{error}");
    assert!(error.to_string().ends_with(words), "{error}");
}

/// A few bytes of an archive can name any number of bytes below.
pub(crate) fn bytes_of_copied_files_are_limited() {
    let scratch = Scratch::new();
    let data = "x".repeat(40 << 10);
    let lower = scratch.layers(&[Tar::of(&[&format!("one={data}"), &format!("two={data}")])]);
    let (stage, result) = linking(&scratch, &lower, &["h=>one"], |limits| limits.bytes = 30 << 10);
    exceeded(result, "h", "more than 30720 bytes in files");
    assert_eq!(fs::metadata(stage.join("one")).unwrap().len(), 0, "before it is copied");
    // One is fine, one more is not, also not with what the archive itself has.
    let limit = |limits: &mut Limits| limits.bytes = 60 << 10;
    let (stage, result) = linking(&scratch, &lower, &["h=>one"], limit);
    assert_eq!(result.unwrap().bytes, 40 << 10);
    assert_eq!(fs::metadata(stage.join("h")).unwrap().len(), 40 << 10);
    let (_, result) = linking(&scratch, &lower, &["h=>one", "i=>two"], limit);
    exceeded(result, "i", "more than 61440 bytes in files");
    let (_, result) = linking(&scratch, &lower, &[&format!("own={}", "y".repeat(25 << 10)), "h=>one"], limit);
    exceeded(result, "h", "more than 61440 bytes in files");
    // What is linked to a second time is not copied again.
    linking(&scratch, &lower, &["h=>one", "i=>one"], limit).1.unwrap();
}

/// Names of one file below, so many, and in so many directories.
fn names(count: usize, directories: usize) -> Tar {
    let tar = (0..directories).fold(Tar::of(&["f=1"]), |tar, number| tar.entry(&format!("d{number}/")));
    (0..count).fold(tar, |tar, number| tar.entry(&format!("d{}/name{number}=>f", number % directories)))
}

pub(crate) fn names_of_copied_files_are_limited() {
    let scratch = Scratch::new();
    let lower = scratch.layers(&[names(99, 3)]);
    // The link, and the hundred names that the file has.
    let (stage, result) = linking(&scratch, &lower, &["h=>f"], |limits| limits.entries = 101);
    assert_eq!(result.unwrap().entries, 1);
    assert_eq!(fs::metadata(stage.join("h")).unwrap().nlink(), 101);
    let (_, result) = linking(&scratch, &lower, &["h=>f"], |limits| limits.entries = 100);
    exceeded(result, "h", "more than 100 entries and names of copied files");
    // They are kept in memory: 207 to 209 bytes for each, of files that are not linked to as well.
    let other = scratch.layers(&[names(99, 3).entry("g=1").entry("i=>g")]);
    linking(&scratch, &other, &["h=>g"], |limits| limits.kept_bytes = 24 << 10).1.unwrap();
    let (_, result) = linking(&scratch, &other, &["h=>g"], |limits| limits.kept_bytes = 8 << 10);
    exceeded(result, "h", "more than 8192 bytes to be kept until the end");
}

/// Unpacks with an observer that says no after so many times. Returns how often it was asked.
fn watched(lower: &[PathBuf], upper: &Tar, stage: &Path, ends: usize) -> (usize, Result<Report, Error>) {
    let lower: Vec<File> = lower.iter().map(|path| File::open(path).unwrap()).collect();
    observed(Unpacker::new(File::open(stage).unwrap(), options()).unwrap().lowers(&lower).unwrap(), upper, ends)
}

/// However many files with several names are linked to, the layer below is walked once.
pub(crate) fn a_lower_layer_is_walked_once() {
    const FILES: usize = 20;
    const DIRECTORIES: usize = 60;
    let scratch = Scratch::new();
    let many = (0..DIRECTORIES).fold(Tar::default(), |tar, number| tar.entry(&format!("d{number}/")));
    let many = (0..FILES).fold(many, |tar, n| tar.entry(&format!("d{n}/f=1")).entry(&format!("g{n}=>d{n}/f")));
    let lower = scratch.layers(&[many]);
    let upper = (0..FILES).fold(Tar::default(), |tar, n| tar.entry(&format!("h{n}=>d{n}/f")));
    let stage = scratch.stage();
    let (asked, result) = watched(&lower, &upper, &stage, usize::MAX);
    result.unwrap();
    assert_eq!(fs::metadata(stage.join("h7")).unwrap().nlink(), 3);
    // At the beginning and the end of the archive, in every directory, for every link, its file's data and names; for the directories that came with them.
    assert_eq!(asked, 2 + 1 + DIRECTORIES + FILES * 4 + 1 + FILES);
    // Each time it can be ended, but for the end of the archive.
    for ends in [0, 2, 3, 2 + 1 + DIRECTORIES, asked - 1] {
        let (_, result) = watched(&lower, &upper, &scratch.stage(), ends);
        assert_eq!(result.expect_err(&format!("{ends}")).kind(), ErrorKind::Cancelled);
    }
}
