//! What holds for any archive.

use crate::semantics::seen;
use crate::support::{Scratch, Tar, gzip, lenient, sentinel, tree, unlock, unpack};
use cofferdam_image::ErrorKind;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

const LOWER: &[&str] = &[
    "a/",
    "a/z=0",
    "a/old=0",
    "b/",
    "b/q=0",
    "b/c/",
    "b/c/g=0",
    "low/",
    "low/f=0",
    "low/h=0",
    "e=0",
    "link->low",
    "x/",
    "x/y/",
    "x/y/z=0",
];

/// No two of one name, none below a file: in whatever order, they mean the same.
const UPPER: &[&str] = &[
    "./",
    "a/",
    "a/x=1",
    "a/y->x",
    "a/.wh.z",
    "b/",
    "b/.wh..wh..opq",
    "b/c/",
    "b/c/f=2",
    "b/c/.wh.g",
    ".wh.a",
    ".wh.b",
    "h=>b/c/f",
    "k=>low/f",
    "low/.wh.h",
    "e=5",
    ".wh.e",
    "low/m=1",
    "link/n=1",
    "link/.wh.f",
    ".wh..wh..opq",
    "x/y/.wh..wh..opq",
    "x/.wh.y",
    "x/y/w|",
    "i=>k",
    "x/y/.wh.z",
];

/// The same cases every time; a million of them if there is time.
fn runner(cases: u32) -> TestRunner {
    runner_of(cases, 1_000_000)
}

pub(crate) fn runner_of(cases: u32, long: u32) -> TestRunner {
    let cases = if std::env::var_os("COFFERDAM_TEST_LONG").is_some() { long } else { cases };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Whatever comes in whatever order: what is mounted is what is flattened.
pub(crate) fn the_union_of_layers_is_their_flattened_tree() {
    let some = |from: &'static [&'static str]| prop::sample::subsequence(from, 0..=from.len()).prop_shuffle();
    let stack = (some(LOWER), prop::collection::vec(prop_oneof![some(UPPER), some(LOWER)], 1..4));
    let compared = Cell::new(0);
    let result = runner(200).run(&stack, |(lowest, more)| {
        let scratch = Scratch::new();
        let stack: Vec<Tar> = [lowest].iter().chain(&more).map(|entries| Tar::of(entries)).collect();
        let mut done: Vec<PathBuf> = Vec::new();
        for layer in &stack {
            let stage = scratch.stage();
            // What contradicts itself is refused in both modes.
            if unpack(&layer.clone().end(), &stage, Some(&done), lenient()).is_err() {
                return Ok(());
            }
            done.push(stage);
        }
        compared.set(compared.get() + 1);
        prop_assert_eq!(tree(&scratch.flat(&stack)), seen(&done));
        Ok(())
    });
    result.unwrap();
    assert!(compared.get() > 20, "only {} stacks were compared", compared.get());
}

pub(crate) fn the_order_of_entries_does_not_matter() {
    let entries = prop::sample::subsequence(UPPER, 0..=UPPER.len());
    let two_orders = entries.prop_flat_map(|e| (Just(e.clone()).prop_shuffle(), Just(e).prop_shuffle()));
    let result = runner(300).run(&two_orders, |(one, other)| {
        let scratch = Scratch::new();
        let lowers = scratch.layers(&[Tar::of(LOWER)]);
        let unpacked = |entries: &[&str]| {
            let stage = scratch.stage();
            unpack(&Tar::of(entries).end(), &stage, Some(&lowers), lenient()).map(|_| tree(&stage))
        };
        match (unpacked(&one), unpacked(&other)) {
            (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
            // A link to what the layer hides, a symlink that it hides and goes through: refused, here or in one order.
            (Err(one), Err(other)) => {
                let known = [ErrorKind::NotFound, ErrorKind::Refused];
                prop_assert!(known.contains(&one.kind()) && known.contains(&other.kind()), "{} {}", one, other);
            }
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
                prop_assert_eq!(error.kind(), ErrorKind::Refused, "{}", &error);
                prop_assert_eq!(error.entry().unwrap(), "link", "{}", &error);
            }
        }
        Ok(())
    });
    result.unwrap();
}

pub(crate) fn no_bytes_lead_outside() {
    let scratch = Scratch::new();
    let before = sentinel(&scratch.outside());
    let good = Tar::of(&["d/", "l->../outside", "l/f=1", "h=>l/f", ".wh.x", "d/.wh..wh..opq"])
        .pax(b'x', &[("path", b"l/dir/inner"), ("size", b"4"), ("SCHILY.xattr.user.a", b"b")])
        .raw(b'0', "x", "", b"data")
        .pax(b'g', &[("mtime", b"5")])
        .raw(b'L', "././@LongLink", "", b"../outside/file")
        .entry("y=1");
    let good = good.end();
    let change = (0..good.len(), any::<u8>());
    let mutated = prop::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        // Most changes are to be about more than the checksum.
        for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        bytes
    });
    let any_bytes = prop::collection::vec(any::<u8>(), 0..2000);
    let zipped = prop_oneof![1 => any_bytes, 4 => mutated]
        .prop_flat_map(|bytes| prop_oneof![3 => Just(bytes.clone()), 1 => Just(gzip(&bytes))]);
    runner(1500)
        .run(&zipped, |bytes| {
            let stage = scratch.stage();
            let _ = unpack(&bytes, &stage, None, lenient());
            unlock(&stage);
            fs::remove_dir_all(&stage).unwrap();
            prop_assert_eq!(&sentinel(&scratch.outside()), &before);
            Ok(())
        })
        .unwrap();
}
