//! The state of a container, as hooks read it.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The version of OCI's runtime specification whose state this is.
const VERSION: &str = "1.0.2";

/// What a [`Hook`](crate::Hook) is told of the sandbox on its standard input: the `state` of OCI's runtime specification, as JSON. Its `status` and `pid` are
/// filled in at each point; `pid` is as the hook itself sees it, in the sandbox's pid namespace if it runs there.
///
/// ```
/// # use cofferdam_namespaces::OciState;
/// let state = OciState::new("web-1", "/srv/bundles/web-1").annotation("org.example.owner", "ci");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciState {
    version: String,
    id: String,
    bundle: String,
    annotations: BTreeMap<String, String>,
}

impl OciState {
    /// Of the container that is called so, whose bundle is in this folder: hooks find `config.json` there.
    #[must_use]
    pub fn new(id: impl Into<String>, bundle: impl Into<String>) -> Self {
        OciState { version: VERSION.to_owned(), id: id.into(), bundle: bundle.into(), annotations: BTreeMap::new() }
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// The version that the bundle's configuration has, `ociVersion`. By default 1.0.2.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    pub(crate) fn json(&self, status: &str, pid: Option<u32>) -> String {
        let pid = pid.map_or_else(String::new, |pid| format!(",\"pid\":{pid}"));
        let annotations: Vec<_> =
            self.annotations.iter().map(|(name, value)| format!("{}:{}", text(name), text(value))).collect();
        format!(
            "{{\"ociVersion\":{},\"id\":{},\"status\":{}{pid},\"bundle\":{},\"annotations\":{{{}}}}}",
            text(&self.version),
            text(&self.id),
            text(status),
            text(&self.bundle),
            annotations.join(",")
        )
    }
}

/// A string as JSON has it, RFC 8259.
fn text(string: &str) -> String {
    let mut text = String::from("\"");
    for character in string.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    proptest! {
        #[test]
        fn it_is_json(id in ".*", bundle in ".*", name in ".*", value in any::<String>(), pid in any::<Option<u32>>()) {
            let state = OciState::new(id.clone(), bundle.clone()).annotation(name.clone(), value.clone());
            let read: Value = serde_json::from_str(&state.version("1.2.0").json("created", pid)).unwrap();
            let mut expected = json!({
                "ociVersion": "1.2.0", "id": id, "status": "created", "bundle": bundle, "annotations": {name: value},
            });
            if let Some(pid) = pid {
                expected["pid"] = json!(pid);
            }
            prop_assert_eq!(read, expected);
        }
    }
}
