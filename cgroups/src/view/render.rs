//! Pure functions: from statistics, limits and the host's texts to the texts that a container is shown. Formats:
//! `proc_meminfo(5)` and its like.

use std::fmt::Write;
use std::time::Duration;

use crate::limits::IdList;
use crate::stats::{IoStats, MemoryDetails};
use crate::text::{number, words};
use crate::view::LoadAverage;

/// Ticks of a second, in which `/proc/stat` counts: `USER_HZ`.
const TICKS: u128 = 100;

/// What there is of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The limit; the machine's memory if there is none.
    pub limit: Option<u64>,
    /// In use.
    pub used: u64,
    /// The limit of swap; the machine's swap if there is none.
    pub swap_limit: Option<u64>,
    /// Swap in use.
    pub swap_used: u64,
    /// What the memory is used for.
    pub details: MemoryDetails,
}

impl Memory {
    /// That much in use, of that much.
    #[must_use]
    pub fn new(used: u64, limit: Option<u64>) -> Self {
        Memory { limit, used, ..Memory::default() }
    }
}

/// A value in a text of the form of `/proc/meminfo`, in bytes.
fn host_value(host: &[u8], key: &str) -> Option<u64> {
    host.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(key.as_bytes())?.strip_prefix(b":")?;
        number(words(rest).next()?).map(|kib| kib.saturating_mul(1024))
    })
}

/// Total and used swap: never more than the machine has.
fn swap(host: &[u8], memory: &Memory) -> (u64, u64) {
    let there = host_value(host, "SwapTotal").unwrap_or(0);
    let total = memory.swap_limit.map_or(there, |limit| limit.min(there));
    (total, memory.swap_used.min(total))
}

/// `/proc/meminfo`. The total is the limit, but never more than the machine has; what is free is what is left of it;
/// what is available is that and what can be reclaimed. Lines that are not about the cgroup stay the host's.
#[must_use]
pub fn meminfo(host: &[u8], memory: &Memory) -> String {
    let there = host_value(host, "MemTotal").unwrap_or(0);
    let total = memory.limit.map_or(there, |limit| limit.min(there));
    let free = total.saturating_sub(memory.used);
    let details = &memory.details;
    let of = |field: Option<u64>| field.unwrap_or(0);
    let file = of(details.active_file).saturating_add(of(details.inactive_file));
    let anon = of(details.active_anon).saturating_add(of(details.inactive_anon));
    let available = free.saturating_add(file).saturating_add(of(details.slab_reclaimable)).min(total);
    let (swap_total, swap_used) = swap(host, memory);
    let mut text = String::with_capacity(host.len());
    for line in String::from_utf8_lossy(host).lines() {
        let Some((key, _)) = line.split_once(':') else { continue };
        let bytes = match key {
            "MemTotal" => total,
            "MemFree" => free,
            "MemAvailable" => available,
            "Buffers" => 0,
            "Cached" => of(details.file),
            "SwapCached" => of(details.swapcached),
            "Active" => of(details.active_anon).saturating_add(of(details.active_file)),
            "Inactive" => of(details.inactive_anon).saturating_add(of(details.inactive_file)),
            "Active(anon)" => of(details.active_anon),
            "Inactive(anon)" => of(details.inactive_anon),
            "Active(file)" => of(details.active_file),
            "Inactive(file)" => of(details.inactive_file),
            "Unevictable" | "Mlocked" => of(details.unevictable),
            "SwapTotal" => swap_total,
            "SwapFree" => swap_total - swap_used,
            "Dirty" => of(details.file_dirty),
            "Writeback" => of(details.file_writeback),
            "AnonPages" => anon.saturating_sub(of(details.shmem)),
            "Mapped" => of(details.file_mapped),
            "Shmem" => of(details.shmem),
            "KReclaimable" | "SReclaimable" => of(details.slab_reclaimable),
            "Slab" => of(details.slab_reclaimable).saturating_add(of(details.slab_unreclaimable)),
            "SUnreclaim" => of(details.slab_unreclaimable),
            "KernelStack" => of(details.kernel_stack),
            "PageTables" => of(details.pagetables),
            "AnonHugePages" => of(details.anon_thp),
            _ => {
                text.push_str(line);
                text.push('\n');
                continue;
            }
        };
        let label = [key, ":"].concat();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<15} {:>8} kB", bytes / 1024);
    }
    text
}

