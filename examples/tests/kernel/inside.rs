//! exec-into, lsns and pty-shell: beside nsenter(1) and lsns(8) on the same processes, and with somebody who types.

use crate::support::outcome;
use cofferdam_namespaces::{Child, IdMap, Mount, Namespaces, Sandbox, Stdio, TerminalSize};
use cofferdam_testkit::patience;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output};

pub(crate) const EXEC_INTO: &str = env!("CARGO_BIN_EXE_exec-into");
pub(crate) const LSNS: &str = env!("CARGO_BIN_EXE_lsns");
pub(crate) const PTY_SHELL: &str = env!("CARGO_BIN_EXE_pty-shell");
pub(crate) const NSENTER: &str = "/usr/bin/nsenter";
pub(crate) const THEIR_LSNS: &str = "/usr/bin/lsns";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Somebody to visit: root of namespaces of its own, with a second process.
fn target() -> Child {
    let own = Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::NET | Namespaces::IPC;
    let mut child = Sandbox::new("/bin/sh")
        .args(["-c", "sleep 1000 & echo ready; read line"])
        .env("PATH", PATH)
        .env("SECRET", "of the target")
        .user(IdMap::root())
        .namespaces(own)
        .mount(Mount::proc("/proc"))
        .hostname("target")
        .working_directory("/usr/lib")
        .stdin(Stdio::Pipe)
        .stdout(Stdio::Pipe)
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    child
}

