//! A shell in a sandbox, at a terminal of its own: what is typed here goes in, what it shows comes out, and it is as large as ours.
//!
//! `pty-shell [PID] [-- PROGRAM [ARG...]]`: in new namespaces, or in those of a process. Ctrl-] ends it.

use cofferdam_namespaces::{Fds, IdMap, Join, Mount, Namespaces, Sandbox, Target, Terminal, TerminalSize};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

/// Ctrl-], as telnet has it.
const LEAVE: u8 = 0x1d;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "pty-shell: {error}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<u8, Box<dyn Error>> {
    let (sandbox, fds) = wanted()?;
    let ours = OurTerminal::raw()?;
    // Before it is there: no change of the size is missed.
    let mut resized = SigSet::empty();
    resized.add(Signal::SIGWINCH);
    resized.thread_block()?;
    let resized = SignalFd::new(&resized)?;
    let mut child = sandbox.terminal(ours.size()?).spawn_with(fds)?;
    let terminal = child.terminal.take().ok_or("no terminal")?;
    if carry(&ours, &resized, &terminal)? == End::Left {
        child.kill()?;
    }
    // It is hung up.
    drop(terminal);
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(125);
    Ok(u8::try_from(code).unwrap_or(125))
}

fn wanted() -> Result<(Sandbox, Fds), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1).peekable();
    let pid = words.next_if(|word| word != "--");
    let _ = words.next_if(|word| word == "--");
    let program = words.next().unwrap_or_else(|| "/bin/sh".into());
    let mut sandbox = Sandbox::new(program).args(words).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    if let Some(kind) = std::env::var_os("TERM") {
        sandbox = sandbox.env("TERM", kind);
    }
    if let Some(pid) = pid {
        let pid = pid.to_str().and_then(|pid| pid.parse().ok()).ok_or("which process? by its number")?;
        return Ok((sandbox.join(Join::all()), Fds::new().target(Target::process(pid)?)));
    }
    let own = Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC | Namespaces::NET;
    let sandbox = sandbox.user(IdMap::root()).namespaces(own).hostname("sandbox");
    Ok((sandbox.mount(Mount::proc("/proc")).mount(Mount::dev("/dev")), Fds::new()))
}

#[derive(PartialEq, Eq)]
enum End {
    /// The program has.
    Closed,
    /// We do.
    Left,
}

/// Both ways, until one side has had enough.
fn carry(ours: &OurTerminal, resized: &SignalFd, terminal: &Terminal) -> Result<End, Box<dyn Error>> {
    let mut theirs = File::from(terminal.as_fd().try_clone_to_owned()?);
    // Not what std keeps in a buffer: poll would not know of it.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = io::stdout().lock();
    let mut bytes = [0; 4096];
    loop {
        let stdin = io::stdin();
        let mut ready = [stdin.as_fd(), terminal.as_fd(), resized.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE)?;
        let [typed, shown, size] = ready.map(|fd| fd.any() == Some(true));
        if size && resized.read_signal()?.is_some() {
            terminal.resize(ours.size()?)?;
        }
        if shown {
            match theirs.read(&mut bytes) {
                Ok(0) => return Ok(End::Closed),
                Ok(read) => output.write_all(bytes.get(..read).unwrap_or_default())?,
                // Nobody has the other side any more.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => return Ok(End::Closed),
                Err(error) => return Err(error.into()),
            }
            output.flush()?;
        }
        if typed {
            let read = input.read(&mut bytes)?;
            let typed = bytes.get(..read).unwrap_or_default();
            if read == 0 || typed.contains(&LEAVE) {
                return Ok(End::Left);
            }
            theirs.write_all(typed)?;
        }
    }
}

/// The terminal that we sit at, which passes on each key as it is pressed, until this is dropped.
struct OurTerminal(Option<Termios>);

impl OurTerminal {
    fn raw() -> Result<Self, Box<dyn Error>> {
        // A pipe has no keys.
        let Ok(before) = tcgetattr(io::stdin()) else { return Ok(OurTerminal(None)) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(OurTerminal(Some(before)))
    }

    fn size(&self) -> Result<TerminalSize, Box<dyn Error>> {
        match self.0 {
            Some(_) => Ok(TerminalSize::of(io::stdin())?),
            None => Ok(TerminalSize::new(24, 80)),
        }
    }
}

impl Drop for OurTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