/// `/proc/swaps`: one, as large as may be used, or none.
#[must_use]
pub fn swaps(host_meminfo: &[u8], memory: &Memory) -> String {
    let (total, used) = swap(host_meminfo, memory);
    let mut text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_owned();
    if total > 0 {
        let _ = writeln!(text, "none\t\t\t\tvirtual\t\t{}\t\t{}\t\t0", total / 1024, used / 1024);
    }
    text
}

/// `/sys/devices/system/cpu/online` of a machine with so many CPUs.
#[must_use]
pub fn cpu_online(cpus: usize) -> String {
    match cpus {
        0 | 1 => "0\n".to_owned(),
        more => format!("0-{}\n", more - 1),
    }
}

/// `/proc/cpuinfo`, with the first `cpus` of the host's processors that are in `allowed`, numbered from 0.
#[must_use]
pub fn cpuinfo(host: &str, allowed: Option<&IdList>, cpus: usize) -> String {
    let mut text = String::new();
    let mut shown = 0usize;
    for block in host.split_inclusive("\n\n") {
        let mut lines = block.lines();
        let number = lines.next().and_then(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim_end() == "processor").then(|| value.trim().parse::<u32>().ok())?
        });
        let Some(number) = number else {
            text.push_str(block);
            continue;
        };
        if shown < cpus && allowed.is_none_or(|allowed| allowed.contains(number)) {
            let _ = writeln!(text, "processor\t: {shown}");
            lines.for_each(|line| text.extend([line, "\n"]));
            shown += 1;
        }
    }
    text
}

/// CPU time on one CPU that is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Not at all.
    pub idle: Duration,
}

/// CPU time of a whole cgroup, on each of so many CPUs: spread evenly, with what is not used idle. v2 does not tell
/// which CPU it was. Counts never go back: `before` is what was shown last.
#[must_use]
pub fn spread(user: Duration, system: Duration, elapsed: Duration, cpus: usize, before: &[CpuTimes]) -> Vec<CpuTimes> {
    let count = u32::try_from(cpus.max(1)).unwrap_or(u32::MAX);
    let (user, system) = (user / count, system / count);
    let idle = elapsed.saturating_sub(user).saturating_sub(system);
    let last = |at: usize| before.get(at).copied().unwrap_or_default();
    let one = |at| CpuTimes {
        user: user.max(last(at).user),
        system: system.max(last(at).system),
        idle: idle.max(last(at).idle),
    };
    (0..cpus.max(1)).map(one).collect()
}

/// `/proc/stat`: the CPUs, when the container was started (seconds since 1970), and how many processes it has.
#[must_use]
pub fn stat(cpus: &[CpuTimes], started: u64, processes: u64, running: u64) -> String {
    let ticks = |time: Duration| time.as_micros() * TICKS / 1_000_000;
    let sum = cpus.iter().fold([0; 3], |sum: [u128; 3], cpu| {
        let [user, system, idle] = sum;
        [user + ticks(cpu.user), system + ticks(cpu.system), idle + ticks(cpu.idle)]
    });
    let line = |name: &str, [user, system, idle]: [u128; 3]| format!("{name} {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    let mut text = line("cpu ", sum);
    for (at, cpu) in cpus.iter().enumerate() {
        text.push_str(&line(&format!("cpu{at}"), [ticks(cpu.user), ticks(cpu.system), ticks(cpu.idle)]));
    }
    let _ = write!(
        text,
        "intr 0\nctxt 0\nbtime {started}\nprocesses {processes}\nprocs_running {running}\nprocs_blocked 0\nsoftirq 0\n"
    );
    text
}

/// `/proc/uptime`: for how long the container runs, and for how long its CPUs were idle, all together.
#[must_use]
pub fn uptime(elapsed: Duration, idle: Duration) -> String {
    let seconds = |time: Duration| format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10);
    format!("{} {}\n", seconds(elapsed), seconds(idle))
}

