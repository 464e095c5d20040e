//! Joining the namespaces of others: what is wanted, and the calls for it.

use crate::bind::above_streams;
use crate::program::{Program, Sys, Then};
use crate::target::{Gathered, Kind, Process, before_user, own_namespaces};
use crate::targets_ids::{self, Ids};
use crate::{Credentials, Error, NamespaceId, Namespaces, Sandbox, Step, Target, idmap};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// What of a [`Target`](crate::Target) a sandbox joins, and what else it takes from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields, default))]
#[doc(alias("nsenter", "exec", "setns"))]
pub struct Join {
    pub(crate) namespaces: Option<Namespaces>,
    pub(crate) working_directory: bool,
    pub(crate) environment: bool,
    pub(crate) credentials: bool,
    pub(crate) timeout: Option<Duration>,
}

impl Join {
    /// Every namespace of the target's that is not the caller's already.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only these.
    ///
    /// Without the target's user namespace the program has the caller's user and capabilities also where it runs the target's files.
    #[must_use]
    pub fn only(namespaces: Namespaces) -> Self {
        Join { namespaces: Some(namespaces), ..Self::default() }
    }

    /// Starts in the target's working directory, instead of `/` where a mount namespace is joined.
    #[must_use]
    #[doc(alias("cwd", "wd"))]
    pub fn working_directory(mut self) -> Self {
        self.working_directory = true;
        self
    }

    /// Starts with the environment that the target's program was started with, as `/proc/PID/environ` has it; variables of the sandbox's go on top.
    ///
    /// The target may have changed it: it is what the target says, `PATH` and `LD_PRELOAD` too. Where the target's mount namespace is not joined, because it is
    /// not among those that are asked for or is the caller's own, these would name the caller's files: that is an error.
    #[must_use]
    #[doc(alias("env", "environ"))]
    pub fn environment(mut self) -> Self {
        self.environment = true;
        self
    }

    /// Is who the target is: its effective user, group and supplementary groups. By default root, where a user namespace is joined that has one, and
    /// otherwise the caller. [`Sandbox::credentials`](crate::Sandbox::credentials) overrule it.
    ///
    /// A user namespace that has neither is an error: who is not mapped in there would still be the caller, for all files of his.
    #[must_use]
    pub fn credentials(mut self) -> Self {
        self.credentials = true;
        self
    }

    /// How long the target may keep the caller. By default for ever.
    ///
    /// [`spawn`](crate::Plan::spawn), [`hold`](crate::Plan::hold) and [`release`](crate::Held::release) each return then, with an error of kind
    /// [`TimedOut`](crate::ErrorKind::TimedOut), and what was on its way into the target is killed. That may go later: a file system of the target's (FUSE) that has been asked
    /// something, and does not answer, keeps even a killed process until it does, or is gone itself, as with the target that serves it. Until then two threads of this
    /// crate's wait for that process, and what [`hold`](crate::Plan::hold) says of a suspended one holds. Where the system has no thread left for that
    /// (`RLIMIT_NPROC`, `pids.max`), the caller itself waits, longer than this.
    ///
    /// It takes a thread and is slower than without. The target's [environment](Join::environment) cannot be asked for beside it: who reads it has to wait for a lock of the
    /// target's memory, which a hostile one may keep.
    #[must_use]
    #[doc(alias("deadline", "hang"))]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl Sandbox {
    /// Joins namespaces that are there, `setns(2)`: those of the [`Target`](crate::Target) that [`Fds::target`](crate::Fds::target) binds.
    ///
    /// It is what `nsenter(1)` and `docker exec` do. All else of the sandbox holds as without: environment, working directory,
    /// credentials, limits, streams, cgroup. Where the mount namespace is joined, the root is the target's. Namespaces of its own
    /// ([`namespaces`](Sandbox::namespaces)), but for user and time, are made beside those that are joined, and belong to the user namespace that is joined.
    ///
    /// The target may be hostile. What joins it is a copy of the caller ([`Engine::Copy`](crate::Engine::Copy)) that nobody in there may trace (CVE-2016-9962),
    /// and its program starts with nothing of the caller's. Where the administrator has set `fs.suid_dumpable` to 1, the kernel does not keep to that, and
    /// joining a user namespace, or changing the user, is an error. A second process is needed for a moment, and counts in the cgroup. Nothing of the
    /// target's confinement but its namespaces and its root is taken over: neither its cgroup nor its capabilities, seccomp filter or limits.
    ///
    /// The caller's supplementary groups are dropped before a user namespace is joined. A caller that may not drop them (`CAP_SETGID`) keeps them, unless
    /// `setgroups(2)` is allowed inside.
    ///
    /// The caller waits until the program has started, and a hostile target can make that long: who may signal the child in there, as root of a pid namespace may, can
    /// stop it (`SIGSTOP`), and a file system of the target's own (FUSE) over `/bin`, or wherever the program is looked for, need not answer.
    /// Where the caller must not be kept, [`Join::timeout`] says how long it may take.
    ///
    /// As long as nobody may trace the child, its own files in `/proc` are root's: [`oom_score_adj`](Sandbox::oom_score_adj) and labels are for a caller
    /// who is root; for another one they fail (`EACCES`).
    #[must_use]
    #[doc(alias("nsenter", "setns", "docker exec"))]
    pub fn join(mut self, join: Join) -> Self {
        self.join = Some(join);
        self
    }
}

