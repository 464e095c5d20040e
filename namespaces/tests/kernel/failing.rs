//! Targets that die while they are joined, or let who joins them wait.
//!
//! One of the latter is this test program, started there as `kernel mute WHERE`: it serves a file system, `fuse(4)`, until it is where it wants to be, and then answers nothing any more.

use crate::escape;
use crate::faults::no_child_is_left;
use crate::hold::{threads_end, walk};
use crate::joins::{end, inside, no_other_child_is_left, target, whole};
use crate::remounts::hidden;
use crate::support::{program, sh};

use cofferdam_namespaces::{
    Child, ErrorKind, Fallbacks, Fds, Held, IdMap, Join, Mount, Namespaces, Plan, Sandbox, Step,
};
use cofferdam_testkit::patience;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// Where the file system is.
const PLACE: &str = "/mnt";

fn short() -> Duration {
    Duration::from_millis(200) * patience()
}

/// Set when nothing is answered any more.
static MUTE: AtomicBool = AtomicBool::new(false);

/// The target's own side of it.
pub(crate) fn main(place: &str) {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40755,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("mute"), PLACE, Some("fuse"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(&*options)).unwrap();
    // Who does not even say hello keeps everybody waiting who asks.
    if place != "deaf" {
        thread::spawn(move || serve(device));
    }
    match place {
        "cwd" => std::env::set_current_dir(PLACE).unwrap(),
        "root" => nix::unistd::chroot(PLACE).unwrap(),
        _ => {}
    }
    MUTE.store(place != "flush", SeqCst);
    println!("ready");
    std::io::stdin().lines().next();
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const ACCESS: u32 = 34;
/// Of a `struct fuse_in_header`.
const HEADER: usize = 40;

fn serve(mut device: File) {
    let mut request = vec![0; 1 << 16];
    while let Ok(length) = device.read(&mut request) {
        assert!(length >= HEADER);
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        if word(4) == FORGET {
            continue;
        }
        if MUTE.load(SeqCst) || word(4) == FLUSH {
            println!("asked");
            continue;
        }
        let answer = match word(4) {
            // Version 7.31, one page at a time, and nothing else that it can do.
            INIT => Ok(words(&[7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            // For an hour: struct fuse_attr_out of a directory or of a program, and struct fuse_entry_out of that one.
            GETATTR if word(16) == 1 => Ok(words(&[&[3600, 0, 0, 0][..], &attributes(1, 0o40755)].concat())),
            GETATTR => Ok(words(&[&[3600, 0, 0, 0][..], &attributes(2, 0o100_755)].concat())),
            LOOKUP => Ok(words(&[&[2, 0, 0, 0, 3600, 0, 3600, 0, 0, 0][..], &attributes(2, 0o100_755)].concat())),
            OPEN => Ok(words(&[0; 4])),
            READ => Ok(b"junk".to_vec()),
            ACCESS => Ok(Vec::new()),
            _ => Err(libc::ENOENT),
        };
        let (errno, body) = answer.map_or_else(|errno| (errno, Vec::new()), |body| (0, body));
        let length = u32::try_from(16 + body.len()).unwrap();
        let head = [length.to_ne_bytes(), (-errno).to_ne_bytes()].concat();
        device.write_all(&[&head, &request[8..16], &body].concat()).unwrap();
    }
}

/// A `struct fuse_attr`.
fn attributes(inode: u32, mode: u32) -> [u32; 22] {
    let mut attributes = [0; 22];
    (attributes[0], attributes[2], attributes[15], attributes[16]) = (inode, 4, mode, 1);
    attributes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Ended before the plan is made, before it is spawned, and while it is being joined, at any moment.
pub(crate) fn a_target_that_dies() {
    let child = inside(whole());
    let dead = target(&child);
    let plan = sh("true").join(Join::all()).prepare(Fds::new().target(dead.clone())).unwrap();
    assert!(plan.spawn().unwrap().wait().unwrap().success());
    child.kill().unwrap();
    child.wait().unwrap();
    let error = plan.spawn().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NoSuchProcess, Step::Join), "{error}");
    let error = sh("true").join(Join::all()).prepare(Fds::new().target(dead)).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NoSuchProcess, Step::Target), "{error}");
    no_child_is_left();
    // Its process 1 takes along who is on the way: whatever comes first, the caller is told and nobody stays.
    let join = |child: &Child| {
        let plan = program("/bin/true").join(Join::all()).prepare(Fds::new().target(target(child))).unwrap();
        thread::spawn(move || plan.spawn().map(|joined| joined.wait().unwrap()))
    };
    let child = inside(whole());
    let takes = || {
        let begin = Instant::now();
        join(&child).join().unwrap().unwrap();
        begin.elapsed()
    };
    // At moments from its beginning to behind its end.
    let longest = (0..5).map(|_| takes()).max().unwrap() * 2;
    end(&child);
    let (mut gone, mut there) = (0, 0);
    for round in 0..60 {
        let child = inside(whole());
        let joiner = join(&child);
        let begin = Instant::now();
        while begin.elapsed() < longest * round / 60 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        match joiner.join().unwrap() {
            Ok(_) => there += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSuchProcess, "{error}");
                gone += 1;
            }
        }
        child.wait().unwrap();
        no_child_is_left();
    }
    assert!(gone > 0 && there > 0, "{gone} joins failed, {there} did not");
}

