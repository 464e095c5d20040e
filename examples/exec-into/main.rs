//! `nsenter` and `docker exec`: a program in the namespaces of a process that runs.
//!
//! The options are a table from words to methods of [`Join`]; the crate does all the rest.

use cofferdam_namespaces::{Error, ErrorKind, Fds, Join, Namespaces, Sandbox, Step, Target};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
usage: exec-into [OPTION...] PID [PROGRAM [ARG...]]

Runs a program, /bin/sh if none is named, in the namespaces of a process.

  -o, --only KINDS    only these, with commas between: user,pid,mount,uts,ipc,net,cgroup,time
  -e, --env           with the environment that the process was started with
  -w, --cwd           in its working directory
  -c, --credentials   as its user and with its groups
  -t, --timeout SECS  give up when it has not started by then
  -E, --explain       show the system calls instead
";

struct Options {
    pid: u32,
    sandbox: Sandbox,
    explain: bool,
}

fn main() -> ExitCode {
    let done = match parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options),
        Ok(None) => Ok(print(HELP)),
        Err(why) => {
            say(&format!("{why}; --help tells more"));
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        say(&error.to_string());
        // As env(1) and its kin: it is not there, it cannot be started, or we could not.
        ExitCode::from(match (error.step(), error.kind()) {
            (Step::Exec, ErrorKind::NotFound) => 127,
            (Step::Exec, _) => 126,
            _ => 125,
        })
    })
}

fn run(Options { pid, sandbox, explain }: Options) -> Result<ExitCode, Error> {
    let plan = sandbox.prepare(Fds::new().target(Target::process(pid)?))?;
    if explain {
        let calls: Vec<String> = plan.explain().map(|call| call.to_string()).collect();
        return Ok(print(&(calls.join("\n") + "\n")));
    }
    let status = plan.spawn()?.wait()?;
    // As a shell would tell it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

fn parse(mut words: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut only, mut explain, mut environment) = (None, false, false);
    let (mut directory, mut credentials, mut timeout) = (false, false, None);
    let pid = loop {
        match words.next()? {
            Some(Short('o') | Long("only")) => only = Some(kinds(&words.value()?.string()?)?),
            Some(Short('e') | Long("env")) => environment = true,
            Some(Short('w') | Long("cwd")) => directory = true,
            Some(Short('c') | Long("credentials")) => credentials = true,
            Some(Short('t') | Long("timeout")) => timeout = Some(Duration::from_secs(words.value()?.parse()?)),
            Some(Short('E') | Long("explain")) => explain = true,
            Some(Short('h') | Long("help")) => return Ok(None),
            Some(Value(pid)) => break pid.parse()?,
            Some(other) => return Err(other.unexpected()),
            None => return Err("which process?".into()),
        }
    };
    let mut join = only.map_or_else(Join::all, Join::only);
    join = if environment { join.environment() } else { join };
    join = if directory { join.working_directory() } else { join };
    join = if credentials { join.credentials() } else { join };
    if let Some(timeout) = timeout {
        join = join.timeout(timeout);
    }
    let mut rest: Vec<OsString> = words.raw_args()?.collect();
    let program = if rest.is_empty() { "/bin/sh".into() } else { rest.remove(0) };
    let mut sandbox = Sandbox::new(program).args(rest).join(join);
    if !environment {
        // The caller's own environment stays outside, but for what a terminal needs.
        sandbox = sandbox.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        if let Some(terminal) = std::env::var_os("TERM") {
            sandbox = sandbox.env("TERM", terminal);
        }
    }
    Ok(Some(Options { pid, sandbox, explain }))
}

fn kinds(words: &str) -> Result<Namespaces, String> {
    let one = |word: &str| Namespaces::from_name(&word.to_uppercase()).ok_or(format!("{word:?} is no namespace"));
    words.split(',').try_fold(Namespaces::empty(), |all, word| Ok(all | one(word)?))
}

/// To whoever still reads it.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "exec-into: {line}");
}
