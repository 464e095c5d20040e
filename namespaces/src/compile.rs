//! From a sandbox and its descriptors to a plan: all checks, all memory, the order of the child's steps.

use crate::bind::{CgroupEntry, Names, STREAM_NAMES, Streams, above_streams};
use crate::identity::{Change, Identity};
use crate::join::Joining;
use crate::passing::{self, Passed};
use crate::plan::{Parts, Plan};
use crate::program::{Arg, Finding, Program, SCRATCH, Slot, Stops, Sys, Then};
use crate::start::Found;
use crate::{Engine, Error, Fallbacks, Fds, Namespaces, Sandbox, Step};
use crate::{
    attributes, clocks, engine, fallbacks, gate, idmap, init, limits, mounts, parent_death, privilege, scheduling,
    signals, start, sys, sysctl, terminal,
};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// For a file that one step opens. The first three slots are for pipes, see `bind::STREAM`; those after it for `mounts`.
pub(crate) const FILE: Slot = Slot(3);

pub(crate) fn compile(sandbox: &Sandbox, fds: Fds) -> Result<Plan, Error> {
    check(sandbox)?;
    let cgroup = CgroupEntry::sort(fds.cgroup)?;
    let highest = passing::highest(sandbox);
    let mut names = Names::new(fds.named, highest)?;
    let passed = Passed::bind(sandbox, &mut names)?;
    let streams = Streams::bind(&sandbox.stdio, sandbox.terminal.is_some(), &mut names)?;
    let terminal = terminal::Wanted::of(sandbox, highest)?;
    let joining = Joining::of(sandbox, fds.target)?;
    let apart = sandbox.namespaces | joining.as_ref().map_or(Namespaces::empty(), Joining::joins);
    let sources = mounts::Sources::look_up(sandbox, &mut names, apart.contains(Namespaces::USER))?;
    let identity = Identity::of(sandbox, &mut names, joining.as_ref())?;
    let rights = sandbox.privilege.bind(&mut names, highest, sandbox.fallbacks, identity.leaves_root)?;
    let held = names.finish()?;
    let parent = parent(sandbox, &identity)?;
    let fallback_procs = fallbacks::prepare(sandbox.fallbacks, cgroup.directory.as_ref())?;
    let (found, init) = start::find(sandbox, joining.as_ref(), highest)?;
    let bound = Bound {
        procs: &cgroup.procs,
        fallback_procs: fallback_procs.as_ref(),
        streams: &streams.sources,
        passed: &passed,
        terminal: terminal.as_ref(),
        sources: &sources,
        identity: &identity,
        rights: &rights,
        parent: parent.as_ref().map(AsFd::as_fd),
        joining: joining.as_ref(),
        init: init.as_ref(),
    };
    let (program, engine) = bound.program(sandbox, found)?;
    let (target, of_target) = joining.map(Joining::keep).unzip();
    Ok(Plan::new(Parts {
        name: sandbox.program.clone(),
        program,
        fallbacks: sandbox.fallbacks,
        skipped: rights.skipped,
        left_out: rights.left_out,
        asked: sandbox.engine,
        engine,
        namespaces: of_clone(sandbox, &cgroup, &identity),
        apart,
        target,
        timeout: sandbox.join.as_ref().and_then(|join| join.timeout),
        cgroup: cgroup.directory,
        pipes: streams.pipes,
        terminal,
        listens: sandbox.privilege.reserved() > 0,
        highest,
        die_with_parent: sandbox.die_with_parent,
        forgets_parent: parent_death::is_forgotten(sandbox, &identity, &rights, apart)?,
        init,
        changes_ids: identity.moves,
        maps: identity.maps.filter(|maps| !maps.by_child),
        held: [held, streams.held, sources.held, of_target.unwrap_or_default()]
            .into_iter()
            .flatten()
            .chain(cgroup.procs.into_iter().map(|(_, fd)| fd))
            .chain(parent.into_iter().chain(fallback_procs))
            .collect(),
    }))
}

