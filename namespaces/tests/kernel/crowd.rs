//! Many threads, much memory.

use crate::cgroup::Group;
use crate::support::{engine, program, read};
use cofferdam_namespaces::{Engine, Fds, IdMap, Mount, Namespaces, Stdio};
use std::thread;

const THREADS: usize = 8;
/// A copy of so much memory takes tens of milliseconds.
fn each() -> usize {
    if engine() == Engine::Copy { 25 } else { 250 }
}

/// 2,000 sandboxes from 8 threads of a program with a heap of 1 GiB. The test kit looks for what is left of them.
pub(crate) fn two_thousand_from_eight_threads() {
    // Not zeros, which would be no memory.
    let heap = vec![1_u8; 1 << 30];
    let groups: Vec<Group> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || spawn_many(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Removing them fails if a process is left inside.
    drop(groups);
    assert_eq!(heap.last(), Some(&1));
}

fn spawn_many(thread: usize) -> Group {
    let group = Group::v2();
    for number in 0..each() {
        let token = format!("{thread} {number}");
        let mut child = program("/bin/echo")
            .arg(&token)
            .user(IdMap::root())
            .namespaces(Namespaces::PID | Namespaces::MOUNT | Namespaces::UTS | Namespaces::IPC)
            .mount(Mount::proc("/proc"))
            .hostname("crowd")
            .stdin(Stdio::Null)
            .stdout(Stdio::Pipe)
            .spawn_with(Fds::new().cgroup([group.directory()]))
            .unwrap();
        assert_eq!(read(&mut child), format!("{token}\n"));
        assert!(child.wait().unwrap().success());
    }
    group
}
