//! The command line.

use crate::Result;
use cofferdam_image::{Policy, Selection};
use lexopt::prelude::{Long, Short, Value, ValueExt};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) const HELP: &str = "\
Usage: unpack-image SOURCE DEST [--mode flatten|overlay] [--policy strict|lenient] [--json]

SOURCE is
  oci:DIR[:TAG]          an image in an OCI layout directory
  docker-archive:FILE    what `docker save` wrote
  layers:FILE[,FILE...]  layers, lowest first, plain or compressed

  --mode flatten    the final tree goes to DEST (default)
  --mode overlay    each layer goes to DEST/0, DEST/1, ..., lowest first, to be mounted as an overlay
  --policy lenient  leave out, and list, what this user or file system cannot have; of two entries with
                    one name the last counts (default)
  --policy strict   exactly as in the archive, or not at all
  --json            print what was unpacked as one JSON object

What is hostile or damaged is refused in either case. DEST must not exist, or be an empty directory; it
appears as a whole or not at all. Exit status: 0, 1 if the image is refused or something fails, 2 for a
command line that makes no sense.
";

pub(crate) enum Command {
    Unpack(Destination),
    Help,
}

/// What to unpack, where and how.
pub(crate) struct Destination {
    pub(crate) source: Source,
    pub(crate) dest: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) policy: Policy,
    pub(crate) json: bool,
}

pub(crate) enum Source {
    Oci(PathBuf, Selection),
    DockerArchive(PathBuf, Selection),
    Layers(Vec<PathBuf>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Flatten,
    Overlay,
}

pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Command> {
    let (mut words, mut mode, mut policy, mut json) = (Vec::new(), Mode::Flatten, Policy::Lenient, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("mode") => {
                mode = match parser.value()?.string()?.as_str() {
                    "flatten" => Mode::Flatten,
                    "overlay" => Mode::Overlay,
                    other => return Err(format!("no mode is called {other:?}").into()),
                }
            }
            Long("policy") => {
                policy = match parser.value()?.string()?.as_str() {
                    "strict" => Policy::Strict,
                    "lenient" => Policy::Lenient,
                    other => return Err(format!("no policy is called {other:?}").into()),
                }
            }
            Long("json") => json = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let [source, dest] = <[OsString; 2]>::try_from(words).map_err(|_| "needs SOURCE and DEST")?;
    let (source, dest) = (source_of(&source)?, PathBuf::from(dest));
    Ok(Command::Unpack(Destination { source, dest, mode, policy, json }))
}

fn source_of(text: &OsStr) -> Result<Source> {
    let bytes = text.as_bytes();
    let after = |prefix: &str| bytes.strip_prefix(prefix.as_bytes());
    if let Some(rest) = after("oci:") {
        let (dir, tag) = dir_and_tag(rest)?;
        let selection = tag.map_or_else(Selection::new, |tag| Selection::new().reference(tag));
        return Ok(Source::Oci(dir, selection));
    }
    if let Some(rest) = after("docker-archive:") {
        return Ok(Source::DockerArchive(path(rest), Selection::new()));
    }
    let Some(rest) = after("layers:") else {
        return Err(format!("{text:?} does not begin with oci:, docker-archive: or layers:").into());
    };
    Ok(Source::Layers(rest.split(|b| *b == b',').map(path).collect()))
}

/// The last colon separates the tag, unless all of it is a directory.
fn dir_and_tag(text: &[u8]) -> Result<(PathBuf, Option<String>)> {
    let whole = path(text);
    let colon = text.iter().rposition(|b| *b == b':').filter(|_| !whole.is_dir());
    match colon.and_then(|colon| text.split_at_checked(colon)) {
        Some((dir, tag)) => Ok((path(dir), Some(String::from_utf8(tag[1..].to_vec())?))),
        None => Ok((whole, None)),
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(bytes)).to_owned()
}