fn end(child: &Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn run(program: &str, words: &[&str]) -> Output {
    Command::new(program).args(words).env("PATH", PATH).output().unwrap()
}

fn said(program: &str, words: &[&str]) -> String {
    let output = run(program, words);
    let (code, out, err) = outcome(&output);
    assert_eq!((code, err), (Some(0), ""), "{program} {words:?}: {out}");
    out.to_owned()
}

/// As root: for an ordinary user `nsenter --all` also wants the host's cgroup namespace, which that may not enter.
pub(crate) fn exec_into_as_nsenter_does() {
    let child = target();
    let pid = child.id().to_string();
    let theirs = |options: &[&str], script: &str| {
        let words = [&["-t", &pid], options, &["--", "/bin/sh", "-c", script]].concat();
        said(NSENTER, &words)
    };
    let ours = |options: &[&str], script: &str| said(EXEC_INTO, &[options, &[&*pid, "/bin/sh", "-c", script]].concat());
    let look =
        "for n in user pid mnt uts ipc net cgroup time; do readlink /proc/self/ns/$n; done; hostname; pwd; id -u; id -g
        grep CapEff /proc/self/status; set -- /proc/[0-9]*; echo $#";
    let all = ours(&[], look);
    assert!(all.contains("\ntarget\n/\n0\n0\n"), "{all}");
    assert_eq!(all, theirs(&["-a"], look));
    let some = "for n in user mnt uts net; do readlink /proc/self/ns/$n; done; hostname";
    for (kinds, options) in
        [("user,uts", &["-U", "-u"][..]), ("user,net", &["-U", "-n"]), ("user,mount", &["-U", "-m"])]
    {
        assert_eq!(ours(&["--only", kinds], some), theirs(options, some), "{kinds}");
    }
    assert_eq!(ours(&["--cwd", "--timeout", "1000"], "pwd; echo $SECRET"), "/usr/lib\n\n");
    assert_eq!(ours(&["--env", "--cwd"], "pwd; echo $SECRET"), "/usr/lib\nof the target\n");
    // As a shell tells it, or nsenter.
    let code = |words: &[&str]| run(EXEC_INTO, words).status.code();
    assert_eq!(code(&[&pid, "/bin/sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&[&pid, "/bin/sh", "-c", "kill -TERM $$"]), Some(143));
    assert_eq!(code(&[&pid, "/nowhere"]), Some(127));
    assert_eq!(code(&[&pid, "/etc/passwd"]), Some(126));
    assert_eq!(code(&["--only", "nothing", &pid]), Some(2));
    assert_eq!(code(&["--timeout", "0", &pid]), Some(125));
    let explained = said(EXEC_INTO, &["--explain", &pid, "/bin/true"]);
    assert!(
        explained.starts_with("join the namespaces: prctl()\n") && explained.contains(&format!("setns(process {pid})")),
        "{explained}"
    );
    end(&child);
    let gone = run(EXEC_INTO, &[&pid]);
    assert_eq!(outcome(&gone).0, Some(125));
}

/// Inode, kind, processes, oldest, owner, parent: 0 where there is none, or none that may be known.
type Row = [String; 6];

fn rows(text: &str) -> BTreeSet<Row> {
    let row = |line: &str| -> Row {
        let mut words = line.split_whitespace();
        std::array::from_fn(|_| words.next().map_or("-", |word| if word == "0" { "-" } else { word }).to_owned())
    };
    text.lines().map(row).collect()
}

pub(crate) fn lsns_as_the_other_one_does() {
    let child = target();
    let pid = child.id().to_string();
    let columns = ["--raw", "--noheadings", "-o", "NS,TYPE,NPROCS,PID,ONS,PNS", "-p", &pid];
    // It gives up when some other process ends under its eyes.
    let theirs = (0..1000).find_map(|_| {
        let output = run(THEIR_LSNS, &columns);
        (output.status.success() && !output.stdout.is_empty()).then(|| String::from_utf8(output.stdout).unwrap())
    });
    let ours = said(LSNS, &["-p", &pid]);
    let (head, ours) = ours.split_once('\n').unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["NS", "TYPE", "NPROCS", "PID", "ONS", "PNS", "COMMAND"]);
    let namespaces = ours.lines().filter(|line| !line.contains("are not ours to look at"));
    let ours = namespaces.collect::<Vec<_>>().join("\n");
    assert!(ours.contains("/bin/sh -c sleep 1000"), "{ours}");
    // The other one has an empty word where it knows nothing.
    let theirs = theirs.unwrap();
    let theirs = theirs.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let word = |at: usize| words.get(at).filter(|word| !word.is_empty()).map_or("-", |word| *word);
        (0..6).map(word).collect::<Vec<_>>().join(" ")
    });
    // Namespaces that are everybody's have more members from moment to moment.
    let own = |rows: BTreeSet<Row>| -> BTreeSet<Row> { rows.into_iter().filter(|row| row[3] == pid).collect() };
    let (ours, theirs) = (own(rows(&ours)), own(rows(&theirs.collect::<Vec<_>>().join("\n"))));
    assert_eq!(ours.len(), 6, "{ours:?}");
    assert_eq!(ours, theirs);
    let net = said(LSNS, &["-p", &pid, "-t", "net"]);
    assert_eq!(net.lines().filter(|line| line.contains(" net ")).count(), 1, "{net}");
    end(&child);
}

/// Somebody who sits at a terminal at which a program runs.
struct Seat {
    child: Child,
    screen: File,
    seen: String,
}

impl Seat {
    fn at(program: &str, words: &[&str]) -> Self {
        let sandbox = Sandbox::new(program).args(words).env("PATH", PATH).env("TERM", "vt100");
        let child = sandbox.terminal(TerminalSize::new(30, 90)).spawn().unwrap();
        let screen = child.terminal.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        Seat { child, screen: screen.into(), seen: String::new() }
    }

    fn types(&mut self, text: &str) {
        self.screen.write_all(text.as_bytes()).unwrap();
    }

    /// Reads on until this is shown, and forgets what came before.
    fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.more(), "{text:?} is not shown, but {:?}", self.seen);
        }
        let at = self.seen.find(text).unwrap();
        self.seen.drain(..at + text.len());
    }

    fn more(&mut self) -> bool {
        let timeout = u16::try_from(20_000 * patience()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(timeout)), Ok(1), "nothing comes after {:?}", self.seen);
        let mut bytes = [0; 4096];
        match self.screen.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.seen += &String::from_utf8_lossy(&bytes[..read]);
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32), "{error}");
                false
            }
        }
    }

    /// Until it has closed its side; its exit code.
    fn leaves(mut self) -> Option<i32> {
        while self.more() {}
        self.child.wait().unwrap().code()
    }
}

