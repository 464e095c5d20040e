//! What the kernel has counted, and what it could have given.

use crate::draw::Screen;
use crate::options::Options;
use crate::stop::Stop;
use crate::watch::Watch;
use cofferdam_cgroups::{Cgroup, Controllers, CpuStats, Hierarchy, Layout};
use cofferdam_namespaces::Child;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// What a cgroup used in some seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Phase {
    /// Of one core.
    pub(crate) percent: f64,
    /// Refills of the quota, and how many of them came to a cgroup that had used up the one before.
    pub(crate) periods: u64,
    pub(crate) throttled: u64,
}

struct Sample {
    at: Instant,
    cpu: CpuStats,
}

impl Sample {
    fn take(cgroup: &Cgroup) -> Result<Self, Stop> {
        Ok(Sample { at: Instant::now(), cpu: cgroup.cpu_stats()? })
    }

    fn since(&self, before: &Sample) -> Phase {
        let elapsed = (self.at - before.at).as_secs_f64();
        let used = self.cpu.usage.saturating_sub(before.cpu.usage).as_secs_f64();
        let count = |now: Option<u64>, then: Option<u64>| now.unwrap_or(0).saturating_sub(then.unwrap_or(0));
        Phase {
            percent: used / elapsed * 100.0,
            periods: count(self.cpu.nr_periods, before.cpu.nr_periods),
            throttled: count(self.cpu.nr_throttled, before.cpu.nr_throttled),
        }
    }
}

/// Watches one process in its cgroup.
pub(crate) struct Meter<'a> {
    pub(crate) cgroup: &'a Cgroup,
    child: &'a Child,
    watch: &'a Watch,
    period: Duration,
    screen: Screen,
}

impl<'a> Meter<'a> {
    /// A bar's whole width will stand for that many cores.
    pub(crate) fn new(options: &Options, cores: f64, watch: &'a Watch, cgroup: &'a Cgroup, child: &'a Child) -> Self {
        Meter { cgroup, child, watch, period: options.period.get(), screen: Screen::new(options, cores) }
    }

    /// Says what can be looked at from outside.
    pub(crate) fn introduce(&self) -> Result<(), Stop> {
        let cgroup = self.cgroup.paths().next().unwrap_or(Path::new("")).display();
        Ok(self.screen.line(format_args!("process {}, in new namespaces and in {cgroup}", self.child.id()))?)
    }

    /// Lets the process run for that many seconds, shows each of them, and returns what they were together.
    pub(crate) fn phase(&mut self, title: &str, limit: Option<f64>, seconds: u32) -> Result<Phase, Stop> {
        self.screen.title(title, limit)?;
        // Threads need a moment to start; and the period in which a limit is set is only a part of one.
        let settled = Instant::now() + (2 * self.period).max(Duration::from_millis(250));
        self.watch.wait_until(settled, self.child)?;

        let start = Sample::take(self.cgroup)?;
        let mut last = None;
        let (step, steps) = steps(self.period, seconds);
        for number in 1..=steps {
            self.watch.wait_until(start.at + step * number, self.child)?;
            let now = Sample::take(self.cgroup)?;
            self.screen.second(now.at - start.at, now.since(last.as_ref().unwrap_or(&start)).percent)?;
            last = Some(now);
        }
        Ok(last.map_or_else(Phase::default, |last| last.since(&start)))
    }
}

/// About a second and how often, such that each is a whole number of periods: in a part of one all or nothing of its
/// quota may be used.
fn steps(period: Duration, seconds: u32) -> (Duration, u32) {
    let second = Duration::from_secs(1).as_nanos();
    let periods = u32::try_from(second.div_ceil(period.as_nanos().max(1))).unwrap_or(1);
    let step = period * periods;
    let steps = (second * u128::from(seconds)).div_ceil(step.as_nanos().max(1));
    (step, u32::try_from(steps).unwrap_or(seconds))
}

/// What this machine lets us have, whatever the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Room {
    /// CPUs that we may run on.
    pub(crate) cpus: u32,
    /// The narrowest quota of the cgroups above, in cores.
    quota: Option<f64>,
}

