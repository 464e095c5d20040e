//! The process that is held: this program again, in namespaces of its own, where it burns CPU time.

use crate::complain;
use cofferdam_namespaces::{IdMap, Mount, Namespaces, Sandbox, Stdio};
use nix::unistd::geteuid;
use std::env;
use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::thread;

/// The hidden first argument, good for process 1 only.
const FLAG: &str = "--spin-inside";

/// How the busy process is to be started. It dies with the demonstration, even with one that is killed.
pub(crate) fn sandbox(threads: u32) -> io::Result<Sandbox> {
    let sandbox = Sandbox::new(env::current_exe()?)
        .args([FLAG.to_owned(), threads.to_string()])
        .namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS)
        .namespaces(Namespaces::IPC | Namespaces::NET | Namespaces::CGROUP)
        .mount(Mount::proc("/proc"))
        .hostname("busyloop")
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .die_with_parent();
    // The others need privileges, which an ordinary user has in a user namespace.
    Ok(if geteuid().is_root() { sandbox } else { sandbox.user(IdMap::root()) })
}

/// The number of threads, if this process is the one inside.
pub(crate) fn threads_asked_for() -> Option<u32> {
    let mut args = env::args().skip(1);
    let asked = std::process::id() == 1 && args.next()? == FLAG;
    if asked { args.next()?.parse().ok() } else { None }
}

/// Spins in that many threads until the process is killed.
pub(crate) fn spin(threads: u32) -> ExitCode {
    for _ in 1..threads {
        if let Err(error) = thread::Builder::new().stack_size(64 << 10).spawn(|| spin_forever()) {
            complain(&format!("cannot start {threads} threads: {error}"));
            return ExitCode::FAILURE;
        }
    }
    spin_forever()
}

fn spin_forever() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}
