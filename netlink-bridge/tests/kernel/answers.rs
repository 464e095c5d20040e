//! Every answer of the kernel is an error in turn.

use crate::support::{clean_up, links, network, nft, spec, within};
use cofferdam_netlink_bridge::test_hooks::{with_answer, with_answers_from};
use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, Error, FilePool, Finding, Host, NetNs, Network};

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
    let is_nothing = |after: &dyn std::fmt::Display| {
        assert_eq!((links(), nft("list tables")), (vec!["lo".to_owned()], String::new()), "{after}");
    };
    answers_and_again(FEW, detached, Network::delete, |_, after| is_nothing(after));
    let without_bridge = || {
        detached();
        crate::support::run_ip("link del br-test");
    };
    answers_and_again(FEW, without_bridge, |()| Network::remove(&host, &spec()), |(), after| is_nothing(after));
    // Who only looks is told, and has changed nothing.
    let (_netns, network, endpoints) = attached();
    let before = (links(), nft("list ruleset"));
    let same = |(): &(), after: &dyn std::fmt::Display| assert_eq!((links(), nft("list ruleset")), before, "{after}");
    answers_and_again(ERRNOS, || (), |()| network.check(&endpoints).map(drop), same);
    answers_and_again(ERRNOS, || (), |()| Network::plan(&host, &spec(), &endpoints).map(drop), same);
    clean_up(&host, &network, &endpoints);
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
    // One that is there gets a subnet more.
    let (host, more) = (Host::current().unwrap(), spec().subnet("10.99.0.0/16".parse().unwrap()));
    let has_it = |(): &(), after: &dyn std::fmt::Display| {
        let network = Network::open(&host, &more).unwrap();
        nothing_is_wrong(&network, &[], after);
        clean_up(&host, &network, &[]);
    };
    answers_and_again(FEW, || drop(network()), |()| Network::create(&host, &more).map(drop), has_it);
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
