//! Memory.

use crate::limits::Max;
use crate::policy::memory::parse_limit;
use crate::stats::other::flat_keyed;
use crate::stats::{Other, Stats};
use crate::text::{field, fields, number};

/// The memory of a cgroup and everything below it, in bytes: `memory.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MemoryStats {
    /// How much is in use, page cache included.
    pub current: u64,
    /// How much may be used.
    pub max: Max<u64>,
    /// The most that was in use: `memory.peak` (v2), `memory.max_usage_in_bytes` (v1). `None` on v2 before Linux 5.19.
    pub peak: Option<u64>,
    /// How much swap is in use. On v1 the difference of two counts, which are read one after the other. `None` where
    /// swap is not counted.
    pub swap: Option<u64>,
    /// The most that was in use of swap: `memory.swap.peak`. v2, since Linux 6.5.
    pub swap_peak: Option<u64>,
    /// What has happened for lack of memory.
    pub events: MemoryEvents,
}

/// How often something has happened for lack of memory: `memory.events` (v2), `memory.oom_control` and
/// `memory.failcnt` (v1). `None` where the kernel does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct MemoryEvents {
    /// Memory was reclaimed though there was less than `memory.low`. `None` on v1.
    pub low: Option<u64>,
    /// `memory.high` was exceeded. `None` on v1.
    pub high: Option<u64>,
    /// The limit was about to be exceeded. On v1 that of memory or that of memory and swap together, but Linux 6.18
    /// does not count the latter there, which is the one that is met if there is to be no swap.
    pub max: Option<u64>,
    /// Nothing could be reclaimed at the limit, so that an allocation was going to fail. `None` on v1.
    pub oom: Option<u64>,
    /// Processes that were killed for it, by the limit of whichever cgroup, or of the machine. On v1 those in the cgroup
    /// itself only.
    pub oom_kill: Option<u64>,
    /// How often the whole cgroup was killed for it. `None` on v1.
    pub oom_group_kill: Option<u64>,
    /// What this crate does not know.
    pub other: Other,
}

