//! Addresses out of a file: many at once, killed at any point, full.

use crate::support::{clean_up, container, links, network, nft, v4, within};
use cofferdam_netlink_bridge::{
    AddressPool, EndpointSpec, ErrorKind, FilePool, Holder, Host, NetNs, Network, NetworkSpec, Operation, PublishedPort,
};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;

/// The argument with which this program starts itself to attach many: then come the pool's folder and a number.
pub(crate) const CROWD: &str = "--attach-a-crowd";

const THREADS: u16 = 4;
const EACH: u16 = 25;

fn folder() -> (PathBuf, FilePool) {
    let folder = std::env::temp_dir().join("pool");
    std::fs::create_dir(&folder).unwrap();
    let pool = FilePool::open(&folder).unwrap();
    (folder, pool)
}

fn attach_many(pool: &FilePool, network: &Network, process: u16) {
    thread::scope(|scope| {
        for worker in 0..THREADS {
            scope.spawn(move || {
                for n in 0..EACH {
                    let number = (process * THREADS + worker) * EACH + n;
                    let netns = NetNs::new().unwrap();
                    let spec =
                        EndpointSpec::new().id(format!("box-{number}")).publish(PublishedPort::new(10000 + number, 80));
                    // The namespace stays, as the endpoint's other end keeps nothing: detached by the record or by the group.
                    let endpoint = network.attach_from(pool, &netns, &spec).unwrap();
                    if number.is_multiple_of(5) {
                        endpoint.detach_to(pool, &Host::current().unwrap()).unwrap();
                    }
                    std::mem::forget(netns);
                }
            });
        }
    });
}

/// The other process: the same namespace, the same folder.
pub(crate) fn crowd() -> ExitCode {
    let (folder, which) = (std::env::args().nth(2).expect("the folder"), std::env::args().nth(3).expect("which"));
    let host = Host::current().unwrap();
    let network = Network::open(&host, &crate::support::spec()).unwrap();
    attach_many(&FilePool::open(folder).unwrap(), &network, which.parse().unwrap());
    ExitCode::SUCCESS
}

