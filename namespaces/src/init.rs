//! A process 1 of our own, between the sandbox and its program. What it does is in `sys::init`; here is how it comes there, and how it tells.

use crate::bind::above;
use crate::deadline::{Deadline, leave};
use crate::plan::Shared;
use crate::program::{Arg, Program, Slot, Sys, Then};
use crate::start::{Found, pointers};
use crate::sys::{self, Born, InitFacts, RECORD, STAGES};
use crate::{Error, ErrorKind, Namespaces, Sandbox, Stdio, Step, handover};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// The file that it is, and the child's end of what it hands the caller's end of its pipe over.
pub(crate) const FILE: Slot = Slot(18);
pub(crate) const HANDOVER: Slot = Slot(19);

/// How many it has, whose numbers come right behind the program's.
pub(crate) fn descriptors(sandbox: &Sandbox) -> i32 {
    if sandbox.init { 2 } else { 0 }
}

impl Sandbox {
    /// Puts a small program of this crate's in front: it is process 1, and the sandbox's program its child. Needs [`Namespaces::PID`] and the feature `init`.
    ///
    /// A process 1 has duties that most programs do not know: it inherits all processes that lose their parent and has to wait for them, and it gets no
    /// signal that it does not handle, `SIGTERM` and the keyboard's `SIGINT` among them. The init does that, as `tini` and `catatonit` do:
    ///
    /// - Whoever ends is reaped. When the program has ended, the init ends with its status, as a shell tells it: its exit code, or 128 and the number of
    ///   the signal that killed it. The kernel then kills all that is left inside.
    /// - Each signal that it gets goes to the program, real-time signals too, as by `kill(2)`; but for `SIGCHLD`, and for `SIGKILL` and `SIGSTOP`, which are for the
    ///   init itself. [`Child::signal`](crate::Child::signal) therefore reaches the program, unless that has become another user.
    /// - The program is the leader of its session and has its terminal, if it [has](Sandbox::terminal) [one](Sandbox::new_session), and is in the caller's process
    ///   group otherwise, exactly as it is without an init; the init is in neither.
    ///
    /// It is a static program of some hundred instructions in a sealed file of its own (`memfd_create(2)`), made for each spawn: nothing of the caller's memory or
    /// executable is in sight in the sandbox (CVE-2019-5736), and no sandbox shares a file with another. It has no descriptors. It has the program's rights and no others, for a program may
    /// `ptrace(2)` it where it may any process of its user: filters, capabilities and rulesets hold for both.
    ///
    /// So a filter of system calls must also allow `execveat`, `prctl`, `clone`, `close`, `setpgid`, `kill`, `rt_sigtimedwait`, `wait4`, `exit_group`, `fcntl`,
    /// `rt_sigprocmask`, `write`, and `setsid` and `ioctl` where there is a session or a terminal. A label of `AppArmor` or `SELinux` is that of the init, and the program's what the policy makes of
    /// it. A filter with a listener is an error: it could ask about the init, while the caller waits for the program. It counts as one process more. A limit of descriptors ([`rlimit`](Sandbox::rlimit)) is the program's alone.
    ///
    /// [`spawn`](crate::Plan::spawn) returns when the *program* has started, with the same errors as without. The [`Child`](crate::Child) is the init.
    ///
    /// ```no_run
    /// # use cofferdam_namespaces::{IdMap, Mount, Namespaces, Sandbox};
    /// let child = Sandbox::new("/usr/bin/server")
    ///     .namespaces(Namespaces::PID | Namespaces::MOUNT)
    ///     .user(IdMap::root())
    ///     .mount(Mount::proc("/proc"))
    ///     .init()
    ///     .spawn()?;
    /// child.signal(15)?; // SIGTERM: ends a server that does not handle it, too
    /// assert_eq!(child.wait()?.code(), Some(128 + 15));
    /// # Ok::<(), cofferdam_namespaces::Error>(())
    /// ```
    #[must_use]
    #[doc(alias("tini", "catatonit", "dumb-init", "pid 1", "reaper"))]
    pub fn init(mut self) -> Self {
        self.init = true;
        self
    }
}

/// What a plan does for it.
#[derive(Debug)]
pub(crate) struct Wanted {
    file: Vec<u8>,
    /// Where its pipe is, and where its file is until it has started.
    report: i32,
    at: i32,
}

