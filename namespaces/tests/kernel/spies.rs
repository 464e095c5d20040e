//! What somebody inside tries on those who come in: this test program, started there as `kernel spy`, `kernel thief` or `kernel guest`.
//!
//! Each reads a line, does one thing, and says a line.
#![expect(unsafe_code, reason = "ptrace(2), in a process of its own")]
#![allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "as C passes numbers to the kernel")]

use crate::escape;
use crate::hold::threads_end;
use crate::joins::{end, target};
use crate::support::{program, without};
use cofferdam_namespaces::{
    BpfInstruction, Child, Fds, IdMap, Join, Mount, Namespaces, Sandbox, Seccomp, Stdio, Target,
};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// If this is what this program is to be.
pub(crate) fn is_one(name: &str) -> bool {
    ["spy", "thief", "guest"].contains(&name)
}

pub(crate) fn main(name: &str, mut arguments: impl Iterator<Item = String>) {
    match name {
        "spy" => answer(|_| spy()),
        "thief" => {
            let mut thief = Thief { host: arguments.next().unwrap(), found: None };
            answer(|line| thief.answer(line));
        }
        _ => guest(arguments.next().unwrap().parse().unwrap()),
    }
}

fn answer(mut answer: impl FnMut(&str) -> String) {
    println!("ready");
    for line in std::io::stdin().lines() {
        println!("{}", answer(&line.unwrap()));
    }
}

fn others() -> Vec<u32> {
    let (me, parent) = (std::process::id(), std::os::unix::process::parent_id());
    let names = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).filter(|pid| ![me, parent, 1].contains(pid)).collect()
}

/// Seizes, attaches to and reads the memory of everybody else; in a process of its own, with whose end they are let go again.
fn spy() -> String {
    // SAFETY: this program has one thread.
    if let nix::unistd::ForkResult::Parent { child } = unsafe { nix::unistd::fork() }.unwrap() {
        nix::sys::wait::waitpid(child, None).unwrap();
        return "done".into();
    }
    for pid in others() {
        // SAFETY: these two requests take numbers, and touch no memory.
        let request = |request| unsafe { libc::ptrace(request, pid, 0_usize, 0_usize) } == 0;
        let seized = request(libc::PTRACE_SEIZE);
        let attached = !seized && request(libc::PTRACE_ATTACH);
        let read = File::open(format!("/proc/{pid}/mem")).is_ok();
        let said = [(seized, "seized"), (attached, "attached"), (read, "memory")];
        let said: Vec<_> = said.iter().filter(|(done, _)| *done).map(|(_, what)| *what).collect();
        print!("{pid}: {} ", said.join("+"));
    }
    std::io::stdout().flush().unwrap();
    std::process::exit(0)
}

/// Looks for the host's program behind everybody, keeps it, and writes to it when nobody runs it any more.
struct Thief {
    host: String,
    found: Option<File>,
}

impl Thief {
    fn answer(&mut self, line: &str) -> String {
        if line == "look" {
            for pid in others() {
                let exe = format!("/proc/{pid}/exe");
                // What it is, when it is open: behind the name may be the next program by then, and that would be the machine's.
                let found = File::open(&exe).ok().filter(|file| is_at(file, &self.host));
                self.found = self.found.take().or(found);
            }
            return if self.found.is_some() { "found".into() } else { "nothing".into() };
        }
        let Some(found) = self.found.as_ref().filter(|file| is_at(file, &self.host)) else { return "nothing".into() };
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        match OpenOptions::new().write(true).open(again).and_then(|mut file| file.write_all(b"stolen")) {
            Ok(()) => "written".into(),
            Err(error) => error.to_string(),
        }
    }
}

fn is_at(file: &File, path: &str) -> bool {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).is_ok_and(|found| found == Path::new(path))
}