flat_keyed! {
    /// What memory is used for, in bytes, and how often something has happened to it: `memory.stat`. v1's fields are
    /// those of the cgroup and everything below it (`total_*`), under the names that v2 has for them. Kernel documentation:
    /// `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/memory.rst`.
    MemoryDetails {
        /// Anonymous memory, that of the heap and the stack for example. v1: `rss`.
        anon: b"anon",
        /// The page cache, shared memory included. v1: `cache`.
        file: b"file",
        /// All of the kernel's own.
        kernel: b"kernel",
        /// The kernel's stacks.
        kernel_stack: b"kernel_stack",
        /// Page tables.
        pagetables: b"pagetables",
        /// Secondary page tables, as of virtual machines.
        sec_pagetables: b"sec_pagetables",
        /// The kernel's data of each CPU.
        percpu: b"percpu",
        /// Network buffers.
        sock: b"sock",
        /// Memory mapped by the kernel itself.
        vmalloc: b"vmalloc",
        /// Shared memory: tmpfs, `shm_open(3)`, anonymous `MAP_SHARED`.
        shmem: b"shmem",
        /// What compressed swap takes.
        zswap: b"zswap",
        /// What it holds, before compression.
        zswapped: b"zswapped",
        /// Page cache that is mapped. v1: `mapped_file`.
        file_mapped: b"file_mapped",
        /// Page cache that is yet to be written. v1: `dirty`.
        file_dirty: b"file_dirty",
        /// Page cache that is being written. v1: `writeback`.
        file_writeback: b"file_writeback",
        /// Swap that is cached in memory.
        swapcached: b"swapcached",
        /// Anonymous memory in transparent huge pages. v1: `rss_huge`.
        anon_thp: b"anon_thp",
        /// Page cache in them.
        file_thp: b"file_thp",
        /// Shared memory in them.
        shmem_thp: b"shmem_thp",
        /// Anonymous memory that was not used lately.
        inactive_anon: b"inactive_anon",
        /// Anonymous memory that was.
        active_anon: b"active_anon",
        /// Page cache that was not used lately.
        inactive_file: b"inactive_file",
        /// Page cache that was.
        active_file: b"active_file",
        /// Memory that cannot be reclaimed, as by `mlock(2)`.
        unevictable: b"unevictable",
        /// The kernel's objects that can be reclaimed: dentries and inodes.
        slab_reclaimable: b"slab_reclaimable",
        /// The kernel's objects that cannot.
        slab_unreclaimable: b"slab_unreclaimable",
        /// The kernel's objects.
        slab: b"slab",
        /// Huge pages, where they are counted as memory.
        hugetlb: b"hugetlb",
        /// Anonymous pages that came back after they had been evicted.
        workingset_refault_anon: b"workingset_refault_anon",
        /// Pages of files that did.
        workingset_refault_file: b"workingset_refault_file",
        /// Anonymous pages that were active at once when they came back.
        workingset_activate_anon: b"workingset_activate_anon",
        /// Pages of files that were.
        workingset_activate_file: b"workingset_activate_file",
        /// Anonymous pages that had been active when they were evicted.
        workingset_restore_anon: b"workingset_restore_anon",
        /// Pages of files that had been.
        workingset_restore_file: b"workingset_restore_file",
        /// How often a shadow node was reclaimed.
        workingset_nodereclaim: b"workingset_nodereclaim",
        /// Pages that were looked at to be reclaimed.
        pgscan: b"pgscan",
        /// Of these, by the kernel's thread.
        pgscan_kswapd: b"pgscan_kswapd",
        /// By who needed memory.
        pgscan_direct: b"pgscan_direct",
        /// By the collapsing of huge pages.
        pgscan_khugepaged: b"pgscan_khugepaged",
        /// Because somebody asked for it.
        pgscan_proactive: b"pgscan_proactive",
        /// Pages that were reclaimed.
        pgsteal: b"pgsteal",
        /// Of these, by the kernel's thread.
        pgsteal_kswapd: b"pgsteal_kswapd",
        /// By who needed memory.
        pgsteal_direct: b"pgsteal_direct",
        /// By the collapsing of huge pages.
        pgsteal_khugepaged: b"pgsteal_khugepaged",
        /// Because somebody asked for it.
        pgsteal_proactive: b"pgsteal_proactive",
        /// Page faults.
        pgfault: b"pgfault",
        /// Page faults that had to wait for a device.
        pgmajfault: b"pgmajfault",
        /// Active pages that were looked at.
        pgrefill: b"pgrefill",
        /// Pages that became active.
        pgactivate: b"pgactivate",
        /// Pages that became inactive.
        pgdeactivate: b"pgdeactivate",
        /// Pages that may be freed when memory is short (`MADV_FREE`).
        pglazyfree: b"pglazyfree",
        /// Of these, those that were.
        pglazyfreed: b"pglazyfreed",
        /// Pages of zeros read from swap without a device.
        swpin_zero: b"swpin_zero",
        /// Pages of zeros written to swap without a device.
        swpout_zero: b"swpout_zero",
        /// Pages read from compressed swap.
        zswpin: b"zswpin",
        /// Pages written to it.
        zswpout: b"zswpout",
        /// Pages that it wrote to a device.
        zswpwb: b"zswpwb",
        /// Huge pages allocated for a page fault.
        thp_fault_alloc: b"thp_fault_alloc",
        /// Huge pages made of small ones.
        thp_collapse_alloc: b"thp_collapse_alloc",
        /// Huge pages written to swap in one piece.
        thp_swpout: b"thp_swpout",
        /// Huge pages that had to be split for it.
        thp_swpout_fallback: b"thp_swpout_fallback",
        /// Pages moved between nodes.
        numa_pages_migrated: b"numa_pages_migrated",
        /// Page table entries made to tell of an access.
        numa_pte_updates: b"numa_pte_updates",
        /// Accesses told in that way.
        numa_hint_faults: b"numa_hint_faults",
        /// Pages demoted to slower memory by the kernel's thread.
        pgdemote_kswapd: b"pgdemote_kswapd",
        /// Pages demoted by who needed memory.
        pgdemote_direct: b"pgdemote_direct",
        /// Pages demoted by the collapsing of huge pages.
        pgdemote_khugepaged: b"pgdemote_khugepaged",
        /// Pages demoted because somebody asked for it.
        pgdemote_proactive: b"pgdemote_proactive",
        /// Pages promoted to faster memory.
        pgpromote_success: b"pgpromote_success",
    }
}

