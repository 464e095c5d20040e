//! Which file of the kernel's tells what: the one place that knows.

use crate::controllers::Subsystems;
use crate::layout::Version;
use crate::limits::PageSize;
use crate::stats::{Select, Stats, cpu, io, memory, pids, pressure, shared};

/// How to read a file into the statistics. `None`: it is not what it should be.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    Plain(Plain),
    /// Where the size of a page must be known.
    InPages(fn(&mut Stats, &[u8], u64) -> Option<()>),
}

/// In which of a cgroup's directories a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Where this is governed, and in this version only.
    Of(Subsystems, Version),
    /// In the unified tree: where CPU time is governed there, or not at all.
    UnifiedCpu,
    /// In the unified tree, which has it whatever is governed there.
    Unified,
}

/// A file, and what to do with it.
#[derive(Clone, Copy)]
pub(crate) struct File {
    pub(crate) select: Select,
    pub(crate) home: Home,
    pub(crate) name: &'static str,
    pub(crate) read: Read,
    /// Without it there is nothing to tell of what was selected.
    pub(crate) is_needed: bool,
}

pub(crate) type Plain = fn(&mut Stats, &[u8]) -> Option<()>;

const fn file(select: Select, home: Home, name: &'static str, read: Plain) -> File {
    File { select, home, name, read: Read::Plain(read), is_needed: false }
}

const fn needed(select: Select, home: Home, name: &'static str, read: Plain) -> File {
    File { select, home, name, read: Read::Plain(read), is_needed: true }
}

const fn in_pages(name: &'static str, home: Home) -> File {
    File { select: Select::MEMORY, home, name, read: Read::InPages(memory::max), is_needed: true }
}

const ACCT: Home = Home::Of(Subsystems::CPUACCT, Version::V1);
const CPU: Home = Home::Of(Subsystems::CPU, Version::V1);
const PIDS: [Home; 2] = [Home::Of(Subsystems::PIDS, Version::V1), Home::Of(Subsystems::PIDS, Version::V2)];
const MEM1: Home = Home::Of(Subsystems::MEMORY, Version::V1);
const MEM2: Home = Home::Of(Subsystems::MEMORY, Version::V2);
const IO1: Home = Home::Of(Subsystems::IO, Version::V1);
const IO2: Home = Home::Of(Subsystems::IO, Version::V2);
const RDMA: [Home; 2] = [Home::Of(Subsystems::RDMA, Version::V1), Home::Of(Subsystems::RDMA, Version::V2)];
const MISC: Home = Home::Of(Subsystems::MISC, Version::V2);

/// All of them but those of huge pages, in the order in which they are read.
pub(crate) static FILES: [File; 38] = [
    needed(Select::CPU, Home::UnifiedCpu, "cpu.stat", cpu::v2_stat),
    needed(Select::CPU, ACCT, "cpuacct.usage", cpu::v1_usage),
    needed(Select::CPU, ACCT, "cpuacct.usage_user", cpu::v1_user),
    needed(Select::CPU, ACCT, "cpuacct.usage_sys", cpu::v1_system),
    file(Select::CPU, CPU, "cpu.stat", cpu::v1_stat),
    file(Select::CPU_EACH, ACCT, "cpuacct.usage_all", cpu::v1_each),
    file(Select::CPU_PRESSURE, Home::Unified, "cpu.pressure", pressure::cpu),
    needed(Select::PIDS, PIDS[0], "pids.current", pids::current),
    needed(Select::PIDS, PIDS[0], "pids.max", pids::max),
    file(Select::PIDS, PIDS[0], "pids.peak", pids::peak),
    file(Select::PIDS, PIDS[0], "pids.events", pids::events),
    needed(Select::PIDS, PIDS[1], "pids.current", pids::current),
    needed(Select::PIDS, PIDS[1], "pids.max", pids::max),
    file(Select::PIDS, PIDS[1], "pids.peak", pids::peak),
    file(Select::PIDS, PIDS[1], "pids.events", pids::events),
    needed(Select::MEMORY, MEM2, "memory.current", memory::current),
    in_pages("memory.max", MEM2),
    file(Select::MEMORY, MEM2, "memory.peak", memory::peak),
    file(Select::MEMORY, MEM2, "memory.swap.current", memory::v2_swap),
    file(Select::MEMORY, MEM2, "memory.swap.peak", memory::v2_swap_peak),
    file(Select::MEMORY, MEM2, "memory.events", memory::v2_events),
    needed(Select::MEMORY, MEM1, "memory.usage_in_bytes", memory::current),
    in_pages("memory.limit_in_bytes", MEM1),
    file(Select::MEMORY, MEM1, "memory.max_usage_in_bytes", memory::peak),
    file(Select::MEMORY, MEM1, "memory.memsw.usage_in_bytes", memory::v1_sum),
    file(Select::MEMORY, MEM1, "memory.oom_control", memory::v1_oom_control),
    file(Select::MEMORY, MEM1, "memory.failcnt", memory::v1_failures),
    file(Select::MEMORY, MEM1, "memory.memsw.failcnt", memory::v1_sum_failures),
    needed(Select::MEMORY_DETAILS, MEM2, "memory.stat", memory::v2_stat),
    needed(Select::MEMORY_DETAILS, MEM1, "memory.stat", memory::v1_stat),
    file(Select::MEMORY_PRESSURE, Home::Unified, "memory.pressure", pressure::memory),
    file(Select::IO, IO2, "io.stat", io::v2_stat),
    file(Select::IO, IO1, "blkio.throttle.io_service_bytes_recursive", io::v1_bytes),
    file(Select::IO, IO1, "blkio.throttle.io_serviced_recursive", io::v1_operations),
    file(Select::IO_PRESSURE, Home::Unified, "io.pressure", pressure::io),
    file(Select::RDMA, RDMA[0], "rdma.current", shared::rdma),
    file(Select::RDMA, RDMA[1], "rdma.current", shared::rdma),
    file(Select::MISC, MISC, "misc.current", shared::misc),
];

/// Read after the others: they need what those have made.
pub(crate) static MISC_EVENTS: File = file(Select::MISC, MISC, "misc.events", shared::misc_events);

/// A file of each size of huge pages.
pub(crate) type ReadPages = fn(&mut Stats, &[u8], PageSize) -> Option<()>;

/// What follows `hugetlb.SIZE.` in the names of those files.
pub(crate) fn hugetlb(version: Version) -> &'static [(&'static str, ReadPages)] {
    match version {
        Version::V1 => &[
            ("usage_in_bytes", shared::pages),
            ("rsvd.usage_in_bytes", shared::reserved),
            ("max_usage_in_bytes", shared::v1_peak),
            ("failcnt", shared::failures),
        ],
        Version::V2 => &[("current", shared::pages), ("rsvd.current", shared::reserved), ("events", shared::failures)],
    }
}
