use super::*;
use crate::limits::Limits;
use crate::policy::testing::{Texts, owned, texts};
use proptest::prelude::*;

const PAGE: u64 = 4096;
const KIB: u64 = 1024;
/// What Linux writes for no limit on v1, with pages of 4 KiB.
const V1_NONE: &[u8] = b"9223372036854771712\n";

fn limits(max: impl Into<Option<Max<u64>>>, swap: impl Into<Option<Max<u64>>>) -> MemoryLimits {
    MemoryLimits { max: max.into(), swap: swap.into(), ..MemoryLimits::default() }
}

fn kib(n: u64) -> Max<u64> {
    Max::Limit(n * KIB)
}

fn pair(wanted: &MemoryLimits, version: Version, in_force: &MemoryLimits) -> Vec<(String, String)> {
    let list = writes(wanted, version, in_force, PAGE).unwrap();
    list.into_iter().map(|write| (write.file.into_owned(), write.text)).collect()
}

/// The same limits for both versions, where 64 KiB of memory and 32 KiB of swap are in force.
#[track_caller]
fn both(wanted: &MemoryLimits, v1: Texts<'_>, v2: Texts<'_>) {
    let in_force = limits(kib(64), kib(32));
    for (version, expected) in [(Version::V1, v1), (Version::V2, v2)] {
        assert_eq!(pair(wanted, version, &in_force), owned(expected), "{wanted:?} {version:?}");
    }
}

#[test]
fn what_a_limit_of_memory_means() {
    both(&limits(None, None), &[], &[]);
    // On v1 the sum follows, so that swap stays what it was.
    both(&limits(kib(128), None), &[(V1_SUM, "163840"), (V1_MAX, "131072")], &[(V2_MAX, "131072")]);
    both(&limits(kib(16), None), &[(V1_MAX, "16384"), (V1_SUM, "49152")], &[(V2_MAX, "16384")]);
    both(&limits(kib(64), None), &[(V1_MAX, "65536")], &[(V2_MAX, "65536")]);
    both(&limits(kib(0), None), &[(V1_MAX, "0"), (V1_SUM, "32768")], &[(V2_MAX, "0")]);
    both(&limits(Max::Max, None), &[(V1_SUM, "-1"), (V1_MAX, "-1")], &[(V2_MAX, "max")]);
}

#[test]
fn what_a_limit_of_swap_means() {
    both(&limits(None, kib(64)), &[(V1_SUM, "131072")], &[(V2_SWAP, "65536")]);
    both(&limits(None, kib(0)), &[(V1_SUM, "65536")], &[(V2_SWAP, "0")]);
    both(&limits(None, Max::Max), &[(V1_SUM, "-1")], &[(V2_SWAP, "max")]);
    // The sum grows though swap shrinks, and the other way round.
    both(&limits(kib(256), kib(0)), &[(V1_SUM, "262144"), (V1_MAX, "262144")], &[(V2_SWAP, "0"), (V2_MAX, "262144")]);
    both(&limits(kib(4), kib(40)), &[(V1_MAX, "4096"), (V1_SUM, "45056")], &[(V2_SWAP, "40960"), (V2_MAX, "4096")]);
    both(&limits(Max::Max, Max::Max), &[(V1_SUM, "-1"), (V1_MAX, "-1")], &[(V2_SWAP, "max"), (V2_MAX, "max")]);
}

#[test]
fn each_part_is_rounded_down_before_they_are_added() {
    let odd = Max::Limit(4095 + 8 * KIB);
    both(&limits(odd, odd), &[(V1_MAX, "8192"), (V1_SUM, "16384")], &[(V2_SWAP, "8192"), (V2_MAX, "8192")]);
    for huge in [u64::MAX, 9_223_372_036_854_771_712] {
        both(&limits(Max::Limit(huge), None), &[(V1_SUM, "-1"), (V1_MAX, "-1")], &[(V2_MAX, "max")]);
    }
    assert_eq!(in_pages(Max::Limit(9_223_372_036_854_771_711), PAGE), Max::Limit(9_223_372_036_854_767_616));
    // With pages of 64 KiB no limit is another number.
    assert_eq!(in_pages(Max::Limit(9_223_372_036_854_710_272), 64 * KIB), Max::Max);
    assert_eq!(in_pages(Max::Limit(9_223_372_036_854_710_271), 64 * KIB), Max::Limit(9_223_372_036_854_644_736));
}

