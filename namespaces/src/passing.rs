//! Descriptors that the program gets besides its standard streams, at numbers that it knows.

use crate::bind::Names;
use crate::program::{Arg, Program, Sys, Then};
use crate::{Error, Fallbacks, Sandbox, Step};
use std::collections::BTreeMap;

/// As many as a process has by default.
const MOST: u32 = 1023;

impl Sandbox {
    /// Gives the program the descriptor that [`Fds::bind`](crate::Fds::bind) gives this name, as this number, 3 to 1023: it has that, its standard
    /// streams, and no other.
    ///
    /// The caller's own limit of descriptors (`RLIMIT_NOFILE`) must allow a few numbers above the highest.
    ///
    /// Both share the open file: its offset, its status flags. `O_CLOEXEC` of the caller's does not matter. How a program learns of the number is
    /// between the two; systemd's protocol, for one, is `LISTEN_FDS`, from 3 on, with `LISTEN_PID`.
    #[must_use]
    #[doc(alias("preserve-fds", "pass-fds", "LISTEN_FDS"))]
    pub fn fd(mut self, number: u32, name: impl Into<String>) -> Self {
        self.fds.insert(number, name.into());
        self
    }
}

/// The highest descriptor that is there until the program starts: that the program gets, or that hands over the listener of a filter.
pub(crate) fn highest(sandbox: &Sandbox) -> i32 {
    let passed = sandbox.fds.last_key_value().map_or(2, |(number, _)| (*number).min(MOST).cast_signed());
    passed + sandbox.privilege.reserved()
}

/// Where each comes from; the sources are all above the highest of them.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) sources: BTreeMap<u32, i32>,
    pub(crate) highest: i32,
}

impl Passed {
    pub(crate) fn bind(sandbox: &Sandbox, names: &mut Names) -> Result<Self, Error> {
        let mut sources = BTreeMap::new();
        for (number, name) in &sandbox.fds {
            if !(3..=MOST).contains(number) {
                return Err(Error::config(format!("descriptor {number}"), "is not in 3 to 1023"));
            }
            sources.insert(*number, names.number(name)?);
        }
        Ok(Passed { sources, highest: highest(sandbox) })
    }

    /// Puts them in place, where they stay.
    pub(crate) fn compile(&self, program: &mut Program) {
        for (number, source) in &self.sources {
            let args = [(*source).into(), (*number).into(), 0_u64.into()];
            program.call(Step::Stdio, format!("descriptor {number}"), Sys::dup3, args);
        }
    }

    /// Closes what lies between them.
    pub(crate) fn close_between(&self, program: &mut Program, step: Step, otherwise: Then, fallbacks: Fallbacks) {
        for (first, last) in gaps(self.sources.keys().copied()) {
            let args: [Arg; 3] = [first.into(), last.into(), 0_u64.into()];
            program.call_then(step, "", Sys::close_range, args, otherwise);
            if fallbacks.contains(Fallbacks::CLOSE_EACH) {
                crate::fallbacks::close_these(program, step, first..=last);
            }
        }
    }
}

/// What is between 3 and the highest, and none of these.
fn gaps(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut next = 3;
    let mut gaps = Vec::new();
    for number in numbers {
        if number > next {
            gaps.push((next, number - 1));
        }
        next = number + 1;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn what_is_between_is_closed() {
        let of = |numbers: &[u32]| gaps(numbers.iter().copied());
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[3, 4]), []);
        assert_eq!(of(&[5]), [(3, 4)]);
        assert_eq!(of(&[3, 7, 8, 20]), [(4, 6), (9, 19)]);
    }
}
