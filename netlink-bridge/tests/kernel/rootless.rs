//! An ordinary user, as root of a user namespace: everything works among its containers.

use crate::traffic;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::process::{Command, ExitCode};

/// The argument with which this program starts itself for the inside.
pub(crate) const INSIDE: &str = "--in-a-user-namespace";

/// A threaded program cannot make a user namespace for itself; its child can.
pub(crate) fn among_its_containers() {
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).arg(INSIDE).status().unwrap();
    assert!(status.success(), "{status}");
}

/// The child, before it has any other thread.
pub(crate) fn inside() -> ExitCode {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).expect("the need was tried");
    for (file, text) in
        [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))]
    {
        fs::write(format!("/proc/self/{file}"), text).expect("maps its own id");
    }
    traffic::tcp_between_containers();
    traffic::container_and_gateway();
    traffic::loopback_alone();
    crate::life::detached_after_the_namespace();
    ExitCode::SUCCESS
}
