//! Descriptors at chosen numbers, and no others.

use crate::support::{output_with, program, refused, sh};
use cofferdam_namespaces::{Error, ErrorKind, Fallbacks, Fds, Sandbox, Stdio};
use cofferdam_testkit::fault::{Action, Fault, Watch, Who};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::{Read, Seek};

/// One that others forgot to close at the start of a program, high up.
fn leaky() -> std::os::fd::OwnedFd {
    let file = File::open("/etc/passwd").unwrap();
    let far = fcntl(&file, FcntlArg::F_DUPFD(900)).unwrap();
    #[expect(unsafe_code, reason = "a descriptor as others leave it")]
    // SAFETY: the kernel has just opened it.
    unsafe {
        std::os::fd::FromRawFd::from_raw_fd(far)
    }
}

fn listed(sandbox: Sandbox, fds: Fds) -> Vec<u32> {
    let mut numbers: Vec<u32> = output_with(sandbox, fds).lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn ls() -> Sandbox {
    program("/bin/ls").arg("/proc/self/fd")
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

pub(crate) fn what_was_asked_for_and_no_other() {
    let _leaky = leaky();
    let wanted = |numbers: &[u32]| {
        let sandbox = numbers.iter().fold(ls(), |sandbox, number| sandbox.fd(*number, format!("n{number}")));
        let fds = numbers.iter().fold(Fds::new(), |fds, number| fds.bind(format!("n{number}"), null()));
        listed(sandbox, fds)
    };
    // ls's own look at the folder takes the lowest that is free.
    assert_eq!(wanted(&[3]), [0, 1, 2, 3, 4]);
    assert_eq!(wanted(&[5, 9, 200]), [0, 1, 2, 3, 5, 9, 200]);
    assert_eq!(wanted(&[3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), (0..=13).collect::<Vec<_>>());
    assert_eq!(wanted(&[1000]), [0, 1, 2, 3, 1000]);
}

/// Whatever numbers they have here: those of each other among them.
pub(crate) fn descriptors_can_be_crossed() {
    use std::os::fd::AsRawFd;
    let mut files: Vec<File> = (0..6).map(|_| tempfile::tempfile().unwrap()).collect();
    let numbers: Vec<u32> = files.iter().map(|file| file.as_raw_fd().try_into().unwrap()).collect();
    let line = |at: usize| format!("echo {at} >/proc/self/fd/{}; ", numbers[(at + 1) % numbers.len()]);
    let script = (0..numbers.len()).map(line).collect::<Vec<_>>().concat();
    let (mut sandbox, mut fds) = (program("/bin/sh").args(["-c", &script]), Fds::new());
    for (at, file) in files.iter().enumerate() {
        // Each at the number that the next one has here.
        let number = numbers[(at + 1) % numbers.len()];
        sandbox = sandbox.fd(number, format!("file {at}"));
        fds = fds.bind(format!("file {at}"), file.try_clone().unwrap());
    }
    output_with(sandbox, fds);
    for (at, file) in files.iter_mut().enumerate() {
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("{at}\n"));
    }
}

/// A held child closes what is the caller's, and keeps what is its own.
pub(crate) fn they_survive_being_held() {
    let _leaky = leaky();
    let mut file = tempfile::tempfile().unwrap();
    let script = "echo said >&7; exec ls /proc/self/fd";
    let sandbox = sh(script).fd(7, "file").fd(4, "null").stdout(Stdio::Pipe);
    let fds = Fds::new().bind("file", file.try_clone().unwrap()).bind("null", null());
    let held = sandbox.prepare(fds).unwrap().hold().unwrap();
    let mut child = held.release().unwrap();
    assert_eq!(crate::support::read(&mut child), "0\n1\n2\n3\n4\n7\n");
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\n");
    crate::hold::threads_end();
}

/// Also where ranges cannot be closed.
pub(crate) fn without_close_range_they_are_all_there_is() {
    let _leaky = leaky();
    let missing = Fault { who: Who::Child, nth: Fault::EVERY, action: Action::Errno(libc::ENOSYS) };
    for held in [false, true] {
        let run = || -> Result<Vec<u32>, Error> {
            let sandbox = ls().fd(8, "a").fd(5, "b").stdout(Stdio::Pipe).fallbacks(Fallbacks::CLOSE_EACH);
            let plan = sandbox.prepare(Fds::new().bind("a", null()).bind("b", null()))?;
            let mut child = if held { plan.hold()?.release()? } else { plan.spawn()? };
            let text = crate::support::read(&mut child);
            assert!(child.wait()?.success());
            Ok(text.lines().map(|line| line.parse().unwrap()).collect())
        };
        let (_, found) = Watch::only(&[libc::SYS_close_range]).inject(missing, run);
        assert_eq!(found.unwrap(), [0, 1, 2, 3, 5, 8], "held: {held}");
    }
    crate::hold::threads_end();
}

pub(crate) fn numbers_that_cannot_be() {
    for number in [0, 2, 1024] {
        let error = ls().fd(number, "x").prepare(Fds::new().bind("x", null())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    assert_eq!(refused(&ls().fd(3, "nobody")).kind(), ErrorKind::InvalidConfig);
}