/// The namespaces that the clone makes.
fn of_clone(sandbox: &Sandbox, cgroup: &CgroupEntry, identity: &Identity) -> Namespaces {
    let mut namespaces = sandbox.namespaces - Namespaces::TIME;
    if !cgroup.procs.is_empty() {
        // Its root is where the process is when it is made: after the version 1 cgroups have been entered.
        namespaces.remove(Namespaces::CGROUP);
    }
    // In a user namespace that is joined the child makes them: they would be the caller's user namespace's.
    if identity.join.is_some() { Namespaces::empty() } else { namespaces }
}

/// The caller's pidfd, where the child has to know of its end: a child that waits for the caller must not wait for ever.
fn parent(sandbox: &Sandbox, identity: &Identity) -> Result<Option<OwnedFd>, Error> {
    if !sandbox.die_with_parent && !identity.by_caller() {
        return Ok(None);
    }
    let failed = |e: std::io::Error| Error::os(Step::Prepare, "pidfd_open", e.raw_os_error().unwrap_or(0));
    let pidfd = sys::own_pidfd().map_err(failed)?;
    above_streams(pidfd).map(Some).map_err(|errno| Error::os(Step::Prepare, "fcntl", errno).about("pidfd"))
}

/// What a sandbox's names stand for.
struct Bound<'a> {
    procs: &'a [(PathBuf, OwnedFd)],
    /// For want of a clone that enters a version 2 cgroup.
    fallback_procs: Option<&'a OwnedFd>,
    streams: &'a [Option<Arg>; 3],
    passed: &'a Passed,
    terminal: Option<&'a terminal::Wanted>,
    sources: &'a mounts::Sources,
    identity: &'a Identity,
    rights: &'a privilege::Bound,
    /// The process whose death ends the child.
    parent: Option<BorrowedFd<'a>>,
    joining: Option<&'a Joining>,
    /// Process 1, if that is not to be the program itself.
    init: Option<&'a init::Wanted>,
}

