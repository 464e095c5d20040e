//! What kernels of several versions have really said, and the names that they are known to have.

use super::table::{self, Home, Read};
use super::{MemoryDetails, Select, Stats, memory};
use crate::layout::Version;
use crate::text::fields;

/// Copied from `/sys/fs/cgroup` while a program ran. Each file begins with a line of its folder and its name; that of v2 is
/// called `unified`.
const HYBRID_6_18: &[u8] = include_bytes!("texts/6.18-hybrid.txt");
const V2_6_12: &[u8] = include_bytes!("texts/6.12-v2.txt");
const V1_6_1: &[u8] = include_bytes!("texts/6.1-v1.txt");

/// `memory.stat` of older kernels, as `memory_stat_format` in `mm/memcontrol.c` makes it. Linux 5.4:
const MEMORY_5_4: &str = "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp \
    inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault \
    workingset_refault workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree \
    pglazyfreed thp_fault_alloc thp_collapse_alloc";
/// Linux 5.10.
const MEMORY_5_10: &str = "anon file kernel_stack percpu sock shmem file_mapped file_dirty file_writeback anon_thp \
    inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable slab \
    workingset_refault_anon workingset_refault_file workingset_activate_anon workingset_activate_file \
    workingset_restore_anon workingset_restore_file workingset_nodereclaim pgfault pgmajfault pgrefill pgscan pgsteal \
    pgactivate pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc";
/// Linux 5.15.
const MEMORY_5_15: &str = "anon file kernel_stack pagetables percpu sock shmem file_mapped file_dirty file_writeback \
    swapcached anon_thp file_thp shmem_thp inactive_anon active_anon inactive_file active_file unevictable \
    slab_reclaimable slab_unreclaimable slab workingset_refault_anon workingset_refault_file workingset_activate_anon \
    workingset_activate_file workingset_restore_anon workingset_restore_file workingset_nodereclaim pgfault pgmajfault \
    pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc";

/// The files in one of the texts: folder, name, what it said.
fn files(text: &'static [u8]) -> Vec<(&'static str, &'static str, &'static [u8])> {
    let text = std::str::from_utf8(text).unwrap();
    let part = |part: &'static str| {
        let (path, said) = part.split_once('\n').unwrap();
        let (folder, name) = path.split_once('/').unwrap();
        (folder, name, said.as_bytes())
    };
    text.split("==> ").skip(1).map(part).collect()
}

/// Reads them all, each by the reader that the table has for it.
fn read(text: &'static [u8]) -> Stats {
    let mut stats = Stats::default();
    let all = files(text);
    for file in table::FILES.iter().chain([&table::MISC_EVENTS]) {
        let is_v2 = match file.home {
            Home::Of(_, version) => version == Version::V2,
            Home::Unified | Home::UnifiedCpu => true,
        };
        let is_it = |(folder, name, _): &&(&str, &str, &[u8])| *name == file.name && (*folder == "unified") == is_v2;
        let Some((folder, name, said)) = all.iter().find(is_it) else { continue };
        // A hybrid's unified tree tells nothing that v1 does not.
        if file.select == Select::CPU && is_v2 && all.iter().any(|(folder, ..)| *folder == "cpuacct") {
            continue;
        }
        let parsed = match file.read {
            Read::Plain(read) => read(&mut stats, said),
            Read::InPages(read) => read(&mut stats, said, 4096),
        };
        assert!(parsed.is_some(), "{folder}/{name}");
    }
    stats
}

fn said(text: &'static [u8], folder: &str, name: &str) -> &'static [u8] {
    files(text).into_iter().find(|file| (file.0, file.1) == (folder, name)).unwrap().2
}

/// Every line is found again by its name; those that have no field of their own are these.
fn every_line_is_kept(details: &MemoryDetails, text: &[u8], unknown: &[&str]) {
    for (name, value) in fields(text) {
        let name = std::str::from_utf8(name).unwrap();
        assert_eq!(details.get(name), Some(value), "{name}");
    }
    assert_eq!(details.other.iter().map(|(name, _)| name).collect::<Vec<_>>(), unknown);
}

#[test]
fn memory_of_older_kernels() {
    let versions =
        [(MEMORY_5_4, &["workingset_refault", "workingset_activate"][..]), (MEMORY_5_10, &[]), (MEMORY_5_15, &[])];
    for (names, unknown) in versions {
        let lines = names.split(' ').enumerate().map(|(number, name)| format!("{name} {}\n", number + 1));
        let text = lines.collect::<String>();
        let mut stats = Stats::default();
        memory::v2_stat(&mut stats, text.as_bytes()).unwrap();
        every_line_is_kept(&stats.memory_details.unwrap(), text.as_bytes(), unknown);
    }
}

#[test]
fn a_hybrid_of_6_18() {
    let stats = read(HYBRID_6_18);
    let cpu = stats.cpu.unwrap();
    assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.nr_bursts), (Some(10), Some(10), Some(0)));
    assert!(cpu.usage > cpu.user && cpu.user.as_nanos() > 0 && cpu.other.iter().next().is_none(), "{cpu:?}");
    assert_eq!(stats.cpu_each.len(), 2);
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.peak, pids.events_max), (2, Some(4), Some(0)));
    let memory = stats.memory.unwrap();
    assert_eq!(memory.max, crate::Max::Limit(39_997_440));
    assert_eq!((memory.events.oom_kill, memory.swap), (Some(0), Some(0)));
    let details = stats.memory_details.unwrap();
    assert_eq!((details.file, details.anon), (Some(4_354_048), Some(135_168)));
    let unknown = ["hierarchical_memory_limit", "hierarchical_memsw_limit", "swap", "pgpgin", "pgpgout"];
    assert_eq!(details.other.iter().map(|(name, _)| name).collect::<Vec<_>>(), unknown);
    let told = fields(said(HYBRID_6_18, "memory", "memory.stat"));
    let renamed = |name: &[u8]| match name {
        b"cache" => "file".to_owned(),
        b"rss" => "anon".to_owned(),
        b"rss_huge" => "anon_thp".to_owned(),
        b"mapped_file" => "file_mapped".to_owned(),
        b"dirty" => "file_dirty".to_owned(),
        b"writeback" => "file_writeback".to_owned(),
        name => String::from_utf8_lossy(name).into_owned(),
    };
    for (name, value) in told.filter_map(|(name, value)| Some((name.strip_prefix(b"total_")?, value))) {
        assert_eq!(details.get(&renamed(name)), Some(value));
    }
    let io = stats.io.unwrap();
    let one = &io.devices[&crate::Device::new(254, 0)];
    assert_eq!((one.read_bytes, one.written_bytes, one.discarded_bytes), (4_059_136, 20_979_712, 20_971_520));
    assert_eq!((one.reads, one.writes, one.discards, io.devices.len()), (91, 8, 2, 1));
    for pressure in [stats.cpu_pressure, stats.memory_pressure, stats.io_pressure] {
        assert!(pressure.unwrap().full.is_some());
    }
}