fn of(stats: &mut Stats) -> &mut MemoryStats {
    stats.memory.get_or_insert_with(|| MemoryStats {
        current: 0,
        max: Max::Max,
        peak: None,
        swap: None,
        swap_peak: None,
        events: MemoryEvents::default(),
    })
}

pub(super) fn current(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).current = number(text)?;
    Some(())
}

/// In pages: only that tells v1's "no limit" from a limit.
pub(super) fn max(stats: &mut Stats, text: &[u8], page: u64) -> Option<()> {
    of(stats).max = parse_limit(text, page)?;
    Some(())
}

pub(super) fn peak(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).peak = number(text);
    Some(())
}

pub(super) fn v2_swap(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).swap = number(text);
    Some(())
}

pub(super) fn v2_swap_peak(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).swap_peak = number(text);
    Some(())
}

/// The sum of both, after memory alone.
pub(super) fn v1_sum(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let memory = of(stats);
    memory.swap = number(text).map(|sum| sum.saturating_sub(memory.current));
    Some(())
}

pub(crate) fn v2_events(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let events = &mut of(stats).events;
    for (key, value) in fields(text) {
        match key {
            b"low" => events.low = Some(value),
            b"high" => events.high = Some(value),
            b"max" => events.max = Some(value),
            b"oom" => events.oom = Some(value),
            b"oom_kill" => events.oom_kill = Some(value),
            b"oom_group_kill" => events.oom_group_kill = Some(value),
            key => events.other.set(key, value),
        }
    }
    Some(())
}

pub(crate) fn v1_oom_control(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).events.oom_kill = field(text, "oom_kill");
    Some(())
}

/// An allocation is counted here or in that of the sum, by the limit that it met first. This is read first.
pub(crate) fn v1_failures(stats: &mut Stats, text: &[u8]) -> Option<()> {
    of(stats).events.max = number(text);
    Some(())
}

pub(super) fn v1_sum_failures(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let max = &mut of(stats).events.max;
    *max = max.zip(number(text)).map(|(memory, sum)| memory.saturating_add(sum));
    Some(())
}

pub(super) fn v2_stat(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let details = stats.memory_details.get_or_insert_default();
    fields(text).for_each(|(key, value)| details.set(key, value));
    Some(())
}

