//! Code of ours that runs as root in a user namespace.

use crate::roots::Busybox;
use crate::support::{output, program, read, sh};
use cofferdam_namespaces::{Error, ErrorKind, Fds, IdMap, Mount, Namespaces, Root, Scope, Stdio, Step};
use nix::unistd::{getegid, geteuid, getpid};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsmount, fsopen, move_mount,
};
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn scope() -> Scope {
    Scope::new(IdMap::root(), Namespaces::empty()).unwrap()
}

fn run<R: Send>(scope: &Scope, closure: impl FnOnce() -> R + Send) -> Result<R, Error> {
    #[expect(unsafe_code, reason = "what these tests are about")]
    // SAFETY: no closure of these tests does what is forbidden.
    unsafe {
        scope.run(closure)
    }
}

/// A detached file system, which an ordinary user may only make in a scope.
fn tmpfs() -> OwnedFd {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

pub(crate) fn root_inside_and_nobody_new_outside() {
    let (uid, gid, pid, here) = (geteuid(), getegid(), getpid(), std::env::current_dir().unwrap());
    let scope = scope();
    let inside = run(&scope, || {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        ((geteuid().as_raw(), getegid().as_raw(), std::env::current_dir().unwrap()), getpid(), map)
    });
    let (ids, process, map) = inside.unwrap();
    assert_eq!(ids, (0, 0, here.clone()));
    assert_ne!(process, pid);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &uid.to_string(), "1"]);
    assert_eq!((geteuid(), getegid(), getpid(), std::env::current_dir().unwrap()), (uid, gid, pid, here));
}

/// Memory and descriptors are this program's.
pub(crate) fn what_is_made_inside_is_there_outside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let scope = scope();
    let (mut file, lines) = run(&scope, || {
        let mut file = fs::File::create_new(&path).unwrap();
        file.write_all(b"written inside").unwrap();
        let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
        (fs::File::options().read(true).open(&path).unwrap(), lines)
    })
    .unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), lines.len(), lines[9_999].as_str()), ("written inside", 10_000, "line 9999"));
}

/// Mounts are kept from one run to the next, and never seen outside.
pub(crate) fn mounts_stay_in_the_scope() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let scope = scope();
    run(&scope, || {
        move_mount(tmpfs(), "", CWD, folder.path(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        fs::write(&file, "inside").unwrap();
    })
    .unwrap();
    assert!(!file.exists());
    assert_eq!(run(&scope, || fs::read_to_string(&file).unwrap()).unwrap(), "inside");
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(folder.path().to_str().unwrap()));
}

/// A root file system without being root: made in a scope, and the program spawned there.
pub(crate) fn a_root_for_an_ordinary_user() {
    let busybox = Busybox::new();
    let scope = scope();
    let sandbox = program("/bin/sh")
        .args(["-c", "touch /new && echo /* && ps -o pid,comm; true"])
        .env("PATH", "/bin")
        .user(IdMap::root())
        .namespaces(Namespaces::PID | Namespaces::MOUNT)
        .root(Root::mount("root"))
        .mount(Mount::proc("/proc"))
        .mount(Mount::dev("/dev"))
        .stdout(Stdio::Pipe)
        .die_with_parent();
    let (text, status) = run(&scope, || {
        let mut child = sandbox.spawn_with(Fds::new().bind("root", busybox.mount()))?;
        Ok::<_, Error>((read(&mut child), child.wait()?))
    })
    .unwrap()
    .unwrap();
    assert!(status.success());
    assert_eq!(text, "/bin /dev /new /proc\nPID   COMMAND\n    1 sh\n    3 ps\n");
}

pub(crate) fn other_namespaces_beside_it() {
    let scope = Scope::new(IdMap::root(), Namespaces::NET | Namespaces::UTS).unwrap();
    let links = run(&scope, || {
        nix::unistd::sethostname("scoped").unwrap();
        fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().skip(2).count()
    });
    assert_eq!(links.unwrap(), 1, "loopback");
    assert_eq!(run(&scope, || output(sh("hostname").user(IdMap::root()))).unwrap(), "scoped\n");
    assert_ne!(output(sh("hostname")), "scoped\n");
    let error = Scope::new(IdMap::root(), Namespaces::PID).unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure));
}

pub(crate) fn a_panic_goes_on_outside() {
    let scope = scope();
    let panic = catch_unwind(AssertUnwindSafe(|| run(&scope, || panic!("on purpose")))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    // As the panic's message does when RUST_BACKTRACE is set: the stack has an end.
    let trace = run(&scope, || std::backtrace::Backtrace::force_capture().to_string()).unwrap();
    assert!(trace.contains("a_panic_goes_on_outside"), "{trace}");
    assert_eq!(run(&scope, || 7).unwrap(), 7, "it can be used again");
}

/// What runs in a sandbox that was spawned in a scope cannot reach our memory; and one that could is refused.
pub(crate) fn our_memory_is_out_of_reach() {
    let secret = *b"the secret of this program";
    let address = secret.as_ptr().expose_provenance();
    let read = format!(
        "import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(26)
here, there = iovec(ctypes.addressof(buffer), 26), iovec({address}, 26)
for pid in (os.getppid(), {}):
    n = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    print(n, buffer.value)",
        std::process::id(),
    );
    let python = program("/usr/bin/python3").args(["-c", &read]);
    let scope = scope();
    let seen = run(&scope, || output(python.clone().user(IdMap::root()))).unwrap();
    assert_eq!(seen, "-1 b''\n-1 b''\n");
    for refused in [
        run(&scope, || python.spawn().map(drop)),
        run(&scope, || python.prepare(Fds::new()).and_then(|plan| plan.hold()).map(drop)),
        run(&scope, || thread::scope(|threads| threads.spawn(|| python.spawn().map(drop)).join().unwrap())),
    ] {
        let error = refused.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.step()), (ErrorKind::InvalidConfig, Step::Configure), "{error}");
    }
    // Outside, after all this, it is as it was.
    assert!(sh("true").spawn().unwrap().wait().unwrap().success());
    assert_eq!(secret, *b"the secret of this program");
}

pub(crate) fn its_process_can_be_killed() {
    let error = run(&scope(), || nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)).unwrap_err();
    assert_eq!((error.step(), error.signal()), (Step::Scope, Some(libc::SIGKILL)));
}

/// The allocator's locks are shared with threads that are in the middle of everything.
pub(crate) fn among_busy_threads() {
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        for number in 0..4 {
            let stop = &stop;
            threads.spawn(move || {
                let mut kept = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    kept.push(vec![number; 1 + kept.len() % 5000]);
                    if kept.len() > 1000 {
                        kept.clear();
                    }
                }
            });
        }
        let workers: Vec<_> = (0..4)
            .map(|_| {
                threads.spawn(|| {
                    let scope = scope();
                    for round in 0..50_usize {
                        let made = run(&scope, || (0..200).map(|n| vec![n; round]).collect::<Vec<_>>()).unwrap();
                        assert_eq!(made.iter().map(Vec::len).sum::<usize>(), 200 * round);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(Path::new("/proc/self").exists());
}
