//! The log of what ran where, and what it lacks.

use std::collections::BTreeMap;
use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use crate::place::{Place, Places};

/// The environment variable that names a file to which each test's outcome is appended.
const LOG: &str = "COFFERDAM_TEST_LOG";

/// Appends `place, test, outcome` to the file that `COFFERDAM_TEST_LOG` names, if it is set.
pub(crate) fn log(place: Option<Place>, test: &str, outcome: &str) -> Result<(), String> {
    let Some(file) = env::var_os(LOG) else {
        return Ok(());
    };
    let place = place.map_or("-", Place::name);
    let line = format!("{place}\t{test}\t{}\n", outcome.replace(['\n', '\t'], " "));
    // One write of a whole line with O_APPEND: test programs that run side by side share the file.
    let opened = OpenOptions::new().append(true).create(true).open(&file);
    let written = opened.and_then(|mut f| f.write_all(line.as_bytes()));
    written.map_err(|e| format!("{LOG}: cannot append to {}: {e}", file.display()))
}

/// What ran where, as the logs tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran(BTreeMap<(String, String), String>);

impl Ran {
    /// Takes in a log that `COFFERDAM_TEST_LOG` named. Of several outcomes the worst one stays.
    ///
    /// # Errors
    /// A line is not one of such a log.
    pub fn read(&mut self, log: &str) -> Result<(), String> {
        for (number, line) in (1..).zip(log.lines()) {
            let words: Vec<&str> = line.split('\t').collect();
            let &[place, test, outcome] = words.as_slice() else {
                return Err(format!("line {number}: should be place, test and outcome: {line:?}"));
            };
            let known = self.0.entry((test.to_owned(), place.to_owned())).or_insert_with(|| outcome.to_owned());
            if known == "passed" {
                outcome.clone_into(known);
            }
        }
        Ok(())
    }

    /// Every test that is listed for a place and did not pass there, one line each.
    #[must_use]
    pub fn lacks(&self, places: &Places) -> Vec<String> {
        let mut lacking = Vec::new();
        for (test, of_test) in places.iter() {
            for place in of_test {
                match self.0.get(&(test.to_owned(), place.name().to_owned())).map(String::as_str) {
                    Some("passed") => {}
                    Some(outcome) => lacking.push(format!("{test} in {place}: {outcome}")),
                    None => lacking.push(format!("{test} in {place}: did not run")),
                }
            }
        }
        lacking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(log: &str) -> Vec<String> {
        let places = Places::parse("a::b host vm-v1\na::c host").unwrap();
        let mut ran = Ran::default();
        ran.read(log).unwrap();
        ran.lacks(&places)
    }

    #[test]
    fn nothing_is_lacking_when_all_passed_everywhere() {
        let log = "host\ta::b\tpassed\nvm-v1\ta::b\tpassed\nhost\ta::c\tpassed\nvm-v1\ta::c\tignored: x\n";
        assert!(lacks(log).is_empty());
    }

    #[test]
    fn what_did_not_run_failed_or_was_ignored_is_lacking() {
        let log = "host\ta::b\tpassed\nhost\ta::b\tfailed\nhost\ta::b\tpassed\nhost\ta::c\tignored: needs x\n";
        let expected = ["a::b in host: failed", "a::b in vm-v1: did not run", "a::c in host: ignored: needs x"];
        assert_eq!(lacks(log), expected);
    }

    #[test]
    fn a_run_without_a_place_counts_nowhere() {
        assert_eq!(lacks("-\ta::b\tpassed\n").len(), 3);
    }

    #[test]
    fn a_broken_log_is_refused() {
        assert!(Ran::default().read("host a::b passed\n").unwrap_err().starts_with("line 1: "));
    }
}