#[test]
fn v1_cannot_limit_swap_alone() {
    for (wanted, in_force) in
        [(limits(None, kib(8)), limits(Max::Max, Max::Max)), (limits(Max::Max, kib(0)), limits(kib(64), kib(0)))]
    {
        let error = writes(&wanted, Version::V1, &in_force, PAGE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(writes(&wanted, Version::V2, &in_force, PAGE).is_ok());
    }
}

#[test]
fn where_swap_is_not_counted() {
    let uncounted = limits(kib(64), None);
    let v1 = |wanted: &MemoryLimits| pair(wanted, Version::V1, &uncounted);
    assert_eq!(v1(&limits(None, kib(0))), vec![]);
    assert_eq!(v1(&limits(Max::Max, Max::Max)), owned(&[(V1_MAX, "-1")]));
    assert_eq!(v1(&limits(Max::Max, kib(0))), owned(&[(V1_MAX, "-1")]));
    // This will be refused, and is the first to be written.
    let refused = v1(&limits(kib(8), kib(8)));
    assert_eq!(refused, owned(&[(V1_SUM, "16384"), (V1_MAX, "8192")]));
    for (swap, fine) in [(kib(0), true), (Max::Max, true), (kib(8), false)] {
        let list = writes(&limits(kib(4), swap), Version::V2, &limits(None, None), PAGE).unwrap();
        let found: Vec<_> = list.iter().map(|write| (&*write.file, write.missing_is_fine)).collect();
        assert_eq!(found, [(V2_SWAP, fine), (V2_MAX, false)]);
    }
}

#[test]
fn the_other_settings() {
    let mut wanted =
        MemoryLimits { high: kib(8).into(), low: kib(4).into(), min: Some(Max::Max), ..Default::default() };
    (wanted.swappiness, wanted.oom_group, wanted.oom_killer) = (Some(60), Some(true), Some(false));
    let plan = |wanted: &MemoryLimits, version| texts(|into| plan(wanted, version, &limits(None, None), PAGE, into));
    let v1 = owned(&[(V1_SOFT, "4096"), (V1_SWAPPINESS, "60"), (V1_OOM, "1")]);
    assert_eq!(plan(&wanted, Version::V1), (v1, 3));
    let v2 = owned(&[(V2_HIGH, "8192"), (V2_LOW, "4096"), (V2_MIN, "max"), (V2_OOM_GROUP, "1")]);
    assert_eq!(plan(&wanted, Version::V2), (v2, 2));
    // Asked to leave the OOM killer as v2 always has it, there is nothing to be done.
    let on = MemoryLimits { oom_killer: Some(true), ..Default::default() };
    assert_eq!((plan(&on, Version::V1), plan(&on, Version::V2)), ((owned(&[(V1_OOM, "0")]), 0), (vec![], 0)));
    wanted.swappiness = Some(201);
    assert!(super::plan(&wanted, Version::V1, &limits(None, None), PAGE, &mut Plan::default()).is_err());
}

#[test]
fn what_v1_cannot_is_told_and_the_rest_planned() {
    let found = texts(|into| plan(&limits(Max::Max, kib(8)), Version::V1, &limits(kib(64), kib(0)), PAGE, into));
    assert_eq!(found, (owned(&[(V1_SUM, "-1"), (V1_MAX, "-1")]), 1));
}

#[test]
fn both_parts_of_v1_can_be_undone() {
    let list = writes(&limits(kib(8), kib(8)), Version::V1, &limits(kib(64), kib(32)), PAGE).unwrap();
    let old: Vec<_> = list.iter().map(|write| (&*write.file, write.old.as_deref().unwrap())).collect();
    assert_eq!(old, [(V1_MAX, "65536"), (V1_SUM, "98304")]);
}

#[test]
fn what_is_in_force_matters_on_v1_alone() {
    for (wanted, v1) in [(Limits::new().pids(5), false), (Limits::new().memory(0), true), (Limits::new().swap(0), true)]
    {
        assert_eq!(needs_in_force(&wanted.memory, Version::V1), v1);
        assert!(!needs_in_force(&wanted.memory, Version::V2));
    }
}

#[test]
fn reads_the_kernels_text() {
    let table: [(_, &[u8], Option<&[u8]>, _); 8] = [
        (Version::V2, b"max\n", Some(b"max\n"), limits(Max::Max, Max::Max)),
        (Version::V2, b"65536\n", Some(b"0\n"), limits(kib(64), kib(0))),
        (Version::V2, b"0\n", None, limits(kib(0), None)),
        (Version::V1, V1_NONE, Some(V1_NONE), limits(Max::Max, Max::Max)),
        (Version::V1, b"65536\n", Some(V1_NONE), limits(kib(64), Max::Max)),
        (Version::V1, b"65536\n", Some(b"98304\n"), limits(kib(64), kib(32))),
        (Version::V1, b"65536\n", Some(b"65536\n"), limits(kib(64), kib(0))),
        (Version::V1, V1_NONE, None, limits(Max::Max, None)),
    ];
    for (version, max, swap, expected) in table {
        assert_eq!(parse(version, max, swap, PAGE), Some(expected.clone()), "{version:?} {expected:?}");
    }
    for bad in [b"".as_slice(), b"\n", b"64K\n", b"1 2\n"] {
        assert_eq!(parse(Version::V2, bad, None, PAGE), None);
        assert_eq!(parse(Version::V1, b"0\n", Some(bad), PAGE), None);
    }
}

#[test]
fn usage_in_words() {
    assert_eq!(usage_note(b"41943040\n").unwrap(), "41943040 bytes are in use and could not be reclaimed");
    assert_eq!(usage_note(b"x"), None);
    assert_eq!(usage_file(V1_SUM), Some("memory.memsw.usage_in_bytes"));
    assert_eq!(usage_file(V2_MAX), None);
}

/// The kernel, as far as it checks: both files of a cgroup, in pages; no limit is `NONE`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kernel {
    version: Version,
    max: u64,
    /// Or the sum.
    swap: u64,
}