/// A join that has been looked up.
#[derive(Debug)]
pub(crate) struct Joining {
    target: Target,
    /// What is joined, and by what: in this order.
    pub(crate) calls: Vec<(Namespaces, i32)>,
    root: Option<OwnedFd>,
    pub(crate) working_directory: Option<OwnedFd>,
    pub(crate) environment: Option<BTreeMap<OsString, OsString>>,
    /// The user namespace that is joined: who there is in it.
    pub(crate) ids: Option<Ids>,
    credentials: Option<Credentials>,
    /// The caller's `/proc`, for files of the child's: the target's may be anything (CVE-2019-16884).
    pub(crate) proc: OwnedFd,
}

impl Joining {
    pub(crate) fn of(sandbox: &Sandbox, target: Option<Target>) -> Result<Option<Self>, Error> {
        match (&sandbox.join, target) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(Error::config("target", "is not bound")),
            (None, Some(_)) => Err(Error::config("target", "is bound, but the sandbox does not join it")),
            (Some(join), Some(target)) => {
                check(sandbox, join)?;
                let mut joining = Self::new(target)?;
                match &*joining.target.clone().0 {
                    Kind::Process(process) => joining.look_at(process, join)?,
                    Kind::Namespaces(namespaces) => joining.take(namespaces, join)?,
                }
                if joining.joins().intersects(sandbox.namespaces) {
                    return Err(Error::config("namespaces", "are both joined and new"));
                }
                Ok(Some(joining))
            }
        }
    }

    fn new(target: Target) -> Result<Self, Error> {
        let failed = |errno| Error::os(Step::Target, "openat", errno).about("/proc");
        let proc = std::fs::File::open("/proc").map_err(|e| failed(e.raw_os_error().unwrap_or(0)))?;
        let proc = above_streams(proc.into()).map_err(failed)?;
        let (root, working_directory, environment, ids, credentials) = (None, None, None, None, None);
        Ok(Joining { target, calls: Vec::new(), root, working_directory, environment, ids, credentials, proc })
    }

    fn look_at(&mut self, process: &Process, join: &Join) -> Result<(), Error> {
        let mut theirs = Vec::new();
        for (kind, name) in crate::namespace::KINDS {
            theirs.extend(process.namespace(name)?.map(|id| (kind, id)));
        }
        let joined = choose(join.namespaces, &own_namespaces()?, &theirs)?;
        if !joined.is_empty() {
            self.calls.push((joined, process.pidfd.as_raw_fd()));
        }
        if joined.contains(Namespaces::MOUNT) {
            self.root = Some(process.directory("root")?);
        }
        if join.working_directory {
            self.working_directory = Some(process.directory("cwd")?);
        }
        if join.environment {
            // It names files, which are the program's own to load: LD_PRELOAD.
            if self.root.is_none() {
                return Err(Error::config("environment", "of a target whose mount namespace is not joined"));
            }
            self.environment = Some(variables(&process.read("environ")?));
        }
        let ids = targets_ids::of(process)?;
        if join.credentials {
            self.credentials = Some(targets_ids::credentials(
                &process.read("status")?,
                joined.contains(Namespaces::USER).then_some(&ids),
            )?);
        }
        self.ids = joined.contains(Namespaces::USER).then_some(ids);
        Ok(())
    }

    fn take(&mut self, gathered: &Gathered, join: &Join) -> Result<(), Error> {
        let namespaces = &gathered.fds;
        if join.working_directory || join.environment || join.credentials {
            return Err(Error::config("target", "is no process: it has no directory, environment or credentials"));
        }
        let mut theirs = Vec::new();
        for (kind, fd) in namespaces {
            theirs.push((*kind, NamespaceId::of(fd)?));
        }
        let joined = choose(join.namespaces, &own_namespaces()?, &theirs)?;
        let joined = namespaces.iter().filter(|(kind, _)| joined.contains(*kind));
        let mut after = Vec::new();
        let user = joined.clone().find(|(kind, _)| *kind == Namespaces::USER);
        for (kind, fd) in joined {
            let early = match user {
                Some((_, user)) => *kind != Namespaces::USER && before_user(user.as_fd(), fd.as_fd())?,
                None => true,
            };
            let calls = if early { &mut self.calls } else { &mut after };
            calls.push((*kind, fd.as_raw_fd()));
        }
        // False before true: the user namespace is the first of its own.
        after.sort_by_key(|(kind, _)| *kind != Namespaces::USER);
        self.calls.append(&mut after);
        self.ids = user.map(|_| gathered.ids.clone().unwrap_or_else(Ids::unknown));
        if let Some(root) = gathered.root.as_ref().filter(|_| self.enters_root()) {
            let failed = |e: io::Error| Error::os(Step::Target, "fcntl", e.raw_os_error().unwrap_or(0)).about("root");
            let root = root.try_clone().map_err(failed)?;
            self.root = Some(above_streams(root).map_err(|errno| Error::os(Step::Target, "fcntl", errno))?);
        }
        Ok(())
    }

    /// All that are joined.
    pub(crate) fn joins(&self) -> Namespaces {
        self.calls.iter().fold(Namespaces::empty(), |all, (kinds, _)| all | *kinds)
    }

    /// The program's own credentials, or the target's.
    pub(crate) fn credentials<'a>(&'a self, sandbox: &'a Sandbox) -> Option<&'a Credentials> {
        sandbox.credentials.as_ref().or(self.credentials.as_ref())
    }

    /// Whether the root is one that others have made.
    pub(crate) fn enters_root(&self) -> bool {
        self.joins().contains(Namespaces::MOUNT)
    }

    /// What is to be kept open as long as the plan.
    pub(crate) fn keep(self) -> (Target, Vec<OwnedFd>) {
        (self.target, [Some(self.proc), self.root, self.working_directory].into_iter().flatten().collect())
    }

    /// The calls of the process between: it goes where the child is to be, and clones it.
    pub(crate) fn compile(&self, program: &mut Program) {
        let object = match &*self.target.0 {
            Kind::Process(process) => process.name(),
            Kind::Namespaces(_) => String::new(),
        };
        // Before it is in sight: root in there must not look into a copy of the caller's memory, or write to it.
        program.call(Step::Join, "", Sys::prctl, [libc::PR_SET_DUMPABLE.into(), 0_u64.into()]);
        if self.ids.is_some() {
            idmap::drop_groups(program, Step::Join);
        }
        for (kinds, fd) in &self.calls {
            let object = if object.is_empty() { names(*kinds) } else { object.clone() };
            program.call(Step::Join, object, Sys::setns, [(*fd).into(), kinds.bits().into()]);
        }
        if let Some(root) = &self.root {
            // The namespace's own root is another one if the target has changed it: more may be in sight there.
            let here = program.string(c".".to_owned());
            program.call(Step::Join, "root", Sys::fchdir, [root.as_raw_fd().into()]);
            program.call(Step::Join, "root", Sys::chroot, [here.into()]);
        }
        program.call_then(Step::Join, object, Sys::clone3, [], Then::PassOn);
    }
}

