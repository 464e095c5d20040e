//! Packets: a classifier sees the class of the cgroup that sent them (v1).

use std::process::Command;

use cofferdam_cgroups::{Cgroup, Controllers, Enforcement, Hierarchy, Limits};

use crate::support::Waiting;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packets that a class of the queue has sent.
fn sent(class: &str) -> u64 {
    let text = run("tc", "-s class show dev lo");
    let start = text.find(&format!("class htb {class} ")).unwrap_or_else(|| panic!("{text}"));
    let (_, numbers) = text[start..].split_once(" bytes ").unwrap();
    numbers.split_whitespace().next().unwrap().parse().unwrap()
}

fn send(job: &Cgroup) {
    let script = "exec perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Proto => \"udp\", \
        PeerAddr => \"127.0.0.1:9\") or die; for (1..5) { $s->send(\"x\") }'";
    assert!(Waiting::in_cgroup(job, script).ended().success());
}

/// In the test's own network namespace.
pub(crate) fn a_classifier_sees_the_class(hierarchy: &Hierarchy) {
    let controllers = Controllers::NET_CLS | Controllers::NET_PRIO;
    let job = hierarchy.create("job", controllers).unwrap().into_guard();
    run("ip", "link set lo up");
    run("tc", "qdisc add dev lo root handle 16: htb default 2");
    for class in ["16:1", "16:2"] {
        run("tc", &format!("class add dev lo parent 16: classid {class} htb rate 100mbit"));
    }
    run("tc", "filter add dev lo parent 16: protocol ip prio 10 handle 1: cgroup");
    send(&job);
    let before = (sent("16:1"), sent("16:2"));
    assert!(before.0 == 0 && before.1 > 0, "{before:?}");

    let mut limits = Limits::new();
    limits.network.class = Some(0x0016_0001);
    limits.network.priorities.insert("lo".to_owned(), 5);
    job.apply(&limits, Enforcement::Strict).unwrap();
    let found = job.limits().unwrap().network;
    assert_eq!((found.class, found.priorities["lo"]), (Some(0x0016_0001), 5));
    send(&job);
    // Nobody listens: some of them are refused before they are sent.
    assert!(sent("16:1") > 0);
    run("tc", "qdisc del dev lo root");
    run("ip", "link set lo down");
    job.close().unwrap();
}
