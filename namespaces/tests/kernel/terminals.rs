//! A terminal of the sandbox's own, driven by a script.

use crate::faults::{Unchanged, no_child_is_left};
use crate::support::{output, program, refused, sh};
use cofferdam_namespaces::{
    Child, Credentials, ErrorKind, Fds, IdMap, Join, Mount, Namespaces, Sandbox, Stdio, Step, Target, TerminalSize,
};
use cofferdam_testkit::fault::{Action, Fault, Who, inject, record};
use cofferdam_testkit::patience;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const SIZE: TerminalSize = TerminalSize { rows: 30, columns: 90 };

/// What somebody sees who sits there.
struct Screen {
    terminal: File,
    seen: String,
}

impl Screen {
    fn of(child: &mut Child) -> Self {
        let terminal = child.terminal.take().expect("a terminal");
        assert_eq!(terminal.size().unwrap(), SIZE);
        Screen { terminal: OwnedFd::from(terminal).into(), seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// Reads on until this is shown, and forgets what came before.
    fn until(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(self.more(), "{text:?} is not shown, but {:?}", self.seen);
        }
    }

    /// What is shown until the other side is closed.
    fn rest(mut self) -> String {
        while self.more() {}
        self.seen
    }

    fn more(&mut self) -> bool {
        let timeout = u16::try_from(20_000 * patience()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(timeout)), Ok(1), "nothing comes after {:?}", self.seen);
        let mut bytes = [0; 4096];
        match self.terminal.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.seen += &String::from_utf8_lossy(&bytes[..read]);
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                false
            }
        }
    }
}