impl Bound<'_> {
    /// The child's steps, in their order.
    fn program(&self, sandbox: &Sandbox, found: Found) -> Result<(Program, Engine), Error> {
        let engine = self.engine(sandbox, &found)?;
        let mut list = Program::default();
        let program = &mut list;
        self.arrive(program, sandbox);
        sysctl::compile(program, sandbox)?;
        let own_mounts = sandbox.namespaces.contains(Namespaces::MOUNT);
        let root = if own_mounts { mounts::compile(program, self.sources, sandbox)? } else { None };
        self.wait_for_creation(program, root);
        if let Some(root) = root {
            mounts::pivot(program, root, sandbox.allow_chroot);
        }
        attributes::names(program, sandbox)?;
        connect(program, self.streams);
        attributes::session(program, sandbox);
        if let Some(terminal) = self.terminal {
            terminal.compile(program, self.init.is_some());
        }
        limits::compile(program, sandbox)?;
        scheduling::compile(program, sandbox);
        attributes::personality(program, sandbox);
        let (rights, ids) = (self.rights, &self.identity.changes.last);
        rights.before_ids(program, ids.uid.is_some());
        self.change_ids(program, Step::Credentials, ids);
        rights.after_ids(program, &sandbox.privilege, ids.uid.is_some());
        sandbox.privilege.keyring(program, sandbox.fallbacks);
        if let Some(umask) = sandbox.umask {
            program.call(Step::Umask, "", Sys::umask, [umask.into()]);
        }
        self.change_directory(program, sandbox)?;
        self.passed.compile(program);
        rights.prepare_listener(program);
        if let Some(init) = self.init {
            init.compile(program);
        }
        limits::compile_descriptors(program, sandbox);
        rights.restrict(program, &sandbox.privilege, sandbox.fallbacks);
        hold(program, sandbox, self.passed);
        signals::compile(program, sandbox, engine, self.init.is_some())?;
        let_go(program, sandbox.fallbacks, self.passed);
        self.start(program, sandbox, found);
        Ok((list, engine))
    }

    fn engine(&self, sandbox: &Sandbox, found: &Found) -> Result<Engine, Error> {
        let last_calls = start::last_calls(sandbox, found, self.init.is_some());
        let needs = engine::Needs {
            joins: self.joining.is_some(),
            changes_ids: self.identity.changes.of_ids(),
            may_be_killed: self.rights.may_kill(&last_calls),
            moves_memory: engine::moves_memory(self.procs),
        };
        engine::choose(sandbox.engine, needs)
    }

    /// The program, or the init that starts it. That needs no look at the program before: until it runs, `/proc/self/exe` is the init.
    fn start(&self, program: &mut Program, sandbox: &Sandbox, found: Found) {
        if let Some(init) = self.init {
            program.seal(|program| self.rights.seal(program));
            return init.start(program, found);
        }
        start::compile(program, sandbox, self.rights, self.joining, found);
    }

    /// Where it is to be, in cgroups and namespaces, and as whom it is there.
    fn arrive(&self, program: &mut Program, sandbox: &Sandbox) {
        if self.identity.by_caller() {
            program.hold_always();
        }
        if let Some(joining) = self.joining {
            program.proc_is(joining.proc.as_raw_fd());
            joining.compile(program);
        }
        if let Some(parent) = self.parent {
            die_with_parent(program, parent);
        }
        close_descriptors(program, sandbox.fallbacks, self.passed.highest);
        self.enter_cgroups(program, sandbox);
        attributes::oom_score(program, sandbox);
        sandbox.privilege.labels(program);
        // As long as the file of its offsets is the child's: with other ids it is root's.
        clocks::compile(program, sandbox);
        if let Some(maps) = &self.identity.maps {
            maps.compile(program);
        }
        if let Some(user_namespace) = self.identity.join {
            idmap::join(program, user_namespace);
        }
        self.change_ids(program, Step::IdMap, &self.identity.changes.first);
        let others = sandbox.namespaces - Namespaces::USER;
        if self.identity.join.is_some() && !others.is_empty() {
            program.call(Step::Unshare, "", Sys::unshare, [others.bits().into()]);
        }
    }

    /// Everything is mounted, and the host's root is still there. Others may run in its namespaces now: of the host's descriptors it has those that it needs.
    fn wait_for_creation(&self, program: &mut Program, root: Option<Arg>) {
        let step = Step::Creation;
        let numbers = self.passed.sources.values().copied().chain(self.rights.descriptors());
        let numbers = numbers.chain(self.parent.map(|parent| parent.as_raw_fd())).map(Arg::from);
        program.keep(numbers.chain(self.streams.iter().flatten().copied()).chain(root));
        program.keep(self.terminal.and_then(terminal::Wanted::number).map(Arg::from));
        program.keep(
            terminal::DESCRIPTORS
                .into_iter()
                .chain([gate::GATE, privilege::LISTENER, init::FILE, init::HANDOVER])
                .map(Arg::from),
        );
        program.call(step, "", Sys::prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()]);
        let all = [3_u64.into(), u32::MAX.into(), 0_u64.into()];
        program.call_then(step, "", Sys::close_range, all, Then::AllButKept);
        gate::compile(program, step);
    }

    fn enter_cgroups(&self, program: &mut Program, sandbox: &Sandbox) {
        // In a user namespace that is joined they are made later, with all others.
        let own = self.identity.join.is_none() && sandbox.namespaces.contains(Namespaces::CGROUP);
        if let Some(procs) = self.fallback_procs {
            fallbacks::enter_cgroup(program, procs, own && self.procs.is_empty());
        }
        enter_cgroups(program, self.procs);
        if own && !self.procs.is_empty() {
            program.call(Step::CgroupNamespace, "", Sys::unshare, [libc::CLONE_NEWCGROUP.into()]);
        }
    }

    fn change_directory(&self, program: &mut Program, sandbox: &Sandbox) -> Result<(), Error> {
        if let Some(path) = &sandbox.working_directory {
            return change_directory(program, path);
        }
        if let Some(directory) = self.joining.and_then(|joining| joining.working_directory.as_ref()) {
            program.call(Step::WorkingDirectory, "target", Sys::fchdir, [directory.as_raw_fd().into()]);
            check_directory(program, Path::new("target"));
        }
        Ok(())
    }

    fn change_ids(&self, program: &mut Program, step: Step, change: &Change) {
        idmap::change(program, step, change);
        // The kernel forgets with the ids what is to happen at the parent's death.
        if let (true, Some(parent)) = (change.of_ids(), self.parent) {
            die_with_parent(program, parent);
        }
    }
}

