//! A held child that another process releases by a path.

use crate::fallbacks::lacking;
use crate::faults::{fork, no_child_is_left};
use crate::hold::threads_end;
use crate::support::{program, sh};
use cofferdam_namespaces::{
    Child, Error, ErrorKind, Fds, Held, HeldAt, IdMap, Namespaces, Release, Sandbox, Stdio, Step,
};
use cofferdam_testkit::fault::{Fault, Who};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

fn held(sandbox: &Sandbox) -> Held {
    sandbox.prepare(Fds::new()).unwrap().hold().unwrap()
}

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Folder { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

fn at(sandbox: &Sandbox, path: &Path) -> HeldAt {
    held(sandbox).at(path, 0o600).unwrap()
}

/// Another process, which knows the path alone. Its exit code tells whether the release was done.
fn released_by_another(path: &Path) -> Pid {
    fork(|| Release::at(path).unwrap().wait().unwrap())
}

fn ended_well(child: &Child) {
    assert!(child.wait().unwrap().success());
}

/// Once, by a process that has nothing of the holder's; the path is there until then, and has its mode.
pub(crate) fn another_process_releases() {
    let folder = Folder::new();
    let (path, started) = (folder.path("start"), folder.path("started"));
    let script = format!("touch {started:?}; echo $$");
    let sandboxes = [
        sh(&script),
        sh(&script).user(IdMap::root()).namespaces(Namespaces::PID | Namespaces::NET),
        in_init(sh(&script)),
    ];
    for sandbox in sandboxes {
        let waiting = at(&sandbox.stdout(Stdio::Pipe), &path);
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(waiting.held().id() > 0 && !started.exists(), "started before its release");
        let other = released_by_another(&path);
        let mut child = waiting.wait().unwrap();
        assert_eq!(waitpid(other, None), Ok(WaitStatus::Exited(other, 0)));
        crate::support::read(&mut child);
        ended_well(&child);
        assert!(!path.exists());
        fs::remove_file(&started).unwrap();
    }
    assert_eq!(folder.entries(), 0);
    threads_end();
}

fn in_init(sandbox: Sandbox) -> Sandbox {
    sandbox.user(IdMap::root()).namespaces(Namespaces::PID).init()
}

/// Of several who ask at once, one has released it.
pub(crate) fn it_is_released_once() {
    let folder = Folder::new();
    let path = folder.path("start");
    let waiting = at(&program("/bin/true"), &path);
    // All are there before the holder looks.
    let asked: Vec<Release> = (0..3).map(|_| Release::at(&path).unwrap()).collect();
    let ready = poll(&mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
    assert_eq!(ready, Ok(1));
    assert!(!asked[0].wait_timeout(Duration::from_millis(10)).unwrap(), "nobody has answered");
    let child = waiting.wait().unwrap();
    asked[0].wait().unwrap();
    for late in &asked[1..] {
        let error = late.wait().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::AlreadyReleased, Step::Release), "{error}");
        assert_eq!(error.object(), Some(path.as_os_str()));
    }
    let error = Release::at(&path).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::Release), "{error}");
    ended_well(&child);
    threads_end();
}

/// Many processes, at any moment: each is told what came of it, and one of them did it.
pub(crate) fn many_race_to_release() {
    let folder = Folder::new();
    for round in 0..20 {
        let path = folder.path(&format!("start {round}"));
        let waiting = at(&program("/bin/true"), &path);
        let others: Vec<Pid> = (0..8)
            .map(|_| {
                fork(|| {
                    let released = Release::at(&path).and_then(|release| release.wait());
                    match released.map_err(|error| error.kind()) {
                        Ok(()) => std::process::exit(7),
                        Err(ErrorKind::AlreadyReleased | ErrorKind::NotFound) => std::process::exit(8),
                        Err(kind) => panic!("{kind:?}"),
                    }
                })
            })
            .collect();
        ended_well(&waiting.wait().unwrap());
        let codes = others.into_iter().map(|other| match waitpid(other, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            other => panic!("{other:?}"),
        });
        let mut codes: Vec<i32> = codes.collect();
        codes.sort_unstable();
        assert_eq!(codes, [7, 8, 8, 8, 8, 8, 8, 8]);
    }
    threads_end();
}

