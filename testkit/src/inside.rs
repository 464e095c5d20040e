//! The test process itself: enters what the guard made, runs the test, looks for leaks.

use std::panic::catch_unwind;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::cgroup::Groups;
use crate::fault;
use crate::leak::Snapshot;
use crate::process::Seen;
use crate::test::Test;

/// Exit code of a test that passed.
pub(crate) const PASSED: i32 = 0;
/// Exit code of a test that passed and left something behind, which it has said on stderr.
pub(crate) const LEAKED: i32 = 100;
/// Exit code of a test that panicked, as of any Rust program.
pub(crate) const PANICKED: i32 = 101;

/// Runs the test in this process and says how it went.
pub(crate) fn run(test: &Test, groups: &Groups, isolated: bool) -> i32 {
    if let Err(why) = groups.enter() {
        eprintln!("testkit: {why}");
        return PANICKED;
    }
    let before = Snapshot::take(isolated);
    // The default panic hook has told message and place.
    if catch_unwind(|| test.before.into_iter().chain([test.run]).for_each(|step| step())).is_err() {
        return PANICKED;
    }
    let mut leaks = children();
    fault::settle();
    leaks.extend(Snapshot::take(isolated).differences_from(&before));
    for leak in &leaks {
        eprintln!("leaked: {leak}");
    }
    if leaks.is_empty() { PASSED } else { LEAKED }
}

/// Children that still run or that nobody has waited for.
fn children() -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => {
                let me = nix::unistd::Pid::this();
                let running = crate::process::all().into_iter().filter(|p| p.parent == me && !p.zombie);
                found.extend(running.map(|Seen { pid, name, .. }| format!("child process {pid} ({name}) still runs")));
                return found;
            }
            Ok(status) => found.push(format!("child process was never waited for: {status:?}")),
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return found,
        }
    }
}