const NONE: u64 = i64::MAX.unsigned_abs() / PAGE;

impl Kernel {
    fn new(version: Version) -> Self {
        Kernel { version, max: NONE, swap: NONE }
    }

    fn write(&mut self, write: &Write) -> std::result::Result<(), String> {
        let none = if self.version == Version::V1 { "-1" } else { "max" };
        let pages = if write.text == none { NONE } else { NONE.min(write.text.parse::<u64>().unwrap() / PAGE) };
        let names = files(self.version);
        let mut next = *self;
        match &*write.file {
            file if file == names.max => next.max = pages,
            file if file == names.swap => next.swap = pages,
            file => return Err(format!("no file {file}")),
        }
        if self.version == Version::V1 && next.swap < next.max {
            return Err(format!("EINVAL: {write:?} to {self:?}"));
        }
        *self = next;
        Ok(())
    }

    fn text(self, pages: u64) -> String {
        match self.version {
            Version::V2 if pages == NONE => "max\n".to_owned(),
            _ => format!("{}\n", pages * PAGE),
        }
    }

    fn limits(self) -> MemoryLimits {
        let (max, swap) = (self.text(self.max), self.text(self.swap));
        parse(self.version, max.as_bytes(), Some(swap.as_bytes()), PAGE).unwrap()
    }

    fn apply(&mut self, wanted: &MemoryLimits) -> Result<()> {
        for write in writes(wanted, self.version, &self.limits(), PAGE)? {
            self.write(&write).unwrap();
        }
        Ok(())
    }
}

fn any_limit() -> impl Strategy<Value = Option<Max<u64>>> {
    prop_oneof![
        Just(None),
        Just(Some(Max::Max)),
        (0u64..40 * KIB).prop_map(|bytes| Some(Max::Limit(bytes))),
        any::<u64>().prop_map(|bytes| Some(Max::Limit(bytes))),
    ]
}

fn any_limits() -> impl Strategy<Value = MemoryLimits> {
    (any_limit(), any_limit()).prop_map(|(max, swap)| MemoryLimits { max, swap, ..MemoryLimits::default() })
}

proptest! {
    /// Whatever the order in which limits come: no write is refused, and what was asked for is in force.
    #[test]
    fn any_sequence_is_accepted_and_comes_back(sequence in prop::collection::vec(any_limits(), 1..8)) {
        for version in [Version::V1, Version::V2] {
            let mut kernel = Kernel::new(version);
            for wanted in &sequence {
                let before = kernel;
                let old = kernel.limits();
                if kernel.apply(wanted).is_err() {
                    prop_assert_eq!(version, Version::V1);
                    prop_assert_eq!(kernel, before);
                    continue;
                }
                let found = kernel.limits();
                prop_assert_eq!(found.max, wanted.max.map(|max| in_pages(max, PAGE)).or(old.max));
                let swap = wanted.swap.map(|swap| in_pages(swap, PAGE)).or(old.swap);
                // What v1 cannot have: a limit of swap where the sum has none.
                let expected = match (version, found.max.unwrap(), swap.unwrap()) {
                    (Version::V1, max, swap) if sum(max, swap, PAGE) == Max::Max => Max::Max,
                    (_, _, swap) => swap,
                };
                prop_assert_eq!(found.swap, Some(expected));
            }
        }
    }

    /// Where memory is limited both versions do the same.
    #[test]
    fn both_versions_agree(sequence in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40), 1..8)) {
        let (mut v1, mut v2) = (Kernel::new(Version::V1), Kernel::new(Version::V2));
        for (max, swap) in sequence {
            let wanted = limits(Max::Limit(max), Max::Limit(swap));
            v1.apply(&wanted).unwrap();
            v2.apply(&wanted).unwrap();
            prop_assert_eq!(v1.limits(), v2.limits());
        }
    }

    #[test]
    fn no_text_is_ever_empty(wanted in any_limits(), in_force in any_limits(), page: u64) {
        for version in [Version::V1, Version::V2] {
            for write in writes(&wanted, version, &in_force, page).into_iter().flatten() {
                prop_assert!(!write.text.is_empty());
            }
        }
    }

    #[test]
    fn never_panics(a: Vec<u8>, b: Vec<u8>, page: u64) {
        for version in [Version::V1, Version::V2] {
            let _ = parse(version, &a, Some(&b), page);
        }
        let _ = usage_note(&a);
    }
}
