//! Which of the lowers given are mounted: pure policy.

use crate::layer::Identity;
use crate::overlay::MAX_LOWERS;
use std::collections::BTreeSet;

/// The lowers so far, from the topmost down.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    taken: BTreeSet<Identity>,
    closed: bool,
}

/// What becomes of the next lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    /// It lies above already. All that it shows is shown there, all that it hides is hidden there.
    Duplicate,
    /// The kernel takes no more.
    TooMany,
}

impl Stack {
    /// Whether an opaque root hides whatever comes next.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Looks at the next lower, unless the stack [is closed](Self::is_closed).
    pub(crate) fn next(&mut self, identity: Identity) -> Verdict {
        if self.taken.contains(&identity) {
            return Verdict::Duplicate;
        }
        if self.taken.len() == MAX_LOWERS {
            return Verdict::TooMany;
        }
        self.taken.insert(identity);
        Verdict::Take
    }

    /// The lower just taken has an opaque root.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goes through lowers as the mount does.
    fn taken(lowers: &[(u64, bool)]) -> Vec<u64> {
        let mut stack = Stack::default();
        let mut taken = Vec::new();
        for &(ino, opaque) in lowers {
            if stack.is_closed() {
                break;
            }
            if stack.next((1, ino)) == Verdict::Take {
                taken.push(ino);
                if opaque {
                    stack.close();
                }
            }
        }
        taken
    }

    #[test]
    fn the_topmost_of_equal_lowers_stays_and_an_opaque_root_ends_the_stack() {
        for (lowers, expected) in [
            (&[][..], &[][..]),
            (&[(1, false)], &[1]),
            (&[(1, false), (1, false)], &[1]),
            (&[(1, false), (2, false), (1, false), (3, false)], &[1, 2, 3]),
            (&[(1, true), (2, false)], &[1]),
            (&[(1, false), (2, true), (3, false)], &[1, 2]),
            (&[(1, false), (2, false), (3, true)], &[1, 2, 3]),
            (&[(1, false), (2, true), (1, false)], &[1, 2]),
        ] {
            assert_eq!(taken(lowers), expected, "{lowers:?}");
        }
    }

    #[test]
    fn five_hundred_and_no_more_duplicates_aside() {
        let mut stack = Stack::default();
        assert!((0..500).all(|ino| stack.next((1, ino)) == Verdict::Take));
        assert_eq!(stack.next((1, 7)), Verdict::Duplicate);
        assert_eq!(stack.next((1, 500)), Verdict::TooMany);
    }

    #[test]
    fn the_same_number_on_another_device_is_another_directory() {
        let mut stack = Stack::default();
        assert_eq!((stack.next((1, 7)), stack.next((2, 7))), (Verdict::Take, Verdict::Take));
    }

    /// What a stack of directories with one level of names shows: for each name the layer that wins.
    fn shown(stack: &[u64], holds: impl Fn(u64, u8) -> bool) -> Vec<Option<u64>> {
        (0..8).map(|name| stack.iter().copied().find(|layer| holds(*layer, name))).collect()
    }

    proptest! {
        #[test]
        fn dropping_changes_nothing_that_is_shown(
            lowers in proptest::collection::vec(0..5_u64, 0..12),
            content in proptest::collection::vec(any::<u8>(), 5),
            opaque in 0..32_u8,
        ) {
            let is_opaque = |layer: u64| opaque >> layer & 1 == 1;
            let given: Vec<_> = lowers.iter().map(|l| (*l, is_opaque(*l))).collect();
            let end = lowers.iter().position(|l| is_opaque(*l)).map_or(lowers.len(), |i| i + 1);
            let holds = |layer: u64, name: u8| content.get(usize::try_from(layer).unwrap()).unwrap() >> name & 1 == 1;
            let all = lowers.get(..end).unwrap();
            prop_assert_eq!(shown(&taken(&given), holds), shown(all, holds));
        }
    }
}
