//! What a container sees of the machine.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use cofferdam_cgroups::view::{QuotaView, Snapshot};
use cofferdam_cgroups::{Controllers, CpuQuota, Enforcement, Hierarchy, Limits};

use crate::support::{BOTH, Waiting, until};

const MIB: u64 = 1 << 20;

/// The programs that people look with, in a mount namespace in which the files are mounted over the host's.
pub(crate) fn programs_see_the_limit(hierarchy: &Hierarchy) {
    let job = hierarchy.create("job", BOTH | Controllers::MEMORY | Controllers::CPUSET).unwrap().into_guard();
    let limits = Limits::new().memory(64 * MIB).swap(0).cpu_quota(CpuQuota::cores(0.5).unwrap());
    job.apply(&limits.cpus("0".parse().unwrap()), Enforcement::Strict).unwrap();
    assert_eq!(job.ceiling().unwrap().memory, Some(64 * MIB));
    // The narrowest limit above counts.
    let inner = job.child("inner").unwrap();
    inner.apply(&Limits::new().memory(512 * MIB), Enforcement::Strict).unwrap();
    assert_eq!(inner.ceiling().unwrap().memory, Some(64 * MIB));
    inner.delete().unwrap();

    let folder = std::env::temp_dir().join("view");
    fs::create_dir(&folder).unwrap();
    let directory = File::open(&folder).unwrap();
    let mut snapshot = Snapshot::new(&job, directory.as_fd(), QuotaView::HidesCpus).unwrap();
    let holder = Waiting::in_cgroup(&job, "perl -e 'my $x = \"a\" x (20 << 20); sleep 60' & wait");
    until("the memory is in use", || job.memory_stats().unwrap().current > 20 * MIB);
    snapshot.update().unwrap();
    snapshot.update().unwrap();

    let mut script = String::from("set -e; ");
    for name in ["meminfo", "swaps", "stat", "uptime", "loadavg", "cpuinfo", "diskstats"] {
        script.extend(["mount --bind ", folder.to_str().unwrap(), "/", name, " /proc/", name, "; "]);
    }
    script.extend(["mount --bind ", folder.to_str().unwrap(), "/online /sys/devices/system/cpu/online; "]);
    script.push_str("free -k; echo; top -b -n 1 | head -5; echo; uptime; grep -c ^processor /proc/cpuinfo; ");
    script.push_str("getconf _NPROCESSORS_ONLN; nproc");
    // `nproc` asks the kernel, so that this one is in the cgroup.
    let script = format!("exec unshare --mount /bin/sh -c '{script}'");
    let mut shell = Command::new("/bin/sh");
    let shell = shell.args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped());
    let mut shell = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    job.attach(shell.id()).unwrap();
    shell.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let free = text.lines().find(|line| line.starts_with("Mem:")).unwrap();
    let numbers: Vec<u64> = free.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
    assert_eq!(numbers[0], 64 * 1024, "{text}");
    assert!((20 * 1024..64 * 1024).contains(&(numbers[0] - numbers[2])), "{text}");
    let swap = text.lines().find(|line| line.starts_with("Swap:")).unwrap();
    assert_eq!(swap.split_whitespace().nth(1), Some("0"), "{text}");
    assert!(text.contains("64.0 total") || text.contains("65536 total") || text.contains("65536.0 total"), "{text}");
    // It has just started; the host has not.
    assert!(text.contains("up 0 min") || text.contains("up  0 min") || text.contains("up 1 min"), "{text}");
    let last: Vec<_> = text.lines().rev().take(3).collect();
    assert_eq!(last, ["1"; 3], "{text}");
    assert_eq!(fs::read_to_string(folder.join("online")).unwrap(), "0\n");
    // What runs is counted, what sleeps is not.
    assert_eq!(job.active_threads().unwrap(), 0);
    let _loops = [(); 2].map(|()| Waiting::in_cgroup(&job, "while :; do :; done"));
    until("both run", || job.active_threads().unwrap() == 2);
    drop((holder, snapshot));
    fs::remove_dir_all(folder).unwrap();
    job.close().unwrap();
}
