//! Made twice, removed twice, removed when it is gone already.

use crate::support::{addresses, clean_up, container, links, network, spec, within};
use cofferdam_netlink_bridge::{ErrorKind, Host, NetNs, Network};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

pub(crate) fn detached_twice() {
    let (host, network) = network();
    let (netns, endpoint) = container(&network, 2);
    endpoint.detach(&host).unwrap();
    assert_eq!((links(), within(&netns, links)), (vec!["br-test".into(), "lo".into()], vec!["lo".into()]));
    endpoint.detach(&host).unwrap();
    // By somebody who knows nothing but the record, and afterwards another has the id.
    let (netns, endpoint) = (NetNs::new().unwrap(), addresses(2).id("x"));
    let first = network.attach(&netns, &endpoint).unwrap();
    first.clone().detach(&Host::current().unwrap()).unwrap();
    let second = network.attach(&netns, &endpoint).unwrap();
    first.detach(&host).unwrap();
    assert_eq!(within(&netns, links), ["eth0", "lo"]);
    clean_up(&host, &network, &[second]);
}

pub(crate) fn detached_after_the_namespace() {
    let (host, network) = network();
    let (netns, endpoint) = container(&network, 2);
    drop(netns);
    // The kernel takes it down when it comes to it; whether before, while or after this, is no matter.
    endpoint.detach(&host).unwrap();
    clean_up(&host, &network, &[endpoint]);
}

pub(crate) fn created_twice_deleted_twice() {
    let (host, first) = network();
    let index = || crate::support::ip("link show br-test")[0]["ifindex"].clone();
    let before = index();
    // One by the same owner is taken as it is, and completed.
    let more = spec().subnet("10.77.0.0/24".parse().unwrap());
    let second = Network::create(&host, &more).unwrap();
    assert_eq!(index(), before);
    let shown = crate::support::ip("address show dev br-test").remove(0)["addr_info"].to_string();
    assert!(["10.88.0.1", "10.77.0.1", "fd00:88::1"].iter().all(|address| shown.contains(address)), "{shown}");
    let third = Network::open(&host, &spec()).unwrap();
    let (_netns, endpoint) = container(&third, 2);
    assert_eq!(first.delete().unwrap_err().kind(), ErrorKind::InUse);
    endpoint.detach(&host).unwrap();
    first.delete().unwrap();
    second.delete().unwrap();
    let error = Network::open(&host, &spec()).unwrap_err();
    assert_eq!((error.kind(), error.object()), (ErrorKind::NotFound, Some("br-test")));
    clean_up(&host, &third, &[]);
}

