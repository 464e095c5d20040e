//! A process is killed while it attaches or detaches, at every point that there is: what is left is found and removed, and nothing is lost.

use crate::support::{addresses, clean_up, links, network, nft, spec, within};
use cofferdam_netlink_bridge::test_hooks::{DEATH, with_answer};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, FilePool, Finding, Host, NetNs, Network};
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

/// The calls by which something can change.
const CHANGES: &[i64] = &[libc::SYS_sendto, libc::SYS_write];

/// So often a child that got through with fewer points than others had is followed by another.
const AGAIN: usize = 5;

/// The child attaches, and detaches again. It says how many points there were, if it gets through.
pub(crate) fn killed() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    if arguments[0] == "pin" {
        let netns = NetNs::new().unwrap();
        Watch::only(&[libc::SYS_move_mount]).die_at(0, || netns.pin(&arguments[3])).1.unwrap();
    }
    let (what, nth) = arguments[0].split_once(' ').unwrap();
    let nth = nth.parse().unwrap();
    if let Some(work) = other_work(what, &arguments[1]) {
        println!("{}", Watch::only(CHANGES).die_at(nth, work).0.len());
        return ExitCode::SUCCESS;
    }
    let network = Network::open(&Host::current().unwrap(), &spec()).unwrap();
    let (pool, netns) = (FilePool::open(&arguments[1]).unwrap(), NetNs::from_path(&arguments[2]).unwrap());
    let work = || {
        let endpoint = network.attach_from(&pool, &netns, &web()).unwrap();
        endpoint.detach_to(&pool, &Host::current().unwrap()).unwrap();
    };
    let count = match what {
        "answer" => with_answer(Some((nth, DEATH)), work).0,
        _ => Watch::only(CALLS).die_at(nth, work).0.len(),
    };
    println!("{count}");
    ExitCode::SUCCESS
}

/// What a child does with the network and with the endpoints whose records are in this file; each can be done again. Nothing if it is none of these.
fn other_work(what: &str, records: &str) -> Option<Box<dyn Fn() + Send>> {
    let host = Host::current().unwrap();
    let open = |host: &Host| Network::open(host, &spec()).unwrap();
    let records = std::path::PathBuf::from(records);
    Some(match what {
        "create" => Box::new(move || drop(Network::create(&host, &spec()).unwrap())),
        "reapply" => Box::new(move || {
            let endpoints: Vec<Endpoint> = serde_json::from_slice(&std::fs::read(&records).unwrap()).unwrap();
            Network::reapply(&host, &spec(), &endpoints).unwrap();
        }),
        "gc" => Box::new(move || drop(open(&host).gc(|_| false).unwrap())),
        "detach_all" => Box::new(move || open(&host).detach_all().unwrap()),
        "delete" => Box::new(move || Network::remove(&host, &spec()).unwrap()),
        _ => return None,
    })
}

/// One is killed who makes, mends, collects or deletes, before each call that changes something: whoever does the same again finds and finishes all of it.
pub(crate) fn killed_at_anything_else() {
    let records = std::env::temp_dir().join("records");
    for (what, least) in [("create", 15), ("reapply", 40), ("gc", 12), ("detach_all", 7), ("delete", 15)] {
        let again = || other_work(what, records.to_str().unwrap()).unwrap()();
        for nth in 0.. {
            let host = Host::current().unwrap();
            let containers = if what == "create" { Vec::new() } else { containers() };
            let endpoints: Vec<_> = containers.iter().map(|(_, endpoint)| endpoint.clone()).collect();
            std::fs::write(&records, serde_json::to_vec(&endpoints).unwrap()).unwrap();
            match what {
                "reapply" => drop(nft("flush ruleset")),
                "delete" => endpoints.iter().for_each(|endpoint| endpoint.detach(&host).unwrap()),
                _ => {}
            }
            let ends = gets_through(what, nth, &records, &NetNs::new().unwrap());
            again();
            let is_alone = containers.iter().all(|(netns, _)| within(netns, links) == ["lo"]);
            let rules = nft("list ruleset");
            match what {
                "create" | "reapply" => {
                    let wrong = Network::open(&host, &spec()).unwrap().check(&endpoints).unwrap();
                    assert!(wrong.iter().all(|one| matches!(one, Finding::Setting(_))), "{what} {nth}: {wrong:?}");
                    clean_up(&host, &Network::open(&host, &spec()).unwrap(), &endpoints);
                }
                "delete" => assert_eq!((is_alone, links(), &*rules), (true, vec!["lo".into()], ""), "{nth}"),
                _ => {
                    assert_eq!((is_alone, links().len()), (true, 2), "{what} {nth}: {:?}", links());
                    assert!(!rules.contains("cd-"), "{what} {nth}: {rules}");
                    clean_up(&host, &Network::open(&host, &spec()).unwrap(), &[]);
                }
            }
            assert_eq!(nft("list tables"), "", "{what} {nth}");
            if ends {
                assert!(nth >= least, "{what}: {nth} points");
                break;
            }
        }
    }
    std::fs::remove_file(records).unwrap();
}

/// Two, with ports, on the network.
fn containers() -> Vec<(NetNs, Endpoint)> {
    let (_, network) = network();
    let attach = |number: u8| {
        let netns = NetNs::new().unwrap();
        let ports = [format!("80{number:02}:80"), format!("53{number:02}:53/udp")];
        let wanted = ports.iter().fold(addresses(number), |wanted, port| wanted.publish(port.parse().unwrap()));
        let endpoint = network.attach(&netns, &wanted.id(format!("box-{number}"))).unwrap();
        (netns, endpoint)
    };
    vec![attach(2), attach(3)]
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
