//! Files that are kept current.

use std::fs::File;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Op, Result};
use crate::sampler::Sampler;
use crate::stats::{Select, Stats};
use crate::view::render::{self, CpuTimes, Memory};
use crate::view::{Ceiling, LoadAverage, QuotaView};

/// How often the kernel counts for the load averages.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Keeps files current that show a container its own share: `meminfo`, `swaps`, `stat`, `uptime`, `loadavg`, `cpuinfo`,
/// `diskstats` and `online`, the last one for `/sys/devices/system/cpu/online`. They are rewritten in place, because a
/// bind mount is of a file, not of a name. Who reads at that very moment may see the old and the new together.
///
/// ```no_run
/// use cofferdam_cgroups::view::{QuotaView, Snapshot};
/// # use cofferdam_cgroups::{Controllers, Hierarchy};
/// # use std::os::fd::AsFd;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let hierarchy = Hierarchy::detect()?;
/// let job = hierarchy.create("job", Controllers::CPU | Controllers::MEMORY | Controllers::PIDS)?;
/// let directory = std::fs::File::open("/run/job-1/proc")?; // on a tmpfs
/// let mut snapshot = Snapshot::new(&job, directory.as_fd(), QuotaView::HidesCpus)?;
/// // ... bind-mount each file over the one in the container's /proc; then, every second or so:
/// snapshot.update()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Snapshot {
    sampler: Sampler,
    ceiling: Ceiling,
    quota: QuotaView,
    files: Vec<(&'static str, OwnedFd)>,
    started: (Instant, u64),
    shown: Vec<CpuTimes>,
    load: LoadAverage,
    /// Its threads are counted here.
    cgroup: Cgroup,
    active: u64,
    counted: Instant,
}

const NAMES: [&str; 8] = ["meminfo", "swaps", "stat", "uptime", "loadavg", "cpuinfo", "diskstats", "online"];

impl Snapshot {
    /// Makes the files in a directory, in the place of any that are there. The container is taken to start now. The
    /// limits are read now: make another one when they change.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`]; if a file cannot be made (one that is there and is a symbolic link is not followed).
    pub fn new(cgroup: &Cgroup, directory: BorrowedFd<'_>, quota: QuotaView) -> Result<Self> {
        let select = Select::CPU | Select::PIDS | Select::MEMORY | Select::MEMORY_DETAILS | Select::IO;
        let open = |name: &'static str| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = retry_on_intr(|| rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o444)));
            fd.map(|fd| (name, fd)).map_err(|errno| Error::os(errno, Op::Open, name))
        };
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let now = Instant::now();
        let mut snapshot = Snapshot {
            sampler: cgroup.sampler(select)?,
            ceiling: cgroup.ceiling()?,
            quota,
            files: NAMES.into_iter().map(open).collect::<Result<_>>()?,
            started: (now, since),
            shown: Vec::new(),
            load: LoadAverage::default(),
            cgroup: cgroup.open_below("")?,
            active: cgroup.active_threads()?,
            counted: now,
        };
        snapshot.update()?;
        Ok(snapshot)
    }

    /// Rewrites all of the files. Reads the host's `/proc`, as this process sees it. Every five seconds the threads that run
    /// are counted, one by one, for the load averages; who calls this more rarely is taken to have found the same all along.
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] when the cgroup was deleted; what the file system says.
    pub fn update(&mut self) -> Result<()> {
        self.sampler.sample()?;
        let stats = self.sampler.stats();
        let elapsed = self.started.0.elapsed();
        let host_cpuinfo = host("/proc/cpuinfo")?;
        let cpuinfo = String::from_utf8_lossy(&host_cpuinfo);
        let on_host = cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1);
        let cpus = self.ceiling.cpus_shown(on_host, self.quota);
        let used = stats.cpu.clone().unwrap_or_default();
        let tasks = stats.pids.as_ref().map_or(0, |pids| pids.current);
        let shown = render::spread(used.user, used.system, elapsed, cpus, &self.shown);
        let idle = shown.iter().map(|cpu| cpu.idle).sum();
        let meminfo = host("/proc/meminfo")?;
        let memory = memory(stats, &self.ceiling);
        if self.counted.elapsed() >= COUNT_EVERY {
            self.active = self.cgroup.active_threads()?;
        }
        while self.counted.elapsed() >= COUNT_EVERY {
            self.load.update(self.active);
            self.counted += COUNT_EVERY;
        }
        for (name, fd) in &self.files {
            let text = match *name {
                "meminfo" => render::meminfo(&meminfo, &memory),
                "swaps" => render::swaps(&meminfo, &memory),
                "stat" => render::stat(&shown, self.started.1, tasks, self.active),
                "uptime" => render::uptime(elapsed, idle),
                "loadavg" => render::loadavg(&self.load, self.active, tasks, 1),
                "cpuinfo" => render::cpuinfo(&cpuinfo, self.ceiling.cpus.as_ref(), cpus),
                "diskstats" => render::diskstats(&host("/proc/diskstats")?, &stats.io.clone().unwrap_or_default()),
                _ => render::cpu_online(cpus),
            };
            rewrite(name, fd, text.as_bytes())?;
        }
        self.shown = shown;
        Ok(())
    }
}

fn memory(stats: &Stats, ceiling: &Ceiling) -> Memory {
    let used = stats.memory.as_ref();
    let mut memory = Memory::new(used.map_or(0, |memory| memory.current), ceiling.memory);
    memory.swap_limit = ceiling.swap;
    memory.swap_used = used.and_then(|memory| memory.swap).unwrap_or(0);
    memory.details = stats.memory_details.clone().unwrap_or_default();
    memory
}

fn host(path: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let kind =
                if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::Unsupported } else { ErrorKind::Os };
            Err(match rustix::io::Errno::from_io_error(&error) {
                Some(errno) => Error::os(errno, Op::Read, path).with_kind(kind),
                None => Error::new(kind, Op::Read, path),
            })
        }
    }
}

/// In one write, so that there is hardly a moment in between; then without what was longer before.
fn rewrite(name: &str, fd: &OwnedFd, text: &[u8]) -> Result<()> {
    let failed = |errno| Error::os(errno, Op::Write, Path::new(name));
    let mut done = 0;
    while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
        done += retry_on_intr(|| rustix::io::pwrite(fd, rest, done as u64)).map_err(failed)?;
    }
    rustix::fs::ftruncate(fd, text.len() as u64).map_err(failed)
}