impl Wanted {
    /// `highest` is the last number that stays open for it.
    pub(crate) fn of(sandbox: &Sandbox, found: &Found, highest: i32) -> Result<Option<Self>, Error> {
        if !sandbox.init {
            return Ok(None);
        }
        if !sandbox.namespaces.contains(Namespaces::PID) {
            return Err(Error::config("init", "needs Namespaces::PID, in which it is process 1"));
        }
        if sandbox.privilege.reserved() > 0 {
            let words = "may ask the caller about what it does, who waits for the program: not with a filter that has a listener";
            return Err(Error::config("init", words));
        }
        let terminal = match sandbox.terminal {
            Some(_) => {
                let stream = sandbox.stdio.iter().position(|stdio| *stdio == Stdio::Inherit);
                let words = "of a program with an init takes a standard stream that is not something else";
                Some(stream.ok_or_else(|| Error::config("terminal", words))?)
            }
            None => None,
        };
        let facts = InitFacts {
            report: (highest - 1).cast_unsigned(),
            session: sandbox.new_session || terminal.is_some(),
            terminal: terminal.and_then(|stream| u32::try_from(stream).ok()),
            places: found.places.len(),
            arguments: found.argv.len(),
        };
        Ok(Some(Wanted { file: sys::init_image(&facts), report: highest - 1, at: highest }))
    }

    /// Its pipe, and its file, at their numbers.
    ///
    /// The child makes the pipe, and not the caller: a fork of the caller's would have a copy of the end whose closing tells that the program has started.
    pub(crate) fn compile(&self, program: &mut Program) {
        let (step, [read, write]) = (Step::Init, [program.slot(), program.slot()]);
        program.call_then(step, "report", Sys::pipe2, [Arg::Scratch, 0.into()], Then::KeepPair([read, write]));
        let above: [Arg; 3] = [write.into(), libc::F_DUPFD_CLOEXEC.into(), (self.at + 1).into()];
        program.call_then(step, "report", Sys::fcntl, above, Then::Keep(write));
        // It may be there already.
        let handed: [Arg; 3] = [read.into(), self.at.into(), libc::O_CLOEXEC.into()];
        program.call_then(step, "report", Sys::dup3, handed, Then::Unless(libc::EINVAL));
        handover::send(program, (step, "report"), HANDOVER.into(), self.at);
        program.call(step, "report", Sys::dup3, [write.into(), self.report.into(), 0.into()]);
        program.call(step, "init", Sys::dup3, [FILE.into(), self.at.into(), libc::O_CLOEXEC.into()]);
    }

    /// The last step: its name, where the program may be, and the program's arguments.
    pub(crate) fn start(&self, program: &mut Program, found: Found) {
        let places = found.places.into_iter().map(|(_, text)| text);
        let arguments = std::iter::once(c"init".to_owned()).chain(places).chain(found.argv).collect();
        let [arguments, environment] = [arguments, found.envp].map(|strings| pointers(program, strings));
        let itself = program.string(c"".to_owned());
        let start = [self.at.into(), itself.into(), arguments.into(), environment.into(), libc::AT_EMPTY_PATH.into()];
        program.call(Step::Init, "init", Sys::execveat, start);
    }

    /// The ends of one spawn.
    pub(crate) fn open(&self) -> Result<(Ours, Theirs), Error> {
        let file = above(self.sealed()?, self.at).map_err(|e| Error::os(Step::Memory, "fcntl", e).about("init"))?;
        let (ours, theirs) = handover::pair(Step::Pipe, self.at)?;
        Ok((Ours(ours), [(FILE, file), (HANDOVER, theirs)]))
    }

    /// A file that nobody can change any more. One for each spawn: what a program can do to its own, times, owners, extended attributes, reaches no other.
    fn sealed(&self) -> Result<OwnedFd, Error> {
        let failed = |call| move |errno: Errno| Error::os(Step::Memory, call, errno as i32).about("init");
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let executable = flags | MFdFlags::from_bits_retain(MFD_EXEC);
        let (file, known) = match memfd_create(c"init", executable) {
            // Linux 6.3 brought the flag; before, every file was that.
            Err(Errno::EINVAL) => (memfd_create(c"init", flags).map_err(failed("memfd_create"))?, false),
            Err(Errno::EACCES) => {
                let hint = "vm.memfd_noexec of the administrator may forbid programs in memory";
                return Err(failed("memfd_create")(Errno::EACCES).hinting(hint));
            }
            file => (file.map_err(failed("memfd_create"))?, true),
        };
        let mut file = File::from(file);
        let written = file.write_all(&self.file);
        written.map_err(|e| failed("write")(Errno::from_raw(e.raw_os_error().unwrap_or(0))))?;
        let mut seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        if known {
            seals |= SealFlag::from_bits_retain(F_SEAL_EXEC);
        }
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(failed("fcntl"))?;
        Ok(file.into())
    }
}

// nix does not know these two.
const MFD_EXEC: libc::c_uint = 0x10;
const F_SEAL_EXEC: libc::c_int = 0x20;

/// The caller's end of one spawn: the other end of its pipe comes by it.
#[derive(Debug)]
pub(crate) struct Ours(OwnedFd);

/// The child's ends, and what they are to it.
pub(crate) type Theirs = [(Slot, OwnedFd); 2];