/// What can be told to be wrong without asking the kernel.
fn check(sandbox: &Sandbox) -> Result<(), Error> {
    if !Namespaces::all().contains(sandbox.namespaces) {
        return Err(Error::config("namespaces", "have a flag that is none"));
    }
    if !Fallbacks::all().contains(sandbox.fallbacks) {
        return Err(Error::config("fallbacks", "have a flag that is none"));
    }
    clocks::check(sandbox)?;
    if sandbox.program.is_empty() {
        return Err(Error::config("program", "is empty"));
    }
    attributes::check(sandbox)?;
    limits::check(sandbox)?;
    scheduling::check(sandbox)?;
    sysctl::check(sandbox)?;
    mounts::check(sandbox)
}

fn die_with_parent(program: &mut Program, parent: BorrowedFd<'_>) {
    let signal = [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()];
    program.call(Step::ParentDeath, "", Sys::prctl, signal);
    // It may have died before that. getppid() could not tell: it is 0 in a new pid namespace. A pidfd is readable once its process has ended.
    // A struct pollfd in a little-endian word.
    let fd = u64::from(parent.as_raw_fd().cast_unsigned());
    let poll = program.words([fd | u64::from(libc::POLLIN.cast_unsigned()) << 32]);
    let at_once = program.words([0, 0]);
    let args = [poll.into(), 1_u64.into(), at_once.into(), 0_u64.into(), 0_u64.into()];
    program.call_then(Step::ParentDeath, "", Sys::ppoll, args, Then::Exactly(0, libc::ESRCH));
}

/// From here on nothing survives the start of the program but what is put in place afterwards.
fn close_descriptors(program: &mut Program, allowed: Fallbacks, highest: i32) {
    let args = [3_u64.into(), u32::MAX.into(), libc::CLOSE_RANGE_CLOEXEC.into()];
    let [mark, _] = fallbacks::of_close_range(allowed);
    program.call_then(Step::CloseDescriptors, "", Sys::close_range, args, mark);
    if allowed.contains(Fallbacks::CLOSE_EACH) {
        fallbacks::mark_each(program, highest);
    }
}

/// The kernel closes what is marked only after it has opened the program, and its interpreter: a link to `/proc/self/fd/3/..` in a hostile
/// root would lead out through a descriptor that is still there.
fn let_go(program: &mut Program, allowed: Fallbacks, passed: &Passed) {
    let args = [(passed.highest + 1).into(), u32::MAX.into(), 0_u64.into()];
    let [_, close] = fallbacks::of_close_range(allowed);
    program.call_then(Step::LetGo, "", Sys::close_range, args, close);
    passed.close_between(program, Step::LetGo, close, allowed);
    if allowed.contains(Fallbacks::CLOSE_EACH) {
        fallbacks::close_all(program, passed.highest);
    }
}

fn enter_cgroups(program: &mut Program, procs: &[(PathBuf, OwnedFd)]) {
    for (path, fd) in procs {
        let myself = program.string(c"0".to_owned());
        program.call(Step::Cgroup, path, Sys::write, [fd.as_raw_fd().into(), myself.into(), 1_u64.into()]);
    }
}

