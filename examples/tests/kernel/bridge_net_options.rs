//! bridge-net with each of its options, on a host that another namespace plays, and with calls that fail or come late.

use crate::bridge_net::{call, run};
use crate::image::links;
use cofferdam_netlink_bridge::NetNs;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Nobody waits so long but in vain, or on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long is waited for what must not come.
const A_WHILE: Duration = Duration::from_millis(400);

/// Runs `f` on a thread in a namespace; sockets that it brings back stay there.
fn within<T: Send>(netns: &NetNs, f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let work = || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// By which the program, another process, finds it.
fn path(netns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

fn tool(words: &str) -> String {
    let (program, words) = words.split_once(' ').unwrap();
    let output = Command::new(program).args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Whether a connection from one namespace gets to a listener in another.
fn connects(from: &NetNs, to: &str, listener: &TcpListener) -> bool {
    let Ok(client) = within(from, || TcpStream::connect_timeout(&address(to), A_WHILE)) else { return false };
    let (_, source) = listener.accept().unwrap();
    // What the bridge's own address stands for comes from the host.
    source.ip() == client.local_addr().unwrap().ip() || source.ip().is_ipv4()
}

fn nothing_left(host: &NetNs, containers: &[&NetNs]) {
    assert_eq!(within(host, || (links(), tool("nft list tables"))), (vec!["lo".to_owned()], String::new()));
    for container in containers {
        assert_eq!(within(container, links), ["lo"]);
    }
}

fn remove_state() {
    fs::remove_dir_all(std::env::temp_dir().join("state")).unwrap();
}

fn refused(words: &str, why: &str) {
    let output = call(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.contains(why)), (Some(1), true), "{words}: {said}");
}

/// Every command with `--host-netns`: nothing appears in the namespace of the caller.
pub(crate) fn on_another_host() {
    let (machine, web) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    within(&machine, || {
        tool("ip link set lo up");
        tool("ip address add 192.0.2.1/32 dev lo");
    });
    let (on, netns) = (format!("--host-netns {}", path(&machine)), path(&web));
    run(&format!("up br-net --subnet 10.88.0.0/16 {on}"));
    let attach = format!("attach br-net --netns {netns} {on}");
    refused(&format!("{attach} --ip 10.99.0.5"), "is in no subnet");
    let ports = "--publish 192.0.2.1:8080:80 --publish 53:53/udp";
    let endpoint: Value = serde_json::from_str(&run(&format!("{attach} --ip 10.88.0.7 {ports} --json"))).unwrap();
    let shown = ["interface", "mac", "addresses", "gateway", "ports"].map(|name| endpoint[name].clone());
    let wanted =
        json!(["eth0", "02:cd:0a:58:00:07", ["10.88.0.7/16"], "10.88.0.1", ["192.0.2.1:8080:80/tcp", "53:53/udp"]]);
    assert_eq!(json!(shown), wanted);
    assert_eq!(links(), ["lo"], "here is nothing");
    assert_eq!(tool("nft list tables"), "");
    let port = endpoint["host_interface"].as_str().unwrap();
    assert!(within(&machine, links).contains(&port.to_owned()));
    // At the one address, and not at the others; the other port at every address.
    let listener = within(&web, || TcpListener::bind("10.88.0.7:80").unwrap());
    assert!(connects(&machine, "192.0.2.1:8080", &listener));
    assert!(!connects(&machine, "127.0.0.1:8080", &listener) && !connects(&machine, "10.88.0.1:8080", &listener));
    let inside = within(&web, || UdpSocket::bind("10.88.0.7:53").unwrap());
    inside.set_read_timeout(Some(PATIENCE)).unwrap();
    for to in ["192.0.2.1:53", "127.0.0.1:53", "10.88.0.1:53"] {
        within(&machine, || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", to).unwrap());
        inside.recv_from(&mut [0; 8]).unwrap();
    }
    assert_eq!(run(&format!("check {on}")) + &run(&format!("plan {on}")) + &run(&format!("gc {on}")), "");
    within(&machine, || tool("nft flush ruleset"));
    assert_eq!(call(&format!("check {on}")).status.code(), Some(1));
    assert_eq!(run(&format!("plan {on}")), run(&format!("reapply {on}")));
    assert_eq!(run(&format!("check {on}")), "");
    assert!(connects(&machine, "192.0.2.1:8080", &listener));
    // By another process, twice.
    for _ in 0..2 {
        run(&format!("detach br-net --netns {netns} {on}"));
        assert_eq!(within(&machine, links), ["lo", "br-net"]);
        assert_eq!(within(&web, links), ["lo"]);
        assert!(!within(&machine, || tool("nft list table inet cofferdam")).contains("10.88.0.7"));
    }
    for behind in [false, true] {
        // Down with a container that is there, also if somebody has deleted the bridge.
        run(&format!("up br-net --subnet 10.88.0.0/16 {on}"));
        run(&format!("{attach} {ports}"));
        if behind {
            within(&machine, || tool("ip link del br-net"));
        }
        // Where the network was, somebody else is now: that must not keep it.
        within(&machine, || tool("ip route add 10.88.7.0/24 dev lo"));
        run(&format!("down br-net {on}"));
        nothing_left(&machine, &[&web]);
        run(&format!("down br-net {on}"));
        within(&machine, || tool("ip route del 10.88.7.0/24 dev lo"));
    }
    remove_state();
}

/// `--icc off` and `--internal`, with packets; and without them, where the same packets arrive.
pub(crate) fn apart_and_internal() {
    let [machine, one, two] = [(); 3].map(|()| NetNs::new().unwrap());
    let on = format!("--host-netns {}", path(&machine));
    // What bridged packets meet is the host's own affair: where that is on, they are translated too early.
    within(&machine, || drop(fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0")));
    for (options, together, out) in [("", true, true), ("--icc off", false, true), ("--internal", true, false)] {
        run(&format!("up br-net --subnet 10.88.0.0/24 {options} {on}").replace("  ", " "));
        for netns in [&one, &two] {
            run(&format!("attach br-net --netns {} {on}", path(netns)));
        }
        let listener = within(&one, || TcpListener::bind("10.88.0.2:80").unwrap());
        assert_eq!(connects(&two, "10.88.0.2:80", &listener), together, "{options}");
        assert!(connects(&machine, "10.88.0.2:80", &listener), "{options}: the host reaches it");
        assert_eq!(within(&two, || tool("ip route show default")).contains("10.88.0.1"), out, "{options}");
        run(&format!("detach br-net --netns {} {on}", path(&one)));
        let publish = format!("attach br-net --netns {} --publish 80:80 {on}", path(&one));
        if out {
            run(&publish);
        } else {
            refused(&publish, "the network is internal");
        }
        run(&format!("down br-net {on}"));
        nothing_left(&machine, &[&one, &two]);
    }
    remove_state();
}

/// An `up` that fails leaves a network as it was, so that it can be used and goes down.
pub(crate) fn an_up_that_fails() {
    let (machine, web) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let on = format!("--host-netns {}", path(&machine));
    // Before there is one: nothing is left of it. The kernel refuses an address of the second.
    for subnet in ["10.0.0.1/8", "ff00::/8"] {
        let output = call(&format!("up br-net --subnet {subnet} {on}"));
        assert_eq!(output.status.code(), Some(1));
        nothing_left(&machine, &[]);
        refused(&format!("check br-net {on}"), "there is no network");
    }
    run(&format!("up br-net --subnet 10.88.0.0/16 {on}"));
    for subnet in ["10.0.0.1/8", "ff00::/8"] {
        assert_eq!(call(&format!("up br-net --subnet {subnet} {on}")).status.code(), Some(1));
    }
    within(&machine, || {
        tool("ip link set lo up");
        tool("ip route add 10.99.7.0/24 dev lo");
    });
    refused(
        &format!("up br-net --subnet 10.88.0.0/16 --subnet 10.99.0.0/16 {on}"),
        "already has a route into this subnet",
    );
    assert_eq!(run(&format!("check br-net {on}")), "");
    assert!(run(&format!("attach br-net --netns {} {on}", path(&web))).contains("10.88.0.2/16"));
    run(&format!("down br-net {on}"));
    nothing_left(&machine, &[&web]);
    remove_state();
}

/// What is stored: which interface is the next, which namespace is gone, and what a call has left that was killed while it took a network away.
pub(crate) fn what_is_remembered() {
    let (machine, web) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let on = format!("--host-netns {}", path(&machine));
    let folder = std::env::temp_dir();
    let link = folder.join("netns");
    std::os::unix::fs::symlink(path(&web), &link).unwrap();
    let netns = link.display();
    let attach = |network: &str| run(&format!("attach {network} --netns {netns} {on}"));
    run(&format!("up br-a --subnet 10.1.0.0/24 {on}"));
    run(&format!("up br-b --subnet 10.2.0.0/24 {on}"));
    assert!(attach("br-a").starts_with("eth0 ") && attach("br-b").starts_with("eth1 "));
    run(&format!("detach br-a --netns {netns} {on}"));
    assert!(attach("br-a").starts_with("eth0 "), "eth1 has stayed");
    assert!(within(&web, || tool("ip route show default")).contains("via 10.1.0.1 dev eth0"));
    // A path that cannot be followed does not say that the namespace is gone.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&link, &link).unwrap();
    refused(&format!("gc {on}"), "os error 40");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(path(&web), &link).unwrap();
    assert_eq!(run(&format!("gc {on}")), "");
    assert_eq!(within(&web, links).len(), 3);
    fs::remove_file(&link).unwrap();
    let gone = run(&format!("gc {on}"));
    assert!(gone.contains("detach br-a") && gone.contains("detach br-b"), "{gone}");
    assert_eq!(within(&web, links), ["lo"]);
    // As if `down` had been killed when it had begun to forget.
    std::os::unix::fs::symlink(path(&web), &link).unwrap();
    attach("br-a");
    let endpoints = folder.join("state/br-a/endpoints");
    let record = fs::read_dir(&endpoints).unwrap().next().unwrap().unwrap().path();
    let text = fs::read(&record).unwrap();
    run(&format!("down br-a {on}"));
    fs::create_dir_all(&endpoints).unwrap();
    fs::write(&record, text).unwrap();
    run(&format!("down br-a {on}"));
    run(&format!("up br-a --subnet 10.1.0.0/24 {on}"));
    assert_eq!(run(&format!("check {on}")), "", "there is no endpoint");
    for network in ["br-a", "br-b"] {
        run(&format!("down {network} {on}"));
    }
    nothing_left(&machine, &[&web]);
    fs::remove_file(&link).unwrap();
    remove_state();
}

/// What a later version has stored is not understood, and is told; nothing of it is changed, whatever is asked for.
pub(crate) fn stored_by_a_later_version() {
    let (machine, web) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let (on, netns) = (format!("--host-netns {}", path(&machine)), path(&web));
    run(&format!("up br-net --subnet 10.88.0.0/16 {on}"));
    run(&format!("attach br-net --netns {netns} --publish 8080:80 {on}"));
    let folder = std::env::temp_dir().join("state/br-net");
    let record = fs::read_dir(folder.join("endpoints")).unwrap().next().unwrap().unwrap().path();
    for file in [folder.join("network"), record] {
        let ours = fs::read_to_string(&file).unwrap();
        let later = ours.replacen("\"version\": 1", "\"version\": 2, \"colour\": \"red\"", 1);
        assert_ne!(later, ours);
        fs::write(&file, &later).unwrap();
        let seen = || within(&machine, || (links(), tool("nft list ruleset"), tool("ip address show scope global")));
        let before = seen();
        for command in [
            "up br-net --subnet 10.88.0.0/16 --icc off".to_owned(),
            format!("attach br-net --netns {}", path(&machine)),
            format!("detach br-net --netns {netns}"),
            "check".into(),
            "plan".into(),
            "reapply".into(),
            "gc".into(),
            "down br-net".into(),
        ] {
            refused(&format!("{command} {on}"), &format!("{}: version 2 is not known here", file.display()));
            assert_eq!(seen(), before, "{command}");
            assert_eq!(fs::read_to_string(&file).unwrap(), later, "{command}");
        }
        fs::write(&file, ours).unwrap();
    }
    run(&format!("down br-net {on}"));
    nothing_left(&machine, &[&web]);
    remove_state();
}