fn shown(sandbox: Sandbox) -> String {
    let mut child = sandbox.terminal(SIZE).spawn().unwrap();
    let text = Screen::of(&mut child).rest();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

/// In a `/dev` of its own.
fn inside(sandbox: Sandbox) -> Sandbox {
    sandbox.user(IdMap::root()).namespaces(Namespaces::MOUNT | Namespaces::PID).mount(Mount::dev("/dev"))
}

/// Session, foreground process group, terminal's number: of the shell itself.
const STAT: &str = "read -r pid name state parent group session terminal foreground rest </proc/self/stat; \
    [ $pid = $session ] && [ $pid = $foreground ] && echo leads; stty size; : <>/dev/tty && echo x";

pub(crate) fn the_terminal_is_the_programs() {
    let script = format!("exec sh -c '{STAT}'; ");
    assert_eq!(shown(sh(&script)), "leads\r\n30 90\r\nx\r\n");
    // With a name where there is a file system for it, whatever the root has there otherwise.
    assert_eq!(shown(inside(sh("tty; stty size; echo x >/dev/tty"))), "/dev/pts/0\r\n30 90\r\nx\r\n");
    let mount = sh("tty").user(IdMap::root()).namespaces(Namespaces::MOUNT).mount(Mount::devpts("/dev/pts"));
    assert_eq!(shown(mount), "/dev/pts/0\r\n");
    // By the name of the console too: the same device, and shown.
    let script = "stat -c %t:%T /dev/console /dev/pts/0; echo x >/dev/console; echo /dev/pts/*";
    assert_eq!(shown(inside(sh(script))), "88:0\r\n88:0\r\nx\r\n/dev/pts/0 /dev/pts/ptmx\r\n");
    assert_eq!(output(inside(sh("ls /dev/console || echo none")).stderr(Stdio::Null)), "none\n");
    // Streams that are something else stay that.
    let mut child = sh("echo to the pipe; echo shown >&2").stdout(Stdio::Pipe).terminal(SIZE).spawn().unwrap();
    assert_eq!(crate::support::read(&mut child), "to the pipe\n");
    assert_eq!(Screen::of(&mut child).rest(), "shown\r\n");
    assert!(child.wait().unwrap().success());
    // A session is made once.
    assert_eq!(shown(sh("echo x").new_session()), "x\r\n");
}

/// Its user may open it again.
pub(crate) fn the_terminal_belongs_to_the_user() {
    let sandbox = sh("tty; stat -c %u $(tty); echo x >$(tty)").namespaces(Namespaces::MOUNT).mount(Mount::dev("/dev"));
    let sandbox = sandbox.credentials(Credentials::new(1234, 1234));
    assert_eq!(shown(sandbox), "/dev/pts/0\r\n1234\r\nx\r\n");
}

pub(crate) fn a_new_size_is_told() {
    let script = "trap 'stty size; exit 0' WINCH; echo ready; sleep 1000 & wait";
    for sandbox in [sh(script), inside(sh(script))] {
        let mut child = sandbox.terminal(SIZE).spawn().unwrap();
        let terminal = child.terminal.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        let mut screen = Screen { terminal: terminal.into(), seen: String::new() };
        screen.until("ready");
        child.terminal.as_ref().unwrap().resize(TerminalSize::new(50, 132)).unwrap();
        screen.until("50 132");
        assert_eq!(child.terminal.as_ref().unwrap().size().unwrap(), TerminalSize::new(50, 132));
        drop((child.terminal.take(), screen));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Until the shell has given the terminal to the job, which is there.
fn foreground(screen: &Screen) {
    while !nix::unistd::tcgetpgrp(&screen.terminal).is_ok_and(|group| is_sleep(group.as_raw())) {
        std::thread::yield_now();
    }
}

fn is_sleep(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
}

/// Ctrl-C, Ctrl-Z, jobs and fg, as at any terminal.
pub(crate) fn jobs_are_controlled() {
    // The shell is never process 1, which has no default for signals.
    let shell = program("/bin/sh").args(["-c", "/bin/sh -i; echo left"]);
    jobs_of(shell.clone(), "left");
    jobs_of(inside(shell), "left");
}

/// The same, where an init is process 1; and the shell may be the program itself.
pub(crate) fn jobs_are_controlled_below_an_init() {
    jobs_of(inside(program("/bin/sh").args(["-c", "/bin/sh -i; echo left"])).init(), "left");
    jobs_of(inside(program("/bin/sh").arg("-i")).init(), "");
    // The program leads its session, as it does without.
    let text = shown(inside(sh(&format!("{STAT}; tty"))).mount(Mount::proc("/proc")).init());
    assert_eq!(text, "leads\r\n30 90\r\nx\r\n/dev/pts/0\r\n");
    let text = shown(sh(STAT).user(IdMap::root()).namespaces(Namespaces::PID).init());
    assert_eq!(text, "leads\r\n30 90\r\nx\r\n");
    // What the keyboard sends ends the program, which handles nothing; so does it when the terminal is hung up.
    for (typed, signal) in [(Some("\x03"), libc::SIGINT), (Some("\x1c"), libc::SIGQUIT), (None, libc::SIGHUP)] {
        let sandbox = inside(sh("echo ready; exec sleep 1000")).init().rlimit(cofferdam_namespaces::Resource::Core, 0);
        let mut child = sandbox.terminal(SIZE).spawn().unwrap();
        let mut screen = Screen::of(&mut child);
        screen.until("ready");
        match typed {
            Some(typed) => screen.type_in(typed),
            None => drop(screen),
        }
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal));
    }
    // A new size is told to the program, by the terminal and by the caller.
    let script = "trap 'stty size' WINCH; echo ready; sleep 1000 & while :; do wait; done";
    let child = inside(sh(script)).init().terminal(SIZE).spawn().unwrap();
    let terminal = child.terminal.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
    let mut screen = Screen { terminal: terminal.into(), seen: String::new() };
    screen.until("ready");
    child.terminal.as_ref().unwrap().resize(TerminalSize::new(50, 132)).unwrap();
    screen.until("50 132");
    child.signal(libc::SIGWINCH).unwrap();
    screen.until("50 132");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn jobs_of(shell: Sandbox, farewell: &str) {
    let shell = shell.env("PATH", "/usr/bin:/bin").env("PS1", "$ ");
    let mut child = shell.terminal(SIZE).spawn().unwrap();
    let mut screen = Screen::of(&mut child);
    screen.until("$ ");
    screen.type_in("sleep 1001\n");
    screen.until("sleep 1001\r\n");
    foreground(&screen);
    screen.type_in("\x03");
    screen.until("$ ");
    screen.type_in("echo code $?\n");
    screen.until("\r\ncode 130");
    screen.until("$ ");
    screen.type_in("sleep 1002\n");
    screen.until("sleep 1002\r\n");
    foreground(&screen);
    screen.type_in("\x1a");
    screen.until("Stopped");
    screen.until("$ ");
    screen.type_in("kill %1; fg\n");
    screen.until("$ ");
    screen.type_in("echo code $?\n");
    screen.until("\r\ncode 143");
    screen.until("$ ");
    screen.type_in("\x04");
    assert!(screen.rest().contains(farewell));
    assert!(child.wait().unwrap().success());
}

/// An editor and a process viewer, full screen; and `yes | head` does not hang.
pub(crate) fn full_screen_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    let path = file.to_str().unwrap();
    let mut editors = vec![vec!["/bin/busybox", "vi", path]];
    if std::path::Path::new("/usr/bin/vim").exists() {
        editors.push(vec!["/usr/bin/vim", "-u", "NONE", "-i", "NONE", "-n", path]);
    }
    for editor in editors {
        std::fs::write(&file, "before\n").unwrap();
        let sandbox = program(editor[0]).args(&editor[1..]).env("TERM", "vt100").env("PATH", "/usr/bin:/bin");
        let mut child = inside(sandbox).terminal(SIZE).spawn().unwrap();
        let mut screen = Screen::of(&mut child);
        screen.until("before");
        screen.type_in("Oafterwards\x1b");
        screen.until("afterwards");
        screen.type_in(":wq\r");
        screen.rest();
        assert!(child.wait().unwrap().success(), "{editor:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "afterwards\nbefore\n", "{editor:?}");
    }
    let mut viewers = vec![vec!["/bin/busybox", "top"]];
    if std::path::Path::new("/usr/bin/top").exists() {
        viewers.push(vec!["/usr/bin/top"]);
    }
    for viewer in viewers {
        let sandbox = program(viewer[0]).args(&viewer[1..]).env("TERM", "vt100").env("PATH", "/usr/bin:/bin");
        let mut child = inside(sandbox.mount(Mount::proc("/proc"))).terminal(SIZE).spawn().unwrap();
        let mut screen = Screen::of(&mut child);
        screen.until("COMMAND");
        screen.type_in("q");
        screen.rest();
        assert!(child.wait().unwrap().success(), "{viewer:?}");
    }
    assert_eq!(shown(inside(sh("yes | head -n 2"))), "y\r\ny\r\n");
}

/// As long as somebody has the terminal, the program goes on; then it is hung up.
pub(crate) fn detached_and_hung_up() {
    let mut child = sh("echo ready; read line; echo heard $line; exec sleep 1000").terminal(SIZE).spawn().unwrap();
    let mut screen = Screen::of(&mut child);
    screen.until("ready");
    // Nobody is there for a while, and somebody else comes.
    let kept = screen.terminal.as_fd().try_clone_to_owned().unwrap();
    drop(screen);
    assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    let mut screen = Screen { terminal: kept.into(), seen: String::new() };
    screen.type_in("you\n");
    screen.until("heard you");
    drop(screen);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(libc::SIGHUP));
}

pub(crate) fn held_and_joined_with_a_terminal() {
    let plan = inside(sh("tty; read line; echo $line")).terminal(SIZE).prepare(Fds::new()).unwrap();
    let mut child = plan.hold().unwrap().release().unwrap();
    let mut screen = Screen::of(&mut child);
    screen.until("/dev/pts/0\r\n");
    let target = Target::from_pidfd(child.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let joined = sh("stty size; read line; echo $line").terminal(SIZE).join(Join::all());
    let mut joined = joined.spawn_with(Fds::new().target(target)).unwrap();
    let mut other = Screen::of(&mut joined);
    other.until("30 90\r\n");
    other.type_in("typed\n");
    other.until("typed\r\ntyped\r\n");
    assert!(joined.wait().unwrap().success());
    screen.type_in("end\n");
    screen.until("end\r\nend\r\n");
    screen.rest();
    assert!(child.wait().unwrap().success());
    crate::hold::threads_end();
}

/// The descriptors of a program with a terminal are three.
pub(crate) fn a_terminal_is_three_descriptors() {
    let sandbox = || program("/bin/ls").args(["-1", "/proc/self/fd"]);
    assert_eq!(shown(sandbox()), "0\r\n1\r\n2\r\n3\r\n");
    assert_eq!(shown(inside(sandbox()).mount(Mount::proc("/proc"))), "0\r\n1\r\n2\r\n3\r\n");
}

/// Each call of a child that opens a terminal and hands it over, failed in turn; and the child killed.
pub(crate) fn every_call_for_a_terminal_can_fail() {
    let sandbox = program("/bin/true").user(IdMap::root()).namespaces(Namespaces::MOUNT);
    let sandbox = sandbox.mount(Mount::devpts("/dev/pts")).terminal(SIZE);
    let prepare = || sandbox.prepare(Fds::new());
    let run = || prepare()?.spawn()?.wait();
    let (calls, result) = record(run);
    assert!(result.unwrap().success());
    let made: Vec<_> = calls.into_iter().filter(|call| call.who == Who::Child).collect();
    let plan = prepare().unwrap();
    assert_eq!(made.len(), plan.explain().count());
    let before = Unchanged::now();
    for (nth, call) in plan.explain().enumerate() {
        let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Errno(libc::EXFULL) }, run);
        let error = result.expect_err("fails");
        assert_eq!((error.step(), error.raw_os_error()), (call.step(), Some(libc::EXFULL)), "{call}: {error}");
        no_child_is_left();
        let (_, result) = inject(Fault { who: Who::Child, nth, action: Action::Kill }, run);
        if call.step() != Step::Exec {
            assert_eq!(result.expect_err("is killed").kind(), ErrorKind::Killed, "{call}");
        }
        no_child_is_left();
        before.check();
    }
    assert_eq!(refused(&program("/nowhere").terminal(SIZE)).kind(), ErrorKind::NotFound);
}
