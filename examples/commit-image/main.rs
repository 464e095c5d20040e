//! A new image, made of another one and of a tree in which its files were changed.
//!
//! Read [`commit`]: the base is unpacked once more, to compare with; what differs becomes a layer.

use cofferdam_image::{Draft, Image, LayerBuilder, LayoutWriter, Options, Policy, Selection};
use lexopt::prelude::{Long, Short, Value, ValueExt};
use std::ffi::OsString;
use std::fs::{File, create_dir, remove_dir_all};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Whatever went wrong, in one line.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const HELP: &str = "\
Usage: commit-image LAYOUT BASE TREE NEW [--cmd WORD]... [--not-after SECONDS] [--squash]

Makes the image NEW of the image BASE, both in the OCI layout directory LAYOUT. TREE is a whole root
directory: BASE flattened (by unpack-image, for example), and changed. What differs becomes a layer.

  --cmd WORD           what to run; once for each word
  --not-after SECONDS  later times become this one (since 1970): the same changes give the same image
  --squash             one layer of all files, instead of one of the changes

Prints the digest of the new manifest. Needs root.
";

struct Command {
    layout: PathBuf,
    base: String,
    tree: PathBuf,
    new: String,
    words: Vec<String>,
    not_after: Option<i64>,
    squash: bool,
}

fn main() -> ExitCode {
    let command = match parse(lexopt::Parser::from_env()) {
        Ok(Some(command)) => command,
        Ok(None) => {
            let _ = io::stdout().write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(why) => return say(&format!("{why}; --help tells more"), 2),
    };
    match commit(&command) {
        Ok(digest) => {
            let _ = writeln!(io::stdout(), "{digest}");
            ExitCode::SUCCESS
        }
        Err(why) => say(&why.to_string(), 1),
    }
}

fn commit(command: &Command) -> Result<String> {
    let base = Image::open(&command.layout, &Selection::new().reference(&command.base))?;
    let layout = LayoutWriter::open(File::open(&command.layout)?)?;
    let tree = File::open(&command.tree)?;
    let mut builder = LayerBuilder::new();
    if let Some(seconds) = command.not_after {
        builder = builder.not_after(seconds);
    }
    let created_by = "commit-image";
    let mut draft = if command.squash {
        let layer = layout.layer(|to| builder.tree(&tree, to))?;
        Draft::squashed(&base)?.layer(&layer, created_by)
    } else {
        let before = Before::unpack(&base, &command.layout)?;
        let before = File::open(before.0.join("tree"))?;
        let layer = layout.layer(|to| builder.changes(&before, &tree, to))?;
        Draft::of(&base)?.layer(&layer, created_by)
    };
    if !command.words.is_empty() {
        draft = draft.cmd(command.words.iter().cloned());
    }
    Ok(draft.write(&layout, &command.new)?.to_string())
}

/// The base's files, in a folder of our own, which goes with this.
struct Before(PathBuf);

impl Before {
    fn unpack(base: &Image, layout: &Path) -> Result<Self> {
        let folder = nix::unistd::mkdtemp(&layout.join(".commit-image-XXXXXX"))?;
        let before = Before(folder);
        for name in ["scratch", "tree"] {
            create_dir(before.0.join(name))?;
        }
        let layers = base.all_layers(Options::new().policy(Policy::Lenient))?;
        layers.flatten(File::open(before.0.join("scratch"))?, File::open(before.0.join("tree"))?)?;
        Ok(before)
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let _ = remove_dir_all(&self.0);
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Command>> {
    let (mut given, mut words, mut not_after, mut squash) = (Vec::new(), Vec::new(), None, false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("cmd") => words.push(parser.value()?.string()?),
            Long("not-after") => not_after = Some(parser.value()?.parse()?),
            Long("squash") => squash = true,
            Short('h') | Long("help") => return Ok(None),
            Value(value) => given.push(value),
            other => return Err(other.unexpected().into()),
        }
    }
    let [layout, base, tree, new] = <[OsString; 4]>::try_from(given).map_err(|_| "needs LAYOUT, BASE, TREE and NEW")?;
    let (layout, tree) = (PathBuf::from(layout), PathBuf::from(tree));
    Ok(Some(Command { layout, base: base.string()?, tree, new: new.string()?, words, not_after, squash }))
}

/// One line on standard error, whatever is in it.
fn say(what: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "commit-image: {}", what.replace(char::is_control, " "));
    ExitCode::from(code)
}