#[test]
fn v1_of_6_1() {
    let stats = read(V1_6_1);
    let cpu = stats.cpu.unwrap();
    assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.nr_bursts), (Some(83), Some(81), Some(0)));
    assert_eq!((cpu.usage.as_nanos(), cpu.throttled.unwrap().as_nanos()), (1_640_354_348, 6_131_407_092));
    assert_eq!((cpu.user.as_millis(), cpu.system.as_millis(), stats.cpu_each.len()), (168, 876, 2));
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.max, pids.events_max), (2, crate::Max::Max, Some(0)));
    let memory = stats.memory.unwrap();
    assert_eq!((memory.current, memory.max), (7_593_984, crate::Max::Limit(39_997_440)));
    assert_eq!((memory.peak, memory.swap, memory.events.oom_kill), (Some(26_771_456), Some(581_632), Some(0)));
    let details = stats.memory_details.unwrap();
    assert_eq!((details.file, details.anon, details.get("pgmajfault")), (Some(8_347_648), Some(249_856), Some(20)));
    assert!(stats.rdma.is_empty() && stats.misc.is_empty());
}

#[test]
fn v2_of_6_12() {
    let stats = read(V2_6_12);
    let cpu = stats.cpu.unwrap();
    assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.nr_bursts), (Some(479), Some(478), Some(0)));
    assert_eq!(cpu.usage.as_micros(), 9_579_193);
    assert!(cpu.nice.is_some() && cpu.burst.is_some() && cpu.other.iter().next().is_none(), "{cpu:?}");
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.max, pids.peak, pids.events_max), (2, crate::Max::Max, Some(4), Some(0)));
    let memory = stats.memory.unwrap();
    assert_eq!((memory.current, memory.max), (5_013_504, crate::Max::Limit(39_997_440)));
    assert_eq!((memory.peak, memory.swap, memory.swap_peak), (Some(26_550_272), Some(0), Some(0)));
    assert_eq!((memory.events.oom_group_kill, memory.events.other.iter().next()), (Some(0), None));
    every_line_is_kept(&stats.memory_details.unwrap(), said(V2_6_12, "unified", "memory.stat"), &[]);
    assert!(stats.rdma.is_empty() && stats.misc.is_empty());
    let lost =
        [stats.cpu_pressure, stats.memory_pressure, stats.io_pressure].map(|one| one.unwrap().some.total.as_micros());
    assert_eq!(lost, [31_305_707, 0, 54_480]);
}

/// Linux 5.15 to 5.18 do not end the line of a device that has nothing to tell; some kernels do not know a device's numbers;
/// and who reads at that moment sees a line that has just begun.
#[test]
fn lines_of_devices_as_they_come() {
    let text = b"8:0 rbytes=7480011776 wbytes=72376660480 rios=371580 wios=11547682 dbytes=53315555840 dios=301674\n\
        7:7 7:6 7:5 7:4 rbytes=28672 wbytes=0 rios=22 wios=0 dbytes=0 dios=0\n\
        (unknown) rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 \n252:0 ";
    let mut stats = Stats::default();
    super::io::v2_stat(&mut stats, text).unwrap();
    let io = stats.io.unwrap();
    let devices: Vec<_> = io.devices.iter().map(|(device, one)| (device.to_string(), one.read_bytes)).collect();
    assert_eq!(devices, [("7:4".to_owned(), 28_672), ("8:0".to_owned(), 7_480_011_776)]);
    let mut stats = Stats::default();
    super::io::v1_bytes(&mut stats, b"(unknown) Read 5\n8:0 Read 7\n8:0 Total 7\nTotal 7\n").unwrap();
    assert_eq!(stats.io.unwrap().total().read_bytes, 7);
}