impl Room {
    pub(crate) fn look(hierarchy: &Hierarchy) -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).map(|cpus| count(&cpus));
        // An error: there are more CPUs than the set can hold.
        let cpus = allowed.unwrap_or_else(|_| available_parallelism().map_or(1, Into::into));
        Room { cpus: u32::try_from(cpus).unwrap_or(u32::MAX), quota: quota_above(hierarchy.layout()) }
    }

    /// The cores that so many threads can use.
    pub(crate) fn cores_for(self, threads: u32) -> f64 {
        let cores = f64::from(self.cpus.min(threads));
        self.quota.map_or(cores, |quota| cores.min(quota))
    }
}

fn count(cpus: &CpuSet) -> usize {
    (0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu) == Ok(true)).count()
}

/// The cgroups above ours will be our own and those above it (v1), or only the latter (v2). Those that cannot be
/// seen, as from a container, are passed over: what they do shows in the unlimited phase.
fn quota_above(layout: Layout) -> Option<f64> {
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let start = if layout == Layout::V2 { parents(&own).unwrap_or(own) } else { own };
    let chain = std::iter::successors(Some(start), |paths| parents(paths));
    let quotas = chain.filter_map(|paths| {
        let there = Hierarchy::from_proc(&mounts, paths.as_bytes()).ok()?.own(Controllers::CPU).ok()?;
        there.limits().ok()?.cpu.cores()
    });
    quotas.reduce(f64::min)
}

/// The text of `/proc/PID/cgroup`, `1:cpu:/a/b`, for a process one level up; `None` at the top.
fn parents(paths: &str) -> Option<String> {
    let up = |line: &str| {
        let path = line.splitn(3, ':').last().unwrap_or_default();
        let (head, parent) = (&line[..line.len() - path.len()], path.rsplit_once('/').map_or("", |(parent, _)| parent));
        format!("{head}{}\n", if parent.is_empty() { "/" } else { parent })
    };
    let above: String = paths.lines().map(up).collect();
    (above.trim_end() != paths.trim_end()).then_some(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_whole_number_of_periods() {
        let ms = Duration::from_millis;
        for (period, seconds, step, number) in [
            (100, 5, 1000, 5),
            (1, 2, 1000, 2),
            (1000, 3, 1000, 3),
            (700, 2, 1400, 2),
            (300, 6, 1200, 5),
            (999, 1, 1998, 1),
        ] {
            assert_eq!(steps(ms(period), seconds), (ms(step), number), "{period} ms, {seconds} s");
        }
    }

    #[test]
    fn the_time_between_two_samples_counts_and_nothing_else() {
        let at = Instant::now();
        let used = |usage, nr_periods, nr_throttled| {
            let mut cpu = CpuStats::default();
            (cpu.usage, cpu.nr_periods, cpu.nr_throttled) = (Duration::from_millis(usage), nr_periods, nr_throttled);
            cpu
        };
        let before = Sample { at, cpu: used(7000, None, None) };
        let after = Sample { at: at + Duration::from_secs(2), cpu: used(7400, Some(20), Some(19)) };
        assert_eq!(after.since(&before), Phase { percent: 20.0, periods: 20, throttled: 19 });
    }

    #[test]
    fn the_least_of_threads_cpus_and_quota() {
        for (cpus, quota, threads, cores) in
            [(2, None, 1, 1.0), (2, None, 8, 2.0), (4, Some(0.5), 4, 0.5), (4, Some(3.0), 2, 2.0)]
        {
            assert!((Room { cpus, quota }.cores_for(threads) - cores).abs() < 1e-9);
        }
    }

    #[test]
    fn up_the_trees_until_all_are_at_the_top() {
        let own = "4:cpu,cpuacct:/docker/a:b\n1:name=systemd:/\n0::/x\n";
        let up = parents(own).unwrap();
        assert_eq!(up, "4:cpu,cpuacct:/docker\n1:name=systemd:/\n0::/\n");
        let top = parents(&up).unwrap();
        assert_eq!(top, "4:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n");
        assert_eq!(parents(&top), None);
        assert_eq!(parents(""), None);
    }
}
