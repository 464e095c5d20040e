//! System calls, counted exactly.

use crate::Result;
use crate::area::{Contender, Runner};
use cofferdam_testkit::fault::{Call, record};
use std::collections::BTreeMap;

/// How often each system call is made, by its name; those of the caller and those of the child until it starts its program.
pub type Calls = BTreeMap<&'static str, usize>;

/// The system calls of one run.
///
/// They are what a run has more when it is done twice: what the allocator and the thread do once is not counted.
///
/// # Errors
/// A run that fails.
pub fn count(contender: &Contender) -> Result<Calls> {
    let mut runner = (contender.make)();
    // Once unobserved, for what is kept from run to run.
    runner()?;
    let once = recorded(&mut runner, 1)?;
    let mut calls = recorded(&mut runner, 2)?;
    for (name, times) in once {
        let left = calls.get(name).copied().unwrap_or(0).saturating_sub(times);
        calls.insert(name, left);
    }
    calls.retain(|_, times| *times > 0);
    Ok(calls)
}

fn recorded(runner: &mut Runner, times: usize) -> Result<Calls> {
    let (calls, result) = record(|| (0..times).try_for_each(|_| runner().map(drop)));
    result?;
    let mut counted = Calls::new();
    for name in calls.iter().map(Call::name) {
        *counted.entry(name).or_default() += 1;
    }
    Ok(counted)
}

/// How many in all.
#[must_use]
pub fn total(calls: &Calls) -> usize {
    calls.values().sum()
}

/// What the first makes and the second does not, as `poll ×1, mmap ×2`; empty if there is none.
#[must_use]
pub fn more(ours: &Calls, floor: &Calls) -> String {
    let extra = ours.iter().filter_map(|(name, times)| {
        let times = times.saturating_sub(floor.get(name).copied().unwrap_or(0));
        (times > 0).then(|| format!("{name} ×{times}"))
    });
    extra.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_what_one_has_more() {
        let ours = Calls::from([("clone3", 1), ("poll", 1), ("rt_sigaction", 65)]);
        let floor = Calls::from([("clone3", 1), ("rt_sigaction", 1), ("read", 1)]);
        assert_eq!(more(&ours, &floor), "poll ×1, rt_sigaction ×64");
        assert_eq!(more(&floor, &floor), "");
        assert_eq!((total(&ours), total(&floor)), (67, 3));
    }
}
