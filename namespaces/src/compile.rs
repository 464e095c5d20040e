//! From a sandbox and its descriptors to a plan: all checks, all memory, the order of the child's steps.

use crate::bind::{CgroupEntry, STREAM_NAMES, Streams};
use crate::plan::{Parts, Plan};
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::sys::SIGNAL_SET_SIZE;
use crate::{Error, Fds, IdMap, Mount, Namespaces, Sandbox, Step, sys};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

// The first three slots are for pipes, see `bind::STREAM`.
const FILE: Slot = Slot(3);
const CONTEXT: Slot = Slot(4);
const MOUNT: Slot = Slot(5);
const TARGET: Slot = Slot(6);

const HOSTNAME_MAX: usize = 64;
/// Where `execvp(3)` looks when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

pub(crate) fn compile(sandbox: &Sandbox, fds: Fds) -> Result<Plan, Error> {
    check(sandbox)?;
    let cgroup = CgroupEntry::sort(fds.cgroup)?;
    let streams = Streams::bind(&sandbox.stdio, fds.named)?;
    let parent = if sandbox.die_with_parent {
        Some(sys::own_pidfd().map_err(|e| Error::os(Step::Prepare, "pidfd_open", e.raw_os_error().unwrap_or(0)))?)
    } else {
        None
    };

    let mut program = Program::default();
    if let Some(parent) = &parent {
        die_with_parent(&mut program, parent.as_fd());
    }
    close_descriptors(&mut program);
    enter_cgroups(&mut program, &cgroup.procs);
    let mut at_clone = sandbox.namespaces;
    if !cgroup.procs.is_empty() && at_clone.contains(Namespaces::CGROUP) {
        // Its root is where the process is when it is made: after the version 1 cgroups have been entered.
        at_clone.remove(Namespaces::CGROUP);
        program.call(Step::CgroupNamespace, "", Sys::unshare, [libc::CLONE_NEWCGROUP.into()]);
    }
    if sandbox.namespaces.contains(Namespaces::USER) {
        map_ids(&mut program, sandbox.user.unwrap_or(IdMap::root()));
    }
    if sandbox.namespaces.contains(Namespaces::MOUNT) {
        make_mounts_private(&mut program);
    }
    for mount in &sandbox.mounts {
        mount_proc(&mut program, mount)?;
    }
    if let Some(name) = &sandbox.hostname {
        let text = program.string(c_string("hostname", name)?);
        program.call(Step::Hostname, name, Sys::sethostname, [text.into(), (name.len() as u64).into()]);
    }
    connect(&mut program, &streams.sources);
    if let Some(path) = &sandbox.working_directory {
        let text = program.string(c_string("working directory", path.as_os_str())?);
        program.call(Step::WorkingDirectory, path, Sys::chdir, [text.into()]);
    }
    reset_signals(&mut program)?;
    start(&mut program, sandbox)?;

    Ok(Plan::new(Parts {
        name: sandbox.program.clone(),
        program,
        namespaces: at_clone,
        cgroup: cgroup.directory,
        pipes: streams.pipes,
        held: streams.held.into_iter().chain(cgroup.procs.into_iter().map(|(_, fd)| fd)).chain(parent).collect(),
    }))
}

/// What can be told to be wrong without asking the kernel.
fn check(sandbox: &Sandbox) -> Result<(), Error> {
    let needs = |namespace, object: &str, words| {
        if sandbox.namespaces.contains(namespace) { Ok(()) } else { Err(Error::config(object, words)) }
    };
    if sandbox.program.is_empty() {
        return Err(Error::config("program", "is empty"));
    }
    if let Some(name) = &sandbox.hostname {
        needs(Namespaces::UTS, "hostname", "needs Namespaces::UTS, or it would be the host's")?;
        if name.len() > HOSTNAME_MAX {
            return Err(Error::config("hostname", "is longer than 64 bytes"));
        }
    }
    for mount in &sandbox.mounts {
        let object = format!("mount on {:?}", mount.target);
        needs(Namespaces::MOUNT, &object, "needs Namespaces::MOUNT, or it would be the host's")?;
        if !mount.target.is_absolute() {
            return Err(Error::config(object, "is not an absolute path"));
        }
    }
    Ok(())
}

