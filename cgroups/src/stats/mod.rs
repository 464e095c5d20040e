//! What the kernel has counted: plain data, filled in place, so that a loop that looks again and again allocates
//! nothing. One file for each controller; [`table`] tells which file of the kernel's is read how.

#![allow(
    clippy::unnecessary_wraps,
    reason = "all of the readers in the table have one type, also those that cannot fail"
)]

mod cpu;
mod io;
pub(crate) mod memory;
mod other;
pub(crate) mod pids;
mod pressure;
mod shared;
pub(crate) mod table;
#[cfg(test)]
mod texts_tests;

use std::collections::BTreeMap;

use bitflags::bitflags;

pub use cpu::{CpuStats, CpuTime};
pub use io::{IoDeviceStats, IoStats};
pub use memory::{MemoryDetails, MemoryEvents, MemoryStats};
pub use other::Other;
pub use pids::PidsStats;
pub use pressure::{Pressure, Stall};
pub use shared::{HugetlbStats, MiscStats, RdmaStats};

use crate::limits::PageSize;

bitflags! {
    /// Which statistics to read. Each costs one system call and a few microseconds for each of its files, most of
    /// all [`MEMORY_DETAILS`](Self::MEMORY_DETAILS).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Select: u32 {
        /// [`Stats::cpu`].
        const CPU = 1;
        /// [`Stats::cpu_each`].
        const CPU_EACH = 1 << 1;
        /// [`Stats::cpu_pressure`].
        const CPU_PRESSURE = 1 << 2;
        /// [`Stats::pids`].
        const PIDS = 1 << 3;
        /// [`Stats::memory`].
        const MEMORY = 1 << 4;
        /// [`Stats::memory_details`].
        const MEMORY_DETAILS = 1 << 5;
        /// [`Stats::memory_pressure`].
        const MEMORY_PRESSURE = 1 << 6;
        /// [`Stats::io`].
        const IO = 1 << 7;
        /// [`Stats::io_pressure`].
        const IO_PRESSURE = 1 << 8;
        /// [`Stats::hugetlb`].
        const HUGETLB = 1 << 9;
        /// [`Stats::rdma`].
        const RDMA = 1 << 10;
        /// [`Stats::misc`].
        const MISC = 1 << 11;
    }
}

/// Statistics of a cgroup and everything below it. What was not selected, and what this cgroup or this kernel does not
/// have, is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<CpuStats>,
    /// CPU time on each CPU, in their order. v1 only.
    pub cpu_each: Vec<CpuTime>,
    /// Waiting for a CPU.
    pub cpu_pressure: Option<Pressure>,
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Memory in use, and what has happened for lack of it.
    pub memory: Option<MemoryStats>,
    /// What the memory is used for.
    pub memory_details: Option<MemoryDetails>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Block devices.
    pub io: Option<IoStats>,
    /// Waiting for block devices.
    pub io_pressure: Option<Pressure>,
    /// Huge pages, by size.
    pub hugetlb: BTreeMap<PageSize, HugetlbStats>,
    /// RDMA, by device.
    pub rdma: BTreeMap<String, RdmaStats>,
    /// Other countable resources, by name.
    pub misc: BTreeMap<String, MiscStats>,
}
