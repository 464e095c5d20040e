//! A held child that another process releases, which knows nothing of it but a path: as `runc create` and `runc start` do it.
//!
//! The path is that of a socket at which the holder listens, and to connect is to release. Why a socket, and not a FIFO: who opens a FIFO waits for the
//! other side, or holds it open for itself and never learns that nobody is there; nothing tells the second one who writes that it is the second; and
//! what came of it has no way back. A socket in the file system has the permissions of its file, refuses at once when nobody listens (any more), and
//! answers. Why it is not the child's: the child is to have nothing that others can reach, and the holder has to learn of it anyway.

mod answer;
mod place;

use crate::{Child, Error, ErrorKind, Held, Step, sys};
use answer::Answer;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, connect, recv, send, shutdown, socket,
};
use nix::sys::stat::{Mode, SFlag, fstat};
use place::Place;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl Held {
    /// Lets another process release it, which connects to this path: see [`Release`]. It is not released before [`HeldAt::wait`] is called.
    ///
    /// A socket is made there, `unix(7)`. What is there already, also a link or a socket that a killed holder has left, is not touched and is an error. Who may
    /// write to it may release the child: `mode` says who that is, at most `0o777`, less the caller's `umask(2)`. Who may write to the folder could put another socket in
    /// its place, so it should be a folder of the caller's own.
    ///
    /// The caller stays who holds the child: if it ends, the child ends too, and is not started. `/proc` is needed.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if there is something at the path; [`InvalidConfig`](ErrorKind::InvalidConfig) for a path without a name, or a mode that is
    /// none; `ENAMETOOLONG` for a name of some 90 bytes or more; what `bind(2)` says. The child is gone then, as if this were dropped.
    #[doc(alias("runc create", "exec.fifo"))]
    pub fn at(self, path: impl AsRef<Path>, mode: u32) -> Result<HeldAt, Error> {
        let (listener, place) = Place::listen(path.as_ref(), mode)?;
        Ok(HeldAt { held: self, listener, place })
    }
}

/// A held child that another process can release by a path, see [`Held::at`].
///
/// Dropping it kills and reaps the child, as with [`Held`], and takes the path away.
///
/// ```no_run
/// # use cofferdam_namespaces::{Error, Fds, Namespaces, Release, Sandbox};
/// // One process, which stays: it makes the sandbox.
/// let plan = Sandbox::new("/usr/bin/server").namespaces(Namespaces::NET).prepare(Fds::new())?;
/// let held = plan.hold()?.at("/run/me/server.start", 0o600)?;
/// let child = held.wait()?;
/// child.wait()?;
/// # Ok::<(), Error>(())
/// ```
///
/// ```no_run
/// # use cofferdam_namespaces::{Error, Release};
/// // Another one, some time: it starts the program.
/// Release::at("/run/me/server.start")?.wait()?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct HeldAt {
    held: Held,
    listener: OwnedFd,
    place: Place,
}

impl HeldAt {
    /// The child, for its id and its namespaces.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Holds it as before: nobody can release it by the path any more, which is gone.
    #[must_use]
    pub fn into_held(self) -> Held {
        self.held
    }

    /// Waits until somebody releases it, starts the program and returns when that has really started. Blocks.
    ///
    /// It does not block for long when the descriptor ([`AsFd`]) is readable, because somebody has connected, or that of the [child](HeldAt::held) is, because it has
    /// ended: so both can be polled before. It is released once. Whoever else has connected by then is told [`AlreadyReleased`](ErrorKind::AlreadyReleased); the path is
    /// gone from then on.
    ///
    /// # Errors
    /// As [`Held::release`]; who has released it is told the same. [`Killed`](ErrorKind::Killed) if the child was killed while it waited. What `accept4(2)` says, as for
    /// want of descriptors: then the child is gone too.
    pub fn wait(self) -> Result<Child, Error> {
        let HeldAt { held, listener, place } = self;
        let first = accept_first(&listener, held.as_fd())?;
        drop(place);
        let released = held.release();
        if let Some(first) = first {
            tell(&first, &Answer::of(&released));
        }
        // Nobody comes any more; and who found the path, but came too late, is told so.
        let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        while let Ok(Some(late)) = accept(&listener) {
            tell(&late, &Answer::Already);
        }
        released
    }
}