/// What keeps the program from starting both are told, by the same kind and errno.
pub(crate) fn who_releases_is_told_what_failed() {
    let folder = Folder::new();
    let path = folder.path("start");
    for sandbox in [program("/nowhere"), in_init(program("/nowhere"))] {
        let waiting = at(&sandbox, &path);
        let asked = Release::at(&path).unwrap();
        let holders = waiting.wait().unwrap_err();
        assert_eq!((holders.step(), holders.kind()), (Step::Exec, ErrorKind::NotFound), "{holders}");
        let error = asked.wait().unwrap_err();
        assert_eq!((error.step(), error.kind()), (Step::Release, ErrorKind::NotFound), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        assert!(error.to_string().ends_with(&holders.to_string()), "{error}");
        no_child_is_left();
    }
    threads_end();
}

/// The holder dies while others wait, and with it the child, which is never started.
pub(crate) fn the_holder_is_killed() {
    let folder = Folder::new();
    let (path, started) = (folder.path("start"), folder.path("started"));
    let (told, tell) = nix::unistd::pipe().unwrap();
    let (end, go) = nix::unistd::pipe().unwrap();
    let holder = fork(|| {
        let sandbox = sh(&format!("touch {started:?}")).stdout(Stdio::fd("pipe"));
        let held = sandbox.prepare(Fds::new().bind("pipe", tell.try_clone().unwrap())).unwrap().hold().unwrap();
        let waiting = held.at(&path, 0o600).unwrap();
        nix::unistd::write(&tell, b"!").unwrap();
        let _ = nix::unistd::read(&end, &mut [0]);
        std::mem::forget(waiting);
        raise(Signal::SIGKILL).unwrap();
    });
    drop(tell);
    let mut told = fs::File::from(told);
    told.read_exact(&mut [0]).unwrap();
    let asked = Release::at(&path).unwrap();
    assert!(!asked.wait_timeout(Duration::from_millis(1)).unwrap());
    nix::unistd::write(&go, b"!").unwrap();
    assert_eq!(waitpid(holder, None), Ok(WaitStatus::Signaled(holder, Signal::SIGKILL, false)));
    let error = asked.wait().unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::Release), "{error}");
    // The child had its copy of this end.
    assert_eq!(told.read(&mut [0]).unwrap(), 0, "the child is still there");
    assert!(!started.exists());
    // What it left says so, and is not replaced.
    let error = Release::at(&path).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::NotFound, Some(libc::ECONNREFUSED)), "{error}");
    let error = held(&program("/bin/true")).at(&path, 0o600).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Busy, Some(libc::EADDRINUSE)), "{error}");
    no_child_is_left();
    threads_end();
}

