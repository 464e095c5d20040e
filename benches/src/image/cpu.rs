//! How long processors worked for a contender: in the program and in the kernel. A machine with two of them does not show that by the time on the wall.

use crate::Result;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::ops::Sub;
use std::sync::{Mutex, PoisonError};

/// Milliseconds in user mode and in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Used(i64, i64);

impl Sub for Used {
    type Output = Used;

    fn sub(self, earlier: Used) -> Used {
        Used(self.0 - earlier.0, self.1 - earlier.1)
    }
}

/// What this program and all the children that it has waited for have used so far.
pub(super) fn used() -> Result<Used> {
    let (own, children) = (getrusage(UsageWho::RUSAGE_SELF)?, getrusage(UsageWho::RUSAGE_CHILDREN)?);
    let sum = |own: TimeVal, children: TimeVal| own.num_milliseconds() + children.num_milliseconds();
    Ok(Used(sum(own.user_time(), children.user_time()), sum(own.system_time(), children.system_time())))
}

/// Those of all contenders of a case, told in the end.
pub(super) struct Times {
    case: &'static str,
    of: Mutex<BTreeMap<String, Vec<Used>>>,
}

impl Times {
    pub(super) fn new(case: &'static str) -> Self {
        Times { case, of: Mutex::default() }
    }

    pub(super) fn add(&self, contender: &str, used: Used) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.entry(contender.to_owned()).or_default().push(used);
    }
}

/// Medians.
impl Drop for Times {
    fn drop(&mut self) {
        let of = self.of.get_mut().unwrap_or_else(PoisonError::into_inner);
        println!("\nProcessor time, {}: milliseconds in the program, in the kernel\n", self.case);
        for (contender, times) in of {
            let middle = |part: fn(&Used) -> i64| {
                let mut times: Vec<i64> = times.iter().map(part).collect();
                times.sort_unstable();
                times.get(times.len() / 2).copied().unwrap_or_default()
            };
            println!("- {contender}: {} + {}", middle(|used| used.0), middle(|used| used.1));
        }
    }
}
