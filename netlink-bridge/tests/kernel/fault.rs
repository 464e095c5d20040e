//! Every system call of every operation fails in turn; and how many there are.

use crate::support::{addresses, clean_up, links, network, nft, spec, within};
use cofferdam_netlink_bridge::{Error, ErrorKind, Host, NetNs, Network};
use cofferdam_testkit::fault::{Action, Call, Fault, Watch, Who};

/// The calls by which this crate acts, and those that a thread needs to be born.
const CALLS: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_ioctl,
    libc::SYS_getrandom,
    libc::SYS_pidfd_open,
    libc::SYS_openat,
    libc::SYS_clone3,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
];

fn names(calls: &[Call]) -> Vec<&'static str> {
    calls.iter().map(Call::name).collect()
}

/// Runs `f` once for each of its system calls and for several errnos, which is what that call says then. `f` gives an error or what it
/// made, which `undo` takes away; `nothing_left` looks at what is there after an error.
fn walk<T: Send>(f: impl Fn() -> Result<T, Error> + Sync, undo: impl Fn(T), nothing_left: impl Fn(&Error)) {
    let watch = Watch::only(CALLS);
    // What is done once, such as by the allocator for its second thread, is not counted.
    undo(f().expect("works"));
    let (calls, made) = watch.record(&f);
    undo(made.expect("works without a fault"));
    assert!(!calls.is_empty());
    for errno in [libc::EPERM, libc::ENOBUFS, libc::EINTR] {
        for (nth, call) in calls.iter().enumerate() {
            let (seen, result) = watch.inject(Fault { who: Who::Parent, nth, action: Action::Errno(errno) }, &f);
            assert_eq!(seen.iter().filter(|call| call.fault.is_some()).count(), 1, "{call}");
            match result {
                Ok(made) => {
                    let retried = errno == libc::EINTR && ["sendto", "recvfrom", "getrandom"].contains(&call.name());
                    // The allocator may open files of its own, and the C library tries another clone.
                    let not_ours = ["openat", "clone3"].contains(&call.name());
                    assert!(retried || not_ours, "{call} failed with {errno}, and nobody noticed");
                    undo(made);
                }
                Err(error) => {
                    assert!(error.raw_os_error() == Some(errno) || errno == libc::EINTR, "{call}: {error}");
                    let (wanted, seen) = (names(&calls), names(&seen));
                    let named = error.call().is_some_and(|name| call.name().starts_with(name));
                    assert!(named, "{call}: {error}: {seen:?} instead of {wanted:?}");
                    assert_eq!(error.left_behind(), None, "{call}: {error}");
                    nothing_left(&error);
                }
            }
        }
    }
}

pub(crate) fn creating_a_network() {
    let host = Host::current().unwrap();
    let delete = |network: Network| network.delete().unwrap();
    let nothing = |error: &Error| {
        assert_eq!(links(), ["lo"], "{error}");
        assert_eq!(nft("list tables"), "", "{error}");
    };
    // A new host each time: in one that is used again, answers that nobody waited for come first.
    walk(|| Network::create(&Host::current()?, &spec()), delete, nothing);
    // One that was there stays.
    let network = Network::create(&host, &spec()).unwrap();
    let there = |error: &Error| assert_eq!(links(), ["br-test", "lo"], "{error}");
    walk(|| Network::create(&Host::current()?, &spec()), drop, there);
    walk(|| Network::open(&Host::current()?, &spec()), drop, there);
    clean_up(&host, &network, &[]);
}

pub(crate) fn opening_namespaces() {
    let made = NetNs::new().unwrap();
    let nothing = |_: &Error| assert_eq!(links(), ["lo"]);
    walk(Host::current, drop, nothing);
    walk(|| Host::from_fd(&made), drop, nothing);
    walk(NetNs::new, drop, nothing);
    walk(|| NetNs::from_pid(std::process::id()), drop, nothing);
    walk(|| NetNs::from_path("/proc/self/ns/net"), drop, nothing);
    walk(|| made.loopback_up(), drop, nothing);
    let folder = std::env::temp_dir().join("netns");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("web");
    walk(|| made.pin(&path), |()| NetNs::unpin(&path).unwrap(), |error| assert!(!path.exists(), "{error}"));
    std::fs::remove_dir(folder).unwrap();
}

