//! The three streams by name; one that is not named is the caller's.

use crate::Stdio;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Streams {
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
}

pub(crate) fn serialize<S: Serializer>(streams: &[Stdio; 3], serializer: S) -> Result<S::Ok, S::Error> {
    let [stdin, stdout, stderr] = streams.clone();
    Streams { stdin, stdout, stderr }.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[Stdio; 3], D::Error> {
    let Streams { stdin, stdout, stderr } = Streams::deserialize(deserializer)?;
    Ok([stdin, stdout, stderr])
}
