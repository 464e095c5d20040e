//! Every system call of every operation fails in turn; and how many there are.

use crate::support::{addresses, clean_up, links, network, nft, spec, within};
use cofferdam_netlink_bridge::test_hooks::{with_answer, with_answers_from};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, Error, ErrorKind, FilePool, Finding, Host, NetNs, Network};
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

/// What the kernel says instead.
const ERRNOS: &[i32] = &[libc::EPERM, libc::EINVAL, libc::EEXIST, libc::ENOENT, libc::ENODEV];

/// Runs `f` once for each answer of the kernel, which is replaced by an error although it has done what it was asked for.
fn answers<T>(f: impl Fn() -> Result<T, Error>, undo: impl Fn(T), nothing_left: impl Fn(&Error)) {
    let (count, made) = with_answer(None, &f);
    undo(made.expect("works without a fault"));
    assert!(count > 4, "{count}");
    for errno in ERRNOS.iter().copied() {
        for nth in 0..count {
            match with_answer(Some((nth, errno)), &f).1 {
                // "It is there already", "it is not there": the answer to some questions.
                Ok(made) => {
                    assert!(errno != libc::EPERM, "answer {nth} was {errno}, and nobody noticed");
                    undo(made);
                }
                Err(error) => {
                    assert_eq!(error.left_behind(), None, "answer {nth} was {errno}: {error}");
                    nothing_left(&error);
                }
            }
        }
    }
}

/// As [`answers`], for what can be done again: then it has been done, whatever went wrong before.
fn answers_and_again<T>(
    errnos: &[i32],
    prepare: impl Fn() -> T,
    f: impl Fn(&T) -> Result<(), Error>,
    is_done: impl Fn(&T, &dyn std::fmt::Display),
) {
    let thing = prepare();
    let (count, done) = with_answer(None, || f(&thing));
    done.expect("works without a fault");
    is_done(&thing, &"no fault");
    assert!(count > 1, "{count}");
    for errno in errnos.iter().copied() {
        for nth in 0..count {
            let thing = prepare();
            let after = format!("answer {nth} was {errno}");
            match with_answer(Some((nth, errno)), || f(&thing)).1 {
                // "It is there already", "it is not there": the answer to some questions.
                Ok(()) => assert!(errno != libc::EPERM, "{after}, and nobody noticed"),
                // It may be what follows from such an answer.
                Err(error) => assert!(errno != libc::EPERM || error.raw_os_error() == Some(errno), "{after}: {error}"),
            }
            f(&thing).unwrap_or_else(|error| panic!("again, {after}: {error}"));
            is_done(&thing, &after);
        }
    }
}

/// For what has many answers, and takes long: not allowed, and not there.
const FEW: &[i32] = &[libc::EPERM, libc::ENOENT];

fn attached() -> (NetNs, Network, [Endpoint; 1]) {
    let (netns, (_, network)) = (NetNs::new().unwrap(), network());
    let endpoint = network.attach(&netns, &web().address(crate::support::v4(2))).unwrap();
    (netns, network, [endpoint])
}

fn nothing_is_wrong(network: &Network, endpoints: &[Endpoint], after: &dyn std::fmt::Display) {
    let wrong = network.check(endpoints).unwrap();
    assert!(wrong.iter().all(|one| matches!(one, Finding::Setting(_))), "{after}: {wrong:?}");
}

/// The rules are brought back, and the bridge.
pub(crate) fn answers_to_mending() {
    let host = Host::current().unwrap();
    let reapply = |endpoints: &[Endpoint]| Network::reapply(&host, &spec(), endpoints).map(drop);
    let (_netns, network, endpoints) = attached();
    let flush = || drop(nft("flush ruleset"));
    answers_and_again(FEW, flush, |()| reapply(&endpoints), |(), after| nothing_is_wrong(&network, &endpoints, after));
    clean_up(&host, &network, &endpoints);
    let damaged = || {
        let attached = attached();
        crate::support::run_ip("link del br-test");
        attached
    };
    let mended = |(_, _, endpoints): &(NetNs, Network, [Endpoint; 1]), after: &dyn std::fmt::Display| {
        let network = Network::open(&host, &spec()).unwrap();
        nothing_is_wrong(&network, endpoints, after);
        clean_up(&host, &network, endpoints);
    };
    answers_and_again(&[libc::EPERM], damaged, |(_, _, endpoints)| reapply(endpoints), mended);
}

/// Looking, collecting, detaching all and deleting.
pub(crate) fn answers_to_upkeep() {
    let host = Host::current().unwrap();
    let gone = |(netns, network, _): &(NetNs, Network, [Endpoint; 1]), after: &dyn std::fmt::Display| {
        assert_eq!(
            (links(), within(netns, links)),
            (vec!["br-test".into(), "lo".into()], vec!["lo".into()]),
            "{after}"
        );
        assert!(!nft("list table inet cofferdam").contains("cd-web"), "{after}");
        clean_up(&host, network, &[]);
    };
    answers_and_again(FEW, attached, |(_, network, _)| network.gc(|_| false).map(drop), gone);
    answers_and_again(FEW, attached, |(_, network, _)| network.detach_all(), gone);
    let detached = || {
        let (_, network, [endpoint]) = attached();
        endpoint.detach(&host).unwrap();
        network
    };
    answers_and_again(FEW, detached, Network::delete, |_, after| {
        assert_eq!((links(), nft("list tables")), (vec!["lo".to_owned()], String::new()), "{after}");
    });
    // Who only looks is told, and has changed nothing.
    let (_netns, network, endpoints) = attached();
    let before = (links(), nft("list ruleset"));
    let same = |(): &(), after: &dyn std::fmt::Display| assert_eq!((links(), nft("list ruleset")), before, "{after}");
    answers_and_again(ERRNOS, || (), |()| network.check(&endpoints).map(drop), same);
    answers_and_again(ERRNOS, || (), |()| Network::plan(&host, &spec(), &endpoints).map(drop), same);
    clean_up(&host, &network, &endpoints);
}

