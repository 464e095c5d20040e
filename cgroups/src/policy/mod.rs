//! What limits mean, as texts in files, and back. Written once and pure; v1 and v2 differ in names and encoding only.
//! One file for each controller; what is common to them is here.

pub(crate) mod cpu;
pub(crate) mod cpuset;
pub(crate) mod io;
pub(crate) mod memory;
pub(crate) mod shared;

use std::borrow::Cow;

use crate::controllers::Subsystems;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::limits::Max;
use crate::text;

/// One text to be written into one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) subsystem: Subsystems,
    pub(crate) file: Cow<'static, str>,
    pub(crate) text: String,
    /// What to write to undo it, where that is known already.
    pub(crate) old: Option<String>,
    /// What it asks for holds without that file too.
    pub(crate) missing_is_fine: bool,
    /// To be written instead, where there is no such file.
    pub(crate) instead: Option<Box<Write>>,
}

impl Write {
    pub(crate) fn new(subsystem: Subsystems, file: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        let (file, text) = (file.into(), text.into());
        Write { subsystem, file, text, old: None, missing_is_fine: false, instead: None }
    }
}

/// What is to be written, in this order, and what cannot be.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Writes that stand together are checked by the kernel against each other, at each of them: they may have to
    /// change places, and if one is refused the others are undone.
    pub(crate) steps: Vec<Vec<Write>>,
    /// Settings that this machine, or this version, does not have.
    pub(crate) cannot: Vec<Error>,
}

impl Plan {
    pub(crate) fn write(&mut self, write: Write) {
        self.steps.push(vec![write]);
    }

    pub(crate) fn together(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.steps.push(writes);
        }
    }

    pub(crate) fn cannot(&mut self, setting: &str, value: impl Into<String>, note: &'static str) {
        self.cannot.push(Error::new(ErrorKind::Unsupported, Op::Check, setting).with_value(value).with_note(note));
    }
}

pub(crate) const ONLY_V2: &str = "v1 has no such limit";
pub(crate) const ONLY_V1: &str = "v2 has no such limit";

pub(crate) fn encode(limit: Max<u64>, none: &str) -> String {
    match limit {
        Max::Max => none.to_owned(),
        Max::Limit(n) => n.to_string(),
    }
}

/// For files that hold 0 or 1.
pub(crate) fn switch(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

pub(crate) fn parse_switch(text: &[u8]) -> Option<bool> {
    match text.trim_ascii() {
        b"0" => Some(false),
        b"1" => Some(true),
        _ => None,
    }
}

/// `max` or a number.
pub(crate) fn parse_max(text: &[u8]) -> Option<Max<u64>> {
    match text.trim_ascii() {
        b"max" => Some(Max::Max),
        text => text::number(text).map(Max::Limit),
    }
}

/// The kernel's `PID_MAX_LIMIT`, the largest value of `pids.max`.
pub(crate) const PIDS_LIMIT: u64 = 4 * 1024 * 1024;
pub(crate) const PIDS_MAX: &str = "pids.max";

/// The same file, and the same text, in both versions.
pub(crate) fn pids(limit: Max<u64>, plan: &mut Plan) -> Result<()> {
    if matches!(limit, Max::Limit(n) if n > PIDS_LIMIT) {
        let note = "the kernel takes 0 to 4194304, or no limit";
        return Err(Error::invalid(encode(limit, "max"), PIDS_MAX, note));
    }
    plan.write(Write::new(Subsystems::PIDS, PIDS_MAX, encode(limit, "max")));
    Ok(())
}

/// A name that a caller gave, where the kernel's file has one name and its values on each line.
pub(crate) fn check_word(word: &str, setting: &str) -> Result<()> {
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Error::invalid(word, setting, "one word of printable ASCII is needed"))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Plans as lists of file and text, to be compared with tables.

    use super::{Plan, Result};

    pub(crate) type Texts<'a> = &'a [(&'a str, &'a str)];

    /// The files and texts of what `make` plans.
    pub(crate) fn texts(make: impl FnOnce(&mut Plan) -> Result<()>) -> (Vec<(String, String)>, usize) {
        let mut plan = Plan::default();
        make(&mut plan).unwrap();
        let writes = plan.steps.into_iter().flatten();
        (writes.map(|write| (write.file.into_owned(), write.text)).collect(), plan.cannot.len())
    }

    pub(crate) fn owned(texts: Texts<'_>) -> Vec<(String, String)> {
        texts.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn too_many_pids_are_refused() {
        for (limit, text) in [(Max::Limit(0), "0"), (Max::Limit(PIDS_LIMIT), "4194304"), (Max::Max, "max")] {
            let found = testing::texts(|plan| pids(limit, plan));
            assert_eq!(found, (testing::owned(&[(PIDS_MAX, text)]), 0));
        }
        assert!(pids(Max::Limit(PIDS_LIMIT + 1), &mut Plan::default()).is_err());
    }

    #[test]
    fn switches_and_limits() {
        assert_eq!(parse_max(b"max\n"), Some(Max::Max));
        assert_eq!(parse_max(b"12\n"), Some(Max::Limit(12)));
        assert_eq!((parse_switch(b"0\n"), parse_switch(b"1\n"), parse_switch(b"2\n")), (Some(false), Some(true), None));
    }

    #[test]
    fn words() {
        for bad in ["", "a b", "a\nb", "a\tb", "é", "a\0"] {
            assert!(check_word(bad, "x").is_err(), "{bad:?}");
        }
        assert!(check_word("mlx5_0", "x").is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let _ = parse_max(&a);
            let _ = parse_switch(&a);
        }
    }
}