/// Only the fields with everything below in them, under v2's names.
pub(super) fn v1_stat(stats: &mut Stats, text: &[u8]) -> Option<()> {
    let details = stats.memory_details.get_or_insert_default();
    for (key, value) in fields(text) {
        match key.strip_prefix(b"total_") {
            Some(b"cache") => details.file = Some(value),
            Some(b"rss") => details.anon = Some(value),
            Some(b"rss_huge") => details.anon_thp = Some(value),
            Some(b"mapped_file") => details.file_mapped = Some(value),
            Some(b"dirty") => details.file_dirty = Some(value),
            Some(b"writeback") => details.file_writeback = Some(value),
            Some(key) => details.set(key, value),
            None if key.starts_with(b"hierarchical_") => details.set(key, value),
            None => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = fn(&mut Stats, &[u8]) -> Option<()>;

    fn events(files: &[(Read, &[u8])]) -> MemoryEvents {
        let mut stats = Stats::default();
        for (read, text) in files {
            read(&mut stats, text).unwrap();
        }
        stats.memory.unwrap().events
    }

    /// Of Linux 6.12, and as it was before 4.13.
    #[test]
    fn events_of_v2() {
        let text = b"low 1\nhigh 2\nmax 341\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 7\n";
        let found = events(&[(v2_events, text)]);
        assert_eq!((found.low, found.high, found.max), (Some(1), Some(2), Some(341)));
        assert_eq!((found.oom, found.oom_kill, found.oom_group_kill), (Some(4), Some(5), Some(6)));
        assert_eq!(found.other.get("sock_throttled"), Some(7));
        let older = events(&[(v2_events, b"low 0\nhigh 0\nmax 3\noom 1\n")]);
        assert_eq!((older.max, older.oom, older.oom_kill), (Some(3), Some(1), None));
    }

    #[test]
    fn events_of_v1() {
        let text = b"oom_kill_disable 0\nunder_oom 1\noom_kill 3\n".as_slice();
        let found = events(&[(v1_oom_control, text), (v1_failures, b"17\n"), (v1_sum_failures, b"4\n")]);
        assert_eq!((found.max, found.oom_kill), (Some(21), Some(3)));
        let found = events(&[(v1_oom_control, text), (v1_failures, b"17\n")]);
        assert_eq!(found.max, Some(17));
        // Before Linux 4.13.
        assert_eq!(events(&[(v1_oom_control, b"oom_kill_disable 1\nunder_oom 0\n")]).oom_kill, None);
    }

    #[test]
    fn usage() {
        let mut stats = Stats::default();
        current(&mut stats, b"4096\n").and(v1_sum(&mut stats, b"12288\n")).unwrap();
        max(&mut stats, b"9223372036854771712\n", 4096).unwrap();
        let memory = stats.memory.as_ref().unwrap();
        assert_eq!((memory.current, memory.swap, memory.max), (4096, Some(8192), Max::Max));
        // Swapped in between the two reads.
        v1_sum(&mut stats, b"0\n").unwrap();
        assert_eq!(stats.memory.unwrap().swap, Some(0));
    }

    /// Lines of Linux 6.12 and of 6.18's v1.
    #[test]
    fn details() {
        let mut stats = Stats::default();
        v2_stat(&mut stats, b"anon 1\nfile 2\nkernel 3\nslab_reclaimable 4\npgmajfault 5\nnew_in_7_0 6\n").unwrap();
        let found = stats.memory_details.unwrap();
        assert_eq!((found.anon, found.file, found.slab_reclaimable), (Some(1), Some(2), Some(4)));
        assert_eq!((found.pgmajfault, found.other.get("new_in_7_0")), (Some(5), Some(6)));
        let mut stats = Stats::default();
        let text = b"cache 9\nrss 9\nhierarchical_memory_limit 7\ntotal_cache 1\ntotal_rss 2\ntotal_inactive_file 3\n\
            total_swap 4\ntotal_mapped_file 5\n";
        v1_stat(&mut stats, text).unwrap();
        let found = stats.memory_details.unwrap();
        assert_eq!(
            (found.file, found.anon, found.inactive_file, found.file_mapped),
            (Some(1), Some(2), Some(3), Some(5))
        );
        assert_eq!((found.other.get("swap"), found.other.get("hierarchical_memory_limit")), (Some(4), Some(7)));
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>) {
            let mut stats = Stats::default();
            for read in [current as Read, peak, v2_swap, v1_sum, v2_events, v1_oom_control, v1_failures, v1_sum_failures, v2_stat, v1_stat] {
                let _ = read(&mut stats, &a);
            }
            let _ = max(&mut stats, &a, 0);
        }
    }
}
