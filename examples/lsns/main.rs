//! `lsns`: the namespaces of the machine, or of one process, with who made them and how many processes are in each.

use cofferdam_namespaces::{Error, Listing, NamespaceId, NamespaceInfo, Namespaces};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

const HELP: &str = "\
usage: lsns [-p PID] [-t KIND]

Lists namespaces: inode, kind, processes, the oldest of them, the user namespace that owns it, the parent, and what runs in there.

  -p, --task PID     only those of this process
  -t, --type KIND    only those of this kind: user, pid, mount, uts, ipc, net, cgroup, time
";

#[derive(Default)]
struct Options {
    pid: Option<u32>,
    kind: Option<Namespaces>,
    help: bool,
}

fn main() -> ExitCode {
    let options = match parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(why) => {
            let _ = writeln!(io::stderr(), "lsns: {why}; --help tells more");
            return ExitCode::from(2);
        }
    };
    let text = if options.help { Ok(HELP.to_owned()) } else { list(&options) };
    match text {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "lsns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: lexopt::Parser) -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Short('p') | Long("task") => options.pid = Some(words.value()?.parse()?),
            Short('t') | Long("type") => {
                let name = words.value()?.string()?;
                let kind = Namespaces::from_name(&name.to_uppercase());
                options.kind = Some(kind.ok_or_else(|| format!("{name:?} is no kind of namespace"))?);
            }
            Short('h') | Long("help") => options.help = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn list(options: &Options) -> Result<String, Error> {
    let listing = Listing::read()?;
    let wanted = |namespace: &&NamespaceInfo| {
        options.kind.is_none_or(|kind| namespace.kind == kind)
            && options.pid.is_none_or(|pid| namespace.processes.contains(&pid))
    };
    let mut lines = vec![["NS", "TYPE", "NPROCS", "PID", "ONS", "PNS", "COMMAND"].map(str::to_owned)];
    lines.extend(listing.iter().filter(wanted).map(line));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (word, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{word:>width$} ");
        }
        let _ = writeln!(text, "{}", line[6]);
    }
    if listing.hidden() > 0 {
        let _ = writeln!(text, "{} processes are not ours to look at", listing.hidden());
    }
    Ok(text)
}

fn line(namespace: &NamespaceInfo) -> [String; 7] {
    let number = |id: Option<NamespaceId>| id.map_or("-".to_owned(), |id| id.inode().to_string());
    let kind = namespace.kind.iter_names().map(|(name, _)| name.to_lowercase()).collect::<String>();
    let oldest = namespace.oldest();
    [
        namespace.id.inode().to_string(),
        kind.replace("mount", "mnt"),
        namespace.processes.len().to_string(),
        oldest.map_or("-".to_owned(), |pid| pid.to_string()),
        number(namespace.owner),
        number(namespace.parent),
        oldest.map(command).unwrap_or_default(),
    ]
}

/// What a process says that it is: quoted, because it may say anything.
fn command(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = words.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word).escape_debug().to_string()).collect();
    words.join(" ")
}
