//! What several of these tests share.

use cofferdam_netlink_bridge::{Endpoint, EndpointSpec, Host, NetNs, Network, NetworkSpec};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// So long is waited for what must come: nobody waits so long but on a machine that is very busy, or in vain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A network of both families; its bridge is `br-test`.
pub(crate) fn spec() -> NetworkSpec {
    let subnets = ["10.88.0.0/16", "fd00:88::/64"].map(|subnet| subnet.parse().expect("a subnet"));
    NetworkSpec::new("br-test").owner("kernel tests").subnet(subnets[0]).subnet(subnets[1])
}

/// The test's own namespace as host, with the network.
pub(crate) fn network() -> (Host, Network) {
    let host = Host::current().expect("a host");
    let network = Network::create(&host, &spec()).expect("a network");
    (host, network)
}

/// A container with the addresses 10.88.0.N and `fd00:88::N`.
pub(crate) fn container(network: &Network, number: u8) -> (NetNs, Endpoint) {
    let netns = NetNs::new().expect("a namespace");
    let endpoint = network.attach(&netns, &addresses(number)).expect("is attached");
    (netns, endpoint)
}

pub(crate) fn addresses(number: u8) -> EndpointSpec {
    EndpointSpec::new().address(v4(number)).address(v6(number))
}

pub(crate) fn v4(number: u8) -> IpAddr {
    [10, 88, 0, number].into()
}

pub(crate) fn v6(number: u8) -> IpAddr {
    [0xfd00, 0x88, 0, 0, 0, 0, 0, u16::from(number)].into()
}

pub(crate) fn at(address: IpAddr) -> SocketAddr {
    (address, 0).into()
}

/// Runs `f` on a thread in a namespace; sockets that it brings back stay there.
pub(crate) fn within<T: Send>(namespace: &impl AsFd, f: impl FnOnce() -> T + Send) -> T {
    let namespace = namespace.as_fd();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enters the namespace");
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What `ip -j` says, in the namespace of the thread.
pub(crate) fn ip(arguments: &str) -> Vec<Value> {
    let output = Command::new("ip").args(["-j", "-d"]).args(arguments.split(' ')).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

/// What `nft` says, in the namespace of the thread.
pub(crate) fn nft(arguments: &str) -> String {
    let output = Command::new("nft").args(arguments.split(' ')).output().expect("nft runs");
    assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs `ip`, in the namespace of the thread.
pub(crate) fn run_ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {arguments}");
}

/// Another machine, beside the host (the namespace of the thread): they are 192.0.2.2 and 192.0.2.1, `2001:db8::2` and `2001:db8::1`.
pub(crate) fn outside() -> NetNs {
    let machine = NetNs::new().expect("a namespace");
    let path = format!("/proc/{}/fd/{}", std::process::id(), machine.as_fd().as_raw_fd());
    run_ip(&format!("link add up0 type veth peer name up0 netns {path}"));
    let set_up = |last: u8| {
        // Its link-local address can be used at once too: without it no neighbour is asked for.
        std::fs::write("/proc/sys/net/ipv6/conf/up0/accept_dad", "0").expect("has IPv6");
        run_ip(&format!("address add 192.0.2.{last}/24 dev up0"));
        run_ip(&format!("address add 2001:db8::{last}/64 dev up0 nodad"));
        run_ip("link set lo up");
        run_ip("link set up0 up");
    };
    set_up(1);
    within(&machine, || set_up(2));
    wait_for_link_local("up0");
    within(&machine, || wait_for_link_local("up0"));
    machine
}

/// Until the link has its own address, which comes a while after the link is up: then neighbours can be asked for.
pub(crate) fn wait_for_link_local(link: &str) {
    let until = std::time::Instant::now() + PATIENCE;
    while !ip(&format!("-6 address show dev {link} scope link"))
        .iter()
        .any(|link| link["addr_info"].to_string().contains("fe80"))
    {
        assert!(std::time::Instant::now() < until, "no link-local address");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn outside_v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

pub(crate) fn outside_v6(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

/// The names of all links, in the namespace of the thread.
pub(crate) fn links() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("a table");
    let mut names: Vec<_> = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    names.sort_unstable();
    names
}

/// Detaches, deletes, and waits for nothing.
pub(crate) fn clean_up(host: &Host, network: &Network, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        endpoint.detach(host).expect("is detached");
    }
    network.delete().expect("is deleted");
    assert_eq!(links(), ["lo"]);
}