/// 200 attaches from 8 threads of 2 processes, each with a published port: nobody has another's address, and all of it goes again.
pub(crate) fn a_crowd_with_addresses() {
    let (folder, pool) = folder();
    let (host, network) = network();
    // In processes of their own, whose descriptors end with them.
    let start = |which: &str| {
        Command::new(std::env::current_exe().unwrap()).arg(CROWD).arg(&folder).arg(which).spawn().unwrap()
    };
    for mut process in [start("0"), start("1")] {
        assert!(process.wait().unwrap().success());
    }
    let held = pool.held().unwrap();
    let addresses: HashSet<_> = held.iter().map(|(address, _)| *address).collect();
    // A fifth was detached again; two families each.
    assert_eq!((held.len(), addresses.len()), (320, 320));
    let removed = network.gc(|_| false).unwrap();
    assert!(removed.len() >= 320, "the published ports at least: {}", removed.len());
    assert_eq!(pool.gc(|_| false).unwrap().len(), 320);
    assert_eq!((pool.held().unwrap(), links()), (vec![], vec!["br-test".to_owned(), "lo".to_owned()]));
    assert!(!nft("list ruleset").contains("box-"));
    clean_up(&host, &network, &[]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// A full pool, a name that is taken: no address is lost.
pub(crate) fn a_pool_that_is_full() {
    let (folder, pool) = folder();
    let host = Host::current().unwrap();
    let small = NetworkSpec::new("br-test").owner("kernel tests").subnet("10.77.0.0/29".parse().unwrap());
    let network = Network::create(&host, &small).unwrap();
    let netns = NetNs::new().unwrap();
    let spec = |n: u8| EndpointSpec::new().id(format!("box-{n}")).interface(format!("eth{n}")).no_default_route();
    let endpoints: Vec<_> = (0..5).map(|n| network.attach_from(&pool, &netns, &spec(n)).unwrap()).collect();
    let error = network.attach_from(&pool, &netns, &spec(5)).unwrap_err();
    assert_eq!((error.kind(), error.object()), (ErrorKind::LimitReached, Some("10.77.0.0/29")), "{error}");
    // The interface's name is taken: the address is free again.
    endpoints[0].detach_to(&pool, &host).unwrap();
    let error = network.attach_from(&pool, &netns, &spec(6).interface("eth1")).unwrap_err();
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("eth1")), "{error}");
    assert_eq!(pool.held().unwrap().len(), 4);
    // The id is taken: its holder keeps its address.
    let error = network.attach_from(&pool, &NetNs::new().unwrap(), &spec(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(pool.held().unwrap().len(), 4);
    for endpoint in &endpoints {
        endpoint.detach_to(&pool, &host).unwrap();
    }
    endpoints[0].detach_to(&pool, &host).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    clean_up(&host, &network, &[]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Addresses that were asked for are had, all of them, or there is no endpoint: never one with another address instead.
pub(crate) fn addresses_that_are_given() {
    let (folder, pool) = folder();
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let web = |given: &[IpAddr]| given.iter().fold(EndpointSpec::new().id("web"), |spec, one| spec.address(*one));
    let elsewhere = IpAddr::from([10, 99, 0, 5]);
    for (given, object) in [
        (&[elsewhere][..], "address 10.99.0.5"),
        (&[v4(5), elsewhere], "address 10.99.0.5"),
        (&[v4(5), v4(5)], "address 10.88.0.5"),
        (&[v4(1)], "address 10.88.0.1"),
    ] {
        let error = network.attach_from(&pool, &netns, &web(given)).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::InvalidConfig, Some(object)), "{error}");
        assert_eq!((pool.held().unwrap(), within(&netns, links)), (vec![], vec!["lo".to_owned()]));
    }
    // Two in one subnet, and of the other subnet the one that is free.
    let endpoint = network.attach_from(&pool, &netns, &web(&[v4(5), v4(6)])).unwrap();
    let addresses: Vec<_> = endpoint.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.88.0.5/16", "10.88.0.6/16", "fd00:88::2/64"]);
    let (other, neighbour) = container(&network, 9);
    for number in [5, 6] {
        crate::traffic::reach(&other, &netns, number);
        let wanted = EndpointSpec::new().id("other").address(v4(number));
        let error = network.attach_from(&pool, &NetNs::new().unwrap(), &wanted).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    // Those of an owner who is not to be kept go, and of nobody else.
    let theirs =
        network.attach_from(&pool, &NetNs::new().unwrap(), &EndpointSpec::new().id("b").owner("them")).unwrap();
    assert_eq!(pool.gc(|holder| holder.owner != "them").unwrap().len(), 2);
    assert!(pool.held().unwrap().iter().all(|(_, holder)| holder.id == "web"));
    assert_eq!(pool.held().unwrap().len(), 3);
    theirs.detach_to(&pool, &host).unwrap();
    endpoint.detach_to(&pool, &host).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[neighbour]);
}

/// An attach that fails because its id is taken frees nothing of who has the id; nor does an old record of an earlier one with the same id.
pub(crate) fn whose_addresses() {
    let (folder, pool) = folder();
    let (host, network) = network();
    let (netns, other) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let web = || EndpointSpec::new().id("web");
    let held = || pool.held().unwrap().into_iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>();
    let first = network.attach_from(&pool, &netns, &web()).unwrap();
    for spec in [web(), web().address(crate::support::v4(9))] {
        let error = network.attach_from(&pool, &other, &spec).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("cd-web")), "{error}");
        assert_eq!(held(), ["10.88.0.2", "fd00:88::2"]);
    }
    // Whoever had the record of the first one does not come to give back its addresses before there is a second.
    first.detach(&host).unwrap();
    let second = network.attach_from(&pool, &other, &web()).unwrap();
    first.detach_to(&pool, &host).unwrap();
    assert_eq!((held().len(), crate::support::within(&other, links)), (2, vec!["eth0".to_owned(), "lo".into()]));
    second.detach_to(&pool, &host).unwrap();
    assert_eq!(held(), [] as [&str; 0]);
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

/// Another owner tries to attach with an id that is taken: the addresses stay whose they were, whoever is then found to be dead.
pub(crate) fn whose_addresses_of_two_owners() {
    let (folder, pool) = folder();
    let (host, network) = network();
    let netns = NetNs::new().unwrap();
    let web = |owner: &str| EndpointSpec::new().id("web").owner(owner);
    let first = network.attach_from(&pool, &netns, &web("me")).unwrap();
    let before = pool.held().unwrap();
    for spec in [web("you"), web("you").address(v4(9))] {
        let error = network.attach_from(&pool, &NetNs::new().unwrap(), &spec).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, Some("cd-web")), "{error}");
        assert_eq!(pool.held().unwrap(), before);
    }
    assert!(before.iter().all(|(_, holder)| holder.owner == "me"), "{before:?}");
    // One that is killed when it has taken addresses: they are not given to others, and are taken back from it alone.
    let holder = Holder { id: "web".into(), owner: "you".into() };
    pool.take(&network.spec().wanted_addresses(&web("you")), &holder).unwrap();
    let collected = pool.gc(|holder| holder.owner == "me").unwrap();
    assert!(collected.len() == 2 && collected.iter().all(|(_, holder)| holder.owner == "you"), "{collected:?}");
    assert_eq!(pool.held().unwrap(), before);
    // And the other way round: the first is dead, its addresses are those of the second.
    pool.take(&network.spec().wanted_addresses(&web("you")), &holder).unwrap();
    first.detach(&host).unwrap();
    pool.gc(|holder| holder.owner == "you").unwrap();
    let second = network.attach_from(&pool, &netns, &web("you")).unwrap();
    assert_eq!(second.addresses(), first.addresses());
    second.detach_to(&pool, &host).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    // One that is delayed when it has taken addresses, while the other attaches and detaches: they are nobody else's when it goes on.
    let taken = pool.take(&network.spec().wanted_addresses(&web("you")), &holder).unwrap();
    network.attach_from(&pool, &netns, &web("me")).unwrap().detach_to(&pool, &host).unwrap();
    let third = taken.addresses.iter().fold(EndpointSpec::new().id("third"), |spec, one| spec.address(*one));
    let error = network.attach_from(&pool, &NetNs::new().unwrap(), &third).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    pool.undo(&taken, &holder).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

