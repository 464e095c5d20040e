//! Where the tests run, and which test must run where.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::str::FromStr;

/// The environment variable that names the place, and so turns an unmet need of a test that is
/// listed for that place into a failure.
const REQUIRE: &str = "COFFERDAM_TEST_REQUIRE";

/// A machine and a user that tests run on. CI visits all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The developer's or CI's machine, as root.
    Host,
    /// The same machine, as an ordinary user.
    HostUser,
    /// The virtual machine with cgroup v2 only, as root.
    VmRoot,
    /// The same, as an ordinary user with a delegated cgroup, as systemd gives it to a session.
    VmUser,
    /// The virtual machine with cgroup v1 only, all controllers that its kernel has; as root.
    VmV1,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 5] = [Self::Host, Self::HostUser, Self::VmRoot, Self::VmUser, Self::VmV1];

    /// The place's name in `places.txt` and in `COFFERDAM_TEST_REQUIRE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::HostUser => "host-user",
            Self::VmRoot => "vm-root",
            Self::VmUser => "vm-user",
            Self::VmV1 => "vm-v1",
        }
    }

    /// The place that `COFFERDAM_TEST_REQUIRE` names, if it is set.
    ///
    /// # Errors
    /// It names none.
    pub fn required() -> Result<Option<Self>, String> {
        let Ok(value) = env::var(REQUIRE) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|e| format!("{REQUIRE}: {e}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| format!("no place is called {name:?}; there are {all}"))
    }
}

/// By how much to multiply a time limit: 5 in the virtual machine, whose CPU is software, else 1.
#[must_use]
pub fn patience() -> u32 {
    match Place::required() {
        Ok(Some(Place::VmRoot | Place::VmUser | Place::VmV1)) => 5,
        _ => 1,
    }
}

/// The committed list: `package::test` and the places where it must run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, Vec<Place>>);

impl Places {
    /// The list of this repository, `testkit/places.txt`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn committed() -> Result<Self, String> {
        Self::parse(include_str!("../places.txt")).map_err(|e| format!("testkit/places.txt: {e}"))
    }

    /// Reads a list: one test a line, `#` begins a comment, a test stands once and has a place. `package::* also _x place ...` gives each test of the
    /// package a twin, with `_x` behind its name, in those of its own places that are named, or in all its places if it has none of them. A twin
    /// that has a line of its own is there in addition.
    ///
    /// # Errors
    /// What is wrong with which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut tests, mut twins) = (BTreeMap::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(name) = words.next() else { continue };
            if let Some(package) = name.strip_suffix('*') {
                let (Some("also"), Some(suffix)) = (words.next(), words.next()) else {
                    return Err(format!("line {number}: should read `package::* also SUFFIX place ...`"));
                };
                twins.push((package, suffix, places_of(number, words)?));
                continue;
            }
            let places = places_of(number, words)?;
            if !name.contains("::") || places.is_empty() {
                return Err(format!("line {number}: should read `package::test place ...`"));
            }
            if tests.insert(name.to_owned(), places).is_some() {
                return Err(format!("line {number}: {name} is listed twice"));
            }
        }
        for (package, suffix, named) in twins {
            let originals = tests.iter().filter(|(name, _)| name.starts_with(package) && !name.ends_with(suffix));
            let twin =
                |(name, places): (&String, &Vec<Place>)| (format!("{name}{suffix}"), twins_places(places, &named));
            for (name, places) in originals.map(twin).collect::<Vec<_>>() {
                let all = tests.entry(name).or_default();
                all.extend(places);
                all.sort_unstable();
                all.dedup();
            }
        }
        Ok(Self(tests))
    }

    /// Where this test must run; `None` if it is not listed.
    #[must_use]
    pub fn of(&self, test: &str) -> Option<&[Place]> {
        self.0.get(test).map(Vec::as_slice)
    }

    /// All tests and their places.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Place])> {
        self.0.iter().map(|(test, places)| (test.as_str(), places.as_slice()))
    }
}

fn places_of<'a>(number: usize, words: impl Iterator<Item = &'a str>) -> Result<Vec<Place>, String> {
    words.map(str::parse).collect::<Result<_, String>>().map_err(|e| format!("line {number}: {e}"))
}

fn twins_places(places: &[Place], named: &[Place]) -> Vec<Place> {
    let some: Vec<_> = places.iter().copied().filter(|place| named.contains(place)).collect();
    if some.is_empty() { places.to_vec() } else { some }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_tests_and_places() {
        let list = Places::parse("# x\n\na::b host vm-v1 # why\n").unwrap();
        assert_eq!(list.of("a::b"), Some(&[Place::Host, Place::VmV1][..]));
        assert_eq!(list.of("a::c"), None);
        let list = Places::parse("a::* also _c\na::b host\nx::b vm-v1").unwrap();
        assert_eq!(list.iter().map(|(test, _)| test).collect::<Vec<_>>(), ["a::b", "a::b_c", "x::b"]);
        assert_eq!(list.of("a::b_c"), Some(&[Place::Host][..]));
        let list = "a::* also _c host\na::b host vm-v1\na::d vm-v1\na::e host vm-v1 vm-root\na::e_c vm-root";
        let list = Places::parse(list).unwrap();
        assert_eq!(list.of("a::b_c"), Some(&[Place::Host][..]));
        assert_eq!(list.of("a::d_c"), Some(&[Place::VmV1][..]));
        assert_eq!(list.of("a::e_c"), Some(&[Place::Host, Place::VmRoot][..]));
        assert_eq!(list.of("a::e_c_c"), None);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, says) in [
            ("a::b", "line 1: should read"),
            ("ab host", "line 1: should read"),
            ("\na::b moon", "line 2: no place is called \"moon\""),
            ("a::b host\na::b host", "line 2: a::b is listed twice"),
            ("a::* also", "line 1: should read `package::* also SUFFIX place ...`"),
        ] {
            let error = Places::parse(text).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn the_committed_list_is_readable() {
        Places::committed().unwrap();
    }
}