/// A shell inside of a shell: its prompt is another one than the commands that are typed.
const SHELL: [&str; 4] = ["--", "/bin/sh", "-c", "PS1='in''side# ' exec /bin/sh -i"];

/// As it would run in a window: size and resize, an editor, a viewer of processes, job control, the end.
pub(crate) fn pty_shell_is_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    // As process 1 a shell has no default for signals: one below it.
    let mut seat = Seat::at(PTY_SHELL, &["--", "/bin/sh", "-c", "PS1='in''side# ' /bin/sh -i; exit $?"]);
    seat.sees("inside# ");
    seat.types("stty size; hostname; tty; echo $$ is pid\n");
    seat.sees("30 90");
    seat.sees("sandbox");
    seat.sees("/dev/pts/0");
    seat.sees("inside# ");
    seat.child.terminal.as_ref().unwrap().resize(TerminalSize::new(50, 132)).unwrap();
    // The program between passes it on in its own time.
    seat.types("while [ \"$(stty size)\" != '50 132' ]; do :; done; echo re''sized\n");
    seat.sees("resized");
    seat.sees("inside# ");
    for editor in ["/usr/bin/vim", "/bin/busybox"].into_iter().filter(|path| Path::new(path).exists()) {
        fs::write(&file, "before\n").unwrap();
        let options = if editor.ends_with("vim") { "-u NONE -i NONE -n" } else { "vi" };
        seat.types(&format!("{editor} {options} {}\n", file.display()));
        seat.sees("before");
        seat.types("Oafterwards\x1b");
        seat.sees("afterwards");
        seat.types(":wq\r");
        seat.sees("inside# ");
        assert_eq!(fs::read_to_string(&file).unwrap(), "afterwards\nbefore\n", "{editor}");
    }
    for viewer in ["/usr/bin/top", "/bin/busybox top"] {
        if Path::new(viewer.split(' ').next().unwrap()).exists() {
            seat.types(&format!("{viewer}\n"));
            seat.sees("COMMAND");
            seat.types("q");
            seat.sees("inside# ");
        }
    }
    // Ctrl-Z, fg, Ctrl-C; what runs is known by what it says.
    seat.types("sh -c 'x=es; trap \"echo go$x on\" CONT; echo begin$x; while :; do :; done'\n");
    seat.sees("begines");
    seat.types("\x1a");
    seat.sees("Stopped");
    seat.sees("inside# ");
    seat.types("jobs; fg\n");
    seat.sees("Stopped");
    // It is in the foreground then.
    seat.sees("goes on");
    seat.types("\x03");
    seat.sees("inside# ");
    seat.types("echo code $?\n");
    seat.sees("code 130");
    seat.types("exit 7\n");
    assert_eq!(seat.leaves(), Some(7));
}

/// Ctrl-] leaves, and takes the sandbox along; and into one that runs.
pub(crate) fn pty_shell_is_left_and_joins() {
    let mut seat = Seat::at(PTY_SHELL, &SHELL);
    seat.sees("inside# ");
    seat.types("\x1d");
    assert_eq!(seat.leaves(), Some(137));
    let child = target();
    let mut seat = Seat::at(PTY_SHELL, &[&[&*child.id().to_string()][..], &SHELL].concat());
    seat.sees("inside# ");
    seat.types("hostname; stty size\n");
    seat.sees("target");
    seat.sees("30 90");
    seat.types("\x04");
    assert_eq!(seat.leaves(), Some(0));
    assert_eq!(child.try_wait().unwrap(), None, "the other one goes on");
    end(&child);
}
