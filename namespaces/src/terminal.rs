//! A terminal of the sandbox's own.

use crate::bind::above;
use crate::mount::MountKind;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::{Error, Sandbox, Step, handover, sys};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, major, minor};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The side that the program has: from the caller, or opened by the child.
pub(crate) const PEER: Slot = Slot(14);
const MASTER: Slot = Slot(13);
/// Where the child hands over what it has opened.
const HANDOVER: Slot = Slot(15);
/// What a child needs until it has its terminal.
pub(crate) const DESCRIPTORS: [Slot; 3] = [MASTER, PEER, HANDOVER];

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
#[allow(clippy::exhaustive_structs, reason = "what the kernel knows")]
#[doc(alias = "winsize")]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl TerminalSize {
    /// So many lines of so many characters.
    #[must_use]
    pub fn new(rows: u16, columns: u16) -> Self {
        TerminalSize { rows, columns }
    }

    /// That of a terminal, for example the caller's own.
    ///
    /// # Errors
    /// `ENOTTY` if it is none.
    pub fn of(terminal: impl AsFd) -> Result<Self, Error> {
        let (rows, columns) = sys::terminal_size(terminal.as_fd()).map_err(failed("ioctl"))?;
        Ok(TerminalSize { rows, columns })
    }
}

impl Sandbox {
    /// A terminal of its own, `pty(7)`, in a session of its own that it controls: for `vim`, `top` and job control. The other side is [`Child::terminal`](crate::Child).
    ///
    /// It takes the place of each standard stream that would be the caller's ([`Stdio::Inherit`](crate::Stdio::Inherit)). Where the sandbox mounts a
    /// `devpts(5)` of its own ([`Mount::dev`](crate::Mount::dev), [`Mount::devpts`](crate::Mount::devpts)) it is one of those, so that it has a name
    /// inside, with [`Mount::dev`](crate::Mount::dev) also `/dev/console`; otherwise it is the host's, also where a mount namespace is joined, and `tty(1)` does not find it.
    ///
    /// A program that runs as process 1 does not get the signals of the keyboard that it does not handle: see [`Child::signal`](crate::Child::signal).
    #[must_use]
    #[doc(alias("pty", "tty", "TIOCSCTTY", "script"))]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.terminal = Some(size);
        self
    }
}