/// The child has come in and waits there when the target dies, and takes it along.
pub(crate) fn the_target_dies_while_the_child_is_held() {
    let child = inside(whole());
    let plan = program("/bin/true").join(Join::all()).prepare(Fds::new().target(target(&child))).unwrap();
    let held = plan.hold().unwrap();
    child.kill().unwrap();
    poll(&mut [PollFd::new(held.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    let error = held.release().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSuchProcess, "{error}");
    child.wait().unwrap();
    threads_end();
    no_child_is_left();
}

fn mute(place: &str) -> Child {
    let sandbox = program(escape::program()).args(["mute", place]).user(IdMap::root());
    inside(sandbox.namespaces(Namespaces::PID | Namespaces::MOUNT).mount(Mount::proc("/proc")))
}

fn waiting() -> Child {
    inside(sh("echo ready; read line").user(IdMap::root()).namespaces(Namespaces::PID | Namespaces::MOUNT))
}

/// Until it has been asked for something that it does not answer.
fn asked(child: &mut Child) {
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"asked\n");
}

fn plan(child: &Child, sandbox: Sandbox, join: Join) -> Plan {
    sandbox.join(join).prepare(Fds::new().target(target(child))).unwrap()
}

fn took_too_long<T: std::fmt::Debug>(result: Result<T, cofferdam_namespaces::Error>, child: &Child, step: Step) {
    let error = result.unwrap_err();
    let object = error.object().unwrap().to_str().unwrap().to_owned();
    let expected = (ErrorKind::TimedOut, step, format!("process {}", child.id()));
    assert_eq!((error.kind(), error.step(), object), expected, "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
}

/// Where the target is, what joins it, and what else it takes from there; what is kept.
type Case = (&'static str, Sandbox, fn(Join) -> Join, Step);

/// The program, the working directory, the root are in a file system that does not answer, or the program in one that does not even begin to. Without a timeout the
/// caller waits as long as there is a target.
pub(crate) fn a_file_system_that_does_not_answer() {
    let there = || program("/bin/true");
    let in_it = || program(format!("{PLACE}/program"));
    let cases: [Case; 5] = [
        ("deaf", in_it(), |join| join, Step::Exec),
        ("program", in_it(), |join| join, Step::Exec),
        ("program", in_it().die_with_parent(), |join| join, Step::Exec),
        ("cwd", there(), Join::working_directory, Step::Join),
        ("root", there(), |join| join, Step::Join),
    ];
    for (place, sandbox, more, step) in cases {
        let mut child = mute(place);
        let bounded = plan(&child, sandbox.clone(), more(Join::all().timeout(short())));
        took_too_long(bounded.spawn(), &child, step);
        let held = bounded.hold();
        match step {
            Step::Join => took_too_long(held, &child, step),
            _ => took_too_long(held.and_then(Held::release), &child, step),
        }
        if place != "deaf" {
            // One at a time. The kernel does not let go of who waits for an answer, killed or not.
            asked(&mut child);
        }
        let unbounded = plan(&child, sandbox, more(Join::all()));
        let (tell, told) = channel();
        thread::scope(|scope| {
            scope.spawn(|| tell.send(unbounded.spawn().map(drop)).unwrap());
            assert!(told.recv_timeout(short()).is_err(), "{place}: it does not wait");
            child.kill().unwrap();
            told.recv().unwrap().unwrap_err();
        });
        child.wait().unwrap();
        threads_end();
        no_child_is_left();
    }
}

/// The same, where the process between is not known by its number.
pub(crate) fn a_join_by_the_old_clone_that_takes_too_long() {
    for (place, name, more, step) in [
        ("program", format!("{PLACE}/program"), None, Step::Exec),
        ("cwd", "/bin/true".to_owned(), Some(Join::working_directory as fn(Join) -> Join), Step::Join),
    ] {
        let child = mute(place);
        let join = Join::all().timeout(short());
        let join = more.map_or(join.clone(), |more| more(join));
        let plan = plan(&child, program(name).fallbacks(Fallbacks::CLONE), join);
        thread::scope(|scope| {
            // The filter goes with the thread.
            let spawn = || took_too_long(hidden(libc::SYS_clone3, || plan.spawn()), &child, step);
            scope.spawn(spawn).join().unwrap();
        });
        end(&child);
        threads_end();
        no_child_is_left();
    }
}

/// The file system has answered all that it was asked, with what is no program: then it does not let go of who closes that.
pub(crate) fn a_file_system_that_does_not_let_go() {
    let in_it = || program(format!("{PLACE}/program"));
    for sandbox in [in_it(), in_it().die_with_parent()] {
        let mut child = mute("flush");
        let bounded = plan(&child, sandbox, Join::all().timeout(short() * 10));
        let (tell, told) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                tell.send((bounded.spawn().map(drop), bounded.hold().and_then(Held::release).map(drop))).unwrap();
            });
            asked(&mut child);
            let told_in_time = told.recv_timeout(Duration::from_secs(30) * patience());
            child.kill().unwrap();
            let (spawned, released) = told_in_time.expect("it waits for who does not end");
            for error in [spawned.unwrap_err(), released.unwrap_err()] {
                assert_eq!((error.step(), error.raw_os_error()), (Step::Exec, Some(libc::ENOEXEC)), "{error}");
            }
        });
        child.wait().unwrap();
        threads_end();
        no_child_is_left();
    }
}