/// `/proc/loadavg`.
#[must_use]
pub fn loadavg(load: &LoadAverage, running: u64, total: u64, last_pid: u32) -> String {
    let [one, five, fifteen] = load.averages().map(|(whole, part)| format!("{whole}.{part:02}"));
    format!("{one} {five} {fifteen} {running}/{total} {last_pid}\n")
}

/// `/proc/diskstats`: the devices that the cgroup has used, under the host's names. What the cgroup does not count, such as times,
/// is 0.
#[must_use]
pub fn diskstats(host: &[u8], io: &IoStats) -> String {
    /// Of a sector there.
    const BYTES: u64 = 512;
    let mut text = String::new();
    for line in host.split(|byte| *byte == b'\n') {
        let mut fields = words(line);
        let mut id = || u32::try_from(number(fields.next()?)?).ok();
        let (Some(major), Some(minor)) = (id(), id()) else { continue };
        let (Some(name), Some(one)) = (fields.next(), io.devices.get(&crate::Device::new(major, minor))) else {
            continue;
        };
        let _ = writeln!(
            text,
            "{major:>4} {minor:>7} {} {} 0 {} 0 {} 0 {} 0 0 0 0 {} 0 {} 0 0 0",
            String::from_utf8_lossy(name),
            one.reads,
            one.read_bytes / BYTES,
            one.writes,
            one.written_bytes / BYTES,
            one.discards,
            one.discarded_bytes / BYTES,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, IoDeviceStats};
    use proptest::prelude::*;

    const HOST: &[u8] = b"MemTotal:       24684092 kB\nMemFree:        19697628 kB\nMemAvailable:   23717252 kB\n\
        Buffers:          136308 kB\nCached:          3932544 kB\nSwapTotal:       1000000 kB\nSwapFree:         900000 kB\n\
        AnonPages:       5000000 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n";
    const MIB: u64 = 1 << 20;

    fn value(text: &str, key: &str) -> u64 {
        host_value(text.as_bytes(), key).unwrap()
    }

    #[test]
    fn memory_is_that_of_the_cgroup() {
        let mut memory = Memory::new(100 * MIB, Some(256 * MIB));
        memory.details.inactive_file = Some(30 * MIB);
        memory.details.slab_reclaimable = Some(10 * MIB);
        memory.details.file = Some(50 * MIB);
        (memory.details.active_anon, memory.details.shmem) = (Some(40 * MIB), Some(20 * MIB));
        (memory.swap_limit, memory.swap_used) = (Some(64 * MIB), 16 * MIB);
        let text = meminfo(HOST, &memory);
        assert_eq!((value(&text, "MemTotal"), value(&text, "MemFree")), (256 * MIB, 156 * MIB));
        assert_eq!((value(&text, "MemAvailable"), value(&text, "Cached")), (196 * MIB, 50 * MIB));
        assert_eq!((value(&text, "SwapTotal"), value(&text, "SwapFree")), (64 * MIB, 48 * MIB));
        assert_eq!(value(&text, "AnonPages"), 20 * MIB);
        assert!(text.starts_with("MemTotal:         262144 kB\n") && text.contains("HugePages_Total:       0\n"));
        assert!(swaps(HOST, &memory).ends_with("virtual\t\t65536\t\t16384\t\t0\n"));
    }

    #[test]
    fn without_limits_it_is_that_of_the_machine() {
        let text = meminfo(HOST, &Memory::new(0, None));
        assert_eq!(value(&text, "MemTotal"), 24_684_092 * 1024);
        // A limit beyond it changes nothing, and more in use than there may be leaves nothing.
        assert_eq!(value(&meminfo(HOST, &Memory::new(0, Some(u64::MAX))), "MemTotal"), 24_684_092 * 1024);
        assert_eq!(value(&meminfo(HOST, &Memory::new(9 * MIB, Some(MIB))), "MemFree"), 0);
        let mut none = Memory::new(0, None);
        none.swap_limit = Some(0);
        assert_eq!(swaps(HOST, &none).lines().count(), 1);
    }

    #[test]
    fn cpus_are_renumbered() {
        let block = |n: u32| format!("processor\t: {n}\nmodel name\t: X{n}\n\n");
        let host: String = (0..4).map(block).collect();
        let text = cpuinfo(&host, Some(&"1,3".parse().unwrap()), 8);
        assert_eq!(text, "processor\t: 0\nmodel name\t: X1\n\nprocessor\t: 1\nmodel name\t: X3\n\n");
        assert_eq!(cpuinfo(&host, None, 1), block(0));
        assert_eq!((cpu_online(1), cpu_online(4)), ("0\n".to_owned(), "0-3\n".to_owned()));
    }

    #[test]
    fn times_are_spread_and_never_go_back() {
        let s = Duration::from_secs;
        let first = spread(s(6), s(2), s(10), 2, &[]);
        assert_eq!(first, vec![CpuTimes { user: s(3), system: s(1), idle: s(6) }; 2]);
        let later = spread(s(6), s(2), s(9), 2, &first);
        assert_eq!(later, first);
        let text = stat(&first, 7, 3, 1);
        assert!(text.starts_with("cpu  600 0 200 1200 0 0 0 0 0 0\ncpu0 300 0 100 600 0 0 0 0 0 0\ncpu1 "), "{text}");
        assert!(text.contains("\nbtime 7\nprocesses 3\nprocs_running 1\n"));
        assert_eq!(uptime(Duration::from_millis(61_239), s(5)), "61.23 5.00\n");
        assert_eq!(loadavg(&LoadAverage::default(), 1, 2, 3), "0.00 0.00 0.00 1/2 3\n");
    }

    #[test]
    fn disks_are_those_that_were_used() {
        let mut io = IoStats::default();
        let one = IoDeviceStats { reads: 2, read_bytes: 4096, writes: 1, written_bytes: 512, ..Default::default() };
        io.devices.insert(Device::new(8, 1), one);
        let host = b"   8       0 sda 9 9 9 9 9 9 9 9 9 9 9\n   8       1 sda1 9 9 9 9\nx\n";
        assert_eq!(diskstats(host, &io), "   8       1 sda1 2 0 8 0 1 0 1 0 0 0 0 0 0 0 0 0 0\n");
    }

    proptest! {
        #[test]
        fn never_panics(host: Vec<u8>, used: u64, limit: Option<u64>, cpus in 0usize..50) {
            let memory = Memory { swap_limit: limit, swap_used: used, ..Memory::new(used, limit) };
            let _ = (meminfo(&host, &memory), swaps(&host, &memory), diskstats(&host, &IoStats::default()));
            let _ = cpuinfo(&String::from_utf8_lossy(&host), None, cpus);
            let _ = stat(&spread(Duration::from_micros(used), Duration::MAX, Duration::MAX, cpus, &[]), used, used, used);
        }

        #[test]
        fn free_and_used_are_the_total(used: u64, limit in 1024u64.., total in 1u64..1 << 40) {
            let host = format!("MemTotal: {total} kB\nMemFree: 0 kB\n");
            let text = meminfo(host.as_bytes(), &Memory::new(used, Some(limit)));
            let (all, free) = (value(&text, "MemTotal"), value(&text, "MemFree"));
            prop_assert!(free <= all && all <= total * 1024 && all <= limit);
        }
    }
}
