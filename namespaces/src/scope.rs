//! Working as root without being root: a user namespace in which the caller's own code runs.

use crate::{Error, Fds, IdMap, Namespaces, Sandbox, Step};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::thread;

/// A user namespace with a mount namespace of its own, and others if wanted, in which code of this program can run.
///
/// An ordinary user may mount overlays, make whiteouts or configure links only inside a user namespace of their own, and a program
/// with threads cannot enter one. But a process that shares its memory and its descriptors can: [`run`](Scope::run) makes one
/// for the time of a closure. What the closure opens or mounts is there afterwards, as any descriptor is.
///
/// ```no_run
/// # use cofferdam_namespaces::{Error, Fds, IdMap, Mount, Namespaces, Root, Sandbox, Scope};
/// # fn overlay() -> std::io::Result<std::os::fd::OwnedFd> { unimplemented!() }
/// let scope = Scope::new(IdMap::root(), Namespaces::empty())?;
/// // SAFETY: none of the three does anything that Scope::run forbids.
/// let status = unsafe {
///     scope.run(|| -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
///         let root = overlay()?; // mounted with the rights of the scope
///         let sandbox = Sandbox::new("/bin/sh")
///             .user(IdMap::root()) // one of its own: in the scope's it could write our memory
///             .namespaces(Namespaces::MOUNT)
///             .root(Root::mount("root"));
///         Ok(sandbox.spawn_with(Fds::new().bind("root", root))?.wait()?)
///     })
/// }?;
/// # Ok::<(), Error>(())
/// ```
///
/// No process is left between two runs: the descriptors keep the namespaces.
#[derive(Debug)]
#[doc(alias("rootless", "unshare"))]
pub struct Scope {
    /// The user namespace first: the others are its.
    namespaces: Vec<OwnedFd>,
}

impl Scope {
    /// A user namespace with this map, a mount namespace whose mounts are private, and the namespaces named beside them.
    ///
    /// # Errors
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for a pid or time namespace, which no process can join as a whole, and for a map in which the caller is not
    /// user 0 and group 0 (a [single](IdMap::single) one may be anybody); otherwise as
    /// [`Plan::hold`](crate::Plan::hold).
    pub fn new(map: IdMap, others: Namespaces) -> Result<Self, Error> {
        if others.contains(Namespaces::PID) {
            return Err(Error::config("scope", "cannot have a pid namespace; give one to what is spawned in it"));
        }
        if others.contains(Namespaces::TIME) {
            return Err(Error::config(
                "scope",
                "cannot have a time namespace, which nothing that has our memory can join",
            ));
        }
        let all = Namespaces::USER | Namespaces::MOUNT | others;
        // Never released: the program is never looked for.
        let plan = Sandbox::new("/").user(map).namespaces(all).prepare(Fds::new())?;
        if plan.0.parts.changes_ids {
            return Err(Error::config("scope", "needs a map in which the caller is root"));
        }
        let held = plan.hold()?;
        let namespaces = all.iter().map(|one| held.namespace(one)).collect::<Result<_, _>>()?;
        Ok(Scope { namespaces })
    }

    /// What of [`run`](Scope::run) needs no `unsafe`: a thread to be suspended, and the end.
    pub(crate) fn run_with(
        &self,
        run: impl FnOnce(&[BorrowedFd<'_>], &CStr) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let here = std::env::current_dir().map_err(|e| failed("getcwd", &e))?;
        let here = CString::new(here.into_os_string().into_vec()).unwrap_or_default();
        let namespaces: Vec<_> = self.namespaces.iter().map(AsFd::as_fd).collect();
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("cofferdam-scope".into());
            let thread =
                thread.spawn_scoped(scope, || run(&namespaces, &here)).map_err(|e| failed("pthread_create", &e))?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

thread_local! {
    /// Whether this thread lends its identity to a closure in a scope.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// The processes that run a closure in a scope now, or 0: its other threads do not have the thread-local. Without a lock, with which one could be
/// killed.
static PROCESSES: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
/// How many there are.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts a process that is about to run a closure, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Running(());

impl Running {
    /// `None` if there are too many.
    pub(crate) fn new() -> Option<Self> {
        let more = |running| (running < PROCESSES.len()).then_some(running + 1);
        RUNNING.fetch_update(AcqRel, Acquire, more).ok().map(|_| Running(()))
    }
}

/// The process has ended, by itself or not.
pub(crate) fn ended(process: u32) {
    for place in &PROCESSES {
        let _ = place.compare_exchange(process, 0, AcqRel, Acquire);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, AcqRel);
    }
}

/// Runs a closure as one that is in a scope.
pub(crate) fn inside<R>(closure: impl FnOnce() -> R) -> R {
    struct Outside;
    impl Drop for Outside {
        fn drop(&mut self) {
            INSIDE.set(false);
        }
    }
    INSIDE.set(true);
    let _outside = Outside;
    let (process, mut places) = (std::process::id(), PROCESSES.iter());
    // As many as can run have a place.
    let _ = places.find(|place| place.compare_exchange(0, process, AcqRel, Acquire).is_ok());
    closure()
}

/// Refuses a program that would share the user namespace of a process that has our memory: it could write it, `process_vm_writev(2)`.
pub(crate) fn check(namespaces: Namespaces) -> Result<(), Error> {
    let another = || {
        let process = std::process::id();
        PROCESSES.iter().any(|place| place.load(Acquire) == process)
    };
    let inside = INSIDE.get() || RUNNING.load(Acquire) > 0 && another();
    if inside && !namespaces.contains(Namespaces::USER) {
        return Err(Error::config("sandbox in a scope", "needs a user namespace of its own"));
    }
    Ok(())
}

fn failed(call: &'static str, error: &std::io::Error) -> Error {
    Error::os(Step::Scope, call, error.raw_os_error().unwrap_or(0))
}