/// Waits until the init has started the program. If it cannot, nothing is left of it; if it takes longer than that, it is killed.
pub(crate) fn confirm(plan: &Shared, born: &Born, ours: Option<Ours>, deadline: Deadline) -> Result<(), Error> {
    let Some(Ours(socket)) = ours else { return Ok(()) };
    let told = handover::receive(Step::Init, &socket).and_then(|pipe| read_all(pipe.into(), deadline));
    let Some(told) = told.inspect_err(|_| deadline.end(born))? else {
        let _ = sys::send_signal(born.pidfd.as_fd(), libc::SIGKILL);
        let born = born.clone();
        leave(None, move || Some(born));
        return Err(plan.took_too_long(Step::Exec));
    };
    match last_record(&told) {
        Some((_, 0)) => Ok(()),
        Some((stage, errno)) => {
            deadline.end(born);
            let (step, call) = STAGES.get(stage).copied().unwrap_or((Step::Init, "init"));
            let error = Error::os(step, call, errno);
            Err(match step {
                Step::Exec => error.about(&plan.parts.name),
                Step::Session if call == "ioctl" => error.about("terminal"),
                Step::Init => error.about("init"),
                _ => error,
            })
        }
        // Its child ended without a word, or it has, which ends the other: nothing can keep it.
        None => match deadline.reap(born) {
            Ok(None) if deadline.is_over() => Err(plan.took_too_long(Step::Exec)),
            status => Err(silent(status)),
        },
    }
}

/// Until the last copy of the other end is closed, by the start of the program or the end of them both; nothing if that takes too long.
fn read_all(mut pipe: File, deadline: Deadline) -> Result<Option<Vec<u8>>, Error> {
    let failed = |call, errno| Error::os(Step::Init, call, errno).about("init");
    let (mut told, mut bytes) = (Vec::new(), [0; 4 * RECORD]);
    loop {
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], deadline.left()) {
            Ok(0) if deadline.is_over() => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(failed("poll", errno as i32)),
        }
        match pipe.read(&mut bytes) {
            Ok(0) => return Ok(Some(told)),
            Ok(read) => told.extend_from_slice(bytes.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", error.raw_os_error().unwrap_or(0))),
        }
    }
}

/// A stage and an errno, 0 if it is about to start the program.
fn last_record(told: &[u8]) -> Option<(usize, i32)> {
    let (stage, errno) = told.chunks_exact(RECORD).last()?.split_at(RECORD / 2);
    let number = |word: &[u8]| word.try_into().map_or(-1, i64::from_le_bytes);
    let errno = i32::try_from(number(errno).wrapping_neg()).unwrap_or(libc::EINVAL);
    Some((usize::try_from(number(stage)).unwrap_or(usize::MAX), errno))
}

/// What its status says of an init that never came to start the program.
fn silent(status: Result<Option<i32>, i32>) -> Error {
    let Ok(Some(status)) = status else { return Error::status_lost() };
    let code = status >> 8;
    match status & 0x7f {
        0 if code > 128 => Error::killed(Step::Init, code - 128),
        0 => {
            let words = format!("ended with code {code} before the program started; a filter must allow what it does");
            Error::words(ErrorKind::Os, Step::Init, "init", words)
        }
        signal => Error::killed(Step::Init, signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(words: &[i64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_last_word_counts() {
        assert_eq!(last_record(&[]), None);
        assert_eq!(last_record(&records(&[6])), None);
        assert_eq!(last_record(&records(&[6, 0])), Some((6, 0)));
        assert_eq!(last_record(&records(&[6, 0, 6, -2])), Some((6, libc::ENOENT)));
        assert_eq!(last_record(&records(&[3, -1])), Some((3, libc::EPERM)));
        assert_eq!(last_record(&records(&[-1, i64::MAX])), Some((usize::MAX, libc::EINVAL)));
    }

    #[test]
    fn an_end_without_a_word() {
        let of = |status| silent(Ok(Some(status))).signal();
        assert_eq!(of(libc::SIGSYS), Some(libc::SIGSYS));
        assert_eq!(of((128 + libc::SIGSYS) << 8), Some(libc::SIGSYS));
        assert_eq!(of(125 << 8), None);
        assert!(silent(Ok(Some(125 << 8))).to_string().starts_with("start the init: init: ended with code 125"));
        assert_eq!(silent(Ok(None)).kind(), ErrorKind::StatusLost);
    }

    #[test]
    fn the_file_is_an_elf_file_with_the_facts_in_it() {
        let facts = InitFacts { report: 7, session: true, terminal: Some(2), places: 3, arguments: 4 };
        let file = sys::init_image(&facts);
        assert_eq!(file[..4], *b"\x7fELF");
        let words: Vec<i64> = file.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect();
        // Where it begins; as long as it says; what it is told.
        assert_eq!((words[3], words[12]), (240, i64::try_from(file.len()).unwrap()));
        assert_eq!(words[22..28], [7, 1, 2, 3, 8 * 4, 8 * 9]);
        assert!(file.len() < 2048, "{}", file.len());
    }
}