fn die_with_parent(program: &mut Program, parent: BorrowedFd<'_>) {
    let signal = [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()];
    program.call(Step::ParentDeath, "", Sys::prctl, signal);
    // It may have died before that. getppid() could not tell: it is 0 in a new pid namespace. A pidfd is readable once its process has ended.
    let fd = u64::from(parent.as_raw_fd().cast_unsigned());
    let poll = program.words([fd | u64::from(libc::POLLIN.cast_unsigned()) << POLLFD_EVENTS]);
    let at_once = program.words([0, 0]);
    let args = [poll.into(), 1_u64.into(), at_once.into(), 0_u64.into(), 0_u64.into()];
    program.call_then(Step::ParentDeath, "", Sys::ppoll, args, Then::Zero(libc::ESRCH));
}

/// Bits before `events` in a `pollfd` read as one machine word.
const POLLFD_EVENTS: u32 = if cfg!(target_endian = "little") { 32 } else { 16 };

/// From here on nothing survives the start of the program but what is put in place afterwards.
fn close_descriptors(program: &mut Program) {
    let args = [3_u64.into(), u32::MAX.into(), libc::CLOSE_RANGE_CLOEXEC.into()];
    program.call(Step::CloseDescriptors, "", Sys::close_range, args);
}

fn enter_cgroups(program: &mut Program, procs: &[(PathBuf, OwnedFd)]) {
    for (path, fd) in procs {
        let myself = program.string(c"0".to_owned());
        program.call(Step::Cgroup, path, Sys::write, [fd.as_raw_fd().into(), myself.into(), 1_u64.into()]);
    }
}

/// One id each, which the process may write itself. setgroups first: who may drop groups could pass a file that denies one of them.
fn map_ids(program: &mut Program, map: IdMap) {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let files = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("{} {uid} 1", map.uid)),
        (c"/proc/self/gid_map", format!("{} {gid} 1", map.gid)),
    ];
    for (path, text) in files {
        let object = OsStr::from_bytes(path.to_bytes());
        let path = program.string(path.to_owned());
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let open = [libc::AT_FDCWD.into(), path.into(), flags.into(), 0_u64.into()];
        program.call_then(Step::IdMap, object, Sys::openat, open, Then::Keep(FILE));
        let len = text.len() as u64;
        let text = program.string(CString::new(text).unwrap_or_default());
        program.call(Step::IdMap, object, Sys::write, [FILE.into(), text.into(), len.into()]);
    }
}

fn make_mounts_private(program: &mut Program) {
    let none = program.string(c"none".to_owned());
    let root = program.string(c"/".to_owned());
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let args = [none.into(), root.into(), 0_u64.into(), flags.into(), 0_u64.into()];
    program.call(Step::Propagation, "/", Sys::mount, args);
}

/// A new mount, attached to a mount point that was opened first: what is checked is what is mounted upon.
fn mount_proc(program: &mut Program, mount: &Mount) -> Result<(), Error> {
    let (step, object) = (Step::Mount, &mount.target);
    let target = program.string(c_string("mount point", mount.target.as_os_str())?);
    let how = program.words([
        u64::from((libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC).cast_unsigned()),
        0,
        libc::RESOLVE_NO_MAGICLINKS,
    ]);
    let open = [libc::AT_FDCWD.into(), target.into(), how.into(), OPEN_HOW_SIZE.into()];
    program.call_then(step, object, Sys::openat2, open, Then::Keep(TARGET));

    let kind = program.string(c"proc".to_owned());
    program.call_then(step, object, Sys::fsopen, [kind.into(), FSOPEN_CLOEXEC.into()], Then::Keep(CONTEXT));
    let zero = Arg::Value(0);
    program.call(step, object, Sys::fsconfig, [CONTEXT.into(), FSCONFIG_CMD_CREATE.into(), zero, zero, zero]);
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let args = [CONTEXT.into(), FSMOUNT_CLOEXEC.into(), attributes.into()];
    program.call_then(step, object, Sys::fsmount, args, Then::Keep(MOUNT));

    let here = program.string(CString::default());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let attach = [MOUNT.into(), here.into(), TARGET.into(), here.into(), flags.into()];
    program.call(step, object, Sys::move_mount, attach);
    Ok(())
}