/// Somebody who joins a process, is held there for a while, and then joins it again and again.
fn guest(pid: u32) {
    let plan = Sandbox::new("/bin/true").join(Join::all());
    let plan = plan.prepare(Fds::new().target(Target::process(pid).unwrap())).unwrap();
    let held = plan.hold().unwrap();
    println!("held");
    std::io::stdin().lines().next().unwrap().unwrap();
    held.release().unwrap().wait().unwrap();
    for _ in 0..50 {
        plan.spawn().unwrap().wait().unwrap();
    }
}

/// This program, as root in a pid namespace of its own. Of the machine's files it can write none: only what it finds elsewhere.
fn inside(arguments: &[&str]) -> Child {
    let sandbox = program(escape::program()).args(arguments).user(IdMap::root());
    let sandbox = sandbox.namespaces(Namespaces::PID | Namespaces::MOUNT).read_only_root().mount(Mount::proc("/proc"));
    let mut child = sandbox.stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
    assert_eq!(line(&mut child), "ready");
    child
}

/// Byte by byte: what follows is for others.
fn line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn ask(child: &mut Child, question: &str) -> String {
    writeln!(child.stdin.as_mut().unwrap(), "{question}").unwrap();
    line(child)
}

/// CVE-2016-9962: root inside cannot attach to who joins, nor read its memory, until it has started its program. With the flag left on, it can.
pub(crate) fn nobody_inside_traces_who_joins() {
    let mut spy = inside(&["spy"]);
    let plan = program("/bin/sleep").arg("1000").join(Join::all());
    let plan = plan.prepare(Fds::new().target(target(&spy))).unwrap();
    let held = plan.hold().unwrap();
    let said = ask(&mut spy, "look");
    assert!(said.starts_with(char::is_numeric) && said.ends_with(":  done"), "{said}");
    // The program itself is of the sandbox, whose root may trace it.
    let joined = held.release().unwrap();
    let said = ask(&mut spy, "look");
    assert!(said.ends_with(": seized+memory done"), "{said}");
    end(&joined);
    // The defence off: it is the first call of its number.
    let held = without(libc::SYS_prctl, 0, || plan.hold().unwrap());
    let said = ask(&mut spy, "look");
    assert!(said.ends_with(": seized+memory done"), "the attack is none: {said}");
    drop(held);
    threads_end();
    end(&spy);
}

/// As a filter: the call that hides is not made, and told to have been.
fn shown() -> Seccomp {
    let instruction = |code, jt, jf, k| BpfInstruction { code, jt, jf, k };
    Seccomp::bpf([
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 3, libc::SYS_prctl as u32),
        instruction(0x20, 0, 0, 16),
        instruction(0x15, 0, 1, libc::PR_SET_DUMPABLE as u32),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ERRNO),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

/// CVE-2019-5736: somebody inside keeps the program of who joins, and writes to it when the host does not run it any more. The host is a copy of this program.
pub(crate) fn nobody_inside_writes_to_the_hosts_program() {
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().join("host");
    fs::copy(escape::program(), &host).unwrap();
    let before = fs::read(&host).unwrap();
    for hides in [true, false] {
        let mut thief = inside(&["thief", host.to_str().unwrap()]);
        let guest = program(&host).args(["guest", &thief.id().to_string()]).no_new_privs();
        let guest = if hides { guest } else { guest.seccomp(shown()) };
        let mut guest = guest.stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().unwrap();
        assert_eq!(line(&mut guest), "held");
        let looked = ask(&mut thief, "look");
        writeln!(guest.stdin.as_mut().unwrap(), "go on").unwrap();
        // While it joins again and again.
        while guest.try_wait().unwrap().is_none() {
            ask(&mut thief, "look");
        }
        assert!(guest.wait().unwrap().success());
        let wrote = ask(&mut thief, "write");
        end(&thief);
        if hides {
            assert_eq!((&*looked, &*wrote), ("nothing", "nothing"));
            assert!(fs::read(&host).unwrap() == before, "the host's program is another one");
        } else {
            assert_eq!((&*looked, &*wrote), ("found", "written"), "the attack is none");
            assert!(fs::read(&host).unwrap().starts_with(b"stolen"));
        }
    }
}
