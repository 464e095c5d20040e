//! `unshare`, `chroot` and `bwrap` in a hundred lines: a program in a root of its own.
//!
//! What the options mean is a table from words to methods of [`Sandbox`], in `options.rs`; the crate does all the rest.

mod options;
mod rights;

use cofferdam_namespaces::{Error, ErrorKind, Fds, Sandbox, Step};
use nix::unistd::{getegid, geteuid};
use options::{Caller, Command, HELP};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let caller = Caller {
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        env: std::env::vars_os().collect(),
        capabilities: rights::effective(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        exists: |path| path.exists(),
    };
    let done = match options::parse(lexopt::Parser::from_env(), caller) {
        Ok(Command::Run(sandbox)) => run(&sandbox),
        Ok(Command::Explain(sandbox)) => explain(&sandbox).map(|text| print(&text)),
        Ok(Command::Help) => Ok(print(HELP)),
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

/// The program's own exit status, as a shell would tell it.
fn run(sandbox: &Sandbox) -> Result<ExitCode, Error> {
    let status = sandbox.spawn()?.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(125)))
}

/// The list of system calls between the clone and the program.
fn explain(sandbox: &Sandbox) -> Result<String, Error> {
    let plan = sandbox.prepare(Fds::new())?;
    let calls: Vec<String> = plan.explain().map(|call| call.to_string()).collect();
    Ok(calls.join("\n") + "\n")
}

/// To whoever still reads it.
fn print(text: &str) -> ExitCode {
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "run-in-rootfs: {line}");
}
