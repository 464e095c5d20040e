//! The subordinate ids that the administrator has given to a user, `subuid(5)`.

use crate::identity::{IdRange, Maps, Ranges};
use crate::{Error, ErrorKind, Step};
use nix::unistd::{Uid, User};
use std::fs;

/// The caller is user 0 and group 0; its subordinate ids follow.
pub(crate) fn maps((uid, gid): (u32, u32)) -> Result<Maps, Error> {
    let user = User::from_uid(Uid::from_raw(uid))
        .map_err(|errno| Error::os(Step::Prepare, "getpwuid_r", errno as i32).about(uid.to_string()))?;
    let name = user.map(|user| user.name);
    let ranges = |path: &'static str, own| {
        let text = fs::read(path)
            .map_err(|e| Error::os(Step::Prepare, "openat", e.raw_os_error().unwrap_or(0)).about(path))?;
        let given = parse(&String::from_utf8_lossy(&text), name.as_deref(), uid).ok_or_else(|| {
            Error::config(path, "has a line for this user that is not two numbers, of ids that exist")
        })?;
        if given.is_empty() {
            return Err(Error::words(ErrorKind::NotFound, Step::Prepare, path, "has no ids for this user"));
        }
        Ranges::check(path, after(own, &given))
    };
    Ok(Maps { uids: ranges("/etc/subuid", uid)?, gids: ranges("/etc/subgid", gid)?, setgroups: true, by_child: false })
}

/// The ranges, as (first, count), of a user: a line may say who it is for by name or by number. `None` if one of them makes no sense.
///
/// What the lines of others say does not matter: they may be in a form that is not known here.
fn parse(text: &str, name: Option<&str>, uid: u32) -> Option<Vec<(u32, u32)>> {
    let number = uid.to_string();
    let fields = text.lines().map(|line| line.trim().split(':').collect::<Vec<_>>());
    let ours = fields.filter(|fields| fields.first().is_some_and(|owner| Some(*owner) == name || *owner == number));
    let ranges = ours.map(|fields| {
        let [_, first, count] = fields[..] else { return None };
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        first.checked_add(count).map(|_| (first, count))
    });
    // An empty range gives nothing.
    ranges.filter(|range| !matches!(range, Some((_, 0)))).collect()
}

/// The caller's own id as 0, then one range after the other.
fn after(own: u32, given: &[(u32, u32)]) -> Vec<IdRange> {
    let mut ranges = vec![IdRange::new(0, own, 1)];
    let mut next = 1_u32;
    for (first, count) in given {
        // As many as there are numbers for.
        let count = (*count).min(u32::MAX - next);
        if count > 0 {
            ranges.push(IdRange::new(next, *first, count));
            next += count;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_by_name_or_number() {
        let text = "# the administrator's\nalice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:400000:0\n alice:5:1 \nalicia:7:1";
        assert_eq!(parse(text, Some("alice"), 1000), Some(vec![(100_000, 65536), (300_000, 10), (5, 1)]));
        assert_eq!(parse(text, Some("bob"), 1), Some(vec![(165_536, 65536)]));
        assert_eq!(parse(text, None, 1000), Some(vec![(300_000, 10)]));
        assert_eq!(parse(text, Some("carol"), 3), Some(vec![]));
    }

    #[test]
    fn a_bad_line_matters_to_its_owner() {
        for bad in ["alice:1", "alice:1:2:3", "alice:x:1", "alice:1:-1", "alice:4294967295:2", "alice::"] {
            assert_eq!(parse(bad, Some("alice"), 1000), None, "{bad}");
            assert_eq!(parse(bad, Some("bob"), 1001), Some(vec![]), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "([a-c1-3]{0,2}:?[0-9]{0,11}:?[0-9]{0,4}\n?){0,6}") {
            if let Some(ranges) = parse(&text, Some("a"), 1) {
                prop_assert!(ranges.iter().all(|(first, count)| *count > 0 && first.checked_add(*count).is_some()));
            }
        }

        #[test]
        fn what_is_given_is_found(given in prop::collection::vec((0..u32::MAX / 2, 1..u32::MAX / 2), 1..5), own in 0..9_u32) {
            let lines: Vec<String> = given.iter().map(|(first, count)| format!("me:{first}:{count}\nother:1:1")).collect();
            let text = lines.join("\n");
            prop_assert_eq!(parse(&text, Some("me"), 77), Some(given.clone()));
            let ranges = after(own, &given);
            prop_assert_eq!(ranges[0], IdRange::new(0, own, 1));
            // Without a gap, and never out of numbers.
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].inside + pair[0].count, pair[1].inside);
            }
            let last = ranges[ranges.len() - 1];
            prop_assert!(last.inside.checked_add(last.count).is_some());
        }
    }
}