/// The same, where an init starts the program.
pub(crate) fn an_init_whose_program_does_not_come() {
    let child = mute("program");
    let join = Join::only(Namespaces::USER | Namespaces::MOUNT).timeout(short());
    let sandbox = program(format!("{PLACE}/program")).namespaces(Namespaces::PID).init();
    took_too_long(plan(&child, sandbox, join).spawn(), &child, Step::Exec);
    end(&child);
    threads_end();
    no_child_is_left();
}

/// Who may signal the child in there can stop it.
pub(crate) fn a_join_that_is_stopped() {
    let child = waiting();
    let stopped = |join| {
        let held = plan(&child, program("/bin/true"), join).hold().unwrap();
        let pid = Pid::from_raw(held.id().cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap();
        (held, pid)
    };
    let (held, _) = stopped(Join::all().timeout(short()));
    took_too_long(held.release(), &child, Step::Exec);
    threads_end();
    let (held, pid) = stopped(Join::all());
    let (tell, told) = channel();
    thread::scope(|scope| {
        scope.spawn(|| tell.send(held.release()).unwrap());
        assert!(told.recv_timeout(short()).is_err(), "it does not wait");
        kill(pid, Signal::SIGCONT).unwrap();
        assert!(told.recv().unwrap().unwrap().wait().unwrap().success());
    });
    end(&child);
    threads_end();
    no_child_is_left();
}

/// It is held on its way.
pub(crate) fn every_call_of_a_join_with_a_timeout_can_fail() {
    let child = waiting();
    let join = Join::all().timeout(Duration::from_secs(1000));
    let sandbox = program("/bin/true").join(join).die_with_parent();
    let run = || sandbox.spawn_with(Fds::new().target(target(&child)))?.wait();
    let steps = walk(run, no_other_child_is_left);
    assert!([Step::Join, Step::Hold, Step::LetGo].iter().all(|step| steps.contains(step)), "{steps:?}");
    end(&child);
}

/// Given up at any moment: it is joined, or nothing is left of it.
pub(crate) fn a_join_that_is_given_up() {
    let child = waiting();
    let (mut joined, mut given_up) = (0, 0);
    for round in 0..60_u32 {
        let timeout = Duration::from_micros(1) + Duration::from_micros(100) * round;
        let plan = plan(&child, program("/bin/true"), Join::all().timeout(timeout));
        match plan.spawn() {
            Ok(started) => {
                assert!(started.wait().unwrap().success());
                joined += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
                given_up += 1;
            }
        }
    }
    // As if there were none.
    let plan = plan(&child, sh("exit 7").die_with_parent(), Join::all().timeout(Duration::MAX));
    assert_eq!(plan.spawn().unwrap().wait().unwrap().code(), Some(7));
    assert_eq!(plan.hold().unwrap().release().unwrap().wait().unwrap().code(), Some(7));
    threads_end();
    assert!(given_up > 0, "{joined} were joined");
    end(&child);
    no_child_is_left();
}
