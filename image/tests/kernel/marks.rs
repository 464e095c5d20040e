//! Whiteouts and opaque directories are few bytes each: what they cost is no more than that, and can be ended.

use crate::faults::CALLS;
use crate::support::{Scratch, Tar, lenient, listing, observed, unpack};
use cofferdam_image::{ErrorKind, Unpacker};
use cofferdam_testkit::fault::Watch;
use std::fs::File;

/// System calls that a mark may cost, and a directory on the way to it. (It is looked for, made, described and finished.)
const OF_A_MARK: usize = 12;
const OF_A_DIRECTORY: usize = 40;

/// Marks in one directory far down, to which a symlink of a lower layer leads: the way there is gone once.
pub(crate) fn the_way_to_marks_is_gone_once() {
    const DEPTH: usize = 100;
    let mark =
        |kind: &str, n: usize| if kind == "whiteouts" { format!("l/.wh.{n}=") } else { format!("l/{n}/.wh..wh..opq=") };
    for kind in ["whiteouts", "opaque directories"] {
        let scratch = Scratch::new();
        let deep = Tar::default().long_symlink("l", vec!["a"; DEPTH].join("/").as_str());
        let lower = scratch.layers(&[(0..220).fold(deep, |tar, n| tar.entry(&format!("l/{n}/f=")))]);
        let calls = |count: usize| {
            let upper = (0..count).fold(Tar::default(), |tar, n| tar.entry(&mark(kind, n))).end();
            let stage = scratch.stage();
            let (calls, result) = Watch::only(CALLS).record(|| unpack(&upper, &stage, Some(&lower), lenient()));
            result.unwrap();
            assert_eq!(listing(&stage).len(), DEPTH + count);
            calls.len()
        };
        let (few, many) = (calls(20), calls(220));
        println!("{kind}: {few} and {many} calls");
        let of_one = if kind == "whiteouts" { OF_A_MARK } else { OF_A_MARK + OF_A_DIRECTORY };
        assert!(few <= 20 * of_one + DEPTH * OF_A_DIRECTORY, "{kind}: {few} calls");
        assert!(many - few <= 200 * of_one, "{kind}: {} calls more for 200 more", many - few);
    }
}

/// However many marks there are: it can be ended before each, and a tree is still as it was.
pub(crate) fn marks_can_be_ended() {
    let scratch = Scratch::new();
    let each = |entry: &dyn Fn(Tar, usize) -> Tar| (0..5).fold(Tar::default(), entry);
    let lower = each(&|tar, n| tar.entry(&format!("d/{n}=")).entry(&format!("o{n}/f=")));
    let upper = each(&|tar, n| tar.entry(&format!("d/.wh.{n}=")).entry(&format!("o{n}/.wh..wh..opq=")));
    let target = scratch.flat(std::slice::from_ref(&lower));
    let lowers: Vec<File> = scratch.layers(&[lower]).iter().map(|path| File::open(path).unwrap()).collect();
    let before = listing(&target);
    let unpacker = |flat: bool| {
        let stage = scratch.stage();
        let unpacker = Unpacker::new(File::open(&stage).unwrap(), lenient()).unwrap();
        let target = || File::open(&target).unwrap();
        let unpacker = if flat { unpacker.onto(target()) } else { unpacker.lowers(&lowers) };
        (stage, unpacker.unwrap())
    };
    // At the beginning and the end of the archive; when marks are settled, and when they are made; for each directory that is described.
    let all = 2 + 10 + 10 + 7;
    for flat in [false, true] {
        for ends in 2..all {
            let (stage, unpacker) = unpacker(flat);
            let (_, result) = observed(unpacker, &upper, ends);
            assert_eq!(result.expect_err(&format!("{ends}")).kind(), ErrorKind::Cancelled, "{ends}");
            assert_eq!(listing(&target), before, "{ends}");
            assert!(ends > 12 || listing(&stage).is_empty(), "{ends}");
        }
        let (_, unpacker) = unpacker(flat);
        let (asked, result) = observed(unpacker, &upper, usize::MAX);
        result.unwrap();
        assert_eq!(asked, all);
    }
    assert_eq!(listing(&target), ["d/", "o0/", "o1/", "o2/", "o3/", "o4/"]);
}
