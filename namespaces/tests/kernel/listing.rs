//! Namespaces as `lsns(8)` shows them, and the clocks of one.

use crate::support::{output, sh};
use cofferdam_namespaces::{
    Child, Clock, ClockOffset, ErrorKind, IdMap, Listing, NamespaceId, Namespaces, Sandbox, Stdio, Step,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Command;

const PYTHON: &str = "/usr/bin/python3";

/// Two processes in namespaces of their own, ready.
fn two_inside(namespaces: Namespaces) -> Child {
    let sandbox = sh("sleep 1000 & echo ready; wait").user(IdMap::root()).namespaces(namespaces).stdout(Stdio::Pipe);
    let mut child = sandbox.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn end(child: &Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Inode, kind, number of processes, lowest pid, owner, parent: of each namespace of a process.
type Rows = BTreeMap<u64, (String, usize, u32, Option<u64>, Option<u64>)>;

fn ours(pid: u32) -> Rows {
    let listing = Listing::read().unwrap();
    let name = |kind| match kind {
        Namespaces::MOUNT => "mnt".to_owned(),
        kind => format!("{kind:?}").trim_start_matches("Namespaces(").trim_end_matches(')').to_lowercase(),
    };
    let number = |id: Option<NamespaceId>| id.map(NamespaceId::inode);
    let row = |n: &cofferdam_namespaces::NamespaceInfo| {
        let oldest = n.oldest().unwrap();
        (n.id.inode(), (name(n.kind), n.processes.len(), oldest, number(n.owner), number(n.parent)))
    };
    listing.of_process(pid).map(row).collect()
}

fn theirs(pid: u32) -> Rows {
    let columns = ["--raw", "--noheadings", "-o", "NS,TYPE,NPROCS,PID,ONS,PNS", "-p", &pid.to_string()];
    // It gives up when some other process ends under its eyes.
    let text = (0..1000).find_map(|_| {
        let out = Command::new("/usr/bin/lsns").args(columns).output().unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap()).filter(|text| !text.is_empty())
    });
    let text = text.expect("lsns lists them");
    let row = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let id = |at: usize| words.get(at).and_then(|w| w.parse().ok()).filter(|id| *id != 0);
        let (processes, oldest) = (words[2].parse().unwrap(), words[3].parse().unwrap());
        (words[0].parse().unwrap(), (words[1].to_owned(), processes, oldest, id(4), id(5)))
    };
    text.lines().map(row).collect()
}

pub(crate) fn listed_as_lsns_does() {
    let all = Namespaces::all();
    let child = two_inside(all);
    let (ours, theirs) = (ours(child.id()), theirs(child.id()));
    assert_eq!(ours.len(), 8, "{ours:?}");
    assert_eq!(ours, theirs);
    for (_, processes, oldest, ..) in ours.values() {
        assert_eq!((*processes, *oldest), (2, child.id()));
    }
    end(&child);
}

pub(crate) fn who_owns_a_namespace() {
    let child = two_inside(Namespaces::NET | Namespaces::PID);
    let listing = Listing::read().unwrap();
    let of = |pid, kind| listing.of_process(pid).find(|n| n.kind == kind).unwrap().clone();
    let me = std::process::id();
    let (user, net, pid) = [Namespaces::USER, Namespaces::NET, Namespaces::PID].map(|k| of(child.id(), k)).into();
    assert_eq!(net.id, NamespaceId::of(child.namespace(Namespaces::NET).unwrap()).unwrap());
    assert_eq!((net.owner, net.parent, net.owner_uid), (Some(user.id), None, None));
    assert_eq!((pid.owner, pid.parent), (Some(user.id), Some(of(me, Namespaces::PID).id)));
    let mine = of(me, Namespaces::USER).id;
    assert_eq!((user.owner, user.parent), (Some(mine), Some(mine)));
    assert_eq!(user.owner_uid, Some(nix::unistd::geteuid().as_raw()));
    assert_eq!(listing.get(user.id), Some(&user));
    end(&child);
    assert!(Listing::read().unwrap().get(user.id).is_none());
}

/// Seconds of the two clocks, since boot, inside.
fn clocks(sandbox: Sandbox) -> [f64; 2] {
    let text = output(sandbox);
    let seconds: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    seconds.try_into().unwrap()
}

fn python(script: &str) -> Sandbox {
    Sandbox::new(PYTHON).args(["-I", "-S", "-c", script])
}

pub(crate) fn clocks_are_shifted_inside() {
    let read =
        python("import time; print(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))");
    let outside = clocks(read.clone());
    let inside = read.clone().user(IdMap::root()).namespaces(Namespaces::TIME | Namespaces::PID);
    let shifted = inside
        .clone()
        .clock_offset(Clock::Boottime, ClockOffset::new(1_000_000, 0))
        .clock_offset(Clock::Monotonic, ClockOffset::new(-1, 500_000_000));
    let [monotonic, boottime] = clocks(shifted);
    let again = clocks(read);
    // Whenever in between it was.
    assert!((outside[0] - 0.5..=again[0] - 0.5).contains(&monotonic), "{outside:?} {monotonic} {again:?}");
    assert!((outside[1] + 1e6..=again[1] + 1e6).contains(&boottime), "{outside:?} {boottime} {again:?}");
    // The same clocks in a namespace of its own.
    let same = clocks(inside);
    assert!(same[0] >= again[0] && same[1] >= again[1] && same[1] < again[1] + 1e5, "{again:?} {same:?}");
}

/// There is one wall clock, the machine's: nobody inside a user namespace may set it.
pub(crate) fn the_wall_clock_cannot_be_set() {
    let set = "import time\ntry: time.clock_settime(time.CLOCK_REALTIME, time.time())\nexcept PermissionError: print('refused')";
    let sandbox = python(set).user(IdMap::root()).namespaces(Namespaces::TIME);
    assert_eq!(output(sandbox), "refused\n");
}

pub(crate) fn clocks_that_cannot_be() {
    let offset =
        |seconds, nanoseconds| sh("true").clock_offset(Clock::Monotonic, ClockOffset::new(seconds, nanoseconds));
    let refused = |sandbox: Sandbox| sandbox.spawn().unwrap_err();
    assert_eq!(refused(offset(1, 0)).kind(), ErrorKind::InvalidConfig);
    let inside = |sandbox: Sandbox| sandbox.user(IdMap::root()).namespaces(Namespaces::TIME);
    assert_eq!(refused(inside(offset(1, 1_000_000_000))).kind(), ErrorKind::InvalidConfig);
    // Before boot.
    let error = refused(inside(offset(-1_000_000_000_000, 0)));
    assert_eq!((error.step(), error.raw_os_error()), (Step::Time, Some(libc::ERANGE)));
}