fn check(sandbox: &Sandbox, join: &Join) -> Result<(), Error> {
    if !Namespaces::all().contains(join.namespaces.unwrap_or_default()) {
        return Err(Error::config("join", "has a flag that is no namespace"));
    }
    if join.timeout == Some(Duration::ZERO) {
        return Err(Error::config("join", "has no time"));
    }
    if join.timeout.is_some() && join.environment {
        return Err(Error::config("environment", "cannot be had beside a timeout: the target may keep who reads it"));
    }
    if sandbox.namespaces.intersects(Namespaces::USER | Namespaces::TIME) {
        return Err(Error::config("user or time namespace", "cannot be new where others are joined"));
    }
    Ok(())
}

/// With this setting a process that is not dumpable becomes so whenever its ids or its user namespace change: for a moment at least, a hostile target could
/// look into a copy of the caller's memory.
pub(crate) fn check_stays_hidden() -> Result<(), Error> {
    let path = "/proc/sys/fs/suid_dumpable";
    let text = std::fs::read(path);
    match text.map_err(|e| Error::os(Step::Prepare, "read", e.raw_os_error().unwrap_or(0)).about(path))? {
        text if text.starts_with(b"1") => {
            Err(Error::config(path, "is 1: who joins a user namespace could be traced from there"))
        }
        _ => Ok(()),
    }
}