pub(crate) fn attaching() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let nothing_left = |error: &Error| {
        assert_eq!(links(), ["br-test", "lo"], "{error}");
        assert_eq!(within(&netns, links), ["lo"], "{error}");
    };
    walk(|| network.attach(&netns, &addresses(2)), |endpoint| endpoint.detach(&host).unwrap(), nothing_left);
    // Answers that nobody waited for do not disturb later conversations.
    let endpoint = network.attach(&netns, &addresses(2)).unwrap();
    clean_up(&host, &network, &[endpoint]);
}

/// Removing can fail, and can then be done again.
pub(crate) fn removing() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let remove = || {
        let endpoint = network.attach(&netns, &addresses(2)).unwrap();
        let (calls, result) = Watch::only(CALLS).record(|| endpoint.detach(&host));
        result.unwrap();
        names(&calls)
    };
    let calls = remove();
    assert_eq!(calls, ["sendto", "recvfrom", "recvfrom", "sendto", "recvfrom"]);
    for nth in 0..calls.len() {
        let endpoint = network.attach(&netns, &addresses(2)).unwrap();
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::ENOMEM) };
        let (_, result) = Watch::only(CALLS).inject(fault, || endpoint.detach(&host));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        endpoint.detach(&host).unwrap();
        assert_eq!(within(&netns, links), ["lo"]);
    }
    let (calls, result) = Watch::only(CALLS).record(|| network.delete());
    result.unwrap();
    for nth in 0..calls.len() {
        let network = Network::create(&host, &spec()).unwrap();
        let fault = Fault { who: Who::Parent, nth, action: Action::Errno(libc::ENOMEM) };
        let (_, result) = Watch::only(CALLS).inject(fault, || network.delete());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::LimitReached);
        network.delete().unwrap();
        assert_eq!(links(), ["lo"]);
    }
}

/// Three sends and seven messages, each with its acknowledgement, and one answer that is more than that: no thread, no
/// namespace entered, no file.
pub(crate) fn messages_of_an_attach() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let one = crate::support::v4(2);
    let spec = cofferdam_netlink_bridge::EndpointSpec::new().address(one);
    let (calls, endpoint) = Watch::default().record(|| network.attach(&netns, &spec));
    let endpoint = endpoint.unwrap();
    let calls: Vec<&str> = names(&calls)
        .into_iter()
        .filter(|name| !["brk", "mmap", "munmap", "mprotect", "madvise"].contains(name))
        .collect();
    let mut wanted = vec!["getrandom", "getrandom"];
    // Create, find; tag; loopback, address, up, route. The answer to the second is the one that is more than an acknowledgement.
    for answers in [3, 1, 4] {
        wanted.push("sendto");
        wanted.extend(vec!["recvfrom"; answers]);
    }
    assert_eq!(calls, wanted);
    clean_up(&host, &network, &[endpoint]);
}

/// What is sent and received for a container does not grow with the number of those that are there, nor that of their ports.
pub(crate) fn as_much_for_the_last_as_for_the_first() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let wanted = addresses(2).id("web").publish("81-84:81-84".parse().unwrap()).publish("53:53/udp".parse().unwrap());
    crate::support::run_ip("link set lo up");
    let measure = || {
        let watch = Watch::only(&[libc::SYS_sendto, libc::SYS_recvfrom]);
        let (calls, endpoint) = watch.record(|| network.attach(&netns, &wanted));
        let endpoint = endpoint.unwrap();
        let (more, detached) = watch.record(|| endpoint.detach(&host));
        detached.unwrap();
        (names(&calls), names(&more))
    };
    let first = measure();
    // Four, and for the UDP port the connections to it of each family.
    assert_eq!(first.0.iter().filter(|name| **name == "sendto").count(), 6, "{first:?}");
    let many = |from: u8, until: u8| (from..until).map(|n| crate::support::container(&network, n)).collect::<Vec<_>>();
    let one = many(3, 4);
    assert_eq!(measure(), first, "beside one");
    let hundred = many(4, 103);
    assert_eq!(measure(), first, "beside a hundred");
    let crowded = NetNs::new().unwrap();
    let ports = addresses(200).publish("10000-14999:10000-14999".parse().unwrap());
    let ports = network.attach(&crowded, &ports).unwrap();
    assert_eq!(measure(), first, "beside 5,000 ports");
    // Each is a connection that the kernel remembers, for half a minute.
    let busy = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in 20_000..22_000 {
        busy.send_to(b"x", ("127.0.0.1", port)).unwrap();
    }
    assert_eq!(measure(), first, "beside 2,000 connections");
    network.detach_all().unwrap();
    drop((one, hundred));
    clean_up(&host, &network, &[ports]);
}