/// The sources are all above 2, so that no copy overwrites the source of a later one.
fn connect(program: &mut Program, sources: &[Option<Arg>; 3]) {
    for (stream, (source, name)) in sources.iter().zip(STREAM_NAMES).enumerate() {
        if let Some(source) = source {
            program.call(Step::Stdio, name, Sys::dup3, [*source, (stream as u64).into(), 0_u64.into()]);
        }
    }
}

/// Closes what it has of the host, so that no pipe of others stays open because of it, says that it is ready, and waits. The end of the file,
/// when the caller is gone, is no release; and as long as it waits it dies with its parent, in case that somebody else has that file.
fn hold(program: &mut Program, sandbox: &Sandbox, passed: &Passed) {
    let (none, allowed): (Arg, _) = (0_u64.into(), sandbox.fallbacks);
    let [_, close] = fallbacks::of_close_range(allowed);
    program.call(Step::Hold, "", Sys::prctl, [libc::PR_SET_PDEATHSIG.into(), libc::SIGKILL.into()]);
    for [first, last] in gate::OTHERS {
        program.call_then(Step::Hold, "", Sys::close_range, [first.into(), last.into(), none], close);
    }
    passed.close_between(program, Step::Hold, close, allowed);
    if allowed.contains(Fallbacks::CLOSE_EACH) {
        fallbacks::close_each(program, passed.highest);
    }
    // What waits with a copy of the caller's memory while programs of its root run beside it is not for them to look at (CVE-2016-9962, CVE-2019-5736).
    let hide = [libc::PR_SET_DUMPABLE.into(), none];
    program.stopping(Stops::Creation, |program| program.call(Step::Hold, "", Sys::prctl, hide));
    gate::compile(program, Step::Hold);
    if !sandbox.die_with_parent {
        program.call(Step::Hold, "", Sys::prctl, [libc::PR_SET_PDEATHSIG.into(), none]);
    }
}

/// Without magic links: `/proc/self/fd/7` would lead to whatever the host has there, outside the root too (CVE-2024-21626).
fn change_directory(program: &mut Program, path: &Path) -> Result<(), Error> {
    let step = Step::WorkingDirectory;
    let text = program.string(c_string("working directory", path.as_os_str())?);
    let how = program.words(open_how(libc::O_PATH | libc::O_DIRECTORY, libc::RESOLVE_NO_MAGICLINKS));
    let open = [libc::AT_FDCWD.into(), text.into(), how.into(), OPEN_HOW_SIZE.into()];
    program.call_then(step, path, Sys::openat2, open, Then::Keep(FILE));
    program.call(step, path, Sys::fchdir, [FILE.into()]);
    check_directory(program, path);
    Ok(())
}

fn check_directory(program: &mut Program, path: &Path) {
    // The kernel says "(unreachable)" of one that is not in the root, however that came about.
    let absolute = Finding { word: 0, mask: 0xff, value: b'/'.into() };
    let (buffer, size) = (Arg::Scratch, SCRATCH * size_of::<u64>());
    let (step, finds) = (Step::WorkingDirectory, Then::Finds([absolute; 2], libc::ENOENT));
    program.call_then(step, path, Sys::getcwd, [buffer, (size as u64).into()], finds);
}

/// A `struct open_how` that creates nothing.
pub(crate) fn open_how(flags: i32, resolve: u64) -> [u64; 3] {
    [u64::from((flags | libc::O_CLOEXEC).cast_unsigned()), 0, resolve]
}

/// Size of `struct open_how`.
pub(crate) const OPEN_HOW_SIZE: u64 = 24;

pub(crate) fn c_string(what: &'static str, string: &OsStr) -> Result<CString, Error> {
    CString::new(string.to_owned().into_vec())
        .map_err(|_| Error::config(format!("{what} {string:?}"), "contains a zero byte"))
}
