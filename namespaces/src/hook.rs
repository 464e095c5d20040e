//! Programs that run at a point of a sandbox's life.

use crate::error::ErrorKind;
use crate::{Child, Error, Fds, OciState, Sandbox, Stdio, Step};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// So much of the end of what a hook says is part of its error.
const KEPT: usize = 4096;
/// So often at most it is read until a pipe is empty that has been full.
const FULL: usize = 16;

/// A program that runs at a point of a sandbox's life, as OCI's runtime specification has them: see [`Sandbox::create`] for the points.
///
/// It reads the sandbox's [state](OciState) on its standard input, has the environment that is said here and no other, a session of its own, none of the caller's
/// descriptors, and the caller's working directory (inside `/`). What it writes to standard output and error is kept for the error. If the calling thread ends, it is killed.
///
/// A hook that cannot be started is an error as of [`Plan::spawn`](crate::Plan::spawn). One that ends with another status than 0 is one of kind
/// [`HookFailed`](ErrorKind::HookFailed), which has the end of what it said; one that takes too long is killed together with its process group, and is of kind
/// [`TimedOut`](ErrorKind::TimedOut). What a hook has started in the background, and that is in a group of its own, goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Hook {
    path: PathBuf,
    arg0: Option<OsString>,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    timeout: Option<Duration>,
}

impl Hook {
    /// The program at this path, which must be absolute.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Hook { path: path.into(), arg0: None, args: Vec::new(), env: BTreeMap::new(), timeout: None }
    }

    /// Its own name, the first of OCI's `args`. By default its path.
    pub fn arg0(mut self, name: impl Into<OsString>) -> Self {
        self.arg0 = Some(name.into());
        self
    }

    /// Adds arguments: OCI's `args` but the first.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Kills it when it has run so long. By default it may take for ever.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    fn check(&self) -> Result<(), Error> {
        if !self.path.is_absolute() {
            return Err(Error::config(&self.path, "is no absolute path of a hook"));
        }
        if self.timeout == Some(Duration::ZERO) {
            return Err(Error::config(&self.path, "has no time to run"));
        }
        Ok(())
    }
}

impl Child {
    /// Runs these hooks one after the other where the caller is: the program has started. Returns the errors of those that fail; the others are run all the same.
    ///
    /// Up to version 1.2.0 OCI's specification wants such a failure to be a warning, and the container to go on; later ones want it to be stopped. That is
    /// the caller's to do.
    #[must_use = "these are the errors"]
    pub fn poststart(&self, hooks: &[Hook], state: &OciState) -> Vec<Error> {
        run_all(hooks, &state.json("running", Some(self.id())))
    }

    /// As [`poststart`](Child::poststart), after the sandbox's end and when the caller has put away what it has made for it. Its state has no `pid`.
    #[must_use = "these are the errors"]
    pub fn poststop(&self, hooks: &[Hook], state: &OciState) -> Vec<Error> {
        run_all(hooks, &state.json("stopped", None))
    }
}

fn run_all(hooks: &[Hook], json: &str) -> Vec<Error> {
    hooks.iter().filter_map(|one| run(one, (Sandbox::new(""), Fds::new()), json).err()).collect()
}

/// The number that a process has in its own pid namespace.
pub(crate) fn pid_inside(pid: u32) -> Result<u32, Error> {
    let path = format!("/proc/{pid}/status");
    let failed = |errno| Error::os(Step::Hook, "read", errno).about(&path);
    let status = std::fs::read_to_string(&path).map_err(|e| failed(e.raw_os_error().unwrap_or(0)))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).ok_or_else(|| failed(libc::ESRCH))
}