/// Readable when somebody wants to release the child.
impl AsFd for HeldAt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Who wants to release it; nobody, if the child has ended.
fn accept_first(listener: &OwnedFd, child: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    loop {
        let mut both = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(child, PollFlags::POLLIN)];
        match poll(&mut both, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os(Step::Release, "poll", errno as i32)),
        }
        let [_, ended] = both.map(|fd| fd.any() == Some(true));
        let come = accept(listener)?;
        if come.is_some() || ended {
            return Ok(come);
        }
    }
}

fn accept(listener: &OwnedFd) -> Result<Option<OwnedFd>, Error> {
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(fd) => return Ok(Some(sys::received(fd))),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(Error::os(Step::Release, "accept4", errno as i32)),
        }
    }
}

/// Whoever does not listen any more need not know. There is room for one packet.
fn tell(to: &OwnedFd, answer: &Answer) {
    let _ = send(to.as_raw_fd(), &answer.encode(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
}

/// That a child be released which another process holds at a path, see [`Held::at`].
///
/// The holder does it, as soon as it waits for that, also if this is dropped.
#[derive(Debug)]
#[doc(alias("runc start", "exec.fifo"))]
pub struct Release {
    socket: OwnedFd,
    path: PathBuf,
}

impl Release {
    /// Asks for the release of the child that is held at this path. Does not block: [`wait`](Release::wait) tells what came of it.
    ///
    /// The last part of the path must be the holder's socket itself and no link to it. `/proc` is needed.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if nobody waits there: there is nothing, or its holder has ended or has released it. [`PermissionDenied`](ErrorKind::PermissionDenied)
    /// if the caller may not write to it. [`InvalidConfig`](ErrorKind::InvalidConfig) if it is something else, a link for one. [`Busy`](ErrorKind::Busy) if
    /// many wait there already.
    pub fn at(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |call| move |errno: Errno| Error::os(Step::Release, call, errno as i32).about(path);
        // Whatever it is, nothing happens.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = open(path, flags, Mode::empty()).map_err(failed("openat"))?;
        let stat = fstat(&place).map_err(failed("fstat"))?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFSOCK {
            return Err(Error::config(path, "is no socket at which a child is held"));
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed("socket"))?;
        // What was looked at, and not what is there by now.
        let link = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let address = UnixAddr::new(&link).map_err(failed("connect"))?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Ok(Release { socket, path: path.to_owned() }),
            Err(Errno::EPROTOTYPE) => Err(Error::config(path, "is a socket, but none at which a child is held")),
            Err(errno) => {
                let error = failed("connect")(errno);
                Err(match errno {
                    Errno::ECONNREFUSED => error.of_kind(ErrorKind::NotFound),
                    Errno::EAGAIN => error.of_kind(ErrorKind::Busy),
                    _ => error,
                })
            }
        }
    }

    /// Waits until the program has started. Blocks as long as the holder does not wait for the release, and for ever if the one at the path means no good, or the holder was
    /// killed and a fork of it still has its socket: see [`wait_timeout`](Release::wait_timeout), or poll the descriptor ([`AsFd`]).
    ///
    /// # Errors
    /// Why the program has not started, as the holder tells it: the kind and the errno are its, the rest is in words.
    /// [`AlreadyReleased`](ErrorKind::AlreadyReleased) if somebody else was faster; [`NotFound`](ErrorKind::NotFound) if the holder ended meanwhile: then the child has not been started.
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_until(None).map(|_| ())
    }

    /// As [`wait`](Release::wait), but not longer than `timeout`: then it is `false`, and it may still be released.
    ///
    /// # Errors
    /// As [`wait`](Release::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&self, end: Option<Instant>) -> Result<bool, Error> {
        let failed = |call, errno: Errno| Error::os(Step::Release, call, errno as i32).about(&self.path);
        loop {
            // Rounded up: what is left of a millisecond is still waited for.
            let left = end.map(|end| end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000));
            let left = left.map(|left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left.unwrap_or(PollTimeout::NONE)) {
                Ok(0) if left == Some(PollTimeout::ZERO) => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed("poll", errno)),
            }
            let mut bytes = [0; answer::LONGEST];
            let read = match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(read) => read,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => 0,
                Err(errno) => return Err(failed("recvfrom", errno)),
            };
            let gone = || Error::words(ErrorKind::NotFound, Step::Release, &self.path, "nobody holds it any more");
            return match Answer::decode(bytes.get(..read).unwrap_or_default()) {
                None if read == 0 => Err(gone()),
                None => Err(Error::config(&self.path, "answers as none at which a child is held")),
                Some(answer) => answer.result(&self.path).map(|()| true),
            };
        }
    }
}

/// Readable when there is an answer.
impl AsFd for Release {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