/// What is sent and received for a container does not grow with the number of those that are there, nor that of their ports.
pub(crate) fn as_much_for_the_last_as_for_the_first() {
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let wanted = addresses(2).id("web").publish("81-84:81-84".parse().unwrap());
    let measure = || {
        let watch = Watch::only(&[libc::SYS_sendto, libc::SYS_recvfrom]);
        let (calls, endpoint) = watch.record(|| network.attach(&netns, &wanted));
        let endpoint = endpoint.unwrap();
        let (more, detached) = watch.record(|| endpoint.detach(&host));
        detached.unwrap();
        (names(&calls), names(&more))
    };
    let first = measure();
    assert_eq!(first.0.iter().filter(|name| **name == "sendto").count(), 4, "{first:?}");
    let many = |from: u8, until: u8| (from..until).map(|n| crate::support::container(&network, n)).collect::<Vec<_>>();
    let one = many(3, 4);
    assert_eq!(measure(), first, "beside one");
    let hundred = many(4, 103);
    assert_eq!(measure(), first, "beside a hundred");
    let crowded = NetNs::new().unwrap();
    let ports = addresses(200).publish("10000-14999:10000-14999".parse().unwrap());
    let ports = network.attach(&crowded, &ports).unwrap();
    assert_eq!(measure(), first, "beside 5,000 ports");
    network.detach_all().unwrap();
    drop((one, hundred));
    clean_up(&host, &network, &[ports]);
}

pub(crate) fn answers_to_creating() {
    let nothing = |error: &Error| {
        let left = (links(), nft("list tables"));
        if left != (vec!["lo".to_owned()], String::new()) {
            // Told that it was somebody else's or is gone, one must leave it; whoever creates it again has it.
            assert!(
                [libc::EEXIST, libc::ENOENT, libc::ENODEV].contains(&error.raw_os_error().unwrap_or(libc::EEXIST)),
                "{error}: {left:?}"
            );
            Network::create(&Host::current().unwrap(), &spec()).unwrap().delete().unwrap();
        }
        assert_eq!((links(), nft("list tables")), (vec!["lo".to_owned()], String::new()), "{error}");
    };
    answers(|| Network::create(&Host::current()?, &spec()), |network| network.delete().unwrap(), nothing);
}

pub(crate) fn answers_to_attaching() {
    let (host, network) = network();
    let folder = std::env::temp_dir().join("pool");
    std::fs::create_dir(&folder).unwrap();
    let pool = FilePool::open(&folder).unwrap();
    let netns = NetNs::new().unwrap();
    let wanted =
        EndpointSpec::new().id("web").publish("80-82:80-82".parse().unwrap()).publish("53:53/udp".parse().unwrap());
    let nothing_left = |error: &Error| {
        assert_eq!(links(), ["br-test", "lo"], "{error}");
        assert_eq!(within(&netns, links), ["lo"], "{error}");
        assert_eq!(pool.held().unwrap(), [], "{error}");
        assert!(!nft("list table inet cofferdam").contains("cd-web"), "{error}");
    };
    let attach = || network.attach_from(&pool, &netns, &wanted);
    answers(attach, |endpoint| endpoint.detach_to(&pool, &host).unwrap(), nothing_left);
    // Removing can fail, and can then be done again.
    answers_and_again(
        ERRNOS,
        || attach().unwrap(),
        |endpoint| endpoint.detach_to(&pool, &host),
        |_, after| {
            let left = (links(), within(&netns, links));
            assert_eq!(left, (vec!["br-test".to_owned(), "lo".into()], vec!["lo".to_owned()]), "{after}");
            assert!(!nft("list table inet cofferdam").contains("cd-web"), "{after}");
            assert_eq!(pool.held().unwrap(), [], "{after}");
        },
    );
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

/// When undoing fails too, it goes on with the rest, says what may be left, and nobody gets the addresses of that.
pub(crate) fn undone_as_far_as_possible() {
    let (host, network) = network();
    let folder = std::env::temp_dir().join("pool");
    std::fs::create_dir(&folder).unwrap();
    let (pool, netns) = (FilePool::open(&folder).unwrap(), NetNs::new().unwrap());
    let attach = || network.attach_from(&pool, &netns, &web());
    let (count, made) = with_answer(None, attach);
    made.unwrap().detach_to(&pool, &host).unwrap();
    let mut left = 0;
    for nth in 0..count {
        let error = with_answers_from(nth, libc::EPERM, attach).unwrap_err();
        left += usize::from(error.left_behind().is_some());
        assert_eq!(pool.held().unwrap().is_empty(), error.left_behind().is_none(), "{nth}: {error}");
        network.gc(|_| false).unwrap();
        pool.gc(|_| false).unwrap();
        assert_eq!(within(&netns, links), ["lo"]);
    }
    assert!(left > 4, "{left}");
    // The first answer to a detach is about the published ports: the link goes all the same.
    let endpoint = attach().unwrap();
    with_answer(Some((0, libc::EPERM)), || endpoint.detach_to(&pool, &host)).1.unwrap_err();
    assert_eq!((links(), within(&netns, links)), (vec!["br-test".to_owned(), "lo".into()], vec!["lo".to_owned()]));
    assert_eq!(pool.held().unwrap().len(), 2, "its ports still lead there");
    endpoint.detach_to(&pool, &host).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

fn web() -> EndpointSpec {
    EndpointSpec::new().id("web").publish("80:80".parse().unwrap()).publish("53:53/udp".parse().unwrap())
}