/// Runs a hook as this sandbox, whose program it is.
pub(crate) fn run(hook: &Hook, (mut sandbox, fds): (Sandbox, Fds), json: &str) -> Result<(), Error> {
    hook.check()?;
    sandbox.program = hook.path.clone().into();
    sandbox.args.clone_from(&hook.args);
    sandbox.arg0.clone_from(&hook.arg0);
    sandbox.env.clone_from(&hook.env);
    let sandbox = sandbox.new_session().die_with_parent();
    let sandbox = sandbox.stdin(Stdio::fd("state")).stdout(Stdio::fd("said")).stderr(Stdio::fd("said"));
    let (said, theirs) = pipe().map_err(failed(hook, "pipe2"))?;
    let begin = Instant::now();
    // It dies with its caller where the kernel does not forget that: it is waited for here all the same.
    let fds = fds.bind("state", file_of(hook, json)?).bind("said", theirs);
    let child = crate::compile::compile(&sandbox, fds)?.spawn()?;
    let mut said = Said { pipe: Some(said), end: Vec::new() };
    let ended = said.listen(hook, &child, hook.timeout.and_then(|timeout| begin.checked_add(timeout)));
    if !matches!(ended, Ok(true)) {
        stop(&child);
    }
    let status = child.wait()?;
    let (kind, words) = match ended? {
        true if status.success() => return Ok(()),
        true => (ErrorKind::HookFailed, format!("ended with {status}")),
        false => (ErrorKind::TimedOut, format!("was killed after {:?}", hook.timeout.unwrap_or_default())),
    };
    Err(Error::words(kind, Step::Hook, &hook.path, words + &said.quoted()))
}

/// With its process group, which has its number as long as it has not been waited for.
fn stop(child: &Child) {
    if let Ok(group) = i32::try_from(child.id())
        && group > 1
        && child.signal(0).is_ok()
    {
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    // The one that matters: it may be in another group.
    let _ = child.kill();
}

/// A file of nobody else's, to be read from its beginning.
fn file_of(hook: &Hook, text: &str) -> Result<OwnedFd, Error> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(c"state", flags).map_err(|errno| failed(hook, "memfd_create")(errno.into()))?;
    let file = File::from(file);
    file.write_all_at(text.as_bytes(), 0).map_err(failed(hook, "pwrite64"))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all())).map_err(|errno| failed(hook, "fcntl")(errno.into()))?;
    Ok(file.into())
}

fn failed(hook: &Hook, call: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::os(Step::Hook, call, error.raw_os_error().unwrap_or(0)).about(&hook.path)
}

/// What a hook writes.
struct Said {
    /// Until nobody has the other side any more.
    pipe: Option<PipeReader>,
    end: Vec<u8>,
}

impl Said {
    /// Reads until the hook has ended, whoever else may still write, or the time is up; returns whether it has ended.
    fn listen(&mut self, hook: &Hook, child: &Child, until: Option<Instant>) -> Result<bool, Error> {
        loop {
            let left = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(Duration::ZERO) => return Ok(false),
                Some(left) => PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX),
            };
            let (ended, mut says) = self.wait(child, left).map_err(failed(hook, "poll"))?;
            // What it has left behind may write for ever: once it has ended, what there was in the pipe is all.
            for _ in 0..if ended { FULL } else { 1 } {
                if says {
                    self.read().map_err(failed(hook, "read"))?;
                    says = self.wait(child, PollTimeout::ZERO).map_err(failed(hook, "poll"))?.1;
                }
            }
            if ended {
                return Ok(true);
            }
        }
    }

    /// Whether it has ended, and whether there is something to read.
    fn wait(&self, child: &Child, timeout: PollTimeout) -> io::Result<(bool, bool)> {
        let mut ready = vec![PollFd::new(child.as_fd(), PollFlags::POLLIN)];
        ready.extend(self.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false)),
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = ready.iter().map(|fd| fd.any() == Some(true));
        Ok((ready.next() == Some(true), ready.next() == Some(true)))
    }

    /// What is there now.
    fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; KEPT];
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let read = pipe.read(&mut bytes)?;
        if read == 0 {
            self.pipe = None;
        }
        self.end.extend_from_slice(bytes.get(..read).unwrap_or_default());
        let more = self.end.len().saturating_sub(KEPT);
        self.end.drain(..more);
        Ok(())
    }

    /// It may have said anything.
    fn quoted(&self) -> String {
        let text = String::from_utf8_lossy(&self.end);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!(": {text:?}") }
    }
}
