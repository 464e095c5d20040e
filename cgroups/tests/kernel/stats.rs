//! The conformance list, as far as it is about statistics.

use std::time::Duration;

use cofferdam_cgroups::{Controllers, Enforcement, ErrorKind, Guard, Hierarchy, Limits, Max, Select};
use cofferdam_testkit::fault::record;

use crate::allocator::allocations;
use crate::support::{BOTH, Waiting, kind, until};

const MIB: u64 = 1 << 20;

fn make(hierarchy: &Hierarchy) -> Guard {
    hierarchy.create("job", BOTH | Controllers::MEMORY | Controllers::IO).unwrap().into_guard()
}

/// A process that has used some of everything.
fn busy(job: &Guard) -> Waiting {
    let script = "perl -e 'my $x = \"a\" x (20 << 20); $_++ for 1 .. 300000; sleep 60' & wait";
    let process = Waiting::in_cgroup(job, script);
    until("memory is in use", || job.memory_stats().unwrap().current > 20 * MIB);
    process
}

pub(crate) fn statistics_are_told_alike(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    job.apply(&Limits::new().pids(20).memory(200 * MIB), Enforcement::Strict).unwrap();
    let _process = busy(&job);
    let mut sampler = job.sampler(Select::all()).unwrap();
    until("CPU time is counted", || sampler.sample().unwrap().cpu.as_ref().unwrap().usage > Duration::from_millis(5));
    let stats = sampler.sample().unwrap();
    let cpu = stats.cpu.as_ref().unwrap();
    assert_eq!(cpu.nr_periods, Some(0), "{cpu:?}");
    let pids = stats.pids.as_ref().unwrap();
    assert_eq!((pids.current, pids.max), (2, Max::Limit(20)));
    let memory = stats.memory.as_ref().unwrap();
    assert!((20 * MIB..200 * MIB).contains(&memory.current) && memory.max == Max::Limit(200 * MIB), "{memory:?}");
    let details = stats.memory_details.as_ref().unwrap();
    assert!((19 * MIB..=memory.current + MIB).contains(&details.anon.unwrap()), "{details:?}");
    for field in [details.file, details.inactive_file, details.active_file, details.pgfault, details.file_mapped] {
        assert!(field.is_some(), "{details:?}");
    }
    assert!(stats.io.is_some() || hierarchy.layout() == cofferdam_cgroups::Layout::V2, "{stats:?}");
    // One by one it is the same, and nothing else is read.
    let (calls, only) = record(|| job.stats(Select::PIDS).unwrap());
    assert_eq!((&only.pids, only.cpu, only.memory), (&stats.pids, None, None));
    assert!(calls.iter().filter(|call| call.name() == "pread64").count() <= 4, "{calls:?}");
    job.close().unwrap();
    assert_eq!(kind(sampler.sample()), ErrorKind::Gone);
    assert_eq!(kind(job.stats(Select::all())), ErrorKind::Gone);
}

pub(crate) fn a_sample_allocates_nothing(hierarchy: &Hierarchy) {
    let job = make(hierarchy);
    let _process = busy(&job);
    let mut sampler = job.sampler(Select::all()).unwrap();
    for _ in 0..3 {
        sampler.sample().unwrap();
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8]))) > 0, "the count works");
    let count = allocations(|| {
        for _ in 0..100 {
            sampler.sample().unwrap();
        }
    });
    assert_eq!(count, 0);
    // And one system call for each file.
    let (calls, ()) = record(|| assert!(sampler.sample().unwrap().cpu.is_some()));
    let reads = calls.iter().filter(|call| call.name() == "pread64").count();
    assert!(reads >= 10 && calls.len() - reads <= 8, "{calls:?}");
    job.close().unwrap();
}