/// Size of `struct open_how`.
const OPEN_HOW_SIZE: u64 = 24;
const FSOPEN_CLOEXEC: u64 = 1;
const FSMOUNT_CLOEXEC: u64 = 1;
const FSCONFIG_CMD_CREATE: u64 = 6;
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u64 = 0x40;

/// The sources are all above 2, so that no copy overwrites the source of a later one.
fn connect(program: &mut Program, sources: &[Option<Arg>; 3]) {
    for (stream, (source, name)) in sources.iter().zip(STREAM_NAMES).enumerate() {
        if let Some(source) = source {
            program.call(Step::Stdio, name, Sys::dup3, [*source, (stream as u64).into(), 0_u64.into()]);
        }
    }
}

/// The clone has reset all handlers, but what the caller ignores stays ignored; Rust's runtime ignores SIGPIPE.
fn reset_signals(program: &mut Program) -> Result<(), Error> {
    let default = program.words([libc::SIG_DFL as u64, 0, 0, 0]);
    let size: Arg = SIGNAL_SET_SIZE.into();
    for signal in sys::ignored_signals().map_err(|errno| Error::os(Step::Prepare, "rt_sigaction", errno))? {
        let args = [signal.into(), default.into(), 0_u64.into(), size];
        program.call(Step::Signals, format!("signal {signal}"), Sys::rt_sigaction, args);
    }
    let none = program.words([0]);
    let args = [libc::SIG_SETMASK.into(), none.into(), 0_u64.into(), size];
    program.call(Step::Signals, "", Sys::rt_sigprocmask, args);
    Ok(())
}

fn start(program: &mut Program, sandbox: &Sandbox) -> Result<(), Error> {
    let environment = environment(sandbox)?;
    let candidates = candidates(&sandbox.program, environment.get(OsStr::new("PATH"))).into_iter().map(|path| {
        let text = c_string("program", path.as_os_str())?;
        Ok((path, program.string(text)))
    });
    let candidates = candidates.collect::<Result<Vec<_>, Error>>()?;
    let argv = [&sandbox.program].into_iter().chain(&sandbox.args).map(|arg| c_string("argument", arg));
    let argv = pointers(program, argv.collect::<Result<_, _>>()?);
    let envp = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string("environment variable", &name)
    });
    let envp = pointers(program, envp.collect::<Result<_, _>>()?);
    let last = candidates.len().saturating_sub(1);
    for (at, (path, text)) in candidates.into_iter().enumerate() {
        let then = if at == last { Then::Go } else { Then::TryNext };
        program.call_then(Step::Exec, path, Sys::execve, [text.into(), argv.into(), envp.into()], then);
    }
    Ok(())
}

fn environment(sandbox: &Sandbox) -> Result<BTreeMap<OsString, OsString>, Error> {
    let mut environment: BTreeMap<_, _> =
        if sandbox.inherit_env { std::env::vars_os().collect() } else { BTreeMap::new() };
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
fn pointers(program: &mut Program, strings: Vec<CString>) -> u64 {
    let mut list: Vec<u64> = strings.into_iter().map(|string| program.string(string)).collect();
    list.push(0);
    program.words(list)
}

fn c_string(what: &'static str, string: &OsStr) -> Result<CString, Error> {
    CString::new(string.to_owned().into_vec())
        .map_err(|_| Error::config(format!("{what} {string:?}"), "contains a zero byte"))
}
