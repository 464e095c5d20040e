//! The last step: which file, with which arguments, in which environment.

use crate::compile::{FILE, OPEN_HOW_SIZE, c_string, open_how};
use crate::join::Joining;
use crate::program::{Arg, Program, Sys, Then};
use crate::{Error, Root, Sandbox, Step, init, privilege, sys};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where `execvp(3)` looks when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Where the program may be, and what it gets.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) places: Vec<(PathBuf, CString)>,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
}

/// Also the init that starts it, if one is wanted; `highest` is the last descriptor of that.
pub(crate) fn find(
    sandbox: &Sandbox,
    joining: Option<&Joining>,
    highest: i32,
) -> Result<(Found, Option<init::Wanted>), Error> {
    let environment = environment(sandbox, joining.and_then(|joining| joining.environment.as_ref()))?;
    let candidates = candidates(&sandbox.program, environment.get(OsStr::new("PATH"))).into_iter().map(|path| {
        let text = c_string("program", path.as_os_str())?;
        Ok((path, text))
    });
    let places = candidates.collect::<Result<_, Error>>()?;
    let own_name = sandbox.arg0.as_ref().unwrap_or(&sandbox.program);
    let argv = [own_name].into_iter().chain(&sandbox.args).map(|arg| c_string("argument", arg));
    let argv = argv.collect::<Result<_, _>>()?;
    let envp = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string("environment variable", &name)
    });
    let envp = envp.collect::<Result<_, _>>()?;
    let found = Found { places, argv, envp };
    let init = init::Wanted::of(sandbox, &found, highest)?;
    Ok((found, init))
}

/// The filters come last: what the child does to find the program they need not allow.
pub(crate) fn compile(
    program: &mut Program,
    sandbox: &Sandbox,
    rights: &privilege::Bound,
    joining: Option<&Joining>,
    found: Found,
) {
    let (argv, envp) = (pointers(program, found.argv), pointers(program, found.envp));
    let last = found.places.len().saturating_sub(1);
    let look = sandbox.root != Root::Host || joining.is_some_and(Joining::enters_root);
    let look = look.then(|| program.words(open_how(READ, libc::RESOLVE_NO_MAGICLINKS)));
    for (at, (path, text)) in found.places.into_iter().enumerate() {
        let text = program.string(text);
        // To look for another one, behind a filter that asks the caller, who waits, could take for ever.
        let only = at == last || look.is_some() && sandbox.privilege.reserved() > 0;
        let then = if only { Then::Go } else { Then::TryNext };
        let execve = |program: &mut Program| {
            if at == 0 || look.is_some() {
                program.seal(|program| rights.seal(program));
            }
            program.call_then(Step::Exec, &path, Sys::execve, [text.into(), argv.into(), envp.into()], then);
        };
        match look {
            Some(how) => look_at(program, (&path, text), how, at == last, execve),
            None => execve(program),
        }
    }
}

/// The system calls that are left when the filters are in place.
pub(crate) fn last_calls(sandbox: &Sandbox, found: &Found, init: bool) -> Vec<libc::c_long> {
    let mut calls = vec![if init { libc::SYS_execveat } else { libc::SYS_execve }];
    if !init && found.places.len() > 1 && sandbox.root != Root::Host {
        calls.extend([libc::SYS_openat2, libc::SYS_read, libc::SYS_close]);
    }
    calls
}

/// Nothing happens if it is a device, or a pipe that nobody writes to.
const READ: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;

/// The program of a root that others have made must not be a link to `/proc/self/exe`, nor a script for such a one: until it is started, that is the
/// host's program, and whoever runs that can write to it afterwards (CVE-2019-5736). What is opened here the kernel closes as it starts the program.
/// (What a program names as its ELF interpreter is only mapped beside it, and nobody gets to that file.)
fn look_at(program: &mut Program, (path, text): (&Path, u64), how: u64, last: bool, execve: impl FnOnce(&mut Program)) {
    let open = [libc::AT_FDCWD.into(), text.into(), how.into(), OPEN_HOW_SIZE.into()];
    let rest = |program: &mut Program| {
        let read = [FILE.into(), Arg::Scratch, sys::HEAD.into()];
        program.call_then(Step::Exec, path, Sys::read, read, Then::Interpreters(how));
        execve(program);
    };
    if last {
        program.call_then(Step::Exec, path, Sys::openat2, open, Then::Keep(FILE));
        return program.sometimes(rest);
    }
    let looked = program.look(Step::Exec, path, (Sys::openat2, open), FILE);
    rest(program);
    program.failure_joins(looked);
}

type Environment = BTreeMap<OsString, OsString>;

fn environment(sandbox: &Sandbox, targets: Option<&Environment>) -> Result<Environment, Error> {
    let mut environment: Environment =
        if sandbox.inherit_env { std::env::vars_os().collect() } else { BTreeMap::new() };
    environment.extend(targets.cloned().unwrap_or_default());
    for (name, value) in &sandbox.env {
        if name.is_empty() || name.as_bytes().contains(&b'=') {
            return Err(Error::config(format!("environment variable {name:?}"), "has no name, or one with '='"));
        }
        environment.insert(name.clone(), value.clone());
    }
    Ok(environment)
}

/// The files that may be the program, as `execvp(3)` tries them. An empty part of PATH is the working directory.
fn candidates(program: &OsStr, path: Option<&OsString>) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let path = path.map_or(DEFAULT_PATH.as_bytes(), |path| path.as_bytes());
    let parts = path.split(|byte| *byte == b':').map(|part| if part.is_empty() { &b"."[..] } else { part });
    parts.map(|part| Path::new(OsStr::from_bytes(part)).join(program)).collect()
}

/// A list of strings as `execve(2)` takes them.
pub(crate) fn pointers(program: &mut Program, strings: Vec<CString>) -> u64 {
    let mut list: Vec<u64> = strings.into_iter().map(|string| program.string(string)).collect();
    list.push(0);
    program.words(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_execvp_does() {
        let found = |program: &str, path: Option<&str>| -> Vec<String> {
            let path = path.map(OsString::from);
            candidates(OsStr::new(program), path.as_ref()).iter().map(|p| p.display().to_string()).collect()
        };
        assert_eq!(found("sh", Some("/a:/b")), ["/a/sh", "/b/sh"]);
        assert_eq!(found("sh", None), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(found("sh", Some("")), ["./sh"]);
        assert_eq!(found("sh", Some("/a::/b:")), ["/a/sh", "./sh", "/b/sh", "./sh"]);
        assert_eq!(found("./sh", Some("/a")), ["./sh"]);
        assert_eq!(found("a/b", Some("/a")), ["a/b"]);
    }
}
