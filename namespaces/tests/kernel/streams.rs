//! Standard streams, and no other descriptor.

use crate::support::{output_with, program, read, refused, sh, without};
use cofferdam_namespaces::{ErrorKind, Fds, Stdio};
use cofferdam_testkit::fault::Fault;
use nix::unistd::{close, dup, dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::{self, File};
use std::io::{Read, Write, stderr, stdin, stdout};
use std::os::fd::AsRawFd;

pub(crate) fn pipes_carry_data_both_ways() {
    let mut child =
        sh("cat; echo error >&2").stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe).spawn().unwrap();
    // More than a pipe holds, so that both sides have to run at once.
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut received = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut received).unwrap();
    writer.join().unwrap().unwrap();
    assert!(received == data);
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(error, "error\n");
    assert!(child.wait().unwrap().success());
}

pub(crate) fn null_swallows_and_gives_nothing() {
    let script = "[ \"$(wc -c)\" = 0 ] && [ \"$(stat -L -c %t:%T /proc/self/fd/0 /proc/self/fd/2)\" = '1:3\n1:3' ]";
    let child = sh(script).stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null).spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

/// What is at `/dev/null` is looked at, and not believed by its name.
pub(crate) fn a_null_device_that_is_a_file() {
    let (trap, none) = (tempfile::NamedTempFile::new().unwrap(), None::<&str>);
    let sandbox = sh("echo x").stdout(Stdio::Null);
    nix::mount::mount(Some(trap.path()), "/dev/null", none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    let error = refused(&sandbox);
    assert_eq!(fs::read(trap.path()).unwrap(), b"", "nothing was written");
    // By its name.
    let naive = std::process::Command::new("/bin/echo").arg("x").stdout(std::process::Stdio::null()).status();
    nix::mount::umount("/dev/null").unwrap();
    assert!(naive.unwrap().success());
    assert_eq!((error.kind(), error.object().unwrap()), (ErrorKind::InvalidConfig, "/dev/null".as_ref()), "{error}");
    assert_eq!(fs::read(trap.path()).unwrap(), b"x\n", "the attack is none");
    assert!(sandbox.spawn().unwrap().wait().unwrap().success());
}

/// One file for two streams, as a shell's `>log 2>&1`.
pub(crate) fn a_descriptor_can_serve_two_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let sandbox = sh("echo out; echo err >&2").stdout(Stdio::fd("log")).stderr(Stdio::fd("log"));
    let child = sandbox.spawn_with(Fds::new().bind("log", File::create(&path).unwrap())).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "out\nerr\n");
}

/// Descriptors that have the numbers of streams, in each other's places.
pub(crate) fn streams_can_be_crossed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("in"), "text").unwrap();
    // The host has closed its own streams, so that the kernel gives their numbers to what is opened next.
    let saved = [dup(stdin()), dup(stdout()), dup(stderr())].map(Result::unwrap);
    for stream in 0..3 {
        close(stream).unwrap();
    }
    let out = File::create(path("out")).unwrap();
    let err = File::create(path("err")).unwrap();
    let input = File::open(path("in")).unwrap();
    let numbers = [out.as_raw_fd(), err.as_raw_fd(), input.as_raw_fd()];
    let sandbox = sh("cat; echo err >&2").stdin(Stdio::fd("in")).stdout(Stdio::fd("out")).stderr(Stdio::fd("err"));
    let crossed = sandbox
        .spawn_with(Fds::new().bind("in", input).bind("out", out).bind("err", err))
        .and_then(|child| child.wait());
    // Pipes made while the numbers of streams are free.
    let piped = sh("echo through")
        .stdin(Stdio::Null)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Null)
        .spawn()
        .map(|mut child| (read(&mut child), child.wait()));
    dup2_stdin(&saved[0]).unwrap();
    dup2_stdout(&saved[1]).unwrap();
    dup2_stderr(&saved[2]).unwrap();
    assert_eq!(numbers, [0, 1, 2], "the test's own premise");
    assert!(crossed.unwrap().success());
    assert_eq!(fs::read_to_string(path("out")).unwrap(), "text");
    assert_eq!(fs::read_to_string(path("err")).unwrap(), "err\n");
    let (text, status) = piped.unwrap();
    assert_eq!(text, "through\n");
    assert!(status.unwrap().success());
}

/// Exactly 0, 1 and 2, although the host has descriptors that somebody forgot to close on exec.
pub(crate) fn no_other_descriptor_gets_in() {
    let leaky = File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let far = nix::fcntl::fcntl(&leaky, nix::fcntl::FcntlArg::F_DUPFD(900)).unwrap();
    let list = || output_with(program("/bin/ls").arg("/proc/self/fd"), Fds::new());
    let (text, leaked) = (list(), without(libc::SYS_close_range, Fault::EVERY, list));
    close(far).unwrap();
    // 3 is ls's own look at the folder.
    assert_eq!(text, "0\n1\n2\n3\n");
    assert!(leaked.contains(&format!("\n{far}\n")), "they would be there: {leaked}");
}

/// A stream that would be closed at the start of a program is inherited all the same; one that is closed already is refused.
pub(crate) fn inherited_streams_are_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("in"), "text").unwrap();
    let saved = dup(stdin()).unwrap();
    close(0).unwrap();
    let closed = program("/bin/true").spawn();
    // Rust opens with O_CLOEXEC; the number is 0.
    let input = File::open(folder.path().join("in")).unwrap();
    let number = input.as_raw_fd();
    let text = program("/bin/cat").stdout(Stdio::Pipe).spawn().map(|mut child| (read(&mut child), child.wait()));
    std::mem::forget(input);
    dup2_stdin(&saved).unwrap();
    assert_eq!(number, 0, "the test's own premise");
    let (text, status) = text.unwrap();
    assert_eq!(text, "text");
    assert!(status.unwrap().success());
    let error = closed.unwrap_err();
    assert_eq!((error.kind(), error.object().unwrap().to_str()), (ErrorKind::InvalidConfig, Some("stdin")));
}