/// All at once, each with a socket of its own: one makes the bridge, and all have it.
pub(crate) fn created_by_eight_threads() {
    for _ in 0..8 {
        std::thread::scope(|scope| {
            let create = || Network::create(&Host::current().unwrap(), &spec());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        assert_eq!(links(), ["br-test", "lo"]);
        let host = Host::current().unwrap();
        clean_up(&host, &Network::open(&host, &spec()).unwrap(), &[]);
    }
}

/// By pid, by pidfd, by path, by descriptor: it is the same namespace.
pub(crate) fn every_way_to_a_namespace() {
    let made = NetNs::new().unwrap();
    let mut sleeper = within(&made, || Command::new("sleep").arg("60").spawn().unwrap());
    let same = |netns: &NetNs| {
        let inode = |fd: std::os::fd::BorrowedFd<'_>| nix::sys::stat::fstat(fd).unwrap().st_ino;
        assert_eq!(inode(netns.as_fd()), inode(made.as_fd()));
    };
    same(&NetNs::from_pid(sleeper.id()).unwrap());
    same(&NetNs::from_path(format!("/proc/{}/ns/net", sleeper.id())).unwrap());
    same(&NetNs::from_fd(made.as_fd().try_clone_to_owned().unwrap()).unwrap());
    sleeper.kill().unwrap();
    let pid = nix::unistd::Pid::from_raw(sleeper.id().try_into().unwrap());
    // Dead, but not taken away: there is a process, and it has no namespace any more.
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    assert_eq!(NetNs::from_pid(sleeper.id()).unwrap_err().kind(), ErrorKind::NotFound);
    sleeper.wait().unwrap();
    assert_eq!(NetNs::from_pid(sleeper.id()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Kept by a file: it lives without a process and a descriptor, is found by its path, and ends when nothing keeps it.
pub(crate) fn pinned() {
    let (host, network) = network();
    let folder = std::env::temp_dir().join("netns");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("web");
    let (netns, endpoint) = container(&network, 2);
    netns.pin(&path).unwrap();
    let error = NetNs::new().unwrap().pin(&path).unwrap_err();
    assert_eq!((error.kind(), error.object()), (ErrorKind::AlreadyExists, path.to_str()), "{error}");
    drop(netns);
    let again = NetNs::from_path(&path).unwrap();
    let other = container(&network, 3);
    crate::traffic::reach(&other.0, &again, 2);
    // Who has it open keeps it; when nobody does, its links go.
    NetNs::unpin(&path).unwrap();
    NetNs::unpin(&path).unwrap();
    NetNs::unpin(folder.join("no/such/folder")).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    crate::traffic::reach(&other.0, &again, 2);
    drop(again);
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while links().contains(&endpoint.port().to_owned()) {
        assert!(std::time::Instant::now() < until, "nothing keeps it any more");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::fs::remove_dir(folder).unwrap();
    clean_up(&host, &network, &[endpoint, other.1]);
}

/// What is no pinned network namespace is left as it is: others' files, empty ones too, and others' namespaces.
pub(crate) fn pinned_by_others() {
    let folder = std::env::temp_dir().join("netns");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("web");
    let foreign = |path: &std::path::Path| {
        let error = NetNs::unpin(path).unwrap_err();
        assert_eq!((error.kind(), error.object()), (ErrorKind::Foreign, path.to_str()), "{error}");
    };
    for what in [&b"text"[..], b""] {
        std::fs::write(&path, what).unwrap();
        foreign(&path);
        assert_eq!(std::fs::read(&path).unwrap(), what);
    }
    for kind in ["uts", "ipc", "user"] {
        let namespace = format!("/proc/self/ns/{kind}");
        mount(Some(namespace.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let inode = || std::fs::metadata(&path).unwrap().ino();
        let before = inode();
        foreign(&path);
        assert_eq!(inode(), before, "it is still mounted: {kind}");
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
    }
    foreign(&folder);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/proc/self/ns/net", &path).unwrap();
    foreign(&path);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_dir(folder).unwrap();
}

/// `ip netns` and others may mount one over the other: all of them go, and the file with them. So does the file of `pin` if it was killed before it mounted.
pub(crate) fn unpinned_whatever_is_left() {
    let folder = std::env::temp_dir().join("netns");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.join("web");
    NetNs::new().unwrap().pin(&path).unwrap();
    for _ in 0..3 {
        let netns = NetNs::new().unwrap();
        let from = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
        mount(Some(from.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    NetNs::unpin(&path).unwrap();
    assert!(!path.exists());
    for umask in ["022", "777"] {
        let program = std::env::current_exe().unwrap();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let mut killed = Command::new("sh");
        killed.args(["-c", &script]).arg(program).arg(crate::killed::KILLED).args(["pin", "", ""]).arg(&path);
        assert_eq!(killed.status().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        NetNs::unpin(&path).unwrap();
        assert!(!path.exists(), "{umask}");
    }
    std::fs::remove_dir(folder).unwrap();
}

/// A container that shares another's namespace: the same interface, the same loopback. One with none reaches neither.
pub(crate) fn shared_with_another() {
    let (host, network) = network();
    let (netns, endpoint) = container(&network, 2);
    let mut process = within(&netns, || Command::new("sleep").arg("60").spawn().unwrap());
    let shared = NetNs::from_pid(process.id()).unwrap();
    let alone = NetNs::new().unwrap();
    alone.loopback_up().unwrap();
    assert_eq!(within(&shared, links), ["eth0", "lo"]);
    let listener = within(&netns, || std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let to = listener.local_addr().unwrap();
    within(&shared, || crate::traffic::say(|| crate::traffic::connect(to), &listener)).unwrap();
    within(&alone, || crate::traffic::connect(to)).unwrap_err();
    // And the host's own mode: what runs there is reached by containers at the bridge's address.
    let listener = std::net::TcpListener::bind((crate::support::v4(1), 0)).unwrap();
    let to = listener.local_addr().unwrap();
    within(&shared, || crate::traffic::say(|| crate::traffic::connect(to), &listener)).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    clean_up(&host, &network, &[endpoint]);
}
