//! What is asked of systemd: a scope or a service, as plain data.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// A transient unit: what `systemd-run` makes. Man pages: `systemd.scope(5)`, `systemd.service(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Unit {
    /// Its name, with its type: `build-42.scope`.
    pub name: String,
    /// What it is, for `systemctl status`.
    pub description: String,
    /// The slice in which it is made, which is made too where it is missing; `system.slice` or the like otherwise.
    pub slice: Option<String>,
    /// Whether cgroups may be made below it (`Delegate=yes`): systemd then leaves alone what is there.
    pub delegate: bool,
    /// What it may use.
    pub limits: Limits,
    /// For how long it may last (`RuntimeMaxSec=`).
    pub runtime_max: Option<Duration>,
    /// What runs in it.
    pub content: Content,
}

/// What runs in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Content {
    /// A scope: processes that the caller has started. There must be one at least.
    Processes(Vec<u32>),
    /// A service: a program that systemd starts, by its absolute path, and its arguments.
    Program(String, Vec<String>),
    /// A slice, which has other units in it.
    Units,
}

impl Unit {
    fn new(name: impl Into<String>, content: Content) -> Self {
        let delegate = content != Content::Units;
        let limits = Limits::new();
        Unit {
            name: name.into(),
            description: String::new(),
            slice: None,
            delegate,
            limits,
            runtime_max: None,
            content,
        }
    }

    /// A scope around processes that run already, delegated. The numbers are those of systemd's pid namespace.
    #[must_use]
    pub fn scope(name: impl Into<String>, processes: impl IntoIterator<Item = u32>) -> Self {
        Self::new(name, Content::Processes(processes.into_iter().collect()))
    }

    /// A service, delegated: a program that systemd starts.
    #[must_use]
    pub fn service(
        name: impl Into<String>,
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self::new(name, Content::Program(program.into(), arguments))
    }

    /// A slice.
    #[must_use]
    pub fn slice(name: impl Into<String>) -> Self {
        Self::new(name, Content::Units)
    }

    /// Sets [`limits`](Self::limits).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets [`slice`](Self::slice).
    #[must_use]
    pub fn in_slice(mut self, slice: impl Into<String>) -> Self {
        self.slice = Some(slice.into());
        self
    }

    /// Sets [`description`](Self::description).
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let suffix = match &self.content {
            Content::Processes(processes) if processes.is_empty() => {
                return Err(Error::invalid(&self.name, "unit", "a scope is made around a process"));
            }
            Content::Program(program, _) if !program.starts_with('/') => {
                return Err(Error::invalid(program, "program of a service", "an absolute path is needed"));
            }
            Content::Units if self.runtime_max.is_some() => {
                return Err(Error::invalid(&self.name, "unit", "a slice lasts as long as what is in it"));
            }
            Content::Units if self.delegate => {
                return Err(Error::invalid(&self.name, "unit", "a slice cannot be delegated"));
            }
            Content::Processes(_) => ".scope",
            Content::Program(..) => ".service",
            Content::Units => ".slice",
        };
        check_name(&self.name, suffix)?;
        self.slice.iter().try_for_each(|slice| check_name(slice, ".slice"))
    }
}

/// As systemd has it: letters, digits and `:-_.\@`, at most 255.
fn check_name(name: &str, suffix: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let stem = name.strip_suffix(suffix).unwrap_or_default();
    if !stem.is_empty() && name.len() <= 255 && name.bytes().all(plain) {
        Ok(())
    } else {
        let note = format!("a unit of this kind is called like NAME{suffix}");
        Err(Error::invalid(name, "unit", "").with_note(note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_contents() {
        for good in
            [Unit::scope("a-1.scope", [7]), Unit::service("a@b.service", "/bin/true", ["x"]), Unit::slice("a-b.slice")]
        {
            assert!(good.check().is_ok(), "{good:?}");
        }
        let mut delegated = Unit::slice("a.slice");
        delegated.delegate = true;
        let mut limited = Unit::slice("a.slice");
        limited.runtime_max = Some(Duration::from_secs(1));
        for bad in [
            Unit::scope("a.scope", []),
            Unit::scope(".scope", [7]),
            Unit::scope("a.service", [7]),
            Unit::scope("a/b.scope", [7]),
            Unit::scope("a.scope", [7]).in_slice("b"),
            Unit::service("a.service", "true", [""]),
            delegated,
            limited,
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), crate::ErrorKind::InvalidInput, "{bad:?}");
        }
    }
}
