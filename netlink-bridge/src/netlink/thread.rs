//! Opening a socket in another network namespace, without taking any thread of the caller there.

use super::{Protocol, Session};
use crate::{Error, ErrorKind, Operation, sys};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

/// The helper needs no more: it makes a few system calls.
const STACK: usize = 64 << 10;

/// A socket in a namespace, and the namespace.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) namespace: OwnedFd,
}

/// A socket in the calling thread's namespace.
pub(crate) fn current() -> Result<Session, Error> {
    Session::open(Protocol::Route)
}

/// A socket in this namespace.
pub(crate) fn enter_fd(namespace: BorrowedFd<'_>) -> Result<Session, Error> {
    within(namespace, || Session::open(Protocol::Route))
}

/// A socket for netfilter in the namespace that another socket is in.
pub(crate) fn netfilter_beside(session: &Session) -> Result<Session, Error> {
    within_same(session, || Session::open(Protocol::Netfilter))
}

/// Runs `work` on a throw-away thread in this namespace.
pub(crate) fn within<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let enter = || move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network));
    on_thread(Operation::OpenNamespace, "setns", enter, work)
}

/// Runs `work` on a throw-away thread in the namespace that a socket is in.
pub(crate) fn within_same<T: Send>(
    session: &Session,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    within(namespace_of(session)?.as_fd(), work)
}

fn namespace_of(session: &Session) -> Result<OwnedFd, Error> {
    sys::namespace_of(session.fd())
        .map_err(|errno| Error::os(Operation::OpenNamespace, "ioctl", errno.raw_os_error()).about("SIOCGSKNS"))
}

/// A socket in a process' namespace, and the namespace.
pub(crate) fn enter_pidfd(process: BorrowedFd<'_>) -> Result<Opened, Error> {
    with_namespace(open_after(Operation::OpenNamespace, "setns", || {
        move_into_thread_name_spaces(process, ThreadNameSpaceType::NETWORK)
    })?)
}

/// A socket in a new namespace, and the namespace.
pub(crate) fn unshared() -> Result<Opened, Error> {
    with_namespace(open_after(Operation::NewNamespace, "unshare", sys::unshare_network)?)
}

fn with_namespace(session: Session) -> Result<Opened, Error> {
    let namespace = namespace_of(&session)?;
    Ok(Opened { session, namespace })
}

/// Opens a socket on a thread that first calls `enter`, and ends.
fn open_after(
    operation: Operation,
    call: &'static str,
    enter: impl FnOnce() -> Result<(), Errno> + Send,
) -> Result<Session, Error> {
    on_thread(operation, call, enter, || Session::open(Protocol::Route))
}

/// Runs `work` on a thread that first calls `enter`, and ends.
///
/// A thread that has changed its namespace is never used again, so that no error can keep it from coming back.
fn on_thread<T: Send>(
    operation: Operation,
    call: &'static str,
    enter: impl FnOnce() -> Result<(), Errno> + Send,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let work = || {
        enter().map_err(|errno| Error::os(operation, call, errno.raw_os_error()))?;
        work()
    };
    thread::scope(|scope| {
        let helper = thread::Builder::new().name("cofferdam-netns".into()).stack_size(STACK).spawn_scoped(scope, work);
        let helper = helper.map_err(|e| Error::os(operation, "clone", e.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        helper.join().unwrap_or_else(|_| Err(Error::words(ErrorKind::Os, operation, "the helper thread panicked")))
    })
}