fn names(kinds: Namespaces) -> String {
    kinds.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" | ")
}

/// Which of the target's are joined: all that are asked for, and that one is not in yet. To join one's own user namespace is an error to the kernel.
fn choose(
    asked: Option<Namespaces>,
    ours: &[(Namespaces, NamespaceId)],
    theirs: &[(Namespaces, NamespaceId)],
) -> Result<Namespaces, Error> {
    let known = theirs.iter().fold(Namespaces::empty(), |all, (kind, _)| all | *kind);
    let missing = asked.unwrap_or(known) - known;
    if !missing.is_empty() {
        return Err(Error::config(names(missing), "is nothing that the target has"));
    }
    let others = theirs.iter().filter(|their| !ours.contains(their));
    let others = others.fold(Namespaces::empty(), |all, (kind, _)| all | *kind);
    Ok(asked.unwrap_or(known) & others)
}

/// As `/proc/PID/environ` has them. What has no name is left out; of two with the same name the first one counts, as for `getenv(3)`.
fn variables(environ: &[u8]) -> BTreeMap<OsString, OsString> {
    let mut found = BTreeMap::new();
    for variable in environ.split(|byte| *byte == 0) {
        let Some(at) = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else { continue };
        let (name, value) = variable.split_at(at);
        let value = value.get(1..).unwrap_or_default();
        let name = OsString::from_vec(name.to_vec());
        found.entry(name).or_insert_with(|| OsString::from_vec(value.to_vec()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_is_in_is_not_joined() {
        let id = |number| NamespaceId::of_numbers(4, number);
        let (user, net, pid) = (Namespaces::USER, Namespaces::NET, Namespaces::PID);
        let ours = [(user, id(1)), (net, id(2)), (pid, id(3))];
        let theirs = [(user, id(1)), (net, id(22)), (pid, id(33))];
        let cases = [(None, net | pid), (Some(net), net), (Some(user | net), net), (Some(user), Namespaces::empty())];
        for (asked, expected) in cases {
            assert_eq!(choose(asked, &ours, &theirs).unwrap(), expected, "{asked:?}");
        }
        let error = choose(Some(net | Namespaces::UTS), &ours, &theirs).unwrap_err();
        assert_eq!(error.object().unwrap(), "UTS");
    }

    #[test]
    fn an_environment_is_what_getenv_finds() {
        let found = variables(b"A=1\0B=x=y\0A=2\0=odd\0none\0C=\0\0");
        let found: Vec<_> = found.iter().map(|(n, v)| (n.to_str().unwrap(), v.to_str().unwrap())).collect();
        assert_eq!(found, [("A", "1"), ("B", "x=y"), ("C", "")]);
        assert!(variables(b"").is_empty());
    }
}
