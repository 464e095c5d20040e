//! `cofferdam-network-peers [ROUNDS]`: a container attached to a bridge and detached again, by cofferdam and by rtnetlink, in turns, in a
//! network namespace that plays the host. Tells medians of the time, and the system calls, counted exactly. As root.
//!
//! All make the same: a pair of interfaces, one a port of the bridge, the other `eth0` in the container with an address and a default route,
//! both with an alias. rtnetlink does it in two ways: the usual one, in which the other end is made in the host and moved, and one in which it is
//! born in the container, for which its message must be put together by hand. Its runtime and its connections are there before, as cofferdam's sockets are.

mod ours;
mod rtnetlink_peer;

use cofferdam_netlink_bridge::{Host, NetNs, Network, NetworkSpec};
use cofferdam_testkit::fault::record;
use nix::sched::{CloneFlags, setns, unshare};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BRIDGE: &str = "br-bench";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const ALIAS: &str = "cofferdam:bench";

/// One way to do it. An attach, then a detach.
trait Contender: Send {
    fn name(&self) -> &'static str;
    fn attach(&mut self) -> Result<()>;
    fn detach(&mut self) -> Result<()>;
}

/// A container for a contender.
struct Target {
    netns: NetNs,
    address: Ipv4Addr,
    /// In the container, for a look at its route.
    probe: UdpSocket,
}

impl Target {
    fn new(nth: u8) -> Result<Self> {
        let netns = NetNs::new()?;
        let probe = within(&netns, || Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        Ok(Target { netns, address: Ipv4Addr::new(10, 88, 200, nth), probe })
    }

    /// It has its address, and a way to what is far away.
    fn check(&self) -> Result<()> {
        self.probe.connect("203.0.113.1:9")?;
        let from = self.probe.local_addr()?.ip();
        if from == self.address { Ok(()) } else { Err(format!("it sends from {from}").into()) }
    }
}

/// Runs `work` on a thread in a namespace.
fn within<T: Send>(namespace: &(impl AsFd + Sync), work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))
    })
}

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(31), |rounds| rounds.parse())?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let host = Host::current()?;
    let network = Network::create(&host, &NetworkSpec::new(BRIDGE).owner("bench").subnet("10.88.0.0/16".parse()?))?;
    let targets = (2..5).map(Target::new).collect::<Result<Vec<_>>>()?;
    let [a, b, c] = &targets[..] else { return Err("three contenders".into()) };
    let mut contenders: Vec<(&Target, Box<dyn Contender + '_>)> = vec![
        (a, Box::new(ours::Ours::new(&host, &network, a))),
        (b, Box::new(rtnetlink_peer::Peer::new(b, rtnetlink_peer::Way::Born)?)),
        (c, Box::new(rtnetlink_peer::Peer::new(c, rtnetlink_peer::Way::Moved)?)),
    ];
    let mut times = vec![[const { Vec::<Duration>::new() }; 2]; contenders.len()];
    // The first round does not count.
    for round in 0..=rounds {
        for ((target, one), times) in contenders.iter_mut().zip(&mut times) {
            let attached = timed(|| one.attach()).map_err(|e| format!("{}: {e}", one.name()))?;
            target.check().map_err(|e| format!("{}: {e}", one.name()))?;
            let detached = timed(|| one.detach()).map_err(|e| format!("{}: {e}", one.name()))?;
            if round > 0 {
                times[0].push(attached);
                times[1].push(detached);
            }
        }
    }
    println!("| | attach | calls | detach | calls |\n|---|---:|---:|---:|---:|");
    for ((_, one), times) in contenders.iter_mut().zip(&mut times) {
        let attach = record(|| one.attach());
        let detach = record(|| one.detach());
        attach.1.and(detach.1)?;
        let [attached, detached] = times.each_mut().map(|times| {
            times.sort();
            times.get(times.len() / 2).copied().unwrap_or_default().as_micros()
        });
        let [at, de] = [attach.0, detach.0].map(|calls| calls.len());
        println!("| {} | {attached} µs | {at} | {detached} µs | {de} |", one.name());
    }
    drop(contenders);
    Ok(network.delete()?)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
