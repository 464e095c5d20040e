//! Which layers stand on which, and so which can go. Pure.

use super::LayerId;
use std::collections::{BTreeMap, BTreeSet};

/// Each layer's parent.
pub(super) type Parents = BTreeMap<LayerId, Option<LayerId>>;

/// A layer and all that it stands on, topmost first. Ends where a parent is missing, and where it has been before.
pub(super) fn ancestry<'a>(top: &'a LayerId, parents: &'a Parents) -> Vec<&'a LayerId> {
    let mut line = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = parents.get_key_value(top);
    while let Some((id, parent)) = next {
        if !seen.insert(id) {
            break;
        }
        line.push(id);
        next = parent.as_ref().and_then(|parent| parents.get_key_value(parent));
    }
    line
}

/// The layers that nothing stands on that is `needed`, each before its parent: whoever stops in the middle leaves no layer without one.
pub(super) fn unneeded(parents: &Parents, needed: impl Fn(&LayerId) -> bool) -> Vec<LayerId> {
    let kept: BTreeSet<&LayerId> =
        parents.keys().filter(|id| needed(id)).flat_map(|id| ancestry(id, parents)).collect();
    let mut dead: Vec<(usize, &LayerId)> =
        parents.keys().filter(|id| !kept.contains(id)).map(|id| (ancestry(id, parents).len(), id)).collect();
    dead.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    dead.into_iter().map(|(_, id)| id.clone()).collect()
}

/// The layers that stand on one, directly or not, and itself, each before its parent.
pub(super) fn descendants(of: &LayerId, parents: &Parents) -> Vec<LayerId> {
    unneeded(parents, |id| !ancestry(id, parents).contains(&of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(name: &(impl ToString + ?Sized)) -> LayerId {
        LayerId::new(name.to_string()).unwrap()
    }

    fn names(ids: &[LayerId]) -> String {
        ids.iter().map(LayerId::as_str).collect()
    }

    #[test]
    fn a_small_family() {
        // c and d stand on b, b on a; e on nothing; g and h on each other; i on what is not there.
        let parents: Parents =
            [("a", ""), ("b", "a"), ("c", "b"), ("d", "b"), ("e", ""), ("g", "h"), ("h", "g"), ("i", "z")]
                .map(|(child, parent)| (id(child), (!parent.is_empty()).then(|| id(parent))))
                .into();
        for (needed, dead) in
            [("abcdeghi", ""), ("c", "dghei"), ("cd", "ghei"), ("b", "cdghei"), ("e", "cdbghai"), ("", "cdbghaei")]
        {
            let found = unneeded(&parents, |id| needed.contains(id.as_str()));
            assert_eq!(names(&found), dead, "needed: {needed:?}");
        }
        let line = |top| ancestry(&id(top), &parents).into_iter().map(LayerId::as_str).collect::<String>();
        assert_eq!([line("d"), line("a"), line("g"), line("i"), line("z")], ["dba", "a", "gh", "i", ""]);
        assert_eq!(names(&descendants(&id("b"), &parents)), "cdb");
    }

    proptest! {
        /// Each layer stands on one of those before it, or on none.
        #[test]
        fn no_layer_that_stays_loses_its_parent(choice in proptest::collection::vec((0..20_usize, any::<bool>()), 1..20)) {
            let parents: Parents = choice.iter().enumerate()
                .map(|(i, (parent, _))| (id(&i), (*parent < i).then(|| id(parent))))
                .collect();
            let needed = |id: &LayerId| choice.get(id.as_str().parse::<usize>().unwrap()).unwrap().1;
            let mut left = parents.clone();
            for gone in unneeded(&parents, needed) {
                prop_assert!(!needed(&gone));
                left.remove(&gone);
                // Also if it stops here.
                for parent in left.values().flatten() {
                    prop_assert!(left.contains_key(parent), "{} has gone before its child", parent);
                }
            }
            for id in left.keys() {
                prop_assert!(left.keys().any(|top| needed(top) && ancestry(top, &left).contains(&id)));
            }
        }
    }
}