/// A file of a later version: nothing is read from it, given, or changed.
pub(crate) fn addresses_of_a_later_version() {
    let (folder, pool) = folder();
    let (host, network) = network();
    let (netns, web) = (NetNs::new().unwrap(), EndpointSpec::new().id("web"));
    let endpoint = network.attach_from(&pool, &netns, &web).unwrap();
    let file = folder.join("leases");
    let ours = std::fs::read_to_string(&file).unwrap();
    let later = ours.replace("cofferdam leases 3\n", "cofferdam leases 4\ncolour\tred\n");
    assert_ne!(later, ours);
    for (text, kind) in [(later.as_str(), ErrorKind::UnknownVersion), ("rubbish", ErrorKind::Protocol)] {
        std::fs::write(&file, text).unwrap();
        for error in [
            pool.held().unwrap_err(),
            pool.gc(|_| false).unwrap_err(),
            network.attach_from(&pool, &NetNs::new().unwrap(), &EndpointSpec::new().id("b")).unwrap_err(),
            endpoint.detach_to(&pool, &host).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.operation()), (kind, Operation::TakeAddress), "{error}");
            assert_eq!((error.object(), error.left_behind()), (Some("leases"), None), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    // When it can be read again, what was detached is given back.
    std::fs::write(&file, ours).unwrap();
    endpoint.detach_to(&pool, &host).unwrap();
    assert_eq!(pool.held().unwrap(), []);
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}

/// A reboot, or the loss of the pool's file: the numbers of claims are not used again, so that a record from before frees nothing of now.
pub(crate) fn addresses_after_a_reboot() {
    let (folder, pool) = folder();
    let (host, network) = network();
    let (netns, web) = (NetNs::new().unwrap(), EndpointSpec::new().id("web"));
    let file = folder.join("leases");
    let reboot = || {
        let text = std::fs::read_to_string(&file).unwrap();
        let boot = text.lines().find(|line| line.starts_with("boot\t")).unwrap();
        std::fs::write(&file, text.replace(boot, "boot\tbefore")).unwrap();
    };
    let lose = || std::fs::remove_file(&file).unwrap();
    // The power is lost: what has reached the disk is the file of earlier on.
    let earlier = std::cell::RefCell::new(String::new());
    let lose_power = || {
        std::fs::write(&file, earlier.take()).unwrap();
        reboot();
    };
    for end in [&reboot as &dyn Fn(), &lose, &lose_power] {
        // Several, so that the last one has a number that is soon reached again, and passed, by who begins anew.
        let before = (0..3).map(|_| {
            let endpoint = network.attach_from(&pool, &netns, &web).unwrap();
            endpoint.detach(&host).unwrap();
            if earlier.borrow().is_empty() {
                earlier.replace(std::fs::read_to_string(&file).unwrap());
            }
            endpoint
        });
        earlier.take();
        let before: Vec<_> = before.collect();
        end();
        assert_eq!(pool.held().unwrap(), [], "no container outlives the boot");
        let now = network.attach_from(&pool, &netns, &web).unwrap();
        for old in before {
            old.detach_to(&pool, &host).unwrap();
        }
        assert_eq!((pool.held().unwrap().len(), crate::support::within(&netns, links).len()), (2, 2), "it is in use");
        let other = NetNs::new().unwrap();
        let another = network.attach_from(&pool, &other, &EndpointSpec::new().id("another")).unwrap();
        assert!(another.addresses().iter().all(|address| !now.addresses().contains(address)), "{another:?}");
        now.detach_to(&pool, &host).unwrap();
        another.detach_to(&pool, &host).unwrap();
        assert_eq!(pool.held().unwrap(), []);
    }
    std::fs::remove_dir_all(folder).unwrap();
    clean_up(&host, &network, &[]);
}
