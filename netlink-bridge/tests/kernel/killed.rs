//! A process is killed while it attaches or detaches, at every point that there is: what is left is found and removed, and nothing is lost.

use crate::support::{clean_up, links, network, nft, spec, within};
use cofferdam_netlink_bridge::test_hooks::{DEATH, with_answer};
use cofferdam_netlink_bridge::{EndpointSpec, FilePool, Host, NetNs, Network};
use cofferdam_testkit::fault::Watch;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// The argument with which this program starts itself to be killed: then come where, the pool's folder, the namespace.
pub(crate) const KILLED: &str = "--killed-at";

/// The calls that others can see. Between them are those of the allocator, which change nothing.
const CALLS: &[i64] = &[
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_socket,
    libc::SYS_setns,
    libc::SYS_openat,
    libc::SYS_flock,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_close,
    libc::SYS_clone3,
];

/// So often a child that got through with fewer points than others had is followed by another.
const AGAIN: usize = 5;

/// The child attaches, and detaches again. It says how many points there were, if it gets through.
pub(crate) fn killed() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    if arguments[0] == "pin" {
        let netns = NetNs::new().unwrap();
        Watch::only(&[libc::SYS_move_mount]).die_at(0, || netns.pin(&arguments[3])).1.unwrap();
    }
    let network = Network::open(&Host::current().unwrap(), &spec()).unwrap();
    let (pool, netns) = (FilePool::open(&arguments[1]).unwrap(), NetNs::from_path(&arguments[2]).unwrap());
    let work = || {
        let endpoint = network.attach_from(&pool, &netns, &web()).unwrap();
        endpoint.detach_to(&pool, &Host::current().unwrap()).unwrap();
    };
    let (what, nth) = arguments[0].split_once(' ').unwrap();
    let nth = nth.parse().unwrap();
    let count = match what {
        "answer" => with_answer(Some((nth, DEATH)), work).0,
        _ => Watch::only(CALLS).die_at(nth, work).0.len(),
    };
    println!("{count}");
    ExitCode::SUCCESS
}

fn web() -> EndpointSpec {
    EndpointSpec::new().id("web").publish("80:80".parse().unwrap()).publish("53:53/udp".parse().unwrap())
}

/// At each answer of the kernel.
pub(crate) fn killed_while_attaching() {
    killed_at("answer", 15);
}

/// Before each system call.
pub(crate) fn killed_between_system_calls() {
    killed_at("call", 60);
}

fn killed_at(what: &str, least: usize) {
    let (host, network) = network();
    let folder = std::env::temp_dir().join("pool");
    std::fs::create_dir(&folder).unwrap();
    let (pool, netns) = (FilePool::open(&folder).unwrap(), NetNs::new().unwrap());
    let mut had = [0; 2];
    for nth in 0.. {
        if gets_through(what, nth, &folder, &netns) {
            assert!(nth > least, "{nth} points");
            break;
        }
        // Who died has the addresses, until somebody says that they are dead; nobody else gets them.
        let (held, was_there) = (pool.held().unwrap().len(), links().contains(&"cd-web".to_owned()));
        assert!(held == 2 || held == 0 && !was_there, "{nth}: {held} addresses");
        had[usize::from(was_there)] += 1;
        network.gc(|_| false).unwrap();
        assert_eq!(pool.gc(|_| false).unwrap().len(), held, "{nth}");
        assert_eq!((links(), within(&netns, links)), (vec!["br-test".to_owned(), "lo".into()], vec!["lo".to_owned()]));
        assert!(!nft("list table inet cofferdam").contains("cd-web"), "{nth}");
        let endpoint = network.attach_from(&pool, &netns, &web()).unwrap_or_else(|e| panic!("{nth}: {e}"));
        endpoint.detach_to(&pool, &host).unwrap();
    }
    assert!(had[0] > 0 && had[1] > 4, "without and with a link: {had:?}");
    // The one that got through left nothing.
    assert_eq!((pool.held().unwrap(), network.gc(|_| false).unwrap()), (vec![], vec![]));
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

/// Whether there is no `nth` point any more. How many there are can differ from run to run, as what others do comes in between.
fn gets_through(what: &str, nth: usize, folder: &Path, netns: &NetNs) -> bool {
    for _ in 0..AGAIN {
        match die(what, nth, folder, netns) {
            None => return false,
            Some(count) if count == nth => return true,
            Some(count) => assert!(count < nth, "{count} points, and it did not die at {nth}"),
        }
    }
    true
}

/// Nothing if it was killed; how many points there were if it got through.
fn die(what: &str, nth: usize, folder: &Path, netns: &NetNs) -> Option<usize> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([KILLED, &format!("{what} {nth}")]).arg(folder).arg(&path).stderr(Stdio::inherit());
    let output = child.output().unwrap();
    if output.status.signal() == Some(libc::SIGKILL) {
        return None;
    }
    assert!(output.status.success(), "{nth}: {}", output.status);
    Some(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}