/// The caller's side of a sandbox's terminal: what is written to it is typed, what the program shows is read from it.
///
/// Reading is an error, `EIO`, when the program's side is closed everywhere; [`AsFd`] gives the descriptor to be polled, and it becomes a
/// [`File`](std::fs::File) by way of [`OwnedFd`]. To drop the last copy of it hangs up: the session gets a `SIGHUP`. To detach from a program
/// that goes on, keep it, here or in another process; the program waits when some 4 KiB are not read.
#[derive(Debug)]
#[doc(alias("ptmx", "master"))]
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Changes the size; processes in the foreground get a `SIGWINCH` if it is another one.
    ///
    /// # Errors
    /// What `ioctl(2)` says.
    #[doc(alias("TIOCSWINSZ", "SIGWINCH"))]
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        sys::set_terminal_size(self.0.as_fd(), (size.rows, size.columns)).map_err(failed("ioctl"))
    }

    /// The size that it has.
    ///
    /// # Errors
    /// What `ioctl(2)` says.
    pub fn size(&self) -> Result<TerminalSize, Error> {
        TerminalSize::of(&self.0)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Terminal> for OwnedFd {
    fn from(terminal: Terminal) -> OwnedFd {
        terminal.0
    }
}

fn failed(call: &'static str) -> impl Fn(i32) -> Error {
    move |errno| Error::os(Step::Terminal, call, errno)
}

/// What a plan does for a terminal.
#[derive(Debug)]
pub(crate) struct Wanted {
    size: TerminalSize,
    /// A descriptor of the plan's whose number the child gives to what it hands over, if it opens the terminal itself.
    pub(crate) opened_by_child: Option<OwnedFd>,
}

impl Wanted {
    pub(crate) fn of(sandbox: &Sandbox, highest: i32) -> Result<Option<Self>, Error> {
        let Some(size) = sandbox.terminal else { return Ok(None) };
        let opened_by_child = match own_devpts(sandbox) {
            Some(_) => {
                let spare = open("/dev/null", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
                let spare = spare.map_err(|e| Error::os(Step::Prepare, "openat", e as i32).about("/dev/null"))?;
                Some(above(spare, highest.max(2)).map_err(|e| Error::os(Step::Prepare, "fcntl", e))?)
            }
            None => None,
        };
        Ok(Some(Wanted { size, opened_by_child }))
    }

    /// That of the spare one.
    pub(crate) fn number(&self) -> Option<i32> {
        self.opened_by_child.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The child makes a session and takes the terminal; what it has opened itself it hands over.
    pub(crate) fn compile(&self, program: &mut Program) {
        program.call(Step::Session, "", Sys::setsid, []);
        program.call(Step::Session, "terminal", Sys::ioctl, [PEER.into(), libc::TIOCSCTTY.into(), 0_u64.into()]);
        let Some(spare) = &self.opened_by_child else { return };
        let number = spare.as_raw_fd();
        let copy = [MASTER.into(), number.into(), libc::O_CLOEXEC.into()];
        program.call(Step::Session, "terminal", Sys::dup3, copy);
        handover::send(program, (Step::Session, "terminal"), HANDOVER.into(), number);
    }
}

/// The mount of the sandbox's in which its terminals are: the last one.
fn own_devpts(sandbox: &Sandbox) -> Option<usize> {
    let has = |kind: &MountKind| match kind {
        MountKind::Dev => true,
        MountKind::New(name) => name == "devpts",
        _ => false,
    };
    sandbox.mounts.iter().rposition(|mount| has(&mount.kind))
}

/// How the child opens a terminal in a file system that it makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    size: TerminalSize,
    owner: Option<u32>,
}

impl Opening {
    /// In what this mount makes, if it is there.
    pub(crate) fn of(sandbox: &Sandbox, mount: usize) -> Option<Self> {
        let size = sandbox.terminal.filter(|_| own_devpts(sandbox) == Some(mount))?;
        Some(Opening { size, owner: sandbox.credentials.as_ref().map(|credentials| credentials.uid) })
    }

    /// By descriptor: no path inside is asked (CVE-2025-52565).
    pub(crate) fn compile(self, program: &mut Program, devpts: Slot) {
        let step = Step::Mount;
        let (name, flags) = (program.string(c"ptmx".to_owned()), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        let open: [Arg; 4] = [devpts.into(), name.into(), flags.into(), 0_u64.into()];
        program.call_then(step, "ptmx", Sys::openat, open, Then::Keep(MASTER));
        let unlocked = program.words([0]);
        program.call(step, "ptmx", Sys::ioctl, [MASTER.into(), libc::TIOCSPTLCK.into(), unlocked.into()]);
        let peer = [MASTER.into(), libc::TIOCGPTPEER.into(), flags.into()];
        program.call_then(step, "ptmx", Sys::ioctl, peer, Then::Keep(PEER));
        // A struct winsize.
        let size = program.words([u64::from(self.size.rows) | u64::from(self.size.columns) << 16]);
        program.call(step, "ptmx", Sys::ioctl, [PEER.into(), libc::TIOCSWINSZ.into(), size.into()]);
        if let Some(owner) = self.owner {
            let same_group: Arg = u32::MAX.into();
            program.call(step, "ptmx", Sys::fchown, [PEER.into(), owner.into(), same_group]);
        }
    }
}

/// The caller's end of one spawn's terminal.
#[derive(Debug)]
pub(crate) enum Ours {
    Opened(OwnedFd),
    /// The child hands it over.
    Coming(OwnedFd),
}

/// The child's end, and what it is to the child.
pub(crate) type Theirs = (Slot, OwnedFd);

pub(crate) fn open_ends(wanted: &Wanted) -> Result<(Ours, Theirs), Error> {
    if wanted.opened_by_child.is_some() {
        let (ours, theirs) = handover::pair(Step::Terminal, 2)?;
        return Ok((Ours::Coming(ours), (HANDOVER, theirs)));
    }
    let path = "/dev/ptmx";
    let of = |call| move |errno: Errno| Error::os(Step::Terminal, call, errno as i32).about(path);
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(path, flags, Mode::empty()).map_err(of("openat"))?;
    let device = fstat(&master).map_err(of("fstat"))?;
    if (major(device.st_rdev), minor(device.st_rdev)) != (5, 2) {
        return Err(Error::config(path, "is not the terminal multiplexer"));
    }
    sys::unlock_terminal(master.as_fd()).map_err(failed("ioctl"))?;
    let peer = sys::terminal_peer(master.as_fd()).map_err(failed("ioctl"))?;
    let size = (wanted.size.rows, wanted.size.columns);
    sys::set_terminal_size(master.as_fd(), size).map_err(failed("ioctl"))?;
    Ok((Ours::Opened(master), (PEER, above(peer, 2).map_err(failed("fcntl"))?)))
}

impl Ours {
    /// The child has come past the point where it hands over.
    pub(crate) fn finish(self) -> Result<Terminal, Error> {
        match self {
            Ours::Opened(master) => Ok(Terminal(master)),
            Ours::Coming(socket) => handover::receive(Step::Terminal, &socket).map(Terminal),
        }
    }
}