/// The child ends while its holder waits for somebody to release it.
pub(crate) fn the_child_is_killed() {
    let folder = Folder::new();
    let path = folder.path("start");
    let waiting = at(&program("/bin/true"), &path);
    kill(Pid::from_raw(waiting.held().id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    let error = waiting.wait().unwrap_err();
    assert_eq!((error.step(), error.signal()), (Step::Hold, Some(libc::SIGKILL)), "{error}");
    assert_eq!(folder.entries(), 0);
    no_child_is_left();
    threads_end();
}

/// Dropped, or held as before: the path is gone, if it is still the holder's.
pub(crate) fn the_path_goes_with_the_wait() {
    let folder = Folder::new();
    let path = folder.path("start");
    drop(at(&program("/bin/true"), &path));
    assert_eq!(folder.entries(), 0);
    no_child_is_left();
    let held = at(&program("/bin/true"), &path).into_held();
    assert_eq!(folder.entries(), 0);
    ended_well(&held.release().unwrap());
    let waiting = at(&program("/bin/true"), &path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another's").unwrap();
    drop(waiting);
    assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    threads_end();
}

/// What is at the path already is neither followed nor replaced by who holds; who releases is not led elsewhere by it, and not kept.
pub(crate) fn hostile_files_at_the_path() {
    let folder = Folder::new();
    let path = folder.path("start");
    let real = at(&program("/bin/true"), &folder.path("real"));
    let made = [
        ("a link to one", (|path: &Path| std::os::unix::fs::symlink("real", path).unwrap()) as fn(&Path)),
        ("a link to nothing", |path| std::os::unix::fs::symlink("nothing", path).unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a fifo", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap()),
        ("a file", |path| fs::write(path, "").unwrap()),
        ("a socket of another kind", |path| drop(std::os::unix::net::UnixDatagram::bind(path).unwrap())),
    ];
    for (name, make) in made {
        make(&path);
        let error = held(&program("/bin/true")).at(&path, 0o600).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Busy, Some(libc::EADDRINUSE)), "{name}: {error}");
        let error = Release::at(&path).unwrap_err();
        // Nobody has that socket open any more.
        let kind = if name.starts_with("a socket") { ErrorKind::NotFound } else { ErrorKind::InvalidConfig };
        assert_eq!((error.kind(), error.object()), (kind, Some(path.as_os_str())), "{name}: {error}");
        if name == "a folder" { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    let stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(Release::at(&path).unwrap_err().kind(), ErrorKind::InvalidConfig);
    drop(stream);
    assert_eq!(Release::at(folder.path("none")).unwrap_err().kind(), ErrorKind::NotFound);
    let ready = poll(&mut [PollFd::new(real.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
    assert_eq!(ready, Ok(0), "somebody was led there");
    threads_end_with(real);
}

fn threads_end_with(waiting: HeldAt) {
    drop(waiting);
    threads_end();
}

fn listener(path: &Path) -> OwnedFd {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    listener
}

/// Somebody else listens there, who never answers, or answers anything.
pub(crate) fn a_holder_that_means_no_good() {
    let folder = Folder::new();
    let path = folder.path("start");
    let hostile = listener(&path);
    let asked = Release::at(&path).unwrap();
    assert!(!asked.wait_timeout(Duration::from_millis(20)).unwrap());
    // It does not even take whom it lets come: the request does not block either.
    let more: Vec<Result<Release, Error>> = (0..4).map(|_| Release::at(&path)).collect();
    assert!(more.iter().any(|asked| asked.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)), "{more:?}");
    let taken = nix::sys::socket::accept(hostile.as_raw_fd()).unwrap();
    nix::sys::socket::send(taken, &[9; 3000], nix::sys::socket::MsgFlags::empty()).unwrap();
    assert_eq!(asked.wait().unwrap_err().kind(), ErrorKind::InvalidConfig);
    nix::unistd::close(taken).unwrap();
}

/// By the mode of the file.
pub(crate) fn who_may_not_is_refused() {
    let folder = Folder::new();
    fs::set_permissions(folder.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path("start");
    let by_nobody = |path: &Path| {
        fork(|| {
            nix::unistd::setgroups(&[]).unwrap();
            nix::unistd::setresgid(65534.into(), 65534.into(), 65534.into()).unwrap();
            nix::unistd::setresuid(65534.into(), 65534.into(), 65534.into()).unwrap();
            match Release::at(path) {
                Ok(asked) => asked.wait().unwrap(),
                Err(error) => {
                    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::PermissionDenied, Some(libc::EACCES)));
                    std::process::exit(13);
                }
            }
        })
    };
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    for (mode, code) in [(0o600, 13), (0o666, 0)] {
        let waiting = held(&program("/bin/true")).at(&path, mode).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        let other = by_nobody(&path);
        if code == 0 {
            ended_well(&waiting.wait().unwrap());
        }
        assert_eq!(waitpid(other, None), Ok(WaitStatus::Exited(other, code)));
    }
    nix::sys::stat::umask(before);
    threads_end();
}

/// Paths and modes that make no sense, and a path as long as it may be.
pub(crate) fn paths_that_cannot_be() {
    let folder = Folder::new();
    let refused = |path: &Path, mode| held(&program("/bin/true")).at(path, mode).unwrap_err();
    for (path, mode) in
        [(folder.path(".."), 0o600), ("/".into(), 0o600), ("".into(), 0o600), (folder.path("x"), 0o1600)]
    {
        let error = refused(&path, mode);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{path:?}: {error}");
    }
    let error = refused(&folder.path("none/start"), 0o600);
    assert_eq!((error.kind(), error.step()), (ErrorKind::NotFound, Step::Release), "{error}");
    assert_eq!(refused(&folder.path(&"x".repeat(120)), 0o600).raw_os_error(), Some(libc::ENAMETOOLONG));
    // What was made is gone, if the last step fails.
    let (waiting, path) = (held(&program("/bin/true")), folder.path("start"));
    let error = lacking(Who::Parent, libc::SYS_newfstatat, Fault::EVERY, libc::EIO, || waiting.at(&path, 0o600));
    assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(folder.entries(), 0);
    no_child_is_left();
    // A folder may be anywhere.
    let deep = folder.path(&"d".repeat(200));
    fs::create_dir(&deep).unwrap();
    let path = deep.join("start");
    let waiting = at(&program("/bin/true"), &path);
    let asked = thread::spawn(move || Release::at(path).unwrap().wait());
    ended_well(&waiting.wait().unwrap());
    asked.join().unwrap().unwrap();
    threads_end();
}
